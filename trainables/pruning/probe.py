"""What a criterion or an allocation may look at: the network, labelled training data, and the loss.

Every pass is charged in training MACs, and leaves weights, buffers, gradients, modes and generators as it found them.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from trainables.findings import Finding, Findings
from trainables.pruning.groups import Group, Scores

Loss = Callable[[Tensor, Tensor], Tensor]
"""(logits [batch, classes], labels int64 [batch]) -> scalar mean loss."""


@dataclass
class Probe:
    """One event's view of the trial.

    `batches(samples, batch_size)` yields (images, labels) of training data without augmentation, on the model's
    device, in an order that depends on the event alone: `samples` images, or all where there are fewer.
    """

    model: nn.Module
    groups: dict[str, Group]
    loss: Loss
    num_classes: int
    batches: Callable[[int, int], Iterator[tuple[Tensor, Tensor]]]
    generator: torch.Generator  # on the CPU, seeded from (seed, event)
    forward_macs: int  # of one sample at the present widths
    gates: Scores = field(default_factory=dict)  # what the plan's gate says of each channel; empty without one
    findings: Findings = field(default_factory=Findings)  # of other trials at this boundary
    charged_macs: int = field(default=0)
    inherited_macs: int = field(default=0)  # of those charged: passes that another trial made

    def sample(self, samples: int, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Training data in batches; `samples` 0 asks for all of it."""
        return self.batches(samples or sys.maxsize, batch_size)

    def charge(self, *, forward: int = 0, backward: int = 0) -> None:
        """Count `forward` samples passed forward and `backward` samples passed back (a backward pass is 2x forward)."""
        self.charged_macs += self.forward_macs * (forward + 2 * backward)

    def once(self, question: Any, find: Callable[[], dict[str, float]]) -> dict[str, float]:
        """What `find` finds, or what another trial found that asked this network the same.

        The trial is charged for the passes either way; they are made once. `question`: a JSON value.
        """
        known = self.findings.recall(question)
        if known is None:
            before = self.charged_macs
            known = Finding(find(), self.charged_macs - before)
            self.findings.keep(question, known)
        else:
            self.charged_macs += known.macs
            self.inherited_macs += known.macs
        return known.values

    def fresh_generator(self) -> torch.Generator:
        """One that draws as `generator` did at first, whatever has been drawn from that since."""
        return torch.Generator().manual_seed(self.generator.initial_seed())

    @contextmanager
    def undisturbed(self, *, mode: Literal["eval", "train"] = "eval") -> Iterator[nn.Module]:
        """The model in `mode`; at the end everything is as before: modes, buffers, gradients, global generators."""
        modes = {module: module.training for module in self.model.modules()}
        buffers = {name: buffer.clone() for name, buffer in self.model.named_buffers()}
        gradients = {name: p.grad for name, p in self.model.named_parameters()}
        for parameter in self.model.parameters():
            parameter.grad = None
        self.model.train(mode == "train")
        try:
            with torch.random.fork_rng(devices=self._cuda_devices()):
                yield self.model
        finally:
            for module, training in modes.items():
                module.training = training
            with torch.no_grad():
                for name, buffer in self.model.named_buffers():
                    buffer.copy_(buffers[name])
            for name, p in self.model.named_parameters():
                p.grad = gradients[name]

    def _cuda_devices(self) -> list[torch.device]:
        return sorted({p.device for p in self.model.parameters() if p.device.type == "cuda"}, key=str)
