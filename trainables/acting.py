"""What acts on a trial beside the training recipe: a regularizer, a gate, masks of single weights, a waiting schedule.

Its state is tensors by name, which a checkpoint holds beside the weights. What acts in an epoch is in the key of the
epoch's boundary, by value.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from spaces.plan import Prune
from trainables.gates import GATES, Gate
from trainables.keys import by_value
from trainables.pruning.gates import gated
from trainables.pruning.groups import Scores
from trainables.pruning.pressure import Kept, State, View, cut_state
from trainables.pruning.weights import Masks, enforce, hide_gradients
from trainables.regularizers import REGULARIZERS, Regularizer
from trainables.schedules import Moment, Standing
from trainables.training.loop import Beside

MASKS, REGULARIZER, GATE, SCHEDULE, READY = "masks/", "regularizer/", "gate/", "schedule/", "ready/"


class Acting:
    """What a plan lets act, and its state from one boundary to the next."""

    def __init__(self, prune: Prune | None, moments: Sequence[Moment]) -> None:
        self._prune, self._moments = prune, moments
        self._regularizer: Regularizer | None = _made(REGULARIZERS.bind, prune and prune.regularizer)
        self._gate: Gate | None = _made(GATES.bind, prune and prune.gate)
        self.masks: Masks = {}
        self._pressure: State = {}  # the regularizer's
        self._openings: State = {}  # the gate's
        self._memory: State = {}  # the waiting schedule's
        self._ready: State = {}  # what it last said: not empty where the event may come now

    def presses(self, epochs: int, events: int) -> bool:
        """Whether a regularizer or a gate acts after `epochs` epochs and `events` events."""
        return _presses(self._prune, self._moments, epochs, events)

    def begin(self, view: View) -> None:
        """Make the state of what acts and has none."""
        if self._regularizer is not None and not self._pressure:
            self._pressure = self._regularizer.init(view)
        if self._gate is not None and not self._openings:
            self._openings = self._gate.init(view)

    def beside(self, view: View | None, model: nn.Module, optimizer: torch.optim.Optimizer) -> Beside:
        """What the steps of the next epoch must do besides; `view` is None where nothing presses."""
        gradients: list[Callable[[], None]] = []
        weights: list[Callable[[], None]] = []
        penalties: list[Callable[[], Tensor]] = []
        if view is not None and self._regularizer is not None:
            regularizer = self._regularizer
            gradients.append(lambda: regularizer.step(view, self._pressure))
            if regularizer.penalty is not None:
                penalty = regularizer.penalty
                penalties.append(lambda: penalty(view, self._pressure))
        if view is not None and self._gate is not None:
            gate = self._gate
            weights.append(lambda: gate.step(view, self._openings))
            penalties.append(lambda: gate.penalty(view, self._openings))
        if self.masks:
            gradients.append(lambda: hide_gradients(model, self.masks))
            weights.append(lambda: enforce(model, self.masks, optimizer))
        return Beside(
            forward=lambda: self.forward(view),
            penalty=(lambda: torch.stack([penalty() for penalty in penalties]).sum()) if penalties else None,
            gradients=lambda: _each(gradients),
            weights=lambda: _each(weights),
        )

    def forward(self, view: View | None) -> AbstractContextManager[object]:
        """The context in which the network answers as it trains: with its gate, where one has begun."""
        if view is None or self._gate is None or not self._openings:
            return nullcontext()
        return gated(view.model, view.groups, self._gate.factors(view, self._openings), where="read")

    def scores(self, view: View | None) -> Scores:
        """What the gate says of each channel; empty without one."""
        if view is None or self._gate is None or not self._openings:
            return {}
        return self._gate.scores(view, self._openings)

    def chosen(self) -> Kept | None:
        """What the next event leaves, where the regularizer chose that before."""
        if self._regularizer is None or self._regularizer.kept is None or not self._pressure:
            return None
        return self._regularizer.kept(self._pressure)

    def is_ready(self, moment: Moment, epochs: int) -> bool:
        """Whether the event comes at this boundary."""
        return moment.must_come(epochs) or (moment.may_come(epochs) and bool(self._ready))

    def waits(self, epochs: int, events: int) -> bool:
        """Whether the schedule must be asked at the end of the epoch with which `epochs` are completed."""
        if events >= len(self._moments):
            return False
        moment = self._moments[events]
        return moment.ready is not None and epochs >= moment.ready.start and not moment.must_come(epochs)

    def ask(self, epochs: int, events: int, view: Callable[[], View]) -> None:
        """Ask the schedule, once at the end of an epoch, whether the event may come now."""
        ready = self._moments[events].ready
        assert ready is not None, "only a schedule that waits is asked"
        done = self._regularizer is not None and bool(self._pressure) and self._regularizer.finished(self._pressure)
        standing = Standing(epochs, done, view)
        self._memory = self._memory or ready.init(standing)
        self._ready = {"now": torch.ones(())} if ready.step(standing, self._memory) else {}

    def after_event(self, kept: Mapping[str, Tensor], masks: Masks, events: int) -> None:
        """What waits and what presses begins anew; a gate goes on with the channels left, to the last event."""
        self.masks, self._pressure, self._memory, self._ready = masks, {}, {}, {}
        self._openings = {} if events >= len(self._moments) else cut_state(self._openings, kept)

    def tensors(self) -> dict[str, Tensor]:
        """The state, by name; empty where nothing has one."""
        pressing = ((MASKS, self.masks), (REGULARIZER, self._pressure), (GATE, self._openings))
        parts = (*pressing, (SCHEDULE, self._memory), (READY, self._ready))
        return {prefix + name: tensor.detach() for prefix, state in parts for name, tensor in state.items()}

    def take_up(self, tensors: Mapping[str, Tensor], model: nn.Module, widths: Mapping[str, int], events: int) -> None:
        """Go on from a saved state. Raises ValueError where it does not fit the network at these widths of groups."""
        parameters = dict(model.named_parameters())
        device = next(iter(parameters.values())).device
        states: dict[str, State] = {MASKS: {}, REGULARIZER: {}, GATE: {}, SCHEDULE: {}, READY: {}}
        for path, tensor in tensors.items():
            kind, _, name = path.partition("/")
            if f"{kind}/" not in states:
                raise ValueError(f"'{path}' belongs to nothing that acts")
            on_cpu = tensor.dim() == 0 or f"{kind}/" == SCHEDULE
            states[f"{kind}/"][name] = tensor.to("cpu" if on_cpu else device)
        for name, mask in states[MASKS].items():
            if name not in parameters or mask.shape != parameters[name].shape or mask.dtype != torch.bool:
                raise ValueError(f"the mask of '{name}' is {mask.dtype} {tuple(mask.shape)} and fits no parameter")
        for path, tensor in (item for kind in (REGULARIZER, GATE) for item in states[kind].items()):
            group = path.partition("/")[2]
            if group and tuple(tensor.shape) != (widths.get(group),):
                raise ValueError(f"'{path}' is {tuple(tensor.shape)}; the group has {widths.get(group)} channels")
        if self._prune is not None and self._prune.granularity == "weights" and bool(states[MASKS]) != bool(events):
            raise ValueError(f"{len(states[MASKS])} masks after {events} events")
        self.masks, self._pressure, self._openings = states[MASKS], states[REGULARIZER], states[GATE]
        self._memory, self._ready = states[SCHEDULE], states[READY]


def _presses(prune: Prune | None, moments: Sequence[Moment], epochs: int, events: int) -> bool:
    if prune is None or (prune.regularizer is None and prune.gate is None):
        return False
    return epochs >= prune.pressure_start and events < len(moments)


def values_of(prune: Prune | None, moments: Sequence[Moment], epochs: int, events: int) -> dict[str, Any]:
    """What shapes the epoch that follows, by value; empty where the recipe alone does (masks are in event keys)."""
    if prune is None or events >= len(moments):
        return {}
    moment = moments[events]
    coming = [prune.model_dump(mode="json"), moment.epoch, moment.sparsity]
    values: dict[str, Any] = {}
    if moment.ready is not None and epochs + 1 >= moment.ready.start:
        values["waits"] = coming  # what the schedule saw, and that the event did not come yet, is part of the way
    if _presses(prune, moments, epochs, events):
        if prune.regularizer is not None:
            chooses = REGULARIZERS.bind(prune.regularizer.name, prune.regularizer.settings)().kept is not None
            values["regularizer"] = [by_value(prune.regularizer), list(prune.protect), coming if chooses else None]
        if prune.gate is not None:
            unit = [name for name, value in prune.amount if value is not None]
            values["gate"] = [by_value(prune.gate), list(prune.protect), unit, moment.sparsity]
    return values


def _made(bind: Callable[[str, dict[str, Any]], Callable[[], Any]], plugin: Any) -> Any:
    return None if plugin is None else bind(plugin.name, plugin.settings)()


def _each(actions: Sequence[Callable[[], None]]) -> None:
    for action in actions:
        action()
