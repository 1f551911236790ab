"""The tracker against real MLflow stores: nothing missing, nothing twice, whatever dies in between."""

import json
import math
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from mlflow import MlflowClient
from mlflow.entities import Run

from search.commands.front import command as front_command
from search.commands.ui import command as ui_command
from search.commands.ui import server_command
from spaces.errors import UserError
from tests.tracked import EPOCHS, opened, plan, plan_hash, search, trial
from tracking import tracker as tracker_module
from tracking.connection import connected, default_uri
from tracking.events import Event
from tracking.read import download_checkpoint, read_front, read_point
from tracking.spool import Spool, Upload
from tracking.standing import Standing
from tracking.tracker import Tracker


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with MLflow's tables: making them takes seconds, copying it does not."""
    file = tmp_path_factory.mktemp("store") / "mlflow.db"
    connected(f"sqlite:///{file}")
    return file


@pytest.fixture
def uri(tmp_path: Path, empty_store: Path) -> str:
    (tmp_path / "runs").mkdir()
    shutil.copy(empty_store, tmp_path / "runs" / "mlflow.db")
    return default_uri(str(tmp_path / "runs"))


def record(uri: str, tmp_path: Path, events: Iterable[Event], *, experiment: str = "digits") -> list[str]:
    """A tracker that hears all of them and is closed; what it warned of."""
    warnings: list[str] = []
    with Tracker(uri, experiment, spool=tmp_path / "spool", warn=warnings.append) as tracker:
        for event in events:
            tracker.record(event)
        tracker.flush(60)
    return warnings


def runs(uri: str, experiment: str = "digits") -> list[Run]:
    client = MlflowClient(uri)
    known = client.get_experiment_by_name(experiment)
    return [] if known is None else list(client.search_runs([known.experiment_id]))


def search_run(uri: str) -> Run:
    (run,) = [run for run in runs(uri) if run.data.tags["prunefront.kind"] == "search"]
    return run


def trial_run(uri: str, number: int) -> Run:
    (run,) = [run for run in runs(uri) if run.data.tags.get("prunefront.trial") == str(number)]
    return run


def contents(uri: str) -> list[Any]:
    """Everything in the store that does not depend on who wrote it when."""
    client = MlflowClient(uri)
    return sorted(
        [
            run.info.run_name,
            run.info.status,
            run.info.start_time,
            run.info.end_time,
            sorted(run.data.params.items()),
            sorted((name, value) for name, value in run.data.tags.items() if name != "mlflow.parentRunId"),
            [[(m.step, m.value, m.timestamp) for m in client.get_metric_history(run.info.run_id, name)]
             for name in sorted(run.data.metrics)],
        ]
        for run in runs(uri)
    )  # fmt: skip


