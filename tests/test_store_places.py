"""What holds for every kind of place that stages lie in: a folder, memory, a real S3 server."""

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from spaces.errors import UserError
from spaces.remote import Remote
from tests.conftest import environment, s3_server
from tests.test_store import ONE_EVENT, WORKER, expire, key_of, of_size
from tests.test_trial import a_plan, measured, same_weights
from trainables.checkpoint import MODEL
from trainables.store import StageStore, Worth
from trainables.store.objects import Objects, copies_of
from trainables.store.stages import entries_at
from trainables.trial import Trial

ROOT = Path(__file__).parent.parent


def run(plan: Any, place: str, **options: Any) -> tuple[Trial, list[dict[str, Any]]]:
    trial = Trial(plan, store=StageStore(place), **options)
    heard = [trial.step()]
    while not trial.done:
        heard.append(trial.step())
    return trial, heard


def held_bytes(place: str) -> int:
    entries = entries_at(place)
    manifests = [entries.manifest(key) for key in entries.all_keys()]
    return sum(manifest.size for manifest in manifests if manifest is not None)


def forget_copies(place: str) -> None:
    """As another machine would see it."""
    if "://" in place:
        for path in sorted(copies_of(place).rglob("*"), reverse=True):
            # A lease of a store that is gone is let go of by its own thread, whenever that comes to it.
            path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)


def test_what_was_put_is_fetched_on_any_machine(place: str) -> None:
    assert StageStore(place).put(key_of(1), of_size(100)) is not None
    forget_copies(place)
    folder = StageStore(place).fetch(key_of(1))
    assert folder is not None
    assert (folder / "weights").read_bytes() == b"\x07" * 100
    assert StageStore(place).fetch(key_of(1)) == folder
    assert StageStore(place).fetch(key_of(2)) is None


@pytest.mark.parametrize("asked", [2, 20])
def test_the_deepest_of_some_boundaries_is_found(place: str, asked: int) -> None:
    store = StageStore(place)
    store.put(key_of(1), of_size(10))
    assert store.deepest(key_of(number) for number in range(asked)) == key_of(1)
    assert store.deepest(key_of(number) for number in range(2, asked)) is None


def test_the_first_writer_of_a_key_stays_and_no_files_of_the_second(place: str) -> None:
    first, second = entries_at(place), entries_at(place)
    StageStore(place).put(key_of(1), of_size(10))
    manifest = first.manifest(key_of(1))
    assert manifest is not None
    draft = second.draft(key_of(1))
    of_size(20)(draft)
    second.publish(key_of(1), draft, manifest)
    forget_copies(place)
    folder = StageStore(place).fetch(key_of(1))
    assert folder is not None
    assert (folder / "weights").stat().st_size == 10
    if isinstance(first, Objects):
        assert len(Remote(place).names(f"files/{key_of(1)}")) == 1


def test_a_forked_trial_equals_the_straight_one(place: str) -> None:
    plan = a_plan(train={"epochs": 3, "batch_size": 64, "learning_rate": 0.1}, prune=ONE_EVENT)
    straight = Trial(plan)
    while not straight.done:
        expected = straight.step()
    run(plan.dense(), place, saves=[1])
    forget_copies(place)
    forked, heard = run(plan, place)
    assert forked.inherited_epochs == 1
    assert same_weights(straight, forked)
    assert measured(heard[-1]) == measured(expected)


