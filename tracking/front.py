"""The front: which full-length trials no other beats, how much they cover, and which one to take.

Does NOT cover: where trials come from (`tracking.standing` from events, `tracking.read` from MLflow).
"""

import math
from bisect import bisect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from spaces.errors import UserError

MARGIN = 0.10  # the reference point's error lies this far above the dense one
DECADES = 2.0  # no error at 1/100 of the dense MACs would be a hypervolume of 1
COUNTS = frozenset(
    (
        *("epoch", "events", "inherited_epochs", "validation_images", "streams_cut"),
        *("macs", "params", "nonzero_params", "checkpoint_bytes", "training_macs", "training_macs_alone"),
    )
)

Objectives = Mapping[str, str]  # metric: "maximize" or "minimize"
Constraints = Mapping[str, Mapping[str, float]]  # metric: {"min": ..., "max": ...}


@dataclass(frozen=True)
class Point:
    """One full-length trial: its metrics after the last epoch, and what it was."""

    plan_hash: str
    metrics: Mapping[str, float]
    trial: int = 0
    run_id: str | None = None
    name: str = ""
    plan: Mapping[str, Any] = field(default_factory=dict)

    @property
    def accuracy(self) -> float:
        """Fraction of the validation images classified right."""
        return self.metrics["accuracy"]

    @property
    def keep_macs(self) -> float:
        """MACs as a fraction of the dense network's."""
        return self.metrics["keep_macs"]

    @property
    def is_baseline(self) -> bool:
        """Whether this is the network that was never pruned."""
        return self.plan.get("prune") is None

    def to_json(self) -> dict[str, Any]:
        """As `front --json` prints it; a metric that is not a finite number is null."""
        metrics = {name: value if math.isfinite(value) else None for name, value in self.metrics.items()}
        own = {"run_id": self.run_id, "trial": self.trial, "name": self.name, "plan_hash": self.plan_hash}
        return {**own, **{name: _whole(name, value) for name, value in metrics.items()}, "plan": dict(self.plan)}


def _whole(name: str, value: float | None) -> float | None:
    """Counts stay counts: 125485696, not 125485696.0; a fraction stays one, though it be 1.0."""
    return int(value) if value is not None and name in COUNTS and value == int(value) else value


def front(points: Iterable[Point], objectives: Objectives, constraints: Constraints | None = None) -> list[Point]:
    """The points that no other beats: none is at least as good in every objective and better in one.

    Cheapest first. A point that breaks a constraint, or lacks a finite value for one or for an objective, is left out.
    """
    growing = GrowingFront(objectives, constraints)
    for point in points:
        growing.join(point)
    return growing.members


