"""The event log: nothing that was acknowledged is lost, nothing is there twice, nothing damaged is believed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spaces.errors import UserError
from tracking.events import Event
from tracking.log import EventLog, read_events

ROOT = Path(__file__).parent.parent


def reported(trial: int, epoch: int) -> Event:
    return Event(
        "reported", trial, f"{trial:016x}", {"epoch": epoch, "accuracy": 0.5, "loss": 1.25}, time=100.0 + epoch
    )


def write(home: Path, *events: Event, segment: int = 4) -> None:
    with EventLog.open(home, segment=segment) as log:
        for event in events:
            log.append(event)


def test_what_was_appended_is_there_when_the_log_is_opened_again(tmp_path: Path) -> None:
    events = [Event("opened", body={"study": "digits"}), *(reported(1, epoch) for epoch in range(10))]
    write(tmp_path, *events)
    with EventLog.open(tmp_path, segment=4) as log:
        assert log.events() == tuple(events)
        assert log.warnings == ()
    assert read_events(tmp_path) == tuple(events)


def test_a_fact_told_twice_is_kept_once(tmp_path: Path) -> None:
    with EventLog.open(tmp_path) as log:
        assert log.append(reported(1, 1))
        assert not log.append(Event("reported", 1, "other", {"epoch": 1}, time=9e9))
        assert log.append(Event("started", 1, "a", {"attempt": 1}))
        assert log.append(Event("started", 1, "a", {"attempt": 2}))
        assert len(log.events()) == 3
    with EventLog.open(tmp_path) as log:
        assert not log.append(reported(1, 1))


def test_a_search_may_be_opened_and_closed_any_number_of_times(tmp_path: Path) -> None:
    with EventLog.open(tmp_path) as log:
        assert all(log.append(Event(kind)) for kind in ("opened", "closed", "opened", "closed"))


def test_a_loss_that_is_not_a_number_survives(tmp_path: Path) -> None:
    write(tmp_path, Event("reported", 1, "a", {"epoch": 1, "loss": float("nan"), "norm": float("inf")}))
    (event,) = read_events(tmp_path)
    assert event.body["loss"] != event.body["loss"]
    assert event.body["norm"] == float("inf")


def test_segments_are_numbered_sealed_and_never_touched_again(tmp_path: Path) -> None:
    write(tmp_path, *(reported(1, epoch) for epoch in range(9)))
    first = tmp_path / "events" / "000000.jsonl"
    before = (first.read_bytes(), first.stat().st_mtime_ns)
    write(tmp_path, *(reported(2, epoch) for epoch in range(9)))
    assert (first.read_bytes(), first.stat().st_mtime_ns) == before
    assert len(list((tmp_path / "events").glob("0*.jsonl"))) == 4
    assert json.loads(first.read_bytes().splitlines()[-1])["sealed"] == 4


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(1, 400), data=st.data())
def test_a_tail_cut_anywhere_loses_at_most_the_lines_that_were_cut(cut: int, data: st.DataObject) -> None:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        home = Path(folder)
        events = [reported(1, epoch) for epoch in range(data.draw(st.integers(5, 7)))]
        write(home, *events)
        tail = home / "events" / "tail.jsonl"
        content = tail.read_bytes()
        kept = content[: max(0, len(content) - cut)]
        tail.write_bytes(kept)
        with EventLog.open(home, segment=4) as log:
            assert log.events() == tuple(events[: 4 + kept.count(b"\n")])
            assert bool(log.warnings) == (not kept.endswith(b"\n") and kept != b"")
            assert log.append(reported(9, 9))
        assert read_events(home)[-1] == reported(9, 9)


def test_a_damaged_last_line_is_dropped_with_a_warning_that_says_where(tmp_path: Path) -> None:
    write(tmp_path, reported(1, 1), reported(1, 2))
    tail = tmp_path / "events" / "tail.jsonl"
    tail.write_bytes(tail.read_bytes() + b"\0" * 64 + b"\n")
    with EventLog.open(tmp_path) as log:
        assert log.warnings == (f"{tail}:3: dropped a last line that was never finished (65 bytes)",)
        assert len(log.events()) == 2
    assert tail.read_bytes().count(b"\n") == 2


def test_a_damaged_line_before_others_is_an_error_with_its_place(tmp_path: Path) -> None:
    write(tmp_path, reported(1, 1), reported(1, 2), reported(1, 3))
    tail = tmp_path / "events" / "tail.jsonl"
    lines = tail.read_bytes().splitlines(keepends=True)
    tail.write_bytes(lines[0] + b"{not json}\n" + lines[2])
    with pytest.raises(UserError, match=r"tail\.jsonl:2: this line of the event log is damaged"):
        EventLog.open(tmp_path)
    tail.write_bytes(b"".join(lines))
    EventLog.open(tmp_path).close()  # the lock was let go of


@pytest.mark.parametrize("damage", [lambda b: b[:-30], lambda b: b.replace(b"0.5", b"0.9", 1), lambda b: b""])
def test_a_segment_that_was_changed_or_cut_is_an_error(tmp_path: Path, damage) -> None:  # type: ignore[no-untyped-def]
    write(tmp_path, *(reported(1, epoch) for epoch in range(6)))
    segment = tmp_path / "events" / "000000.jsonl"
    segment.write_bytes(damage(segment.read_bytes()))
    with pytest.raises(UserError, match=r"000000\.jsonl: this sealed part of the event log was changed or cut"):
        EventLog.open(tmp_path)


def test_a_missing_segment_is_noticed(tmp_path: Path) -> None:
    write(tmp_path, *(reported(1, epoch) for epoch in range(6)))
    (tmp_path / "events" / "000000.jsonl").unlink()
    with pytest.raises(UserError, match="event 0 is missing"):
        EventLog.open(tmp_path)


def test_a_segment_missing_among_others_is_named_and_nothing_is_changed(tmp_path: Path) -> None:
    write(tmp_path, *(reported(1, epoch) for epoch in range(14)))
    segments = tmp_path / "events"
    (segments / "000001.jsonl").rename(tmp_path / "elsewhere")
    before = {path.name: path.read_bytes() for path in segments.glob("*.jsonl")}
    with pytest.raises(UserError, match=r"000001\.jsonl: this sealed part of the event log is missing, and 000002"):
        EventLog.open(tmp_path)
    assert {path.name: path.read_bytes() for path in segments.glob("*.jsonl")} == before
    (tmp_path / "elsewhere").rename(segments / "000001.jsonl")
    assert len(read_events(tmp_path)) == 14


FILLS_THE_DISK = """
import resource, sys
from pathlib import Path
from spaces.errors import UserError
from tests.test_event_log import reported
from tracking.log import EventLog
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
log = EventLog.open(Path(sys.argv[1]))
told = 0
try:
    while True:
        log.append(reported(1, told))
        told += 1
