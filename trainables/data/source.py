"""What a data set gives: its official training part at once, its test part only when asked for.

Does NOT cover how the training part is split, or how batches are made (`split`, `stream`).
"""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Images:
    """Labelled images in memory: pixels uint8 [images, channels, height, width], labels int64 [images]."""

    pixels: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        channels, height, width = self.pixels.shape[1:]
        return channels, height, width

    def take(self, indices: Tensor) -> "Images":
        """The images at `indices`, in that order."""
        return Images(self.pixels[indices], self.labels[indices])

    def fingerprint(self) -> str:
        """SHA-256 over pixels and labels."""
        hashed = hashlib.sha256(str(tuple(self.pixels.shape)).encode())
        hashed.update(self.pixels.contiguous().numpy().data)
        hashed.update(self.labels.to(torch.int64).contiguous().numpy().data)
        return hashed.hexdigest()


@dataclass(frozen=True, eq=False)
class Files:
    """Labelled image files, decoded when they are needed: labels int64 [images].

    Each image is scaled so that its shorter edge has `resize` pixels, then cut to `size` x `size` at its centre.
    """

    root: Path
    paths: tuple[str, ...]  # relative to root
    labels: Tensor
    size: int
    resize: int
    mean: tuple[float, ...]  # per channel, of pixels in [0, 1]
    std: tuple[float, ...]
    workers: int

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        return 3, self.size, self.size

    def take(self, indices: Tensor) -> "Files":
        """The files at `indices`, in that order."""
        chosen = indices.tolist()
        return Files(
            self.root,
            tuple(self.paths[index] for index in chosen),
            self.labels[indices],
            self.size,
            self.resize,
            self.mean,
            self.std,
            self.workers,
        )

    def fingerprint(self) -> str:
        """SHA-256 over names, sizes in bytes, labels and how images are cut; contents are not read."""
        hashed = hashlib.sha256(f"{self.size} {self.resize} {self.mean} {self.std}".encode())
        for path, label in zip(self.paths, self.labels.tolist(), strict=True):
            hashed.update(f"{path}\0{os.stat(os.path.join(self.root, path)).st_size}\0{label}\n".encode())
        return hashed.hexdigest()


@dataclass(frozen=True, eq=False)
class Source:
    """A data set: `train` is its official training part; `test` reads its test part, and a search never calls it."""

    train: Images | Files
    test: Callable[[], Images | Files]
    num_classes: int
