"""How the hypervolume of a search grows with what it is charged."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from search.simulator import Finish
from tracking.front import Point, hypervolume


@dataclass(frozen=True)
class Reached:
    """After one more full-length trial: what all workers had cost until then, and what the front covered."""

    macs: int  # training MACs
    seconds: float  # virtual
    hypervolume: float


def curve(finishes: Iterable[Finish], dense_accuracy: float) -> list[Reached]:
    """One point for each full-length trial, as `tracking.front.hypervolume` measures; stopped trials do not count."""
    kept: list[Point] = []
    points = []
    for finish in finishes:
        kept.append(Point("", {name: finish.metrics[name] for name in ("accuracy", "keep_macs")}))
        points.append(Reached(finish.macs, finish.seconds, hypervolume(kept, dense_accuracy)))
    return points


def reach(points: Sequence[Reached], level: float) -> Reached | None:
    """The first point of the curve at or above a hypervolume; None where it stays below."""
    return next((point for point in points if point.hypervolume >= level), None)
