"""Weights come back where the loss would move most if they did."""

from math import cos, pi
from typing import Annotated

import torch
from pydantic import Field

from trainables.criteria.gradients import mean_gradients
from trainables.pruning.probe import Probe
from trainables.pruning.weights import Masks

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


def gradient(
    masks: Masks,
    probe: Probe,
    progress: float,
    /,
    *,
    fraction: Fraction = 0.5,
    final: Fraction = 0.005,
    samples: Annotated[int, Field(ge=0, description="training images; 0: all")] = 512,
    batch_size: Annotated[int, Field(ge=1)] = 256,
) -> Masks:
    """The smallest weights make room for those with the largest gradient (GraNet, Liu et al. 2021; RigL 2020).

    In each layer a fraction of the weights alive, that falls as a cosine from `fraction` to `final` over training,
    goes by |w|, and as many come by |dL/dw| of the dense gradient, in eval mode. One that would come back at once has
    never gone.
    """
    rate = final + (fraction - final) * (1 + cos(pi * progress)) / 2
    weights = {name: probe.model.get_parameter(name) for name, mask in masks.items() if not bool(mask.all())}
    if not weights:
        return dict(masks)
    slopes = mean_gradients(probe, probe.loss, weights, samples, batch_size)
    renewed = dict(masks)
    for name, weight in weights.items():
        alive = masks[name].flatten().clone()
        count = min(int(rate * int(alive.sum())), int((~alive).sum()))
        sizes = weight.detach().abs().flatten().masked_fill(~alive, torch.inf)
        alive[torch.argsort(sizes, stable=True)[:count]] = False
        slope = slopes[name].abs().flatten().masked_fill(alive, -torch.inf)
        alive[torch.argsort(slope, descending=True, stable=True)[:count]] = True
        renewed[name] = alive.view_as(weight)
    return renewed
