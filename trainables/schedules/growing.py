"""Schedules that are known before training begins: one event, or a sparsity that grows by a formula."""

from typing import Annotated, Literal

from pydantic import Field

from trainables.schedules.moments import Moment, moments

Epochs = Annotated[int, Field(ge=1)]


def once(
    epochs: int,
    sparsity: float,
    /,
    *,
    after: Annotated[int, Field(ge=-1)] | None = None,
) -> tuple[Moment, ...]:
    """One event, after epoch `after` (-1: before training; null: at half time)."""
    return moments(epochs, [epochs // 2 - 1 if after is None else after], [sparsity])


def every(
    epochs: int,
    sparsity: float,
    /,
    *,
    interval: Epochs = 5,
    until: Epochs | None = None,
) -> tuple[Moment, ...]:
    """Equal amounts every `interval` epochs while the epoch is under `until` (null: three quarters of training).

    FRS (2020): after epoch e where (e + 1) % interval = 0 and e < until.
    """
    end = min(_end(epochs, until), epochs - 1)
    at = range(interval - 1, end, interval)
    return moments(epochs, at, [sparsity * ((index + 1) / len(at)) for index in range(len(at))])


def geometric(
    epochs: int,
    sparsity: float,
    /,
    *,
    steps: Annotated[int, Field(ge=1, le=20)] = 5,
    when: Literal["before", "during"] = "during",
    delay: Annotated[int, Field(ge=0)] = 0,
    interval: Epochs = 1,
) -> tuple[Moment, ...]:
    """Half of what is left to the target at each step, all before training or every `interval` epochs after `delay`.

    SNIP-it (2020): k_i = s - (s - k_0) / 2^i for i = 0 ... steps, then s: steps + 2 events. k_0 is 0.5, or s / 2
    where 0.5 would overshoot. During training they fall after epochs delay + interval, delay + 2 * interval ...
    """
    first = 0.5 if sparsity > 0.5 else sparsity / 2
    levels = [sparsity - (sparsity - first) * 0.5**step for step in range(steps + 1)] + [sparsity]
    at = [-1 if when == "before" else delay + interval * (index + 1) for index in range(len(levels))]
    return moments(epochs, at, levels)


def cubic(
    epochs: int,
    sparsity: float,
    /,
    *,
    start: Annotated[int, Field(ge=0)] = 0,
    interval: Epochs = 1,
    until: Epochs | None = None,
) -> tuple[Moment, ...]:
    """Much at first, little towards the end: s * (1 - (1 - t / T)^3) (Zhu and Gupta 2017; GraNet 2021).

    An event every `interval` epochs from `start` completed epochs on, the last at or before `until` of them (null:
    three quarters of training).
    """
    end = min(_end(epochs, until), epochs - 1)
    count = (end - start) // interval
    at = [start + interval * (index + 1) - 1 for index in range(count)]
    return moments(epochs, at, [sparsity * (1 - (1 - (index + 1) / count) ** 3) for index in range(count)])


def _end(epochs: int, until: int | None) -> int:
    return max(epochs * 3 // 4, 1) if until is None else until
