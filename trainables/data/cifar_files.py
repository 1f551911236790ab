"""CIFAR-10 and CIFAR-100 as torchvision keeps them; it checks the files' md5 sums before it reads them."""

from pathlib import Path
from typing import Any

import torch
import torchvision

from spaces.errors import UserError
from trainables.data.idx import DEFAULT_ROOT, fetch
from trainables.data.source import Images, Source


def cifar10(root: Path | None, /) -> Source:
    """Photographs of ten kinds, 32x32 pixels in colour: 50,000 images for training and 10,000 for test."""
    return _source(torchvision.datasets.CIFAR10, root or DEFAULT_ROOT, num_classes=10)


def cifar100(root: Path | None, /) -> Source:
    """Photographs of a hundred kinds, 32x32 pixels in colour: 50,000 images for training and 10,000 for test."""
    return _source(torchvision.datasets.CIFAR100, root or DEFAULT_ROOT, num_classes=100)


def _source(dataset: Any, root: Path, *, num_classes: int) -> Source:
    return Source(
        train=_images(dataset, root, train=True),
        test=lambda: _images(dataset, root, train=False),
        num_classes=num_classes,
    )


def _images(dataset: Any, root: Path, *, train: bool) -> Images:
    try:
        part = dataset(str(root), train=train, download=False)
    except (RuntimeError, OSError) as error:
        name, folder = dataset.__name__, root / dataset.base_folder
        raise UserError(
            f"no sound {name} under '{root}': expected its files in '{folder}'; {fetch(name, root)}"
        ) from error
    pixels = torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous()
    return Images(pixels, torch.tensor(part.targets, dtype=torch.int64))
