"""`prunefront train`: what it reports, and that mistakes are found before the first epoch."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from search.commands.train import command
from search.outlook import TorchOutlook
from spaces.errors import TrialFailed, UserError
from spaces.load import load_study

PLAN = """
data: {name: digits, validation: 900}
model: {name: resnet8, width: 4}
train: {epochs: 2, batch_size: 50}
prune:
  criterion: l1
  schedule: {name: once, after: 0}
  amount: {keep_macs: 0.4}
"""
DIGITS = Path(__file__).parent.parent / "spaces" / "digits.yaml"


def train(tmp_path: Path, *arguments: str) -> list[str]:
    (tmp_path / "plan.yaml").write_text(PLAN)
    ran = CliRunner().invoke(command, [str(tmp_path / "plan.yaml"), *arguments])
    if ran.exception is not None:
        assert not ran.output.strip(), "nothing is printed before a mistake is told"
        raise ran.exception
    return ran.output.splitlines()


def unscored(groups: Any, probe: Any, /) -> None:
    """A criterion that forgot its return statement."""


def test_a_plan_is_trained_and_every_epoch_reported(tmp_path: Path) -> None:
    epochs = [json.loads(line) for line in train(tmp_path, "--json")]
    assert [epoch["epoch"] for epoch in epochs] == [1, 2]
    assert epochs[-1]["keep_macs"] <= 0.4


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--device", "gpu"), "unknown device 'gpu'; known: cpu, cuda, cuda:N"),
        (("--device", "cuda:99"), "no device 'cuda:99' here"),
        (("--set", "prune.amount.keep_macs=0.0001"), "plan.yaml: keeping 0.0001 is out of reach"),
        (("--set", "data.validation=5000"), "cannot take 5000 of 1100 images for validation"),
        (("--set", "prune.criterion=math:missing"), "module 'math' has no function 'missing'"),
        (("--set", "train.loss=nowhere:loss"), "no module 'nowhere'"),
        (
            ("--set", "prune.criterion={name: 'tests.test_train_command:unscored', power: 2}"),
            "criterion 'tests.test_train_command:unscored' has no setting 'power'",
        ),
    ],
)
def test_a_mistake_is_found_before_the_first_epoch(tmp_path: Path, arguments: tuple[str, ...], expected: str) -> None:
    with pytest.raises(UserError) as refused:
        train(tmp_path, *arguments)
    assert expected in str(refused.value)


def test_a_criterion_that_returns_nothing_fails_the_trial_with_its_name(tmp_path: Path) -> None:
    from spaces.load import load_plan
    from trainables.trial import run_trial

    (tmp_path / "plan.yaml").write_text(PLAN)
    plan = load_plan(tmp_path / "plan.yaml", ["prune.criterion=tests.test_train_command:unscored"])
    with pytest.raises(TrialFailed, match="unscored' gave NoneType; expected scores by group"):
        run_trial(plan, report=lambda metrics: None)


def test_a_search_is_refused_before_ray_when_a_function_of_the_users_is_missing() -> None:
    study = load_study(DIGITS, ["prune.criterion={choices: [l1, 'math:missing']}"])
    with pytest.raises(UserError, match="module 'math' has no function 'missing'"):
        TorchOutlook().check(study)


def broken(shape: Any, /) -> None:
    """A network whose code has a fault."""
    raise IndexError("no such stage")


def test_a_network_function_that_raises_is_told_with_its_file_and_line(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"test_train_command\.py:\d+: model .*broken' raised IndexError: no such stage"
    ):
        train(tmp_path, "--set", "model=tests.test_train_command:broken")
