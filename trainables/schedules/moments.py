"""When pruning happens and how far it has gone by then."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from trainables.pruning.pressure import State, View


@dataclass(frozen=True)
class Standing:
    """What a schedule that asks is told at a boundary."""

    epochs: int  # completed
    finished: bool  # whether the regularizer has done its work
    view: Callable[[], View]  # the network, its groups, and what the event would leave if it came now


@dataclass(frozen=True)
class Ready:
    """How a schedule waits: a pair of functions and a state, tensors by name on the CPU, that a checkpoint holds.

    `init(standing)` gives the state, anew for each event. `step(standing, state)` is called once at the end of every
    epoch from `start` completed ones on; it moves the state on in place and says whether the event may come now.
    """

    init: Callable[[Standing], State]
    step: Callable[[Standing, State], bool]
    start: int = 0


@dataclass(frozen=True)
class Moment:
    """One event: after epoch `epoch` (0-based; -1: before training), `sparsity` of the whole is gone.

    With `ready`, the event comes earlier, after the first epoch from `earliest` on at whose end that says so.
    """

    epoch: int
    sparsity: float
    earliest: int | None = None
    ready: Ready | None = None

    @property
    def first_epoch(self) -> int:
        """The epoch after which the event may come."""
        return self.epoch if self.earliest is None else min(self.earliest, self.epoch)

    def may_come(self, epochs: int) -> bool:
        """Whether the event may come after `epochs` completed epochs, if it is ready."""
        return self.first_epoch < epochs

    def must_come(self, epochs: int) -> bool:
        """Whether the event comes after `epochs` completed epochs at the latest."""
        return self.epoch < epochs


def moments(epochs: int, at: Sequence[int], levels: Sequence[float]) -> tuple[Moment, ...]:
    """Events after the epochs `at`, to the sparsities `levels`, as many as leave an epoch of training behind them.

    Where some do not fit, the last that does goes all the way.
    """
    fitting = [epoch for epoch in at if epoch <= epochs - 2]
    if not fitting or not levels or levels[-1] <= 0.0:
        return ()
    reached = [*levels[: len(fitting) - 1], levels[-1]]
    return tuple(Moment(epoch, level) for epoch, level in zip(fitting, reached, strict=True))
