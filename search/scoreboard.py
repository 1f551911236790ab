"""The state of a search as its events tell it: who runs, how far, how long the rest may take."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tracking.events import Event
from tracking.names import trial_name
from tracking.standing import Standing


@dataclass
class Running:
    """A trial under way."""

    name: str
    epochs: int
    epoch: int = 0
    node: str = ""
    began: float = 0.0
    metrics: dict[str, Any] = field(default_factory=dict)


class Scoreboard:
    """The state of a search as its events tell it, and how long the rest may take."""

    def __init__(self, trials: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.trials, self._clock = trials, clock
        self.standing = Standing()
        self.running: dict[int, Running] = {}
        self._plans: dict[int, dict[str, Any]] = {}
        self._began: float | None = None
        self._durations: list[float] = []  # seconds of the pruned trials that ended since then
        self._most_at_once = 1

    def begin(self) -> None:
        """From now on events are heard as they happen; what came before is a log's."""
        self._began = self._clock()
        self._durations.clear()
        self.running.clear()

    @property
    def has_begun(self) -> bool:
        """Whether events are news."""
        return self._began is not None

    def hear(self, event: Event) -> bool:
        """Take one event in; whether the front changed."""
        number = event.trial
        if number is not None:
            match event.kind:
                case "proposed":
                    self._plans[number] = event.body["plan"]
                case "started":
                    plan = self._plans[number]
                    self.running[number] = Running(
                        trial_name(number, plan),
                        plan["train"]["epochs"],
                        event.body["from_epoch"],
                        event.body["node"],
                        self._clock(),
                    )
                    self._most_at_once = max(self._most_at_once, len(self.running))
                case "reported" if number in self.running:
                    self.running[number].epoch = event.body["epoch"]
                    self.running[number].metrics = event.body
                case "paused":
                    self.running.pop(number, None)
                case "finished" | "failed" | "stopped" if number in self.running:
                    began = self.running.pop(number).began
                    if number:  # the baseline trains every epoch of the dense network: no other takes as long
                        self._durations.append(self._clock() - began)
        return self.standing.hear(event)

    def name(self, number: int) -> str:
        """`#007 frs·every·given keep 0.21`."""
        return trial_name(number, self._plans.get(number, {}))

    @property
    def ended(self) -> int:
        """Trials that need no more work."""
        return sum(self.standing.counts.values())

    @property
    def elapsed(self) -> float:
        """Seconds since `begin`."""
        return 0.0 if self._began is None else self._clock() - self._began

    @property
    def seconds_left(self) -> float:
        """From how long trials took so far, running ones counted by their epochs; infinite while that is unknown."""
        if not self._durations:
            return math.inf
        under_way = sum(trial.epoch / trial.epochs for trial in self.running.values())
        each = sum(self._durations) / len(self._durations)
        return each * (self.trials - self.ended - under_way) / self._most_at_once
