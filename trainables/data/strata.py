"""Choosing images so that every class keeps its share: the validation split, and a part of the training images."""

import torch
from torch import Tensor

from spaces.errors import UserError
from trainables.seeds import generator


def stratified(labels: Tensor, count: int, *, seed: int, what: str) -> tuple[Tensor, Tensor]:
    """Indices of `count` images chosen by chance within each class, and of the rest; both in ascending order.

    Shares are rounded by the largest remainder, so that the sizes are exact. Raises UserError when nothing would
    be left over or fewer images are there.
    """
    if not 0 < count < len(labels):
        raise UserError(f"cannot take {count} of {len(labels)} images for {what}; take from 1 to {len(labels) - 1}")
    classes, sizes = torch.unique(labels, return_counts=True)
    shares = sizes.to(torch.float64) * count / len(labels)
    takes = shares.floor().to(torch.int64)
    order = (shares - takes).argsort(descending=True, stable=True)
    takes[order[: count - int(takes.sum())]] += 1
    draw = generator(seed, what)
    taken = torch.zeros(len(labels), dtype=torch.bool)
    for label, take in zip(classes, takes.tolist(), strict=True):
        members = (labels == label).nonzero().flatten()
        taken[members[torch.randperm(len(members), generator=draw)[:take]]] = True
    return taken.nonzero().flatten(), (~taken).nonzero().flatten()
