"""A Gaussian process that stands for a metric nobody has measured yet: made for tens of trials and mixed settings.

Values are centred and scaled by whoever asks; features come from `encoding`.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize

Array = NDArray[np.float64]
SQRT5 = math.sqrt(5.0)
# Priors, as mean and deviation of logarithms; taken by predictive likelihood on 200 random plans of the digits study.
LENGTH, LENGTH_SPREAD = -0.5, 0.7  # of a setting's length scale, times the square root of how many there are
LEADING_LENGTH, LEADING_SPREAD = -0.3, 0.5  # of the length scale of a covariate or a leading axis
NOISE, NOISE_SPREAD = math.log(0.2), 1.0  # of the unexplained variance, the whole being 1
SIGNAL_SPREAD = 1.0  # of the explained variance, around 1
TREND, TREND_SPREAD = 0.0, 1.0  # of the variance that a trend explains
LEAST_NOISE = 1e-4  # of the unexplained variance; added to the variance of what was measured, for arithmetic's sake
TWINS = 0.05  # distance of features within which trials have most of the unexplained part in common
DRIFT = -0.6  # of a loss's logarithm from the least to the most of a covariate, before there are values
STEPS = 40  # of L-BFGS, at most


@dataclass(frozen=True)
class Kernel:
    """Matérn 5/2 with a length scale per axis, a trend, and noise: `relevance` [features] is 1 / length^2.

    The trend is linear in the features and in their products with the `leading` ones: what a setting is worth, and
    how that changes with an objective that is known beforehand. It is learned from fewer trials than a surface is.

    Noise is what the settings do not explain. A trial of nearly the same settings prunes the same channels of the same
    network and ends nearly the same: a second one there is no second chance.
    """

    relevance: Array
    leading: NDArray[np.int64]  # features
    signal: float
    trend: float
    noise: float

    def between(self, one: Array, other: Array) -> Array:
        """Covariance [n, m]."""
        near = _matern(_squared_distances(one, other, self.relevance))[0]
        common: Array = _slopes(one, self.leading) @ _slopes(other, self.leading).T
        return self.signal * near + self.trend * common + self.noise * _twins(one, other)

    def variance(self, features: Array) -> Array:
        """[n], before anything is measured."""
        slopes: Array = (_slopes(features, self.leading) ** 2).sum(axis=1)
        return self.signal + self.trend * slopes + self.noise


@dataclass(frozen=True)
class Prior:
    """What is believed of a kernel before there are values: normal in the logarithms of its parameters.

    The length scales of settings grow with their number, so that more axes do not mean less correlation (Hvarfner et
    al. 2024). Axes that lead are expected to matter most: an objective that is known beforehand is one, since that
    the others depend on it is why there is a front. So are covariates, or nobody would have named them.
    """

    axis_of: NDArray[np.int64]  # the axis that each feature belongs to; features of one axis share its length scale
    leading: int  # how many of the last axes lead
    covariates: int = 0  # how many axes before those follow from the settings

    @property
    def drift(self) -> Array:
        """Slopes [features] that a loss's logarithm is expected to have: it falls with every covariate.

        On 660 random plans of a study with photographs of clothes and 1,200 of the digits grid the slope in how much
        they are retrained was -0.5 and -0.8.
        """
        last = self._axes - self.leading
        is_covariate = (self.axis_of >= last - self.covariates) & (self.axis_of < last)
        return np.where(is_covariate, DRIFT, 0.0)

    @property
    def _axes(self) -> int:
        return int(self.axis_of.max()) + 1 if len(self.axis_of) else 0

    def _lengths(self) -> tuple[Array, Array]:
        told = self.covariates + self.leading
        settings = self._axes - told
        centre = [LENGTH + 0.5 * math.log(max(settings, 1))] * settings + [LEADING_LENGTH] * told
        return np.array(centre), np.array([LENGTH_SPREAD] * settings + [LEADING_SPREAD] * told)

    def kernel(self) -> Kernel:
        """The most plausible one."""
        return self._kernel(self._normal()[0])

    def fitted(self, features: Array, values: Array) -> Kernel:
        """The most plausible kernel for values [n], centred and of variance about 1, at features [n, features]."""
        centre, spread = self._normal()
        slopes, twins = _slopes(features, self._leading_features), _twins(features, features)

        def loss(logs: Array) -> tuple[float, Array]:
            value, slope = _negative_likelihood(logs, features, values, self.axis_of, slopes, twins)
            off = (logs - centre) / spread
            return value + 0.5 * float(off @ off), slope + off / spread

        bounds = [(low - 6.0, low + 8.0) for low in centre[:-1]] + [(math.log(LEAST_NOISE), 1.0)]
        found = minimize(loss, centre, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": STEPS})
        return self._kernel(np.asarray(found.x))

    def _normal(self) -> tuple[Array, Array]:
        """Of the logarithms of relevance [axes], signal, trend and noise."""
        lengths, spreads = self._lengths()
        means, deviations = [0.0, TREND, NOISE], [SIGNAL_SPREAD, TREND_SPREAD, NOISE_SPREAD]
        return np.append(-2.0 * lengths, means), np.append(2.0 * spreads, deviations)

    @property
    def _leading_features(self) -> NDArray[np.int64]:
        return np.flatnonzero(self.axis_of >= self._axes - self.leading)

    def _kernel(self, logs: Array) -> Kernel:
        signal, trend, noise = (float(value) for value in np.exp(logs[-3:]))
        return Kernel(np.exp(logs[:-3])[self.axis_of], self._leading_features, signal, trend, noise)


def _negative_likelihood(
    logs: Array, features: Array, values: Array, axis_of: NDArray[np.int64], slopes: Array, twins: Array
) -> tuple[float, Array]:
    """Of the values, and its slope in the logarithms of relevance [axes], signal, trend and noise."""
    axes, count = len(logs) - 3, len(values)
    relevance, (signal, trend, noise) = np.exp(logs[:axes])[axis_of], np.exp(logs[-3:])
    correlation, slope = _matern(_squared_distances(features, features, relevance))
    common = slopes @ slopes.T
    covariance = signal * correlation + trend * common + noise * twins
    covariance[np.diag_indices(count)] += LEAST_NOISE
    factor = cholesky(covariance, lower=True, check_finite=False)
    weights = cho_solve((factor, True), values, check_finite=False)
    inverse = cho_solve((factor, True), np.eye(count), check_finite=False)
    loss = 0.5 * float(values @ weights) + float(np.log(np.diag(factor)).sum())
    pull = inverse - np.outer(weights, weights)  # slope of the loss in the covariance, doubled
    through = pull * slope * signal
    # sum_ij through_ij (f_i - f_j)^2 for each feature, without the n x n x features differences
    per_feature = 2.0 * (through.sum(axis=1) @ features**2 - np.einsum("ij,ij->j", features, through @ features))
    per_axis = np.bincount(axis_of, weights=per_feature * relevance, minlength=axes)
    parts = ((signal, correlation), (trend, common), (noise, twins))
    return loss, np.append(0.5 * per_axis, [0.5 * size * float((pull * part).sum()) for size, part in parts])


def _slopes(features: Array, leading: NDArray[np.int64]) -> Array:
    """What the trend is linear in [n, features x (1 + leading)]; a row's squares sum to about 1."""
    products = [features * features[:, [one]] for one in leading]
    whole: Array = np.hstack([features, *products]) / math.sqrt(max(1, features.shape[1]))
    return whole