@pytest.fixture(scope="session")
def undisturbed(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What a store holds after a search of six trials that nothing happened to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    shutil.copy(empty_store, folder / "mlflow.db")
    record(default_uri(str(folder)), folder, search(6))
    return contents(default_uri(str(folder)))


# ---- what is written -------------------------------------------------------------------------------------------------


def test_a_search_becomes_a_run_and_each_trial_a_run_within_it(uri: str, tmp_path: Path) -> None:
    assert record(uri, tmp_path, search(4)) == []
    parent = search_run(uri)
    assert parent.info.run_name == "digits"
    assert parent.info.status == "FINISHED"
    children = [run for run in runs(uri) if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert sorted(run.info.run_name for run in children) == [
        "#000 dense",
        "#001 frs·every·given keep 0.45",
        "#002 frs·every·given keep 0.3",
        "#003 frs·every·given keep 0.23",
    ]
    assert all(run.info.status == "FINISHED" for run in children)


def test_a_metric_has_one_value_per_epoch_with_the_time_it_was_reported(uri: str, tmp_path: Path) -> None:
    events = list(trial(1))
    record(uri, tmp_path, [opened(), *events])
    run = trial_run(uri, 1)
    history = MlflowClient(uri).get_metric_history(run.info.run_id, "accuracy")
    reports = [event for event in events if event.kind == "reported"]
    assert [(m.step, m.value, m.timestamp) for m in history] == [
        (event.body["epoch"], event.body["accuracy"], int(event.time * 1000)) for event in reports
    ]
    assert run.data.metrics["checkpoint_bytes"] == 4e5
    assert run.info.end_time == int(events[-1].time * 1000)
    assert run.data.params["prune.criterion.mode"] == "stable"
    assert "prunefront.checkpoint_key" in run.data.tags


def test_a_failed_trial_is_failed_and_says_why(uri: str, tmp_path: Path) -> None:
    record(uri, tmp_path, [opened(), *trial(0), *trial(1, ends="failed"), *trial(2, ends="stopped")])
    failed = trial_run(uri, 1)
    assert failed.info.status == "FAILED"
    assert failed.data.tags["prunefront.reason"] == "the loss is not a number"
    assert trial_run(uri, 2).info.status == "KILLED"
    assert read_front(uri, "digits").trials == {"finished": 1, "stopped": 1, "failed": 1}


def test_the_parent_holds_the_front_as_files_and_the_hypervolume_over_trials(uri: str, tmp_path: Path) -> None:
    record(uri, tmp_path, search(6))
    client, parent = MlflowClient(uri), search_run(uri)
    assert {item.path for item in client.list_artifacts(parent.info.run_id)} == {
        "front.json",
        "front.csv",
        "front.html",
    }
    history = client.get_metric_history(parent.info.run_id, "hypervolume")
    assert [metric.step for metric in history] == [1, 2, 3, 4, 5, 6]
    assert [metric.value for metric in history] == sorted(metric.value for metric in history)
    files = Path(client.download_artifacts(parent.info.run_id, "front.json", str(tmp_path)))
    assert json.loads(files.read_text()) == read_front(uri, "digits").to_json()


def test_front_members_are_tagged_and_untagged_when_they_are_beaten(uri: str, tmp_path: Path) -> None:
    better = replace(list(trial(3))[-1], trial=9, plan_hash=plan_hash(9))
    better.body.update(accuracy=2.0, keep_macs=0.001, macs=1.0)
    with Tracker(uri, "digits", spool=tmp_path / "spool") as tracker:
        for event in search(4)[:-1]:
            tracker.record(event)
        assert tracker.flush(60)
        tagged = MlflowClient(uri).search_runs([tracker.experiment_id], "tags.`prunefront.front` = 'true'")
        assert {run.data.tags["prunefront.trial"] for run in tagged} == {"0", "1", "3"}
        tracker.record(better)
        assert tracker.flush(60)
        tagged = MlflowClient(uri).search_runs([tracker.experiment_id], "tags.`prunefront.front` = 'true'")
        assert {run.data.tags["prunefront.trial"] for run in tagged} == {"9"}


def test_a_plan_too_long_for_a_tag_comes_back_whole(uri: str, tmp_path: Path) -> None:
    events = list(trial(0))
    long = {**plan(0), "note": {f"layer{number}": "x" * 90 for number in range(130)}}
    events[0] = replace(events[0], body={"plan": long})
    record(uri, tmp_path, [opened(), *events])
    baseline = read_front(uri, "digits").baseline
    assert baseline is not None
    assert baseline.plan == long
    assert len(trial_run(uri, 0).data.params) > 130


def test_a_loss_that_is_not_a_number_does_not_stop_the_writing(uri: str, tmp_path: Path) -> None:
    events = list(trial(1))
    events[3].body["loss"] = math.nan
    events[4].body["loss"] = math.inf
    assert record(uri, tmp_path, [opened(), *events]) == []
    assert trial_run(uri, 1).info.status == "FINISHED"


# ---- nothing twice ---------------------------------------------------------------------------------------------------


def test_the_whole_log_told_again_changes_nothing(uri: str, tmp_path: Path) -> None:
    record(uri, tmp_path, search(5))
    before = contents(uri)
    record(uri, tmp_path, search(5))
    assert contents(uri) == before


@pytest.mark.parametrize("cut", [1, 3, 6, 9, 12, 20])
def test_a_search_cut_anywhere_and_resumed_is_as_if_it_never_was(
    uri: str, tmp_path: Path, undisturbed: list[Any], cut: int
) -> None:
    record(uri, tmp_path, search(6)[:cut])
    record(uri, tmp_path, search(6))
    assert contents(uri) == undisturbed


def test_a_run_made_just_before_its_maker_was_killed_is_found_again(uri: str, tmp_path: Path) -> None:
    record(uri, tmp_path, [opened()])
    parent = search_run(uri)
    tags = {"mlflow.parentRunId": parent.info.run_id, "prunefront.plan_hash": plan_hash(1)}
    made = MlflowClient(uri).create_run(parent.info.experiment_id, tags=tags, run_name="half made")
    record(uri, tmp_path, [opened(), *trial(0), *trial(1)])
    assert len(runs(uri)) == 3
    assert trial_run(uri, 1).info.run_id == made.info.run_id
    assert trial_run(uri, 1).data.metrics["accuracy"]


def test_a_run_whose_making_was_never_answered_is_not_made_twice(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracker_module, "RETRY", (0.05,))
    create, lost = MlflowClient.create_run, []

    def answer_gets_lost(self: MlflowClient, *args: Any, **kwargs: Any) -> Run:
        run = create(self, *args, **kwargs)
        if len(lost) < 3:
            lost.append(run)
            raise ConnectionError("the answer got lost")
        return run

    monkeypatch.setattr(MlflowClient, "create_run", answer_gets_lost)
    warnings = record(uri, tmp_path, search(4))
    assert len(lost) == 3
    assert len(runs(uri)) == 5
    assert any("does not answer" in warning for warning in warnings)


def test_an_interrupted_search_is_killed_and_runs_again_when_resumed(uri: str, tmp_path: Path) -> None:
    half = [opened(), *trial(0), *list(trial(1))[:4]]
    interrupted = [*half, Event("closed", body={"reason": "interrupted"}, time=half[-1].time + 5)]
    record(uri, tmp_path, interrupted)
    assert search_run(uri).info.status == "KILLED"
    assert trial_run(uri, 1).info.status == "KILLED"
    again = [opened(seconds=500), replace(list(trial(1))[1], body={"attempt": 2}, time=half[-1].time + 600)]
    record(uri, tmp_path, [*interrupted, *again])
    assert search_run(uri).info.status == "RUNNING"
    assert trial_run(uri, 1).info.status == "RUNNING"
    rest = [replace(event, time=event.time + 1000) for event in list(trial(1))[2:]]
    record(uri, tmp_path, [*interrupted, *again, *rest])
    assert trial_run(uri, 1).info.status == "FINISHED"
    history = MlflowClient(uri).get_metric_history(trial_run(uri, 1).info.run_id, "accuracy")
    assert [metric.step for metric in history] == [1, 2, 3, 4, 5]


def test_another_search_of_the_same_study_is_another_run(uri: str, tmp_path: Path) -> None:
    record(uri, tmp_path, [opened(), *trial(0)])
    record(uri, tmp_path, [opened(seconds=9e5), *trial(0), *trial(1)])
    assert sum(run.data.tags["prunefront.kind"] == "search" for run in runs(uri)) == 2
    assert read_front(uri, "digits").trials["finished"] == 2


def test_a_checkpoint_is_uploaded_once_and_comes_back(uri: str, tmp_path: Path) -> None:
    folder = tmp_path / "stages" / "key1"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"weights")
    warnings: list[str] = []
    for _ in range(2):
        with Tracker(uri, "digits", spool=tmp_path / "spool", warn=warnings.append) as tracker:
            for event in [opened(), *trial(1)]:
                tracker.record(event)
            tracker.upload_checkpoint(plan_hash(1), folder)
            tracker.upload_checkpoint(plan_hash(2), folder)
        (folder / "model.safetensors").write_bytes(b"other")
    run = trial_run(uri, 1)
    fetched = download_checkpoint(uri, run.info.run_id, tmp_path)
    assert (fetched / "model.safetensors").read_bytes() == b"weights"
    assert len(warnings) == 2
    assert plan_hash(2) in warnings[0]
    with pytest.raises(UserError, match="has no checkpoint"):
        download_checkpoint(uri, search_run(uri).info.run_id, tmp_path)


def test_one_event_that_makes_no_sense_does_not_silence_the_others(uri: str, tmp_path: Path) -> None:
    nonsense = Event("reported", 1, plan_hash(1), {"epoch": "many"})
    warnings = record(uri, tmp_path, [opened(), *list(trial(1))[:2], nonsense, *list(trial(1))[2:]])
    assert len(warnings) == 1
    assert "trial 1 was reported" in warnings[0]
    assert trial_run(uri, 1).info.status == "FINISHED"


def test_what_mlflow_refuses_is_told_once_and_the_rest_is_written(uri: str, tmp_path: Path) -> None:
    record(uri, tmp_path, [opened(), *list(trial(1))[:2]])
    MlflowClient(uri).delete_run(trial_run(uri, 1).info.run_id)
    with Tracker(uri, "digits", spool=tmp_path / "spool", warn=lambda warning: None) as tracker:
        for event in search(3)[:-1]:
            tracker.record(event)
        assert tracker.flush(60)
        MlflowClient(uri).delete_run(trial_run(uri, 2).info.run_id)
        tracker.record(Event("failed", 2, plan_hash(2), {"epoch": 9, "reason": "?"}, time=opened().time + 900))
        tracker.record(Event("closed", body={"reason": "budget spent"}, time=opened().time + 1000))
        assert tracker.flush(60)
    assert search_run(uri).info.status == "FINISHED"


# ---- a server --------------------------------------------------------------------------------------------------------


class Server:
    """A real `mlflow server`, as `prunefront ui` starts it."""

    def __init__(self, store: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self.store = store
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(
            server_command(self.store, self.port),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            try:
                urllib.request.urlopen(f"{self.uri}/health", timeout=1).close()
                return
            except OSError:
                time.sleep(0.1)
        raise AssertionError("the server did not come up")

    def kill(self) -> None:
        import os

        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def server(uri: str) -> Iterator[Server]:
    server = Server(uri)
    server.start()
    yield server
    server.kill()


def test_a_server_that_dies_and_returns_costs_one_warning_and_no_event(
    server: Server, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: list[Any]
) -> None:
    monkeypatch.setattr(tracker_module, "RETRY", (0.2, 0.5))
    warnings: list[str] = []
    events = search(6)
    tracker = Tracker(server.uri, "digits", spool=tmp_path / "spool", warn=warnings.append)
    for event in events[:10]:
        tracker.record(event)
    assert tracker.flush(60)
    server.kill()
    began = time.monotonic()
    for event in events[10:30]:
        tracker.record(event)
    assert time.monotonic() - began < 0.5, "the search waited for a server that was away"
    assert not tracker.flush(2)
    for event in events[30:]:
        tracker.record(event)
    assert not tracker.flush(1)
    assert len(warnings) == 1
    assert "does not answer" in warnings[0]
    server.start()
    assert tracker.flush(60)
    assert len(warnings) == 2
    assert "answers again" in warnings[1]
    assert tracker.close()
    assert contents(uri) == undisturbed
    assert read_front(server.uri, "digits").to_json() == read_front(uri, "digits").to_json()


def test_a_server_that_does_not_answer_is_the_users_to_mend_within_seconds(tmp_path: Path) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        uri = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        began = time.monotonic()
        with pytest.raises(UserError, match=r"the tracking server http://127\.0\.0\.1:\d+ does not answer"):
            Tracker(uri, "digits", spool=tmp_path)
        assert time.monotonic() - began < 6


# ---- the ways to be wrong --------------------------------------------------------------------------------------------


def test_a_store_in_a_folder_that_cannot_be_made_is_the_users_to_mend(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write to"):
        Tracker(default_uri(str(tmp_path / "file")), "digits", spool=tmp_path)


def test_a_file_that_is_no_database_is_the_users_to_mend(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("not a database, but long enough to be taken for one " * 40)
    with pytest.raises(UserError, match="the tracking store"):
        Tracker(default_uri(str(tmp_path)), "digits", spool=tmp_path)


def test_a_deleted_experiment_is_said_so(uri: str, tmp_path: Path) -> None:
    record(uri, tmp_path, [opened()])
    MlflowClient(uri).delete_experiment(search_run(uri).info.experiment_id)
    with pytest.raises(UserError, match="experiment 'digits' was deleted"):
        Tracker(uri, "digits", spool=tmp_path)
    with pytest.raises(UserError, match="experiment 'digits' was deleted"):
        read_front(uri, "digits")


def test_a_storage_that_is_an_address_needs_a_tracking_uri() -> None:
    with pytest.raises(UserError, match="give --tracking-uri"):
        default_uri("s3://bucket/runs")


def test_an_experiment_or_run_that_is_not_there_is_said_so(uri: str, tmp_path: Path) -> None:
    record(uri, tmp_path, [opened(), *trial(0), *trial(1, ends="failed")])
    with pytest.raises(UserError, match="unknown experiment 'digit'; did you mean 'digits'"):
        read_front(uri, "digit")
    with pytest.raises(UserError, match=r"no run 'f00' in sqlite"):
        read_point(uri, "f00")
    with pytest.raises(UserError, match="is no finished trial: failed"):
        read_point(uri, trial_run(uri, 1).info.run_id)
    assert read_point(uri, trial_run(uri, 0).info.run_id).is_baseline
    MlflowClient(uri).create_experiment("bare")
    with pytest.raises(UserError, match=r"'bare' in .* holds no search"):
        read_front(uri, "bare")
    with pytest.raises(UserError, match="no tracking store at"):
        read_front(default_uri(str(tmp_path / "nowhere")), "digits")


def test_the_ui_says_when_its_port_is_taken_or_its_store_is_not_there(uri: str, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        asked = ["--tracking-uri", uri, "--port", str(taken.getsockname()[1])]
        with pytest.raises(UserError, match=r"port \d+ is taken"):
            CliRunner().invoke(ui_command, asked, catch_exceptions=False)
    with pytest.raises(UserError, match="no tracking store at"):
        CliRunner().invoke(ui_command, ["--storage", str(tmp_path / "nowhere")], catch_exceptions=False)


# ---- reading back ----------------------------------------------------------------------------------------------------


def test_what_is_read_back_is_what_the_events_say(uri: str, tmp_path: Path) -> None:
    record(uri, tmp_path, search(6))
    standing = Standing()
    for event in search(6):
        standing.hear(event)
    result = read_front(uri, "digits")
    assert [replace(point, run_id=None) for point in result.front] == standing.front
    assert result.hypervolume == pytest.approx(standing.hypervolume)


def test_the_front_command_prints_exactly_what_it_promises(uri: str, tmp_path: Path) -> None:
    record(uri, tmp_path, search(6))
    asked = ["digits", "--tracking-uri", uri]
    printed = json.loads(CliRunner().invoke(front_command, [*asked, "--json"], catch_exceptions=False).stdout)
    assert list(printed) == ["experiment", "hypervolume", "baseline", "front", "trials"]
    assert printed["trials"] == {"finished": 6, "stopped": 0, "failed": 0}
    assert {"run_id", "accuracy", "keep_macs", "macs", "params", "plan"} <= set(printed["front"][0])
    assert printed["baseline"]["keep_macs"] == 1.0
    table = CliRunner().invoke(front_command, asked, catch_exceptions=False).stdout
    assert "#005 frs·every·given keep 0.15" in table
    assert "hypervolume" in table
    rows = CliRunner().invoke(front_command, [*asked, "--csv"], catch_exceptions=False).stdout.splitlines()
    assert len(rows) == 1 + len(printed["front"])
    assert rows[0].startswith("run_id,trial,name,plan_hash,")
    assert "prune.criterion.mode" in rows[0]


# ---- the queue -------------------------------------------------------------------------------------------------------


def test_the_queue_keeps_its_order_through_memory_and_disk(tmp_path: Path) -> None:
    spool = Spool(tmp_path, in_memory=3)
    items = [Event("reported", 1, "a", {"epoch": epoch}, time=float(epoch)) for epoch in range(20)]
    for item in items[:8]:
        spool.put(item)
    taken = spool.take(2)
    spool.to_disk()
    for item in items[8:]:
        spool.put(item)
    spool.put(Upload("a", "folder"))
    assert len(spool) == 19
    spool.to_disk()
    while chunk := spool.take(4):
        taken += chunk  # type: ignore[arg-type]
    assert taken == [*items, Upload("a", "folder")]
    assert not spool.path.exists()
    assert len(spool) == 0


def test_the_queue_holds_a_bounded_number_in_memory(tmp_path: Path) -> None:
    spool = Spool(tmp_path, in_memory=5)
    for epoch in range(EPOCHS * 10):
        spool.put(Event("reported", 1, "a", {"epoch": epoch}))
    assert len(spool.path.read_bytes().splitlines()) == EPOCHS * 10 - 5
