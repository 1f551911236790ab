"""Who is better than whom where several things count: constraints first, then front after front, then spread.

Two words that are easily confused: a member's *rank* is the number of its front (0: nothing beats it); the *order* is
the list of members, best first. Does NOT cover when trials are compared (`search.stopper`).
"""

import math
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from search.bounds import excess

DIGITS = 9  # of distances inside a front: what differs by less is rounding, and the losses themselves decide

Losses = tuple[float, ...]
Member = TypeVar("Member", bound=Hashable)


@dataclass(frozen=True)
class Score:
    """What one member is judged by. `violation`: 0 where every constraint holds; `losses`: lower is better."""

    violation: float
    losses: Losses

    @property
    def is_valid(self) -> bool:
        """Whether it can be compared at all: every number is finite."""
        return all(math.isfinite(value) for value in (self.violation, *self.losses))

    def beats(self, other: "Score") -> bool:
        """Breaks the constraints by less; or by as much, no worse anywhere and better somewhere (Deb et al. 2002)."""
        if self.violation != other.violation:
            return self.violation < other.violation
        for mine, theirs in zip(self.losses, other.losses, strict=True):  # by far the most frequent step of all
            if mine > theirs:
                return False
        return self.losses != other.losses


def score_of(
    metrics: Mapping[str, Any], objectives: Mapping[str, str], constraints: Mapping[str, Mapping[str, float]]
) -> Score:
    """From a report. `objectives`: {metric: "maximize" or "minimize"}; a metric that is missing is not a number.

    The violation is the sum, over the bounds that are passed, of how far, as a fraction of the bound.
    """
    losses = tuple(-_number(metrics, m) if way == "maximize" else _number(metrics, m) for m, way in objectives.items())
    passed = 0.0
    for metric, bounds in constraints.items():
        for side, bound in bounds.items():
            beyond = excess(_number(metrics, metric), side, bound)
            passed += 0.0 if beyond <= 0.0 else beyond  # not a number stays not a number
    return Score(passed, losses)


def _number(metrics: Mapping[str, Any], metric: str) -> float:
    value = metrics.get(metric)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def spread_order(front: Iterable[Losses]) -> list[Losses]:
    """The distinct points of a front so that every beginning of the list covers the front well.

    First the best in the first objective, then each time the point that is farthest from all before it (the epsilon
    net of Schmucker et al. 2021, arXiv 2106.12639). Distances are in units of the front's own range in each objective;
    one in which all agree does not count. Ties go to the lower losses, so the points' own order is never looked at.
    """
    left = sorted(set(front))
    if not left:
        return []
    lows, highs = ([pick(column) for column in zip(*left, strict=True)] for pick in (min, max))
    spans = list(zip(lows, highs, strict=True))
    placed = {p: tuple((v - a) / (b - a) if b > a else 0.0 for v, (a, b) in zip(p, spans, strict=True)) for p in left}
    order = [left.pop(0)]
    nearest = dict.fromkeys(left, math.inf)  # to what is in the order already
    while left:
        for point in left:
            nearest[point] = min(nearest[point], round(math.dist(placed[point], placed[order[-1]]), DIGITS))
        farthest = max(left, key=nearest.__getitem__)  # of several, the first: `left` is sorted
        left.remove(farthest)
        order.append(farthest)
    return order


@dataclass
class Front(Generic[Member]):
    """The members of one rank, by score: some may be equal."""

    members: dict[Score, list[Member]] = field(default_factory=dict)
    size: int = 0
    _order: list[Score] | None = None

    def add(self, score: Score, members: Sequence[Member]) -> None:
        """Let them in."""
        self._order = None
        self.size += len(members)
        self.members.setdefault(score, []).extend(members)

    def without_beaten_by(self, scores: Iterable[Score]) -> dict[Score, list[Member]]:
        """Take out, and return, whoever one of these beats."""
        newcomers = tuple(scores)
        beaten = {s: self.members[s] for s in self.members if any(newcomer.beats(s) for newcomer in newcomers)}
        for score, members in beaten.items():
            del self.members[score]
            self.size -= len(members)
        self._order = None if beaten else self._order
        return beaten

    @property
    def order(self) -> list[Score]:
        """Best spread first. All of a front break the constraints by the same amount."""
        if self._order is None:
            by_losses = {score.losses: score for score in self.members}
            self._order = [by_losses[losses] for losses in spread_order(by_losses)]
        return self._order


class Ranking(Generic[Member]):
    """Fronts, one below the other, kept current as members come in.

    A newcomer goes into the first front in which nobody beats it and pushes whom it beats one front down, and they
    others (the level update of Li et al. 2014, arXiv 1407.1515, kept for whole fronts). The result is the one that
    sorting all at once would give, in whatever order they came.
    """

    def __init__(self) -> None:
        self._fronts: list[Front[Member]] = []
        self._worthless: list[Member] = []  # those with a score that is no number: behind all others

    def __len__(self) -> int:
        return len(self._worthless) + sum(front.size for front in self._fronts)

    def add(self, member: Member, score: Score) -> None:
        """Let one in; it must not be in already."""
        if not score.is_valid:
            self._worthless.append(member)
            return
        moving: dict[Score, list[Member]] = {score: [member]}
        rank = self._rank_for(score)
        while moving:
            if rank == len(self._fronts):
                self._fronts.append(Front())
            front = self._fronts[rank]
            beaten = front.without_beaten_by(moving)
            if beaten and not front.members:  # all of it goes down, and so does all that is below: one front more
                self._fronts.insert(rank + 1, Front(beaten, sum(map(len, beaten.values()))))
                beaten = {}
            for score, members in moving.items():
                front.add(score, members)
            moving, rank = beaten, rank + 1

    def _rank_for(self, score: Score) -> int:
        """The first front without anyone who beats it. Whoever is beaten in one front is beaten in all above it."""
        low, high = 0, len(self._fronts)
        while low < high:
            middle = (low + high) // 2
            if any(other.beats(score) for other in self._fronts[middle].members):
                low = middle + 1
            else:
                high = middle
        return low

    def ranks(self) -> dict[Member, int]:
        """{member: number of its front}; the worthless are in none."""
        return {member: rank for rank, front in enumerate(self._fronts) for m in front.members.values() for member in m}

    def order(self) -> Iterator[list[Member]]:
        """Best first; equal members together, in no order among themselves. The worthless are left out."""
        for front in self._fronts:
            for score in front.order:
                yield front.members[score]

    def first(self, count: int) -> Iterator[Member]:
        """The first `count` in order and whoever equals one of them, but front by front in no order."""
        taken = 0
        for front in self._fronts:
            fits = taken + front.size <= count
            for score in front.members if fits else front.order:
                if taken >= count:
                    return
                taken += len(front.members[score])
                yield from front.members[score]

    def position(self, score: Score) -> int:
        """How many come before a member with this score; for one that is no number, everybody."""
        if not score.is_valid:
            return len(self)
        rank = self._rank_for(score)
        ahead = self._fronts[rank].order
        ahead = ahead[: ahead.index(score)]
        return self._above(rank) + sum(len(self._fronts[rank].members[other]) for other in ahead)

    def is_among(self, count: int, score: Score) -> bool:
        """Whether fewer than `count` come before a member with this score; spread is computed only where it decides."""
        if not score.is_valid:
            return False
        rank = self._rank_for(score)
        above = self._above(rank)
        if above >= count or above + self._fronts[rank].size <= count:
            return above < count
        return self.position(score) < count

    def _above(self, rank: int) -> int:
        return sum(front.size for front in self._fronts[:rank])
