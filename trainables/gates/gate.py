"""A gate: how it begins, what it multiplies into the forward pass, how it learns, and the mask that it comes to."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from trainables.pruning.groups import Scores
from trainables.pruning.pressure import Kept, State, View


@dataclass(frozen=True)
class Gate:
    """Functions of the view and an explicit state; an event cuts the state with the channels, the last ends the gate.

    `init(view)` gives the state. `factors(view, state)` are multiplied into what consumers read, [channels] of each
    group, in training and in evaluation. `penalty(view, state)` is added to the loss. `step(view, state)` runs after
    each update of the weights and moves the state on in place, by the gradients of its tensors. `scores` is what the
    criterion `gate` says; `kept` the mask: the network with these factors answers as the one with these channels.
    """

    init: Callable[[View], State]
    factors: Callable[[View, State], dict[str, Tensor]]
    penalty: Callable[[View, State], Tensor]
    step: Callable[[View, State], None]
    scores: Callable[[View, State], Scores]
    kept: Callable[[View, State], Kept]
