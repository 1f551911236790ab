"""How much is left of a network at given widths, in the unit that a plan's amount speaks, and where an event will end.

Widths may be tensors: MACs are a polynomial of them, so that gradients pass through.
"""

from collections.abc import Callable, Mapping
from typing import Any, cast

from torch import Tensor

from spaces.plan import Prune
from trainables.pruning.costs import Costs
from trainables.pruning.groups import Groups
from trainables.pruning.size import Dense
from trainables.schedules import Moment

Left = Callable[[Mapping[str, Tensor]], Tensor]
"""{group: width} -> the fraction of the dense network; a group that is not named stays as wide as it is."""


def left_of(prune: Prune, dense: Dense, groups: Groups, costs: Costs) -> Left:
    """The fraction of MACs, or of filters where the amount counts those."""

    def macs(widths: Mapping[str, Tensor]) -> Tensor:
        return cast(Tensor, costs.macs(cast(Any, widths)) / dense.macs)

    def filters(widths: Mapping[str, Tensor]) -> Tensor:
        every = (group.filters * widths.get(name, cast(Any, group.channels)) for name, group in groups.items())
        return cast(Tensor, sum(every) / dense.filters)

    return macs if prune.amount.keep_macs is not None else filters


def keep_after(prune: Prune, moment: Moment, dense: Dense, groups: Groups) -> float:
    """What is left after the event, in that unit."""
    if prune.amount.filters_per_event is None:
        return 1.0 - moment.sparsity
    filters = sum(group.filters * group.channels for group in groups.values())
    return max(filters - prune.amount.filters_per_event, 0) / dense.filters
