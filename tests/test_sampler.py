"""GainPerCost: an Optuna sampler like any other, repeatable, and right about what is known, pending or impossible."""

import math
import pickle
from collections.abc import Callable, Mapping
from typing import Any

import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.testing.pytest_samplers import BasicSamplerTestCase, MultiObjectiveSamplerTestCase, RelativeSamplerTestCase
from optuna.trial import TrialState

from search.sampling.sampler import GainPerCost

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
