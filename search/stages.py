"""The boundaries that a plan will pass, foreseen; what of them is stored or under way, and what the rest costs.

Does NOT cover who computes what when (`search.driver`), nor the files (`trainables.store`).
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """One boundary on a plan's way and what it takes to get there from the one before.

    `key`: equal for two plans only where the boundaries are equal; `macs`: training MACs, an estimate before an event.
    """

    key: str
    epochs: int
    events: int
    macs: int


Path = tuple[Step, ...]
"""All boundaries of a plan after boundary 0, in order."""
