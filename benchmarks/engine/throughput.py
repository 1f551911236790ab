"""(f) Images per second of our training loop over those of a plain PyTorch loop."""

import os
from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from benchmarks.engine.plain_loop import loader, plain_epoch
from benchmarks.engine.setting import Setting, one_epoch
from benchmarks.figures import Figure, Target, ratio, spread
from benchmarks.timing import Prepare, interleaved
from spaces.plan import Train
from trainables.data.source import Images
from trainables.training import make_optimizer

ON_CPU, ON_GPU = Target("at least", 1.0), Target("at least", 3.0)


def figures(setting: Setting) -> list[Figure]:
    networks = ("resnet20", "resnet56", "vgg16_bn_cifar") if setting.on_gpu else ("resnet20",)
    return [
        figure
        for recipe, train in setting.recipes().items()
        for network in networks
        for figure in _of(setting, network, recipe, train)
    ]


def _of(setting: Setting, network: str, recipe: str, train: Train) -> list[Figure]:
    images = (12_800 if setting.quick else 25_600) if setting.on_gpu else (512 if setting.quick else 1024)
    workers = (0, min(8, (os.cpu_count() or 1) - 1) if setting.on_gpu else 2)
    times = measure(setting, network, train, images=images, workers=workers, rounds=3 if setting.quick else 6)
    rate = images / spread(times["ours"]).middle
    rows = []
    for count in workers:
        faster = ratio(times[f"plain {count}"], times["ours"])
        rows.append(
            Figure(
                f"(f) {network}: throughput / plain loop with {count} loader workers",
                faster.middle,
                "x",
                f"{rate:.0f} images/s against {images / spread(times[f'plain {count}']).middle:.0f}; crop and flip, "
                f"batch {train.batch_size}, {recipe}, {train.algorithms} algorithms, {setting.device.type}; {faster}",
                ON_GPU if setting.on_gpu else ON_CPU,
            )
        )
    return rows


def measure(
    setting: Setting, network: str, train: Train, *, images: int, workers: tuple[int, ...], rounds: int
) -> dict[str, list[float]]:
    """Seconds per epoch of `images` images: ours, and the plain loop's with each number of workers."""
    split = setting.split(images)
    same = Images(split.pixels.cpu(), split.labels.cpu())
    sides: dict[str, Prepare] = {"ours": _side(setting, network, train, partial(one_epoch, split=split, train=train))}
    for count in workers:
        batches = loader(same, train, workers=count, device=setting.device)

        def plain(model: nn.Module, optimizer: torch.optim.Optimizer, batches: object = batches) -> None:
            plain_epoch(model, batches, optimizer, train, setting.device)

        sides[f"plain {count}"] = _side(setting, network, train, plain)
    return interleaved(sides, rounds=rounds, device=setting.device)


def _side(
    setting: Setting, network: str, train: Train, epoch: Callable[[nn.Module, torch.optim.Optimizer], object]
) -> Prepare:
    """A network of its own, trained by `epoch`; both sides start from the same weights."""
    model = setting.network(network, train)
    optimizer = make_optimizer(model, train.model_copy(update={"learning_rate": 0.01}))
    return lambda: partial(epoch, model, optimizer)
