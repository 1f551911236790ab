"""One epoch of training, evaluation, and renewed BatchNorm statistics.

Does NOT cover what happens between epochs (`trial`) or at a pruning event (`pruning`).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from math import isfinite
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from spaces.errors import TrialFailed, UserError
from spaces.plan import Train
from trainables.data.split import Split
from trainables.training.losses import Loss, heads, training_loss
from trainables.training.numerics import precision, prepared

EVALUATION_BATCH = 250
STEPS_BETWEEN_CHECKS = 100
"""Reading the loss waits for the GPU; a network that has diverged stays so until it is looked at."""


@dataclass(frozen=True)
class EpochResult:
    """What one epoch of training measured."""

    loss: float  # mean over the samples, as trained on
    samples: int


@dataclass(frozen=True)
class Beside:
    """What acts in every step beside the recipe, in the order of the step; None: nothing there."""

    forward: Callable[[], AbstractContextManager[object]] = nullcontext  # the pass is made inside
    penalty: Callable[[], Tensor] | None = None  # added to the loss that is minimised, not to the one reported
    gradients: Callable[[], None] | None = None  # after the backward pass, before clipping
    weights: Callable[[], None] | None = None  # after the update


class Evaluation(NamedTuple):
    """How a network does on a split: accuracy in [0, 1] and mean loss."""

    accuracy: float
    loss: float


def train_epoch(
    model: nn.Module,
    split: Split,
    optimizer: torch.optim.Optimizer,
    rates: Sequence[float],
    *,
    train: Train,
    generator: torch.Generator,
    epoch: int,
    augment: Sequence[str] = (),
    beside: Beside = Beside(),
) -> EpochResult:
    """Train on every image once, step i at learning rate `rates[i]`; order and augmentation come from `generator`.

    Raises TrialFailed when the loss is not finite.
    """
    loss_of_batch = training_loss(train)
    model.train()
    total, samples = torch.zeros((), dtype=torch.float64, device=_device(model)), 0
    for number, (images, labels) in enumerate(split.epoch(train.batch_size, generator, augment)):
        for group in optimizer.param_groups:
            group["lr"] = rates[number]
        loss = _step(model, optimizer, prepared(images, train), labels, train, loss_of_batch, beside)
        total += loss.detach() * len(labels)
        samples += len(labels)
        if number % STEPS_BETWEEN_CHECKS == STEPS_BETWEEN_CHECKS - 1:
            require_finite(total.item(), "training loss", epoch=epoch)
    mean = total.item() / samples
    require_finite(mean, "training loss", epoch=epoch)
    return EpochResult(loss=mean, samples=samples)


def _step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    labels: Tensor,
    train: Train,
    loss_of_batch: Loss,
    beside: Beside,
) -> Tensor:
    """One update of the weights; returns the loss before it."""
    with precision(train, images.device), beside.forward():
        loss = loss_of_batch(model(images), labels)
    minimised = loss if beside.penalty is None else loss + beside.penalty().to(loss.dtype)
    optimizer.zero_grad(set_to_none=True)
    try:
        minimised.backward()  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        if "deterministic" in str(error):
            reason = str(error).partition(".")[0]
            raise UserError(
                f"this network cannot train reproducibly here ({reason}); set train.algorithms: fast"
            ) from error
        raise
    if beside.gradients is not None:
        beside.gradients()
    if train.clip_norm is not None:
        nn.utils.clip_grad_norm_(model.parameters(), train.clip_norm)
    optimizer.step()
    if beside.weights is not None:
        beside.weights()
    return loss


def require_finite(value: float, what: str, *, epoch: int) -> None:
    """Raises TrialFailed for NaN and infinity."""
    if not isfinite(value):
        raise TrialFailed(f"{what} is {value}", epoch=epoch)


def evaluate(model: nn.Module, split: Split, train: Train, loss: Loss) -> Evaluation:
    """Accuracy and mean loss in eval mode; modes and generators are left as they were found."""
    with _visiting(model), torch.no_grad():
        model.eval()
        device = _device(model)
        right = torch.zeros((), dtype=torch.int64, device=device)
        total = torch.zeros((), dtype=torch.float64, device=device)
        for images, labels in split.ordered(EVALUATION_BATCH):
            with precision(train, device):
                logits = heads(model(prepared(images, train)))[0]
                total += loss(logits, labels).double() * len(labels)
            right += (logits.argmax(1) == labels).sum()
    return Evaluation(accuracy=right.item() / len(split), loss=total.item() / len(split))


def recalibrate(model: nn.Module, split: Split, batches: int, train: Train, generator: torch.Generator) -> int:
    """Renew BatchNorm statistics as the plain mean over `batches` batches of training data; returns samples passed.

    Only those statistics change: modes, counters, momentum, other buffers and generators are left as they were found.
    """
    norms = [module for module in model.modules() if isinstance(module, BatchNorm) and module.track_running_stats]
    if not norms or batches == 0:
        return 0
    momenta = [norm.momentum for norm in norms]
    counters = [norm.num_batches_tracked.clone() for norm in norms if norm.num_batches_tracked is not None]
    samples = 0
    with _visiting(model), torch.no_grad():
        model.eval()
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the plain mean over all batches
            norm.train()
        for images, labels in split.sample(batches * train.batch_size, train.batch_size, generator):
            with precision(train, images.device):
                model(prepared(images, train))
            samples += len(labels)
    for norm, momentum, counter in zip(norms, momenta, counters, strict=True):
        norm.momentum = momentum
        norm.num_batches_tracked = counter
    return samples


@contextmanager
def _visiting(model: nn.Module) -> Iterator[None]:
    """Put modes and the global generators back at the end."""
    modes = [(module, module.training) for module in model.modules()]
    device = _device(model)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            yield
        finally:
            for module, training in modes:
                module.training = training


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
