"""A plan's chain of boundaries: which come next, their keys, and the learning rates of the epochs between them.

Does NOT cover the network: what depends on it (damage, whether a waiting event came) is in a trial's progress.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from spaces.plan import Plan
from trainables import keys
from trainables.acting import values_of
from trainables.checkpoint import Progress
from trainables.recoveries import RECOVERIES, Damage, Retraining
from trainables.schedules import Moment, moments_of
from trainables.training import learning_rates


@dataclass(frozen=True)
class Boundary:
    """A place in the chain: how many epochs and events lie before it, and its key."""

    epochs: int
    events: int
    key: str


class Chain:
    """The boundaries of one plan, whose epochs have `steps_per_epoch` steps."""

    def __init__(self, plan: Plan, steps_per_epoch: int) -> None:
        self.moments: tuple[Moment, ...] = moments_of(plan)
        self._plan, self._steps_per_epoch = plan, steps_per_epoch
        self._original = learning_rates(plan.train, steps_per_epoch)

    def ahead(self, progress: Progress) -> Iterator[Boundary]:
        """The boundaries that follow, up to and including the next event: past it, rates may depend on its damage."""
        epochs, events, key = progress.epochs, progress.events, progress.key
        while True:
            if events < len(self.moments) and self.moments[events].may_come(epochs):
                yield Boundary(epochs, events + 1, self.after_event(key, events))
                if self.moments[events].must_come(epochs):
                    return  # else only a trial that came by knows whether it was ready
            if epochs >= self._plan.train.epochs:
                return
            key = self.after_epoch(replace(progress, epochs=epochs, key=key))
            epochs += 1
            yield Boundary(epochs, events, key)

    def after_epoch(self, progress: Progress) -> str:
        """The key of the boundary at the end of the epoch that follows."""
        return keys.after_epoch(
            progress.key,
            self._plan.train,
            self._plan.data.augment,
            epoch=progress.epochs,
            rates=self.rates(progress),
            acting=values_of(self._plan.prune, self.moments, progress.epochs, progress.events),
        )

    def after_event(self, key: str, event: int) -> str:
        """The key of the boundary right after event number `event`."""
        train, prune = self._plan.train, self._plan.prune
        assert prune is not None, "only a plan that prunes has events"
        loss = train.loss.model_dump(mode="json")
        return keys.after_event(key, prune, self.moments[event], event=event, loss=loss, epochs=train.epochs)

    def rates(self, progress: Progress) -> list[float]:
        """The learning rate of every step of the epoch that follows: the recipe's, or the recovery's after an event."""
        steps = range(progress.epochs * self._steps_per_epoch, (progress.epochs + 1) * self._steps_per_epoch)
        rate = self._original
        if progress.events:
            recovery = RECOVERIES.bind(self._plan.recover.name, self._plan.recover.settings)
            rate = recovery(self._retraining(progress))
        return [rate(step) for step in steps]

    @cached_property
    def _extremes(self) -> tuple[float, float]:
        """The recipe's smallest and largest learning rate: asked for at every epoch, and a walk over every step."""
        rates = [self._original(step) for step in range(self._plan.train.epochs * self._steps_per_epoch)]
        return min(rates), max(rates)

    def _retraining(self, progress: Progress) -> Retraining:
        smallest, largest = self._extremes
        return Retraining(
            original=self._original,
            first_step=progress.events_at[-1] * self._steps_per_epoch,
            last_step=self._plan.train.epochs * self._steps_per_epoch,
            steps_per_epoch=self._steps_per_epoch,
            largest=largest,
            smallest=smallest,
            damage=Damage(removed_fraction=progress.removed_fraction, norm_ratio=progress.norm_ratio),
        )
