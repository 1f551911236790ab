"""What weights feel before they are pruned: pressure that makes them ready to go."""

from typing import Protocol

from trainables.regularizers.growing import greg
from trainables.regularizers.regularizer import Regularizer
from trainables.regularizers.scales import bn_l1
from trainables.table import Table


class MakesRegularizer(Protocol):
    """A row: from its settings, with none left open, to the functions that act."""

    def __call__(self) -> Regularizer:
        """See `Regularizer`."""
        ...


REGULARIZERS: Table[MakesRegularizer] = Table("regularizer", bn_l1, greg)

__all__ = ["REGULARIZERS", "MakesRegularizer", "Regularizer"]
