"""The stage store: an entry is whole or not there, what is damaged is not believed, what is in use stays."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spaces.errors import UserError
from tests.test_trial import a_plan, measured, run, same_weights
from trainables import checkpoint
from trainables.store import StageStore, Worth, eviction
from trainables.store.leases import Lease, protected
from trainables.store.manifest import MANIFEST, Damaged, Manifest, StoredFile, read_manifest
from trainables.store.stages import entries_at
from trainables.trial import Trial

ROOT = Path(__file__).parent.parent


def of_size(size: int) -> Any:
    """Writes one file of that many bytes."""
    return lambda folder: (folder / "weights").write_bytes(b"\x07" * size)


def key_of(number: int) -> str:
    return f"{number:02d}{number:062d}"


def held_bytes(root: Path) -> int:
    return sum(path.stat().st_size for path in root.glob("??/*/*"))


def put_by_another(root: Path, key: str, size: int, worth: Worth, **more: Any) -> None:
    """As a trial that has ended since."""
    assert StageStore(root).put(key, of_size(size), worth=worth, **more) is not None
    expire(root)


def wait_for(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60.0
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# ---- whole or not at all -----------------------------------------------------------------------------------------


def test_what_was_put_is_fetched_with_a_checksum_of_every_file(tmp_path: Path) -> None:
    store = StageStore(tmp_path)
    place = store.put(key_of(1), of_size(100), worth=Worth(macs=5, epochs=2))
    assert place == store.fetch(key_of(1)) == StageStore(tmp_path).fetch(key_of(1))
    assert place is not None
    written = json.loads((place / MANIFEST).read_text())
    assert written["files"]["weights"]["bytes"] == 100
    assert len(written["files"]["weights"]["sha256"]) == 64
    assert written["worth"] == {"macs": 5, "epochs": 2, "is_end": False}


def test_a_writer_that_breaks_leaves_nothing(tmp_path: Path) -> None:
    def breaks(folder: Path) -> None:
        of_size(10)(folder)
        raise ZeroDivisionError

    store = StageStore(tmp_path)
    with pytest.raises(ZeroDivisionError):
        store.put(key_of(1), breaks)
    assert not store.has(key_of(1))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_the_first_writer_of_a_key_stays(tmp_path: Path) -> None:
    StageStore(tmp_path).put(key_of(1), of_size(10))
    place = StageStore(tmp_path).put(key_of(1), of_size(20))
    assert place is not None
    assert (place / "weights").stat().st_size == 10


def test_the_deepest_of_some_boundaries_is_found(tmp_path: Path) -> None:
    store = StageStore(tmp_path)
    for number in (1, 3):
        store.put(key_of(number), of_size(10))
    assert store.deepest(key_of(number) for number in range(6)) == key_of(3)
    assert store.deepest([key_of(7)]) is None


@pytest.mark.parametrize("damage", ["flipped", "truncated", "missing", "longer"])
@pytest.mark.parametrize("name", [checkpoint.MODEL, checkpoint.OPTIMIZER, checkpoint.STATE, MANIFEST])
def test_a_trial_computes_a_damaged_boundary_again_and_ends_the_same(tmp_path: Path, damage: str, name: str) -> None:
    plan = a_plan(train={"epochs": 3, "batch_size": 64, "learning_rate": 0.1}, prune=ONE_EVENT)
    straight, heard = run(plan, tmp_path)
    for folder in tmp_path.glob("??/*"):
        path = folder / name
        content = path.read_bytes()
        half = len(content) // 2
        flipped = content[:half] + bytes([content[half] ^ 1]) + content[half + 1 :]
        path.write_bytes({"flipped": flipped, "truncated": content[:-1], "longer": content + b"}"}.get(damage, b""))
        if damage == "missing":
            path.unlink()
    again, reported = run(plan, tmp_path)
    assert again.inherited_epochs == 0
    assert same_weights(straight, again)
    assert measured(reported[-1]) == measured(heard[-1])
    sound, _ = run(plan, tmp_path)
    assert sound.inherited_epochs == 3, "what was computed again is stored again"


ONE_EVENT = {"criterion": "l1", "schedule": {"name": "once", "after": 1}, "amount": {"keep_macs": 0.5}}


@given(st.binary(max_size=200))
def test_no_bytes_but_its_own_are_a_manifest(content: bytes) -> None:
    with pytest.raises(Damaged):
        read_manifest(content, "here")


@pytest.mark.parametrize("name", ["../outside", "a/b", "/etc/passwd", "..", "", MANIFEST])
def test_a_manifest_cannot_name_files_outside_its_entry(name: str) -> None:
    manifest = Manifest({name: StoredFile(1, "0")}, Worth(), {}, 0)
    with pytest.raises(Damaged, match="outside"):
        read_manifest(manifest.written(), "here")


# ---- what goes first ---------------------------------------------------------------------------------------------


def a_manifest(size: int, macs: int, ancestors: dict[str, int], *, made: int = 0, is_end: bool = False) -> Manifest:
    return Manifest({"weights": StoredFile(size, "0" * 64)}, Worth(macs=macs, is_end=is_end), ancestors, made)


def test_what_saves_least_per_byte_goes_first_and_the_ends_of_plans_before_all() -> None:
    holding = eviction.Holding(
        {
            "trunk": a_manifest(10**6, 10**9, {}),
            "large": a_manifest(10**8, 10**9, {}),
            "near": a_manifest(10**6, 10**9 + 10**6, {"trunk": 10**9}),
            "later end": a_manifest(10**6, 10**12, {}, is_end=True, made=2),
            "end": a_manifest(10**6, 10**12, {}, is_end=True, made=1),
        }
    )
    assert eviction.order(holding, {}, set()) == ["end", "later end", "near", "large", "trunk"]
    assert eviction.order(holding, {"near": 500}, {"end"}) == ["later end", "large", "near", "trunk"]


def test_an_entry_is_worth_more_once_what_it_was_computed_from_is_gone() -> None:
    holding = eviction.Holding(
        {
            "a": a_manifest(10**6, 10**9, {}),
            "b": a_manifest(10**6, 3 * 10**9, {"a": 10**9}),
            "c": a_manifest(10**6, int(2.5 * 10**9), {}),
        }
    )
    assert eviction.order(holding, {}, set()) == ["a", "c", "b"]


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9), st.integers(0, 9)), max_size=8), st.data())
def test_whatever_goes_is_worth_least_of_all_that_is_left(
    rows: list[tuple[int, int, int]], data: st.DataObject
) -> None:
    manifests: dict[str, Manifest] = {}
    for at, (size, macs, used) in enumerate(rows):
        del used
        before = data.draw(st.sampled_from(["", *manifests]))
        inherited = manifests.get(before)
        ancestors = {} if inherited is None else {**inherited.ancestors, before: inherited.worth.macs}
        total = macs + (0 if inherited is None else inherited.worth.macs)
        manifests[f"k{at}"] = a_manifest(size * 1000, total, ancestors)
    used_at = {f"k{at}": used for at, (_, _, used) in enumerate(rows)}
    left = dict(manifests)
    for key in eviction.order(eviction.Holding(manifests), used_at, set()):
        worths = {k: eviction.worth_of(m, left, used_at[k]) for k, m in left.items()}
        assert worths[key] == min(worths.values())
        del left[key]
    assert not left


# ---- a limit -----------------------------------------------------------------------------------------------------


def test_a_store_keeps_to_its_limit_and_what_is_worth_most(tmp_path: Path) -> None:
    for number in range(1, 9):
        with_limit = StageStore(tmp_path, limit=6000)
        assert with_limit.put(key_of(number), of_size(1000), worth=Worth(macs=number % 4 * 1000)) is not None
        expire(tmp_path)
    assert held_bytes(tmp_path) <= 6000
    assert [number for number in range(1, 9) if StageStore(tmp_path).has(key_of(number))] == [3, 6, 7, 8]


def test_what_is_pinned_or_in_use_is_not_evicted(tmp_path: Path) -> None:
    put_by_another(tmp_path, key_of(1), 1000, Worth(is_end=True))
    put_by_another(tmp_path, key_of(2), 1000, Worth(is_end=True))
    for number in range(3, 9):
        put_by_another(tmp_path, key_of(number), 1000, Worth(macs=10**9))
    StageStore(tmp_path).pin(key_of(1), "digits")
    reader = StageStore(tmp_path)
    assert reader.fetch(key_of(2)) is not None
    StageStore(tmp_path, limit=4500).open()
    assert StageStore(tmp_path).has(key_of(1))
    assert StageStore(tmp_path).has(key_of(2))
    StageStore(tmp_path).unpin(key_of(1), "digits")
    expire(tmp_path)
    StageStore(tmp_path, limit=1500).open()
    assert not StageStore(tmp_path).has(key_of(1))
    assert not StageStore(tmp_path).has(key_of(2))


def expire(root: Path | str) -> None:
    """As if the time of all leases had passed."""
    entries = entries_at(str(root))
    for lease in entries.marks("leases"):
        entries.unmark("leases", lease)
        entries.mark("leases", f"{lease.rpartition('.')[0]}.1")


def test_a_trial_holds_one_restart_point_and_lets_go_when_it_is_gone(tmp_path: Path) -> None:
    store = StageStore(tmp_path)
    for number in (1, 2):
        store.put(key_of(number), of_size(10), after=key_of(number - 1))
        assert protected(store._entries) == {key_of(number)}
    del store
    entries = StageStore(tmp_path)._entries
    wait_for(lambda: protected(entries) == set())


def test_a_lease_outlives_a_killed_holder_and_lapses_by_itself(tmp_path: Path) -> None:
    hold = "import os, sys; from trainables.store import StageStore\nstore = StageStore(sys.argv[1])\n"
    hold += "assert store.fetch(sys.argv[2]); os.kill(os.getpid(), 9)"
    put_by_another(tmp_path, key_of(1), 10, Worth())
    subprocess.run([sys.executable, "-c", hold, str(tmp_path), key_of(1)], cwd=ROOT, check=False)
    entries = StageStore(tmp_path)._entries
    assert protected(entries) == {key_of(1)}
    expire(tmp_path)
    assert protected(entries) == set()
    assert entries.marks("leases") == []


def test_a_lease_is_renewed_while_its_holder_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainables.store.leases.RESTARTED", 3.0)
    entries = entries_at(str(tmp_path))
    lease = Lease(entries)
    lease.take(key_of(1))
    first = entries.marks("leases")
    wait_for(lambda: entries.marks("leases") not in ([], first))
    wait_for(lambda: len(entries.marks("leases")) == 1)


def test_an_entry_that_comes_into_use_while_it_is_evicted_stays(tmp_path: Path) -> None:
    put_by_another(tmp_path, key_of(1), 10, Worth())
    reader, entries = StageStore(tmp_path), StageStore(tmp_path)._entries
    withdrawn = entries.withdraw(key_of(1))
    assert withdrawn is not None
    assert not StageStore(tmp_path).has(key_of(1))
    entries.reinstate(key_of(1), withdrawn)
    assert reader.fetch(key_of(1)) is not None
    assert not eviction.evict(entries, key_of(1))
    assert StageStore(tmp_path).fetch(key_of(1)) is not None


def test_a_store_whose_bytes_are_all_in_use_says_so_and_stays_within_its_limit(tmp_path: Path) -> None:
    others = [StageStore(tmp_path, limit=4000) for _ in range(3)]
    for number, other in enumerate(others):
        assert other.put(key_of(number), of_size(1000)) is not None
    store = StageStore(tmp_path, limit=4000)
    assert store.put(key_of(7), of_size(1000)) is None
    assert store.problem == "the 4000 bytes of the stage store are all in use"
    assert held_bytes(tmp_path) <= 4000
    assert all(store.has(key_of(number)) for number in range(3))
    assert store.put(key_of(8), of_size(5000)) is None
    assert "one boundary takes" in str(store.problem)


WORKER = """
import random, sys
from trainables.store import StageStore, Worth
root, seed, limit = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
chance = random.Random(seed)
for turn in range(60):
    store = StageStore(root, limit=limit)
    key = f"{(number := chance.randrange(40)):02d}{number:062d}"
    content = bytes([number]) * 2000
    folder = store.fetch(key)
    if folder is None:
        def write(draft):
            for name in ("a", "b", "c"):
                (draft / name).write_bytes(content)
        folder = store.put(key, write, worth=Worth(macs=chance.randrange(10**6)))
    if folder is not None:  # in use now: all of it is there until this trial is over
        for name in ("a", "b", "c", "manifest.json"):
            read = (folder / name).read_bytes()
            assert name == "manifest.json" or read == content, name
