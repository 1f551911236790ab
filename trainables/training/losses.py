"""What training makes small: the loss of a batch, with label smoothing and auxiliary heads in one place."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from spaces.plan import Train
from trainables.table import Table

Loss = Callable[[Tensor, Tensor], Tensor]
"""(logits [batch, classes], labels) -> scalar mean; labels are int64 [batch], smoothed ones [batch, classes]."""

AUXILIARY_WEIGHTS = {1: 0.4, 2: 0.3}
"""By the number of auxiliary heads: Inception v3 has one (Szegedy et al. 2016), GoogLeNet two (2015)."""


def cross_entropy(logits: Tensor, labels: Tensor, /) -> Tensor:
    """Cross-entropy of the softmax."""
    return F.cross_entropy(logits, labels)


LOSSES: Table[Loss] = Table("loss", cross_entropy)
"""`function(logits, labels, /, *, settings) -> scalar Tensor`."""


def loss_of(train: Train) -> Loss:
    """The recipe's loss on labels as they are: what evaluation reports and criteria look at."""
    return LOSSES.bind(train.loss.name, train.loss.settings)


def training_loss(train: Train) -> Callable[[Any, Tensor], Tensor]:
    """The loss that is trained on: of whatever the network returns in train mode, with smoothed labels by choice."""
    loss = loss_of(train)

    def smoothed(logits: Tensor, labels: Tensor) -> Tensor:
        if not train.label_smoothing:
            return loss(logits, labels)
        classes = logits.shape[1]
        spread = train.label_smoothing / classes
        exact = torch.promote_types(logits.dtype, torch.float32)  # bfloat16 has no 0.91
        targets = F.one_hot(labels, classes).to(exact) * (1 - train.label_smoothing) + spread
        return loss(logits, targets)

    def whole(outputs: Any, labels: Tensor) -> Tensor:
        logits, *auxiliary = heads(outputs)
        total = smoothed(logits, labels)
        for head in auxiliary:
            total = total + AUXILIARY_WEIGHTS[len(auxiliary)] * smoothed(head, labels)
        return total

    return whole


def heads(outputs: Any) -> list[Tensor]:
    """The logits first, then those of auxiliary heads: some networks return several in train mode."""
    return [outputs] if isinstance(outputs, Tensor) else [head for head in outputs if head is not None]
