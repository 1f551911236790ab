"""What decides while the network trains: factors on channels in the forward pass, learned with the weights."""

from typing import Protocol

from trainables.gates.binary import straight_through
from trainables.gates.gate import Gate
from trainables.table import Table


class MakesGate(Protocol):
    """A row: from its settings, with none left open, to the functions that act."""

    def __call__(self) -> Gate:
        """See `Gate`."""
        ...


GATES: Table[MakesGate] = Table("gate", straight_through)

__all__ = ["GATES", "Gate", "MakesGate"]
