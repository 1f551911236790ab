"""Whole searches on a real Ray, with trials that need no torch."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from search.driver import Assignment, Driver
from spaces.errors import UserError
from spaces.study import Study
from tests.standin import StandIn, StandInOutlook, epochs_run, search, stand_in_study
from tracking.events import Event
from tracking.log import EventLog, read_events
from tracking.read import read_front

ROOT = Path(__file__).parent.parent
GPU_NODE = {"num_cpus": 1, "num_gpus": 1}  # Ray takes our word for the GPU


def start(storage: Path, *arguments: str, seconds: float) -> "subprocess.Popen[str]":
    """A search in a process group of its own, so that all of it can be killed and nothing else."""
    command = [sys.executable, "-m", "tests.standin", str(storage), *arguments]
    environment = {**os.environ, "STANDIN_SECONDS": str(seconds), "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def wait_for(home: Path, kind: str, count: int, patience: float = 120.0) -> None:
    end = time.monotonic() + patience
    while time.monotonic() < end:
        if (home / "events").is_dir() and sum(event.kind == kind for event in read_events(home)) >= count:
            return
        time.sleep(0.1)
    raise AssertionError(f"no {count} events '{kind}' in {patience:g} s")


def proposals(events: tuple[Event, ...]) -> list[tuple[int | None, str | None]]:
    return [(event.trial, event.plan_hash) for event in events if event.kind == "proposed"]


def undisturbed(study: Study, home: Path) -> tuple[Event, ...]:
    """The same search with one worker and no Ray."""
    with EventLog.open(home) as log:
        driver = Driver(study, log, outlook=StandInOutlook(), trials=study.budget.trials + 1)
        driver.open()
        while isinstance(answer := driver.next_trial(1), Assignment):
            trial = StandIn(
                answer.plan, home=str(home), stages={}, device="cpu", saves=answer.saves, latency_batch=None
            )
            metrics = trial.step()
            driver.started(answer.number, node="here", from_epoch=trial.inherited_epochs)
            verdict = "go on"
            while not trial.done and verdict == "go on":
                verdict = driver.reported(answer.number, metrics)
                metrics = trial.step() if verdict == "go on" else metrics
            if verdict == "go on":
                driver.finished(answer.number, metrics)
        return log.events()


def ways_to_end(events: tuple[Event, ...]) -> Counter[int | None]:
    return Counter(event.trial for event in events if event.kind in ("finished", "failed", "stopped"))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "standin"


def test_a_search_shares_the_baselines_training_and_ends_although_some_trials_fail(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STANDIN_BREAKS", "l2")
    monkeypatch.setenv("STANDIN_CRASHES", "random")
    study = stand_in_study(tmp_path, "resources.workers=2", "train.learning_rate=0.1")
    ending = search(study)
    events = read_events(home)
    assert ways_to_end(events) == Counter(dict.fromkeys(range(12), 1))
    assert events[0].kind == "opened"
    assert (events[-1].kind, events[-1].body) == ("closed", {"reason": "budget spent"})
    assert not ending.was_interrupted
    counts = ending.board.standing.counts
    assert counts["finished"] >= 2
    assert counts["failed"] >= 2
    assert set(ending.board.standing.failures.values()) == {"loss is nan", "ZeroDivisionError: division by zero"}
    started = [
        (event.trial, event.body["attempt"], event.body["from_epoch"]) for event in events if event.kind == "started"
    ]
    expected = [(0, 1, 0), (0, 2, 4), *((number, 1, 4) for number in range(1, 12))]
    assert sorted(started) == expected, "the baseline rests at the fork, and is taken up again"
    assert set(epochs_run(home).values()) == {1}


def test_a_second_search_of_a_study_at_once_is_refused(tmp_path: Path, home: Path) -> None:
    with EventLog.open(home), pytest.raises(UserError, match=f"process {os.getpid()} on .* is already searching"):
        search(stand_in_study(tmp_path))


def test_a_mistake_before_the_first_trial_leaves_nothing_behind(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STANDIN_REFUSES", "yes")
    storage = tmp_path / "runs"
    with pytest.raises(UserError, match="refuses"):
        search(stand_in_study(storage))
    assert not storage.exists()
    undisturbed(stand_in_study(tmp_path, "budget.trials=1"), home)
    with pytest.raises(UserError, match="refuses"):
        search(stand_in_study(tmp_path), mode="resume")
    assert len(proposals(read_events(home))) == 2, "what an earlier search did stays"


@pytest.mark.parametrize(
    ("override", "address", "message"),
    [
        ("resources.cpus=4096", None, "resources.cpus is 4096 per trial; this machine has"),
        (
            "resources.storage=gopher://hole/runs",
            None,
            "the protocol 'gopher' is not known; allowed: a folder, s3://",
        ),
        ("resources.cpus=1", "127.0.0.1:1", "no Ray cluster answers at '127.0.0.1:1'"),
        ("resources.cpus=1", "auto", "no Ray cluster answers at '127.0.0.1:2'"),
    ],
)
def test_what_cannot_run_here_is_refused_at_once(
    tmp_path: Path, override: str, address: str | None, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:2")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    began = time.monotonic()
    with pytest.raises(UserError, match=re.escape(message)):
        search(stand_in_study(tmp_path / "runs", override), address=address)
    assert time.monotonic() - began < 10.0
    assert not (tmp_path / "runs").exists()


def test_auto_does_not_join_the_private_ray_of_another_search(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("ray._private.utils.read_ray_address", lambda: None)
    running = start(tmp_path, seconds=0.1)
    wait_for(home, "reported", 1)
    try:
        with pytest.raises(UserError, match="no Ray cluster runs on this machine"):
            search(stand_in_study(tmp_path / "other"), address="auto")
    finally:
        os.killpg(running.pid, signal.SIGINT)
        running.wait()


def test_ctrl_c_stops_a_search_cleanly_and_it_can_be_resumed(tmp_path: Path, home: Path) -> None:
    running = start(tmp_path, seconds=0.1)
    wait_for(home, "finished", 2)
    asked = time.monotonic()
    os.killpg(running.pid, signal.SIGINT)  # a terminal sends it to the whole group
    output, _ = running.communicate(timeout=120)
    assert time.monotonic() - asked < 30
    assert running.returncode == 0
    assert output.rstrip().endswith("interrupted")
    assert "Traceback" not in output
    assert read_events(home)[-1].body == {"reason": "interrupted"}
    assert proposals(undisturbed(stand_in_study(tmp_path), home)) == proposals(
        undisturbed(stand_in_study(tmp_path), tmp_path / "straight")
    )


def test_a_search_killed_hard_resumes_with_the_proposals_of_an_undisturbed_one(tmp_path: Path, home: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    running = start(tmp_path, "--uri", uri, seconds=0.1)
    wait_for(home, "finished", 5)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    finished_before = {event.plan_hash for event in read_events(home) if event.kind == "finished"}
    ran_before = epochs_run(home)
    again = start(tmp_path, "--uri", uri, "--mode", "resume", seconds=0.0)
    output, _ = again.communicate(timeout=120)
    assert again.returncode == 0, output
    events = read_events(home)
    assert ways_to_end(events) == Counter(dict.fromkeys(range(12), 1))
    assert proposals(events) == proposals(undisturbed(stand_in_study(tmp_path), tmp_path / "straight"))
    ran_again = epochs_run(home) - ran_before
    assert not {plan for plan, _ in ran_again} & finished_before
    result = read_front(uri, "standin")
    assert len(result.points) == 12, "every trial has one run, also those that the killed search had begun"
    assert result.trials == {"finished": 12, "stopped": 0, "failed": 0}


def test_a_search_that_has_trials_is_not_begun_anew_by_mistake(tmp_path: Path, home: Path) -> None:
    undisturbed(stand_in_study(tmp_path, "budget.trials=1"), home)
    with pytest.raises(UserError, match=r"has 2 trials in .*--resume goes on"):
        search(stand_in_study(tmp_path))


def test_a_finished_search_that_is_resumed_answers_at_once(tmp_path: Path, home: Path) -> None:
    study = stand_in_study(tmp_path)
    undisturbed(study, home)
    began = time.monotonic()
    ending = search(study, mode="resume")
    assert time.monotonic() - began < 2.0
    assert ending.board.standing.counts["finished"] == 12


def test_all_trials_finish_when_one_of_two_nodes_is_lost(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STANDIN_SECONDS", "0.3")
    from search.cluster import prepare_environment

    prepare_environment()
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={**GPU_NODE, "include_dashboard": False})
    try:
        node = cluster.add_node(**GPU_NODE)

        def lose_a_node() -> None:
            wait_for(home, "started", 3)
            cluster.remove_node(node, allow_graceful=False)

        thief = threading.Thread(target=lose_a_node)
        thief.start()
        study = stand_in_study(tmp_path, "resources.workers=null", "resources.gpus=0.5", "budget.trials=7")
        ending = search(study, address=cluster.address)
        thief.join()
    finally:
        cluster.shutdown()
    assert ending.board.standing.counts == {"finished": 8, "stopped": 0, "failed": 0}
    retried = [e for e in read_events(home) if e.kind == "started" and e.trial and e.body["attempt"] == 2]
    assert len(retried) == 1
    assert len({event.plan_hash for event in read_events(home) if event.kind == "finished"}) == 8
    lost, past = retried[0].trial, read_events(home)[: read_events(home).index(retried[0])]
    reached = max((event.body["epoch"] for event in past if (event.kind, event.trial) == ("reported", lost)), default=0)
    assert reached - retried[0].body["from_epoch"] < 4, "the stand-in saves a boundary every four epochs"


def test_an_epoch_that_a_worker_saved_and_died_before_telling_of_is_told_by_the_next(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STANDIN_DIES", "1")
    search(stand_in_study(tmp_path, "stopper.name=front", "stopper.grace=100", "budget.trials=4"))
    assert (home / "died").exists()
    events = read_events(home)
    (again,) = [event for event in events if event.kind == "started" and event.trial and event.body["attempt"] == 2]
    told: dict[int | None, list[int]] = {}
    for event in events:
        if event.kind in ("reported", "finished"):
            told.setdefault(event.trial, []).append(event.body["epoch"])
    assert again.body["from_epoch"] in told[again.trial]
    for epochs in told.values():
        assert epochs == list(range(epochs[0], epochs[-1] + 1))


def test_resuming_with_fewer_trials_than_there_are_takes_none_back(tmp_path: Path, home: Path) -> None:
    undisturbed(stand_in_study(tmp_path), home)
    ending = search(stand_in_study(tmp_path, "budget.trials=2"), mode="resume")
    assert (ending.board.ended, ending.board.trials) == (12, 12)
