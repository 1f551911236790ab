"""One attempt at a trial on a simulated worker, lap by lap: where it starts, what it saves, what it reports.

It does what `trainables.trial.Trial` does, on laps that are known.
Does NOT cover time and workers (`search.simulator`).
"""

from collections.abc import Sequence
from typing import Any, Protocol

from search.driver import Assignment
from spaces.lap import Lap


class Shelf(Protocol):
    """The simulated stage store: which boundaries a trial finds."""

    def has(self, number: int, key: str) -> bool:
        """Whether trial `number` finds the boundary."""
        ...

    def put(self, number: int, key: str) -> None:
        """Trial `number` has saved the boundary."""
        ...


class SharedShelf:
    """What one trial saves every other finds: our stage store."""

    def __init__(self) -> None:
        self._keys: set[str] = set()

    def has(self, number: int, key: str) -> bool:
        """Whether anyone has saved the boundary."""
        return key in self._keys

    def put(self, number: int, key: str) -> None:
        """Kept for all."""
        self._keys.add(key)


class OwnShelf:
    """A trial finds what it saved itself, and no more: a search without shared stages."""

    def __init__(self) -> None:
        self._keys: set[tuple[int, str]] = set()

    def has(self, number: int, key: str) -> bool:
        """Whether the trial itself has saved the boundary, in an attempt that died."""
        return (number, key) in self._keys

    def put(self, number: int, key: str) -> None:
        """Kept for its next attempt."""
        self._keys.add((number, key))


class Attempt:
    """One attempt at an assignment. `place`: how many laps lie behind; `executed`: training MACs so far."""

    def __init__(self, assignment: Assignment, laps: Sequence[Lap], failure: str | None) -> None:
        """`laps`: every boundary of the plan; `failure`: why the trial breaks after the last of them, if it does."""
        self.assignment, self.failure = assignment, failure
        self._laps = laps
        self.place = self.executed = self.inherited_epochs = 0
        self.alone_macs = 0  # training MACs of the whole way up to here
        self._saved_at = self._reported_at = 0.0

    def begin(self, shelf: Shelf, now: float) -> None:
        """Go on from the deepest boundary that the shelf has."""
        places = reversed(range(len(self._laps)))
        self.place = next((place + 1 for place in places if shelf.has(self.number, self._laps[place].key)), 0)
        self.inherited_epochs = self.epoch
        self.alone_macs = sum(lap.macs for lap in self._laps[: self.place])
        self._saved_at = self._reported_at = now

    @property
    def number(self) -> int:
        """The trial's."""
        return self.assignment.number

    @property
    def epoch(self) -> int:
        """Completed epochs."""
        return self._laps[self.place - 1].epochs if self.place else 0

    @property
    def next_lap(self) -> Lap | None:
        """The lap under way; None where none is left."""
        return self._laps[self.place] if self.place < len(self._laps) else None

    def pass_lap(self, shelf: Shelf, now: float) -> None:
        """The next boundary is reached, and saved where the trial would save it."""
        lap, events_before = self._laps[self.place], self._laps[self.place - 1].events if self.place else 0
        self.place += 1
        self.executed += lap.macs
        self.alone_macs += lap.macs
        is_event, is_end = lap.events > events_before, self.next_lap is None and self.failure is None
        is_old = self.is_report_due and now - self._saved_at >= 60.0 * self.assignment.plan.train.checkpoint_minutes
        if is_event or is_end or is_old or lap.epochs in self.assignment.saves:
            shelf.put(self.number, lap.key)
            self._saved_at = now

    @property
    def is_report_due(self) -> bool:
        """Whether this boundary ends a step of the trial: an epoch, with the events that follow it.

        Events before the first epoch of an attempt are part of that epoch's step, unless the epoch before them has not
        been told of.
        """
        following, heard = self.next_lap, self.assignment.heard
        untold = self.inherited_epochs if heard is None else min(heard, self.inherited_epochs)
        return following is None or untold < self.epoch < following.epochs

    def report(self, now: float) -> dict[str, Any]:
        """The metrics of the step that ended, as the trial would report them."""
        lap, seconds = self._laps[self.place - 1], now - self._reported_at
        self._reported_at = now
        report = {
            **(lap.metrics or {}),
            "epoch": lap.epochs,
            "events": lap.events,
            "training_macs": self.executed,
            "training_macs_alone": self.alone_macs,
            "inherited_epochs": self.inherited_epochs,
            "seconds": seconds,
        }
        return report if self.next_lap is not None else {**report, "checkpoint": lap.key}
