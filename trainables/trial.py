"""One trial, epoch by epoch: train, fire the events that are due, evaluate, and save boundaries.

A trial is a chain of boundaries named by key. It starts from the deepest one that the store holds, so that resuming,
forking from another trial and recovering from a dead node are one mechanism. Everything random is seeded anew at each
epoch and each event; hence forked = straight = resumed, bit for bit on a CPU.

Does NOT cover what happens in an epoch (`training`) or at an event (`events`).
"""

import time
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spaces.plan import Plan, Utilization
from trainables import checkpoint, keys
from trainables.acting import Acting
from trainables.chain import Chain
from trainables.checkpoint import DamagedCheckpoint, Progress
from trainables.data import Splits, load_data
from trainables.events import Events
from trainables.models import InputShape, build_model
from trainables.pruning.costs import Costs
from trainables.pruning.graph import trace
from trainables.pruning.pressure import View
from trainables.pruning.removal import Removal, compose
from trainables.pruning.size import Dense, measure_dense, size_of
from trainables.schedules import Moment
from trainables.seeds import generator, reseed
from trainables.store import StageStore, Worth
from trainables.training import (
    evaluate,
    loss_of,
    make_optimizer,
    placed,
    prepared,
    recalibrate,
    require_finite,
    set_numerics,
    train_epoch,
)
from trainables.utilization import described, ratios_of

Metrics = dict[str, Any]


