"""Where a search stands, from its events alone: the front so far, its hypervolume, how many trials ended how.

The same events give the same standing, so a resumed search and a page made afterwards agree.
"""

import math
from collections import Counter
from typing import Any

from tracking.events import Event
from tracking.front import Constraints, GrowingFront, Objectives, Point, hypervolume
from tracking.names import trial_name

COVERED: Objectives = {"accuracy": "maximize", "keep_macs": "minimize"}


class Standing:
    """Hear every event in order; ask at any time. Proposals of a plan that was tried before count once."""

    def __init__(self) -> None:
        self.study = ""
        self.objectives: Objectives = {"accuracy": "maximize", "macs": "minimize"}
        self.constraints: Constraints = {}
        self.baseline: Point | None = None
        self.ended: dict[str, str] = {}  # plan hash: finished, stopped or failed
        self.failures: dict[str, str] = {}  # plan hash: why it failed
        self.points: dict[str, Point] = {}  # every full-length trial, by plan hash
        self._proposals: dict[str, tuple[int, dict[str, Any]]] = {}
        self._front = GrowingFront(self.objectives)
        self._covering = GrowingFront(COVERED)  # what the hypervolume hangs on
        self._hypervolume: float | None = None  # None where it is to be reckoned anew

    def hear(self, event: Event) -> bool:
        """Take one event in; whether the front changed."""
        match event.kind:
            case "opened":
                self.study = event.body.get("study", self.study)
                self.objectives = event.body.get("objectives") or self.objectives
                self.constraints = event.body.get("constraints") or {}
                if not self.points:  # a search that goes on opens again, with the same
                    self._front = GrowingFront(self.objectives, self.constraints)
                    self._covering = GrowingFront(COVERED, self.constraints)
            case "proposed" if event.plan_hash and event.trial is not None:
                self._proposals.setdefault(event.plan_hash, (event.trial, event.body.get("plan", {})))
            case "started" if event.plan_hash and self.ended.get(event.plan_hash) == "stopped":
                del self.ended[event.plan_hash]  # it is taken up again
            case "finished" if event.plan_hash and event.plan_hash not in self.points:
                self.ended[event.plan_hash] = "finished"
                self.failures.pop(event.plan_hash, None)  # it was tried again
                return self._finish(event.plan_hash, event)
            case "stopped" | "failed" if event.plan_hash:
                self.ended[event.plan_hash] = event.kind
                if event.kind == "failed":
                    self.failures[event.plan_hash] = str(event.body.get("reason", "unknown"))
        return False

    def proposal(self, plan_hash: str) -> tuple[int, dict[str, Any]] | None:
        """The number of the trial that tries a plan first, and the plan; None where it was never proposed."""
        return self._proposals.get(plan_hash)

    @property
    def front(self) -> list[Point]:
        """The full-length trials that no other beats, cheapest first."""
        return self._front.members

    @property
    def hypervolume(self) -> float | None:
        """Of the feasible full-length trials; None before the dense baseline, which sets the reference, is known."""
        if self.baseline is not None and self._hypervolume is None:
            self._hypervolume = hypervolume(self._covering.members, self.baseline.accuracy)
        return self._hypervolume

    @property
    def reasons(self) -> Counter[str]:
        """Why trials failed, and how many for each reason."""
        return Counter(self.failures.values())

    @property
    def counts(self) -> dict[str, int]:
        """Trials by how they ended: finished, stopped, failed."""
        counted = Counter(self.ended.values())
        return {how: counted[how] for how in ("finished", "stopped", "failed")}

    def _finish(self, plan_hash: str, event: Event) -> bool:
        trial, plan = self._proposals.get(plan_hash, (event.trial or 0, {}))
        metrics = numbers(event.body)
        point = Point(plan_hash, metrics, trial=trial, name=trial_name(trial, plan), plan=plan)
        if not all(math.isfinite(metrics.get(name, math.nan)) for name in ("accuracy", "keep_macs")):
            return False
        self.points[plan_hash] = point
        if trial == 0:
            self.baseline = point
        if self._covering.join(point) or trial == 0:
            self._hypervolume = None
        return self._front.join(point)


def numbers(body: dict[str, Any]) -> dict[str, float]:
    """The metrics in an event's body: what is a number, except the epoch it was measured after."""
    return {
        name: float(value)
        for name, value in body.items()
        if name != "epoch" and isinstance(value, int | float) and not isinstance(value, bool)
    }
