"""One score from many members: a group is scored by every layer that makes its channels."""

from collections.abc import Callable, Iterable, Iterator
from typing import Literal

import torch
from torch import Tensor, nn

from trainables.pruning.groups import Group, Groups, Scores, Slice

Normalise = Literal["none", "mean", "l2"]
"""What a member's scores are divided by, over its channels: nothing, their mean, or their L2 norm."""
Aggregate = Literal["mean", "sum", "max"]
"""How the scores of a group's members become one."""

TINY = 1e-12


def rows(model: nn.Module, group: Group) -> Iterator[tuple[Slice, Tensor]]:
    """The producers' weights of each channel: (slice, [channels, weights of the channel]); single weights alone."""
    for piece in group.slices:
        weight = model.get_parameter(piece.tensor) if piece.role in ("out", "weights") else None
        if weight is not None and weight.dim() > 1:
            yield piece, channelwise(weight.detach(), piece)


def channelwise(tensor: Tensor, piece: Slice) -> Tensor:
    """The slice's part of a tensor as [channels, entries of the channel]."""
    first = tensor.flatten() if piece.role == "weights" else tensor.movedim(piece.dim, 0)
    chosen = first[piece.positions.to(tensor.device).reshape(-1)]
    return chosen.reshape(piece.positions.shape[0], -1)


def normalised(score: Tensor, normalise: Normalise) -> Tensor:
    """The scores of one member on a scale that other members share; zeros stay zeros."""
    match normalise:
        case "none":
            return score
        case "mean":
            return score / score.abs().mean().clamp(min=TINY)
        case "l2":
            return score / score.square().sum().sqrt().clamp(min=TINY)


def aggregated(members: Iterable[Tensor], aggregate: Aggregate) -> Tensor:
    """One score per channel from its members' [channels] each."""
    stacked = torch.stack(list(members))
    reduce: dict[str, Callable[[Tensor], Tensor]] = {
        "mean": lambda all_: all_.mean(0),
        "sum": lambda all_: all_.sum(0),
        "max": lambda all_: all_.amax(0),
    }
    return reduce[aggregate](stacked)


def with_unreached_last(scores: Scores, groups: Groups) -> Scores:
    """Groups that an evaluating network does not run (auxiliary heads) cost no MACs: nothing is won by cutting them,
    so they score as high as any."""
    highest = max((float(score.max()) for score in scores.values()), default=1.0)
    return {
        name: scores.get(name, torch.full((group.channels,), highest, dtype=torch.float64))
        for name, group in groups.items()
    }
