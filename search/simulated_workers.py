"""Simulated workers: how fast each is, when it dies and comes back, and what it has under way.

Does NOT cover what they are given, nor when (`search.simulator`).
"""

import math
import random
from dataclasses import dataclass

from search.simulated_run import Attempt


@dataclass(frozen=True)
class Conditions:
    """What the workers are like. Times are virtual seconds, in which an even worker does a recorded second's work."""

    workers: int = 1
    stragglers: float = 0.0  # fraction of the workers that are slow
    slowness: float = 3.0  # how many times as long those take
    failures: float = math.inf  # mean seconds from a worker's start to its death
    repair_seconds: float = 2.0  # until another takes its place: Ray notices a dead node that soon
    setup_seconds: float = 0.1  # of each attempt at a trial, before it trains
    seed: int = 0


class Clock:
    """Virtual time: seconds since the search began."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Now."""
        return self.now


class Worker:
    """One of K."""

    def __init__(self, number: int, *, pace: float, failures: float, rng: random.Random) -> None:
        """`pace`: virtual seconds for a recorded one; `failures`: mean seconds that it lives."""
        self.number, self.pace = number, pace
        self.attempt: Attempt | None = None
        self.lap_began = math.inf
        self._failures, self._rng = failures, rng
        self._since = 0.0  # when the attempt began
        self._died: float | None = None
        self._down = 0.0

    def draw_life(self) -> float:
        """Seconds from now to its death; infinite where nothing fails."""
        return math.inf if math.isinf(self._failures) else self._rng.expovariate(1.0 / self._failures)

    def take(self, attempt: Attempt, now: float) -> None:
        """Begin with an attempt; its first lap has not begun."""
        self.attempt, self._since, self.lap_began = attempt, now, math.inf

    def macs_under_way(self, now: float) -> int:
        """Training MACs of the lap that it is in, by how much of it is done."""
        lap = None if self.attempt is None else self.attempt.next_lap
        if lap is None or lap.seconds <= 0.0:
            return 0
        return int(lap.macs * min(1.0, max(0.0, (now - self.lap_began) / (lap.seconds * self.pace))))

    def leave(self, now: float) -> float:
        """Let go of the attempt; returns how long it took."""
        self.attempt = None
        return now - self._since

    def die(self, now: float) -> None:
        """From now on it takes no trial."""
        self._died = now

    def come_back(self, now: float) -> None:
        """Another has taken its place."""
        self._down, self._died = self.down_seconds(now), None

    def down_seconds(self, now: float) -> float:
        """For how long it has been dead, in all."""
        return self._down + (0.0 if self._died is None else now - self._died)


def workers_of(conditions: Conditions) -> list[Worker]:
    """K workers; which of them are slow, and when they die, follows from the seed."""
    count = conditions.workers
    drawn = random.Random(f"{conditions.seed} stragglers")
    slow = set(drawn.sample(range(count), round(conditions.stragglers * count)))
    return [
        Worker(
            number,
            pace=conditions.slowness if number in slow else 1.0,
            failures=conditions.failures,
            rng=random.Random(f"{conditions.seed} worker {number}"),
        )
        for number in range(count)
    ]
