"""Feature relevance scores (FRS, Aketi et al. 2020): how much each channel speaks for the true class.

The rules are in `relevance_rules`, the pass that carries them in `relevance_tape`.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from trainables.criteria.members import with_unreached_last
from trainables.criteria.relevance_rules import Mode
from trainables.criteria.relevance_tape import RelevanceTape
from trainables.pruning.groups import Group, Groups, Scores, Slice
from trainables.pruning.probe import Probe


def frs(
    groups: Groups,
    probe: Probe,
    /,
    *,
    mode: Mode = "stable",
    samples: Annotated[int, Field(ge=0, description="training images; 0: all, as the authors do")] = 2000,
    batch_size: Annotated[int, Field(ge=1)] = 100,
) -> Scores:
    """Channels that carry little relevance of the true class matter least (FRS, Aketi et al. 2020).

    Relevance starts as one at the label's logit and goes back by the alpha-beta rule (2, 1). A layer's score is
    |mean over classes of weight * mean relevance|, over its L2 norm; a group's is the mean over its layers. `paper`:
    the authors' formulas, samples without a finite relevance left out; `stable`: an epsilon that knows the sign.
    """
    wanted = {piece.tensor for group in groups.values() for piece in _members(probe, group)}
    sums: dict[str, Tensor] = {}
    counts = torch.zeros(probe.num_classes, dtype=torch.float64)
    hits = torch.zeros(probe.num_classes, dtype=torch.float64)
    with probe.undisturbed():
        for images, labels in probe.sample(samples, batch_size):
            relevances, predicted = _relevances(probe, images, labels, wanted, mode)
            classes = torch.nn.functional.one_hot(labels, probe.num_classes).double()
            counts += classes.sum(0).cpu()
            hits += classes[predicted == labels].sum(0).cpu()
            for name, relevance in relevances.items():
                usable = relevance.isfinite().all(1) if mode == "paper" else torch.ones_like(labels, dtype=torch.bool)
                sums[name] = sums.get(name, 0.0) + classes[usable].T @ relevance[usable].double()
    weights = class_weights(hits, counts)
    scores = {name: layer_score(total.cpu(), counts, weights) for name, total in sums.items()}
    members = {
        name: [piece for piece in _members(probe, group) if piece.tensor in scores] for name, group in groups.items()
    }
    reached = {
        name: torch.stack([scores[piece.tensor][piece.positions].mean(1) for piece in pieces]).mean(0)
        for name, pieces in members.items()
        if pieces
    }
    return with_unreached_last(reached, groups)


def class_weights(hits: Tensor, counts: Tensor) -> Tensor:
    """sigmoid(max accuracy / accuracy) per class: from 0.731 for the best class to 1 for one never recognised."""
    accuracy = hits / counts.clamp(min=1)
    return torch.sigmoid(torch.where(accuracy > 0, accuracy.max() / accuracy, torch.inf))


def layer_score(sums: Tensor, counts: Tensor, weights: Tensor) -> Tensor:
    """|mean over classes of weight * F| over its L2 norm, from relevance summed by class [classes, channels].

    Classes that no sample came from are left out. The absolute value is taken last: opposite signs cancel.
    """
    seen = counts > 0
    mean: Tensor = (weights[seen, None] * sums[seen] / counts[seen, None]).mean(0).abs()
    return mean / (mean.square().sum().sqrt() + 1e-9)


def _members(probe: Probe, group: Group) -> list[Slice]:
    """The weights that make the group's channels, one for each of its layers."""
    return [
        piece for piece in group.slices if piece.role == "out" and probe.model.get_parameter(piece.tensor).dim() > 1
    ]


def _relevances(
    probe: Probe, images: Tensor, labels: Tensor, wanted: set[str], mode: Mode
) -> tuple[dict[str, Tensor], Tensor]:
    """Relevance per image and channel of each wanted layer, a mean over positions; and the predicted classes."""
    tape = RelevanceTape(probe.model, mode)
    with tape.recording(images):
        logits = probe.model(images)
    read = {name: [tape.read_at(made) for made in calls] for name, calls in tape.made.items() if name in wanted}
    places = list({id(place): place for found in read.values() for place in found}.values())
    start = torch.nn.functional.one_hot(labels, logits.shape[1]).to(logits.dtype)
    found = torch.autograd.grad(logits, places, start, allow_unused=True)
    probe.charged_macs += tape.macs
    at = {
        id(place): torch.zeros_like(place) if relevance is None else relevance
        for place, relevance in zip(places, found, strict=True)
    }
    relevances = {}
    for name in read:
        axis = -1 if probe.model.get_parameter(name).dim() == 2 else 1
        # A layer that is used more than once has the sum; a gate, which relevance does not follow, has none.
        parts = [_per_channel(at[id(place)], axis) for place in read[name]]
        relevances[name] = torch.stack(parts).sum(0)
    tape.forget()
    return relevances, logits.detach().argmax(1)


def _per_channel(relevance: Tensor, axis: int) -> Tensor:
    """[batch, channels]: the mean over positions."""
    return relevance.movedim(axis, 1).reshape(relevance.shape[0], relevance.shape[axis], -1).mean(2)
