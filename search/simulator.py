"""A search in virtual time: the same driver, K simulated workers, and trials that were recorded.

Workers may be slow and may die, as seeds say; everything that happens follows from the study, the record and the
conditions. Does NOT cover what one trial does (`search.simulated_run`).
"""

import heapq
import itertools
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from search.driver import RETRIES, Answer, Assignment
from search.record import Laps
from search.simulated_run import Attempt, SharedShelf, Shelf
from search.simulated_workers import Clock, Conditions, Worker, workers_of
from search.stopper import Verdict
from spaces.lap import Lap


class Decisions(Protocol):
    """Who decides: `search.driver.Driver`, or whom it is compared with."""

    def next_trial(self, workers: int) -> Assignment | Answer:
        """A trial to run now, "wait" or "over"."""
        ...

    def assignment(self, number: int) -> Assignment:
        """A running trial's, asked again where its worker died."""
        ...

    def started(self, number: int, *, node: str, from_epoch: int) -> None:
        """A worker has set the trial up."""
        ...

    def reported(self, number: int, metrics: Mapping[str, Any]) -> Verdict:
        """An epoch is over, and not the last."""
        ...

    def finished(self, number: int, metrics: Mapping[str, Any]) -> None:
        """The last epoch is over."""
        ...

    def failed(self, number: int, *, epoch: int, reason: str) -> None:
        """The trial cannot go on."""
        ...


@dataclass(frozen=True)
class Finish:
    """A full-length trial, and what the search had cost when it ended."""

    number: int
    metrics: Mapping[str, Any]
    seconds: float  # virtual, since the search began
    macs: int  # training MACs executed by all workers


@dataclass(frozen=True)
class Result:
    """What a simulated search took."""

    seconds: float  # virtual, from beginning to end
    busy_seconds: float  # of workers that had a trial, setting up included
    idle_seconds: float  # of workers that had none
    down_seconds: float  # of workers that were dead
    macs: int  # training MACs executed, lost work included
    lowest_macs: int  # the least that the same trials take, as far as each came: every boundary computed once
    alone_macs: int  # what they take without shared stages: every trial from nothing
    lost_attempts: int  # attempts that ended with their worker
    finishes: tuple[Finish, ...]


@dataclass
class _Sums:
    busy: float = 0.0
    macs: int = 0
    lost: int = 0
    passed: dict[str, int] = field(default_factory=dict)  # boundary: its training MACs
    alone: dict[int, int] = field(default_factory=dict)  # trial: training MACs of its way so far
    finishes: list[Finish] = field(default_factory=list)


