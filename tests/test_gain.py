"""Expected gains against integrals and brute force, the surrogate against scikit-learn's Gaussian process."""

import math
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna._hypervolume import compute_hypervolume
from scipy.optimize import check_grad
from scipy.stats import lognorm, multivariate_normal
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, Matern

from search.sampling.gain import area_gain, shortfall, staircase, tchebycheff, unbeaten
from search.sampling.judge import fitting_count
from search.sampling.surrogate import (
    DRIFT,
    LEAST_NOISE,
    TWINS,
    Kernel,
    Prior,
    Surrogate,
    _negative_likelihood,
    _slopes,
    _twins,
)

REFERENCE = np.array([1.0, 1.0])
ORIGIN = np.array([-0.4, -0.7])
unit = st.floats(0.0, 1.2)
fronts = st.lists(st.tuples(unit, unit), max_size=6).map(lambda points: np.array(points).reshape(-1, 2))


def integrated(mean: np.ndarray, deviation: np.ndarray, losses: np.ndarray) -> float:
    """The growth of the area, over a grid of outcomes that are equally likely: lognormal above the origin."""
    quantiles = (np.arange(400) + 0.5) / 400
    shapes = np.sqrt(np.log1p((deviation / (mean - ORIGIN)) ** 2))
    scales = (mean - ORIGIN) / np.exp(0.5 * shapes**2)
    outcomes = [ORIGIN[i] + lognorm(shapes[i], scale=scales[i]).ppf(quantiles) for i in range(2)]
    inside = losses[np.all(losses < REFERENCE, axis=1)]
    front = sorted(map(tuple, inside))
    a, b = (np.asarray(one) for one in outcomes)
    edges = [*(x for x, _ in front), 1.0]
    ceilings = np.minimum.accumulate([1.0, *(y for _, y in front)])
    total, low = 0.0, -np.inf
    for edge, ceiling in zip(edges, ceilings, strict=True):
        length = np.maximum(edge - np.maximum(a, low), 0.0)
        total += float(np.outer(length, np.maximum(ceiling - b, 0.0)).mean())
        low = edge
    return total


@given(fronts, st.tuples(unit, unit), st.tuples(st.floats(0.01, 0.5), st.floats(0.01, 0.5)))
@settings(max_examples=40, deadline=None)
def test_the_expected_area_is_the_integral_over_all_outcomes(
    losses: np.ndarray, mean: tuple[float, float], deviation: tuple[float, float]
) -> None:
    front = staircase(losses, REFERENCE)
    expected = area_gain(np.array([mean]), np.array([deviation]), front, REFERENCE, ORIGIN)[0]
    assert expected == pytest.approx(integrated(np.array(mean), np.array(deviation), losses), rel=0.02, abs=2e-4)


@given(fronts, st.tuples(unit, unit))
@settings(max_examples=60, deadline=None)
def test_what_is_certain_gains_what_the_hypervolume_grows_by(losses: np.ndarray, point: tuple[float, float]) -> None:
    def area(points: np.ndarray) -> float:
        inside = points[np.all(points < REFERENCE, axis=1)]
        return float(compute_hypervolume(inside, REFERENCE)) if len(inside) else 0.0

    grown = area(np.vstack([losses, point])) - area(losses)
    gain = area_gain(np.array([point]), np.zeros((1, 2)), staircase(losses, REFERENCE), REFERENCE, ORIGIN)[0]
    assert gain == pytest.approx(grown, abs=1e-12)


def test_a_known_first_objective_is_the_limit_of_an_uncertain_one() -> None:
    front = staircase(np.array([[0.2, 0.8], [0.5, 0.4]]), REFERENCE)
    mean = np.array([[0.3, 0.5]])
    known = area_gain(mean, np.array([[0.0, 0.1]]), front, REFERENCE, ORIGIN)
    nearly = area_gain(mean, np.array([[1e-9, 0.1]]), front, REFERENCE, ORIGIN)
    assert known == pytest.approx(nearly)


def test_a_shortfall_is_the_mean_of_what_is_drawn() -> None:
    drawn = -0.4 + np.random.default_rng(0).lognormal(-0.5, 0.3, 400_000)
    mean, deviation = -0.4 + np.exp(-0.5 + 0.045), np.exp(-0.455) * np.sqrt(np.expm1(0.09))
    expected = shortfall(0.1, np.array([mean]), np.array([deviation]), -0.4)[0]
    assert expected == pytest.approx(np.maximum(0.1 - drawn, 0.0).mean(), rel=0.01)
    assert shortfall(-0.5, np.array([mean]), np.array([deviation]), -0.4)[0] == 0.0, "nothing lies under the origin"


@given(st.lists(st.tuples(*[st.integers(0, 4)] * 2), min_size=1, max_size=12).map(lambda rows: np.array(rows, float)))
def test_the_unbeaten_of_two_objectives_are_those_of_brute_force(losses: np.ndarray) -> None:
    assert unbeaten(losses).tolist() == by_brute_force(losses)


