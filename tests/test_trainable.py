"""What the actor says of its trial, without Ray around it."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from search.driver import Assignment, Driver
from search.trainable import ASSIGNMENT, TrialActor
from tests.standin import StandInOutlook, stand_in_study
from tracking.events import Event
from tracking.log import EventLog
from tracking.standing import Standing


class Scripted:
    """A trial that says what it is told to: one line of metrics for each epoch."""

    inherited_epochs = 0

    def __init__(self, lines: list[dict[str, Any]]) -> None:
        self._lines = lines

    @property
    def done(self) -> bool:
        return not self._lines

    def step(self) -> dict[str, Any]:
        return self._lines.pop(0)

    def catch_up(self) -> dict[str, Any]:
        return {"epoch": self.inherited_epochs, "accuracy": 0.5, "keep_macs": 1.0}


SCRIPT: list[dict[str, Any]] = []


def scripted(plan: object, **given: object) -> Scripted:
    return Scripted(list(SCRIPT))


def results(
    tmp_path: Path, lines: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, *, heard: int | None = None
) -> list[dict[str, Any]]:
    monkeypatch.setattr("tests.test_trainable.SCRIPT", lines)
    work = {
        "trial": "tests.test_trainable:scripted",
        "home": str(tmp_path),
        "stages": {},
        "cwd": str(tmp_path),
        "gpus": 0,
        "objectives": ["accuracy", "keep_macs"],
        "latency_batch": None,
        "number": 1,
        "plan": stand_in_study(tmp_path).baseline().model_dump(mode="json"),
        "saves": [],
        "heard": heard,
    }
    monkeypatch.chdir(Path.cwd())
    actor = TrialActor({ASSIGNMENT: json.dumps(work)})
    said = [actor.step()]
    while not said[-1].get("done"):
        said.append(actor.step())
    return said


@pytest.mark.parametrize(
    ("last", "reason"),
    [
        ({"epoch": 2, "accuracy": math.nan, "keep_macs": 0.5}, "accuracy is nan"),
        ({"epoch": 2, "accuracy": 0.9, "keep_macs": math.inf}, "keep_macs is inf"),
        ({"epoch": 2, "accuracy": 0.9}, "keep_macs is missing"),
    ],
)
def test_a_trial_that_ends_without_an_objective_fails_and_says_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: dict[str, Any], reason: str
) -> None:
    said = results(tmp_path, [{"epoch": 1, "accuracy": 0.5, "keep_macs": 1.0}, last], monkeypatch)
    assert [result["phase"] for result in said] == ["started", "reported", "failed"]
    assert (said[-1]["reason"], said[-1]["epoch"]) == (reason, 2)


@pytest.mark.parametrize(("heard", "told"), [(None, [4, 5]), (3, [4, 5]), (2, [3, 4, 5])])
def test_a_worker_tells_first_of_the_epoch_it_begins_after_where_the_log_lacks_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, heard: int | None, told: list[int]
) -> None:
    monkeypatch.setattr("tests.test_trainable.Scripted.inherited_epochs", 3)
    lines = [{"epoch": epoch, "accuracy": 0.5, "keep_macs": 0.5} for epoch in (4, 5)]
    said = results(tmp_path, lines, monkeypatch, heard=heard)
    assert [result["metrics"]["epoch"] for result in said[1:]] == told
    assert [result["phase"] for result in said] == ["started", *["reported"] * (len(told) - 1), "finished"]


@pytest.mark.parametrize("report", [{"epoch": 1, "accuracy": math.nan}, {"epoch": 1}])
def test_an_objective_that_is_no_number_or_missing_on_the_way_spoils_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, report: dict[str, Any]
) -> None:
    """The trial goes on, the log keeps the report, and its end counts; where rungs rank reports, it comes last."""
    end = {"epoch": 2, "accuracy": 0.9, "keep_macs": 0.5, "macs": 50, "params": 5}
    said = results(tmp_path, [report, end], monkeypatch)
    assert [result["phase"] for result in said] == ["started", "reported", "finished"]
    study = stand_in_study(tmp_path, "train.learning_rate=0.1", "budget.trials=1")
    with EventLog.open(tmp_path / "home") as log:
        driver = Driver(study, log, outlook=StandInOutlook(), trials=2)
        driver.open()
        while isinstance(answer := driver.next_trial(1), Assignment):
            driver.started(answer.number, node="here", from_epoch=0)
            assert driver.reported(answer.number, report) == "go on"
            driver.finished(answer.number, end)
    standing = Standing()
    with EventLog.open(tmp_path / "home") as log:
        events: tuple[Event, ...] = log.events()
    for event in events:
        standing.hear(event)
    assert [point.trial for point in standing.front] == [0, 1]
    assert standing.counts["finished"] == 2
