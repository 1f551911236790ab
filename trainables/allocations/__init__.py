"""How much each layer gives: the turn in which each channel of each group would go."""

from typing import Protocol

from trainables.allocations.proportional import erk, given, uniform
from trainables.allocations.threshold import global_
from trainables.allocations.utilization import fur
from trainables.pruning.groups import Groups, Scores
from trainables.pruning.probe import Probe
from trainables.pruning.selection import Order
from trainables.table import Table


class Allocation(Protocol):
    """Turns {group: float64 [channels]} from scores, with no setting left open."""

    def __call__(self, scores: Scores, groups: Groups, probe: Probe, /) -> Order:
        """See `Order` for what turns mean."""
        ...


ALLOCATIONS: Table[Allocation] = Table("allocation", uniform, global_, given, erk, fur)

__all__ = ["ALLOCATIONS", "Allocation"]
