"""Layers give by what their MACs are worth: the loss that rises when a layer's channels drop out at equal cost."""

from typing import Annotated

import torch
from pydantic import Field

from trainables.allocations.proportional import Keep, proportional, proportions
from trainables.pruning.graph import trace
from trainables.pruning.groups import Groups, Scores
from trainables.pruning.probe import Probe
from trainables.pruning.selection import Order
from trainables.pruning.utilization import LARGEST_DROP, utilization


def fur(
    scores: Scores,
    groups: Groups,
    probe: Probe,
    /,
    *,
    strength: Annotated[float, Field(ge=0.0, le=4.0)] = 0.5,
    keeps: Annotated[
        dict[str, Keep] | tuple[Keep, ...],
        Field(description="one proportion per layer or stretch, around what the ratios suggest; empty: those alone"),
    ] = (),
    drop: Annotated[float, Field(gt=0.0, le=LARGEST_DROP)] = 0.2,
    repeats: Annotated[int, Field(ge=1)] = 1,
    samples: Annotated[int, Field(ge=0, description="training images; 0: all")] = 256,
    batch_size: Annotated[int, Field(ge=1)] = 128,
    least: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.05,
    reprobe: Annotated[float, Field(gt=0.0, le=1.0)] = 0.1,
) -> Order:
    """Layers whose MACs do the most work keep the most (FLOPs utilization ratio, Network Adjustment 2020).

    keep = clip(s * (max(FUR, 0) / median)^strength * keeps, least, 1), with one factor s to the target. `keeps` are
    the proportions of `given`, written alike; only their ratios count, as s takes up any factor that they share.
    Strength 0 asks for no ratio and is `given`, down to `least`. How FUR is measured: `utilization`, on training
    data; it is asked again whenever `reprobe` of the dense MACs are gone.
    """
    own = proportions(keeps, groups, allocation="fur") if keeps else dict.fromkeys(groups, 1.0)
    if strength == 0.0:
        return proportional(groups, own, least=least)
    images, _ = next(iter(probe.sample(1, 1)))
    costs = trace(probe.model, images).costs
    ratios = utilization(probe, groups, costs, drop=drop, repeats=repeats, samples=samples, batch_size=batch_size)
    suggested = dict.fromkeys(groups, 1.0) | shares(ratios, strength)
    order = proportional(groups, {name: suggested[name] * own[name] for name in groups}, least=least)
    dense = costs.macs({name: group.dense_channels for name, group in groups.items()})
    return Order(order.turns, valid_for=min(reprobe * dense / costs.macs(), 1.0))


def shares(ratios: dict[str, float], strength: float) -> dict[str, float]:
    """(max(FUR, 0) / median)^strength; equal shares where no group is of use."""
    positive = {name: max(ratio, 0.0) for name, ratio in ratios.items()}
    if not any(positive.values()):
        return dict.fromkeys(ratios, 1.0)
    median = float(torch.tensor(list(positive.values()), dtype=torch.float64).quantile(0.5))
    if median <= 0.0:
        median = max(positive.values())
    return {name: (ratio / median) ** strength for name, ratio in positive.items()}
