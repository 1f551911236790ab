"""Batches of a split too large for memory: files decoded by worker processes while the network trains.

Which file comes when, and what is drawn for it, depends on the epoch's generator alone, not on the workers.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from trainables.data.augment import check_augmentations, draw
from trainables.data.decode import decode
from trainables.data.source import Files
from trainables.data.split import Batch, Normalisation

Draw = tuple[int, int | None]
"""The number of a file, and the seed that draws a part of the image; None: its centre."""


class _Decoded(Dataset[tuple[Tensor, int]]):
    """Files as the workers see them."""

    def __init__(self, files: Files) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, draw: Draw) -> tuple[Tensor, int]:
        index, seed = draw
        own = None if seed is None else torch.Generator().manual_seed(seed)
        return decode(self.files, index, own), int(self.files.labels[index])


class _Batches(Sampler[list[Draw]]):
    """What comes in which batch: set before each pass, so that the same workers serve every pass."""

    def __init__(self) -> None:
        self.batches: list[list[Draw]] = []

    def __iter__(self) -> Iterator[list[Draw]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


class FileSplit:
    """Image files, decoded by workers as uint8; moved, augmented and normalised on the training device.

    Its passes share the workers: one pass at a time.
    """

    def __init__(self, files: Files, normalisation: Normalisation) -> None:
        self.files = files
        self._normalisation = normalisation
        self._batches = _Batches()
        self._loader: DataLoader[Any] = DataLoader(
            _Decoded(files),
            batch_sampler=self._batches,
            num_workers=files.workers,
            pin_memory=normalisation.device.type == "cuda",
            generator=torch.Generator().manual_seed(0),  # else it would draw from the global one
            # Forking a process that runs threads or CUDA can hang it.
            multiprocessing_context="forkserver" if files.workers else None,
            persistent_workers=files.workers > 0,
        )

    def __len__(self) -> int:
        return len(self.files)

    def epoch(self, batch_size: int, generator: torch.Generator, augment: Sequence[str] = ()) -> Iterator[Batch]:
        """Every image once, shuffled and augmented by `generator`."""
        check_augmentations(augment, of_files=True)
        order = torch.randperm(len(self), generator=generator).tolist()
        device = self._normalisation.device
        chances = draw(augment, len(self), self.files.size, generator, device)
        seed = int(torch.randint(2**62, (), generator=generator)) if "resized_crop" in augment else None
        start = 0
        for pixels, labels in self._decoded(order, batch_size, seed):
            batch = slice(start, start + len(labels))
            start += len(labels)
            yield self._normalisation(chances.apply(pixels, batch)), labels

    def ordered(self, batch_size: int) -> Iterator[Batch]:
        """Every image once, in its own order, as it is."""
        for pixels, labels in self._decoded(list(range(len(self))), batch_size, None):
            yield self._normalisation(pixels), labels

    def sample(self, samples: int, batch_size: int, generator: torch.Generator) -> Iterator[Batch]:
        """The first `samples` images of an order drawn from `generator`, as they are."""
        order = torch.randperm(len(self), generator=generator)[:samples].tolist()
        for pixels, labels in self._decoded(order, batch_size, None):
            yield self._normalisation(pixels), labels

    def _decoded(self, order: list[int], batch_size: int, seed: int | None) -> Iterator[Batch]:
        """uint8 batches on the training device, in this order."""
        draws: list[Draw] = [(index, None if seed is None else seed + place) for place, index in enumerate(order)]
        self._batches.batches = [draws[start : start + batch_size] for start in range(0, len(draws), batch_size)]
        device = self._normalisation.device
        for pixels, labels in self._loader:
            yield pixels.to(device, non_blocking=True), labels.to(device, non_blocking=True)