print("done")
"""


def test_processes_that_put_fetch_and_evict_at_once_never_see_half_an_entry(tmp_path: Path) -> None:
    limit = 100_000  # about fifteen of forty entries
    command = [sys.executable, "-c", WORKER, str(tmp_path)]
    workers = [
        subprocess.Popen(
            [*command, str(seed), str(limit)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for seed in range(5)
    ]
    for worker in workers:
        out, err = worker.communicate()
        assert out == "done\n", err
    assert held_bytes(tmp_path) <= limit
    entries = StageStore(tmp_path)._entries
    keys = entries.all_keys()
    assert len(keys) >= 12
    assert all(StageStore(tmp_path).fetch(key) is not None for key in keys)
    assert list((tmp_path / "drafts").iterdir()) == []


# ---- full, read-only ---------------------------------------------------------------------------------------------


def test_no_room_is_made_room_for_once_and_then_gone_without(tmp_path: Path) -> None:
    tries = []

    def never_fits(folder: Path) -> None:
        tries.append(len(list(tmp_path.glob("??/*"))))
        (folder / "weights").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    for number in (1, 2):
        put_by_another(tmp_path, key_of(number), 1000 // number, Worth(macs=number))
    store = StageStore(tmp_path)
    assert store.put(key_of(3), never_fits) is None
    assert tries == [2, 1], "the one of less worth was evicted in between"
    assert store.problem == f"the stage store at {tmp_path}: No space left on device"
    assert not store.has(key_of(3))
    assert list((tmp_path / "drafts").iterdir()) == []
    assert store.put(key_of(3), of_size(10)) is not None
    assert store.problem is None


IN_A_MOUNT = """
import json, resource, subprocess, sys
from collections.abc import Callable
from pathlib import Path
from tests.test_trial import a_plan, measured, run
from trainables.store import StageStore
folder, fault, plan = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
plan = a_plan(**plan)
if fault == "file size":
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
if fault == "read-only":
    StageStore(folder).open()
    run(plan.dense(), folder, saves=[1])
    subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