class Simulator:
    """Carries a driver's decisions out, as `search.ray_backend` does with Ray."""

    def __init__(
        self, decisions: Decisions, source: Laps, conditions: Conditions, *, clock: Clock, shelf: Shelf | None = None
    ) -> None:
        """`clock`: the one that the driver reads; `shelf`: which boundaries trials find, by default all saved ones."""
        self._decisions, self._source, self._conditions, self._clock = decisions, source, conditions, clock
        self._shelf: Shelf = SharedShelf() if shelf is None else shelf
        self._workers = workers_of(conditions)
        self._idle = [worker.number for worker in self._workers]  # a heap: the first of them takes the next trial
        self._alive = len(self._workers)
        self._lost: list[Assignment] = []  # whose worker died; they go first
        self._attempts: Counter[int] = Counter()
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._sums = _Sums()
        self._is_told_over = False
        self._has_news = True  # since the driver was last asked

    def run(self) -> Result:
        """Until the driver says it is over."""
        for worker in self._workers:
            self._later(worker.draw_life(), partial(self._die, worker))
        self._hand_out()
        while not (self._is_told_over and all(worker.attempt is None for worker in self._workers) and not self._lost):
            if not self._agenda:
                raise RuntimeError("the driver waits for a trial, and none is under way")
            self._clock.now, _, act = heapq.heappop(self._agenda)
            act()
            if self._has_news:
                self._hand_out()
        return self._result()

    def _later(self, seconds: float, act: Callable[[], None]) -> None:
        if seconds < math.inf:
            heapq.heappush(self._agenda, (self._clock.now + seconds, next(self._order), act))

    def _hand_out(self) -> None:
        """Give idle workers trials until the driver has none for them."""
        self._has_news = False
        while self._idle:
            if self._lost:
                answer: Assignment | Answer = self._lost.pop(0)
            else:
                answer = self._decisions.next_trial(self._alive)
            if not isinstance(answer, Assignment):
                self._is_told_over = answer == "over"
                return
            self._begin(self._workers[heapq.heappop(self._idle)], answer)

    # ---- one attempt ------------------------------------------------------------------------------------------------

    def _begin(self, worker: Worker, assignment: Assignment) -> None:
        plan = assignment.plan
        attempt = Attempt(assignment, self._source.laps(plan), self._source.failure(plan))
        worker.take(attempt, self._clock.now)
        self._later(self._conditions.setup_seconds * worker.pace, partial(self._set_up, worker, attempt))

    def _set_up(self, worker: Worker, attempt: Attempt) -> None:
        if worker.attempt is attempt:  # else the worker died meanwhile
            attempt.begin(self._shelf, self._clock.now)
            node = f"worker-{worker.number}"
            self._decisions.started(attempt.number, node=node, from_epoch=attempt.inherited_epochs)
            self._arrive(worker, attempt)

    def _arrive(self, worker: Worker, attempt: Attempt) -> None:
        """At a boundary: one that ends a step is told of, be it inherited; from any other the next lap begins."""
        lap = attempt.next_lap
        if lap is None or attempt.is_report_due:
            self._step_over(worker, attempt)
        else:
            self._begin_lap(worker, attempt, lap)

    def _begin_lap(self, worker: Worker, attempt: Attempt, lap: Lap) -> None:
        worker.lap_began = self._clock.now
        self._later(lap.seconds * worker.pace, partial(self._lap_over, worker, attempt, lap))

    def _lap_over(self, worker: Worker, attempt: Attempt, lap: Lap) -> None:
        if worker.attempt is not attempt:
            return
        attempt.pass_lap(self._shelf, self._clock.now)
        self._sums.macs += lap.macs
        self._sums.passed[lap.key] = lap.macs
        self._sums.alone[attempt.number] = max(attempt.alone_macs, self._sums.alone.get(attempt.number, 0))
        self._arrive(worker, attempt)

    def _step_over(self, worker: Worker, attempt: Attempt) -> None:
        """Tell the driver of an epoch, and go on if there is more and it says so."""
        number, lap, self._has_news = attempt.number, attempt.next_lap, True
        if lap is None and attempt.failure is None:
            metrics = attempt.report(self._clock.now)
            self._sums.finishes.append(Finish(number, metrics, self._clock.now, self._sums.macs))
            self._decisions.finished(number, metrics)
            self._release(worker)
            return
        verdict = self._decisions.reported(number, attempt.report(self._clock.now)) if attempt.place else "go on"
        if verdict == "go on" and lap is None:
            self._decisions.failed(number, epoch=attempt.epoch, reason=str(attempt.failure))
        if verdict == "stop" or lap is None:
            self._release(worker)
        else:
            self._begin_lap(worker, attempt, lap)

    def _release(self, worker: Worker) -> None:
        self._sums.busy += worker.leave(self._clock.now)
        heapq.heappush(self._idle, worker.number)

    # ---- lost workers -----------------------------------------------------------------------------------------------

    def _die(self, worker: Worker) -> None:
        """The worker's trial goes on from its deepest stored boundary as soon as another worker is free."""
        attempt, now = worker.attempt, self._clock.now
        if attempt is None:
            self._idle.remove(worker.number)
            heapq.heapify(self._idle)
        else:
            self._sums.macs += worker.macs_under_way(now)  # work since the last boundary: lost, and charged
            self._sums.lost += 1
            self._sums.busy += worker.leave(now)
            self._attempts[attempt.number] += 1
            if self._attempts[attempt.number] > RETRIES:
                self._decisions.failed(attempt.number, epoch=attempt.epoch, reason="its worker died again and again")
            else:
                self._lost.append(self._decisions.assignment(attempt.number))
        worker.die(now)
        self._alive -= 1
        self._later(self._conditions.repair_seconds, partial(self._come_back, worker))
        self._has_news = True

    def _come_back(self, worker: Worker) -> None:
        worker.come_back(self._clock.now)
        self._alive += 1
        heapq.heappush(self._idle, worker.number)
        self._later(worker.draw_life(), partial(self._die, worker))
        self._has_news = True

    def _result(self) -> Result:
        sums, seconds = self._sums, self._clock.now
        down = sum(worker.down_seconds(seconds) for worker in self._workers)
        return Result(
            seconds=seconds,
            busy_seconds=sums.busy,
            idle_seconds=max(0.0, seconds * len(self._workers) - sums.busy - down),
            down_seconds=down,
            macs=sums.macs,
            lowest_macs=sum(sums.passed.values()),
            alone_macs=sum(sums.alone.values()),
            lost_attempts=sums.lost,
            finishes=tuple(sums.finishes),
        )
