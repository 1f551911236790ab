"""A folder of image files in ImageNet's layout: train/CLASS/*.jpg and val/CLASS/*.jpg (or test/)."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import torch
from PIL import Image
from pydantic import Field

from spaces.errors import UserError
from trainables.data.decode import decode
from trainables.data.source import Files, Images, Source

ENDINGS = frozenset(Image.registered_extensions())
Channels = Annotated[tuple[float, ...], Field(min_length=3, max_length=3)]


def image_folder(
    root: Path | None,
    /,
    *,
    size: Annotated[int, Field(ge=1, description="edge of an image in pixels, after cutting")] = 224,
    resize: Annotated[int, Field(ge=0, description="shorter edge before cutting; 0: the nearest to size * 8 / 7")] = 0,
    mean: Channels = (0.485, 0.456, 0.406),
    std: Channels = (0.229, 0.224, 0.225),
    hold: Annotated[
        Literal["stream", "memory"],
        Field(description="memory: decoded once, normalised by the training images instead of mean and std"),
    ] = "stream",
    workers: Annotated[int, Field(ge=0, description="processes that decode")] = 4,
) -> Source:
    """Image files in train/CLASS/ and, for test, val/CLASS/ or test/CLASS/: ImageNet's layout."""
    if root is None:
        raise UserError("data 'image_folder' needs data.root: a folder with train/ and val/ or test/")
    train_folder = root / "train"
    test_folder = next((folder for folder in (root / "val", root / "test") if folder.is_dir()), None)
    if not train_folder.is_dir() or test_folder is None:
        raise UserError(f"no image folder at '{root}': expected '{train_folder}' and '{root / 'val'}' (or test/)")
    classes = sorted(path.name for path in train_folder.iterdir() if path.is_dir())
    cut = Files(root, (), torch.empty(0, dtype=torch.int64), size, resize or round(size * 8 / 7), mean, std, workers)

    def part(folder: Path) -> Images | Files:
        files = _listed(cut, folder, classes)
        return files if hold == "stream" else _decoded(files)

    return Source(train=part(train_folder), test=lambda: part(test_folder), num_classes=len(classes))


def _listed(cut: Files, folder: Path, classes: list[str]) -> Files:
    """The image files of `folder`, class by class, each class in the order of its names."""
    strange = sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name not in classes)
    if strange:
        raise UserError(f"'{folder}' has class '{strange[0]}', which train/ has not")
    paths: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        names = sorted(_images_below(cut.root, folder / name))
        paths += names
        labels += [label] * len(names)
    if not paths:
        raise UserError(f"no images in '{folder}': expected CLASS/NAME.jpg (or another format of Pillow's)")
    return replace(cut, paths=tuple(paths), labels=torch.tensor(labels, dtype=torch.int64))


def _images_below(root: Path, folder: Path) -> Iterator[str]:
    """Paths relative to `root`. Strings, not Paths: ImageNet has 1.3 million."""
    for place, _, names in os.walk(folder):
        below = Path(place).relative_to(root).as_posix()
        for name in names:
            if os.path.splitext(name)[1].lower() in ENDINGS:
                yield f"{below}/{name}"


def _decoded(files: Files) -> Images:
    """All images in memory: the layout of the small sets."""
    pixels = torch.empty((len(files), *files.shape), dtype=torch.uint8)

    def fill(index: int) -> None:
        pixels[index] = decode(files, index)

    with ThreadPoolExecutor(max(1, files.workers)) as threads:  # Pillow lets go of the interpreter while it decodes
        for _ in threads.map(fill, range(len(files))):
            pass  # a file that cannot be decoded raises here
    return Images(pixels, files.labels)
