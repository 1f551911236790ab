"""A way back from a removal that turned out wrong: what it is about to change, kept until it has been checked."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn


def remember(
    model: nn.Module, names: Iterable[str], optimizer: torch.optim.Optimizer | None = None
) -> Callable[[], None]:
    """A function that puts the named tensors, their gradients, optimizer state and modules back as they are now.

    Nothing is copied: a removal makes new storage, so holding on to the old one is enough.
    """
    names = set(names)
    tensors = [t for name, t in (*model.named_parameters(), *model.named_buffers()) if name in names]
    held = [(tensor, tensor.data, tensor.grad) for tensor in tensors]
    states: list[tuple[Tensor, dict[str, Any]]] = []
    if optimizer is not None:
        states = [(tensor, dict(optimizer.state[tensor])) for tensor in tensors if tensor in optimizer.state]
    owners = {name.rpartition(".")[0] for name in names}
    modules = [module for name, module in model.named_modules(remove_duplicate=False) if name in owners]
    attributes = [(module, dict(module.__dict__)) for module in modules]

    def undo() -> None:
        for tensor, data, gradient in held:
            tensor.grad = None
            tensor.data = data
            tensor.grad = gradient
        for tensor, state in states:
            assert optimizer is not None
            optimizer.state[tensor].update(state)
        for module, found in attributes:
            module.__dict__.clear()
            module.__dict__.update(found)

    return undo
