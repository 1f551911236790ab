"""When a trial ends early: rungs on the way through its recovery, at each of which the best of those there go on.

Multi-objective ASHA (Schmucker et al. 2021, arXiv 2106.12639) with constraints, on ranks that `search.ranking` keeps.
Plain and replayable: the same calls in the same order give the same verdicts, so a resumed search repeats its log's
events to a new stopper. Does NOT cover who runs a stopped trial again, nor when (`search.driver`).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from search.agreement import Agreement, agreements
from search.ranking import Ranking, Score, score_of
from search.stages import Path
from spaces.metrics import METRICS
from spaces.plan import Plan
from spaces.study import Stopping, Study

Verdict = Literal["go on", "stop"]

_ONLY_AT_THE_END = {"checkpoint_bytes"}  # no report before the last carries it, so no rung can compare it


class Stopper(Protocol):
    """Ends poor trials early. Told of every trial that is proposed, and of every report in the order of the log."""

    def enter(self, number: int, plan: Plan, path: Path) -> frozenset[int]:
        """A trial is proposed; the epochs after which it is judged, and must be saved to be taken up again later."""
        ...

    def heard(self, number: int, epoch: int, metrics: Mapping[str, Any]) -> Verdict:
        """An epoch is over. "go on" at epochs that are no rung; a repeated report gets the answer it got before."""
        ...

    def taken_up(self, number: int) -> None:
        """A stopped trial goes on from its rung: that verdict is off, later rungs judge it anew."""
        ...

    def ended(self, number: int, metrics: Mapping[str, Any] | None) -> None:
        """A trial is over for good: the last epoch's metrics, or None where it broke."""
        ...

    def revived(self) -> tuple[int, ...]:
        """Stopped trials that would survive their rung as it is now: nearest to their end first, then best first."""
        ...

    def rank_correlations(self) -> tuple[Agreement, ...]:
        """How well rungs foretold the end, by recovery: over the trials that were trained to theirs."""
        ...


def stopper_of(study: Study) -> Stopper:
    """The stopper that a study asks for."""
    return FrontStopper(
        study.stopper,
        objectives={metric: METRICS[metric].direction for metric in study.objectives},
        constraints=study.constraints,
    )


def rungs(path: Path, fractions: tuple[float, ...]) -> dict[int, float]:
    """{epochs completed: fraction of the recovery}. The recovery goes from the last foreseen event to the last epoch.

    A rung is the first epoch at which the fraction is over, and none is the last epoch: nothing is left to save there.
    Where a recovery is so short that two fractions fall on one epoch, the larger counts.
    """
    events = max((step.events for step in path), default=0)
    if events == 0:
        return {}
    begin, end = min(step.epochs for step in path if step.events == events), path[-1].epochs
    at = {begin + math.ceil(round(fraction * (end - begin), 9)): fraction for fraction in sorted(fractions)}
    return {epoch: fraction for epoch, fraction in at.items() if begin < epoch < end}


@dataclass
class _Course:
    """One trial as the stopper sees it."""

    recovery: str
    rungs: Mapping[int, float]
    scores: dict[float, Score] = field(default_factory=dict)  # by fraction
    heard: dict[float, Mapping[str, float]] = field(default_factory=dict)  # by fraction: what only the end decides
    verdicts: dict[float, Verdict] = field(default_factory=dict)
    stopped_at: float | None = None


