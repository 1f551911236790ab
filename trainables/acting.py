"""What acts on a network in every step beside the training recipe: masks of single weights.

Its state is tensors by name, which a checkpoint holds beside the weights.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from trainables.pruning.weights import Masks, enforce, hide_gradients
from trainables.training.loop import Beside

MASKS = "masks/"


class Acting:
    """The state of what acts, from one boundary to the next."""

    def __init__(self) -> None:
        self.masks: Masks = {}

    def beside(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Beside:
        """What the next epoch's steps must do besides."""
        if not self.masks:
            return Beside()
        return Beside(
            gradients=lambda: hide_gradients(model, self.masks), weights=lambda: enforce(model, self.masks, optimizer)
        )

    def tensors(self) -> dict[str, Tensor]:
        """The state, by name; empty where nothing acts."""
        return {MASKS + name: mask for name, mask in self.masks.items()}

    def take_up(self, tensors: Mapping[str, Tensor], model: nn.Module) -> None:
        """Go on from a saved state. Raises ValueError where it does not fit the network."""
        parameters = dict(model.named_parameters())
        self.masks = {}
        for path, tensor in tensors.items():
            name = path.removeprefix(MASKS)
            if name == path or name not in parameters:
                raise ValueError(f"'{path}' belongs to no parameter of this network")
            if tensor.shape != parameters[name].shape or tensor.dtype != torch.bool:
                raise ValueError(f"mask '{path}' is {tensor.dtype} {tuple(tensor.shape)}")
            self.masks[name] = tensor.to(parameters[name].device)