@given(st.lists(st.tuples(*[st.integers(0, 3)] * 3), min_size=1, max_size=12).map(lambda rows: np.array(rows, float)))
def test_the_unbeaten_of_three_objectives_are_those_of_brute_force(losses: np.ndarray) -> None:
    assert unbeaten(losses).tolist() == by_brute_force(losses)


def by_brute_force(losses: np.ndarray) -> list[int]:
    return [
        index
        for index, one in enumerate(losses)
        if not any(np.all(other <= one) and np.any(other < one) for other in losses)
    ]


def test_a_tchebycheff_scalar_never_prefers_what_is_beaten() -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        one, weights = rng.random(3), rng.dirichlet(np.ones(3))
        worse = one + rng.random(3) * (rng.random(3) < 0.5)
        assert tchebycheff(worse, weights) >= tchebycheff(one, weights)


AXES = np.array([0, 1, 2, 2, 2, 3])  # two numbers, three choices, one that leads


def problem(count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    features = rng.random((count, 6))
    features[:, 2:5] = np.eye(3)[rng.integers(3, size=count)] * np.sqrt(0.5)
    values = np.sin(5 * features[:, 5]) + features[:, 0] + 0.3 * (features[:, 3] > 0) + 0.1 * rng.standard_normal(count)
    return features, values


LEADING = np.array([5])


def covariance(kernel: Kernel, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """scikit-learn's Matérn and squared exponential kernels, and the trend term by term."""
    near = kernel.signal * Matern(1 / np.sqrt(kernel.relevance), nu=2.5)(one, other)
    products = [[a @ b + sum((a * a[k]) @ (b * b[k]) for k in LEADING) for b in other] for a in one]
    return near + kernel.trend * np.array(products) / one.shape[1] + kernel.noise * RBF(TWINS)(one, other)


def test_the_surrogate_predicts_what_the_textbook_formulas_do() -> None:
    features, values = problem(40)
    kernel = Kernel(np.array([1.0, 0.3, 2.0, 2.0, 2.0, 4.0]), LEADING, signal=1.4, trend=0.7, noise=0.05)
    seen, unseen = features[:30], features[30:]
    cov = partial(covariance, kernel)
    inverse = np.linalg.inv(cov(seen, seen) + LEAST_NOISE * np.eye(30))
    scaled = (values[:30] - values[:30].mean()) / values[:30].std()
    expected_mean = values[:30].mean() + values[:30].std() * (cov(unseen, seen) @ inverse @ scaled)
    left = np.diag(cov(unseen, unseen) - cov(unseen, seen) @ inverse @ cov(seen, unseen))
    mean, deviation = Surrogate(kernel, seen, values[:30]).predict(unseen)
    assert mean == pytest.approx(expected_mean)
    assert deviation == pytest.approx(values[:30].std() * np.sqrt(left))


def test_what_is_expected_beforehand_holds_where_nothing_is_known_and_adds_no_doubt() -> None:
    """With slopes the surrogate is the one of what they leave unexplained, and the slopes are put back."""
    features, values = problem(40)
    kernel = Kernel(np.array([1.0, 0.3, 2.0, 2.0, 2.0, 4.0]), LEADING, signal=1.4, trend=0.7, noise=0.05)
    slopes = np.array([-3.0, 0.0, 0.0, 0.0, 0.0, 1.0])
    drifting = Surrogate(kernel, features[:30], values[:30], drift=slopes)
    left = Surrogate(kernel, features[:30], values[:30] - features[:30] @ slopes)
    for expected, found, beforehand in zip(
        left.predict(features[30:]), drifting.predict(features[30:]), (features[30:] @ slopes, 0.0), strict=True
    ):
        assert found == pytest.approx(expected + beforehand)


def test_surprise_is_the_density_of_the_values_whatever_their_unit() -> None:
    """But for half the logarithm of 2 pi each; a density of values in another unit is another by that unit."""
    features, values = problem(30)
    kernel = Kernel(np.array([1.0, 0.3, 2.0, 2.0, 2.0, 4.0]), LEADING, signal=1.4, trend=0.7, noise=0.05)
    surrogate = Surrogate(kernel, features, values)
    spread = values.std() ** 2 * (covariance(kernel, features, features) + LEAST_NOISE * np.eye(30))
    density = multivariate_normal(np.full(30, values.mean()), spread).logpdf(values)
    assert surrogate.surprise + 15 * math.log(2 * math.pi) == pytest.approx(-density)
    assert Surrogate(kernel, features, 7.0 * values).surprise == pytest.approx(surrogate.surprise + 30 * math.log(7.0))


def test_what_is_believed_changes_no_prediction_and_leaves_less_doubt_near_it() -> None:
    features, values = problem(40)
    kernel = Kernel(np.array([1.0, 0.3, 2.0, 2.0, 2.0, 4.0]), LEADING, signal=1.4, trend=0.7, noise=0.05)
    surrogate = Surrogate(kernel, features[:30], values[:30])
    believing = surrogate.believing(features[30:])
    near = features[30:] + 0.01
    assert believing.predict(near)[1].max() < 0.5 * surrogate.predict(near)[1].min()
    assert np.abs(believing.predict(near)[0] - surrogate.predict(near)[0]).max() < 0.1 * values.std()
    assert surrogate.believing(features[:0]) is surrogate


def test_a_loss_is_expected_to_fall_with_every_covariate_and_with_nothing_else() -> None:
    prior = Prior(np.array([0, 1, 1, 2, 3, 4]), leading=1, covariates=2)
    assert prior.drift.tolist() == [0.0, 0.0, 0.0, DRIFT, DRIFT, 0.0]
    assert not Prior(np.array([0, 1, 1]), leading=1).drift.any()


def test_without_a_trend_the_surrogate_predicts_what_scikit_learns_does() -> None:
    features, values = problem(40)
    kernel = Kernel(np.array([1.0, 0.3, 2.0, 2.0, 2.0, 4.0]), LEADING, signal=1.4, trend=0.0, noise=0.05)
    oracle = GaussianProcessRegressor(
        ConstantKernel(kernel.signal) * Matern(1 / np.sqrt(kernel.relevance), nu=2.5)
        + ConstantKernel(kernel.noise) * RBF(TWINS),
        alpha=LEAST_NOISE,
        optimizer=None,
        normalize_y=True,
    ).fit(features[:30], values[:30])
    mean, deviation = Surrogate(kernel, features[:30], values[:30]).predict(features[30:])
    expected_mean, expected_deviation = oracle.predict(features[30:], return_std=True)
    assert mean == pytest.approx(expected_mean)
    assert deviation == pytest.approx(expected_deviation)


def test_a_trial_that_is_nearly_another_is_no_second_chance() -> None:
    features, values = problem(30)
    kernel = Kernel(np.ones(6), LEADING, signal=0.2, trend=0.0, noise=0.5)
    surrogate, chance = Surrogate(kernel, features, values), values.std() * np.sqrt(kernel.noise)
    near, further = features.copy(), features.copy()
    near[:, 1] += 0.01
    further[:, 1] += 5 * TWINS
    assert np.all(surrogate.predict(near)[1] < 0.5 * chance)
    assert np.median(surrogate.predict(further)[1]) > chance


def test_the_likelihood_is_the_normal_distributions_and_its_slope_is_right() -> None:
    features, values = problem(20)
    features[7] = features[3] + [0.03, 0.0, 0.0, 0.0, 0.0, 0.04]  # as far apart as twins are
    logs = np.array([0.3, -1.0, 0.5, 1.2, 0.2, -0.4, -2.0])
    kernel = Kernel(np.exp(logs[:4])[AXES], LEADING, signal=np.exp(0.2), trend=np.exp(-0.4), noise=np.exp(-2.0))
    whole = covariance(kernel, features, features) + LEAST_NOISE * np.eye(20)
    given = (features, values, AXES, _slopes(features, LEADING), _twins(features, features))
    loss = _negative_likelihood(logs, *given)[0]
    constant = 0.5 * len(values) * np.log(2 * np.pi)
    assert loss + constant == pytest.approx(-multivariate_normal(cov=whole).logpdf(values))
    wrong = check_grad(
        lambda at: _negative_likelihood(at, *given)[0],
        lambda at: _negative_likelihood(at, *given)[1],
        logs,
    )
    assert wrong < 1e-4


def test_a_fitted_kernel_is_more_plausible_than_the_prior_and_finds_what_does_not_matter() -> None:
    features, values = problem(80)
    values = values + 2.0 * np.cos(6.0 * features[:, 0])  # no trend says that
    values = (values - values.mean()) / values.std()
    fitted = Prior(AXES, leading=1).fitted(features, values)
    lengths = 1 / np.sqrt(fitted.relevance)
    assert lengths[1] > 2 * lengths[0], "the second number moves nothing"
    assert fitted.noise < 0.1


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_predictions_from_next_to_nothing_are_finite_and_near_what_was_seen(count: int) -> None:
    features, values = problem(30)
    prior = Prior(AXES, leading=1)
    seen = values[:count]
    scaled = (seen - seen.mean()) / (seen.std() or 1.0)
    mean, deviation = Surrogate(prior.fitted(features[:count], scaled), features[:count], seen).predict(features)
    assert np.all(np.isfinite(mean))
    assert np.all(deviation > 0.0)
    assert np.all(np.abs(mean - seen.mean()) <= 3 * (seen.std() + 1e-9))


def test_equal_values_make_no_trouble() -> None:
    features, _ = problem(10)
    mean, deviation = Surrogate(Prior(AXES, leading=1).kernel(), features, np.full(10, 0.9)).predict(features)
    assert mean == pytest.approx(np.full(10, 0.9))
    assert np.all(np.isfinite(deviation))


def test_kernels_are_fitted_on_a_ladder_of_counts() -> None:
    counts = [fitting_count(n) for n in range(2001)]
    assert counts[:25] == list(range(25))
    assert counts == sorted(counts)
    assert all(count <= n for n, count in enumerate(counts))
    assert len(set(counts[24:])) < 30
