"""How large a network is, at first and as it stands: MACs, parameters, filters, single weights, and their norm."""

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import sqrt

import torch
from torch import Tensor, nn

from spaces.plan import Prune
from trainables.pruning.costs import Costs
from trainables.pruning.graph import trace
from trainables.pruning.groups import Group, Groups
from trainables.pruning.weights import Masks, masked_out, weights_of


@dataclass(frozen=True)
class Dense:
    """The network before any event: what amounts are fractions of."""

    macs: int  # of one sample
    params: int
    widths: dict[str, int]  # by group
    filters: int  # in the groups that may be pruned
    weights: int  # in the layers whose single weights may be masked


@dataclass(frozen=True)
class Weights:
    """How many weights are alive, biases and norms included, and their norm in double precision."""

    count: int
    norm: float

    def removed_since(self, before: "Weights") -> float:
        """The fraction of the weights that an event has taken."""
        return 1.0 - self.count / before.count

    def norm_ratio_to(self, before: "Weights") -> float:
        """The norm of what an event has taken over the norm of all."""
        return sqrt(max(before.norm**2 - self.norm**2, 0.0)) / max(before.norm, 1e-12)


def measure_weights(model: nn.Module, masks: Masks) -> Weights:
    """The weights as they stand."""
    with torch.no_grad():
        square = sum(float(parameter.double().pow(2).sum()) for parameter in model.parameters())
    count = sum(parameter.numel() for parameter in model.parameters()) - masked_out(masks)
    return Weights(count, square**0.5)


def measure_dense(model: nn.Module, example: Tensor, prune: Prune | None) -> tuple[Dense, Costs]:
    """The dense network's costs and widths; no group is left out of the MACs, protected ones are of the filters."""
    traced = trace(model, example)
    groups = prunable(traced.graph.groups, prune)
    dense = Dense(
        macs=traced.costs.macs(),
        params=sum(parameter.numel() for parameter in model.parameters()),
        widths={name: group.channels for name, group in traced.graph.groups.items()},
        filters=sum(group.filters * group.channels for group in groups.values()),
        weights=alive_weights(model, {}, prune),
    )
    return dense, traced.costs


def prunable(groups: Groups, prune: Prune | None) -> dict[str, Group]:
    """The groups that the plan does not protect by a pattern over their producers' names."""
    return {name: group for name, group in groups.items() if not _is_protected(group.producers, prune)}


def _is_protected(modules: Iterable[str], prune: Prune | None) -> bool:
    patterns = prune.protect if prune is not None else ()
    return any(fnmatchcase(module, pattern) for module in modules for pattern in patterns)


def alive_weights(model: nn.Module, masks: Masks, prune: Prune | None) -> int:
    """How many single weights of the layers that the plan does not protect are there, and not masked."""
    return sum(
        int(masks[name].sum()) if name in masks else weight.numel()
        for name, weight in weights_of(model)
        if not _is_protected([name.rpartition(".")[0]], prune)
    )


def size_of(model: nn.Module, masks: Masks, costs: Costs, dense: Dense, prune: Prune | None) -> dict[str, int | float]:
    """What the network is and costs as it stands, against the dense one."""
    params, macs = sum(parameter.numel() for parameter in model.parameters()), costs.macs()
    return {
        "macs": macs,
        "keep_macs": macs / dense.macs,
        "params": params,
        "keep_params": params / dense.params,
        "nonzero_params": params - masked_out(masks),
        "keep_weights": alive_weights(model, masks, prune) / dense.weights,
    }
