"""How large the images of a plan are and how many it trains on, without reading them where that is known.

So a study can be priced on a machine that does not have its data.
"""

from pathlib import Path

from spaces.errors import UserError
from spaces.plan import Data
from trainables.data.load import load_source
from trainables.models.cifar import InputShape

PUBLISHED: dict[str, tuple[InputShape, int]] = {
    "digits": (InputShape(1, 8, 8, 10), 1_100),
    "mnist": (InputShape(1, 28, 28, 10), 60_000),
    "fashion_mnist": (InputShape(1, 28, 28, 10), 60_000),
    "cifar10": (InputShape(3, 32, 32, 10), 50_000),
    "cifar100": (InputShape(3, 32, 32, 100), 50_000),
}
"""Shape and number of official training images."""
IMAGENET = (1000, 1_281_167)
"""Classes and training images that an image folder is taken to have while it is not there."""


def outline(data: Data) -> tuple[InputShape, int]:
    """(shape, training images per epoch). Raises UserError for a function of the user's own whose data is missing."""
    if data.name in PUBLISHED:
        shape, official = PUBLISHED[data.name]
        return shape, _used(data, official)
    if data.name == "image_folder" and not is_there(data):
        size, (classes, official) = data.settings["size"], IMAGENET
        return InputShape(3, size, size, classes), _used(data, official)
    if data.name == "image_folder":  # what files there are says enough: none is decoded
        data = data.model_copy(update={"settings": {**data.settings, "hold": "stream"}})
    source = load_source(data)
    return InputShape(*source.train.shape, source.num_classes), _used(data, len(source.train))


def is_there(data: Data) -> bool:
    """Whether the folder that the plan names exists."""
    return data.root is not None and Path(data.root).expanduser().is_dir()


def _used(data: Data, official: int) -> int:
    held = data.validation * official if data.validation < 1 else data.validation
    rest = official - round(held)
    if rest < 1:
        raise UserError(f"cannot take {round(held)} of {official} images for validation; take from 1 to {official - 1}")
    return rest if data.train_images is None else min(data.train_images, rest)
