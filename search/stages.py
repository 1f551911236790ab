"""Which boundaries of a study are stored, which are being computed, and what the rest of a plan's way costs.

Does NOT cover who computes what when (`search.driver`), nor the files (`trainables.store`).
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from spaces.path import Path, Step


@dataclass
class _Run:
    """A trial under way: its way, after which epochs it saves, and how far it has come."""

    path: Path
    saves: frozenset[int]
    place: int = 0  # boundaries that lie behind


class Stages:
    """What a search knows of its stage store, from what its trials said. Boundary 0 needs no storing."""

    def __init__(self) -> None:
        self._stored: set[str] = set()
        self._runs: dict[int, _Run] = {}
        self._coming: dict[str, set[int]] = {}  # boundary that is not stored yet: the trials that will save it

    # ---- what trials do ---------------------------------------------------------------------------------------------

    def begin(self, number: int, path: Path, saves: Collection[int]) -> None:
        """A trial sets out along `path` and will save every event, the epochs `saves` and its end."""
        self.end(number)
        run = _Run(path, frozenset(saves), self.start(path))
        self._runs[number] = run
        for step in _saved(run, range(run.place, len(path))):
            self._coming.setdefault(step.key, set()).add(number)

    def reach(self, number: int, epochs: int) -> None:
        """A trial has completed `epochs` epochs, and the events that are due by then."""
        run = self._runs[number]
        first = run.place
        while run.place < len(run.path) and run.path[run.place].epochs <= epochs:
            run.place += 1
        for step in _saved(run, range(first, run.place)):
            self._stored.add(step.key)
            self._coming.pop(step.key, None)

    def end(self, number: int) -> None:
        """A trial is under way no more: finished, stopped, failed or lost."""
        run = self._runs.pop(number, None)
        if run is None:
            return
        for step in _saved(run, range(run.place, len(run.path))):
            others = self._coming.get(step.key, set())
            others.discard(number)
            if not others:
                self._coming.pop(step.key, None)

    # ---- what that means for a plan ---------------------------------------------------------------------------------

    def start(self, path: Path) -> int:
        """How many boundaries of the way need not be computed: up to the deepest stored one."""
        return next((place + 1 for place in reversed(range(len(path))) if path[place].key in self._stored), 0)

    def remaining(self, path: Path) -> int:
        """Training MACs from the deepest boundary that is stored, or that a trial under way will save."""
        first = self.start(path)
        for place in reversed(range(first, len(path))):
            if path[place].key in self._coming:
                first = place + 1
                break
        return sum(step.macs for step in path[first:])

    def awaited(self, path: Path) -> tuple[int, int, int] | None:
        """(trial, its training MACs until there, ours): the deepest boundary worth waiting for; None where none is.

        A trial that is ahead on the same way reaches a boundary before one that sets out now.
        """
        first = self.start(path)
        for place in reversed(range(first, len(path))):
            for number in sorted(self._coming.get(path[place].key, ())):
                run = self._runs[number]
                theirs = sum(step.macs for step in run.path[run.place : place + 1])
                ours = sum(step.macs for step in path[first : place + 1])
                if theirs <= ours:
                    return number, theirs, ours
        return None


def _saved(run: _Run, places: Iterable[int]) -> Iterable[Step]:
    """The boundaries among `places` that the trial saves."""
    for place in places:
        step, before = run.path[place], run.path[place - 1] if place else None
        is_event = step.events > (0 if before is None else before.events)
        if is_event or step.epochs in run.saves or place == len(run.path) - 1:
            yield step


def shared(one: Path, other: Path) -> int:
    """How many boundaries two plans have in common: equal keys mean equal ways up to there."""
    low, high = 0, min(len(one), len(other))
    while low < high:  # keys chain, so that agreement is a prefix
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one[middle - 1].key == other[middle - 1].key else (low, middle - 1)
    return low


def lowest(paths: Iterable[Path]) -> int:
    """The least training MACs that all these ways take, every boundary computed once."""
    return sum({step.key: step.macs for path in paths for step in path}.values())


__all__ = ["Path", "Stages", "Step", "lowest", "shared"]
