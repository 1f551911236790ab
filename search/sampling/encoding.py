"""Values of a search space as rows of numbers, and back: what models and mutations work on."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

Array = NDArray[np.float64]
Params = Mapping[str, Any]
Active = Callable[[Params], Collection[str]]
NEUTRAL = 0.5  # what a model sees of a number that the plan leaves out


@dataclass(frozen=True)
class Axis:
    """One parameter. Numbers lie in [0, 1], evenly as they are sampled; choices go by their position."""

    name: str
    distribution: BaseDistribution

    @cached_property
    def choices(self) -> int:
        """How many there are; 0 for a number."""
        return len(self.distribution.choices) if isinstance(self.distribution, CategoricalDistribution) else 0

    def coordinate(self, value: Any) -> float:
        """Of one value. Raises ValueError for what is no choice."""
        internal = self.distribution.to_internal_repr(value)
        return internal if self.choices else float(self._coordinates(np.array(internal)))

    def values(self, coordinates: Array) -> list[Any]:
        """The values as Optuna writes them, on the parameter's grid."""
        if isinstance(self.distribution, CategoricalDistribution):
            return [self.distribution.choices[int(index)] for index in coordinates]
        numbers = self._numbers(coordinates).tolist()
        return [round(number) for number in numbers] if isinstance(self.distribution, IntDistribution) else numbers

    def drawn(self, uniform: Array) -> Array:
        """Coordinates of values that are all equally likely where `uniform` is spread evenly over [0, 1)."""
        if self.choices:
            chosen: Array = np.minimum(np.floor(uniform * self.choices), self.choices - 1)
            return chosen
        step = self._step
        if step is None:
            return uniform
        low, high = self._warped(self._low - step / 2), self._warped(self._high + step / 2)
        return self._coordinates(self._on_grid(self._unwarped(low + uniform * (high - low))))

    def settled(self, coordinates: Array) -> Array:
        """The nearest coordinates of values that exist; of numbers alone."""
        return self._coordinates(self._numbers(coordinates))

    @cached_property
    def coarseness(self) -> float:
        """How far the next value is, as a coordinate; 0 for a number without a grid."""
        return 0.0 if self._step is None else min(self._step / (self._high - self._low), 1.0)

    @property
    def _number(self) -> FloatDistribution | IntDistribution:
        assert isinstance(self.distribution, (FloatDistribution, IntDistribution))
        return self.distribution

    @cached_property
    def _low(self) -> float:
        return float(self._number.low)

    @cached_property
    def _high(self) -> float:
        return float(self._number.high)

    @cached_property
    def _step(self) -> float | None:
        return None if self._number.step is None else float(self._number.step)

    def _warped(self, number: Any) -> Any:
        return np.log(number) if self._number.log else number

    def _unwarped(self, number: Any) -> Any:
        return np.exp(number) if self._number.log else number

    def _coordinates(self, numbers: Array) -> Array:
        low, high = self._warped(self._low), self._warped(self._high)
        places: Array = (self._warped(numbers) - low) / (high - low)
        return places

    def _numbers(self, coordinates: Array) -> Array:
        low, high = self._warped(self._low), self._warped(self._high)
        return self._on_grid(self._unwarped(low + coordinates * (high - low)))

    def _on_grid(self, numbers: Array) -> Array:
        if self._step is not None:
            numbers = self._low + self._step * np.round((numbers - self._low) / self._step)
        clipped: Array = np.clip(numbers, self._low, self._high)
        return clipped


class Encoding:
    """A search space as arrays. A row has one coordinate per axis; parameters with one value have none."""

    def __init__(self, space: Mapping[str, BaseDistribution], active: Active | None = None) -> None:
        """`active`: names of the parameters that matter beside the others; without it all always do."""
        self.axes = tuple(Axis(name, space[name]) for name in sorted(space) if not space[name].single())
        self._fixed = {name: _only(one) for name, one in space.items() if one.single()}
        self._active = active
        sizes = [axis.choices or 1 for axis in self.axes]
        self.axis_of = np.repeat(np.arange(len(self.axes)), sizes)  # of a feature
        self._begins = np.concatenate([[0], np.cumsum(sizes)])

    def row(self, params: Params) -> Array:
        """Coordinates [axes] of a value for every parameter. Raises KeyError or ValueError where one is missing."""
        return np.array([axis.coordinate(params[axis.name]) for axis in self.axes])

    def params(self, rows: Array) -> list[dict[str, Any]]:
        """The values that rows [n, axes] stand for."""
        columns = [axis.values(rows[:, index]) for index, axis in enumerate(self.axes)]
        names = [axis.name for axis in self.axes]
        if not names:
            return [dict(self._fixed) for _ in rows]
        return [{**self._fixed, **dict(zip(names, values, strict=True))} for values in zip(*columns, strict=True)]

    def active(self, params: Sequence[Params]) -> NDArray[np.bool_]:
        """Which axes matter [n, axes] for each of the given values."""
        if self._active is None:
            return np.ones((len(params), len(self.axes)), dtype=np.bool_)
        names = [axis.name for axis in self.axes]
        sets = [frozenset(self._active(one)) for one in params]
        return np.array([[name in one for name in names] for one in sets], dtype=np.bool_).reshape(-1, len(names))

    def features(self, rows: Array, active: NDArray[np.bool_]) -> Array:
        """What models see of rows [n, axes]: numbers as they are, a choice as one of several; inactive ones neutral.

        Two different choices are as far apart as the two ends of a range.
        """
        made = np.zeros((len(rows), len(self.axis_of)))
        everyone = np.arange(len(rows))
        for index, axis in enumerate(self.axes):
            begin, here = self._begins[index], active[:, index]
            if axis.choices:
                chosen = begin + rows[here, index].astype(np.int64)
                made[everyone[here], chosen] = math.sqrt(0.5)
            else:
                made[:, begin] = np.where(here, rows[:, index], NEUTRAL)
        return made

    def drawn(self, uniform: Array) -> Array:
        """Rows of values that exist, from numbers [n, axes] spread evenly over [0, 1)."""
        columns = [axis.drawn(uniform[:, index]) for index, axis in enumerate(self.axes)]
        return np.stack(columns, axis=1) if columns else np.zeros((len(uniform), 0))


def _only(distribution: BaseDistribution) -> Any:
    """The one value there is."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[0]
    assert isinstance(distribution, (FloatDistribution, IntDistribution))
    return distribution.low
