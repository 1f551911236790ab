"""How the learning rate moves after pruning, from each event to the end of training."""

from collections.abc import Callable
from typing import Protocol

from trainables.recoveries.constant import constant, continue_
from trainables.recoveries.falling import cosine, damage_aware, linear
from trainables.recoveries.retraining import Damage, Retraining
from trainables.table import Table


class Recovery(Protocol):
    """The learning rate of every global step after an event, with no setting left open."""

    def __call__(self, retraining: Retraining, /) -> Callable[[int], float]:
        """global step -> learning rate, from retraining.first_step up to, not including, last_step."""
        ...


RECOVERIES: Table[Recovery] = Table("recovery", continue_, constant, cosine, linear, damage_aware)

__all__ = ["RECOVERIES", "Damage", "Recovery", "Retraining"]
