"""Augmentation of a batch where the batch lies. Chance is drawn on the CPU, so that CPU and GPU decide alike."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from spaces.errors import UserError, unknown

AUGMENTATIONS = ("pad_crop", "flip", "resized_crop")
"""pad_crop: shift by up to an eighth of the edge, black outside (4 pixels of 32); flip: left-right in half the cases;
resized_crop: a part of 8 % to 100 % of an image file, scaled to size (torchvision's RandomResizedCrop)."""


def check_augmentations(names: Sequence[str], *, of_files: bool) -> None:
    """Raises UserError for a name that is unknown, or that this kind of data cannot do."""
    for name in names:
        if name not in AUGMENTATIONS:
            raise UserError(unknown("augmentation", name, AUGMENTATIONS))
        if name == "resized_crop" and not of_files:
            raise UserError("augmentation 'resized_crop' is for image folders; allowed here: pad_crop, flip")


@dataclass(frozen=True, eq=False)
class Chances:
    """What was drawn for each image of an epoch: shifts int64 [images, 2] in pixels from 0, flips bool [images]."""

    shifts: Tensor | None
    flips: Tensor | None
    padding: int

    def apply(self, pixels: Tensor, batch: slice) -> Tensor:
        """The images of `batch` [batch, channels, height, width], shifted and flipped."""
        if self.shifts is not None:
            pixels = shifted(pixels, self.shifts[batch], self.padding)
        if self.flips is not None:
            pixels = torch.where(self.flips[batch, None, None, None], pixels.flip(3), pixels)
        return pixels


def draw(names: Sequence[str], images: int, edge: int, generator: torch.Generator, device: torch.device) -> Chances:
    """Draw for `images` images whose shorter edge has `edge` pixels."""
    padding = max(1, edge // 8)
    shifts = flips = None
    if "pad_crop" in names:
        shifts = torch.randint(2 * padding + 1, (images, 2), generator=generator).to(device)
    if "flip" in names:
        flips = torch.randint(2, (images,), generator=generator).bool().to(device)
    return Chances(shifts, flips, padding)


def shifted(pixels: Tensor, shifts: Tensor, padding: int) -> Tensor:
    """Each image cut out of itself with a black margin of `padding`, at (row, column) = its row of `shifts`."""
    batch, _, height, width = pixels.shape
    margin = F.pad(pixels, (padding, padding, padding, padding))
    rows = shifts[:, :1] + torch.arange(height, device=pixels.device)
    columns = shifts[:, 1:] + torch.arange(width, device=pixels.device)
    images = torch.arange(batch, device=pixels.device)
    # Indexing with a slice between index tensors puts the channels last; the permutation puts them back.
    return margin[images[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
