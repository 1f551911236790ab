"""Repair of constants: a channel whose norm scales it to nothing still says one thing, its shift."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from trainables.compensations.folding import Adjustments, Folder, Replacement, split
from trainables.compensations.reading import Reader
from trainables.pruning.groups import Groups, Slice
from trainables.pruning.probe import Probe


def fold_beta(groups: Groups, kept: Mapping[str, Tensor], probe: Probe, /) -> Adjustments:
    """What a channel says when its norm's scale is zero, act(beta), goes into whoever reads it.

    Into the consumer's bias, or into the running mean of the BatchNorm behind it; a consumer with neither is left
    alone. Exact for channels that are constant, but where zeros are padded around them. In groups without norms the
    filters are taken for zero instead, which leaves act(bias). One pass of one image.
    """
    cut = {name: group for name, group in groups.items() if len(kept[name]) < group.channels}
    parts = {name: split(kept[name], group.channels) for name, group in cut.items()}
    silenced = [(piece, parts[name][1]) for name, group in cut.items() for piece in _scales(group.slices, probe.model)]
    reader = Reader(probe.model, cut.values())
    with probe.undisturbed() as model, torch.no_grad(), _silent(model, silenced), reader:
        for images, _ in probe.sample(1, 1):
            model(images)
            probe.charge(forward=len(images))
    folder = Folder(probe.model, reader.following_norms())
    for reading in reader.readings:
        if folder.takes_constants(reading):
            stays, goes = (part.to(reading.total.device) for part in parts[reading.group])
            nothing = reading.total.new_zeros(len(reading.total), len(stays), len(goes))
            folder.fold(Replacement(reading, stays, goes, nothing, reading.mean[:, goes]))
    return folder.adjustments


def _scales(slices: tuple[Slice, ...], model: nn.Module) -> list[Slice]:
    """The norms' scales; without any, the producers' filters."""
    parameters = dict(model.named_parameters())
    weights = [piece for piece in slices if piece.tensor.endswith("weight") and piece.tensor in parameters]
    norms = [piece for piece in weights if piece.role == "norm" and parameters[piece.tensor].dim() == 1]
    return norms or [piece for piece in weights if piece.role == "out" and parameters[piece.tensor].dim() > 1]


@contextmanager
def _silent(model: nn.Module, silenced: list[tuple[Slice, Tensor]]) -> Iterator[None]:
    """The channels that go with their scales at zero."""
    before = {piece.tensor: model.get_parameter(piece.tensor).detach().clone() for piece, _ in silenced}
    try:
        for piece, gone in silenced:
            weight = model.get_parameter(piece.tensor)
            weight.data.index_fill_(piece.dim, piece.positions[gone].flatten().to(weight.device), 0)
        yield
    finally:
        for name, value in before.items():
            model.get_parameter(name).data.copy_(value)
