"""A regularizer: how it begins and what it does in each step."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from trainables.pruning.pressure import Kept, State, View


def _always(state: State) -> bool:
    return True


@dataclass(frozen=True)
class Regularizer:
    """A pair of functions and what may stand beside them.

    `init(view)` gives the state, anew after every event. `step(view, state)` runs after each backward pass: it may
    change gradients, and moves the state on in place. `penalty(view, state)` is added to the loss. `finished(state)`
    answers a schedule that asks. `kept(view, state)`: where it chose what goes, what the next event leaves.
    """

    init: Callable[[View], State]
    step: Callable[[View, State], None]
    penalty: Callable[[View, State], Tensor] | None = None
    finished: Callable[[State], bool] = _always
    kept: Callable[[State], Kept] | None = None
