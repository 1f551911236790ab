"""The keeper: what is on the front is pinned and handed in once, what leaves it may be evicted."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from search.keeper import Keeper
from search.places import Places
from tests.test_store import expire, of_size
from tracking.events import Event
from trainables.store import StageStore, Worth


def finished(plan_hash: str) -> Event:
    return Event("finished", 1, plan_hash, {"checkpoint": plan_hash * 64})


def test_front_members_survive_eviction_and_are_handed_in_once(tmp_path: Path) -> None:
    for name in "abc":
        StageStore(tmp_path).put(name * 64, of_size(1000), worth=Worth(is_end=True))
    places = Places(tmp_path / "home", None, str(tmp_path), 1500)
    handed: list[str] = []
    front: list[Any] = []
    board: Any = SimpleNamespace(standing=SimpleNamespace(front=front))
    uploads: Any = SimpleNamespace(upload_checkpoint=lambda plan_hash, folder: handed.append(plan_hash))
    keeper = Keeper(board, uploads, places, "digits")
    for name in "abc":
        keeper.hear(finished(name))
    front[:] = [SimpleNamespace(plan_hash="a"), SimpleNamespace(plan_hash="b")]
    keeper.keep()
    front[:] = [SimpleNamespace(plan_hash="b")]
    keeper.keep()
    assert handed == ["a", "b"]
    expire(tmp_path)
    StageStore(**places.stages).open()
    assert [name for name in "abc" if StageStore(tmp_path).has(name * 64)] == ["b"]
    Keeper(board, uploads, places, "another").keep()
    front.clear()
    resumed = Keeper(board, uploads, places, "digits")
    resumed.keep()
    assert StageStore(tmp_path).pinned(resumed._owner) == set(), "a resumed search lets go of its own"
