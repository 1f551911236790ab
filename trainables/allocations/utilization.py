"""Layers give by what their MACs are worth: the loss that rises when a layer's channels drop out at equal cost."""

from collections.abc import Mapping
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from trainables.allocations.proportional import proportional
from trainables.pruning.gates import gated
from trainables.pruning.graph import trace
from trainables.pruning.groups import Groups, Scores
from trainables.pruning.probe import Probe
from trainables.pruning.selection import Order

LARGEST_DROP = 0.5


def fur(
    scores: Scores,
    groups: Groups,
    probe: Probe,
    /,
    *,
    strength: Annotated[float, Field(ge=0.0, le=4.0)] = 0.5,
    drop: Annotated[float, Field(gt=0.0, le=LARGEST_DROP)] = 0.2,
    repeats: Annotated[int, Field(ge=1)] = 1,
    samples: Annotated[int, Field(ge=0, description="training images; 0: all")] = 256,
    batch_size: Annotated[int, Field(ge=1)] = 128,
    least: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.05,
    reprobe: Annotated[float, Field(gt=0.0, le=1.0)] = 0.1,
) -> Order:
    """Layers whose MACs do the most work keep the most (FLOPs utilization ratio, Network Adjustment 2020).

    keep = clip(s * (max(FUR, 0) / median)^strength, least, 1). FUR is the loss increase on training data (`samples`,
    0: all) when the group's channels drop out with a probability that removes equal MACs in every group, `drop` of
    the mean group's; a mean of `repeats` draws. A group too cheap for that drops at 0.5, and its increase is scaled
    to equal MACs. Asked again whenever `reprobe` of the dense MACs are gone.
    """
    images, _ = next(iter(probe.sample(1, 1)))
    costs = trace(probe.model, images).costs
    macs = {name: costs.macs() - costs.macs({name: 0}) for name in groups}
    worth = {name: own for name, own in macs.items() if own > 0}  # an auxiliary head costs nothing to evaluate
    rates, scales = drop_rates(worth, drop)
    increases = dict.fromkeys(worth, 0.0)
    counted = 0
    with probe.undisturbed(), torch.no_grad():
        for images, labels in probe.sample(samples, batch_size):
            counted += len(labels)
            intact = float(probe.loss(probe.model(images), labels))
            for name in worth:
                for _ in range(repeats):
                    gates = {name: _dropout(rates[name], (len(labels), groups[name].channels), images, probe)}
                    with gated(probe.model, groups, gates, where="read"):
                        dropped = float(probe.loss(probe.model(images), labels))
                    increases[name] += scales[name] * (dropped - intact) / repeats * len(labels)
            probe.charge(forward=len(labels) * (1 + repeats * len(worth)))
    ratios = {name: increase / max(counted, 1) for name, increase in increases.items()}
    dense = costs.macs({name: group.dense_channels for name, group in groups.items()})
    turns = proportional(groups, dict.fromkeys(groups, 1.0) | shares(ratios, strength), least=least).turns
    return Order(turns, valid_for=min(reprobe * dense / costs.macs(), 1.0))


def drop_rates(macs: Mapping[str, int], drop: float) -> tuple[dict[str, float], dict[str, float]]:
    """Per group the probability that removes `drop` of the mean group's MACs, at most 0.5; and what scales the loss
    increase of a group that this bound keeps from removing as much. `macs`: what goes when the group is gone."""
    mean = sum(macs.values()) / len(macs)
    wanted = {name: drop * mean / max(share, 1) for name, share in macs.items()}
    rates = {name: min(rate, LARGEST_DROP) for name, rate in wanted.items()}
    return rates, {name: wanted[name] / rates[name] for name in macs}


def shares(ratios: dict[str, float], strength: float) -> dict[str, float]:
    """(max(FUR, 0) / median)^strength; equal shares where no group is of use."""
    positive = {name: max(ratio, 0.0) for name, ratio in ratios.items()}
    median = float(torch.tensor(list(positive.values()), dtype=torch.float64).quantile(0.5))
    if median <= 0.0:
        median = max(positive.values())
    if median <= 0.0:
        return dict.fromkeys(ratios, 1.0)
    return {name: (ratio / median) ** strength for name, ratio in positive.items()}


def _dropout(rate: float, shape: tuple[int, int], like: Tensor, probe: Probe) -> Tensor:
    """A gate per sample and channel: 0 with probability `rate`, else what keeps the mean."""
    kept = torch.rand(shape, generator=probe.generator, dtype=torch.float64) >= rate
    return (kept / (1.0 - rate)).to(like)
