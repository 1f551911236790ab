"""One pruning event: criterion, allocation, selection, compensation, removal, until the amount is reached.

Everything is decided and checked before anything is cut. Does NOT cover when an event happens (`schedules`) nor
what the learning rate does afterwards (`recoveries`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from spaces.errors import TrialFailed
from spaces.plan import Prune
from trainables.allocations import ALLOCATIONS
from trainables.compensations import COMPENSATIONS
from trainables.compensations.folding import check_adjustments, taken_up
from trainables.criteria import CRITERIA
from trainables.findings import Findings
from trainables.pruning.costs import Costs
from trainables.pruning.graph import trace
from trainables.pruning.groups import Group, Groups, Scores
from trainables.pruning.pressure import Kept
from trainables.pruning.probe import Probe
from trainables.pruning.removal import Removal, compose, remove
from trainables.pruning.selection import Order, Target, select, widths_of
from trainables.pruning.size import Dense, measure_weights, prunable
from trainables.pruning.weights import Masks
from trainables.schedules import Moment


@dataclass(frozen=True)
class EventResult:
    """What one event did."""

    removal: Removal  # relative to the network before the event
    costs: Costs  # of the network after it
    widths: dict[str, int]  # by group, after it
    removed_fraction: float  # of the weights
    norm_ratio: float  # norm of the removed weights over the norm of all, before
    charged_macs: int  # of the passes that criterion and allocation made
    inherited_macs: int  # of those: passes that another trial made
    streams_cut: int  # channels taken from groups with more than one producer, residual streams above all
    masks: Masks  # of single weights, after it
    kept: Kept  # of the groups that gave channels, by their indices before the event


def fire(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    example: Tensor,
    *,
    prune: Prune,
    moment: Moment,
    dense: Dense,
    probe: Callable[[dict[str, Group], int], Probe],
    epoch: int,
    chosen: Kept | None = None,
) -> EventResult:
    """Prune `model` to `moment.sparsity` (or by the paper's own count of filters), in place, with its optimizer.

    `probe(groups, forward_macs)` makes what criteria may look at; `chosen` goes first, where a regularizer chose it.
    Raises TrialFailed where scores are not usable.
    """
    stays: Kept = {}
    repair = None
    if prune.compensation is not None:
        repair = COMPENSATIONS.bind(prune.compensation.name, prune.compensation.settings)
    before = measure_weights(model, {})
    removal: Removal = {}
    probes: list[Probe] = []
    streams_cut = 0
    final: Target | None = None
    while True:
        traced = trace(model, example, dense=dense.widths)
        groups, costs = prunable(traced.graph.groups, prune), traced.costs
        if final is None:
            final = _target(prune, moment, dense, groups)
            _require_reachable(final, groups, costs, prune.width_multiple, epoch)
        if final.reached(groups, costs):
            break
        seen = probe(groups, costs.macs())
        probes.append(seen)
        seen.gates = {name: score[stays[name]] if name in stays else score for name, score in seen.gates.items()}
        if removal:  # the same cuts leave the same network, unless what was left has been repaired
            seen.findings = seen.findings.after(removal) if repair is None else Findings()
        target, kept = final, chosen
        if kept is None:
            scores, order = _ordered(prune, groups, seen, epoch)
            target = final.within(order.valid_for, costs)
            kept = select(order, scores, groups, costs, target=target, multiple=prune.width_multiple)
        chosen = None
        if all(len(indices) == groups[name].channels for name, indices in kept.items()):
            break  # at the floor of every group: nothing more can go
        streams_cut += sum(
            groups[name].channels - len(indices) for name, indices in kept.items() if len(groups[name].producers) > 1
        )
        adjustments = {} if repair is None else repair(groups, kept, seen)
        check_adjustments(adjustments, model, epoch)
        with taken_up(model, adjustments):
            removal = compose(removal, remove(model, groups, kept, optimizer, example))
        stays = {**stays, **{name: stays[name][own] if name in stays else own for name, own in kept.items()}}
        if target is final and final.is_count:
            traced = trace(model, example, dense=dense.widths)
            costs = traced.costs
            break
    after = measure_weights(model, {})
    return EventResult(
        removal=removal,
        costs=costs,
        widths={name: group.channels for name, group in traced.graph.groups.items()},
        removed_fraction=after.removed_since(before),
        norm_ratio=after.norm_ratio_to(before),
        charged_macs=sum(seen.charged_macs for seen in probes),
        inherited_macs=sum(seen.inherited_macs for seen in probes),
        streams_cut=streams_cut,
        masks={},
        kept=stays,
    )


@dataclass(frozen=True)
class Ahead:
    """What an event would leave."""

    kept: Kept
    charged_macs: int


def look_ahead(
    model: nn.Module,
    example: Tensor,
    *,
    prune: Prune,
    moment: Moment,
    dense: Dense,
    probe: Callable[[dict[str, Group], int], Probe],
    epoch: int,
) -> Ahead:
    """What `fire` would leave if the event came now, its scores asked for once. Nothing is changed."""
    traced = trace(model, example, dense=dense.widths)
    groups, costs = prunable(traced.graph.groups, prune), traced.costs
    seen = probe(groups, costs.macs())
    scores, order = _ordered(prune, groups, seen, epoch)
    target = _target(prune, moment, dense, groups)
    kept = select(order, scores, groups, costs, target=target, multiple=prune.width_multiple)
    return Ahead(kept, seen.charged_macs)


def _ordered(prune: Prune, groups: Groups, seen: Probe, epoch: int) -> tuple[Scores, Order]:
    scores = CRITERIA.bind(prune.criterion.name, prune.criterion.settings)(groups, seen)
    check_scores(scores, groups, prune.criterion.name, epoch)
    return scores, ALLOCATIONS.bind(prune.allocation.name, prune.allocation.settings)(scores, groups, seen)


def _target(prune: Prune, moment: Moment, dense: Dense, groups: Groups) -> Target:
    """The amount of this event in the unit that the plan speaks."""
    amount = prune.amount
    if amount.filters_per_event is not None:
        return Target.removing(amount.filters_per_event)
    if amount.keep_channels is not None:
        return Target.filters(int((1.0 - moment.sparsity) * dense.filters))
    return Target.macs(int((1.0 - moment.sparsity) * dense.macs))


def _require_reachable(target: Target, groups: Groups, costs: Costs, multiple: int, epoch: int) -> None:
    """An amount that no allocation can reach is refused before anything is cut, naming the layer that costs most."""
    least = target.least(groups, costs, multiple)
    if target.is_count or least <= target.value:
        return
    floors = {name: widths_of(group, multiple)[-1] for name, group in groups.items()}
    layers = costs.layer_macs(floors)
    dearest = max(layers, key=lambda layer: layers[layer])
    raise TrialFailed(
        f"{target.value:,} {target.unit} are out of reach: with every layer at its floor {least:,} are left; "
        f"'{dearest}' costs most of them",
        epoch=epoch,
    )


def check_scores(scores: Scores, groups: Groups, criterion: str, epoch: int) -> None:
    """A criterion that answers nonsense must not cut anything."""
    if not isinstance(scores, Mapping):  # as a function of the user's own may
        reason = f"criterion '{criterion}' gave {type(scores).__name__}; expected scores by group"
        raise TrialFailed(reason, epoch=epoch)
    for name, group in groups.items():
        score = scores.get(name)
        if score is None or tuple(score.shape) != (group.channels,):
            got = "nothing" if score is None else f"shape {tuple(score.shape)}"
            reason = f"criterion '{criterion}' gave {got} for {name}; expected ({group.channels},)"
            raise TrialFailed(reason, epoch=epoch)
        if not bool(torch.isfinite(score).all()):
            raise TrialFailed(f"criterion '{criterion}' gave a score that is not finite for {name}", epoch=epoch)
