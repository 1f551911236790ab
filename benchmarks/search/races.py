"""Every way to search, seed by seed on the same recorded trials: what each was charged, and what it found."""

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median

from benchmarks.search.curves import Reached, curve, reach
from benchmarks.search.opponents import (
    Opponent,
    RandomChoices,
    RayAsha,
    RayNsga,
    RayOptuna,
    SyneTuneMoasha,
)
from benchmarks.search.ours import WAYS, Way, run_ours
from benchmarks.search.plain import run_plain
from search.driver import Outlook
from search.record import Laps
from search.simulated_workers import Conditions
from search.simulator import Result
from spaces.load import load_study
from spaces.study import Study

OPPONENTS: tuple[Callable[..., Opponent], ...] = (RayOptuna, RandomChoices, RayNsga, RayAsha, SyneTuneMoasha)
PLAIN = RayOptuna.name
STOPPING = frozenset({RayAsha.name, SyneTuneMoasha.name})
MORE = 4  # times as many trials for those that stop some early, until they have cost what the plain search did


@dataclass(frozen=True)
class Race:
    """How one way did with one seed."""

    way: str
    seed: int
    points: list[Reached]
    macs: int
    seconds: float
    reuse: float  # training MACs executed for each that the same trials need at the least

    @property
    def final(self) -> float:
        """The hypervolume in the end."""
        return self.points[-1].hypervolume if self.points else 0.0

    def macs_to(self, level: float) -> float:
        """Training MACs until the front covered `level`; infinite where it never did."""
        found = reach(self.points, level)
        return float("inf") if found is None else found.macs

    def seconds_to(self, level: float) -> float:
        """Virtual seconds until then."""
        found = reach(self.points, level)
        return float("inf") if found is None else found.seconds


@dataclass(frozen=True)
class Course:
    """What is raced on.

    `source`: opens recorded or really trained plans, and what is known beforehand of them. `setup_seconds`: what a
    worker takes to set a trial up, with every strategy.
    """

    study: Path
    overrides: tuple[str, ...]
    source: Callable[[Study], tuple[Laps, Outlook]]
    trials: int
    seeds: int
    workers: int = 1
    setup_seconds: float = 0.0

    def load(self, *more: str) -> Study:
        """The study, with further overrides."""
        return load_study(self.study, [*self.overrides, *more])


def races(
    course: Course, *, opponents: Sequence[str] | None = None, ways: Sequence[Way] = WAYS, processes: int
) -> list[Race]:
    """Every seed with every opponent and every way of ours, by name; all opponents where none is named."""
    run = partial(_seed, course, opponents, tuple(ways))
    if processes == 1:
        return [race for seed in range(course.seeds) for race in run(seed)]
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        return [race for found in pool.map(run, range(course.seeds)) for race in found]


def _seed(course: Course, opponents: Sequence[str] | None, ways: Sequence[Way], seed: int) -> list[Race]:
    study = course.load()
    source, outlook = course.source(study)
    dense = source.laps(study.baseline())[-1].metrics
    assert dense is not None, "a trial's last boundary was evaluated"
    conditions = Conditions(workers=course.workers, setup_seconds=course.setup_seconds, seed=seed)
    found: list[Race] = []
    budget: int | None = None
    for made in OPPONENTS:
        name = made.name  # type: ignore[attr-defined]
        if opponents is not None and name not in opponents:
            continue
        trials = course.trials * (MORE if name in STOPPING else 1)
        macs = budget if name in STOPPING else None
        result = run_plain(study, made(study, seed=seed), source, trials=trials, conditions=conditions, macs=macs)
        found.append(_race(name, seed, result, dense["accuracy"]))
        budget = found[0].macs
    for way in ways:
        changed = course.load(*way.overrides, f"budget.seed={seed}")
        result = run_ours(changed, way, source, outlook, trials=course.trials, conditions=conditions)
        found.append(_race(way.name, seed, result, dense["accuracy"]))
    return found


def _race(name: str, seed: int, result: Result, dense_accuracy: float) -> Race:
    return Race(
        way=name,
        seed=seed,
        points=curve(result.finishes, dense_accuracy),
        macs=result.macs,
        seconds=result.seconds,
        reuse=result.macs / max(1, result.lowest_macs),
    )


def by_way(found: Sequence[Race]) -> dict[str, list[Race]]:
    """Races in the order of their seeds."""
    ways: dict[str, list[Race]] = {}
    for race in sorted(found, key=lambda race: race.seed):
        ways.setdefault(race.way, []).append(race)
    return ways


def shares(ours: Sequence[Race], theirs: Sequence[Race]) -> list[float]:
    """Ours over theirs, seed by seed: training MACs to the hypervolume that theirs ended with."""
    return [one.macs_to(other.final) / other.macs_to(other.final) for one, other in zip(ours, theirs, strict=True)]


def middle(values: Sequence[float]) -> float:
    """The median; infinite where half of the seeds never got there."""
    return median(values)
