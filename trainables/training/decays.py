"""The learning rate of every step of the original training: its decay, and the warm-up in front of it.

Does NOT cover how the rate moves after pruning (`recoveries`).
"""

from collections.abc import Callable
from math import cos, pi
from typing import Annotated

from pydantic import Field

from spaces.plan import Train
from trainables.table import Table

Rates = Callable[[int], float]
"""Global step, from 0 -> learning rate."""
Part = Annotated[float, Field(ge=0.0, le=1.0)]


def constant(largest: float, total_steps: int, steps_per_epoch: int, /) -> Rates:
    """The same learning rate throughout."""
    return lambda step: largest


def step(
    largest: float,
    total_steps: int,
    steps_per_epoch: int,
    /,
    *,
    at: Annotated[tuple[Part, ...], Field(description="fractions of the training")] = (0.5, 0.75),
    factor: Annotated[float, Field(gt=0.0, le=1.0)] = 0.1,
) -> Rates:
    """Multiplied by `factor` at the start of the epoch after each fraction `at` (He et al. 2015: at half and 3/4)."""
    epochs = total_steps / steps_per_epoch
    # 1e-9: 0.29 * 100 is 28.999..., and epoch 29 is meant
    starts = [int(fraction * epochs + 1e-9) * steps_per_epoch for fraction in at]
    return lambda number: largest * factor ** sum(number >= start for start in starts)


def cosine(
    largest: float,
    total_steps: int,
    steps_per_epoch: int,
    /,
    *,
    end: Annotated[Part, Field(description="fraction of the largest rate it ends at")] = 0.0,
) -> Rates:
    """Half a cosine from the largest rate down to `end` of it, step by step (Loshchilov and Hutter 2017, eq. 5)."""
    return lambda number: largest * _between(1.0, end, number / total_steps)


def one_cycle(
    largest: float,
    total_steps: int,
    steps_per_epoch: int,
    /,
    *,
    rise: Annotated[float, Field(gt=0.0, lt=1.0, description="fraction of the training until the peak")] = 0.3,
    start: Annotated[Part, Field(description="fraction of the largest rate it starts at")] = 0.04,
    end: Annotated[Part, Field(description="fraction of the largest rate it ends at")] = 4e-6,
) -> Rates:
    """Up along half a cosine, then down along another (Smith and Topin 2018; torch's OneCycleLR)."""
    peak = rise * total_steps - 1
    fall = total_steps - 1 - peak

    def rate(number: int) -> float:
        if number <= peak:
            return largest * _between(start, 1.0, number / peak if peak > 0 else 1.0)
        return largest * _between(1.0, end, (number - peak) / fall)

    return rate


def _between(first: float, last: float, part: float) -> float:
    """From `first` (part 0) to `last` (part 1) along half a cosine."""
    return last + (first - last) * (1 + cos(pi * part)) / 2


DECAYS: Table[Callable[..., Rates]] = Table("decay", constant, step, cosine, one_cycle)
"""`function(largest, total_steps, steps_per_epoch, /, *, settings) -> Rates`."""


def learning_rates(train: Train, steps_per_epoch: int) -> Rates:
    """The recipe's learning rate: the decay's, multiplied during warm-up by a ramp that reaches 1 with its last step.

    The decay counts from the first step, so that its milestones stay where the recipe puts them.
    """
    total = train.epochs * steps_per_epoch
    decay = DECAYS.bind(train.decay.name, train.decay.settings)(train.learning_rate, total, steps_per_epoch)
    warmup = round(train.warmup_epochs * steps_per_epoch)
    return lambda number: decay(number) * (min(1.0, (number + 1) / warmup) if warmup else 1.0)
