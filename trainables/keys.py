"""Names for boundaries by value: two trials share a boundary exactly when everything that shaped it is equal.

    key(0)   = H(format, sources, torch version, numerics, data, seed, model, initial weights)
    key(e+1) = H(key(e), every value that shaped epoch e: the learning rate of each step, batch, augmentation ...)
    event    : key' = H(key, criterion, allocation, amount ... of this event)

What has not acted yet (pruning settings before the first event) is in no key, so trials share what they can.
"""

import hashlib
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from spaces.plan import Plan, Prune, Train, digest
from spaces.plugin import Plugin
from trainables.schedules import Moment

FORMAT = 1
"""Version of keys and checkpoints; raised when either changes its meaning."""


def origin(plan: Plan, *, data_fingerprint: str, device_type: str) -> str:
    """The key of boundary 0: the untrained network, or the weights it starts from."""
    train = plan.train
    return digest(
        {
            "format": FORMAT,
            "sources": sources_digest(_users_modules(plan)),
            "torch": torch.__version__,
            "numerics": {
                "device": device_type,
                "precision": train.precision,
                "memory_format": train.memory_format,
                "world_size": 1,
                "threads": train.threads,
                "algorithms": train.algorithms,
            },
            "data": {"fingerprint": data_fingerprint, **plan.data.model_dump(mode="json", exclude={"root", "augment"})},
            "seed": train.seed,
            "model": plan.model.model_dump(mode="json"),
            "weights": _weights_digest(plan.model.weights),
        }
    )


def after_epoch(
    key: str, train: Train, augment: Sequence[str], *, epoch: int, rates: Sequence[float], acting: Any
) -> str:
    """The key of the boundary at the end of `epoch`, whose steps used the learning rates `rates`.

    `acting`: what acted beside the recipe, by value; empty where nothing did.
    """
    values = {
        "epoch": epoch,
        "rates": list(rates),
        "batch_size": train.batch_size,
        "augment": list(augment),
        "optimizer": train.optimizer.model_dump(mode="json"),
        "weight_decay": [train.weight_decay, train.weight_decay_on],
        "loss": [train.loss.model_dump(mode="json"), train.label_smoothing],
        "clip_norm": train.clip_norm,
    }
    if acting:
        values["acting"] = acting
    return digest([key, values])


def after_event(key: str, prune: Prune, moment: Moment, *, event: int, loss: Any, epochs: int) -> str:
    """The key of the boundary right after pruning event number `event`, in a training of `epochs` epochs."""
    values = {
        "event": event,
        "criterion": by_value(prune.criterion),
        "allocation": by_value(prune.allocation),
        "amount": [unit for unit, value in prune.amount if value is not None],
        "filters": prune.amount.filters_per_event,
        "sparsity": None if prune.amount.filters_per_event else moment.sparsity,
        "granularity": prune.granularity,
        "width_multiple": prune.width_multiple,
        "pattern": prune.pattern,
        "protect": list(prune.protect),
        "regrowth": prune.regrowth and [by_value(prune.regrowth), epochs],  # it goes by progress
        "compensation": prune.compensation and by_value(prune.compensation),
        "recalibrate_batches": prune.recalibrate_batches,
        "loss": loss,  # criteria look at it
    }
    return digest([key, values])


def by_value(plugin: Plugin) -> list[Any]:
    """A plug-in with its settings; of a user's own the source too, that of the tables' is in every key."""
    own = sources_digest((plugin.name.partition(":")[0],)) if plugin.is_users_own else None
    return [plugin.model_dump(mode="json"), own]


@cache
def sources_digest(extra: tuple[str, ...] = ()) -> str:
    """SHA-256 over the sources that decide what a trial computes: this folder, and the user's own modules."""
    root = Path(__file__).parent
    hashed = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        hashed.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    for module in extra:
        spec = find_spec(module)
        if spec is not None and spec.origin is not None:
            hashed.update(module.encode() + b"\0" + Path(spec.origin).read_bytes())
    return hashed.hexdigest()


def _users_modules(plan: Plan) -> tuple[str, ...]:
    named = [plan.data, plan.model, plan.train.optimizer, plan.train.decay, plan.train.loss]
    return tuple(sorted({plugin.name.partition(":")[0] for plugin in named if plugin.is_users_own}))


def _weights_digest(weights: str | None) -> str | None:
    """The content of a weights file, or the name of published weights."""
    if weights is None or not Path(weights).is_file():
        return weights
    with Path(weights).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
