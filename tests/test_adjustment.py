"""Network adjustment: each trial follows from the one before, a log repeats it, and a real network goes through it."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from search.adjustment import AdjustmentProposer
from search.driver import Assignment, Driver
from search.proposer import Outcome, Proposal
from search.widths import Measured
from spaces.errors import UserError
from spaces.load import load_study
from spaces.plan import Plan
from spaces.study import Study
from tests.standin import StandInOutlook
from tests.test_widths import measured
from tracking.log import EventLog
from trainables.findings import FILE
from trainables.store import StageStore
from trainables.trial import Trial

ROOT = Path(__file__).parent.parent
STUDY = """\
data: {name: digits, validation: 900}
model: {name: resnet8, width: 6, shortcut: B}
train: {epochs: 2, batch_size: 50}
utilization: {repeats: 2, samples: 100}
adjust: {layers: 2, layers_decay: 0.5, step: 0.4}
objectives: [accuracy, params]
"""


def study_of(folder: Path, text: str = STUDY, *overrides: str) -> Study:
    path = folder / "study.yaml"
    path.write_text(text)
    return load_study(path, overrides)


def proposer_of(study: Study) -> AdjustmentProposer:
    assert study.adjust is not None
    return AdjustmentProposer(study, study.adjust)


NETWORK = measured("resnet20")


def outcome_of(proposal: Proposal) -> Outcome:
    """What a trial of ResNet-20 of width 8 might report: ratios drawn from its number."""
    rng = random.Random(proposal.number)
    widths = proposal.plan.model.settings["widths"] or tuple(NETWORK.widths.values())
    groups = [[name, width, rng.random()] for name, width in zip(NETWORK.widths, widths, strict=True)]
    return Outcome({"accuracy": 0.9, "utilization": {"groups": groups, "terms": NETWORK.terms}})  # type: ignore[dict-item]


def propose(proposer: AdjustmentProposer, first: int, last: int) -> list[Proposal]:
    made = []
    for number in range(first, last):
        assert not proposer.waits(number)
        proposal = proposer.ask(number)
        assert proposal is not None, proposer.why_none
        assert proposer.waits(number + 1)
        made.append(proposal)
        proposer.tell(number, outcome_of(proposal))
    return made


TWENTY = STUDY.replace("resnet8, width: 6", "resnet20, width: 8")


@pytest.mark.parametrize("killed_at", [1, 3, 5])
def test_a_resumed_adjustment_proposes_what_an_undisturbed_one_does(tmp_path: Path, killed_at: int) -> None:
    study = study_of(tmp_path, TWENTY, "adjust.layers=4")
    straight = propose(proposer_of(study), 0, 6)
    assert len({proposal.plan.hash for proposal in straight}) == 6
    resumed = proposer_of(study)
    for proposal in straight[:killed_at]:
        plan = Plan.model_validate(json.loads(json.dumps(proposal.plan.model_dump(mode="json"))))
        resumed.repeat(Proposal(proposal.number, plan))
        resumed.tell(proposal.number, Outcome(json.loads(json.dumps(outcome_of(proposal).metrics))))
    assert propose(resumed, killed_at, 6) == straight[killed_at:]


def test_a_trial_waits_for_the_one_before_it_and_the_first_for_none(tmp_path: Path) -> None:
    proposer = proposer_of(study_of(tmp_path, TWENTY))
    assert not proposer.waits(0)
    proposal = proposer.ask(0)
    assert proposal is not None
    assert proposal.plan.model.settings["widths"] == ()
    assert proposer.waits(1)
    proposer.tell(0, outcome_of(proposal))
    assert not proposer.waits(1)


@pytest.mark.parametrize("outcome", [Outcome(), Outcome({"accuracy": 0.5})])
def test_a_trial_without_ratios_ends_the_adjustment_and_says_so(tmp_path: Path, outcome: Outcome) -> None:
    proposer = proposer_of(study_of(tmp_path, TWENTY))
    propose(proposer, 0, 1)
    assert proposer.ask(1) is not None
    proposer.tell(1, outcome)
    assert proposer.ask(2) is None
    assert proposer.why_none == "trial 1 has no utilization ratios, which the next one goes by"


def test_an_adjustment_ends_when_no_group_moves_any_more(tmp_path: Path) -> None:
    proposer = proposer_of(study_of(tmp_path, TWENTY, "adjust.layers_decay=1.0"))
    propose(proposer, 0, 3)
    assert proposer.ask(3) is None
    assert proposer.why_none == "after 3 trials no channel group moves any more"


def test_an_adjustment_that_comes_back_to_old_widths_ends(tmp_path: Path) -> None:
    """Two inner layers of the first stage cost the same: one grows and the other shrinks, then the other way round."""
    proposer = proposer_of(study_of(tmp_path, TWENTY, "adjust.layers=1", "adjust.layers_decay=0"))
    one, other = list(NETWORK.widths)[1:3]
    for number, (top, bottom) in enumerate([(one, other), (other, one)]):
        proposal = proposer.ask(number)
        assert proposal is not None
        metrics: Any = outcome_of(proposal).metrics
        for row in metrics["utilization"]["groups"]:
            row[2] = {top: 2.0, bottom: 0.0}.get(row[0], 1.0)
        proposer.tell(number, Outcome(metrics))
    assert proposer.ask(2) is None
    assert proposer.why_none == "the widths that follow from trial 1 are those of trial 0"


# In the driver


def driver_of(study: Study, log: EventLog, trials: int = 4) -> Driver:
    driver = Driver(study, log, outlook=StandInOutlook(), trials=trials)
    driver.open()
    return driver


def end(driver: Driver, assignment: Assignment) -> None:
    driver.started(assignment.number, node="here", from_epoch=0)
    metrics = outcome_of(Proposal(assignment.number, assignment.plan)).metrics
    assert metrics is not None
    driver.finished(assignment.number, {**metrics, "epoch": 2, "keep_macs": 1.0, "params": 10})


def run_to_its_end(driver: Driver) -> list[str]:
    hashes = []
    while isinstance(assignment := driver.next_trial(4), Assignment):
        hashes.append(assignment.plan.hash)
        assert driver.next_trial(4) == "wait"  # three workers idle: nobody knows the next widths yet
        end(driver, assignment)
    assert assignment == "over"
    return hashes


def test_a_driver_runs_an_adjustment_one_trial_after_the_other(tmp_path: Path) -> None:
    with EventLog.open(tmp_path / "log") as log:
        driver = driver_of(study_of(tmp_path, TWENTY), log)
        assert len(set(run_to_its_end(driver))) == 4
        assert driver.is_over
        assert driver.why_ended is None


@pytest.mark.parametrize("killed_at", [1, 3])
def test_an_adjustment_goes_on_from_its_log_as_if_it_had_never_stopped(tmp_path: Path, killed_at: int) -> None:
    study = study_of(tmp_path, TWENTY)
    with EventLog.open(tmp_path / "straight") as log:
        straight = run_to_its_end(driver_of(study, log, trials=5))
    hashes = []
    with EventLog.open(tmp_path / "killed") as log:
        driver = driver_of(study, log, trials=5)
        for _ in range(killed_at):
            assignment = driver.next_trial(1)
            assert isinstance(assignment, Assignment)
            hashes.append(assignment.plan.hash)
            end(driver, assignment)
        driver.next_trial(1)  # handed out, and never heard of again
    with EventLog.open(tmp_path / "killed") as log:
        assert hashes + run_to_its_end(driver_of(study, log, trials=5)) == straight


def test_a_driver_says_why_an_adjustment_ended_early(tmp_path: Path) -> None:
    with EventLog.open(tmp_path / "log") as log:
        driver = driver_of(study_of(tmp_path, TWENTY), log)
        assignment = driver.next_trial(1)
        assert isinstance(assignment, Assignment)
        driver.started(0, node="here", from_epoch=0)
        driver.failed(0, epoch=1, reason="loss is nan")
        assert driver.next_trial(1) == "over"
        assert driver.why_ended == "trial 0 has no utilization ratios, which the next one goes by"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_adjustment_is_searched_resumed_and_exported_by_the_command(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(STUDY)
    for words in (
        "search study.yaml --trials 1",
        "search study.yaml --trials 2 --resume",
        "front study --json",
        "export study --to small",
        "verify small",
    ):
        command = [sys.executable, "-m", "search", *words.split()]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
        assert ran.returncode == 0, f"{words}\n{ran.stdout}\n{ran.stderr}"
        if words.startswith("front"):
            told = json.loads(ran.stdout)
            assert told["trials"]["finished"] == 3
            assert told["baseline"]["trial"] == 0
            assert all(abs(point["macs"] / told["baseline"]["macs"] - 1.0) <= 0.01 for point in told["front"])


# Real trials


def finished(plan: Plan, store: Path | None) -> dict[str, Any]:
    trial = Trial(plan, store=None if store is None else StageStore(store))
    metrics: dict[str, Any] = {}
    while not metrics or not trial.done:
        metrics = trial.step()
    return metrics


def test_three_real_networks_are_trained_at_equal_macs(tmp_path: Path) -> None:
    proposer = proposer_of(study_of(tmp_path))
    macs = []
    for number in range(3):
        proposal = proposer.ask(number)
        assert proposal is not None, proposer.why_none
        metrics = finished(proposal.plan, None)
        found = Measured.read(metrics)
        assert found is not None
        assert found.macs(found.widths) == metrics["macs"]
        assert proposal.plan.model.settings["widths"] in ((), tuple(found.widths.values()))
        macs.append(metrics["macs"])
        proposer.tell(number, Outcome(json.loads(json.dumps(metrics))))
    assert all(abs(cost / macs[0] - 1.0) <= 0.01 for cost in macs)


def test_ratios_are_measured_once_and_charged_every_time(tmp_path: Path) -> None:
    plan = study_of(tmp_path).baseline()
    store = tmp_path / "store"
    alone, first, again = finished(plan, None), finished(plan, store), finished(plan, store)
    assert alone["utilization"] == first["utilization"] == again["utilization"]
    training, probe = 2 * 3 * 200 * alone["macs"], 100 * (1 + 2 * 6) * alone["macs"]
    for metrics in (alone, first, again):
        assert metrics["training_macs_alone"] == training + probe
    assert [metrics["training_macs"] for metrics in (alone, first, again)] == [training + probe, training + probe, 0]
    assert len(list(store.rglob(FILE))) == 1


def test_a_plan_that_measures_takes_over_the_training_of_one_that_does_not(tmp_path: Path) -> None:
    plan = study_of(tmp_path).baseline()
    finished(plan.model_copy(update={"utilization": None}), tmp_path / "store")
    measuring = finished(plan, tmp_path / "store")
    assert measuring["utilization"] == finished(plan, None)["utilization"]
    assert measuring["training_macs"] == 100 * (1 + 2 * 6) * measuring["macs"]


# Study files

BAD = [
    ("width: 6,", "width: {from: 4, to: 8},", 2, "'model.width' varies, but with 'adjust' nothing does except widths"),
    ("shortcut: B", "shortcut: A", 2, "'adjust' needs shortcut B: with A the channels of one stage are part of the"),
    (
        "resnet8, width: 6, shortcut: B",
        "resnet18",
        2,
        "model 'resnet18' takes no widths, which 'adjust' needs: resnet8,",
    ),
    ("utilization: {repeats: 2, samples: 100}\n", "", 4, "'adjust' needs the section 'utilization'"),
    ("repeats: 2", "repeats: 0", 4, "'utilization.repeats' is 0; allowed: integer from 1"),
    ("samples: 100", "drop: 0.6", 4, "'utilization.drop' is 0.6; allowed: number above 0 to 0.5"),
    ("step: 0.4", "step: 0", 5, "'adjust.step' is 0; allowed: number above 0 to 1"),
    ("layers: 2", "layers: -1", 5, "'adjust.layers' is -1; allowed: integer from 0"),
    ("layers: 2", "layer: 2", 5, "unknown key 'layer' in adjust; did you mean 'layers'?"),
    ("step: 0.4", "step: {from: 0.1, to: 0.2}", 5, "'adjust.step' is"),
    ("objectives", "prune: {amount: {keep_macs: 0.5}}\nobjectives", 6, "with 'adjust' nothing is pruned"),
    ("shortcut: B", "shortcut: A, widths: [4]", 2, "widths need shortcut B: with A the channels of one stage are part"),
    (
        "shortcut: B",
        "shortcut: B, widths: [0]",
        2,
        "setting 'widths' of model 'resnet8' is [0]; allowed: a list of int",
    ),
]


@pytest.mark.parametrize(
    ("old", "new", "line", "expected"), BAD, ids=[new.strip() or "left out" for _, new, _, _ in BAD]
)
def test_bad_input_is_one_line_that_names_the_line(
    tmp_path: Path, old: str, new: str, line: int, expected: str
) -> None:
    assert old in STUDY
    with pytest.raises(UserError) as caught:
        study_of(tmp_path, STUDY.replace(old, new, 1))
    message = str(caught.value)
    assert message.startswith(f"{tmp_path}/study.yaml:{line}: {expected}")
    assert "\n" not in message


def test_a_study_that_adjusts_otherwise_has_another_fingerprint(tmp_path: Path) -> None:
    own = study_of(tmp_path).fingerprint
    assert study_of(tmp_path, STUDY, "budget.trials=7").fingerprint == own
    assert study_of(tmp_path, STUDY, "budget.seed=7").fingerprint == own  # nothing is drawn
    assert study_of(tmp_path, STUDY, "adjust.step=0.3").fingerprint != own
    assert study_of(tmp_path, STUDY, "utilization.drop=0.1").fingerprint != own


@pytest.mark.parametrize("name", ["digits_adjustment", "cifar10_resnet20_adjustment"])
def test_a_shipped_adjustment_loads_and_its_first_trial_is_the_study_s_own_network(name: str) -> None:
    study = load_study(ROOT / f"spaces/{name}.yaml")
    assert study.name == name
    assert study.parameters == ()
    first = proposer_of(study).ask(0)
    assert first is not None
    assert first.plan == study.baseline()
    assert first.plan.utilization is not None


def test_the_paper_s_numbers_are_in_the_cifar_study() -> None:
    study = load_study(ROOT / "spaces/cifar10_resnet20_adjustment.yaml")
    train, adjust = study.baseline().train, study.adjust
    assert (train.epochs, train.batch_size, train.learning_rate, train.weight_decay) == (200, 128, 0.15, 3e-4)
    assert study.baseline().utilization is not None
    assert study.baseline().utilization.drop == 0.05
    assert study.baseline().utilization.repeats == 5
    assert adjust is not None
    assert (adjust.step, adjust.step_decay) == (0.15, 0.01)
    assert study.budget.trials + 1 == 10
