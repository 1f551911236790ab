"""Pressure that grows on the channels that are going to be removed."""

from collections.abc import Iterator
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from trainables.criteria.members import channelwise
from trainables.pruning.groups import Slice
from trainables.pruning.pressure import Kept, State, View
from trainables.regularizers.regularizer import Regularizer

MEMORY = 0.9  # of the running mean of the ratio
Steps = Annotated[int, Field(ge=1)]


def greg(
    *,
    increase: Annotated[float, Field(gt=0.0)] = 1e-4,
    interval: Steps = 10,
    limit: Annotated[float, Field(gt=0.0)] = 1.0,
    ratio: Annotated[float, Field(gt=1.0)] = 1000.0,
    hold: Annotated[int, Field(ge=0)] = 10_000,
) -> Regularizer:
    """Growing L2 on the channels chosen up front (GReg-1, Wang et al. 2021): strength * w on their gradient.

    Chosen are those that the next event would take if it came at the start. Every `interval` steps the strength rises
    by `increase`, until it is past `limit` or, in every group, the running mean of mean |kept| / mean |going| is past
    `ratio`. After `hold` more steps it is finished. The defaults are the authors' for CIFAR-10: up to 110,000 steps.
    """

    def init(view: View) -> State:
        goes = {name: torch.ones(group.channels, dtype=torch.bool) for name, group in view.groups.items()}
        for name, kept in view.ahead().items():
            goes[name][kept.cpu()] = False
        state = {f"goes/{name}": own.to(view.device) for name, own in goes.items()}
        state |= {f"ratio.{name}": torch.ones((), dtype=torch.float64) for name, own in goes.items() if bool(own.any())}
        counters = {name: torch.zeros((), dtype=torch.int64) for name in ("steps", "held")}
        return state | counters | {"strength": torch.zeros((), dtype=torch.float64)}

    def step(view: View, state: State) -> None:
        state["steps"] += 1
        if _is_grown(state, limit, ratio):
            state["held"] += 1
        elif int(state["steps"]) % interval == 0:
            state["strength"] += increase
            _look(view, state)
        strength = float(state["strength"])
        with torch.no_grad():
            for name, piece, weight in _filters(view):
                if weight.grad is not None:
                    rows = piece.positions.to(weight.device)[state[f"goes/{name}"]].flatten()
                    along, gradient = weight.movedim(piece.dim, 0), weight.grad.movedim(piece.dim, 0)
                    gradient[rows] += strength * along[rows]

    def finished(state: State) -> bool:
        return bool(state) and _is_grown(state, limit, ratio) and int(state["held"]) >= hold

    return Regularizer(init, step, finished=finished, kept=_kept)


def _is_grown(state: State, limit: float, ratio: float) -> bool:
    ratios = [float(value) for path, value in state.items() if path.startswith("ratio.")]
    return float(state["strength"]) > limit or all(value > ratio for value in ratios)


def _look(view: View, state: State) -> None:
    """Renew the running means of how much larger the kept weights are."""
    sizes: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for name, piece, weight in _filters(view):
        goes = state[f"goes/{name}"]
        if bool(goes.any()):
            each = channelwise(weight.detach(), piece).abs().double()
            sizes.setdefault(name, []).append((each[~goes].mean(), each[goes].mean()))
    for name, members in sizes.items():
        kept, going = (sum(float(pair[side]) for pair in members) for side in (0, 1))
        state[f"ratio.{name}"].mul_(MEMORY).add_((1 - MEMORY) * kept / max(going, 1e-30))


def _filters(view: View) -> Iterator[tuple[str, Slice, Tensor]]:
    for name, group in view.groups.items():
        for piece in group.slices:
            if piece.role == "out":
                weight = view.model.get_parameter(piece.tensor)
                if weight.dim() > 1:
                    yield name, piece, weight


def _kept(state: State) -> Kept:
    goes = {path.partition("/")[2]: value for path, value in state.items() if path.startswith("goes/")}
    return {name: (~own).nonzero()[:, 0].cpu() for name, own in goes.items()}
