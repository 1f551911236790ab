"""What a criterion or an allocation may look at: the network, labelled training data, and the loss.

Every pass is charged in training MACs, and leaves weights, buffers, gradients, modes and generators as it found them.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from trainables.pruning.groups import Group

Loss = Callable[[Tensor, Tensor], Tensor]
"""(logits [batch, classes], labels int64 [batch]) -> scalar mean loss."""


@dataclass
class Probe:
    """One event's view of the trial.

    `batches(samples, batch_size)` yields (images, labels) of training data without augmentation, on the model's
    device, in an order that depends on the event alone. `held_out(samples, batch_size)` yields training data kept
    apart from nothing but this: it is not the validation split.
    """

    model: nn.Module
    groups: dict[str, Group]
    loss: Loss
    num_classes: int
    batches: Callable[[int, int], Iterator[tuple[Tensor, Tensor]]]
    generator: torch.Generator  # on the CPU, seeded from (seed, event)
    forward_macs: int  # of one sample at the present widths
    charged_macs: int = field(default=0)

    def charge(self, *, forward: int = 0, backward: int = 0) -> None:
        """Count `forward` samples passed forward and `backward` samples passed back (a backward pass is 2x forward)."""
        self.charged_macs += self.forward_macs * (forward + 2 * backward)

    @contextmanager
    def undisturbed(self, *, mode: str = "eval") -> Iterator[nn.Module]:
        """The model in `eval` or `train` mode, everything put back at the end: modes, buffers, gradients."""
        modes = {module: module.training for module in self.model.modules()}
        buffers = {name: buffer.clone() for name, buffer in self.model.named_buffers()}
        gradients = {name: p.grad for name, p in self.model.named_parameters()}
        for parameter in self.model.parameters():
            parameter.grad = None
        self.model.train(mode == "train")
        try:
            yield self.model
        finally:
            for module, training in modes.items():
                module.training = training
            with torch.no_grad():
                for name, buffer in self.model.named_buffers():
                    buffer.copy_(buffers[name])
            for name, p in self.model.named_parameters():
                p.grad = gradients[name]
