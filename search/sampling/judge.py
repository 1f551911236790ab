"""What proposals are expected to add to the front, from what the trials so far told.

Does NOT cover what a proposal costs, nor where proposals come from (`sampler`, `candidates`).
"""

import hashlib
from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray

from search.sampling.encoding import Array
from search.sampling.gain import area_gain, normal_cdf, shortfall, spreads, staircase, tchebycheff
from search.sampling.past import Told, View
from search.sampling.surrogate import Kernel, Prior, Surrogate, centre_and_scale, drifted

REFIT_FROM, REFIT_GROWTH = 24, 1.2  # a kernel is fitted anew for each of so many trials, then for so many times more
FITTED_ON = 128  # trials at most: more change a kernel less than they cost
REMEMBERED = 16  # kernels
BELOW = (1.0, 0.3)  # of the range that counts, under the best loss; see `_surrogate`
DOUBT = 3.0  # nats by which the second must explain the losses better
MARGIN = 0.1  # of the range of losses, by which the reference lies beyond the worst where none is given
FAR = 1.0  # losses further beyond the reference than this times what lies between it and the best count as that far
SAMPLES = 64  # of predictions, where the gain has no closed form
NO_VALUES: Array = np.zeros(0)


class Kernels:
    """Fitted kernels, remembered by what they were fitted to: a kernel is a function of its trials alone."""

    def __init__(self) -> None:
        self._fitted: OrderedDict[bytes, Kernel] = OrderedDict()

    def of(self, prior: Prior, features: Array, values: Array) -> Kernel:
        """For values [n] at features [n, features], in the order of trials; fitted to some of the first of them."""
        count = fitting_count(len(values))
        chosen = np.arange(count)
        if count > FITTED_ON:  # the lowest, which is where the search is, and the newest
            newest = count - FITTED_ON // 2
            lowest = np.sort(np.argsort(values[:newest], kind="stable")[: FITTED_ON // 2])
            chosen = np.append(lowest, np.arange(newest, count))
        features, values = features[chosen], values[chosen]
        key = hashlib.sha256(features.tobytes() + values.tobytes()).digest()
        if key not in self._fitted:
            centre, scale = centre_and_scale(values)
            self._fitted[key] = prior.fitted(features, (values - centre) / scale)
            while len(self._fitted) > REMEMBERED:
                self._fitted.popitem(last=False)
        return self._fitted[key]


def fitting_count(count: int) -> int:
    """How many of `count` trials a kernel is fitted to: the largest step of a geometric ladder."""
    if count <= REFIT_FROM:
        return count
    step = float(REFIT_FROM)
    while step * REFIT_GROWTH <= count:
        step *= REFIT_GROWTH
    return int(step)


class Judge:
    """Expected gains of proposals, given the trials told and those that still run."""

    def __init__(
        self,
        view: View,
        told: Told,
        pending: Array,
        *,
        reference: Array,
        limit: Array,
        useful: NDArray[np.int64],
        kernels: Kernels,
        rng: np.random.Generator,
    ) -> None:
        """`told` has losses; `pending` are features of running trials, taken to end as predicted (Ginsbourger 2010).

        `reference` [m]: losses above it are worth nothing; NaN where the worst of the trials decides. `limit` [0 or 1,
        m]: losses that every proposal comes near to as its known ones come near to theirs. `useful`: indices of the
        trials that predictions rest on.
        """
        self._view, self._told, self._useful = view, told, useful
        self._kernels, self._pending, self._limit = kernels, pending, limit
        measured = told.losses[~np.isnan(told.losses).any(axis=1)]
        low, high = np.vstack([measured, limit]).min(axis=0), measured.max(axis=0)
        own = high + MARGIN * np.where(high > low, high - low, 1.0)
        self._reference = np.where(np.isnan(reference), own, reference)
        self._span = np.where(self._reference > low, self._reference - low, 1.0)
        # What is modelled reaches from the best loss to the reference, or to the middle one where that is further.
        reach = np.maximum(np.maximum(self._reference, np.median(measured, axis=0)) - low, 1e-9)
        self._ceiling = low + (1.0 + FAR) * reach
        # It is modelled by how far it lies above an origin, in logarithms: what does badly also varies more.
        self._origins = np.minimum(low, self._reference) - np.outer(BELOW, reach)
        self._origin = self._origins[0].copy()  # of each objective that is modelled: the one that was taken
        self._surrogates: dict[int, Surrogate] = {}
        self._hurdles = self._hurdle_models()
        self._weights = rng.dirichlet(np.ones(view.objectives))
        self._draws = rng.standard_normal((SAMPLES, 1, view.objectives))
        self._front = told.losses[told.front if told.feasible.any() else []]  # what is beaten adds nothing

    def believe(self, known: Array) -> None:
        """Count the running trials, whose losses [n, m] are known in part, among those that ended."""
        if len(known):
            self._front = np.concatenate([self._front, self._predict(self._pending, known)[0]])

    def gain(self, features: Array, known: Array) -> Array:
        """Of proposals [n] with these features, and the losses [n, m] that are known beforehand (NaN: to predict)."""
        mean, deviation = self._predict(features, known)
        gain = self._gain(mean, deviation)
        for hurdle in self._hurdles:
            above, spread = hurdle.predict(features)
            gain = gain * normal_cdf(-above / spread)
        return gain

    def _gain(self, mean: Array, deviation: Array) -> Array:
        if self._view.objectives == 1:
            best = min([*self._front[:, 0], self._reference[0]])
            return shortfall(best, mean[:, 0], deviation[:, 0], self._origin[0])
        if self._view.objectives == 2:
            front = staircase(self._front, self._reference)
            return area_gain(mean, deviation, front, self._reference, self._origin)
        origin = self._reference - self._span
        best = tchebycheff((np.vstack([self._front, self._reference]) - origin) / self._span, self._weights).min()
        middle, spread = spreads(mean, deviation, self._origin)
        drawn = np.where(deviation > 0.0, self._origin + np.exp(middle + spread * self._draws), mean)
        outcomes = tchebycheff((drawn - origin) / self._span, self._weights)
        improvement: Array = np.maximum(best - outcomes, 0.0).mean(axis=0)
        return improvement

    def _predict(self, features: Array, known: Array) -> tuple[Array, Array]:
        mean, deviation = known.copy(), np.zeros_like(known)
        for index in range(self._view.objectives):
            unknown = np.isnan(known[:, index])
            if unknown.any():
                middle, spread = self._surrogate(index).predict(features[unknown])
                above = np.exp(middle + 0.5 * spread**2)  # of a lognormal
                mean[unknown, index] = self._origin[index] + above
                deviation[unknown, index] = above * np.sqrt(np.expm1(spread**2))
        return mean, deviation

    def _surrogate(self, index: int) -> Surrogate:
        """The model of an objective, above the origin by which its losses are the least surprising.

        The nearer the origin, the more the spread grows with the loss. (Snelson et al. 2004 learn a warp like this.)
        """
        if index not in self._surrogates:
            losses = [np.minimum(each[:, index], self._ceiling[index]) for each in (self._told.losses, self._limit)]
            models = []
            for origin in self._origins[:, index]:
                told, limit = (np.log(each - origin) for each in losses)
                models.append(self._modelled(told, limit, drift=self._view.prior.drift))
            # A density of logarithms, divided by how far the loss lies above the origin, is one of the loss.
            surprises = [model.surprise + float(model.values.sum()) for model in models]
            taken = int(surprises[1] + DOUBT < surprises[0])
            self._origin[index] = self._origins[taken, index]
            self._surrogates[index] = models[taken].believing(self._pending)
        return self._surrogates[index]

    def _hurdle_models(self) -> list[Surrogate]:
        """A model of each constraint that a trial broke; above 0 is broken.

        What a trial that never ran says of constraints that it did not break is no measurement.
        """
        told = self._told
        hurdles = []
        for violations in told.violations.T:
            measured = np.where(told.ended | (violations > 0.0), violations, np.nan)
            if (measured > 0.0).any():
                hurdles.append(self._modelled(_around_zero(measured)).believing(self._pending))
        return hurdles

    def _modelled(self, values: Array, limit: Array = NO_VALUES, *, drift: Array | float = 0.0) -> Surrogate:
        """From values of the trials [n], NaN where a trial says nothing; and of the limit, where it has one.

        `drift`: as the surrogate's.
        """
        told, here = self._told.features, ~np.isnan(values)
        first = self._view.limit_features(self._limit[: len(limit)])
        everywhere, all_values = np.concatenate([first, told[here]]), np.concatenate([limit, values[here]])
        kernel = self._kernels.of(self._view.prior, everywhere, all_values - drifted(everywhere, drift))
        chosen = self._useful[here[self._useful]]
        features, seen = np.concatenate([first, told[chosen]]), np.concatenate([limit, values[chosen]])
        return Surrogate(kernel, features, seen, drift=drift)


def _around_zero(violations: Array) -> Array:
    """Violations as a model can learn them: -1 and 1 where they only say yes or no."""
    told = violations[~np.isnan(violations)]
    if len(np.unique(told)) <= 2:
        return np.where(np.isnan(violations), np.nan, np.where(violations > 0.0, 1.0, -1.0))
    bound = 4.0 * np.median(np.abs(told[told != 0.0]))
    return np.clip(violations, -bound, bound)
