"""Trials that were really run, so that searches over the same plans can be simulated: read, checked and written.

A record is a tree of boundaries, each with what it took to get there from its parent, and the plans' places in it.

Does NOT cover how one is made (`search.recording`), nor what is done with it (`search.simulator`).
"""

import gzip
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, Protocol, Self

from spaces.errors import PrunefrontError, UserError
from spaces.grid import every_plan, space_digest
from spaces.lap import Lap
from spaces.plan import Plan
from spaces.study import Study

FORMAT = 1
DIGITS = 6  # significant digits of a measured float


def beside(study: Path) -> Path:
    """Where a study's record lies unless it is said: `digits_grid.yaml` has `digits_grid.record.json.gz` beside it."""
    return study.with_suffix(".record.json.gz")


class Laps(Protocol):
    """What is known of trials that have been run: a `Record`, or a twin that runs them when it is asked."""

    def check(self, study: Study) -> None:
        """Raises UserError unless every plan of the study can be asked for."""
        ...

    def laps(self, plan: Plan) -> Sequence[Lap]:
        """Every boundary of the plan after boundary 0, in order, as far as it came. Raises UserError if not known."""
        ...

    def problem(self, plan: Plan) -> str | None:
        """Why the plan cannot be run as it stands; None where it can."""
        ...

    def failure(self, plan: Plan) -> str | None:
        """Why the trial broke after its last lap; None where it came to its end."""
        ...


@dataclass(frozen=True)
class Provenance:
    """Where a record comes from: `space` decides what it answers for, the rest is told and not checked."""

    study: str
    space: str  # `spaces.grid.space_digest`
    torch: str
    sources: str  # digest of what decides what a trial computes
    machine: str
    command: str


@dataclass(frozen=True)
class Recorded:
    """One trial as it ran: from the boundary `begin` (None: boundary 0), which an earlier trial came by."""

    plan_hash: str
    begin: str | None
    laps: tuple[Lap, ...]
    setup_seconds: float
    failure: str | None


class Record:
    """What a file holds: trials by plan."""

    def __init__(self, file: Path, written: Mapping[str, Any]) -> None:
        """`written`: what the file says. Use `load`."""
        self._file = file
        self.provenance = Provenance(**written["provenance"])
        self.setup_seconds: float = written["setup_seconds"]
        self._tree: dict[str, Any] = written["boundaries"]
        self._ends: dict[str, int] = dict(zip(written["plans"]["hash"], written["plans"]["end"], strict=True))
        _check_tree(self._tree, self._ends.values())
        self._problems: dict[str, str] = written["problems"]
        self._failures: dict[str, str] = written["failures"]
        self._laps: dict[int, Lap] = {}

    @classmethod
    def load(cls, file: Path) -> Self:
        """Read a record. Raises UserError where it is missing, damaged, or of another format."""
        try:
            written = json.loads(gzip.decompress(file.read_bytes()))
            if not isinstance(written, dict) or "format" not in written:
                raise ValueError("it is no record")
            if written["format"] != FORMAT:
                raise UserError(f"format {written['format']!r}; this version reads format {FORMAT}", file=file)
            return cls(file, written)
        except FileNotFoundError:
            raise UserError("there is no such record; `prunefront record STUDY` makes one", file=file) from None
        except OSError as error:
            raise UserError(f"the record cannot be read: {error.strerror or error}", file=file) from error
        except (EOFError, zlib.error, ValueError, KeyError, TypeError) as error:
            raise UserError(f"the record is damaged: {error}", file=file) from error

    def __len__(self) -> int:
        return len(self._ends)

    def check(self, study: Study) -> None:
        """Raises UserError unless every plan of the study is recorded."""
        if self.provenance.space == space_digest(study):
            return  # the very space that was recorded, and a record is only written when it is whole
        plans = list(every_plan(study))
        missing = [plan for plan in plans if plan.hash not in self._ends and plan.hash not in self._problems]
        if missing:
            raise UserError(
                f"{len(missing)} of its {len(plans)} plans are not in {self._file}, {_told(missing[0])} for one; "
                "only a space that is recorded in full can be simulated",
                file=study.file,
            )

    def laps(self, plan: Plan) -> tuple[Lap, ...]:
        """Every boundary of the plan after boundary 0, in order. Raises UserError where it is not recorded."""
        place: int | None = self._ends.get(plan.hash)
        if place is None:
            raise UserError(f"{_told(plan)} is not recorded", file=self._file)
        laps = []
        while place >= 0:
            laps.append(self._lap(place))
            place = self._tree["parent"][place]
        return tuple(reversed(laps))

    def problem(self, plan: Plan) -> str | None:
        """Why the plan cannot be run as it stands; None where it can."""
        return self._problems.get(plan.hash)

    def failure(self, plan: Plan) -> str | None:
        """Why the trial broke after its last lap; None where it came to its end."""
        return self._failures.get(plan.hash)

    def _lap(self, place: int) -> Lap:
        """The boundary at a place of the tree: one object for all plans that pass it."""
        if place not in self._laps:
            tree = self._tree
            metrics = {name: column[place] for name, column in tree["metrics"].items() if column[place] is not None}
            self._laps[place] = Lap(
                str(place),
                tree["epochs"][place],
                tree["events"][place],
                tree["macs"][place],
                tree["milliseconds"][place] / 1000.0,
                metrics or None,
            )
        return self._laps[place]