trial, heard = run(plan, folder)
print(json.dumps([measured(heard[-1]), trial.store.problem, trial.inherited_epochs]))
left = [str(path) for path in Path(folder).rglob("*") if path.is_file() and "drafts" in path.parts]
assert left == [], left
for path in Path(folder).glob("??/*"):
    assert StageStore(folder).fetch(path.name) is not None, path
if fault == "read-only":
    StageStore(folder).open()
"""


@pytest.mark.parametrize(
    ("fault", "mount", "says", "inherited"),
    [
        ("full", "size=64k", "No space left on device", 0),
        ("file size", "size=64m", "File too large", 0),
        ("read-only", "size=64m", "Read-only file system", 1),
    ],
)
def test_a_trial_goes_on_without_saving_where_the_store_is(
    tmp_path: Path, fault: str, mount: str, says: str, inherited: int
) -> None:
    sections = {"train": {"epochs": 3, "batch_size": 64, "learning_rate": 0.1}, "prune": ONE_EVENT}
    expected = measured(run(a_plan(**sections), None)[1][-1])
    script = f'mount -t tmpfs -o {mount} tmpfs "$1" && exec "$0" -c "$2" "$1" "{fault}" "$3"'
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script, sys.executable, str(tmp_path), IN_A_MOUNT, json.dumps(sections)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"this machine lets nobody mount: {done.stderr.strip()}")
    assert done.stdout, done.stderr
    metrics, problem, from_epoch = json.loads(done.stdout)
    assert {name: metrics[name] for name in expected if name != "not_saved"} == expected
    assert says in problem
    assert from_epoch == inherited
    if fault == "read-only":
        last = done.stderr.strip().splitlines()[-1]
        assert last == f"spaces.errors.UserError: cannot write the stage store at {tmp_path}: Read-only file system"
    else:
        assert done.returncode == 0, done.stderr


def test_a_report_says_that_nothing_is_saved_and_why(tmp_path: Path) -> None:
    plan = a_plan(train={"epochs": 1, "batch_size": 64}, prune=None, recover={"name": "continue"})
    trial = Trial(plan, store=StageStore(tmp_path, limit=1000))
    report = trial.step()
    assert "one boundary takes" in report["not_saved"]
    assert "checkpoint" not in report


def test_a_place_that_is_no_folder_is_the_users_to_mend(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write the stage store at"):
        StageStore(tmp_path / "file" / "store")


# ---- clearing up, sharing ----------------------------------------------------------------------------------------


def test_what_dead_writers_left_is_cleared_up(tmp_path: Path) -> None:
    dies = "import os, sys; from trainables.store import StageStore\n"
    dies += "StageStore(sys.argv[1]).put('ab' * 32, lambda draft: os.kill(os.getpid(), 9))"
    subprocess.run([sys.executable, "-c", dies, str(tmp_path)], cwd=ROOT, check=False)
    mine = StageStore(tmp_path)._entries.draft(key_of(1))
    assert len(list((tmp_path / "drafts").iterdir())) == 2
    StageStore(tmp_path).open()
    assert list((tmp_path / "drafts").iterdir()) == [mine]


def test_two_studies_with_one_store_share_what_they_agree_on(tmp_path: Path) -> None:
    trunk = a_plan().dense()
    run(trunk, tmp_path, saves=[2])
    recovered_otherwise = a_plan(recover={"name": "cosine"})
    straight, heard = run(recovered_otherwise, None)
    shared, again = run(recovered_otherwise, tmp_path)
    assert shared.inherited_epochs == 2
    assert same_weights(straight, shared)
    assert measured(again[-1]) == measured(heard[-1])


def test_under_a_tight_limit_trials_end_the_same(tmp_path: Path) -> None:
    one, heard = run(a_plan(), None)
    size = run(a_plan(), tmp_path / "free")[1][-1]["checkpoint_bytes"]
    for name in ("cosine", "continue", "damage_aware"):
        plan = a_plan(recover={"name": name})
        trial = Trial(plan, store=StageStore(tmp_path / "tight", limit=4 * size))
        while not trial.done:
            metrics = trial.step()
        assert held_bytes(tmp_path / "tight") <= 4 * size
    assert same_weights(one, trial)
    assert measured(metrics) == measured(heard[-1])