class FrontStopper:
    """At a rung, one in `reduction` goes on: constraints first, then the front it is in, then how that is spread.

    Trials of different lengths meet at the same fraction of their recoveries. A rung stops nobody before it has seen
    `grace` trials. One that leads its rung always goes on. With the name `none` it watches and stops nobody.
    """

    def __init__(
        self,
        settings: Stopping,
        *,
        objectives: Mapping[str, str],
        constraints: Mapping[str, Mapping[Literal["min", "max"], float]],
    ) -> None:
        """`objectives`: {metric: "maximize" or "minimize"}; `constraints`: bounds by metric."""
        self._settings = settings
        self._objectives = {metric: way for metric, way in objectives.items() if metric not in _ONLY_AT_THE_END}
        self._constraints: Mapping[str, Mapping[str, float]] = {
            metric: {str(side): bound for side, bound in bounds.items()}
            for metric, bounds in constraints.items()
            if metric not in _ONLY_AT_THE_END
        }
        self._rungs = {fraction: Ranking[int]() for fraction in settings.fractions}
        self._courses: dict[int, _Course] = {}
        self._ends: list[tuple[_Course, Mapping[str, float]]] = []

    def enter(self, number: int, plan: Plan, path: Path) -> frozenset[int]:
        """Where it will be judged; the dense baseline, which recovers from nothing, is not."""
        course = _Course(plan.recover.name, rungs(path, self._settings.fractions))
        self._courses.setdefault(number, course)
        return frozenset(course.rungs) if self._settings.name == "front" else frozenset()

    def heard(self, number: int, epoch: int, metrics: Mapping[str, Any]) -> Verdict:
        """Judge at a rung. A report from beyond the rung where a trial was stopped shows that it went on after all."""
        course = self._courses[number]
        if course.stopped_at is not None and any(e < epoch for e, f in course.rungs.items() if f == course.stopped_at):
            self.taken_up(number)
        fraction = course.rungs.get(epoch)
        if fraction is None:
            return "go on"
        if fraction not in course.heard:
            course.heard[fraction] = self._foretold(metrics)
            course.verdicts[fraction] = self._ranked(number, fraction, metrics)
            if course.verdicts[fraction] == "stop":
                course.stopped_at = fraction
        return course.verdicts[fraction]

    def taken_up(self, number: int) -> None:
        """Go on, and go on again where the report of that rung is repeated."""
        course = self._courses[number]
        if course.stopped_at is not None:
            course.verdicts[course.stopped_at] = "go on"
            course.stopped_at = None

    def ended(self, number: int, metrics: Mapping[str, Any] | None) -> None:
        """Keep what the correlation needs."""
        self.taken_up(number)
        if metrics is not None and number in self._courses:
            self._ends.append((self._courses[number], self._foretold(metrics)))

    def revived(self) -> tuple[int, ...]:
        """A rung keeps more as more arrive, and a stopped trial may by now be among those it keeps."""
        found = []
        for fraction, rung in self._rungs.items():
            for number in rung.first(self._keeps(rung)):
                if self._courses[number].stopped_at == fraction:
                    found.append((-fraction, rung.position(self._courses[number].scores[fraction]), number))
        return tuple(number for _, _, number in sorted(found))

    def rank_correlations(self) -> tuple[Agreement, ...]:
        """For each recovery, fraction and metric that only the end decides."""
        return agreements(
            (course.recovery, fraction, metric, heard[metric], end[metric])
            for course, end in self._ends
            for fraction, heard in course.heard.items()
            for metric in heard.keys() & end.keys()
        )

    def _ranked(self, number: int, fraction: float, metrics: Mapping[str, Any]) -> Verdict:
        """Let the trial into the rung, where ranks decide anything."""
        if self._settings.name == "none":
            return "go on"
        score = score_of(metrics, self._objectives, self._constraints)
        self._courses[number].scores[fraction] = score
        rung = self._rungs[fraction]
        rung.add(number, score)
        return "go on" if self._is_young(rung) or rung.is_among(self._keeps(rung), score) else "stop"

    def _keeps(self, rung: Ranking[int]) -> int:
        """How many of those at a rung go on."""
        return len(rung) if self._is_young(rung) else math.ceil(len(rung) / self._settings.reduction)

    def _is_young(self, rung: Ranking[int]) -> bool:
        """Whether a rung stops nobody yet."""
        return len(rung) < self._settings.grace

    def _foretold(self, metrics: Mapping[str, Any]) -> dict[str, float]:
        """The objectives that a rung can be wrong about; training MACs only ever add up."""
        return {
            metric: float(metrics[metric])
            for metric in self._objectives
            if METRICS[metric].known == "end" and metric != "training_macs" and metric in metrics
        }
