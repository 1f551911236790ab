"""Repair by reconstruction: channels that go are expressed through those that stay."""

from collections.abc import Mapping
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from trainables.compensations.folding import Adjustments, Folder, Replacement, split
from trainables.compensations.reading import Reader, Reading
from trainables.pruning.groups import Groups
from trainables.pruning.probe import Probe


def least_squares(
    groups: Groups,
    kept: Mapping[str, Tensor],
    probe: Probe,
    /,
    *,
    samples: Annotated[int, Field(ge=0, description="training images; 0: all")] = 512,
    batch_size: Annotated[int, Field(ge=1)] = 256,
    ridge: Annotated[float, Field(ge=0.0, description="in units of the kept channels' mean variance")] = 1e-3,
) -> Adjustments:
    """Each consumer reads, for a channel that goes, the best linear fit from those that stay (CaP, Xie et al. 2021).

    The fit is to what the consumer reads, after activations, on training data: gone = A^T kept + b. A goes into its
    weights, b into its bias or into the running mean of the BatchNorm behind it; without either, b is 0.
    """
    cut = {name: group for name, group in groups.items() if len(kept[name]) < group.channels}
    reader = Reader(probe.model, cut.values())
    with probe.undisturbed() as model, torch.no_grad(), reader:
        for images, _ in probe.sample(samples, batch_size):
            model(images)
            probe.charge(forward=len(images))
    folder = Folder(probe.model, reader.following_norms())
    for reading in reader.readings:
        stays, goes = split(kept[reading.group], cut[reading.group].channels)
        folder.fold(_fit(reading, stays, goes, ridge, with_constant=folder.takes_constants(reading)))
    return folder.adjustments


def _fit(reading: Reading, kept: Tensor, gone: Tensor, ridge: float, *, with_constant: bool) -> Replacement:
    """Ridge regression of the channels that go on those that stay, for each conv group."""
    mean = reading.mean if with_constant else torch.zeros_like(reading.mean)
    moments = reading.products / max(reading.count, 1) - mean[:, :, None] * mean[:, None, :]
    kept, gone = kept.to(mean.device), gone.to(mean.device)
    inner, outer = moments[:, kept][:, :, kept], moments[:, kept][:, :, gone]
    scale = inner.diagonal(dim1=1, dim2=2).mean(1).clamp(min=1e-30)
    steadied = inner + max(ridge, 1e-10) * scale[:, None, None] * torch.eye(len(kept)).to(inner)
    mix = torch.linalg.solve(steadied, outer)
    constant = mean[:, gone] - torch.einsum("skg,sk->sg", mix, mean[:, kept])
    return Replacement(reading, kept, gone, mix, constant)
