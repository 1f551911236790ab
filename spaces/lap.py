"""One boundary of a trial that was really run, and what it took to get there from the one before."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Lap:
    """Measured, where a `spaces.path.Step` is foreseen.

    `key`: equal exactly where the boundaries are equal; `macs`: training MACs, those of the event's passes among them;
    `seconds`: of one CPU core; `metrics`: what the trial measured here, None where it did not.
    """

    key: str
    epochs: int
    events: int
    macs: int
    seconds: float
    metrics: Mapping[str, float] | None = None
