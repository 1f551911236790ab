"""GainPerCost: an Optuna sampler like any other, repeatable, and right about what is known, pending or impossible."""

import math
import pickle
import random
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.testing.pytest_samplers import BasicSamplerTestCase, MultiObjectiveSamplerTestCase, RelativeSamplerTestCase
from optuna.trial import TrialState, create_trial

from search.sampling.candidates import anywhere
from search.sampling.encoding import Encoding
from search.sampling.judge import Judge, Kernels
from search.sampling.past import Covariates, Told, View
from search.sampling.prices import Prices
from search.sampling.sampler import GainPerCost
from search.sampling.surrogate import Prior, Surrogate

optuna.logging.set_verbosity(optuna.logging.ERROR)
BASES = ["tpe", "nsga2", "random"]


class TestOptunasContract(BasicSamplerTestCase, RelativeSamplerTestCase, MultiObjectiveSamplerTestCase):
    @pytest.fixture(params=BASES)
    def sampler(self, request: pytest.FixtureRequest) -> Callable[[], BaseSampler]:
        return lambda: GainPerCost(request.param, seed=0)


MIXED: dict[str, BaseDistribution] = {
    "keep": FloatDistribution(0.03, 0.8, log=True),
    "peak": FloatDistribution(0.1, 1.0),
    "strength": FloatDistribution(0.0, 2.0, step=0.25),
    "interval": IntDistribution(1, 5),
    "epochs": IntDistribution(1, 64, log=True),
    "until": IntDistribution(8, 16, step=4),
    "criterion": CategoricalDistribution(("l1", "frs", None)),
    "only": CategoricalDistribution(("one",)),
    "fixed": FloatDistribution(0.5, 0.5),
}


def error_of(params: Mapping[str, Any]) -> float:
    worse = {"l1": 0.02, "frs": 0.0, None: 0.06}[params["criterion"]]
    return 0.05 + 0.02 * math.log(1 / params["keep"]) + worse + 0.05 * abs(params["peak"] - 0.7)


def told(study: optuna.Study, sampler: GainPerCost, trials: int, *, running: int = 0) -> list[dict[str, Any]]:
    """Asks and tells; every seventh trial fails, every fifth is pruned as impossible."""
    made = []
    for number in range(trials + running):
        sampler.reseed(1000 + number)
        trial = study.ask(MIXED)
        made.append(dict(trial.params))
        if number >= trials:
            continue
        impossible = number % 5 == 4
        trial.set_constraint("plan", 1.0 if impossible else 0.0)
        if number % 7 == 6:
            study.tell(trial, state=TrialState.FAIL)
        elif impossible:
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, [error_of(trial.params), trial.params["keep"]])
    return made


def two_objectives(sampler: BaseSampler) -> optuna.Study:
    return optuna.create_study(directions=["minimize", "minimize"], sampler=sampler)


def informed(base: str = "tpe", **more: Any) -> GainPerCost:
    given: dict[str, Any] = {
        "space": MIXED,
        "cost": lambda params: params["keep"],
        "known": {1: lambda params: params["keep"]},
        "scales": {1: "log"},
    }
    return GainPerCost(base, **{**given, **more})


@pytest.mark.parametrize("base", BASES)
def test_a_proposal_is_a_function_of_the_seed_and_of_the_trials(base: str) -> None:
    sampler = informed(base)
    study = two_objectives(sampler)
    made = told(study, sampler, 30, running=2)
    other = informed(base)
    rebuilt = two_objectives(other)
    rebuilt.add_trials(study.trials[:20])
    for number in range(20, 32):
        other.reseed(1000 + number)
        assert rebuilt.ask(MIXED).params == made[number]
        rebuilt = two_objectives(other)
        rebuilt.add_trials(study.trials[: number + 1])


def test_another_seed_proposes_something_else() -> None:
    sampler = informed()
    study = two_objectives(sampler)
    told(study, sampler, 20)
    proposals = []
    for seed in (1, 2):
        sampler.reseed(seed)
        proposals.append(dict(study.ask(MIXED).params))
    assert proposals[0] != proposals[1]


def test_trials_that_run_at_once_are_all_different() -> None:
    sampler = informed()
    study = two_objectives(sampler)
    told(study, sampler, 20)
    running = []
    for _ in range(8):
        sampler.reseed(7)  # the same numbers are drawn: what differs is what runs
        running.append(tuple(study.ask(MIXED).params.items()))
    assert len(set(running)) == 8


def test_all_values_lie_in_their_distributions() -> None:
    sampler = informed()
    study = two_objectives(sampler)
    for params in told(study, sampler, 40):
        for name, distribution in MIXED.items():
            assert distribution._contains(distribution.to_internal_repr(params[name]))


