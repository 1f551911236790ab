"""When pruning happens and how far it has gone by then."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Moment:
    """One event: after epoch `epoch` (0-based; -1: before training), `sparsity` of the whole is gone."""

    epoch: int
    sparsity: float


def moments(epochs: int, at: Sequence[int], levels: Sequence[float]) -> tuple[Moment, ...]:
    """Events after the epochs `at`, to the sparsities `levels`, as many as leave an epoch of training behind them.

    Where some do not fit, the last that does goes all the way.
    """
    fitting = [epoch for epoch in at if epoch <= epochs - 2]
    if not fitting or not levels or levels[-1] <= 0.0:
        return ()
    reached = [*levels[: len(fitting) - 1], levels[-1]]
    return tuple(Moment(epoch, level) for epoch, level in zip(fitting, reached, strict=True))
