"""Criteria that look at weights alone, or at nothing: no pass through the network."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from trainables.criteria.members import Aggregate, Normalise, aggregated, channelwise, normalised, rows
from trainables.pruning.groups import Group, Groups, Scores
from trainables.pruning.probe import Probe
from trainables.table import also_of_weights


def l1(groups: Groups, probe: Probe, /, *, normalise: Normalise = "mean", aggregate: Aggregate = "mean") -> Scores:
    """Channels made by small weights matter least: sum of |w| over each filter (Li et al. 2017)."""
    return _norms(groups, probe, 1, normalise, aggregate)


def l2(groups: Groups, probe: Probe, /, *, normalise: Normalise = "mean", aggregate: Aggregate = "mean") -> Scores:
    """Channels made by small weights matter least: the Euclidean norm of each filter (He et al. 2018)."""
    return _norms(groups, probe, 2, normalise, aggregate)


@also_of_weights
def magnitude(groups: Groups, probe: Probe, /) -> Scores:
    """Small weights matter least, on one scale for all layers: |w|, of channels the mean over members of its sum."""
    return _norms(groups, probe, 1, "none", "mean")


@also_of_weights
def random(groups: Groups, probe: Probe, /) -> Scores:
    """Any channel may go: what every other criterion has to beat."""
    return {name: torch.rand(group.channels, generator=probe.generator) for name, group in groups.items()}


def bn_scale(
    groups: Groups, probe: Probe, /, *, normalise: Normalise = "none", aggregate: Aggregate = "mean"
) -> Scores:
    """Channels that batch norm scales down matter least: |gamma| (Network Slimming, Liu et al. 2017).

    |gamma| is the spread of a channel over the data. In a group without scaled norms the norm of each filter stands
    for it: the spread of its output over uncorrelated inputs of spread one.
    """
    parameters = dict(probe.model.named_parameters())
    return {
        name: aggregated(
            (normalised(score, normalise) for score in _spreads(group, parameters, probe.model)), aggregate
        )
        for name, group in groups.items()
    }


def _norms(groups: Groups, probe: Probe, order: int, normalise: Normalise, aggregate: Aggregate) -> Scores:
    scores = {}
    for name, group in groups.items():
        members = (torch.linalg.vector_norm(weights, order, dim=1) for _, weights in rows(probe.model, group))
        scores[name] = aggregated((normalised(member, normalise) for member in members), aggregate)
    return scores


def _spreads(group: Group, parameters: Mapping[str, Tensor], model: nn.Module) -> list[Tensor]:
    scales = [
        channelwise(parameters[piece.tensor].detach(), piece).abs().mean(1)
        for piece in group.slices
        if piece.role == "norm" and piece.tensor.endswith("weight") and piece.tensor in parameters
    ]
    return scales or [torch.linalg.vector_norm(weights, dim=1) for _, weights in rows(model, group)]