except UserError as error:
    print(told)
    print(error)
log.close()
"""


def test_a_fact_that_finds_no_room_is_refused_whole_and_those_before_it_stay(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FILLS_THE_DISK, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    told, error = done.stdout.splitlines()
    tail = tmp_path / "events" / "tail.jsonl"
    assert error == f"{tail}: cannot write the event log: File too large; --resume goes on"
    with EventLog.open(tmp_path) as log:
        assert log.warnings == (), "not even half a line is left"
        assert log.events() == tuple(reported(1, epoch) for epoch in range(int(told)))
        assert log.append(reported(1, int(told)))


def test_dying_between_the_seal_and_the_new_tail_doubles_nothing(tmp_path: Path) -> None:
    events = [Event("opened", body={"n": n}) for n in range(3)]
    write(tmp_path, *events)
    tail = (tmp_path / "events" / "tail.jsonl").read_bytes()
    write(tmp_path, Event("closed"))
    last = b'{"n":3,"kind":"closed","trial":null,"plan_hash":null,"body":{},"time":1.0}\n'
    (tmp_path / "events" / "tail.jsonl").write_bytes(tail + last)
    assert [event.kind for event in read_events(tmp_path)] == ["opened"] * 3 + ["closed"]


def test_a_second_writer_is_told_who_the_first_one_is(tmp_path: Path) -> None:
    with (
        EventLog.open(tmp_path),
        pytest.raises(UserError, match=rf"process {os.getpid()} on .* is already searching"),
    ):
        EventLog.open(tmp_path)
    EventLog.open(tmp_path).close()


def test_a_folder_that_cannot_be_written_is_the_users_to_mend(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write to"):
        EventLog.open(tmp_path / "file")


def test_no_log_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no event log in"):
        read_events(tmp_path)


WRITER = """
import sys
from pathlib import Path
from tracking.events import Event
from tracking.log import EventLog
log = EventLog.open(Path(sys.argv[1]), segment=7)
epoch = len(log.events())
while True:
    log.append(Event("reported", 1, "a", {"epoch": epoch, "accuracy": 0.5}))
    print(epoch, flush=True)
    epoch += 1
"""


def test_a_writer_killed_at_random_moments_loses_nothing_it_had_acknowledged(tmp_path: Path) -> None:
    acknowledged = -1
    for milliseconds in (60, 110, 170):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        first = writer.stdout.readline()
        time.sleep(milliseconds / 1000)
        writer.send_signal(signal.SIGKILL)
        said = [first, *writer.stdout.read().splitlines(keepends=True)]
        writer.wait()
        acknowledged = int([line for line in said if line.endswith("\n")][-1])
        epochs = [event.body["epoch"] for event in read_events(tmp_path)]
        assert epochs == list(range(len(epochs)))
        assert len(epochs) > acknowledged
