"""Restarts: a short warm-up from zero to a peak, then down to the end of training."""

from collections.abc import Callable
from math import cos, pi, sqrt
from typing import Annotated

from pydantic import Field

from trainables.recoveries.retraining import Rates, Retraining

Peak = Annotated[float, Field(gt=0.0, le=1.0)]
WarmUp = Annotated[float, Field(ge=0.0, lt=1.0)]


def cosine(retraining: Retraining, /, *, peak: Peak = 1.0, warmup: WarmUp = 0.1) -> Rates:
    """Half a cosine from `peak` times the recipe's largest learning rate to its smallest (CLR, NPTM 2021).

    `warmup` is the fraction of the remaining steps that rises from 0 to the peak.
    """
    top = peak * retraining.largest
    end = min(retraining.smallest, top)
    return _restart(retraining, top, warmup, lambda done: end + (top - end) * (1 + cos(pi * done)) / 2)


def linear(retraining: Retraining, /, *, peak: Peak = 1.0, warmup: WarmUp = 0.1) -> Rates:
    """A straight line from `peak` times the recipe's largest learning rate to 0 (LLR, BIMP 2023)."""
    top = peak * retraining.largest
    return _restart(retraining, top, warmup, lambda done: top * (1 - done))


def damage_aware(retraining: Retraining, /, *, peak: Peak = 1.0, warmup: WarmUp = 0.1) -> Rates:
    """A straight line to 0 from a learning rate that grows with what was destroyed (ALLR, BIMP 2023).

    It starts at largest * (norm of the removed / norm of all) / sqrt(fraction removed), at least largest * (steps
    left / steps of the training) and at most largest, where largest is `peak` times the recipe's.
    """
    largest, damage = peak * retraining.largest, retraining.damage
    least = largest * min(retraining.steps / retraining.last_step, 1.0)
    scale = damage.norm_ratio / sqrt(damage.removed_fraction) if damage.removed_fraction > 0.0 else 0.0
    top = min(max(largest * scale, least), largest)
    return _restart(retraining, top, warmup, lambda done: top * (1 - done))


def _restart(retraining: Retraining, top: float, warmup: float, fall: Callable[[float], float]) -> Rates:
    """From 0 to `top` along half a cosine, then `fall` of the fraction done; its first step is at the top."""
    rising = int(warmup * retraining.steps)
    falling = retraining.steps - rising

    def rate(step: int) -> float:
        done = step - retraining.first_step
        if done < rising:
            return top * (1 - cos(pi * done / rising)) / 2
        return fall((done - rising) / falling)

    return rate
