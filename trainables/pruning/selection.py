"""From an order to the channels that stay: packs are taken in turn until the target is met, and not one pack more.

Does NOT cover who goes first (`criteria`, `allocations`) nor the cutting (`removal`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from trainables.pruning.costs import Costs
from trainables.pruning.groups import Group, Groups, Scores


@dataclass(frozen=True, eq=False)
class Order:
    """Whose turn it is. `turns[group]` is float64 [channels], never falling: entry j is the turn of removing the
    (j+1)-th lowest-scored channel of the group, and the lowest turn of all groups goes first.

    `valid_for` is the fraction of the present MACs that may go before scores and turns must be asked for again.
    """

    turns: Mapping[str, Tensor]
    valid_for: float = 1.0


@dataclass(frozen=True)
class Target:
    """How far one event goes: MACs left, filters left, or filters removed."""

    unit: Literal["macs", "filters", "removed filters"]
    value: int

    @classmethod
    def macs(cls, value: int) -> "Target":
        """At most `value` MACs of one sample are left."""
        return cls("macs", value)

    @classmethod
    def filters(cls, value: int) -> "Target":
        """At most `value` filters are left in the groups that may be pruned."""
        return cls("filters", value)

    @classmethod
    def removing(cls, value: int) -> "Target":
        """`value` filters go; where tied channels do not add up to that number, the fewest above it."""
        return cls("removed filters", value)

    @property
    def is_count(self) -> bool:
        """Whether the amount is counted from where the event began, so that it cannot be asked for twice."""
        return self.unit == "removed filters"

    def reached(self, groups: Groups, costs: Costs) -> bool:
        """Whether the network as it stands needs no cut."""
        return not self.is_count and _left(self, groups, costs)({}) <= self.value

    def least(self, groups: Groups, costs: Costs, multiple: int) -> int:
        """What is left, in this target's unit, when every group is at its floor."""
        return _left(self, groups, costs)({name: widths_of(group, multiple)[-1] for name, group in groups.items()})

    def within(self, fraction: float, costs: Costs) -> "Target":
        """This target, or the nearer one that removes no more than `fraction` of the present MACs."""
        if self.unit != "macs" or fraction >= 1.0:
            return self
        nearest = int((1.0 - fraction) * costs.macs())
        return self if nearest <= self.value else Target.macs(nearest)


def select(
    order: Order, scores: Scores, groups: Groups, costs: Costs, *, target: Target, multiple: int
) -> dict[str, Tensor]:
    """The channels that stay: {group: int64, sorted}.

    Widths end on multiples of `multiple` where the group is at least that wide, and at least one such pack stays; a
    narrower group gives single channels down to one. Putting the last pack back would miss the target. A target
    below `smallest` gives every group at its floor. Equal scores fall in the order of their index, equal turns in
    that of the network.
    """
    packs = _packs(order, groups, multiple)
    needed = _fewest(packs, groups, target, costs)
    widths = _widths(groups, packs[:needed])
    kept = {}
    for name, group in groups.items():
        ranked = torch.argsort(scores[name].detach().double().cpu(), stable=True)
        kept[name] = torch.sort(ranked[group.channels - widths[name] :]).values
    return kept


def smallest(groups: Groups, costs: Costs, multiple: int) -> int:
    """The MACs of one sample when every group is at its floor: no target below can be reached."""
    return costs.macs({name: widths_of(group, multiple)[-1] for name, group in groups.items()})


def widths_of(group: Group, multiple: int) -> list[int]:
    """The widths that a group may take, from its present one down to its floor."""
    if group.channels < multiple:
        return list(range(group.channels, 0, -1))
    down = range((group.channels - 1) // multiple * multiple, 0, -multiple)
    return [group.channels, *down]


@dataclass(frozen=True)
class _Pack:
    """Channels of one group that go together; `width` is what the group has left without them."""

    turn: float
    position: int  # of the group in the network
    group: str
    width: int


def _packs(order: Order, groups: Groups, multiple: int) -> list[_Pack]:
    packs = []
    for position, (name, group) in enumerate(groups.items()):
        turns = torch.cummax(order.turns[name].detach().double().cpu(), 0).values
        widths = widths_of(group, multiple)
        for before, after in pairwise(widths):
            own = turns[group.channels - before : group.channels - after]
            packs.append(_Pack(float(own.mean()), position, name, after))
    # Within a group the means of successive packs never fall, and a stable sort keeps their order where they tie.
    return sorted(packs, key=lambda pack: (pack.turn, pack.position))


def _widths(groups: Groups, removed: Sequence[_Pack]) -> dict[str, int]:
    """Each group's width once these packs are gone; a group's later packs leave less."""
    return {name: group.channels for name, group in groups.items()} | {pack.group: pack.width for pack in removed}


def _left(target: Target, groups: Groups, costs: Costs) -> Callable[[Mapping[str, int]], int]:
    """What is left, in the target's unit, at given widths."""
    if target.unit == "macs":
        return costs.macs

    def filters(widths: Mapping[str, int]) -> int:
        return sum(group.filters * widths.get(name, group.channels) for name, group in groups.items())

    return filters


def _fewest(packs: Sequence[_Pack], groups: Groups, target: Target, costs: Costs) -> int:
    """How many packs must go, by bisection on the exact cost, which never rises as more of them go."""
    left = _left(target, groups, costs)
    most = left({}) - target.value if target.is_count else target.value
    few, many = 0, len(packs)
    while few < many:
        middle = (few + many) // 2
        if left(_widths(groups, packs[:middle])) <= most:
            many = middle
        else:
            few = middle + 1
    return few
