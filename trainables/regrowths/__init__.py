"""What comes back: masked weights that are given another chance at an event."""

from typing import Protocol

from trainables.pruning.probe import Probe
from trainables.pruning.weights import Masks
from trainables.regrowths.dense_gradient import gradient
from trainables.table import Table


class Regrowth(Protocol):
    """The masks after some weights have come back for others, with no setting left open."""

    def __call__(self, masks: Masks, probe: Probe, progress: float, /) -> Masks:
        """As many weights of each layer are alive as in `masks`; `progress`: the fraction of training that is over.

        The network is as the event has masked it, and is left as it was found; revived weights begin at zero.
        """
        ...


REGROWTHS: Table[Regrowth] = Table("regrowth", gradient)

__all__ = ["REGROWTHS", "Regrowth"]