class GrowingFront:
    """The points that no other beats, kept current as points come: what was beaten once stays beaten."""

    def __init__(self, objectives: Objectives, constraints: Constraints | None = None) -> None:
        self._objectives, self._constraints = objectives, constraints or {}
        self._members: list[Point] = []
        self._losses = np.zeros((0, len(objectives)))  # of the members, in their order

    @property
    def members(self) -> list[Point]:
        """Cheapest first."""
        return list(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def join(self, point: Point) -> bool:
        """Let a point in unless a member beats it; whether it came in. It pushes out whom it beats."""
        if not (is_feasible(point, self._constraints) and _has(point, self._objectives)):
            return False
        own = np.array(_losses(point, self._objectives))
        differs = (self._losses != own).any(axis=1)
        if (differs & (self._losses <= own).all(axis=1)).any():
            return False
        stays = ~(differs & (self._losses >= own).all(axis=1))
        if not stays.all():
            self._members = [member for member, is_left in zip(self._members, stays, strict=True) if is_left]
            self._losses = self._losses[stays]
        place = bisect(self._members, _by_cost(point), key=_by_cost)
        self._members.insert(place, point)
        self._losses = np.insert(self._losses, place, own, axis=0)
        return True


def is_feasible(point: Point, constraints: Constraints) -> bool:
    """Whether every constraint holds; a metric that is absent holds none."""
    for metric, bounds in constraints.items():
        value = point.metrics.get(metric, math.nan)
        low, high = bounds.get("min"), bounds.get("max")
        if not ((low is None or value >= low) and (high is None or value <= high)) or math.isnan(value):
            return False
    return True


def _by_cost(point: Point) -> tuple[float, int]:
    return (point.metrics.get("keep_macs", math.inf), point.trial)


def _has(point: Point, objectives: Objectives) -> bool:
    return all(math.isfinite(point.metrics.get(metric, math.nan)) for metric in objectives)


def _losses(point: Point, objectives: Objectives) -> tuple[float, ...]:
    return tuple(-point.metrics[name] if way == "maximize" else point.metrics[name] for name, way in objectives.items())


def hypervolume(points: Iterable[Point], dense_accuracy: float) -> float:
    """The area that the points cover in (error, log keep_macs), normalised; more is better.

    Reference point: (dense error + 0.10, keep_macs 1.0); no error at 1/100 of the dense MACs alone would give 1.
    """
    worst = 1.0 - dense_accuracy + MARGIN
    steps = sorted(
        (math.log10(max(point.keep_macs, 1e-12)), 1.0 - point.accuracy)
        for point in points
        if point.keep_macs < 1.0 and 1.0 - point.accuracy < worst
    )
    area, ceiling = 0.0, worst
    for exponent, error in steps:
        if error < ceiling:
            area += (ceiling - error) * -exponent
            ceiling = error
    return area / (worst * DECADES)


def knee(points: Sequence[Point]) -> Point:
    """The point that bulges furthest beyond the line between the front's two ends, in (accuracy, log keep_macs).

    The dense baseline may be an end, and is returned only where it is alone. Of two equally far points, the more
    accurate. Points must not be empty.
    """
    pruned = [point for point in points if not point.is_baseline] or list(points)
    low = min(points, key=lambda point: (point.keep_macs, -point.accuracy))
    high = max(points, key=lambda point: (point.accuracy, -point.keep_macs))
    width = math.log(high.keep_macs / low.keep_macs)
    height = high.accuracy - low.accuracy
    if width <= 0.0 or height <= 0.0:
        return max(pruned, key=lambda point: (point.accuracy, -point.keep_macs))

    def bulge(point: Point) -> float:
        along = math.log(point.keep_macs / low.keep_macs) / width
        return (point.accuracy - low.accuracy) / height - along

    return max(pruned, key=lambda point: (round(bulge(point), 12), point.accuracy))


@dataclass(frozen=True)
class Budget:
    """What the chosen point may cost and must reach; None where it does not matter."""

    max_macs: float | None = None
    max_params: float | None = None
    max_latency_ms: float | None = None
    min_accuracy: float | None = None

    @property
    def limits(self) -> dict[str, float]:
        """The costs that are limited, by metric."""
        named = {"macs": self.max_macs, "params": self.max_params, "latency_ms": self.max_latency_ms}
        return {metric: value for metric, value in named.items() if value is not None}

    def shortfall(self, point: Point) -> float:
        """0 when the point is within the budget; else by what fraction, or accuracy, it misses it."""
        over = [point.metrics.get(metric, math.inf) / limit - 1.0 for metric, limit in self.limits.items()]
        under = [] if self.min_accuracy is None else [self.min_accuracy - point.accuracy]
        return sum(miss for miss in over + under if miss > 0.0)


def best_within(points: Sequence[Point], budget: Budget) -> Point:
    """The most accurate point within the limits; where only accuracy is asked for, the cheapest that reaches it.

    Raises UserError that names the nearest point when there is none.
    """
    if not points:
        raise UserError("the front is empty: no trial has finished")
    within = [point for point in points if budget.shortfall(point) == 0.0]
    if not within:
        near = min(points, key=budget.shortfall)
        raise UserError(f"no point of the front is within the budget; the nearest is {described(near)}")
    if not budget.limits:
        return min(within, key=lambda point: (point.keep_macs, -point.accuracy))
    return max(within, key=lambda point: (point.accuracy, -point.keep_macs))


def recommended(points: Sequence[Point], baseline: Point | None) -> Point:
    """What to take when no budget is given: the fewest MACs within one standard error of dense, else the knee."""
    pruned = [point for point in points if not point.is_baseline] or list(points)
    if not pruned:
        raise UserError("the front is empty: no trial has finished")
    error = standard_error(baseline) if baseline else None
    if baseline and error is not None:
        good = [point for point in pruned if point.accuracy >= baseline.accuracy - error]
        if good:
            return min(good, key=lambda point: (point.keep_macs, -point.accuracy))
    return knee(points)


def standard_error(point: Point) -> float | None:
    """Of the point's accuracy, from the number of its validation images; None where that is not known."""
    images = point.metrics.get("validation_images") or point.plan.get("data", {}).get("validation", 0)
    if images < 1:
        return None  # a fraction of a data set whose size is not known here
    return math.sqrt(point.accuracy * (1.0 - point.accuracy) / images)


def described(point: Point) -> str:
    """One line for a message: `#007 frs·every·given (accuracy 0.951, 21 % of the MACs, 17.1 k parameters)`."""
    parts = [f"accuracy {point.accuracy:.3f}", f"{100 * point.keep_macs:.3g} % of the MACs"]
    for metric, unit in (("macs", "MACs"), ("params", "parameters"), ("latency_ms", "ms")):
        if metric in point.metrics:
            parts.append(f"{short(point.metrics[metric])} {unit}")
    return f"{point.name or point.plan_hash} ({', '.join(parts)})"


def short(count: float) -> str:
    """A count for people: 125 M, 17.1 k, 980."""
    for size, letter in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(count) >= size:
            return f"{count / size:.3g}{letter}"
    return f"{count:.3g}"
