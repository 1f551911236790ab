"""The event log's copy behind an address: what a lost machine leaves, and who may write."""

import json
import os
import socket
import time
from pathlib import Path

import pytest

from spaces.errors import UserError
from spaces.remote import Remote
from tests.test_event_log import reported
from tests.test_store import wait_for
from tracking import mirror
from tracking.events import Event
from tracking.log import EventLog, read_events

FACTS = [Event("opened"), Event("proposed", 1, "a"), *(reported(1, epoch) for epoch in range(1, 9))]


def write(home: Path, address: str, *events: Event) -> tuple[str, ...]:
    """Append, seal, copy and close; returns what opening warned of."""
    with EventLog.open(home, segment=4, address=address) as log:
        for event in events:
            log.append(event)
        return log.warnings


def copied(address: str) -> list[str]:
    return Remote(f"{address}/events").names("")


def test_a_closed_log_is_copied_to_its_last_fact(tmp_path: Path, address: str) -> None:
    assert write(tmp_path / "a", address, *FACTS) == ()
    assert copied(address) == ["000000.jsonl", "000001.jsonl", "000002.jsonl"], "and nobody writes any more"
    (warning,) = write(tmp_path / "b", address)
    assert "restored 000000.jsonl ... 000002.jsonl from " + address in warning
    assert read_events(tmp_path / "b") == tuple(FACTS)
    assert write(tmp_path / "b", address, reported(1, 9)) == ()
    assert read_events(tmp_path / "b") == (*FACTS, reported(1, 9))


def test_of_a_lost_machine_only_the_tail_is_lost_and_said_so(tmp_path: Path, address: str) -> None:
    log = EventLog.open(tmp_path / "a", segment=4, address=address)
    for event in FACTS:
        log.append(event)
    wait_for(lambda: "000001.jsonl" in copied(address))
    elsewhere_since(address, time.time() - 3600)
    (warning,) = write(tmp_path / "b", address)
    assert "facts that were not copied there" in warning
    assert read_events(tmp_path / "b") == tuple(FACTS[:8])
    log.close()


def test_a_log_that_did_not_begin_a_trial_leaves_no_copy(tmp_path: Path, address: str) -> None:
    write(tmp_path, address, Event("opened"), Event("closed"))
    assert copied(address) == []


def test_a_missing_or_damaged_segment_is_restored_from_the_copy(tmp_path: Path, address: str) -> None:
    write(tmp_path, address, *FACTS)
    (tmp_path / "events" / "000000.jsonl").unlink()
    (tmp_path / "events" / "000001.jsonl").write_bytes(b"?")
    (warning,) = write(tmp_path, address)
    assert "restored 000000.jsonl ... 000001.jsonl" in warning
    assert "lost" not in warning
    assert read_events(tmp_path) == tuple(FACTS)


def test_a_segment_that_is_damaged_in_both_places_is_an_error_and_stays(tmp_path: Path, address: str) -> None:
    write(tmp_path, address, *FACTS)
    segment = tmp_path / "events" / "000001.jsonl"
    segment.write_bytes(b"?")
    Remote(f"{address}/events").write("000001.jsonl", b"??")
    with pytest.raises(UserError, match=r"000001\.jsonl: this sealed part of the event log was changed or cut"):
        write(tmp_path, address)
    assert segment.read_bytes() == b"?"
    assert "writer.json" not in copied(address), "the next one may try"


def test_segments_that_could_not_be_copied_are_copied_later(
    tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def is_away(self: Remote, path: str, content: bytes) -> None:
        if path != mirror.WRITER:
            raise OSError("the store is away")
        went_through(self, path, content)

    went_through = Remote.write
    monkeypatch.setattr(Remote, "write", is_away)
    write(tmp_path, address, *FACTS)
    warned = capsys.readouterr().err
    assert warned.count("warning: the event log cannot be copied to") == 1
    assert copied(address) == []
    assert read_events(tmp_path) == tuple(FACTS)
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write(tmp_path, address)
    assert copied(address) == ["000000.jsonl", "000001.jsonl", "000002.jsonl"]


def test_a_long_search_is_copied_every_ten_minutes(
    tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with EventLog.open(tmp_path, address=address) as log:
        log.append(FACTS[0])
        wait_for(lambda: copied(address) == ["writer.json"])
        monkeypatch.setattr("tracking.log.UNCOPIED", 0.0)
        log.append(FACTS[1])
        wait_for(lambda: "000000.jsonl" in copied(address))


def test_two_searches_are_not_mixed(tmp_path: Path, address: str) -> None:
    write(tmp_path / "a", address, *FACTS)
    write(tmp_path / "b", f"{address}/other", *FACTS[:-1], Event("closed", time=1.0))
    with pytest.raises(UserError, match=r"000002\.jsonl: this is not the 000002\.jsonl of .*: two searches"):
        write(tmp_path / "b", address)  # its folder, and the address of the other


def test_what_another_machine_went_on_with_is_not_mixed_with_a_tail(tmp_path: Path, address: str) -> None:
    log = EventLog.open(tmp_path / "a", segment=4, address=address)
    for event in FACTS[:6]:
        log.append(event)
    wait_for(lambda: "000000.jsonl" in copied(address))
    crash(log)
    elsewhere_since(address, time.time() - 3600)
    write(tmp_path / "b", address, Event("failed", 1, "a", {"epoch": 3}), *FACTS[6:])
    with pytest.raises(UserError, match=r"tail\.jsonl:1: event 4 is another one .* the study went on elsewhere"):
        write(tmp_path / "a", address)
    assert len((tmp_path / "a" / "events" / "tail.jsonl").read_bytes().splitlines()) == 2, "nothing of it is lost"


def test_a_writer_on_another_machine_is_named(tmp_path: Path, address: str) -> None:
    elsewhere_since(address, time.time())
    with pytest.raises(UserError, match=rf"process 1 on elsewhere .* is already searching in {address}/events"):
        EventLog.open(tmp_path, address=address)
    elsewhere_since(address, time.time() - 3600)
    EventLog.open(tmp_path, address=address).close()


def test_a_writer_of_this_machine_that_was_killed_holds_nobody_up(tmp_path: Path, address: str) -> None:
    dead = os.fork()
    if dead == 0:
        os._exit(0)
    os.waitpid(dead, 0)
    note_writer(address, dead, socket.gethostname(), time.time())
    EventLog.open(tmp_path, address=address).close()


def test_a_writer_whose_place_was_taken_says_so_and_copies_no_more(
    tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(mirror, "BEAT", 0.05)
    with EventLog.open(tmp_path, segment=4, address=address) as log:
        elsewhere_since(address, time.time())
        warned = ""
        deadline = time.monotonic() + 60.0
        while "another process searches" not in warned and time.monotonic() < deadline:
            warned += capsys.readouterr().err
            time.sleep(0.02)
        for event in FACTS:
            log.append(event)
    assert "another process searches" in warned
    assert copied(address) == ["writer.json"], "the other one's"


def elsewhere_since(address: str, beat: float) -> None:
    note_writer(address, 1, "elsewhere", beat)


def note_writer(address: str, pid: int, host: str, beat: float) -> None:
    writer = {"pid": pid, "host": host, "since": beat, "beat": beat}
    Remote(f"{address}/events").write(mirror.WRITER, json.dumps(writer).encode())


def crash(log: EventLog) -> None:
    """Let go of the lock and nothing else."""
    log._tail.close()
    log._lock.release()
