"""`prunefront check`: exit statuses, what it prints, and how much it imports to do so."""

import json
import os
import random
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from search.commands.check import command
from search.forecast import forecast
from spaces.errors import UserError
from spaces.load import load_study
from trainables.costing import Costing

ROOT = Path(__file__).parent.parent
SHIPPED = sorted((ROOT / "spaces").glob("*.yaml"))


def check(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "search", "check", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=environment)


def test_a_sound_study_is_told_with_all_that_varies() -> None:
    ran = check("spaces/digits.yaml", "--syntax")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.startswith("spaces/digits.yaml is sound.\n")
    for parameter in load_study(ROOT / "spaces/digits.yaml").parameters:
        assert parameter.path.split(".keeps[")[0] in ran.stdout


def test_a_mistake_is_one_line_on_stderr_and_exit_status_2(tmp_path: Path) -> None:
    text = (ROOT / "spaces/digits.yaml").read_text().replace("- taylor", "- tayler")
    (tmp_path / "study.yaml").write_text(text)
    line = 1 + text[: text.index("- tayler")].count("\n")
    ran = check("study.yaml", "--syntax", cwd=tmp_path)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith(f"prunefront: study.yaml:{line}: unknown criterion 'tayler'; did you mean 'taylor'?")
    assert ran.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("nowhere.yaml",), "nowhere.yaml: there is no such study file"),
        (("spaces/digits.yaml", "--set", "train.epoch=3"), "--set train.epoch=3: unknown key 'epoch' in train"),
        (("spaces/digits.yaml", "--fast"), "No such option"),
    ],
)
def test_what_the_user_can_mend_ends_with_2_and_nothing_on_stdout(arguments: tuple[str, ...], expected: str) -> None:
    ran = check(*arguments)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert expected in ran.stderr
    assert ran.stderr.count("\n") == 1


def test_the_syntax_part_imports_no_heavy_library() -> None:
    code = (
        "import sys, json; from search.__main__ import cli; "
        "cli.main(['check', 'spaces/digits.yaml', '--syntax'], standalone_mode=False); "
        "print(json.dumps(list(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    modules = set(json.loads(ran.stdout.splitlines()[-1]))
    assert not modules & {"torch", "ray", "mlflow", "optuna", "numpy", "torchvision"}


def test_the_syntax_part_answers_at_once() -> None:
    def spent() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    begun = spent()
    check("spaces/imagenet_resnet50.yaml", "--syntax")
    assert spent() - begun < 1.5  # of CPU time, start of the interpreter included: others may be using the machine


def test_the_cost_part_says_how_trials_share_and_what_they_cost() -> None:
    ran = CliRunner().invoke(command, [str(ROOT / "spaces/digits.yaml")])
    assert ran.exit_code == 0
    assert "MACs (1 MAC = 2 FLOPs)" in ran.stdout
    assert "100% of trials start from the baseline, after 1 to " in ran.stdout
    assert re.search(r"[\d.]+ G training MACs alone, [\d.]+ G with sharing \(\d+% saved\)", ran.stdout)


def test_an_adjustment_is_told_as_what_it_is_with_the_cost_of_measuring() -> None:
    ran = CliRunner().invoke(command, [str(ROOT / "spaces/digits_adjustment.yaml")])
    assert ran.exit_code == 0
    assert "The widths of the channel groups move" in ran.stdout
    assert "4 groups grow and as many shrink by 25%" in ran.stdout
    training, passes = 5 * 20 * 3 * 200 * 635_712, 5 * 900 * 13 * 635_712
    assert f"cost        {training / 1e9:.3g} G training MACs, and {passes / 1e9:.3g} G to measure" in ran.stdout


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_study_can_be_priced_without_its_data(path: Path) -> None:
    study = load_study(path)
    costs = forecast(study)
    assert costs.refused == {}
    assert 0 < costs.shared <= costs.alone


def test_a_study_whose_every_plan_is_out_of_reach_is_refused() -> None:
    study = load_study(ROOT / "spaces/digits.yaml", ["prune.amount.keep_macs=0.001"])
    with pytest.raises(
        UserError, match=r"digits\.yaml: no plan of this study can be run: keeping 0\.001 is out of reach"
    ):
        forecast(study)


def test_a_study_that_holds_out_more_images_than_there_are_has_no_price() -> None:
    with pytest.raises(UserError, match="cannot take 5000 of 1100 images for validation"):
        forecast(load_study(ROOT / "spaces/digits.yaml", ["data.validation=5000"]))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_none_of_ten_thousand_random_plans_is_out_of_reach_or_without_an_event(path: Path) -> None:
    study, costing, rng = load_study(path), Costing(), random.Random(path.stem)
    problems = {costing.problem(study.plan(study.sample(rng))) for _ in range(10_000)}
    assert problems == {None}


def test_layers_that_cannot_be_pruned_are_named_with_the_reason() -> None:
    plain = check("spaces/digits.yaml")
    attention = check("spaces/imagenet_resnet50.yaml", "--set", "model.name=vit_b_32", "--set", "model.weights=null")
    assert "left alone" not in plain.stdout
    assert "left alone  conv_proj: " in attention.stdout
    assert "layers more" in attention.stdout
