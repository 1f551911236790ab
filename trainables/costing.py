"""What a plan will do and cost, before any of it is trained: reachable or not, when it prunes, training MACs."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import nn

from spaces.path import Path
from spaces.plan import Model, Plan, Prune
from trainables.data.outline import outline
from trainables.foresight import foreseen
from trainables.models import InputShape, build_dense
from trainables.pruning.graph import Traced, trace
from trainables.pruning.selection import smallest, widths_of
from trainables.pruning.size import prunable
from trainables.pruning.weights import Pattern, fewest_left, weight_groups
from trainables.resolve import plugins_of, resolve
from trainables.schedules import moments_of


@dataclass(frozen=True)
class Network:
    """The dense network of a plan, traced once; what amounts are fractions of."""

    model: Model
    shape: InputShape

    @cached_property
    def traced(self) -> Traced:
        """Groups and costs, from one pass that touches no weight."""
        network = self._built()
        image = torch.zeros(1, self.shape.channels, self.shape.height, self.shape.width)
        return trace(network.eval(), image)

    def _built(self) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            return build_dense(self.model, self.shape)

    @cached_property
    def macs(self) -> int:
        """Of one sample's forward pass."""
        return self.traced.costs.macs()

    @cached_property
    def params(self) -> int:
        """All parameters."""
        return self.traced.costs.params()

    def least_keep(self, prune: Prune) -> float:
        """The smallest amount that can be reached, in the plan's own unit; 0 where it is a count per event."""
        if prune.granularity == "weights":
            return self._least_weights(prune)
        groups = prunable(self.traced.graph.groups, prune)
        if not groups:
            return 1.0
        if prune.amount.keep_channels is not None:
            floors = sum(group.filters * widths_of(group, prune.width_multiple)[-1] for group in groups.values())
            return floors / sum(group.filters * group.channels for group in groups.values())
        if prune.amount.filters_per_event is not None:
            return 0.0
        return smallest(groups, self.traced.costs, prune.width_multiple) / self.macs

    def _least_weights(self, prune: Prune) -> float:
        network = self._built()
        groups = prunable(weight_groups(network, {}), prune)
        if not groups:
            return 1.0
        pattern = None if prune.pattern is None else Pattern.read(prune.pattern)
        return fewest_left(network, groups, pattern) / sum(group.channels for group in groups.values())


class Costing:
    """Answers about many plans of one study; what they have in common is built once."""

    def __init__(self) -> None:
        self._networks: dict[str, Network] = {}
        self._outlines: dict[str, tuple[InputShape, int]] = {}
        self._least: dict[tuple[str, str], float] = {}
        self._resolved: set[str] = set()  # functions of the user's own, with their settings

    def network(self, plan: Plan) -> Network:
        """The plan's dense network."""
        name = plan.model.model_dump_json() + plan.data.model_dump_json()
        if name not in self._networks:
            self._networks[name] = Network(plan.model, self._outline(plan)[0])
        return self._networks[name]

    def problem(self, plan: Plan) -> str | None:
        """Why the plan must not be proposed: it has no event, or its amount cannot be reached. None if it may.

        Raises UserError where a function of the user's own cannot be had.
        """
        self._resolve(plan)
        if plan.prune is None:
            return None
        if not moments_of(plan):
            return f"schedule '{plan.prune.schedule.name}' has no event in {plan.train.epochs} epochs"
        keep = _keep(plan.prune)
        least = self._least_keep(plan, plan.prune)
        if keep is not None and keep < least:
            return f"keeping {keep:g} is out of reach: with every layer at its floor {least:.4g} is left"
        return None if least < 1.0 else "no layer of this network may be pruned"

    def _resolve(self, plan: Plan) -> None:
        own = {plugin.model_dump_json() for _, plugin in plugins_of(plan) if plugin.is_users_own}
        if not own <= self._resolved:
            resolve(plan)
            self._resolved |= own

    def path(self, plan: Plan) -> Path:
        """The boundaries that the plan will pass, and what training from each to the next takes."""
        return foreseen(plan, epoch_macs=3 * self.network(plan).macs * self._outline(plan)[1])

    def measuring_macs(self, plan: Plan) -> int:
        """MACs of the passes that measure utilization ratios at the plan's end; 0 where none are asked for."""
        wanted, share = plan.utilization, plan.data.validation
        if wanted is None:
            return 0
        held = share if share >= 1 else self._outline(plan)[1] * share / (1 - share)
        images = min(wanted.samples or held, held)
        network = self.network(plan)
        return round(images * (1 + wanted.repeats * len(network.traced.graph.groups))) * network.macs

    def _outline(self, plan: Plan) -> tuple[InputShape, int]:
        name = plan.data.model_dump_json()
        if name not in self._outlines:
            self._outlines[name] = outline(plan.data)
        return self._outlines[name]

    def _least_keep(self, plan: Plan, prune: Prune) -> float:
        unit = next(unit for unit, value in prune.amount if value is not None)
        name = (plan.model.model_dump_json(), f"{unit} {prune.width_multiple} {prune.pattern} {prune.protect}")
        if name not in self._least:
            self._least[name] = self.network(plan).least_keep(prune)
        return self._least[name]


def _keep(prune: Prune) -> float | None:
    amount = prune.amount
    return next((k for k in (amount.keep_macs, amount.keep_channels, amount.keep_weights) if k is not None), None)
