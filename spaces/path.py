"""A plan's way: the boundaries it will pass, as far as they can be told before any of it is trained."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
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
