"""What the engine's measurements share: the device, the recipes, images of CIFAR-10's shape, networks, one event."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from spaces.plan import Amount, Data, Model, Plugin, Prune, Train
from trainables.data.load import load_source
from trainables.data.source import Images
from trainables.data.split import MemorySplit, Normalisation, Split
from trainables.models import InputShape, build_dense
from trainables.pruning.event import EventResult, fire
from trainables.pruning.groups import Group
from trainables.pruning.probe import Probe
from trainables.pruning.size import measure_dense
from trainables.schedules import Moment
from trainables.training import loss_of, make_optimizer, placed, prepared, set_numerics, train_epoch

SHAPE = InputShape(channels=3, height=32, width=32, classes=10)
EPOCH_IMAGES = 50_000
AUGMENT = ("pad_crop", "flip")
MEAN, DEVIATION = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


@dataclass(frozen=True)
class Setting:
    """How much is measured, where, and on which images."""

    quick: bool
    device: torch.device
    images: Images

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    def recipes(self) -> dict[str, Train]:
        """By the name that figures carry; threads fixed to one."""
        algorithms = "fast" if self.on_gpu else "deterministic"
        plain = Train(epochs=1, threads=1, algorithms=algorithms, batch_size=128)
        if not self.on_gpu:
            return {"float32": plain}
        mixed = plain.model_copy(update={"precision": "bfloat16", "memory_format": "channels_last"})
        return {"float32": plain, "bfloat16 channels_last": mixed}

    def split(self, images: int) -> MemorySplit:
        """So many training images on the device, repeated where there are fewer."""
        chosen = torch.arange(images) % len(self.images)
        return MemorySplit(self.images.take(chosen), Normalisation(MEAN, DEVIATION, self.device))

    def batch(self, size: int, train: Train) -> tuple[Tensor, Tensor]:
        images, labels = next(iter(self.split(size).ordered(size)))
        return prepared(images, train), labels

    def network(self, name: str, train: Train) -> nn.Module:
        """At full width, with the same random weights each time."""
        set_numerics(train)
        torch.manual_seed(0)
        return placed(build_dense(Model(name=name), SHAPE), train, self.device)


def setting(*, quick: bool, data: Path | None) -> Setting:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if data is not None:
        train = load_source(Data(name="cifar10", root=str(data))).train
        assert isinstance(train, Images)
        return Setting(quick, device, train)
    chance = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (4096, 3, 32, 32), generator=chance, dtype=torch.uint8)
    return Setting(quick, device, Images(pixels, torch.randint(10, (4096,), generator=chance)))


def prune_plan(
    keep: float, *, multiple: int = 1, criterion: Plugin | None = None, allocation: str = "uniform"
) -> Prune:
    return Prune(
        criterion=criterion or Plugin(name="l1"),
        allocation=Plugin(name=allocation),
        amount=Amount(keep_macs=keep),
        width_multiple=multiple,
    )


@dataclass(frozen=True)
class Event:
    """A network and its optimizer after one event."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    result: EventResult
    dense_macs: int

    @property
    def keep_macs(self) -> float:
        return self.result.costs.macs() / self.dense_macs


def prune(model: nn.Module, optimizer: torch.optim.Optimizer, plan: Prune, train: Train, split: Split) -> Event:
    """One event as a trial has it, in place."""
    images, _ = next(iter(split.ordered(1)))
    example = prepared(images, train)
    dense, _ = measure_dense(model, example, plan)
    assert plan.amount.keep_macs is not None
    result = fire(
        model,
        optimizer,
        example,
        prune=plan,
        moment=Moment(0, 1.0 - plan.amount.keep_macs),
        dense=dense,
        probe=partial(_probe, model, split, train),
        epoch=0,
    )
    return Event(model, optimizer, result, dense.macs)


def _probe(model: nn.Module, split: Split, train: Train, groups: dict[str, Group], forward_macs: int) -> Probe:
    def batches(samples: int, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        for images, labels in split.sample(samples, batch_size, torch.Generator().manual_seed(0)):
            yield prepared(images, train), labels

    # What a gate has learned by the time of the event: its values do not change how long the event takes.
    learned = {name: torch.linspace(0, 1, group.channels) for name, group in groups.items()}
    return Probe(
        model=model,
        groups=groups,
        gates=learned,
        loss=loss_of(train),
        num_classes=SHAPE.classes,
        batches=batches,
        generator=torch.Generator().manual_seed(1),
        forward_macs=forward_macs,
    )


def pruned(setting: Setting, network: str, train: Train, *, keep: float, multiple: int) -> Event:
    """A fresh network after one L1 event with uniform keeps."""
    model = setting.network(network, train)
    return prune(model, make_optimizer(model, train), prune_plan(keep, multiple=multiple), train, setting.split(1))


def twin(model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Copies that belong together."""
    return copy.deepcopy((model, optimizer))


__all__ = ["EPOCH_IMAGES", "Event", "Setting", "prune", "prune_plan", "pruned", "setting", "twin"]


def one_epoch(model: nn.Module, optimizer: torch.optim.Optimizer, *, split: Split, train: Train) -> None:
    """Our training loop over a split, augmented, at one small learning rate."""
    rates = [0.01] * -(-len(split) // train.batch_size)
    train_epoch(
        model,
        split,
        optimizer,
        rates,
        train=train,
        augment=AUGMENT,
        generator=torch.Generator().manual_seed(0),
        epoch=0,
    )