def test_it_can_be_pickled_and_goes_on_the_same() -> None:
    sampler = GainPerCost("tpe", space=MIXED, seed=3)
    study = two_objectives(sampler)
    told(study, sampler, 15)
    copied = pickle.loads(pickle.dumps(sampler))
    sampler.reseed(5)
    copied.reseed(5)
    trials = study.trials
    twin = two_objectives(copied)
    twin.add_trials(trials)
    assert twin.ask(MIXED).params == study.ask(MIXED).params


@pytest.mark.parametrize("finished", [0, 1, 2, 6])
@pytest.mark.parametrize("objectives", [1, 2, 3])
def test_it_proposes_whatever_there_is_to_learn_from(finished: int, objectives: int) -> None:
    sampler = GainPerCost("tpe", space=MIXED, seed=0)
    study = optuna.create_study(directions=["minimize"] * objectives, sampler=sampler)
    for _ in range(finished):
        trial = study.ask(MIXED)
        study.tell(trial, [error_of(trial.params), trial.params["keep"], trial.params["peak"]][:objectives])
    assert study.ask(MIXED).params.keys() == MIXED.keys()


def test_infinite_values_and_trials_of_other_spaces_are_borne() -> None:
    sampler = informed()
    study = two_objectives(sampler)
    told(study, sampler, 12)
    study.add_trial(create_trial(params={}, distributions={}, values=[0.0, 0.0]))
    trial = study.ask(MIXED)
    study.tell(trial, [math.inf, trial.params["keep"]])
    trial = study.ask(MIXED)
    study.tell(trial, [0.1, -math.inf])
    assert study.ask(MIXED).params.keys() == MIXED.keys()


GRID: dict[str, BaseDistribution] = {
    "criterion": CategoricalDistribution(("l1", "frs", "snap")),
    "keep": CategoricalDistribution((0.1, 0.3, 0.7)),
    "recover": CategoricalDistribution(("continue", "cosine")),
}


def test_a_space_of_choices_alone_is_used_up_without_repeats() -> None:
    sampler = GainPerCost("random", space=GRID, known={1: lambda params: params["keep"]}, scales={1: "log"})
    study = two_objectives(sampler)
    for number in range(18):
        sampler.reseed(number)
        trial = study.ask(GRID)
        study.tell(
            trial, [1 - trial.params["keep"] + 0.1 * (trial.params["recover"] == "cosine"), trial.params["keep"]]
        )
    assert len({tuple(trial.params.items()) for trial in study.trials}) == 18


def test_settings_that_are_left_out_make_no_new_proposal() -> None:
    """Where a plan leaves a setting out, another value of it is the same plan."""
    space: dict[str, BaseDistribution] = {
        "schedule": CategoricalDistribution(("once", "every")),
        "once.after": CategoricalDistribution((3, 6)),
        "every.interval": CategoricalDistribution((1, 2)),
    }

    def active(params: Mapping[str, Any]) -> list[str]:
        return ["schedule", "once.after" if params["schedule"] == "once" else "every.interval"]

    sampler = GainPerCost("random", space=space, active=active)
    study = optuna.create_study(sampler=sampler)
    for number in range(4):
        sampler.reseed(number)
        study.tell(study.ask(space), float(number))
    plans = [tuple(trial.params[name] for name in active(trial.params)) for trial in study.trials]
    assert len(set(plans)) == 4


def test_what_all_proposals_come_near_to_draws_the_search_there() -> None:
    """Nothing was tried above a tenth; that the whole network errs little says that more is worth a look."""

    def proposed(**more: Any) -> float:
        sampler = informed("random", cost=None, reference=lambda: [0.3, 1.0], **more)
        study, rng, encoding = two_objectives(sampler), random.Random(0), Encoding(MIXED)
        for drawn in encoding.params(anywhere(encoding, 12, np.random.default_rng(0))):
            params = drawn | {"keep": rng.uniform(0.03, 0.1)}
            values = [0.25 + 0.03 * rng.random(), params["keep"]]
            study.add_trial(create_trial(params=params, distributions=MIXED, values=values))
        keeps = []
        for seed in range(8):
            sampler.reseed(seed)
            trial = study.ask(MIXED)
            keeps.append(math.log(trial.params["keep"]))
            study.tell(trial, state=TrialState.FAIL)
        return math.exp(sum(keeps) / len(keeps))

    assert proposed(limit=lambda: [0.05, 1.0]) > 1.5 * proposed()
    assert proposed(limit=lambda: [None, 1.0]) == proposed(), "one that is not known says nothing"


