"""Where proposals come from beside the base sampler: anywhere in the space, and near what is good."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from search.sampling.encoding import Array, Encoding

CROSSED = 0.3  # share of mutants that have two parents
MOVED_ALONG = 0.5  # share of mutants that get another value along the axes that rule a known objective
SMALLEST_STEP, LARGEST_STEP = 0.02, 0.3  # deviation of a number's move, in ranges; drawn evenly in the logarithm


def anywhere(encoding: Encoding, count: int, rng: np.random.Generator) -> Array:
    """Rows [count, axes] that are spread evenly along every axis (McKay et al. 1979: a Latin hypercube)."""
    axes = len(encoding.axes)
    strata = np.stack([rng.permutation(count) for _ in range(axes)], axis=1) if axes else np.zeros((count, 0))
    return encoding.drawn((strata + rng.random((count, axes))) / max(count, 1))


def mutants(
    encoding: Encoding,
    parents: Array,
    active: NDArray[np.bool_],
    count: int,
    rng: np.random.Generator,
    *,
    ruling: Sequence[int] = (),
) -> Array:
    """Rows [count, axes] near parents [p, axes]: few of their active settings moved, some crossed with another parent.

    `ruling`: axes that decide an objective which is known beforehand. Half of the mutants get new values there: what
    is good at one place of the front is a guess at what is good along all of it.
    """
    axes = len(encoding.axes)
    first = rng.integers(len(parents), size=count)
    rows, may = parents[first].copy(), active[first]
    other = parents[rng.integers(len(parents), size=count)]
    crossed = (rng.random(count) < CROSSED)[:, None] & (rng.random((count, axes)) < 0.5)
    rows[crossed] = other[crossed]
    rows = _moved(encoding, rows, _few(may, rng), rng)
    if len(ruling):
        along = rng.random(count) < MOVED_ALONG
        fresh = encoding.drawn(rng.random((count, axes)))
        there = along[:, None] & np.isin(np.arange(axes), ruling)
        rows[there] = fresh[there]
    return rows


def _few(may: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.bool_]:
    """Which axes of each row to move: one of those that may, and each other with a chance of one in their number."""
    count, axes = may.shape
    allowed = np.maximum(may.sum(axis=1), 1)[:, None]
    chosen = may & (rng.random((count, axes)) < 1.0 / allowed)
    ranks = np.where(may, rng.random((count, axes)), -1.0)
    if axes:
        chosen[np.arange(count), ranks.argmax(axis=1)] = True
    return np.asarray(chosen, dtype=np.bool_)


def _moved(encoding: Encoding, rows: Array, chosen: NDArray[np.bool_], rng: np.random.Generator) -> Array:
    count = len(rows)
    size = np.exp(rng.uniform(np.log(SMALLEST_STEP), np.log(LARGEST_STEP), size=count))
    moved = rows.copy()
    for index, axis in enumerate(encoding.axes):
        here = chosen[:, index]
        if axis.choices:
            others = (rows[:, index] + rng.integers(1, axis.choices, size=count)) % axis.choices
            moved[here, index] = others[here]
        else:
            moved[here, index] = _moved_number(rows[here, index], size[here], axis.coarseness, rng)
            moved[here, index] = axis.settled(moved[here, index])
    return moved


def _moved_number(places: Array, size: Array, coarseness: float, rng: np.random.Generator) -> Array:
    """Coordinates moved by a normal step, at least to the next value of a grid; back from beyond the ends."""
    step = rng.standard_normal(len(places)) * size
    step = np.where(np.abs(step) < coarseness, np.copysign(coarseness, step), step)
    target = places + step
    target = np.where(target < 0.0, -target, target)
    target = np.where(target > 1.0, 2.0 - target, target)
    return np.clip(target, 0.0, 1.0)
