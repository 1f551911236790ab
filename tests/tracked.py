"""A search as its events would tell it, without one: what tracking is tested and measured with."""

from collections.abc import Iterator
from typing import Any

from tracking.events import Event

EPOCHS = 5
BEGAN = 1_800_000_000.0


def plan(number: int) -> dict[str, Any]:
    prune = {
        "granularity": "channels",
        "criterion": {"name": "frs", "mode": "stable"},
        "allocation": {"name": "given", "keeps": [0.5, 0.25 + number / 1000, 0.75]},
        "schedule": {"name": "every", "interval": 2, "until": 4},
        "amount": {"keep_macs": round(0.9 / (number + 1), 4), "keep_channels": None},
        "protect": [],
    }
    return {
        "data": {"name": "digits", "root": None, "validation": 900, "augment": ["flip"]},
        "model": {"name": "resnet8", "width": 16, "weights": None},
        "train": {"epochs": EPOCHS, "learning_rate": 0.1, "optimizer": {"name": "sgd", "momentum": 0.9}, "seed": 0},
        "prune": prune if number else None,
        "recover": {"name": "cosine", "peak": 0.5} if number else {"name": "continue"},
    }


def plan_hash(number: int) -> str:
    return f"{number:016x}"


def metrics(number: int, epoch: int) -> dict[str, float]:
    keep = 1.0 if number == 0 else 0.9 / (number + 1)
    accuracy = 0.95 - 0.2 * (1 - keep) ** 2 * (0.5 if number % 2 else 1.0) - 0.1 * (EPOCHS - epoch)
    return {
        "accuracy": accuracy,
        "loss": 1 - accuracy,
        "train_loss": 0.9 - accuracy,
        "learning_rate": 0.1 / epoch,
        "macs": round(1e6 * keep),
        "keep_macs": keep,
        "params": round(1e5 * keep),
        "keep_params": keep,
        "training_macs": 3e9 * epoch,
        "seconds": 1.5,
    }


def opened(seconds: float = 0.0) -> Event:
    objectives = {"accuracy": "maximize", "macs": "minimize"}
    body = {"study": "digits", "fingerprint": "f00d", "objectives": objectives, "constraints": {}, "seed": 0}
    return Event("opened", body=body, time=BEGAN + seconds)


def trial(number: int, *, ends: str = "finished") -> Iterator[Event]:
    """One trial's events, a second apart."""
    known, at = plan_hash(number), BEGAN + 100 * number
    yield Event("proposed", number, known, {"plan": plan(number), "choices": {}}, time=at)
    yield Event("started", number, known, {"attempt": 1, "node": "here", "from_epoch": 0}, time=at + 1)
    for epoch in range(1, EPOCHS + 1):
        yield Event("reported", number, known, {"epoch": epoch, **metrics(number, epoch)}, time=at + 1 + epoch)
    if ends == "finished":
        body = {"epoch": EPOCHS, **metrics(number, EPOCHS), "checkpoint_bytes": 4e5, "checkpoint": f"key{number}"}
    else:
        body = {"epoch": EPOCHS, "reason": "the loss is not a number"}
    yield Event(ends, number, known, body, time=at + 50)  # type: ignore[arg-type]


def search(trials: int) -> list[Event]:
    """A whole search of so many trials, the baseline first."""
    events = [opened(), *(event for number in range(trials) for event in trial(number))]
    return [*events, Event("closed", body={"reason": "budget spent"}, time=BEGAN + 100 * trials)]
