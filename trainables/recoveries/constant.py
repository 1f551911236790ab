"""Recoveries without a shape of their own: go on as planned, or hold one learning rate."""

from typing import Annotated

from pydantic import Field

from trainables.recoveries.retraining import Rates, Retraining


def continue_(retraining: Retraining, /) -> Rates:
    """The recipe's learning rate goes on as if nothing had happened (FRS, PaT)."""
    return retraining.original


def constant(retraining: Retraining, /, *, peak: Annotated[float, Field(gt=0.0, le=1.0)] = 0.01) -> Rates:
    """One learning rate to the end, `peak` times the recipe's largest: classic fine-tuning (FT)."""
    rate = peak * retraining.largest
    return lambda step: rate