def _check_tree(tree: Mapping[str, Any], ends: Iterable[int]) -> None:
    """Raises ValueError where columns differ in length, or a boundary does not come after its parent."""
    parents = tree["parent"]
    columns = [tree[name] for name in ("epochs", "events", "macs", "milliseconds")]
    if any(len(column) != len(parents) for column in (*columns, *tree["metrics"].values())):
        raise ValueError("its columns are not equally long")
    if not all(-1 <= parent < place for place, parent in enumerate(parents)):
        raise ValueError("a boundary stands before its parent")
    if not all(-1 <= end < len(parents) for end in ends):
        raise ValueError("a plan ends at no boundary")


def _told(plan: Plan) -> str:
    """A plan in a few words."""
    if plan.prune is None:
        return f"the dense plan {plan.hash}"
    parts = (plan.prune.criterion, plan.prune.allocation, plan.prune.schedule, plan.recover)
    return f"plan {plan.hash} ({', '.join(part.name for part in parts)})"


# ---- writing ------------------------------------------------------------------------------------------------------


def write_record(file: Path, trials: Iterable[Recorded], problems: Mapping[str, str], provenance: Provenance) -> None:
    """Write what trials went through; one that begins at a boundary stands after one that came by it.

    Raises PrunefrontError where two trials disagree on a boundary: training is not repeatable then.
    """
    places: dict[str | None, int] = {None: -1}
    laps: list[Lap] = []
    parents: list[int] = []
    ends: dict[str, int] = {}
    setups: list[float] = []
    failures: dict[str, str] = {}
    for trial in trials:
        place = places[trial.begin]
        for lap in trial.laps:
            before, place = place, places.setdefault(lap.key, len(laps))
            if place == len(laps):
                laps.append(_completed(lap, laps[before] if before >= 0 else None))
                parents.append(before)
            else:
                laps[place] = _agreed(laps[place], lap)
        ends[trial.plan_hash] = place
        setups.append(trial.setup_seconds)
        if trial.failure is not None:
            failures[trial.plan_hash] = trial.failure
    names = list(dict.fromkeys(name for lap in laps for name in lap.metrics or ()))
    written = {
        "format": FORMAT,
        "provenance": asdict(provenance),
        "setup_seconds": round(median(setups), 4),
        "boundaries": {
            "parent": parents,
            "epochs": [lap.epochs for lap in laps],
            "events": [lap.events for lap in laps],
            "macs": [lap.macs for lap in laps],
            "milliseconds": [round(1000.0 * lap.seconds, 1) for lap in laps],
            "metrics": {name: [_rounded((lap.metrics or {}).get(name)) for lap in laps] for name in names},
        },
        "plans": {"hash": list(ends), "end": list(ends.values())},
        "problems": dict(problems),
        "failures": failures,
    }
    draft = file.with_name(file.name + ".draft")
    draft.write_bytes(gzip.compress(json.dumps(written, separators=(",", ":")).encode(), 9, mtime=0))
    draft.replace(file)


def _completed(lap: Lap, before: Lap | None) -> Lap:
    """An event's boundary with what only the training before it measured: its loss, say."""
    if lap.metrics is None or before is None or before.metrics is None or lap.epochs != before.epochs:
        return lap
    return replace(lap, metrics={**before.metrics, **lap.metrics})


def _agreed(one: Lap, other: Lap) -> Lap:
    """A boundary that was computed twice; only one of them may have looked at it."""
    mine, theirs = one.metrics or {}, other.metrics or {}
    if one.macs != other.macs or any(mine[name] != theirs[name] for name in mine.keys() & theirs.keys()):
        raise PrunefrontError(f"boundary {one.key} was computed twice, and differently: {one} and {other}")
    return replace(one, metrics={**theirs, **mine} or None)


def _rounded(value: float | None) -> float | None:
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
