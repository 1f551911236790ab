"""Schedules that wait: when an event comes depends on how training went."""

from typing import Annotated

from pydantic import Field

from trainables.schedules.moments import Moment, Standing, moments


def when_finished(
    epochs: int,
    sparsity: float,
    /,
    *,
    start: Annotated[int, Field(ge=0)] = 0,
    until: Annotated[int, Field(ge=1)] | None = None,
) -> tuple[Moment, ...]:
    """One event, as soon after `start` epochs as the regularizer has finished, at the latest after epoch `until`.

    `until` null: at half time (GReg, Wang et al. 2021, prunes when its regularizer is done).
    """
    latest = moments(epochs, [epochs // 2 - 1 if until is None else until], [sparsity])
    return tuple(Moment(one.epoch, one.sparsity, min(start - 1, one.epoch), _finished) for one in latest)


def _finished(standing: Standing) -> bool:
    return standing.finished
