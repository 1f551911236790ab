"""One threshold for the whole network: scores of all groups stand in one line."""

import torch

from trainables.pruning.groups import Groups, Scores
from trainables.pruning.probe import Probe
from trainables.pruning.selection import Order
from trainables.table import also_of_weights


@also_of_weights
def global_(scores: Scores, groups: Groups, probe: Probe, /) -> Order:
    """The lowest score of the whole network goes first; layers give what that comes to."""
    return Order({name: torch.sort(scores[name].detach().double().cpu()).values for name in groups})
