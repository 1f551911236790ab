"""Records of real trials: what is recorded is what a trial does, and what is not recorded in full is refused."""

import gzip
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from search.record import Record, beside
from search.recording import record_study
from search.trained import TrainedRecord
from spaces.errors import UserError
from spaces.grid import every_plan
from spaces.load import load_study
from spaces.study import Study
from trainables.trial import run_trial

ROOT = Path(__file__).parent.parent
TINY = """\
name: tiny
data: {name: digits, validation: 900, train_images: 50}
model: {name: resnet8, width: 4}
train: {epochs: 5, batch_size: 25, learning_rate: 0.1}
prune:
  criterion: {choices: [l1, random]}
  schedule:
    choices:
      - {name: once, after: {from: 1, to: 2}}
      - {name: every, interval: 1, until: 3}
  amount: {keep_macs: {choices: [0.5, 0.1]}}
  recalibrate_batches: 2
recover: {choices: [continue, {name: linear, peak: {from: 0.5, to: 1.0, step: 0.5}}]}
objectives: [accuracy, keep_macs]
"""
PLANS = 1 + 2 * 3 * 2 * 3


def tiny_study(folder: Path) -> Study:
    (folder / "tiny.yaml").write_text(TINY)
    return load_study(folder / "tiny.yaml")


def recorded(study: Study, target: Path, *, processes: int = 1) -> Record:
    record_study(study, target, processes=processes, command="told", progress=lambda done, total: None)
    return Record.load(target)


def untimed(file: Path) -> dict[str, Any]:
    """What the record says but for how long it took."""
    written = json.loads(gzip.decompress(file.read_bytes()))
    del written["setup_seconds"], written["boundaries"]["milliseconds"], written["provenance"]["command"]
    return dict(written)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds tiny.yaml and its record."""
    made = tmp_path_factory.mktemp("recorded")
    recorded(tiny_study(made), beside(made / "tiny.yaml"))
    return made


@pytest.fixture(scope="module")
def record(folder: Path) -> Record:
    return Record.load(beside(folder / "tiny.yaml"))


def test_every_plan_of_a_finite_space_comes_once_and_the_baseline_first(tmp_path: Path) -> None:
    plans = list(every_plan(tiny_study(tmp_path)))
    assert len({plan.hash for plan in plans}) == len(plans) == PLANS
    assert plans[0].prune is None


def test_a_space_with_a_range_has_no_end_and_the_parameter_is_named() -> None:
    with pytest.raises(UserError, match=r"digits\.yaml: '.*keeps\[0\]' is any number from 0\.4 to 1: only choices,"):
        list(every_plan(load_study(ROOT / "spaces/digits.yaml")))


def test_a_recorded_trial_is_the_trial_that_runs_alone(folder: Path, record: Record) -> None:
    plans = list(every_plan(tiny_study(folder)))
    assert len(record) == PLANS
    for plan in (plans[0], plans[1], plans[-1]):
        reports: list[dict[str, Any]] = []
        run_trial(plan, report=reports.append)
        laps = record.laps(plan)
        assert {lap.epochs for lap in laps if lap.metrics} == {report["epoch"] for report in reports}
        assert sum(lap.macs for lap in laps) == reports[-1]["training_macs_alone"]
        assert all(lap.seconds > 0 for lap in laps)
        by_epoch = {lap.epochs: lap.metrics for lap in laps if lap.metrics}  # the last lap of an epoch counts
        for report in reports:
            said = dict(by_epoch[report["epoch"]] or {})
            assert {name: report[name] for name in said} == pytest.approx(said, rel=1e-5)
            assert {"accuracy", "loss", "train_loss", "macs", "params", "keep_macs", "keep_params"} <= said.keys()


def test_plans_that_differ_in_their_recovery_alone_share_the_pruned_boundary(folder: Path, record: Record) -> None:
    plans = [plan for plan in every_plan(tiny_study(folder)) if plan.prune is not None]
    once = [plan for plan in plans if plan.prune is not None and plan.prune.schedule.settings.get("after") == 1]
    trunk, one, other = record.laps(next(every_plan(tiny_study(folder)))), *map(record.laps, once[:2])
    assert [lap.events for lap in one] == [0, 0, 1, 1, 1, 1]
    assert [lap.key for lap in one[:2]] == [lap.key for lap in trunk[:2]]
    assert [mine.key == theirs.key for mine, theirs in zip(one, other, strict=True)] == [True] * 3 + [False] * 3


def test_two_processes_record_the_same_and_so_does_a_recording_that_was_killed(folder: Path, tmp_path: Path) -> None:
    tiny_study(tmp_path)
    target = beside(tmp_path / "tiny.yaml")
    partial = target.with_name(target.name + ".partial")
    command = [sys.executable, "-m", "search", "record", str(tmp_path / "tiny.yaml"), "--processes", "2"]
    with subprocess.Popen(command, cwd=ROOT, start_new_session=True) as running:
        wait_until(lambda: partial.exists() and partial.read_bytes().count(b"\n") > 8, "nothing is recorded")
        children = [int(pid) for pid in children_of(running.pid)]
        running.send_signal(signal.SIGKILL)
    assert not target.exists()
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children), "its processes outlive a recording")
    with partial.open("a") as file:
        file.write('{"plan_hash": "half a li')
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    assert not partial.exists()
    assert answers(Record.load(target), tiny_study(tmp_path)) == answers(
        Record.load(beside(folder / "tiny.yaml")), tiny_study(folder)
    )


def children_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def wait_until(holds: Callable[[], bool], complaint: str) -> None:
    end = time.monotonic() + 300
    while not holds():
        assert time.monotonic() < end, complaint
        time.sleep(0.01)


def answers(record: Record, study: Study) -> list[list[tuple[object, ...]]]:
    """Everything a record says of a study's plans, but for keys and times."""
    return [
        [(lap.epochs, lap.events, lap.macs, lap.metrics) for lap in record.laps(plan)] for plan in every_plan(study)
    ]


