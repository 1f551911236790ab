"""Batches of one split that lies in memory as one tensor, on the device that trains.

Does NOT cover splits too large for memory (`stream`).
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from trainables.data.augment import check_augmentations, draw
from trainables.data.source import Images

Batch = tuple[Tensor, Tensor]
"""Images float32 [batch, channels, height, width], normalised, and labels int64 [batch]."""


class Split(Protocol):
    """What training, evaluation and probes ask of a split."""

    def __len__(self) -> int:
        """The number of images."""

    def epoch(self, batch_size: int, generator: torch.Generator, augment: Sequence[str] = ()) -> Iterator[Batch]:
        """Every image once; order and augmentation are drawn from `generator`; the last batch may be small."""

    def ordered(self, batch_size: int) -> Iterator[Batch]:
        """Every image once, in its own order, as it is."""

    def sample(self, samples: int, batch_size: int, generator: torch.Generator) -> Iterator[Batch]:
        """The first `samples` images (all, if there are fewer) of an order drawn from `generator`, as they are."""


class Normalisation:
    """Makes uint8 pixels zero-mean floats of unit deviation on `device`."""

    def __init__(self, mean: Sequence[float], std: Sequence[float], device: torch.device | str) -> None:
        """`mean`, `std`: per channel, of pixels in [0, 1]."""
        self.device = torch.device(device)
        means, deviations = (torch.tensor(values, dtype=torch.float64)[:, None, None] for values in (mean, std))
        self._scale = (1 / (255 * deviations)).to(self.device, torch.float32)
        self._shift = (-means / deviations).to(self.device, torch.float32)

    def __call__(self, pixels: Tensor) -> Tensor:
        """[batch, channels, height, width], uint8 -> float32."""
        return torch.addcmul(self._shift, pixels.to(torch.float32), self._scale)


class MemorySplit:
    """Images as one uint8 tensor on the training device; augmented and normalised there."""

    def __init__(self, images: Images, normalisation: Normalisation) -> None:
        self.device = normalisation.device
        self.pixels = images.pixels.to(self.device)
        self.labels = images.labels.to(self.device)
        self._normalised = normalisation

    def __len__(self) -> int:
        return len(self.labels)

    def epoch(self, batch_size: int, generator: torch.Generator, augment: Sequence[str] = ()) -> Iterator[Batch]:
        """Every image once, shuffled and augmented by `generator`."""
        check_augmentations(augment, of_files=False)
        order = torch.randperm(len(self), generator=generator).to(self.device)
        chances = draw(augment, len(self), min(self.pixels.shape[2:]), generator, self.device)
        for start in range(0, len(self), batch_size):
            batch = slice(start, start + batch_size)
            chosen = order[batch]
            yield self._normalised(chances.apply(self.pixels[chosen], batch)), self.labels[chosen]

    def ordered(self, batch_size: int) -> Iterator[Batch]:
        """Every image once, in its own order, as it is."""
        for start in range(0, len(self), batch_size):
            batch = slice(start, start + batch_size)
            yield self._normalised(self.pixels[batch]), self.labels[batch]

    def sample(self, samples: int, batch_size: int, generator: torch.Generator) -> Iterator[Batch]:
        """The first `samples` images of an order drawn from `generator`, as they are."""
        order = torch.randperm(len(self), generator=generator)[:samples].to(self.device)
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            yield self._normalised(self.pixels[chosen]), self.labels[chosen]
