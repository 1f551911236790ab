"""Criteria that ask the loss: how much it moves, to first order, when a channel is gated."""

from collections.abc import Iterator
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from trainables.criteria.gradients import mean_gradients
from trainables.criteria.members import Normalise, aggregated, channelwise, normalised, rows, with_unreached_last
from trainables.pruning.gates import Where, gated
from trainables.pruning.groups import Groups, Scores
from trainables.pruning.probe import Loss, Probe
from trainables.table import also_of_weights

Samples = Annotated[int, Field(ge=0, description="training images; 0: all")]
BatchSize = Annotated[int, Field(ge=1)]


def taylor(
    groups: Groups,
    probe: Probe,
    /,
    *,
    samples: Samples = 1024,
    batch_size: BatchSize = 128,
    normalise: Normalise = "l2",
) -> Scores:
    """Channels whose removal moves the loss least matter least (Molchanov et al. 2017, eq. 8).

    |sum of activation * gradient| where the channel is read, per image, then the mean over images. The paper's mean
    over positions instead of their sum is one factor per layer, which normalising removes.
    """
    totals: dict[str, Tensor] = {}
    counted = 0
    for gradients, size in _gradients(groups, probe, probe.loss, samples, batch_size, where="read", per_image=True):
        counted += size
        for name, gradient in gradients.items():
            # The loss is a mean over the batch: each image's own gradient is `size` times as large.
            totals[name] = totals.get(name, 0.0) + (gradient.double() * size).abs().sum(0).cpu()
    scores = {name: normalised(total / counted, normalise) for name, total in totals.items()}
    return with_unreached_last(scores, groups)


@also_of_weights
def snip(
    groups: Groups,
    probe: Probe,
    /,
    *,
    loss: Literal["cross_entropy", "raw_logits"] = "cross_entropy",
    samples: Samples = 512,
    batch_size: BatchSize = 256,
) -> Scores:
    """Weights whose masks the loss hardly feels matter least: |w * dL/dw| (SNIP, Lee et al. 2019).

    The gradient is a mean over `samples` images, in eval mode, of the network as it stands. Of channels the mean over
    members of the sum over each filter. cross_entropy: the trial's own loss; raw_logits: see `snap`.
    """
    chosen: Loss = probe.loss if loss == "cross_entropy" else _raw_logits
    weights = {
        piece.tensor: probe.model.get_parameter(piece.tensor)
        for group in groups.values()
        for piece in group.slices
        if piece.role in ("out", "weights")
    }
    gradients = mean_gradients(probe, chosen, weights, samples, batch_size)
    sensitivities = {name: (gradients[name] * weight.detach()).abs() for name, weight in weights.items()}
    return {
        name: aggregated(
            (channelwise(sensitivities[piece.tensor], piece).sum(1) for piece, _ in rows(probe.model, group)), "mean"
        )
        for name, group in groups.items()
    }


def snap(
    groups: Groups,
    probe: Probe,
    /,
    *,
    loss: Literal["cross_entropy", "raw_logits"] = "cross_entropy",
    samples: Samples = 2560,
    batch_size: BatchSize = 128,
    normalise: Normalise = "none",
) -> Scores:
    """Channels whose gate the loss hardly feels matter least (SNAP-it, structured SNIP; Verdenius et al. 2020).

    A gate of 1 on each producer's output, after bias and before norm, shared by tied channels:
    |sum over images and producers of dL / d gate|, in eval mode; the authors take 5 batches of 512. raw_logits: the
    authors' code takes the negative mean logit of the true class for the loss; cross_entropy: the trial's own loss.
    """
    chosen: Loss = probe.loss if loss == "cross_entropy" else _raw_logits
    totals: dict[str, Tensor] = {}
    counted = 0
    for gradients, size in _gradients(groups, probe, chosen, samples, batch_size, where="made", per_image=False):
        counted += size
        for name, gradient in gradients.items():
            totals[name] = totals.get(name, 0.0) + gradient.double().cpu() * size
    scores = {name: normalised(total.abs() / counted, normalise) for name, total in totals.items()}
    return with_unreached_last(scores, groups)


def _raw_logits(logits: Tensor, labels: Tensor) -> Tensor:
    return -logits.gather(1, labels[:, None]).mean()


def _gradients(
    groups: Groups,
    probe: Probe,
    loss: Loss,
    samples: int,
    batch_size: int,
    *,
    where: Where,
    per_image: bool,
) -> Iterator[tuple[dict[str, Tensor], int]]:
    """For each batch, dL / d gate of every group that the pass reached ([batch,] channels), and the batch's size."""
    with probe.undisturbed(), torch.enable_grad():
        for images, labels in probe.sample(samples, batch_size):
            gates = {
                name: images.new_ones((len(labels), group.channels) if per_image else group.channels)
                for name, group in groups.items()
            }
            for gate in gates.values():
                gate.requires_grad_()
            with gated(probe.model, groups, gates, where=where):
                value = loss(probe.model(images), labels)
            gradients = torch.autograd.grad(value, list(gates.values()), allow_unused=True)
            # The way back is as dear as the way there: no gradient of any weight is computed.
            probe.charge(forward=2 * len(labels))
            reached = {name: found for name, found in zip(gates, gradients, strict=True) if found is not None}
            yield reached, len(labels)
