"""Proposal n depends on (study seed, n, log) alone; duplicates, constraints and failures are told as they must be."""

from pathlib import Path

import pytest
from optuna.trial import TrialState

from search.proposer import Outcome, Proposal, Proposer
from spaces.plan import Plan, digest
from spaces.study import Study
from tests.standin import stand_in_study


def study_of(tmp_path: Path, sampler: str = "tpe", *overrides: str) -> Study:
    return stand_in_study(tmp_path, f"budget.sampler={sampler}", *overrides)


def outcome_of(proposal: Proposal) -> Outcome:
    """Every sixth trial fails."""
    if proposal.number % 6 == 5:
        return Outcome()
    keep = 1.0 if proposal.plan.prune is None else proposal.plan.prune.amount.keep_macs or 1.0
    return Outcome({"accuracy": 0.95 - 0.1 * (1 - keep) ** 4, "keep_macs": keep, "params": 10_000 * keep})


def propose(proposer: Proposer, first: int, last: int) -> list[Proposal]:
    made = []
    for number in range(first, last):
        proposal = proposer.ask(number)
        assert proposal is not None
        made.append(proposal)
        proposer.tell(number, outcome_of(proposal))
    return made


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random", "gain"])
@pytest.mark.parametrize("killed_at", [1, 12, 45])
def test_a_resumed_proposer_proposes_what_an_undisturbed_one_does(tmp_path: Path, sampler: str, killed_at: int) -> None:
    study = study_of(tmp_path, sampler)
    straight = propose(Proposer(study), 0, 55)
    resumed = Proposer(study)
    for proposal in straight[:killed_at]:
        resumed.repeat(proposal)
        resumed.tell(proposal.number, outcome_of(proposal))
    assert propose(resumed, killed_at, 55) == straight[killed_at:]


def test_a_trial_that_was_running_when_the_search_was_killed_is_known_as_running(tmp_path: Path) -> None:
    study = study_of(tmp_path)
    straight, resumed = Proposer(study), Proposer(study)
    first = propose(straight, 0, 20)
    running = straight.ask(20)
    assert running is not None
    expected = straight.ask(21)
    for proposal in first:
        resumed.repeat(proposal)
        resumed.tell(proposal.number, outcome_of(proposal))
    resumed.repeat(running)
    assert resumed.ask(21) == expected


def test_another_seed_proposes_other_plans(tmp_path: Path) -> None:
    one = propose(Proposer(study_of(tmp_path)), 0, 4)
    other = propose(Proposer(study_of(tmp_path, "tpe", "budget.seed=2")), 0, 4)
    assert one[0].plan == other[0].plan, "the baseline does not depend on the seed of the proposals"
    assert all(a.plan != b.plan for a, b in zip(one[1:], other[1:], strict=True))


def test_the_first_proposal_is_the_dense_baseline(tmp_path: Path) -> None:
    study = study_of(tmp_path)
    first = Proposer(study).ask(0)
    assert first == Proposal(0, study.baseline())
    assert first.plan.prune is None


SMALL = (
    "train.learning_rate=0.1",
    "prune.allocation=global",
    "prune.amount.keep_macs=0.5",
    "recover=continue",
)  # leaves 3 criteria x 2 intervals


def test_a_duplicate_is_told_the_known_result_and_never_proposed(tmp_path: Path) -> None:
    proposer = Proposer(study_of(tmp_path, "random", *SMALL))
    made = propose(proposer, 0, 7)
    assert len({proposal.plan.hash for proposal in made}) == 7
    passed = [offered for proposal in made for offered in proposal.passed_over]
    assert passed
    told = {trial.number: trial for trial in proposer._optuna.trials}
    assert len(told) == 6 + len(passed)
    for trial in told.values():
        twins = [other for other in told.values() if other.params == trial.params]
        assert {str(twin.values) for twin in twins} == {str(trial.values)}


def test_a_duplicate_of_a_running_trial_hears_with_it(tmp_path: Path) -> None:
    proposer = Proposer(study_of(tmp_path, "random", *SMALL))
    made = [proposer.ask(number) for number in range(7)]
    waiting = [trial for trial in proposer._optuna.trials if trial.state == TrialState.RUNNING]
    assert len(waiting) > 6
    for proposal in made:
        assert proposal is not None
        proposer.tell(proposal.number, outcome_of(proposal))
    assert not [trial for trial in proposer._optuna.trials if trial.state == TrialState.RUNNING]


