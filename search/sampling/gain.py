"""What a proposal is expected to add to the front: closed forms for one and two objectives, a scalar for more.

Everything here is a loss: less is better. Does NOT cover where the predictions come from (`surrogate`).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

Array = NDArray[np.float64]
AUGMENTATION = 0.05  # share of the plain sum in a Tchebycheff scalar (Knowles 2006, section II)


def normal_cdf(values: Array) -> Array:
    """Share of the standard normal distribution below each value."""
    below: Array = 0.5 * (1.0 + erf(values / np.sqrt(2.0)))
    return below


def spreads(mean: Array, deviation: Array, origin: Any) -> tuple[Array, Array]:
    """(middle, spread) of the normal log(Y - origin), from mean and deviation of Y; known where the deviation is 0."""
    above = np.where(deviation > 0.0, mean - origin, 1.0)
    spread = np.sqrt(np.log1p((deviation / above) ** 2))
    return np.log(above) - 0.5 * spread**2, spread


def shortfall(target: Any, mean: Array, deviation: Array, origin: Any) -> Array:
    """E[max(target - Y, 0)]: how far Y, lognormal above `origin`, is expected to come out under the target.

    Shapes broadcast; a deviation of 0 is a value that is known. (Expected improvement, Mockus 1978; of a lognormal it
    is the price of a put, Black and Scholes 1973.)
    """
    middle, spread = spreads(mean, deviation, origin)
    room = np.asarray(target - origin, dtype=np.float64)
    spread = np.maximum(spread, 1e-12)
    scaled = np.clip((np.log(np.maximum(room, 1e-300)) - middle) / spread, -40.0, 40.0)
    expected = room * normal_cdf(scaled) - (mean - origin) * normal_cdf(scaled - spread)
    lognormal = np.where(room > 0.0, np.maximum(expected, 0.0), 0.0)
    certain: Array = np.where(deviation > 0.0, lognormal, np.maximum(target - mean, 0.0))
    return certain


def staircase(losses: Array, reference: Array) -> Array:
    """The points [k, 2] of losses [n, 2] that no other beats and that lie under the reference, by their first loss."""
    inside = losses[np.all(losses < reference, axis=1)]
    ordered = inside[np.lexsort((inside[:, 1], inside[:, 0]))]
    lowest_before = np.concatenate([[np.inf], np.minimum.accumulate(ordered[:, 1])[:-1]])
    kept: Array = ordered[ordered[:, 1] < lowest_before]
    return kept


def area_gain(mean: Array, deviation: Array, front: Array, reference: Array, origin: Array) -> Array:
    """Expected growth [n] of the area that the front covers, for predictions [n, 2]: independent, as in `shortfall`.

    `front` is a `staircase`. Along the first loss the front is a flight of steps; a point (A, B) adds, over the step
    from l to u with ceiling c, the length of [max(A, l), u] times max(c - B, 0). Its expectation factors into
    (E[(u - A)+] - E[(l - A)+]) E[(c - B)+]. (Emmerich et al. 2011 has the same integral, cell by cell.)
    """
    edges = np.append(front[:, 0], reference[0])
    ceilings = np.concatenate([[reference[1]], front[:, 1]])
    reach = shortfall(edges, mean[:, :1], deviation[:, :1], origin[0])
    lengths = np.diff(reach, axis=1, prepend=0.0)
    heights = shortfall(ceilings, mean[:, 1:], deviation[:, 1:], origin[1])
    expected: Array = np.einsum("ij,ij->i", lengths, heights)
    return np.maximum(expected, 0.0)


def tchebycheff(losses: Array, weights: Array) -> Array:
    """One loss from several [..., m], normalised to [0, 1]: the worst weighted one, and a little of all."""
    weighted = losses * weights
    scalar: Array = weighted.max(axis=-1) + AUGMENTATION * weighted.sum(axis=-1)
    return scalar


def unbeaten(losses: Array) -> NDArray[np.int64]:
    """Indices, in order, of the losses [n, m] that no other is at least as good as in all and better than in one."""
    order = np.lexsort(losses.T[::-1])  # whatever beats a point comes before it
    if losses.shape[1] == 2:
        second = losses[order, 1]
        lowest_before = np.concatenate([[np.inf], np.minimum.accumulate(second)[:-1]])
        twins = np.concatenate([[False], (np.diff(losses[order], axis=0) == 0.0).all(axis=1)])
        first_of = np.maximum.accumulate(np.where(twins, 0, np.arange(len(order))))
        return np.sort(order[(second < lowest_before)[first_of]])
    kept: list[int] = []
    for index in order:  # a point that is beaten at all is beaten by one that is kept
        ahead = losses[kept]
        if not np.any(np.all(ahead <= losses[index], axis=1) & np.any(ahead < losses[index], axis=1)):
            kept.append(int(index))
    return np.array(sorted(kept), dtype=np.int64)