def test_what_follows_from_the_settings_is_learnt_from_fewer_trials() -> None:
    """The error hangs on the product of two settings; whoever is told it predicts better."""

    def product(params: Mapping[str, Any] | None) -> float:
        assert params is not None
        return float(params["peak"] * params["strength"])

    encoding, directions = Encoding(MIXED), two_objectives(informed()).directions
    rows = anywhere(encoding, 216, np.random.default_rng(0))
    params = encoding.params(rows)
    errors = np.array([0.4 * abs(product(one) - 0.5) - 0.1 * math.log(one["keep"]) for one in params])

    def missed(covariates: Covariates | None) -> float:
        view = View(encoding, directions, {1: "log"}, {1: lambda params: params["keep"]}, covariates)
        features = view.features(rows, params, view.known(params))
        told, values = features[:16], errors[:16]
        kernel = view.prior.fitted(told, (values - values.mean()) / values.std())
        predicted, _ = Surrogate(kernel, told, values).predict(features[16:])
        return float(np.sqrt(np.mean((predicted - errors[16:]) ** 2)))

    alone = missed(None)
    assert missed(lambda params: [product(params)]) < 0.7 * alone
    assert missed(lambda params: [1.0]) == alone, "what is the same for all says nothing"


@pytest.mark.parametrize("grows", [False, True])
def test_the_spread_of_what_is_predicted_grows_with_the_loss_as_that_of_the_losses_does(grows: bool) -> None:
    """Losses that scatter alike everywhere, and some that scatter by what they lie above the best ones."""
    space: dict[str, BaseDistribution] = {name: FloatDistribution(0.0, 1.0) for name in ("steep", *"abcde")}
    view = View(Encoding(space), optuna.create_study().directions, {}, {})
    rng = np.random.default_rng(0)
    rows = rng.random((80, 6))
    excess = np.exp(2.0 * (rows[:, 0] - 1.0))  # from 0.14 to 1
    losses = (1.0 + excess + 0.1 * rng.standard_normal(80) * (excess if grows else 0.4))[:, None]
    everyone = np.arange(80)
    told = Told(rows, view.features(rows, [{}] * 80, np.zeros((80, 1))), losses, np.zeros((80, 0)), everyone >= 0)
    judge = Judge(
        view,
        told,
        told.features[:0],
        reference=np.array([np.nan]),
        limit=np.zeros((0, 1)),
        useful=everyone,
        kernels=Kernels(),
        rng=rng,
    )
    ends = np.full((2, 6), 0.5)
    ends[:, 0] = (0.05, 0.95)
    _, (low, high) = judge._predict(view.features(ends, [{}] * 2, np.zeros((2, 1))), np.full((2, 1), np.nan))
    assert high > 2.8 * low if grows else high < 2.0 * low


def test_the_first_proposals_are_high_in_what_is_known_to_help() -> None:
    """Before anything is told; and without covariates peaks are no higher than chance has them."""

    def peaks(**more: Any) -> float:
        sampler = informed(**more)
        found = []
        for seed in range(40):
            sampler.reseed(seed)
            found.append(two_objectives(sampler).ask(MIXED).params["peak"])
        return float(np.mean(found))

    def peak(params: Mapping[str, Any] | None) -> list[float]:
        return [1.0 if params is None else params["peak"]]

    assert peaks(covariates=peak) > peaks() + 0.05


def test_what_must_not_be_proposed_is_not() -> None:
    sampler = informed(cost=lambda params: math.inf if params["interval"] > 2 else 1.0)
    study = two_objectives(sampler)
    made = told(study, sampler, 30)
    assert all(params["interval"] <= 2 for params in made)


def test_obstacles_are_learnt() -> None:
    """Half of the space cannot be run, and nobody says so beforehand."""
    sampler = informed(cost=None)
    study = two_objectives(sampler)
    for number in range(40):
        sampler.reseed(number)
        trial = study.ask(MIXED)
        impossible = trial.params["peak"] < 0.55
        trial.set_constraint("plan", float(impossible))
        if impossible:
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, [error_of(trial.params), trial.params["keep"]])
    late = [trial.state for trial in study.trials[25:]]
    assert late.count(TrialState.PRUNED) <= 3


def test_proposals_keep_within_a_constraint_that_only_trials_tell() -> None:
    sampler = informed(cost=None)
    study = two_objectives(sampler)
    for number in range(40):
        sampler.reseed(number)
        trial = study.ask(MIXED)
        trial.set_constraint("latency", trial.params["interval"] + 3 * trial.params["peak"] - 4.0)
        study.tell(trial, [error_of(trial.params), trial.params["keep"]])
    late = [trial.constraints["latency"] for trial in study.trials[20:]]
    assert sum(value > 0.0 for value in late) <= 4