def _twins(one: Array, other: Array) -> Array:
    """Correlation of the unexplained part: 1 for equal features, next to nothing beyond three times `TWINS`."""
    near: Array = np.exp(-0.5 * _squared_distances(one, other, np.full(one.shape[1], TWINS**-2)))
    return near


def _squared_distances(one: Array, other: Array, relevance: Array) -> Array:
    root = np.sqrt(relevance)
    left, right = one * root, other * root
    squares = (left**2).sum(axis=1)[:, None] + (right**2).sum(axis=1)[None, :] - 2.0 * (left @ right.T)
    distances: Array = np.maximum(squares, 0.0)
    return distances


def _matern(squared: Array) -> tuple[Array, Array]:
    """Matérn 5/2 correlation of squared distances, and its slope in them."""
    root = SQRT5 * np.sqrt(squared)
    decay = np.exp(-root)
    return (1.0 + root + root**2 / 3.0) * decay, (-5.0 / 6.0) * (1.0 + root) * decay


class Surrogate:
    """Predictions for a metric from its values at some rows of features.

    `surprise`: the negative logarithm of the values' likelihood, but for a constant that grows with their number.
    """

    def __init__(self, kernel: Kernel, features: Array, values: Array, *, drift: Array | float = 0.0) -> None:
        """`values` [n] in the metric's own unit, at features [n, features]; none is needed for a prediction.

        `drift`: slopes [features] of the metric, in its own unit, that the kernel explains no part of.
        """
        self.values = values
        self._kernel, self._features, self._drift = kernel, features, drift
        own = values - drifted(features, drift)
        self.centre, self.scale = centre_and_scale(own)
        covariance = kernel.between(features, features)
        covariance[np.diag_indices(len(values))] += LEAST_NOISE
        self._factor = cholesky(covariance, lower=True, check_finite=False)
        scaled = (own - self.centre) / self.scale
        self._weights = cho_solve((self._factor, True), scaled, check_finite=False)
        self.surprise = 0.5 * float(scaled @ self._weights) + float(np.log(np.diag(self._factor) * self.scale).sum())

    def believing(self, features: Array) -> "Surrogate":
        """As if these rows [n, features] had measured what is predicted for them."""
        if not len(features):
            return self
        values = np.concatenate([self.values, self.predict(features)[0]])
        return Surrogate(self._kernel, np.concatenate([self._features, features]), values, drift=self._drift)

    def predict(self, features: Array) -> tuple[Array, Array]:
        """Mean and standard deviation [n] of what a trial there would measure: the unexplained part is in it."""
        between = self._kernel.between(features, self._features)
        mean = between @ self._weights
        reduced = solve_triangular(self._factor, between.T, lower=True, check_finite=False)
        variance = self._kernel.variance(features) - np.einsum("ij,ij->j", reduced, reduced)
        drifted_mean = self.centre + drifted(features, self._drift) + self.scale * mean
        return drifted_mean, self.scale * np.sqrt(np.maximum(variance, LEAST_NOISE))


def drifted(features: Array, drift: Array | float) -> Array:
    """What slopes say of features [n, features]: [n]."""
    along: Array = (features * drift).sum(axis=1)
    return along


def centre_and_scale(values: Array) -> tuple[float, float]:
    """Mean and standard deviation; 1 in place of a deviation that does not exist yet."""
    deviation = float(values.std())
    return float(values.mean()), deviation if deviation > 1e-12 * max(1.0, float(np.abs(values).max())) else 1.0
