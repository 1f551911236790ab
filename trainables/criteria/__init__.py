"""Which channels matter least: one score per channel of each group, low goes first."""

from typing import Protocol

from trainables.criteria.gated import gate
from trainables.criteria.magnitude import bn_scale, l1, l2, magnitude, random
from trainables.criteria.relevance import frs
from trainables.criteria.sensitivity import snap, snip, taylor
from trainables.pruning.groups import Groups, Scores
from trainables.pruning.probe import Probe
from trainables.table import Table


class Criterion(Protocol):
    """Scores of all groups in one call, with no setting left open."""

    def __call__(self, groups: Groups, probe: Probe, /) -> Scores:
        """{group: Tensor [channels of the group]}; low is pruned first."""
        ...


CRITERIA: Table[Criterion] = Table("criterion", l1, l2, magnitude, random, bn_scale, taylor, snip, snap, frs, gate)

__all__ = ["CRITERIA", "Criterion"]