def test_what_was_begun_for_another_space_is_not_gone_on_with(tmp_path: Path) -> None:
    target = tmp_path / "x.record.json.gz"
    (tmp_path / "x.record.json.gz.partial").write_text('{"header": "another"}\n')
    with pytest.raises(UserError, match=r"partial: it was begun for something else; remove it to begin anew"):
        recorded(tiny_study(tmp_path), target)


def test_a_part_of_the_recorded_space_is_recorded_and_a_larger_one_is_refused(folder: Path, record: Record) -> None:
    record.check(load_study(folder / "tiny.yaml", ["recover=continue", "budget.trials=3"]))
    larger = load_study(folder / "tiny.yaml", ["prune.criterion={choices: [l1, taylor]}"])
    message = (
        r"tiny\.yaml: 18 of its 37 plans are not in .*tiny\.record\.json\.gz, plan [0-9a-f]{16} "
        r"\(taylor, global, once, continue\) for one; only a space that is recorded in full can be simulated"
    )
    with pytest.raises(UserError, match=message):
        record.check(larger)
    (missing,) = [plan for plan in every_plan(larger) if plan.prune and plan.prune.criterion.name == "taylor"][:1]
    with pytest.raises(UserError, match=r"plan [0-9a-f]{16} \(taylor, global, once, continue\) is not recorded"):
        record.laps(missing)


