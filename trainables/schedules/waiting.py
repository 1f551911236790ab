"""Schedules that wait: when an event comes depends on how training went."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from trainables.pruning.groups import Groups
from trainables.pruning.pressure import Kept, State
from trainables.schedules.moments import Moment, Ready, Standing, moments

COMPARED = 5  # earlier indicators that one must not fall behind
Start = Annotated[int, Field(ge=0)]
Until = Annotated[int, Field(ge=1)]


def when_finished(
    epochs: int, sparsity: float, /, *, start: Start = 0, until: Until | None = None
) -> tuple[Moment, ...]:
    """One event, as soon after `start` epochs as the regularizer has finished, at the latest after epoch `until`.

    `until` null: at half time (GReg, Wang et al. 2021, prunes when its regularizer is done).
    """
    ready = Ready(lambda standing: {}, lambda standing, state: standing.finished, start)
    return _waiting(epochs, sparsity, ready, earliest=start - 1, until=until)


def when_stable(
    epochs: int,
    sparsity: float,
    /,
    *,
    threshold: Annotated[float, Field(gt=0.0, le=1.0)] = 0.983,
    memory: Annotated[int, Field(ge=1, description="earlier epochs that each is compared with")] = 5,
    start: Start = 0,
    until: Until | None = None,
) -> tuple[Moment, ...]:
    """One event, once the widths that it would leave have settled (EPI, Shen et al. 2022): at `until` at the latest.

    At the end of every epoch from `start` on, criterion and allocation are asked what the event would leave. Two such
    networks are alike by 1 - mean over layers of |n1 - n2| / (n1 + n2); the indicator is the mean likeness to those of
    the `memory` epochs before. The event comes at the first indicator that reaches `threshold` and is not under any of
    the five before it, as far as there are any. The authors: 0.983 for magnitude, 0.944 for `taylor`. Widths are
    compared, not which channels stay. `until` null: at half time. Every look is charged like an event's own.
    """

    def init(standing: Standing) -> State:
        layers = len(_layer_widths(standing.view().groups, {}))
        return {
            "widths": torch.zeros(0, layers, dtype=torch.int64),
            "indicators": torch.zeros(0, dtype=torch.float64),
        }

    def step(standing: Standing, state: State) -> bool:
        view = standing.view()
        now, before = _layer_widths(view.groups, view.ahead()), state["widths"]
        state["widths"] = torch.cat([before, now[None]])[-memory:]
        if len(before) < memory:
            return False
        indicator, earlier = likeness(now, before).mean(), state["indicators"]
        state["indicators"] = torch.cat([earlier, indicator[None]])[-COMPARED:]
        return bool(indicator >= threshold) and bool((indicator >= earlier).all())

    ready = Ready(init, step, start)
    return _waiting(epochs, sparsity, ready, earliest=max(start, 1) + memory - 1, until=until)


def likeness(widths: Tensor, others: Tensor) -> Tensor:
    """1 - mean over layers of |n1 - n2| / (n1 + n2), float64 [networks], for widths [layers] and [networks, layers]."""
    apart = (widths - others).abs().double() / (widths + others).double()
    return 1.0 - apart.mean(-1)


def _layer_widths(groups: Groups, kept: Kept) -> Tensor:
    """Output channels of every layer, int64 [layers] in the order of the groups, with what is kept of each group."""
    widths: dict[str, int] = {}
    for name, group in groups.items():
        left = len(kept[name]) if name in kept else group.channels
        for piece in group.slices:
            if piece.role == "out" and piece.tensor.endswith("weight"):
                widths[piece.tensor] = widths.get(piece.tensor, 0) + left * piece.positions.shape[1]
    return torch.tensor(list(widths.values()), dtype=torch.int64)


def _waiting(epochs: int, sparsity: float, ready: Ready, *, earliest: int, until: int | None) -> tuple[Moment, ...]:
    latest = moments(epochs, [epochs // 2 - 1 if until is None else until], [sparsity])
    return tuple(Moment(one.epoch, one.sparsity, min(earliest, one.epoch), ready) for one in latest)
