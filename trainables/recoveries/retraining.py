"""What a recovery may know: the recipe's own learning rate, the steps that are left, and what pruning destroyed."""

from collections.abc import Callable
from dataclasses import dataclass

Rates = Callable[[int], float]
"""global step -> learning rate"""


@dataclass(frozen=True)
class Damage:
    """What the last event destroyed."""

    removed_fraction: float  # of the weights there were
    norm_ratio: float  # norm of the removed weights over the norm of all weights before


@dataclass(frozen=True)
class Retraining:
    """The stretch from one event to the end of training, in global steps."""

    original: Rates
    first_step: int
    last_step: int  # exclusive: also the number of steps of the whole training
    steps_per_epoch: int
    largest: float  # learning rate of the recipe
    smallest: float
    damage: Damage

    @property
    def steps(self) -> int:
        """How many steps are left."""
        return self.last_step - self.first_step
