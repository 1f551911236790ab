"""The events of one trial: what may be looked at before them, when they fire and at the end, and what each cuts.

Does NOT cover when they come (`acting`), nor how one selects and cuts (`pruning.event`, `pruning.sparse`).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from spaces.plan import Plan, Prune
from trainables.acting import Acting
from trainables.checkpoint import Progress
from trainables.data import Splits
from trainables.findings import Findings
from trainables.pruning.costs import Costs
from trainables.pruning.event import EventResult, fire, look_ahead
from trainables.pruning.goal import keep_after, left_of
from trainables.pruning.graph import Traced, trace
from trainables.pruning.groups import Group
from trainables.pruning.pressure import Kept, View
from trainables.pruning.probe import Probe
from trainables.pruning.size import Dense, prunable
from trainables.pruning.sparse import fire_weights
from trainables.schedules import Moment
from trainables.seeds import generator, reseed
from trainables.store import StageStore
from trainables.training import loss_of, prepared


class Events:
    """What a plan's `moments` do to one network. `spend` is told the training MACs of looks between the events."""

    def __init__(
        self,
        plan: Plan,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        moments: Sequence[Moment],
        dense: Dense,
        splits: Splits,
        example: Tensor,
        acting: Acting,
        store: StageStore | None,
        spend: Callable[[int], None],
    ) -> None:
        self._plan, self._moments = plan, moments
        self._model, self._optimizer = model, optimizer
        self._dense, self._splits, self._example = dense, splits, example
        self._acting, self._store, self._spend = acting, store, spend
        self._loss = loss_of(plan.train)
        self._seen: tuple[int, View] | None = None  # how many events it has behind it, and what is seen from there

    def ask(self, progress: Progress) -> None:
        """Let a schedule that waits look, once at the end of an epoch."""
        if self._acting.waits(progress.epochs, progress.events):
            reseed(self._plan.train.seed, "look", progress.epochs)
            self._acting.ask(progress.epochs, progress.events, lambda: self.view(progress))

    def pressing(self, progress: Progress) -> View | None:
        """What a regularizer or a gate sees from here to the next event; None where neither acts."""
        return self.view(progress) if self._acting.presses(progress.epochs, progress.events) else None

    def view(self, progress: Progress) -> View:
        """What is seen from here to the next event."""
        prune, event = self._plan.prune, progress.events
        assert prune is not None, "moments come from a plan that prunes"
        if self._seen is None or self._seen[0] != event:
            traced = trace(self._model, self._example, dense=self._dense.widths)
            groups = prunable(traced.graph.groups, prune)
            view = View(
                self._model,
                groups,
                left=left_of(prune, self._dense, groups, traced.costs),
                keep=keep_after(prune, self._moments[event], self._dense, groups),
                ahead=dict,
            )
            self._seen = event, view
        return replace(self._seen[1], ahead=partial(self._look_ahead, prune, progress))

    def fire(self, progress: Progress, moment: Moment, costs: Costs) -> EventResult:
        """The event that is next: channels are removed or weights masked, as the plan says."""
        prune = self._plan.prune
        assert prune is not None, "moments come from a plan that prunes"
        reseed(self._plan.train.seed, "event", progress.events)
        if prune.granularity == "channels":
            result = fire(
                self._model,
                self._optimizer,
                self._example,
                prune=prune,
                moment=moment,
                dense=self._dense,
                probe=partial(self._probe, progress, self._findings(prune, progress)),
                epoch=progress.epochs,
                chosen=self._acting.chosen(),
            )
        else:
            result = fire_weights(
                self._model,
                self._optimizer,
                prune=prune,
                moment=moment,
                dense=self._dense,
                costs=costs,
                masks=self._acting.masks,
                probe=partial(self._probe, progress, self._findings(prune, progress)),
                epoch=progress.epochs,
                progress=progress.epochs / self._plan.train.epochs,
            )
        self._acting.after_event(result.kept, result.masks, progress.events + 1)
        return result

    def probe_at_end(self, progress: Progress, network: Traced) -> Probe:
        """What may be looked at once training is over: validation data, which training never saw."""
        return Probe(
            model=self._model,
            groups=network.graph.groups,
            loss=self._loss,
            num_classes=self._splits.num_classes,
            batches=self._validation_batches,
            generator=generator(self._plan.train.seed, "utilization"),
            forward_macs=network.costs.macs(),
            findings=Findings(self._store, [progress.key, "end", self._plan.train.loss.model_dump(mode="json")]),
        )

    def _look_ahead(self, prune: Prune, progress: Progress) -> Kept:
        looked = look_ahead(
            self._model,
            self._example,
            prune=prune,
            moment=self._moments[progress.events],
            dense=self._dense,
            probe=partial(self._probe, progress, Findings()),  # a regularizer may look in the middle of an epoch
            epoch=progress.epochs,
        )
        self._spend(looked.charged_macs)
        return looked.kept

    def _findings(self, prune: Prune, progress: Progress) -> Findings:
        """What is known of the network as it stands at this boundary."""
        loss = self._plan.train.loss.model_dump(mode="json")
        return Findings(self._store, [progress.key, progress.events, loss, list(prune.protect)])

    def _probe(self, progress: Progress, findings: Findings, groups: dict[str, Group], forward_macs: int) -> Probe:
        """What criterion and allocation may look at: training data in an order that depends on the event alone."""
        return Probe(
            model=self._model,
            groups=groups,
            loss=self._loss,
            num_classes=self._splits.num_classes,
            batches=partial(self._probe_batches, progress.events),
            generator=generator(self._plan.train.seed, "criterion", progress.events),
            forward_macs=forward_macs,
            gates=self._acting.scores(self.pressing(progress)),
            findings=findings,
        )

    def _probe_batches(self, event: int, samples: int, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        order = generator(self._plan.train.seed, "probe", event)
        for images, labels in self._splits.train.sample(samples, batch_size, order):
            yield prepared(images, self._plan.train), labels

    def _validation_batches(self, samples: int, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        order = generator(self._plan.train.seed, "probe", "validation")
        for images, labels in self._splits.validation.sample(samples, batch_size, order):
            yield prepared(images, self._plan.train), labels
