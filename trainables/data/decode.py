"""From an image file to pixels: the central cut, or a part drawn by chance."""

import math
from pathlib import Path

import numpy
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from spaces.errors import UserError
from trainables.data.source import Files


def decode(files: Files, index: int, generator: torch.Generator | None = None) -> Tensor:
    """Image `index` as uint8 [3, size, size]: the centre, or with a generator a part drawn from it (`resized_crop`).

    Raises UserError for a file that cannot be decoded.
    """
    path = files.root / files.paths[index]
    image = _opened(path)
    if generator is None:
        image = _centre(image, files.size, files.resize)
    else:
        box = part(image.width, image.height, generator)
        image = image.resize((files.size, files.size), Image.Resampling.BILINEAR, box=box)
    return torch.from_numpy(numpy.array(image)).permute(2, 0, 1)


def _opened(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, UnidentifiedImageError) as error:
        raise UserError(f"cannot decode image '{path}': {error}") from error


def _centre(image: Image.Image, size: int, resize: int) -> Image.Image:
    """The shorter edge scaled to `resize`, then the central `size` x `size`; as torchvision's published recipes."""
    shorter = min(image.width, image.height)
    if shorter != resize:
        width, height = (edge * resize // shorter for edge in (image.width, image.height))
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((image.width - size) / 2), round((image.height - size) / 2)
    return image if (left, top) == (0, 0) else image.crop((left, top, left + size, top + size))


def part(width: int, height: int, generator: torch.Generator) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of 8 % to 100 % of an image, 3:4 to 4:3; the centre if ten draws do not fit.

    Szegedy et al. 2015, as in torchvision's RandomResizedCrop.
    """
    draws = torch.rand((10, 4), generator=generator, dtype=torch.float64).tolist()
    for area, shape, x, y in draws:
        target = width * height * (0.08 + 0.92 * area)
        ratio = math.exp(math.log(3 / 4) + shape * math.log(16 / 9))
        wide, high = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
        if 0 < wide <= width and 0 < high <= height:
            left, top = int(x * (width - wide + 1)), int(y * (height - high + 1))
            return left, top, left + wide, top + high
    edge = min(width, height)
    left, top = (width - edge) // 2, (height - edge) // 2
    return left, top, left + edge, top + edge
