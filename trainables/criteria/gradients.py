"""The gradient of the loss by weights, averaged over training data."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from trainables.pruning.probe import Loss, Probe


def mean_gradients(
    probe: Probe, loss: Loss, weights: Mapping[str, Tensor], samples: int, batch_size: int
) -> dict[str, Tensor]:
    """float64 dL/dw of each weight, in eval mode, zero where the loss does not depend on it; the passes are charged."""
    totals = {name: torch.zeros_like(weight, dtype=torch.float64) for name, weight in weights.items()}
    counted = 0
    with probe.undisturbed() as model, _learning(weights.values()), torch.enable_grad():
        for images, labels in probe.sample(samples, batch_size):
            value = loss(model(images), labels) * len(labels)
            gradients = torch.autograd.grad(value, list(weights.values()), allow_unused=True)
            probe.charge(forward=len(labels), backward=len(labels))
            counted += len(labels)
            for total, gradient in zip(totals.values(), gradients, strict=True):
                if gradient is not None:
                    total += gradient
    return {name: total / max(counted, 1) for name, total in totals.items()}


@contextmanager
def _learning(weights: Iterable[Tensor]) -> Iterator[None]:
    """Gradients reach these weights inside, frozen ones too."""
    frozen = [weight for weight in weights if not weight.requires_grad]
    for weight in frozen:
        weight.requires_grad_(True)
    try:
        yield
    finally:
        for weight in frozen:
            weight.requires_grad_(False)
