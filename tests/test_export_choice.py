"""Which point `prunefront export` takes, and what it says when there is none."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from search.__main__ import main
from search.commands.export import best_point, budget_of, run_of
from spaces.errors import UserError
from spaces.plan import Plan
from tracking.events import Event
from tracking.front import Point
from tracking.result import Front
from tracking.tracker import Tracker
from trainables.store import StageStore
from trainables.trial import Trial

ROOT = Path(__file__).parent.parent


def a_point(number: int, accuracy: float, keep: float, **metrics: float) -> Point:
    measured = {"accuracy": accuracy, "keep_macs": keep, "macs": 1e6 * keep, "params": 2e5 * keep, **metrics}
    plan = {"prune": None if number == 0 else {}, "data": {"validation": 900}}
    return Point(f"h{number}", measured, trial=number, run_id=f"run{number}", name=f"#{number:03d}", plan=plan)


DENSE = a_point(0, 0.95, 1.0)
POINTS = [a_point(1, 0.80, 0.1), a_point(2, 0.93, 0.2), a_point(3, 0.945, 0.4), DENSE]


def a_front(points: list[Point] = POINTS, baseline: Point | None = DENSE) -> Front:
    return Front("digits", 0.5, baseline, points, points, {}, {"accuracy": "maximize", "macs": "minimize"}, "s")


def chosen(**budget: Any) -> str:
    return best_point(a_front(), budget_of(a_front(), **budget)).name


@pytest.mark.parametrize(
    ("budget", "name"),
    [
        ({"max_macs": "0.4"}, "#003"),
        ({"max_macs": "0.39"}, "#002"),
        ({"max_macs": "400K"}, "#003"),
        ({"max_macs": "0.0004G"}, "#003"),
        ({"max_macs": "399999"}, "#002"),
        ({"max_params": "0.15"}, "#001"),
        ({"max_params": "80k", "min_accuracy": 0.9}, "#003"),
        ({"min_accuracy": 0.9}, "#002"),
        ({}, "#003"),  # 0.945 is within one standard error (0.0073) of 0.95; 0.93 is not
    ],
)
def test_the_best_point_under_a_budget_is_taken(budget: dict[str, Any], name: str) -> None:
    assert chosen(**budget) == name


def test_without_a_point_under_the_budget_the_nearest_is_named() -> None:
    with pytest.raises(UserError, match="nearest is #001"):
        chosen(max_macs="0.05")


@pytest.mark.parametrize("text", ["", "0", "-3M", "many", "3T", "nan", "1e999"])
def test_an_amount_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="--max-macs"):
        chosen(max_macs=text)


def test_a_fraction_needs_the_dense_network() -> None:
    with pytest.raises(UserError, match="dense network"):
        budget_of(a_front(POINTS[:3], None), max_macs="0.4")


def test_a_limit_on_latency_needs_measurements() -> None:
    with pytest.raises(UserError, match="latency"):
        chosen(max_latency=3.0)


def test_a_run_is_found_by_the_beginning_of_its_id() -> None:
    assert run_of(a_front(), "run2").name == "#002"
    for wrong in ("run", "other"):
        with pytest.raises(UserError, match=wrong):
            run_of(a_front(), wrong)


# ---- from a search's MLflow store --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage folder in which a search of two trials, dense and pruned, was recorded."""
    storage = tmp_path_factory.mktemp("runs")
    pruned = Plan.model_validate(
        {
            "data": {"name": "digits", "validation": 900},
            "model": {"name": "resnet8", "width": 4},
            "train": {"epochs": 4, "batch_size": 20, "learning_rate": 0.05},
            "prune": {"schedule": {"name": "once", "after": 1}, "amount": {"keep_macs": 0.5}},
        }
    )
    tracker = Tracker(f"sqlite:///{storage / 'mlflow.db'}", "tiny", spool=storage / "spool")
    objectives = {"accuracy": "maximize", "macs": "minimize"}
    tracker.record(Event("opened", body={"study": "tiny", "fingerprint": "f", "objectives": objectives, "seed": 0}))
    for number, plan in enumerate((pruned.dense(), pruned)):
        trial = Trial(plan, store=StageStore(storage / "stages"))
        metrics: dict[str, Any] = {}
        while not trial.done:
            metrics = trial.step()
        body = {"plan": plan.model_dump(mode="json"), "choices": {}}
        tracker.record(Event("proposed", number, plan.hash, body))
        tracker.record(Event("started", number, plan.hash, {"attempt": 1, "node": "here", "from_epoch": 0}))
        tracker.record(Event("finished", number, plan.hash, metrics))
        folder = StageStore(storage / "stages").fetch(metrics["checkpoint"])
        assert folder is not None
        tracker.upload_checkpoint(plan.hash, folder)
    tracker.record(Event("closed", body={"reason": "budget spent"}))
    assert tracker.close(60.0)
    return storage


def export(storage: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "search", "export", *arguments, "--storage", str(storage)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_search_ends_as_a_verified_directory(searched: Path, tmp_path: Path) -> None:
    done = export(searched, "tiny", "--max-macs", "0.5", "--to", str(tmp_path / "best"))
    assert done.returncode == 0, done.stderr
    assert "verified" in done.stdout
    metrics = json.loads((tmp_path / "best" / "metrics.json").read_text())
    assert metrics["keep_macs"] <= 0.5
    assert metrics["origin"]["experiment"] == "tiny"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing-of-the-kind"], "nothing-of-the-kind"),
        (["tiny", "--run", "0000"], "0000"),
        (["tiny", "--max-macs", "1"], None),
        (["tiny", "--max-macs", "0.001"], "nearest"),
        (["tiny", "--knee", "--max-macs", "0.5"], "not several"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    searched: Path,
    tmp_path: Path,
    arguments: list[str],
    said: str | None,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    target = str(tmp_path / ("best" if said else "full"))
    monkeypatch.setattr(sys, "argv", ["prunefront", "export", *arguments, "--storage", str(searched), "--to", target])
    with pytest.raises(SystemExit) as leaving:
        main()
    stderr = capfd.readouterr().err
    assert (leaving.value.code, stderr.count("\n")) == (2, 1), stderr
    assert (said or "mine") in stderr
    assert [path.name for path in tmp_path.iterdir()] == ["full"]
