"""Widths that move to where MACs do more: the numbers of Network Adjustment (Chen et al., CVPR 2020).

What moves is a channel group, the channels that can only be had together, where the authors move single layers and
fill the gaps that this leaves in residual sums with zeros. Does NOT cover how the ratios are measured (`trainables`).
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from spaces.study import Adjust

Widths = dict[str, int]
"""{channel group: channels}, in network order."""

FLOOR = 4  # channels that a group keeps, or its first width where that is less
TOLERANCE = 0.01  # of the MACs that stay equal


@dataclass(frozen=True)
class Measured:
    """What a finished trial says of its channel groups (`trainables.utilization`)."""

    ratios: Mapping[str, float]  # FLOPs utilization, by group
    widths: Widths
    terms: tuple[Any, ...]

    @classmethod
    def read(cls, metrics: Mapping[str, Any]) -> "Measured | None":
        """From the metrics of a trial; None where it did not measure."""
        body = metrics.get("utilization")
        if body is None:
            return None
        ratios = {name: ratio for name, _, ratio in body["groups"]}
        return cls(ratios, {name: width for name, width, _ in body["groups"]}, tuple(body["terms"]))

    def macs(self, widths: Mapping[str, int]) -> int:
        """Multiply-adds of one sample at these widths, by the polynomial that the terms are."""
        total = 0
        for factor, sides in self.terms:
            for fixed, per_channel in sides:
                factor *= fixed + sum(each * widths[name] for name, each in per_channel.items())
            total += factor
        return total


def moved(widths: Widths, first: Widths, ratios: Mapping[str, float], settings: Adjust, *, done: int) -> Widths:
    """The widths after one more adjustment, `done` of them made before; MACs are not equal yet.

    Ranks go by ratio: the K highest groups grow and the K lowest shrink by a_r of their first width, where
    K = layers - done * layers_decay and a_r = step - r * step_decay for rank r. No group is in both halves.
    """
    ranked = sorted(ratios, key=lambda name: -ratios[name])  # ties in network order
    count = min(max(round(settings.layers - done * settings.layers_decay), 0), len(ranked) // 2)
    after = dict(widths)
    for rank in range(count):
        step = max(settings.step - rank * settings.step_decay, 0.0)
        top, bottom = ranked[rank], ranked[-1 - rank]
        after[top] = round(widths[top] + step * first[top])
        after[bottom] = max(round(widths[bottom] - step * first[bottom]), _floor(first[bottom]))
    return after


def rescaled(widths: Widths, first: Widths, macs: Callable[[Widths], int], goal: int) -> Widths | None:
    """The widths times one factor that costs `goal` MACs within 1 %; None where there are none near it.

    Narrow networks have no such factor, because widths are whole: there one or two groups move by one channel more.
    """
    below, above = 0.0, 1.0
    while macs(_scaled(widths, first, above)) < goal:
        above *= 2.0
    for _ in range(60):
        middle = (below + above) / 2.0
        if macs(_scaled(widths, first, middle)) <= goal:
            below = middle
        else:
            above = middle

    def miss(candidate: Widths) -> float:
        return abs(macs(candidate) / goal - 1.0)

    nearest = min((_scaled(widths, first, factor) for factor in (below, above)), key=miss)
    if miss(nearest) > TOLERANCE:
        nearest = min(_neighbours(nearest, first), key=miss)
    return nearest if miss(nearest) <= TOLERANCE else None


def _scaled(widths: Widths, first: Widths, factor: float) -> Widths:
    return {name: max(round(factor * width), _floor(first[name])) for name, width in widths.items()}


def _neighbours(widths: Widths, first: Widths) -> Iterator[Widths]:
    """Those that differ by one channel in one group or in two."""
    changes = [(name, step) for name in widths for step in (1, -1) if widths[name] + step >= _floor(first[name])]
    yield widths
    for name, step in changes:
        yield {**widths, name: widths[name] + step}
    for (one, step), (other, further) in combinations(changes, 2):
        if one != other:
            yield {**widths, one: widths[one] + step, other: widths[other] + further}


def _floor(first: int) -> int:
    return min(FLOOR, first)