def test_a_space_that_is_used_up_ends_the_proposals(tmp_path: Path) -> None:
    proposer = Proposer(study_of(tmp_path, "random", *SMALL))
    propose(proposer, 0, 7)
    assert proposer.ask(7) is None


def test_every_told_trial_carries_every_constraint_and_its_state(tmp_path: Path) -> None:
    study = study_of(tmp_path, "tpe", "constraints.accuracy={min: 0.9}")

    def problem(plan: Plan) -> str | None:
        return "l2 is out" if plan.prune is not None and plan.prune.criterion.name == "l2" else None

    proposer = Proposer(study, obstacle=problem)
    made = propose(proposer, 0, 25)
    trials = proposer._optuna.trials
    assert {frozenset(trial.constraints) for trial in trials} == {frozenset({"params max", "accuracy min", "plan"})}
    assert {trial.state for trial in trials} == {TrialState.COMPLETE, TrialState.FAIL, TrialState.PRUNED}
    pruned = [trial for trial in trials if trial.state == TrialState.PRUNED]
    assert all(trial.constraints["plan"] == 1.0 for trial in pruned)
    assert len(pruned) == sum(offered.obstacle == "l2 is out" for p in made for offered in p.passed_over)
    for trial in trials:
        if trial.state == TrialState.COMPLETE:
            accuracy, keep = trial.values
            assert trial.constraints["params max"] == pytest.approx((10_000 * keep - 9000) / 9000)
            assert trial.constraints["accuracy min"] == pytest.approx((0.9 - accuracy) / 0.9)


def test_values_reach_optuna_as_the_plan_has_them(tmp_path: Path) -> None:
    proposer = Proposer(study_of(tmp_path))
    made = propose(proposer, 0, 30)
    for proposal, trial in zip(made[1:], proposer._optuna.trials, strict=True):
        assert proposal.plan.prune is not None
        assert trial.params["prune.amount.keep_macs"] == proposal.plan.prune.amount.keep_macs
        assert proposal.choices["prune.criterion"] == proposal.plan.prune.criterion.name


def test_tpe_looks_where_the_front_is(tmp_path: Path) -> None:
    """Guards against telling objectives the wrong way round."""

    def spread(sampler: str) -> float:
        study = study_of(tmp_path, sampler, "objectives=[accuracy]", "constraints={}")
        proposer = Proposer(study)
        keeps = []
        for number in range(60):
            proposal = proposer.ask(number)
            assert proposal is not None
            keep = 1.0 if proposal.plan.prune is None else proposal.plan.prune.amount.keep_macs or 1.0
            keeps.append(keep)
            proposer.tell(number, Outcome({"accuracy": 1.0 - abs(keep - 0.4)}))
        return sum(abs(keep - 0.4) for keep in keeps[30:]) / 30

    assert spread("tpe") < 0.5 * spread("random")


def test_it_learns_what_retraining_is_worth(tmp_path: Path) -> None:
    """Accuracy hangs on the retraining alone, which no setting shows: only who is told of it can learn that."""

    def retraining(plan: Plan) -> float:
        if plan.prune is None:
            return 1.0
        timing = [part.model_dump(mode="json") for part in (plan.prune.schedule, plan.prune.amount, plan.recover)]
        return int(digest(timing)[:6], 16) / 16**6

    def retrained(proposer: Proposer) -> float:
        found = []
        for number in range(40):
            proposal = proposer.ask(number)
            assert proposal is not None
            keep = 1.0 if proposal.plan.prune is None else proposal.plan.prune.amount.keep_macs or 1.0
            found.append(retraining(proposal.plan))
            proposer.tell(number, Outcome({"accuracy": 0.8 + 0.1 * found[-1], "keep_macs": keep, "params": 1e4 * keep}))
        return sum(found[20:]) / 20

    study = study_of(tmp_path, "gain", "budget.haste=0")
    assert retrained(Proposer(study, retraining=retraining)) > 0.9 > retrained(Proposer(study)) + 0.2
