"""(e) What one event costs, criterion by criterion, in units of an epoch."""

from functools import partial

import torch
from torch import nn

from benchmarks.engine.setting import EPOCH_IMAGES, Setting, one_epoch, prune, prune_plan, twin
from benchmarks.figures import Figure, Target, ratio
from benchmarks.timing import Prepare, Run, interleaved
from spaces.plan import Plugin, Prune, Train
from trainables.criteria import CRITERIA
from trainables.data.split import Split
from trainables.training import make_optimizer

NETWORK = "resnet56"
KEEP = 0.9
"""So near that `fur` probes once; the criteria's time does not depend on it."""
OF_WEIGHTS = Target("at most", 2)
"""For every criterion that looks at no data."""
TARGETS = {"snap": Target("at most", 10), "frs": Target("at most", 15)}
QUICKER = 4


def figures(setting: Setting) -> list[Figure]:
    recipe, train = next(iter(setting.recipes().items()))
    model = setting.network(NETWORK, train)
    optimizer = make_optimizer(model, train)
    rows = []
    for name in CRITERIA:
        rows.append(_row(setting, recipe, train, model, optimizer, criterion=name, allocation="global"))
    rows.append(_row(setting, recipe, train, model, optimizer, criterion="l1", allocation="fur"))
    return rows


def _row(
    setting: Setting,
    recipe: str,
    train: Train,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    criterion: str,
    allocation: str,
) -> Figure:
    samples = _samples(criterion, allocation)
    fraction = QUICKER if setting.quick and samples else 1
    plan = _plan(criterion, allocation, samples // fraction)
    steps = 50 if setting.on_gpu else 1 if setting.quick else 3
    rounds = 1 if samples and not setting.on_gpu else 2 if setting.quick else 5
    split = setting.split(max(samples, steps * train.batch_size))
    learned = setting.split(steps * train.batch_size)
    sides: dict[str, Prepare] = {
        "before": lambda: partial(one_epoch, model, optimizer, split=learned, train=train),
        "event": lambda: _fresh(model, optimizer, plan, train, split),
        "after": lambda: partial(one_epoch, model, optimizer, split=learned, train=train),
    }
    times = interleaved(sides, rounds=rounds, device=setting.device, warm_up=0 if rounds == 1 else 1)
    around = zip(times["before"], times["after"], strict=True)
    epochs = [(before + after) / 2 * EPOCH_IMAGES / len(learned) for before, after in around]
    percent = ratio([100 * fraction * seconds for seconds in times["event"]], epochs)
    what = f"criterion {criterion}" if allocation == "global" else f"allocation {allocation}"
    seen = f"{samples} images" if samples else "no data"
    scaled = f" (measured on {samples // fraction}, times {fraction})" if fraction > 1 else ""
    return Figure(
        f"(e) {NETWORK}: one event, {what}",
        percent.middle,
        "% of an epoch",
        f"{seen}{scaled}, forward check included, to keep {KEEP} of MACs; epoch of {EPOCH_IMAGES} 3x32x32 images "
        f"extrapolated from {steps} steps of {train.batch_size} before and after; {recipe}, {setting.device.type}; "
        f"{percent}",
        None if allocation != "global" else TARGETS.get(criterion) if samples else OF_WEIGHTS,
    )


def _samples(criterion: str, allocation: str) -> int:
    """The images an event looks at by default."""
    plan = prune_plan(KEEP, criterion=Plugin(name=criterion), allocation=allocation)
    plugin = plan.allocation if "samples" in plan.allocation.settings else plan.criterion
    return int(plugin.settings.get("samples", 0))


def _plan(criterion: str, allocation: str, samples: int) -> Prune:
    given = {"samples": samples} if samples else {}
    if allocation == "global":
        return prune_plan(KEEP, criterion=Plugin(name=criterion, settings=given), allocation=allocation)
    plan = prune_plan(KEEP, criterion=Plugin(name=criterion), allocation=allocation)
    return Prune.model_validate({**dict(plan), "allocation": Plugin(name=allocation, settings=given)})


def _fresh(model: nn.Module, optimizer: torch.optim.Optimizer, plan: Prune, train: Train, split: Split) -> Run:
    own_model, own_optimizer = twin(model, optimizer)
    return partial(prune, own_model, own_optimizer, plan, train, split)