def test_a_record_that_cannot_be_trusted_is_refused_in_one_line(folder: Path, tmp_path: Path) -> None:
    sound = beside(folder / "tiny.yaml").read_bytes()
    written = json.loads(gzip.decompress(sound))
    fewer = {**written, "plans": {**written["plans"], "end": written["plans"]["end"][1:]}}
    shorter = {**written, "boundaries": {**written["boundaries"], "macs": written["boundaries"]["macs"][1:]}}
    stray = {**written, "boundaries": {**written["boundaries"], "parent": [5, *written["boundaries"]["parent"][1:]]}}
    for content, complaint in (
        (sound[: len(sound) // 2], "the record is damaged"),
        (sound[:40] + b"\0" + sound[41:], "the record is damaged"),
        (b"", "the record is damaged"),
        (b"not gzip", "the record cannot be read"),
        (packed([]), "the record is damaged: it is no record"),
        (packed({**written, "format": 99}), "format 99; this version reads format 1"),
        (packed({"format": 1}), "the record is damaged"),
        (packed(fewer), "the record is damaged"),
        (packed(shorter), "the record is damaged"),
        (packed(stray), "the record is damaged"),
    ):
        file = tmp_path / "odd.record.json.gz"
        file.write_bytes(content)
        with pytest.raises(UserError, match="odd.record.json.gz: " + complaint) as caught:
            Record.load(file)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"none\.gz: there is no such record; `prunefront record STUDY` makes one"):
        Record.load(tmp_path / "none.gz")


def packed(written: object) -> bytes:
    return gzip.compress(json.dumps(written).encode())


def test_plans_that_are_asked_for_are_trained_once_and_remembered(folder: Path, record: Record, tmp_path: Path) -> None:
    plans = list(every_plan(tiny_study(folder)))
    asked = [plans[-1], plans[1], plans[2]]
    with closing(TrainedRecord(tmp_path)) as trained:
        assert trained.problem(plans[1]) is None
        first = [trained.laps(plan) for plan in asked]
        assert len(trained) == 4, "and the trunk, which they share"
        for plan, laps in zip(asked, first, strict=True):
            assert trained.failure(plan) is None
            assert [(lap.epochs, lap.events, lap.macs) for lap in laps] == [
                (lap.epochs, lap.events, lap.macs) for lap in record.laps(plan)
            ]
            assert (laps[-1].metrics or {})["loss"] == pytest.approx(
                (record.laps(plan)[-1].metrics or {})["loss"], 1e-5
            )
        keys = [{lap.key for lap in laps} for laps in first]
        assert len(keys[1] & keys[2]) == 3, "two epochs and the event"
    with closing(TrainedRecord(tmp_path)) as again:
        assert [again.laps(plan) for plan in asked] == first
        assert len(again) == 4


def test_a_stored_stage_that_nobody_measured_is_trained_again(folder: Path, tmp_path: Path) -> None:
    plan = list(every_plan(tiny_study(folder)))[1]
    with closing(TrainedRecord(tmp_path)) as trained:
        laps = trained.laps(plan)
    lines = (tmp_path / "trials.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "trials.jsonl").write_text("".join(lines[:2]) + lines[2][:40])  # killed while it wrote
    with closing(TrainedRecord(tmp_path)) as again:
        assert len(again) == 1
        assert [(lap.key, lap.macs, lap.metrics) for lap in again.laps(plan)] == [
            (lap.key, lap.macs, lap.metrics) for lap in laps
        ]


def test_trials_of_other_sources_are_not_mixed_with_todays(tmp_path: Path) -> None:
    (tmp_path / "trials.jsonl").write_text('{"header": "of old"}\n')
    with pytest.raises(UserError, match=r"trials\.jsonl: it was begun for something else; remove it to begin anew"):
        TrainedRecord(tmp_path)
    (tmp_path / "trials.jsonl").write_text("{}\n{}\n")
    with pytest.raises(UserError, match=r"trials\.jsonl"):
        TrainedRecord(tmp_path)


def test_the_record_that_ships_answers_for_its_study_and_is_small() -> None:
    study = load_study(ROOT / "spaces/digits_grid.yaml")
    record = Record.load(beside(study.file))
    assert beside(study.file).stat().st_size < 5_000_000
    record.check(study)
    plans = list(every_plan(study))
    assert len(record) == len(plans) == 4_033
    for plan in plans:
        laps = record.laps(plan)
        assert (laps[-1].epochs, record.problem(plan), record.failure(plan)) == (20, None, None)
        assert {lap.epochs for lap in laps if lap.metrics} == set(range(1, 21))
        assert [(lap.epochs, lap.events) for lap in laps] == sorted({(lap.epochs, lap.events) for lap in laps})
        assert 0 < (laps[-1].metrics or {})["keep_macs"] <= (plan.prune.amount.keep_macs or 1 if plan.prune else 1)


def test_trials_of_the_record_that_ships_go_today_as_they_went_then() -> None:
    """Costs to the last MAC; what was learned only roughly, since another processor rounds differently."""
    study = load_study(ROOT / "spaces/digits_grid.yaml")
    record, plans = Record.load(beside(study.file)), list(every_plan(study))
    for plan in (plans[0], plans[100], plans[3001]):
        reports: list[dict[str, Any]] = []
        run_trial(plan, report=reports.append)
        laps, last = record.laps(plan), reports[-1]
        assert sum(lap.macs for lap in laps) == last["training_macs_alone"]
        assert len(reports) == laps[-1].epochs
        told = laps[-1].metrics or {}
        assert told["accuracy"] == pytest.approx(last["accuracy"], abs=0.05)
        assert told["keep_macs"] == pytest.approx(last["keep_macs"], abs=0.02)
