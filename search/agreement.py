"""How well an early look foretells the end: rank correlation, recovery by recovery."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import correlation


@dataclass(frozen=True)
class Agreement:
    """Of one recovery's fully trained trials: do a metric's values at a rung put them in the order of the end?

    `fraction`: of the recovery that was over at the rung; `spearman`: 1 the same order, -1 the reverse, nan where there
    are fewer than three trials or all are equal; `trials`: how many. Where a stopper was at work, only those that
    survived it are among them, and the correlation is lower than it would be over all.
    """

    recovery: str
    fraction: float
    metric: str
    spearman: float
    trials: int


def agreements(pairs: Iterable[tuple[str, float, str, float, float]]) -> tuple[Agreement, ...]:
    """From (recovery, fraction, metric, value at the rung, value at the end), one for each trial; ordered by name."""
    grouped: dict[tuple[str, float, str], list[tuple[float, float]]] = defaultdict(list)
    for recovery, fraction, metric, early, late in pairs:
        if math.isfinite(early) and math.isfinite(late):
            grouped[recovery, fraction, metric].append((early, late))
    return tuple(Agreement(*what, spearman(values), len(values)) for what, values in sorted(grouped.items()))


def spearman(pairs: Sequence[tuple[float, float]]) -> float:
    """Pearson's correlation of the ranks, equal values sharing their mean rank; nan where there is nothing to rank."""
    if len(pairs) < 3:
        return math.nan
    early, late = (_mean_ranks(column) for column in zip(*pairs, strict=True))
    if len(set(early)) == 1 or len(set(late)) == 1:
        return math.nan
    return correlation(early, late)


def _mean_ranks(values: Sequence[float]) -> list[float]:
    """From 1 for the smallest."""
    ordered = sorted(values)
    first: dict[float, int] = {}
    many: Counter[float] = Counter(values)
    for place, value in enumerate(ordered, start=1):
        first.setdefault(value, place)
    return [first[value] + (many[value] - 1) / 2 for value in values]