class Trial:
    """The run of one plan. Call `step` until `done`; each step is one epoch with the events before and after it."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    progress: Progress
    inherited_epochs: int  # that the store had, and this run did not train
    executed_macs: int  # training MACs of this run
    _dense: Dense
    _costs: Costs
    _widths: dict[str, int]
    _removal: Removal
    _acting: Acting
    _events: Events

    def __init__(
        self,
        plan: Plan,
        *,
        store: StageStore | None = None,
        device: str = "cpu",
        saves: Collection[int] = (),
        splits: Splits | None = None,
    ) -> None:
        """`saves`: epoch counts after which the boundary is saved for others; `splits`: data loaded before."""
        set_numerics(plan.train)
        self.plan, self.store, self.device = plan, store, torch.device(device)
        self._seed = plan.train.seed
        self._saves = frozenset(saves)
        self._splits = splits if splits is not None else load_data(plan.data, device=self.device)
        self.shape = InputShape(*self._splits.shape, self._splits.num_classes)
        self._chain = Chain(plan, -(-len(self._splits.train) // plan.train.batch_size))
        self._loss = loss_of(plan.train)
        self._saved_at = time.monotonic()
        self._restart_key: str | None = None  # of the boundary that a restart would begin at, where it is stored
        self._build()
        self._begin_at_deepest()

    @property
    def done(self) -> bool:
        """Whether the last epoch and the last event lie behind."""
        return self.progress.epochs >= self.plan.train.epochs and not self._event_is_due()

    def step(self) -> Metrics:
        """Train one epoch, with the events that are due before and after it; returns the epoch's metrics.

        A trial found finished in the store answers with what was measured then.
        """
        started = time.monotonic()
        if self.done:
            return self._report(self.progress.metrics, started)
        self._fire_due()  # events before training, and those that a kill left undone
        epoch = self.progress.epochs
        loss, rate = self._train(epoch) if epoch < self.plan.train.epochs else (None, None)
        if self.progress.epochs in self._saves and not self.done:
            self._save()
        self._fire_due()
        self.progress = replace(self.progress, metrics=self._measure(loss, rate))
        if self.done or time.monotonic() - self._saved_at >= 60.0 * self.plan.train.checkpoint_minutes:
            self._save()
        return self._report(self.progress.metrics, started)

    def catch_up(self) -> Metrics:
        """The metrics of the epoch that it begins after, for whoever was not told: no epoch is trained.

        Events that are due there are fired first, as `step` would have.
        """
        started = time.monotonic()
        self._fire_due()
        self.progress = replace(self.progress, metrics=self._measure(None, None))
        return self._report(self.progress.metrics, started)

    def _train(self, epoch: int) -> tuple[float, float]:
        """One epoch of training; returns its mean loss and its last learning rate."""
        plan = self.plan
        rates = self._chain.rates(self.progress)
        view = self._view()
        if view is not None:
            self._acting.begin(view)
        order = reseed(self._seed, "epoch", epoch)
        result = train_epoch(
            self.model,
            self._splits.train,
            self.optimizer,
            rates,
            train=plan.train,
            augment=plan.data.augment,
            generator=order,
            epoch=epoch,
            beside=self._acting.beside(view, self.model, self.optimizer),
        )
        self._spend(3 * self._costs.macs() * result.samples)
        self.progress = replace(self.progress, epochs=epoch + 1, key=self._chain.after_epoch(self.progress))
        self._events.ask(self.progress)
        return result.loss, rates[-1]

    # ---- events -------------------------------------------------------------------------------------------------

    def _event_is_due(self) -> bool:
        left = self._chain.moments[self.progress.events :]
        return bool(left) and self._acting.is_ready(left[0], self.progress.epochs)

    def _fire_due(self) -> None:
        """Fire the events that are due at this boundary; each one is saved before anything follows it.

        The trial's last boundary is saved by `step`, with its metrics.
        """
        while self._event_is_due():
            self._fire(self._chain.moments[self.progress.events])
            if not self.done:
                self._save()

    def _fire(self, moment: Moment) -> None:
        prune, event = self.plan.prune, self.progress.events
        assert prune is not None, "moments come from a plan that prunes"
        result = self._events.fire(self.progress, moment, self._costs)
        self._removal = compose(self._removal, result.removal)
        self._costs = result.costs
        self._widths = result.widths
        self._spend(result.charged_macs, inherited=result.inherited_macs)
        self.progress = replace(
            self.progress,
            events=event + 1,
            key=self._chain.after_event(self.progress.key, event),
            events_at=(*self.progress.events_at, self.progress.epochs),
            removed_fraction=result.removed_fraction,
            norm_ratio=result.norm_ratio,
            streams_cut=self.progress.streams_cut + result.streams_cut,
        )
        if prune.recalibrate_batches:
            order = generator(self._seed, "bn", event)
            with self._acting.forward(self._view()):
                samples = recalibrate(self.model, self._splits.train, prune.recalibrate_batches, self.plan.train, order)
            self._spend(self._costs.macs() * samples)

    def _view(self) -> View | None:
        """What a regularizer or a gate sees from here to the next event; None where neither acts."""
        return self._events.pressing(self.progress)

    # ---- the chain ----------------------------------------------------------------------------------------------

    def _begin_at_deepest(self) -> None:
        """Go on from the deepest boundary of this plan that the store holds and that proves sound."""
        found: checkpoint.Checkpoint | None = None
        while self.store is not None:
            stored = self.store.deepest(boundary.key for boundary in self._chain.ahead(self.progress))
            if stored is None:
                break
            folder = self.store.fetch(stored)
            if folder is None:  # damaged, say: the next look finds another
                continue
            try:
                found = checkpoint.read(folder)
                self.progress = found.progress
            except DamagedCheckpoint:
                self.store.discard(stored)  # computed again rather than trusted
        if found is not None:
            self._restore(found)
        self.inherited_epochs = self.progress.epochs

    def _restore(self, saved: checkpoint.Checkpoint) -> None:
        """Take up a stored boundary; a damaged one is discarded, and the search for the deepest begins again."""
        assert self.store is not None
        try:
            checkpoint.restore(saved, self.model, self.optimizer)
            acting = checkpoint.acting_tensors(saved)
            self._acting.take_up(acting, self.model, saved.widths, saved.progress.events)
        except (DamagedCheckpoint, ValueError):
            self.store.discard(self.progress.key)
            self._build()
            self._begin_at_deepest()
            return
        self._removal, self._widths = saved.removal, saved.widths
        self._costs = trace(self.model, self._example(), dense=self._dense.widths).costs
        self._restart_key = self.progress.key
        self.store.began_at(self._restart_key)

    def _save(self) -> int | None:
        """Publish this boundary in the store; returns the bytes of its files, None where it is not stored."""
        if self.store is None:
            return None
        progress = self.progress
        worth = Worth(macs=progress.training_macs, epochs=progress.epochs, is_end=self.done)
        folder = self.store.put(progress.key, self._write, worth=worth, after=self._restart_key)
        self._saved_at = time.monotonic()
        if folder is None:
            return None
        self._restart_key = progress.key
        return sum(path.stat().st_size for path in folder.iterdir())

    def _write(self, folder: Path) -> None:
        checkpoint.save(
            folder,
            self.model,
            self.optimizer,
            plan=self.plan,
            shape=self.shape,
            removal=self._removal,
            widths=self._widths,
            progress=self.progress,
            acting=self._acting.tensors(),
        )

    # ---- the network and what it costs --------------------------------------------------------------------------

    def _build(self) -> None:
        """The dense network at boundary 0 and its optimizer."""
        plan = self.plan
        reseed(self._seed, "weights")
        self.model = placed(build_model(plan.model, self.shape), plan.train, self.device)
        self.optimizer = make_optimizer(self.model, plan.train)
        self._dense, self._costs = measure_dense(self.model, self._example(), plan.prune)
        self._widths, self._removal = dict(self._dense.widths), Removal()
        self._acting = Acting(plan.prune, self._chain.moments)
        self._events = Events(
            plan,
            self.model,
            self.optimizer,
            moments=self._chain.moments,
            dense=self._dense,
            splits=self._splits,
            example=self._example(),
            acting=self._acting,
            store=self.store,
            spend=self._spend,
        )
        self.executed_macs = 0
        first = keys.origin(plan, data_fingerprint=self._splits.fingerprint, device_type=self.device.type)
        self.progress = Progress.at_start(first)

    def _example(self) -> Tensor:
        """One image-shaped input for tracing and checking."""
        fixed = torch.Generator().manual_seed(0)
        image = torch.randn(1, *self._splits.shape, generator=fixed)
        return prepared(image.to(self.device), self.plan.train)

    def _spend(self, macs: int, *, inherited: int = 0) -> None:
        """Charge training MACs to the trial; those inherited were executed by another."""
        self.executed_macs += macs - inherited
        self.progress = replace(self.progress, training_macs=self.progress.training_macs + macs)

    def _measure(self, train_loss: float | None, rate: float | None) -> Metrics:
        """What is measured at the end of an epoch; the same for every way to this boundary."""
        with self._acting.forward(self._view()):
            accuracy, loss = evaluate(self.model, self._splits.validation, self.plan.train, self._loss)
        require_finite(loss, "validation loss", epoch=max(self.progress.epochs - 1, 0))
        learned = {"accuracy": accuracy, "loss": loss, "train_loss": train_loss, "learning_rate": rate}
        size = size_of(self.model, self._acting.masks, self._costs, self._dense, self.plan.prune)
        return {
            "epoch": self.progress.epochs,
            **learned,
            **size,
            "events": self.progress.events,
            "validation_images": len(self._splits.validation),
            "streams_cut": self.progress.streams_cut,
            "training_macs_alone": self.progress.training_macs,
        }

    def _with_utilization(self, metrics: Metrics, wanted: Utilization) -> Metrics:
        """The last metrics with the ratio of every channel group; how it is measured shapes no boundary."""
        network = trace(self.model, self._example())
        probe = self._events.probe_at_end(self.progress, network)
        measured = described(network, ratios_of(probe, network, wanted, epoch=self.progress.epochs))
        self.executed_macs += probe.charged_macs - probe.inherited_macs
        alone = metrics["training_macs_alone"] + probe.charged_macs
        return {**metrics, "training_macs_alone": alone, "utilization": measured}

    def _report(self, metrics: Metrics, started: float) -> Metrics:
        """The measured metrics with what this run of the trial spent on them."""
        if self.done and self.plan.utilization is not None:
            metrics = self._with_utilization(metrics, self.plan.utilization)
        report = {
            **metrics,
            "training_macs": self.executed_macs,
            "inherited_epochs": self.inherited_epochs,
            "seconds": time.monotonic() - started,
        }
        if self.done and (stored := self._save()) is not None:
            report["checkpoint"] = self.progress.key
            report["checkpoint_bytes"] = stored
        if self.store is not None and self.store.problem is not None:
            report["not_saved"] = self.store.problem
        return report


def run_trial(
    plan: Plan, *, store: StageStore | None = None, report: Callable[[Metrics], None], device: str = "cpu"
) -> Metrics:
    """Run a plan to its end, reporting after every epoch; returns the last epoch's metrics, never the best."""
    trial = Trial(plan, store=store, device=device)
    metrics: Metrics = {}
    while True:
        metrics = trial.step()
        report(metrics)
        if trial.done:
            return metrics