@pytest.mark.parametrize("damage", ["flipped", "missing", "manifest"])
@pytest.mark.parametrize("copies", ["here", "gone"])
def test_what_is_damaged_behind_an_address_is_computed_again(address: str, damage: str, copies: str) -> None:
    plan = a_plan(train={"epochs": 2, "batch_size": 64, "learning_rate": 0.1}, prune=ONE_EVENT)
    straight, heard = run(plan, address)
    remote = Remote(address)
    for key in remote.names("files"):
        (generation,) = remote.names(f"files/{key}")
        path = f"manifests/{key}.json" if damage == "manifest" else f"files/{key}/{generation}/{MODEL}"
        content = remote.read(path)
        assert content is not None
        if damage == "missing":
            remote.delete(path)
        else:
            remote.write(path, content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    if copies == "gone":
        forget_copies(address)
    again, reported = run(plan, address)
    assert again.inherited_epochs == (2 if copies == "here" and damage != "manifest" else 0)
    assert same_weights(straight, again)
    assert measured(reported[-1]) == measured(heard[-1])
    forget_copies(address)
    entries = entries_at(address)
    for key in entries.all_keys() if copies == "gone" else ():
        manifest = entries.manifest(key)
        assert manifest is not None
        assert entries.folder(key, manifest).is_dir(), "stored again, sound"


def test_a_damaged_copy_on_this_machine_is_fetched_again(address: str) -> None:
    StageStore(address).put(key_of(1), of_size(100))
    copy = copies_of(address) / key_of(1)[:2] / key_of(1) / "weights"
    copy.write_bytes(b"?" * 100)
    folder = StageStore(address).fetch(key_of(1))
    assert folder is not None
    assert (folder / "weights").read_bytes() == b"\x07" * 100


def test_files_without_a_manifest_are_no_entry(address: str) -> None:
    Remote(address).write(f"files/{key_of(1)}/1-ab/weights", b"half")
    store = StageStore(address)
    assert not store.has(key_of(1))
    assert store.fetch(key_of(1)) is None
    store.open()
    assert Remote(address).names("files") == [], "begun in 1970, and nobody's"


def test_a_limit_holds_and_pins_do(place: str) -> None:
    StageStore(place).put(key_of(0), of_size(1000), worth=Worth(is_end=True))
    StageStore(place).pin(key_of(0), "digits.2")
    expire(place)
    for number in range(1, 9):
        assert StageStore(place, limit=6000).put(key_of(number), of_size(1000), worth=Worth(macs=number)) is not None
        assert held_bytes(place) <= 6000
    assert StageStore(place).pinned("digits.2") == {key_of(0)}
    assert [number for number in range(9) if StageStore(place).has(key_of(number))] == [0, 6, 7, 8]
    if "://" in place:
        remote = Remote(place)
        assert sum(len(remote.names(f"files/{key}")) for key in remote.names("files")) == 4


def test_writers_of_one_place_never_see_half_an_entry(address: str) -> None:
    limit, errors = 40_000, []

    def work(seed: int) -> None:
        try:
            sys_argv = ["", address, str(seed), str(limit)]
            exec(WORKER.replace("range(60)", "range(6)").replace("sys.argv", "argv"), {"argv": sys_argv})
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert held_bytes(address) <= limit
    forget_copies(address)
    entries = entries_at(address)
    assert all(StageStore(address).fetch(key) is not None for key in entries.all_keys())


def test_processes_on_an_object_store_never_see_half_an_entry(s3: str, tmp_path: Path) -> None:
    limit, address = 60_000, f"{s3}/many"
    machines = [{**environment(), "XDG_CACHE_HOME": str(tmp_path / name)} for name in ("one", "one", "two")]
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER.replace("range(60)", "range(8)"), address, str(seed), str(limit)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=machine,
        )
        for seed, machine in enumerate(machines)
    ]
    for worker in workers:
        out, err = worker.communicate()
        assert out == "done\n", err
    assert held_bytes(address) <= limit


def test_a_store_that_goes_away_stops_no_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    plan = a_plan(train={"epochs": 2, "batch_size": 64, "learning_rate": 0.1}, prune=ONE_EVENT)
    with s3_server() as endpoint:
        files = {"key": "a", "secret": "b", "endpoint_url": endpoint, "config_kwargs": {"retries": {"max_attempts": 0}}}
        fsspec.filesystem("s3", **files).mkdir("gone")
        monkeypatch.setitem(fsspec.config.conf, "s3", files)
        trial = Trial(plan, store=StageStore("s3://gone/store"))
    monkeypatch.setattr("s3fs.core.S3FileSystem.retries", 1)
    heard = [trial.step(), trial.step()]
    assert trial.done
    assert "s3://gone/store" in heard[-1]["not_saved"]
    assert "checkpoint" not in heard[-1]


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("gopher://hole/store", "the protocol 'gopher' is not known; allowed: a folder, s3://"),
        ("gs://bucket/store", "Please install gcsfs to access Google Storage"),
        ("s3://", "names no place"),
    ],
)
def test_an_address_that_cannot_be_used_is_the_users_to_mend(address: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        StageStore(address)


def test_a_bucket_that_is_not_there_is_said_when_a_search_begins(s3: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot write the stage store at s3://nowhere/store: .*bucket"):
        StageStore("s3://nowhere/store").open()


def test_a_file_address_is_its_folder(tmp_path: Path) -> None:
    StageStore(f"file://{tmp_path}/a%20b").put(key_of(1), of_size(10))
    assert StageStore(tmp_path / "a b").has(key_of(1))
