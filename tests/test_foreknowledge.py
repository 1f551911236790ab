"""What is known of objectives before training: the amount's own, the hypervolume's reference, which settings matter."""

import random
from pathlib import Path

import pytest

from search.foreknowledge import Foreknowledge
from search.proposer import Outcome, Proposer
from search.sampling.repeatable import to_optuna
from spaces.load import load_study
from spaces.plan import Plan
from spaces.study import Study
from tests.standin import stand_in_study

SPACES = Path(__file__).parent.parent / "spaces"
SEARCHES = ["digits", "digits_grid", "fashion_mnist", "cifar10_resnet56", "imagenet_resnet50"]


def as_optuna(study: Study, choices: dict[str, object]) -> dict[str, object]:
    return {parameter.path: to_optuna(parameter.domain, choices[parameter.path]) for parameter in study.parameters}


@pytest.mark.parametrize("name", SEARCHES)
def test_what_is_foreknown_is_what_the_plan_says(name: str) -> None:
    study = load_study(SPACES / f"{name}.yaml")
    foreknowledge, rng = Foreknowledge(study), random.Random(0)
    for _ in range(30):
        choices = study.sample(rng)
        params, plan = as_optuna(study, choices), study.plan(choices)
        assert plan.prune is not None
        for index, function in foreknowledge.known.items():
            if study.objectives[index] == "keep_macs":
                assert function(params) == plan.prune.amount.keep_macs
        assert set(foreknowledge.active(params)) == set(study.active(choices))


def test_macs_are_foreknown_once_the_dense_networks_are() -> None:
    study = load_study(SPACES / "digits.yaml", ["objectives=[accuracy, macs]"])
    foreknowledge = Foreknowledge(study)
    params = as_optuna(study, study.defaults())
    assert foreknowledge.known[1](params) is None
    foreknowledge.hear({"accuracy": 0.9, "macs": 300.0, "keep_macs": 0.3}, dense=False)
    assert foreknowledge.known[1](params) == pytest.approx(1000.0 * params["prune.amount.keep_macs"])


def test_weights_are_foreknown_where_weights_are_pruned() -> None:
    study = load_study(
        SPACES / "digits.yaml",
        [
            "objectives=[accuracy, keep_weights, keep_macs]",
            "prune.granularity=weights",
            "prune.criterion=magnitude",
            "prune.allocation=global",
            "prune.amount={keep_weights: {from: 0.1, to: 0.9}}",
        ],
    )
    params = as_optuna(study, study.defaults())
    known = Foreknowledge(study).known
    assert known[1](params) == 0.5
    assert known[2](params) is None, "masks leave the MACs as they are"


def test_the_reference_is_the_hypervolumes() -> None:
    foreknowledge = Foreknowledge(load_study(SPACES / "digits.yaml"))
    assert foreknowledge.reference() == [None, 1.0]
    foreknowledge.hear({"accuracy": 0.92, "keep_macs": 0.4}, dense=False)
    assert foreknowledge.reference() == [pytest.approx(0.82), 1.0]
    foreknowledge.hear({"accuracy": 0.95, "keep_macs": 1.0, "macs": 10.0}, dense=True)
    foreknowledge.hear({"accuracy": 0.97, "keep_macs": 0.9}, dense=False)
    assert foreknowledge.reference() == [pytest.approx(0.85), 1.0]


def test_what_plans_come_near_to_is_the_dense_network_or_the_best_that_is_known_of_it() -> None:
    foreknowledge = Foreknowledge(load_study(SPACES / "digits.yaml", ["objectives=[accuracy, keep_macs, macs]"]))
    assert foreknowledge.limit() == [None, 1.0, None]
    foreknowledge.watch({"accuracy": 0.88, "epoch": 7})
    assert foreknowledge.limit() == [0.88, 1.0, None], "the baseline has come so far"
    foreknowledge.hear({"accuracy": 0.92, "keep_macs": 0.4, "macs": 4.0}, dense=False)
    assert foreknowledge.limit() == [0.92, 1.0, 10.0]
    foreknowledge.watch({"accuracy": 0.9, "epoch": 8})
    assert foreknowledge.reference()[0] == pytest.approx(0.82)
    foreknowledge.hear({"accuracy": 0.91, "keep_macs": 1.0, "macs": 10.0}, dense=True)
    assert foreknowledge.limit() == [0.91, 1.0, 10.0]


