"""What a benchmark states: a figure with its unit, its target, whether it is met, and how it was measured."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import geometric_mean, median
from typing import Any, Literal


@dataclass(frozen=True)
class Target:
    """What a figure should come to."""

    side: Literal["at most", "at least"]
    value: float

    def is_met_by(self, value: float) -> bool:
        return value <= self.value if self.side == "at most" else value >= self.value

    def __str__(self) -> str:
        return f"{self.side} {self.value:g}"


@dataclass(frozen=True)
class Figure:
    """One row. `value` is None where it could not be measured; `how` then says why."""

    figure: str
    value: float | None
    unit: str
    how: str
    target: Target | None = None

    @property
    def met(self) -> bool | None:
        """None without a target, or where nothing was measured."""
        if self.target is None or self.value is None:
            return None
        return self.target.is_met_by(self.value)

    def row(self) -> dict[str, Any]:
        """The six fields, as JSON has them."""
        return {
            "figure": self.figure,
            "value": self.value,
            "unit": self.unit,
            "target": None if self.target is None else str(self.target),
            "met": self.met,
            "how": self.how,
        }

    def cells(self) -> list[str]:
        """The six fields, as a table shows them."""
        value = "not measured" if self.value is None else f"{self.value:.3g}"
        met = {True: "yes", False: "**missed**", None: "-"}[self.met]
        return [self.figure, value, self.unit, "-" if self.target is None else str(self.target), met, self.how]


@dataclass(frozen=True)
class Spread:
    """A median with the lowest and the highest of what it was taken from."""

    middle: float
    lowest: float
    highest: float
    rounds: int

    def __str__(self) -> str:
        return f"median of {self.rounds}, {self.lowest:.3g} to {self.highest:.3g}"


def spread(values: Sequence[float]) -> Spread:
    return Spread(median(values), min(values), max(values), len(values))


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Ours over theirs, round by round: what slows the machine for both sides of a round cancels."""
    return spread([a / b for a, b in zip(ours, theirs, strict=True)])


__all__ = ["Figure", "Spread", "Target", "geometric_mean", "ratio", "spread"]
