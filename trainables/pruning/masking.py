"""The reference for a removal: the whole network with the removed channels hidden from whoever reads them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from spaces.errors import UserError
from trainables.pruning.groups import Groups
from trainables.pruning.removal import Removal, apply
from trainables.pruning.tracer import tensors_of

Example = Tensor | tuple[Any, ...]
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
"""Largest difference allowed, relative to the largest output; other types compute with fewer digits."""


@contextmanager
def mask(model: nn.Module, groups: Groups, kept: Mapping[str, Tensor]) -> Iterator[nn.Module]:
    """The network with the other channels of each group zeroed at their consumers' input.

    Zeroing a consumer's columns is the same and needs no hook: an activation of zero is not enough, because what
    follows it (a norm's bias) need not keep it at zero. The weights are put back at the end.
    """
    tensors = dict(model.named_parameters())
    saved: dict[str, Tensor] = {}
    try:
        with torch.no_grad():
            for name, keep in kept.items():
                dropped = torch.ones(groups[name].channels, dtype=torch.bool)
                dropped[keep.cpu()] = False
                for part in groups[name].slices:
                    if part.role == "in" and bool(dropped.any()):
                        weight = tensors[part.tensor]
                        saved.setdefault(part.tensor, weight.detach().clone())
                        gone = part.positions[dropped].reshape(-1).to(weight.device)
                        weight.data.index_fill_(part.dim, gone, 0)
        yield model
    finally:
        with torch.no_grad():
            for tensor, value in saved.items():
                tensors[tensor].data.copy_(value)


def verify_removal(
    model: nn.Module,
    groups: Groups,
    kept: Mapping[str, Tensor],
    removal: Removal,
    example: Example,
    optimizer: torch.optim.Optimizer | None = None,
) -> float:
    """Removes, and refuses to go on unless the smaller network answers like the masked one, in eval mode.

    Returns the largest difference relative to the largest output. Raises UserError on a mismatch: the network is then
    cut and must not be used further.
    """
    inputs = example if isinstance(example, tuple) else (example,)
    with mask(model, groups, kept):
        expected = answers(model, inputs)
    apply(model, removal, optimizer)
    try:
        got = answers(model, inputs)
    except Exception as error:
        raise UserError(f"the network does not run after the removal from {', '.join(kept)}: {error}") from error
    error_size = difference(expected, got)
    dtype = next(model.parameters()).dtype
    if not error_size <= TOLERANCE.get(dtype, 0.05):
        raise UserError(
            f"the network answers differently after the removal from {', '.join(kept)}: "
            f"relative difference {error_size:.1e}"
        )
    return error_size


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