def outcome_of(plan: Plan) -> Outcome:
    keep = 1.0 if plan.prune is None else plan.prune.amount.keep_macs or 1.0
    return Outcome({"accuracy": 0.95 - 0.1 * (1 - keep) ** 4, "keep_macs": keep, "params": 5_000 * keep})


def spent(tmp_path: Path, remaining: dict[str, float], *settings: str) -> float:
    """What the proposals cost where a criterion has a price."""
    study = stand_in_study(tmp_path, *settings)

    def price(plan: Plan) -> float:
        return remaining[plan.prune.criterion.name] if plan.prune is not None else 0.0

    proposer = Proposer(study, remaining=price)
    paid = 0.0
    for number in range(25):
        proposal = proposer.ask(number)
        assert proposal is not None
        paid += price(proposal.plan)
        proposer.tell(number, outcome_of(proposal.plan))
    return paid


def test_a_study_that_asks_for_gain_gets_cheap_plans(tmp_path: Path) -> None:
    prices = {"l1": 1.0, "l2": 9.0, "random": 9.0}
    unaware = spent(tmp_path, prices, "budget.sampler=tpe")
    assert spent(tmp_path, prices, "budget.sampler=gain", "budget.haste=1") < 0.6 * unaware
    assert spent(tmp_path, prices, "budget.sampler=gain") < 0.8 * unaware, "at the haste it has unless told"


@pytest.mark.parametrize("base", ["tpe", "nsga2", "random"])
def test_every_base_makes_a_search_of_its_own(tmp_path: Path, base: str) -> None:
    study = stand_in_study(tmp_path, "budget.sampler=gain", f"budget.base={base}")
    other = stand_in_study(tmp_path, "budget.sampler=gain", "budget.base=tpe")
    assert (study.fingerprint == other.fingerprint) == (base == "tpe")
    proposer = Proposer(study)
    for number in range(16):
        proposal = proposer.ask(number)
        assert proposal is not None
        proposer.tell(number, outcome_of(proposal.plan))


def test_what_others_have_trained_to_its_end_is_not_proposed_again(tmp_path: Path) -> None:
    """Two plans may say the same in other words: a last event that never comes, say."""
    prices = {"l1": 0.0, "l2": 4.0, "random": 5.0}
    study = stand_in_study(tmp_path, "budget.sampler=gain")
    proposer, proposed = Proposer(study, remaining=lambda plan: prices[criterion_of(plan)]), []
    for number in range(25):
        proposal = proposer.ask(number)
        assert proposal is not None
        proposer.tell(number, outcome_of(proposal.plan))
        proposed.append(criterion_of(proposal.plan))
    assert set(proposed[1:]) == {"l2", "random"}


def criterion_of(plan: Plan) -> str:
    return "none" if plan.prune is None else plan.prune.criterion.name


def test_known_obstacles_and_duplicates_are_not_even_offered(tmp_path: Path) -> None:
    study = stand_in_study(tmp_path, "budget.sampler=gain")

    def problem(plan: Plan) -> str | None:
        return "l2 is out" if plan.prune is not None and plan.prune.criterion.name == "l2" else None

    proposer = Proposer(study, obstacle=problem)
    passed = 0
    for number in range(25):
        proposal = proposer.ask(number)
        assert proposal is not None
        passed += len(proposal.passed_over)
        proposer.tell(number, outcome_of(proposal.plan))
    assert passed == 0
