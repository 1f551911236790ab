"""When pruning events happen and how far each goes."""

from typing import Protocol

from spaces.plan import Plan
from trainables.schedules.growing import cubic, every, geometric, once
from trainables.schedules.moments import Moment, Ready, Standing
from trainables.schedules.waiting import when_finished, when_stable
from trainables.table import Table


class Schedule(Protocol):
    """The events of a training of `epochs` epochs that ends at `sparsity`, with no setting left open."""

    def __call__(self, epochs: int, sparsity: float, /) -> tuple[Moment, ...]:
        """In order; sparsities rise strictly and end at `sparsity`. Empty where no event fits."""
        ...


SCHEDULES: Table[Schedule] = Table("schedule", once, every, geometric, cubic, when_finished, when_stable)


def moments_of(plan: Plan) -> tuple[Moment, ...]:
    """The events of a plan; none for a dense one. Where events count filters, only their epochs mean something."""
    if plan.prune is None:
        return ()
    amount = plan.prune.amount
    keep = next(
        (value for value in (amount.keep_macs, amount.keep_channels, amount.keep_weights) if value is not None), 0.0
    )
    schedule = SCHEDULES.bind(plan.prune.schedule.name, plan.prune.schedule.settings)
    return schedule(plan.train.epochs, 1.0 - keep)


__all__ = ["SCHEDULES", "Moment", "Ready", "Schedule", "Standing", "moments_of"]
