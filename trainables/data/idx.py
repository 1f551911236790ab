"""MNIST and Fashion-MNIST: idx files as they are published, packed or unpacked, read where they lie."""

import gzip
from pathlib import Path

import numpy
import torch
from torch import Tensor

from spaces.errors import UserError
from trainables.data.source import Images, Source

DEFAULT_ROOT = Path("data")


def mnist(root: Path | None, /) -> Source:
    """Handwritten digits, 28x28 pixels: 60,000 images for training and 10,000 for test."""
    return _source(root or DEFAULT_ROOT, "MNIST")


def fashion_mnist(root: Path | None, /) -> Source:
    """Photographs of clothes, 28x28 pixels: 60,000 images for training and 10,000 for test."""
    return _source(root or DEFAULT_ROOT, "FashionMNIST")


def _source(root: Path, name: str) -> Source:
    folders = [root / name / "raw", root / "raw", root]
    return Source(
        train=_images(folders, "train", name),
        test=lambda: _images(folders, "t10k", name),
        num_classes=10,
    )


def _images(folders: list[Path], part: str, name: str) -> Images:
    pixels = read_idx(_find(folders, f"{part}-images-idx3-ubyte", name))
    labels = read_idx(_find(folders, f"{part}-labels-idx1-ubyte", name))
    if pixels.ndim != 3 or labels.ndim != 1 or len(pixels) != len(labels):
        raise UserError(f"{name}'s {part} files disagree: images {list(pixels.shape)}, labels {list(labels.shape)}")
    return Images(pixels[:, None], labels.to(torch.int64))


def _find(folders: list[Path], stem: str, name: str) -> Path:
    for folder in folders:
        for path in (folder / stem, folder / f"{stem}.gz"):
            if path.is_file():
                return path
    root = folders[-1]
    raise UserError(
        f"no {name} under '{root}': expected '{folders[0] / stem}' or the same with .gz; {fetch(name, root)}"
    )


def fetch(name: str, root: Path) -> str:
    """How to get a set of torchvision's; nothing is ever downloaded unasked."""
    call = f"import torchvision; torchvision.datasets.{name}({str(root)!r}, download=True)"
    return f'to download it: python -c "{call}"'


def read_idx(path: Path) -> Tensor:
    """A uint8 idx file (LeCun's format: two zero bytes, type, dimensions, sizes, values), packed or not.

    Raises UserError for a file that is damaged.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError) as error:
        raise UserError(f"cannot read '{path}': {error}") from error
    if len(content) < 4 or content[:3] != b"\x00\x00\x08":
        raise UserError(f"'{path}' is not an idx file of bytes")
    dimensions = content[3]
    start = 4 + 4 * dimensions
    sizes = [int.from_bytes(content[at : at + 4], "big") for at in range(4, start, 4)]
    values = numpy.frombuffer(content, dtype=numpy.uint8)[start:]
    if values.size != int(numpy.prod(sizes)):
        raise UserError(f"'{path}' is damaged: {values.size} values where {sizes} were announced")
    return torch.from_numpy(values.reshape(sizes).copy())