def test_no_feasible_trial_yet_is_no_trouble() -> None:
    sampler = informed()
    study = two_objectives(sampler)
    for number in range(20):
        sampler.reseed(number)
        trial = study.ask(MIXED)
        trial.set_constraint("never", 1.0 + trial.params["peak"])
        study.tell(trial, [error_of(trial.params), trial.params["keep"]])
    assert len({tuple(trial.params.items()) for trial in study.trials}) == 20


def test_of_equal_gains_the_cheap_one_is_proposed() -> None:
    """The cost depends on a setting that moves no objective."""

    def chosen(cost: Callable[[Mapping[str, Any]], float] | None) -> float:
        sampler = informed(cost=cost)
        study = two_objectives(sampler)
        made = told(study, sampler, 30)
        return float(np.mean([params["until"] for params in made[10:]]))

    assert chosen(lambda params: 1.0 if params["until"] == 8 else 5.0) < 9.0
    assert chosen(None) > 9.0


def test_the_more_run_at_once_the_less_their_cost_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    powers = []

    class Noted(Prices):
        def __init__(self, cost: Any, prior: Prior, haste: float) -> None:
            powers.append(haste)
            super().__init__(cost, prior, haste)

    monkeypatch.setattr("search.sampling.sampler.Prices", Noted)
    sampler = informed("random", haste=0.6)
    study = two_objectives(sampler)
    told(study, sampler, 12, running=4)
    assert powers[-4:] == pytest.approx([0.6, 0.6 / math.sqrt(2), 0.6 / math.sqrt(3), 0.3])


def test_only_some_candidates_are_priced() -> None:
    """A cost may take a millisecond."""
    asked = []

    def cost(params: Mapping[str, Any]) -> float:
        asked.append(params)
        return 1.0

    sampler = informed(cost=cost)
    study = two_objectives(sampler)
    told(study, sampler, 20)
    asked.clear()
    study.ask(MIXED)
    assert 0 < len(asked) <= 32


def test_the_reference_decides_what_counts() -> None:
    """Networks worse than the reference add nothing, so they are not proposed."""

    def kept(reference: list[float | None]) -> float:
        sampler = informed(cost=None, reference=lambda: reference)
        study = two_objectives(sampler)
        for number in range(30):
            sampler.reseed(number)
            trial = study.ask(MIXED)
            study.tell(trial, [error_of(trial.params), trial.params["keep"]])
        return float(np.median([trial.params["keep"] for trial in study.trials[12:]]))

    assert kept([0.08, 1.0]) > 1.5 * kept([0.3, 1.0])


def area(study: optuna.Study) -> float:
    """Covered in (error, log keep) under (0.2, 1)."""
    points = sorted((math.log(trial.values[1]), trial.values[0]) for trial in study.trials if trial.values is not None)
    covered, ceiling = 0.0, 0.2
    for exponent, error in points:
        if error < ceiling:
            covered += (ceiling - error) * -exponent
            ceiling = error
    return covered


def spent_until(study: optuna.Study, goal: float) -> float:
    """Cost of the trials until the area is covered; infinite where it never is."""
    replayed, spent = optuna.create_study(directions=["minimize", "minimize"]), 0.0
    for trial in study.trials:
        replayed.add_trial(trial)
        spent += trial.params["keep"]
        if area(replayed) >= goal:
            return spent
    return math.inf


def searched(sampler: BaseSampler, trials: int, *, first_seed: int = 0) -> optuna.Study:
    """Pruning in small: accuracy falls with what is cut, settings matter, and plans alone that are alike end alike."""
    study = two_objectives(sampler)
    for number in range(trials):
        if isinstance(sampler, GainPerCost):
            sampler.reseed(first_seed + number)
        trial = study.ask(MIXED)
        luck = random.Random(repr(neighbourhood(trial.params))).gauss(0.0, 0.002)
        study.tell(trial, [error_of(trial.params) + luck, trial.params["keep"]])
    return study


def neighbourhood(params: Mapping[str, Any]) -> list[Any]:
    """Settings with numbers rounded to a tenth of their range."""
    places = [(axis.choices, axis.coordinate(params[axis.name])) for axis in Encoding(MIXED).axes]
    return [place if choices else round(10 * place) for choices, place in places]


def test_it_covers_what_tpe_does_for_half_of_the_cost() -> None:
    shares = []
    for seed in range(5):
        plain = searched(TPESampler(multivariate=True, seed=seed), 50)
        ours = searched(informed(reference=lambda: [0.2, 1.0]), 50, first_seed=1000 * seed)
        shares.append(spent_until(ours, area(plain)) / sum(trial.params["keep"] for trial in plain.trials))
    assert sorted(shares)[2] < 0.5
