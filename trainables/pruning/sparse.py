"""One pruning event on single weights: criterion, allocation, selection, masks, regrowth. It saves no MAC.

Does NOT cover the event on channels (`event`), nor the masks between events (`weights`).
"""

from collections.abc import Callable

import torch
from torch import nn

from spaces.errors import TrialFailed
from spaces.plan import Prune
from trainables.allocations import ALLOCATIONS
from trainables.criteria import CRITERIA
from trainables.pruning.costs import Costs
from trainables.pruning.event import EventResult, check_scores
from trainables.pruning.groups import Group, Groups, Scores
from trainables.pruning.precision import refuse_half_precision
from trainables.pruning.probe import Probe
from trainables.pruning.selection import Order
from trainables.pruning.size import Dense, measure_weights, prunable
from trainables.pruning.weights import Masks, Pattern, enforce, select_weights, weight_groups
from trainables.regrowths import REGROWTHS
from trainables.schedules import Moment


def fire_weights(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    prune: Prune,
    moment: Moment,
    dense: Dense,
    costs: Costs,
    masks: Masks,
    probe: Callable[[dict[str, Group], int], Probe],
    epoch: int,
    progress: float,
) -> EventResult:
    """Mask weights of `model` to `moment.sparsity`, in place, with what the optimizer remembers of them.

    `progress`: the fraction of training that is over, which regrowth goes by. Raises TrialFailed where scores are not
    usable, UserError where a layer is in half precision on a CPU.
    """
    refuse_half_precision(model)
    before = measure_weights(model, masks)
    groups = prunable(weight_groups(model, masks), prune)
    seen = probe(groups, costs.macs())
    scores = CRITERIA.bind(prune.criterion.name, prune.criterion.settings)(groups, seen)
    check_scores(scores, groups, prune.criterion.name, epoch)
    allocation = ALLOCATIONS.bind(prune.allocation.name, prune.allocation.settings)

    def allocate(scores: Scores, groups: Groups) -> Order:
        return allocation(scores, groups, seen)

    pattern = None if prune.pattern is None else Pattern.read(prune.pattern)
    most = int((1.0 - moment.sparsity) * dense.weights)
    found = select_weights(model, groups, scores, allocate, most=most, pattern=pattern)
    enforce(model, found, optimizer)
    if prune.regrowth is not None:
        renewed = REGROWTHS.bind(prune.regrowth.name, prune.regrowth.settings)(found, seen, progress)
        found = _checked(renewed, found, prune.regrowth.name, epoch)
        enforce(model, found, optimizer)
    after = measure_weights(model, found)
    return EventResult(
        removal={},
        costs=costs,
        widths=dict(costs.traced_widths),
        removed_fraction=after.removed_since(before),
        norm_ratio=after.norm_ratio_to(before),
        charged_macs=seen.charged_macs,
        inherited_macs=seen.inherited_macs,
        streams_cut=0,
        masks=found,
        kept={},
    )


def _checked(renewed: Masks, found: Masks, regrowth: str, epoch: int) -> Masks:
    """The renewed masks. A regrowth that changes how many weights are alive misses the amount: TrialFailed."""
    for name, mask in found.items():
        got = renewed.get(name)
        if got is None or got.shape != mask.shape or got.dtype != torch.bool:
            raise TrialFailed(f"regrowth '{regrowth}' gave no mask of the right shape for {name}", epoch=epoch)
        if int(got.sum()) != int(mask.sum()):
            reason = f"regrowth '{regrowth}' left {int(got.sum())} weights alive in {name}, not {int(mask.sum())}"
            raise TrialFailed(reason, epoch=epoch)
    return renewed
