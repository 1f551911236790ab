"""Layers give by proportion: each keeps its own share of its dense channels, all shares scaled by one factor."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from math import prod
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from spaces.errors import UserError
from trainables.pruning.groups import Group, Groups, Scores
from trainables.pruning.probe import Probe
from trainables.pruning.selection import Order
from trainables.table import also_of_weights

Keep = Annotated[float, Field(gt=0.0, le=1.0)]


@also_of_weights
def uniform(scores: Scores, groups: Groups, probe: Probe, /) -> Order:
    """Every layer keeps the same fraction of its dense channels."""
    return proportional(groups, dict.fromkeys(groups, 1.0))


@also_of_weights
def given(
    scores: Scores,
    groups: Groups,
    probe: Probe,
    /,
    *,
    keeps: dict[str, Keep] | tuple[Keep, ...] = (),
) -> Order:
    """Each layer keeps the proportion given for it, all scaled by one factor to the target.

    A mapping goes by patterns over the names of a group's producers, the first that fits counting, and what none
    names keeps 1. A list of K proportions cuts the network into K stretches of equally many groups.
    """
    return proportional(groups, proportions(keeps, groups, allocation="given"))


@also_of_weights
def erk(scores: Scores, groups: Groups, probe: Probe, /) -> Order:
    """Layers keep in proportion to sum / product of their weight's shape, so that small ones keep more.

    Erdos-Renyi-Kernel (Evci et al. 2020; Random Pruning 2022): a layer that this would make denser than dense is
    dense, and one factor scales the others to the target. Of channels, the weights are those that make them.
    """
    shapes = {name: [w.shape for w in _made_by(probe.model, group)] for name, group in groups.items()}
    return proportional(groups, {name: sum(map(sum, own)) / sum(map(prod, own)) for name, own in shapes.items()})


def _made_by(model: nn.Module, group: Group) -> list[Tensor]:
    pieces = [piece for piece in group.slices if piece.role in ("out", "weights")]
    return [weight for weight in (model.get_parameter(piece.tensor) for piece in pieces) if weight.dim() > 1]


def proportional(groups: Groups, shares: Mapping[str, float], *, least: float = 0.0) -> Order:
    """The order in which keep = clip(s * share, least, 1) falls as the one factor s does.

    A group of width w loses its next channel when s * share * dense < w. Below `least` a group gives only when every
    other is there too, and then by equal fractions.
    """
    return Order({name: _turns(group, shares[name], least) for name, group in groups.items()})


def _turns(group: Group, share: float, least: float) -> torch.Tensor:
    keep = torch.arange(group.channels, 0, -1, dtype=torch.float64) / group.dense_channels
    above = -keep / max(share, 1e-12)  # below zero: before all that stand under their least
    return torch.where(keep > least, above, 1.0 - keep)


def proportions(keeps: Mapping[str, float] | Sequence[float], groups: Groups, *, allocation: str) -> dict[str, float]:
    """Each group's proportion, from patterns or from a list of stretches; see `given`. `allocation` names who asks."""
    if isinstance(keeps, Mapping):
        return _by_pattern(keeps, groups, allocation)
    if not keeps:
        message = f"allocation '{allocation}' needs its setting 'keeps': a list of proportions, or pattern: proportion"
        raise UserError(message)
    return {name: keeps[index * len(keeps) // len(groups)] for index, name in enumerate(groups)}


def _by_pattern(keeps: Mapping[str, float], groups: Groups, allocation: str) -> dict[str, float]:
    unused = set(keeps)
    shares = {}
    for name, group in groups.items():
        fitting = [p for p in keeps if any(fnmatchcase(producer, p) for producer in group.producers)]
        unused.difference_update(fitting)
        shares[name] = keeps[fitting[0]] if fitting else 1.0
    if unused:
        raise UserError(
            f"allocation '{allocation}' names '{min(unused)}', which fits no layer; "
            f"layers: {', '.join(groups) or 'none'}"
        )
    return shares
