"""The reference for a removal: the whole network with the removed channels hidden from whoever reads them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from trainables.pruning.groups import Groups
from trainables.pruning.tracer import tensors_of


@contextmanager
def mask(model: nn.Module, groups: Groups, kept: Mapping[str, Tensor]) -> Iterator[nn.Module]:
    """The network with the other channels of each group zeroed at their consumers' input.

    Zeroing a consumer's columns is the same and needs no hook: an activation of zero is not enough, because what
    follows it (a norm's bias) need not keep it at zero. The weights themselves are not written: copies stand in.
    """
    tensors = dict(model.named_parameters())
    found: dict[str, Tensor] = {}
    try:
        for name, keep in kept.items():
            dropped = torch.ones(groups[name].channels, dtype=torch.bool)
            dropped[keep.cpu()] = False
            if not bool(dropped.any()):
                continue
            for part in groups[name].slices:
                if part.role == "in":
                    weight = tensors[part.tensor]
                    if part.tensor not in found:
                        found[part.tensor] = weight.data
                        weight.data = weight.data.clone()
                    gone = part.positions[dropped].reshape(-1).to(weight.device)
                    weight.data.index_fill_(part.dim, gone, 0)
        yield model
    finally:
        for tensor, value in found.items():
            tensors[tensor].data = value


def answers(model: nn.Module, inputs: tuple[Any, ...]) -> list[Tensor]:
    """The network's outputs in eval mode; modes are put back."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            return [tensor.detach().clone() for tensor in tensors_of(model(*inputs))]
    finally:
        for module, training in modes.items():
            module.training = training


def difference(expected: list[Tensor], got: list[Tensor]) -> float:
    """Largest difference of two answers, relative to the largest expected value of each output."""
    worst = 0.0
    for a, b in zip(expected, got, strict=True):
        if a.shape != b.shape:
            return float("inf")
        scale = max(float(a.abs().max()), 1e-30)
        worst = max(worst, float((a - b).abs().max()) / scale)
    return worst
