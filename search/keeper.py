"""Keeps the weights of front members: pinned in the stage store, and handed to the recorder."""

import hashlib
from pathlib import Path
from typing import Protocol

from search.places import Places
from search.scoreboard import Scoreboard
from tracking.events import Event
from trainables.store import StageStore


class Uploads(Protocol):
    """Where weights are kept for good."""

    def upload_checkpoint(self, plan_hash: str, directory: Path) -> None:
        """Keep a front member's files; once is enough."""
        ...


class Keeper:
    """Hands the weights of a trial that enters the front to the recorder, and pins them while it is on the front.

    The recorder takes its time (its server may be away), so a pin stays when the search ends, and goes when the trial
    leaves the front.
    """

    def __init__(self, board: Scoreboard, uploads: Uploads, places: Places, name: str) -> None:
        self._board, self._uploads, self._store = board, uploads, StageStore(**places.stages)
        self._owner = f"{name}-{hashlib.sha256(places.shown.encode()).hexdigest()[:8]}"
        self._keys: dict[str, str] = {}  # plan hash: key of the last boundary
        self._kept: set[str] = set()
        self._pinned: set[str] = self._store.pinned(self._owner)

    def hear(self, event: Event) -> None:
        """Note where a trial's weights are."""
        if event.kind == "finished" and event.plan_hash is not None and "checkpoint" in event.body:
            self._keys[event.plan_hash] = event.body["checkpoint"]

    def keep(self) -> None:
        """Hand in every member of the front that was not handed in before."""
        front = [point.plan_hash for point in self._board.standing.front if point.plan_hash in self._keys]
        self._pin({self._keys[plan_hash] for plan_hash in front})
        for plan_hash in front:
            if plan_hash in self._kept:
                continue
            folder = self._store.fetch(self._keys[plan_hash])
            if folder is not None:
                self._kept.add(plan_hash)
                self._uploads.upload_checkpoint(plan_hash, folder)

    def _pin(self, wanted: set[str]) -> None:
        for key in wanted - self._pinned:
            self._store.pin(key, self._owner)
        for key in self._pinned - wanted:
            self._store.unpin(key, self._owner)
        self._pinned = wanted
