"""What one parameter may be: one of some choices, or a number in a range."""

import math
import random
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from spaces.errors import shown

Value = bool | int | float | str | None
DIGITS = 6  # significant digits of a sampled float: finer differences are no difference between plans


def quantised(value: float) -> float:
    """The float with DIGITS significant digits."""
    return float(f"{value:.{DIGITS}g}")


class _Domain(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Choices(_Domain):
    """One of these; a choice that has settings of its own goes by its label."""

    values: Annotated[tuple[Value, ...], Field(min_length=1)]

    def taken(self, value: Any) -> Value:
        """The choice that `value` is. Raises ValueError where it is none: True is not 1, and 1.0 is."""
        for choice in self.values:
            if choice == value and isinstance(choice, bool) == isinstance(value, bool):
                return choice
        raise ValueError(f"{shown(value)}; allowed: {self}")

    def sample(self, rng: random.Random) -> Value:
        """A choice, each as likely as the others."""
        return rng.choice(self.values)

    @property
    def default(self) -> Value:
        """The first choice."""
        return self.values[0]

    @property
    def extremes(self) -> tuple[Value, ...]:
        """Every choice: none stands for another."""
        return self.values

    def __str__(self) -> str:
        return "one of " + ", ".join(str(value) for value in self.values)


class Range(_Domain):
    """A number from `low` to `high`, both included; floats have six significant digits."""

    low: float
    high: float
    log: bool = False  # sampled evenly in the logarithm
    step: float | None = None
    whole: bool = False  # integers only

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"from {self.low:g} is above to {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"a log range starts above 0, not at {self.low:g}")
        if self.log and self.step is not None:
            raise ValueError("a range has log or step, not both")
        if self.step is not None:
            if self.step <= 0:
                raise ValueError(f"step is {self.step:g}; allowed: number above 0")
            steps = (self.high - self.low) / self.step
            if abs(steps - round(steps)) > 1e-6 * max(1.0, steps):
                raise ValueError(f"steps of {self.step:g} from {self.low:g} do not end at {self.high:g}")
        return self

    def taken(self, value: Any) -> int | float:
        """The number of this range that `value` is: on the grid, quantised. Raises ValueError outside the range."""
        slack = 1e-9 * max(1.0, abs(self.low), abs(self.high))
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ValueError(f"{shown(value)}; allowed: {self}")
        if not self.low - slack <= value <= self.high + slack or (self.whole and value != round(value)):
            raise ValueError(f"{shown(value)}; allowed: {self}")
        return self._settled(value)

    def sample(self, rng: random.Random) -> int | float:
        """A number, evenly spread, or evenly in the logarithm."""
        edge = 0.5 if self.whole and self.step is None else 0.0  # so that both ends are as likely as the rest
        low, high = self.low - edge, self.high + edge
        if self.step is not None:
            return self._settled(self.low + self.step * rng.randint(0, round((self.high - self.low) / self.step)))
        drawn = math.exp(rng.uniform(math.log(low), math.log(high))) if self.log else rng.uniform(low, high)
        return self._settled(drawn)

    @property
    def default(self) -> int | float:
        """The middle, of the logarithm where it is a log range."""
        middle = math.sqrt(self.low * self.high) if self.log else (self.low + self.high) / 2
        return self._settled(middle)

    @property
    def extremes(self) -> tuple[int | float, ...]:
        """Both ends."""
        return self._settled(self.low), self._settled(self.high)

    def _settled(self, value: float) -> int | float:
        if self.step is not None:
            value = self.low + self.step * round((value - self.low) / self.step)
        inside = min(max(value, self.low), self.high)
        return round(inside) if self.whole else min(max(quantised(inside), self.low), self.high)

    def __str__(self) -> str:
        grid = f" in steps of {self.step:g}" if self.step is not None else ""
        kind = "integer" if self.whole else "number"
        return f"{kind} from {self.low:g} to {self.high:g}{grid}{' (log)' if self.log else ''}"


Domain = Choices | Range
