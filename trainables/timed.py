"""A trial whose finished network is timed: for studies that name `latency_ms` as an objective or a constraint."""

import json
import os
import platform
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from spaces.plan import digest
from trainables.alone import alone, sharing
from trainables.latency import latency_ms
from trainables.training import precision, prepared
from trainables.trial import Metrics, Trial


class TimedTrial:
    """A trial that shares its device while it trains, and has it alone for the one measurement at its end.

    Networks of one architecture are measured once per kind of machine: the figure is kept in `cache`.
    """

    def __init__(self, trial: Trial, *, batch_size: int, cache: Path) -> None:
        self._trial, self._batch_size, self._cache = trial, batch_size, cache
        self.inherited_epochs = trial.inherited_epochs

    @property
    def done(self) -> bool:
        """Whether the last epoch and the last event lie behind."""
        return self._trial.done

    def step(self) -> Metrics:
        """One epoch's metrics; the last one's with `latency_ms`, the median for one batch of `batch_size` images."""
        return self._timed(self._trial.step)

    def catch_up(self) -> Metrics:
        """The metrics of the epoch that it begins after, timed as by `step`."""
        return self._timed(self._trial.catch_up)

    def _timed(self, tell: Callable[[], Metrics]) -> Metrics:
        with sharing(self._trial.device.type):
            metrics = tell()
        return {**metrics, "latency_ms": self._latency()} if self._trial.done else metrics

    def _latency(self) -> float:
        place = self._cache / f"{self._architecture()}.json"
        if place.is_file():
            kept: float = json.loads(place.read_text())["latency_ms"]
            return kept
        trial, shape = self._trial, self._trial.shape
        train = trial.plan.train
        images = torch.rand(self._batch_size, shape.channels, shape.height, shape.width, device=trial.device)
        with alone(trial.device.type), precision(train, trial.device):
            measured = latency_ms(trial.model, prepared(images, train), threads=train.threads)
        self._keep(place, {"latency_ms": measured, "batch_size": self._batch_size, "device": _device(trial.device)})
        return measured

    def _architecture(self) -> str:
        """What decides how long the network takes: its code and shapes, the batch, how numbers are computed, where."""
        trial = self._trial
        shapes = [[name, list(tensor.shape)] for name, tensor in trial.model.state_dict().items()]
        train = trial.plan.train
        numerics = [train.precision, train.memory_format, train.threads, train.algorithms, torch.__version__]
        named = trial.plan.model.model_dump(mode="json", exclude={"weights"})
        return digest([named, shapes, self._batch_size, numerics, _device(trial.device)])

    def _keep(self, place: Path, figure: dict[str, Any]) -> None:
        place.parent.mkdir(parents=True, exist_ok=True)
        draft = place.with_suffix(f".{uuid.uuid4().hex}")
        draft.write_text(json.dumps(figure))
        os.replace(draft, place)


def _device(device: torch.device) -> str:
    """The kind of device, as its maker calls it."""
    return (
        torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()} {platform.processor()}"
    )
