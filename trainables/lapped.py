"""A trial that remembers what each of its boundaries took, for a record that others can be simulated from."""

import time
from collections.abc import Collection
from dataclasses import replace

from spaces.lap import Lap
from spaces.plan import Plan
from trainables.data import Splits
from trainables.schedules import Moment
from trainables.store import StageStore
from trainables.trial import Metrics, Trial

LEFT_OUT = ("epoch", "events", "training_macs_alone")  # of the metrics: laps say them anyway


class LappedTrial(Trial):
    """As a trial; `laps` holds what this run of it computed, boundary by boundary."""

    def __init__(
        self,
        plan: Plan,
        *,
        store: StageStore | None = None,
        device: str = "cpu",
        saves: Collection[int] = (),
        splits: Splits | None = None,
    ) -> None:
        """As a trial's."""
        super().__init__(plan, store=store, device=device, saves=saves, splits=splits)
        self.begin = self.progress  # the boundary that the laps start from
        self.laps: list[Lap] = []
        self._paid_macs, self._paid_seconds = self.progress.training_macs, time.process_time()

    @property
    def begins_anew(self) -> bool:
        """Whether nothing was inherited."""
        return self.begin.epochs == 0 and self.begin.events == 0

    def step(self) -> Metrics:
        """One epoch; evaluating it and saving it count for its last boundary."""
        metrics = super().step()
        if self.laps:
            last, seconds = self.laps[-1], self._seconds()
            self.laps[-1] = replace(last, seconds=last.seconds + seconds, metrics=_kept(self.progress.metrics))
        return metrics

    def _train(self, epoch: int) -> tuple[float, float]:
        result = super()._train(epoch)
        self._note()
        return result

    def _fire(self, moment: Moment) -> None:
        super()._fire(moment)
        self._note()
        # A trial that came here with the epoch before it would report it; one that was handed the boundary does not.
        self.laps[-1] = replace(self.laps[-1], metrics=_kept(self._measure(None, None)))

    def _note(self) -> None:
        progress = self.progress
        macs, self._paid_macs = progress.training_macs - self._paid_macs, progress.training_macs
        self.laps.append(Lap(progress.key, progress.epochs, progress.events, macs, self._seconds()))

    def _seconds(self) -> float:
        """CPU seconds since this was last asked."""
        before, self._paid_seconds = self._paid_seconds, time.process_time()
        return self._paid_seconds - before


def _kept(metrics: Metrics) -> Metrics:
    """What was measured, without what laps say anyway; the training loss is that of the epoch before an event."""
    return {name: value for name, value in metrics.items() if name not in LEFT_OUT and value is not None}
