"""From a plan's data section to splits: training and validation; the test split only where it may be read."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from spaces.errors import UserError
from spaces.plan import Data, digest
from trainables.data.augment import check_augmentations
from trainables.data.cifar_files import cifar10, cifar100
from trainables.data.digits import digits
from trainables.data.folder import image_folder
from trainables.data.idx import fashion_mnist, mnist
from trainables.data.source import Files, Images, Source
from trainables.data.split import MemorySplit, Normalisation, Split
from trainables.data.strata import stratified
from trainables.data.stream import FileSplit
from trainables.table import Table

DATASETS: Table[Callable[..., Source]] = Table("data", digits, mnist, fashion_mnist, cifar10, cifar100, image_folder)
"""`function(root: Path | None, /, *, settings) -> Source`."""


@dataclass(frozen=True, eq=False)
class Splits:
    """What a trial learns from and is judged by."""

    train: Split
    validation: Split
    num_classes: int
    shape: tuple[int, int, int]  # channels, height, width
    mean: tuple[float, ...]  # per channel, of pixels in [0, 1]; images are (pixels - mean) / std
    std: tuple[float, ...]
    fingerprint: str  # of the images and labels used, and which of them are for validation


@dataclass
class _TestSplit:
    forbidden: bool = False


_test_split = _TestSplit()


def forbid_test_split() -> None:
    """From now on `load_test` refuses in this process: called wherever a search trains."""
    _test_split.forbidden = True


def load_data(data: Data, *, device: torch.device | str) -> Splits:
    """The training and validation splits on `device`. Raises UserError where data is missing or too small.

    The last sets that a process asked for are kept, so that the trials of a reused worker share one copy.
    """
    source = load_source(data)
    check_augmentations(data.augment, of_files=isinstance(source.train, Files))
    return _load(_key(data), str(device))


def load_test(data: Data, *, device: torch.device | str) -> Split:
    """The test split, normalised as the training split is. Raises UserError after `forbid_test_split`."""
    if _test_split.forbidden:
        raise UserError("the test split cannot be read here: a search learns from training and validation images only")
    splits = load_data(data, device=device)
    return _split(load_source(data).test(), splits.mean, splits.std, device)


@lru_cache(maxsize=2)
def _load(written: str, device: str) -> Splits:
    data = Data.model_validate_json(written)
    source = load_source(data)
    train, validation = _carve(data, source.train)
    mean, std = _normalisation(train)
    return Splits(
        train=_split(train, mean, std, device),
        validation=_split(validation, mean, std, device),
        num_classes=source.num_classes,
        shape=train.shape,
        mean=mean,
        std=std,
        fingerprint=digest([train.fingerprint(), validation.fingerprint(), source.num_classes, mean, std]),
    )


def _key(data: Data) -> str:
    """What decides which images are used; augmentation does not."""
    return data.model_copy(update={"augment": ()}).model_dump_json()


def load_source(data: Data) -> Source:
    """The data set as it is published, not split; kept from the last call."""
    everything = {"validation": 0.1, "train_images": None, "split_seed": 0}
    return _read(_key(data.model_copy(update=everything)))


@lru_cache(maxsize=2)
def _read(written: str) -> Source:
    data = Data.model_validate_json(written)
    root = None if data.root is None else Path(data.root).expanduser()
    source: Any = DATASETS.call(data.name, data.settings, root)
    if not isinstance(source, Source):
        raise UserError(f"data '{data.name}' returned a {type(source).__name__}; expected a trainables.data.Source")
    return source


def _carve(data: Data, official: Images | Files) -> tuple[Images | Files, Images | Files]:
    """Validation first, so that it stays the same however many training images are used."""
    wanted = data.validation
    count = round(wanted * len(official)) if isinstance(wanted, float) and wanted < 1 else int(wanted)
    held, rest = stratified(official.labels, count, seed=data.split_seed, what="validation")
    train = official.take(rest)
    if data.train_images is not None and data.train_images != len(train):
        chosen, _ = stratified(train.labels, data.train_images, seed=data.split_seed, what="training")
        train = train.take(chosen)
    return train, official.take(held)


def _normalisation(images: Images | Files) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of the training images; an image folder states its own."""
    if isinstance(images, Files):
        return images.mean, images.std
    # Counting the 256 values is exact, and in parts it needs no large copy.
    values = torch.arange(256, dtype=torch.float64) / 255
    means, deviations = [], []
    for channel in images.pixels.unbind(1):
        counts = torch.zeros(256, dtype=torch.float64)
        for pixels in torch.split(channel, 1000):
            counts += torch.bincount(pixels.flatten().to(torch.int64), minlength=256)
        mean = (counts @ values / counts.sum()).item()
        variance = (counts @ (values - mean).square() / counts.sum()).item()
        means.append(round(mean, 9))
        deviations.append(round(max(variance**0.5, 1e-3), 9))  # a channel of one value stays finite
    return tuple(means), tuple(deviations)


def _split(images: Images | Files, mean: Sequence[float], std: Sequence[float], device: torch.device | str) -> Split:
    normalisation = Normalisation(mean, std, device)
    if isinstance(images, Files):
        return FileSplit(images, normalisation)
    return MemorySplit(images, normalisation)
