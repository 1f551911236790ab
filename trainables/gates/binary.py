"""Gates that are open or shut in every forward pass."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from trainables.gates.gate import Gate
from trainables.pruning.groups import Scores
from trainables.pruning.pressure import Kept, State, View, along

DECAYS = (0.9, 0.999)  # Adam's, of the mean gradient and of its square
OPEN = 1.0  # the logit that every channel begins with


def straight_through(
    *,
    learning_rate: Annotated[float, Field(gt=0.0)] = 0.1,
    polarise: Annotated[float, Field(ge=0.0, description="weight of mean g (1 - g)")] = 3.0,
    pull: Annotated[float, Field(ge=0.0, description="weight of (what is left - keep)^2")] = 10.0,
    keep: Annotated[float, Field(gt=0.0, le=1.0)] | None = None,
) -> Gate:
    """One logit per channel: open where it is positive, and the gradient of its sigmoid g (Zhi et al. 2023).

    The same decision for every input. The loss gets polarise * mean g (1 - g) + pull * (left - keep)^2, where `left`
    is the fraction of the network at widths of sum g, in the unit of the plan's amount (the paper counts gates), and
    `keep` null is what the next event leaves. Logits learn by Adam without decay. The highest of a group is always
    open. Goes with the criterion `gate`.
    """

    def init(view: View) -> State:
        state: State = {"steps": torch.zeros((), dtype=torch.int64)}
        like = next(view.model.parameters())
        for name, group in view.groups.items():
            state[f"logit/{name}"] = like.detach().new_full((group.channels,), OPEN)
            for entry in ("mean", "square"):
                state[f"{entry}/{name}"] = torch.zeros_like(state[f"logit/{name}"])
        return state

    def factors(view: View, state: State) -> dict[str, Tensor]:
        found = {}
        for name, logit in _logits(view, state).items():
            soft = logit.sigmoid()
            found[name] = _open(logit).to(soft.dtype) + (soft - soft.detach())
        return found

    def penalty(view: View, state: State) -> Tensor:
        soft = {name: logit.double().sigmoid() for name, logit in _logits(view, state).items()}
        every = torch.cat(list(soft.values()))
        missed = view.left({name: own.sum() for name, own in soft.items()}) - (view.keep if keep is None else keep)
        total: Tensor = polarise * (every * (1 - every)).mean() + pull * missed**2
        return total

    def step(view: View, state: State) -> None:
        state["steps"] += 1
        steps = int(state["steps"])
        with torch.no_grad():
            for name, logit in _logits(view, state).items():
                gradient, logit.grad = logit.grad, None
                if gradient is not None:
                    mean, square = state[f"mean/{name}"], state[f"square/{name}"]
                    mean.lerp_(gradient, 1 - DECAYS[0])
                    square.lerp_(gradient.square(), 1 - DECAYS[1])
                    spread = (square / (1 - DECAYS[1] ** steps)).sqrt() + 1e-8
                    logit -= learning_rate * mean / (1 - DECAYS[0] ** steps) / spread

    return Gate(init, factors, penalty, step, _scores, _kept)


def _logits(view: View, state: State) -> dict[str, Tensor]:
    return {name: logit.requires_grad_() for name, logit in along(state, "logit", view.groups).items()}


def _open(logit: Tensor) -> Tensor:
    """Which channels are let through; of equal highest ones the first."""
    opened = logit.detach() > 0
    opened[logit.detach().argmax()] = True
    return opened


def _scores(view: View, state: State) -> Scores:
    return {name: logit.detach().double() for name, logit in _logits(view, state).items()}


def _kept(view: View, state: State) -> Kept:
    return {name: _open(logit).nonzero()[:, 0].cpu() for name, logit in _logits(view, state).items()}
