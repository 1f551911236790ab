"""Laps from formulas: every plan of every study is known at once, so that searches of any size can be simulated."""

import random
from collections.abc import Sequence
from functools import lru_cache

from spaces.lap import Lap
from spaces.plan import Plan
from spaces.plugin import Plugin
from spaces.study import Study

EPOCH_MACS = 6_000_000  # training MACs of an epoch of the dense network
EPOCH_SECONDS = 1.0


class Invented:
    """Has the face of `search.record.Record`. `breaks`: the criterion whose trials fail after their first event."""

    def __init__(self, *, breaks: str = "") -> None:
        self._breaks = breaks

    def check(self, study: Study) -> None:
        pass

    def problem(self, plan: Plan) -> str | None:
        return None

    def failure(self, plan: Plan) -> str | None:
        return "loss is nan" if plan.prune is not None and plan.prune.criterion.name == self._breaks else None

    def laps(self, plan: Plan) -> Sequence[Lap]:
        laps = _laps(plan.model_dump_json())
        if self.failure(plan) is None:
            return laps
        return laps[: next(place for place, lap in enumerate(laps) if lap.events) + 1]


@lru_cache(maxsize=64)
def _laps(written: str) -> tuple[Lap, ...]:
    plan = Plan.model_validate_json(written)
    own, dense = plan.hash, plan.dense().hash
    pruned = plan.model_copy(update={"recover": Plugin(name="continue")}).hash
    noise, aims = random.Random(own), events_of(plan)
    target = (plan.prune.amount.keep_macs or 1.0) if plan.prune is not None else 1.0
    laps, events, keep = [], 0, 1.0
    for epoch in range(1, plan.train.epochs + 1):
        name = own if events else dense
        laps.append(_lap(f"{name}-{epoch}", epoch, events, keep, plan.train.epochs, noise))
        if epoch in aims:
            events += 1
            keep = target ** (events / len(aims))
            name = pruned if events == 1 else own
            event = _lap(f"{name}-{epoch}-{events}", epoch, events, keep, plan.train.epochs, noise)
            laps.append(Lap(event.key, epoch, events, EPOCH_MACS // 20, 0.1, event.metrics))
    return tuple(laps)


def events_of(plan: Plan) -> tuple[int, ...]:
    """After how many epochs the plan prunes."""
    if plan.prune is None:
        return ()
    settings = plan.prune.schedule.settings
    if plan.prune.schedule.name == "once":
        return (settings["after"] + 1,)
    return tuple(range(settings["interval"], settings["until"] + 1, settings["interval"]))


def _lap(key: str, epoch: int, events: int, keep: float, epochs: int, noise: random.Random) -> Lap:
    accuracy = (0.6 + 0.35 * epoch / epochs) * (1.0 - 0.3 * (1.0 - keep) ** 6) - 0.01 * noise.random()
    metrics = {
        "accuracy": round(accuracy, 6),
        "loss": round(1.0 - accuracy, 6),
        "macs": int(1e6 * keep),
        "keep_macs": keep,
        "params": int(1e4 * keep),
        "keep_params": keep,
        "validation_images": 900,
    }
    return Lap(key, epoch, events, int(EPOCH_MACS * keep), EPOCH_SECONDS * (0.2 + 0.8 * keep), metrics)
