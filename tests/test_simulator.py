"""Searches in virtual time: the driver's own decisions, real trials looked up, workers that are slow or die."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from search.driver import Assignment, Driver
from search.places import places_of
from search.ray_backend import RETRIES as RETRIES_ON_RAY
from search.record import Record, beside
from search.recording import record_study
from search.runner import run_search, torch_workload
from search.simulated_run import Attempt, OwnShelf, SharedShelf
from search.simulated_workers import Clock, Conditions
from search.simulation import RecordOutlook, simulate
from search.simulator import RETRIES, Result, Simulator
from spaces.load import load_study
from spaces.plan import Plan
from spaces.study import Study
from tests.invented import Invented
from tests.standin import Unrecorded
from tracking.events import Event
from tracking.log import read_events
from tracking.memory import MemoryLog
from trainables.lapped import LappedTrial
from trainables.store import StageStore

ROOT = Path(__file__).parent.parent
SMALL = """\
name: small
data: {name: digits, validation: 900, train_images: 50}
model: {name: resnet8, width: 4}
train: {epochs: 5, batch_size: 25, learning_rate: 0.1}
prune:
  criterion: {choices: [l1, random]}
  schedule: {name: every, interval: {choices: [1, 2]}, until: 3}
  amount: {keep_macs: {choices: [0.5, 0.1]}}
recover: {choices: [continue, damage_aware]}
objectives: [accuracy, keep_macs]
budget: {trials: 10, sampler: tpe, seed: 2}
resources: {workers: 1}
"""


def invented_study(*overrides: str) -> Study:
    return load_study(ROOT / "tests/invented.yaml", overrides)


def simulated(
    study: Study, *, trials: int = 40, source: Invented | None = None, **conditions: Any
) -> tuple[Result, list[Event]]:
    heard: list[Event] = []
    source, workers = source or Invented(), Conditions(**conditions)
    told = {"outlook": RecordOutlook(source), "trials": trials, "clock": Clock(), "heard": [heard.append]}
    return simulate(study, source, workers, **told).result, heard


def plans_of(events: Sequence[Event]) -> list[Plan]:
    return [Plan.model_validate(event.body["plan"]) for event in events if event.kind == "proposed"]


def facts(events: Sequence[Event]) -> list[tuple[object, ...]]:
    """Events without the time of day."""
    return [(event.kind, event.trial, event.plan_hash, event.body) for event in events]


def ends(events: Sequence[Event]) -> Counter[str]:
    return Counter(event.kind for event in events if event.kind in ("finished", "failed", "stopped"))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study of real trials with its record beside it."""
    folder = tmp_path_factory.mktemp("small")
    (folder / "small.yaml").write_text(SMALL)
    study = load_study(folder / "small.yaml", [f"resources.storage={folder / 'runs'}"])
    record_study(study, beside(study.file), processes=1, command="told", progress=lambda done, total: None)
    return study


# One worker


def test_one_worker_executes_what_its_trials_take_with_every_boundary_computed_once() -> None:
    result, events = simulated(invented_study())
    boundaries = {lap.key: lap.macs for plan in plans_of(events) for lap in Invented().laps(plan)}
    assert ends(events) == {"finished": 41}
    assert result.macs == result.lowest_macs == sum(boundaries.values())
    assert result.alone_macs == sum(lap.macs for plan in plans_of(events) for lap in Invented().laps(plan))
    assert result.idle_seconds == result.down_seconds == 0.0
    assert result.busy_seconds == pytest.approx(result.seconds)


def test_what_trials_are_charged_for_is_what_was_executed() -> None:
    for conditions in ({}, {"workers": 7}):
        result, events = simulated(invented_study(), **conditions)
        charged = sum(event.body["training_macs"] for event in events if event.kind == "finished")
        assert charged == result.macs
        assert result.finishes[-1].macs == result.macs


def test_without_shared_stages_every_trial_starts_from_nothing() -> None:
    study, clock = invented_study(), Clock()
    driver = Driver(study, MemoryLog(), outlook=RecordOutlook(Invented()), trials=11, clock=clock)
    driver.open()
    result = Simulator(driver, Invented(), Conditions(), clock=clock, shelf=OwnShelf()).run()
    assert result.macs == result.alone_macs > result.lowest_macs


def test_a_simulated_search_is_the_search_on_ray(small: Study) -> None:
    """The same plans in the same order, from the same boundaries, at the same costs, with the same results."""
    run_search(
        small,
        workload=torch_workload(),
        recorder=lambda spool, warn: nullcontext(Unrecorded()),
        console=Console(quiet=True),
        trials=small.budget.trials,
        mode="new",
    )
    heard: list[Event] = []
    record, trials = Record.load(beside(small.file)), small.budget.trials
    outlook = RecordOutlook(record)
    simulate(small, record, Conditions(), outlook=outlook, trials=trials, clock=Clock(), heard=[heard.append])
    looked_up = [event for event in heard if event.trial is not None]
    trained = [event for event in read_events(places_of(small).home) if event.trial is not None]
    assert [decided(event) for event in looked_up] == [decided(event) for event in trained]
    for one, other in zip(looked_up, trained, strict=True):
        for name in {"accuracy", "loss", "keep_macs"} & one.body.keys():
            assert one.body[name] == pytest.approx(other.body[name], rel=1e-5)


def decided(event: Event) -> tuple[object, ...]:
    """What a fact says but for names of machines, times, keys and what was measured."""
    told = ("epoch", "from_epoch", "attempt", "events", "macs", "params", "training_macs", "training_macs_alone")
    return event.kind, event.trial, event.plan_hash, {name: event.body.get(name) for name in told}


# One attempt


@pytest.mark.parametrize("saves", [frozenset[int](), frozenset({1, 2}), frozenset({4})])
def test_a_simulated_trial_saves_and_reports_what_a_trial_does(
    small: Study, tmp_path: Path, saves: frozenset[int]
) -> None:
    plan = small.plan({**small.defaults(), "recover": "damage_aware"})
    store = StageStore(tmp_path / "store")
    shelf, clock = SharedShelf(), iter(range(1000))
    for _ in range(2):  # the second time from what the first has saved
        trial = LappedTrial(plan, store=store, saves=saves)
        laps = Record.load(beside(small.file)).laps(plan)
        attempt = Attempt(Assignment(0, plan, saves), laps, None)
        attempt.begin(shelf, 0.0)
        assert attempt.inherited_epochs == trial.inherited_epochs
        reports: list[dict[str, Any]] = []
        while not trial.done:
            reports.append(trial.step())
        told = []
        while attempt.next_lap is not None:
            attempt.pass_lap(shelf, float(next(clock)))
            if attempt.is_report_due:
                told.append(attempt.report(0.0))
        same = ("epoch", "events", "training_macs", "training_macs_alone", "inherited_epochs", "macs", "params")
        assert [[one[name] for name in same] for one in told] == [[one[name] for name in same] for one in reports]
        real = {(lap.epochs, lap.events) for lap in trial.laps if store.has(lap.key)}
        mine = {(lap.epochs, lap.events) for lap in laps if shelf.has(0, lap.key)}
        assert real <= mine
        assert {place for place in mine if place > (trial.begin.epochs, trial.begin.events)} == real


@pytest.mark.parametrize("boundary", range(1, 6))
@pytest.mark.parametrize("told", [True, False])
def test_a_simulated_trial_goes_on_as_a_trial_does_where_an_attempt_died(
    small: Study, tmp_path: Path, boundary: int, told: bool
) -> None:
    """`told`: whether the attempt came to tell of the epoch that it saved last."""
    plan = small.plan({**small.defaults(), "prune.schedule.interval": 2})
    laps = Record.load(beside(small.file)).laps(plan)
    shelf, store = SharedShelf(), StageStore(tmp_path / "store")
    first = LappedTrial(plan, store=store, saves=range(1, 6))
    while not first.done:
        first.step()
    for place, lap in enumerate(first.laps):
        if place >= boundary:
            store.discard(lap.key)
        else:
            shelf.put(0, laps[place].key)
    heard = laps[boundary - 1].epochs - (not told)
    trial = LappedTrial(plan, store=store)
    attempt = Attempt(Assignment(0, plan, frozenset(), heard), laps, None)
    attempt.begin(shelf, 0.0)
    assert attempt.inherited_epochs == trial.inherited_epochs
    reports = [] if told else [trial.catch_up()]
    while not trial.done:
        reports.append(trial.step())
    mine = [attempt.report(0.0)] if attempt.is_report_due else []
    while attempt.next_lap is not None:
        attempt.pass_lap(shelf, 0.0)
        if attempt.is_report_due:
            mine.append(attempt.report(0.0))
    same = ("epoch", "events", "training_macs", "training_macs_alone", "macs", "params")
    assert [[one[name] for name in same] for one in mine] == [[one[name] for name in same] for one in reports]


def test_a_trial_that_is_told_to_stop_leaves_its_worker_and_goes_on_from_there_later() -> None:
    class StopsOnce(Driver):
        stopped = False

        def reported(self, number: int, metrics: Any) -> Any:
            verdict = super().reported(number, metrics)
            if number == 1 and metrics["epoch"] == 16 and not self.stopped:
                self.stopped = True
                self._stages.end(number)
                self._running.discard(number)
                self._queue.append(number)
                return "stop"
            return verdict

        def _saves(self, number: int) -> frozenset[int]:
            return super()._saves(number) | {16}

    study, heard, clock = invented_study(), list[Event](), Clock()
    driver = StopsOnce(
        study, MemoryLog(), outlook=RecordOutlook(Invented()), trials=4, heard=[heard.append], clock=clock
    )
    driver.open()
    result = Simulator(driver, Invented(), Conditions(), clock=clock).run()
    begun = [event.body["from_epoch"] for event in heard if event.kind == "started" and event.trial == 1]
    assert begun[1:] == [16]
    assert ends(heard) == {"finished": 4}
    assert result.macs == result.lowest_macs


# Many workers


def test_the_same_seed_gives_the_same_search_and_another_seed_another() -> None:
    conditions = {"workers": 6, "stragglers": 0.5, "failures": 60.0, "seed": 3}
    one, other = (simulated(invented_study(), **conditions) for _ in range(2))
    assert one[0] == other[0]
    assert facts(one[1]) == facts(other[1])
    assert simulated(invented_study(), **{**conditions, "seed": 4})[0] != one[0]


def test_every_worker_second_is_busy_idle_or_down() -> None:
    for conditions in ({"workers": 3}, {"workers": 50}, {"workers": 8, "failures": 30.0, "stragglers": 0.25}):
        result, _ = simulated(invented_study(), **conditions)
        whole = conditions["workers"] * result.seconds
        assert result.busy_seconds + result.idle_seconds + result.down_seconds == pytest.approx(whole)
        assert result.busy_seconds <= whole


def test_more_workers_take_less_time_and_hardly_more_training() -> None:
    results = [simulated(invented_study(), trials=100, workers=workers)[0] for workers in (1, 6, 36)]
    assert results[0].seconds > 5 * results[1].seconds > 10 * results[2].seconds
    assert all(result.macs <= 1.25 * result.lowest_macs for result in results)


def test_slow_workers_take_longer_over_the_same_work() -> None:
    even, _ = simulated(invented_study(), workers=4)
    uneven, events = simulated(invented_study(), workers=4, stragglers=0.5, slowness=5.0)
    assert uneven.seconds > even.seconds
    begun = Counter(event.body["node"] for event in events if event.kind == "started")
    two_slowest = sorted(begun.values())[:2]
    assert sum(two_slowest) < sum(begun.values()) / 3


def test_a_trial_whose_worker_dies_goes_on_elsewhere_and_the_lost_work_is_charged() -> None:
    result, events = simulated(invented_study(), workers=4, failures=60.0, repair_seconds=5.0)
    again = [event for event in events if event.kind == "started" and event.trial and event.body["attempt"] > 1]
    assert 0 < len(again) <= result.lost_attempts
    assert any(event.body["from_epoch"] > 0 for event in again), "from its deepest boundary, not from nothing"
    assert ends(events) == {"finished": 41}
    assert result.macs > result.lowest_macs
    assert result.down_seconds > 0
    told: dict[int | None, list[int]] = {}
    for event in events:
        if event.kind in ("reported", "finished"):
            told.setdefault(event.trial, []).append(event.body["epoch"])
    told.pop(0)  # others train its way where it rests, and tell of that
    assert all(epochs == list(range(epochs[0], epochs[-1] + 1)) for epochs in told.values()), "no epoch is left out"


def test_a_trial_whose_workers_die_again_and_again_fails_as_on_ray() -> None:
    assert RETRIES == RETRIES_ON_RAY
    result, events = simulated(invented_study(), trials=3, failures=0.5, repair_seconds=0.0)
    reasons = {event.body["reason"] for event in events if event.kind == "failed"}
    assert reasons == {"its worker died again and again"}
    assert result.lost_attempts >= RETRIES + 1


def test_a_trial_that_broke_when_it_was_recorded_breaks_again() -> None:
    _, events = simulated(invented_study(), source=Invented(breaks="l2"))
    plans = plans_of(events)
    broken = {event.trial for event in events if event.kind == "failed"}
    assert broken == {number for number, plan in enumerate(plans) if plan.prune and plan.prune.criterion.name == "l2"}
    assert {event.body["reason"] for event in events if event.kind == "failed"} == {"loss is nan"}


def test_a_search_whose_minutes_are_over_in_virtual_time_ends() -> None:
    study = invented_study("budget.minutes=1")
    outlook = RecordOutlook(Invented())
    done = simulate(study, Invented(), Conditions(workers=2), outlook=outlook, trials=500, clock=Clock())
    assert done.why_ended == "1 minutes are over"
    assert 60 <= done.result.seconds < 90


def test_a_driver_that_waits_for_nothing_is_an_error() -> None:
    class Waits(Driver):
        def next_trial(self, workers: int) -> Any:
            return "wait"

    study, clock = invented_study(), Clock()
    driver = Waits(study, MemoryLog(), outlook=RecordOutlook(Invented()), trials=2, clock=clock)
    with pytest.raises(RuntimeError, match="the driver waits for a trial, and none is under way"):
        Simulator(driver, Invented(), Conditions(), clock=clock).run()


def test_a_boundary_is_saved_when_the_last_is_old() -> None:
    plan = invented_study("train.checkpoint_minutes=0.05").baseline()
    shelf = SharedShelf()
    attempt = Attempt(Assignment(0, plan, frozenset()), Invented().laps(plan), None)
    attempt.begin(shelf, 0.0)
    for epoch in range(1, 8):
        attempt.pass_lap(shelf, float(epoch))
    kept = [lap.epochs for lap in Invented().laps(plan) if shelf.has(0, lap.key)]
    assert kept == [3, 6], "every three seconds"


# Size


def scaled(trials: int, workers: int) -> None:
    result, events = simulated(invented_study(), trials=trials, workers=workers)
    assert ends(events) == {"finished": trials + 1}
    assert result.macs <= 1.25 * result.lowest_macs
    assert result.alone_macs > 1.5 * result.macs
    assert result.busy_seconds > 0.7 * workers * result.seconds


def test_the_driver_handles_two_thousand_trials_on_two_hundred_workers() -> None:
    scaled(2_000, 200)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_driver_handles_ten_thousand_trials_on_a_thousand_workers() -> None:
    scaled(10_000, 1_000)


# The command


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "200"}
    command = [sys.executable, "-m", "search", "simulate", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)


def test_the_command_prints_the_front_and_what_the_search_took(small: Study) -> None:
    ran = run(
        str(small.file), "--workers", "3", "--trials", "6", "--stragglers", "0.4", "--failures", "5", "--seed", "1"
    )
    assert ran.returncode == 0, ran.stderr
    for told in (
        "front: ",
        "7 of 7 trials in ",
        "virtual time: ",
        " on 3 workers",
        "worker-seconds: ",
        "training MACs executed: ",
        " is the least that these trials take (1.",
        "sharing: run alone they take ",
    ):
        assert told in ran.stdout
    assert ran.stdout == run(*ran.args[4:]).stdout


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["spaces/fashion_mnist.yaml"], "fashion_mnist.record.json.gz: there is no such record; `prunefront record"),
        (["{small}", "--set", "train.epochs=6"], "17 of its 17 plans are not in "),
        (["{small}", "--set", "prune.criterion={from: 1, to: 2}"], "takes no range"),
        (["{small}", "--record", "README.md"], "README.md: the record cannot be read"),
        (["{small}", "--record", "spaces"], "spaces: the record cannot be read: Is a directory"),
        (["{small}", "--workers", "0"], "0 is not in the range x>=1"),
        (["{small}", "--stragglers", "2"], "2.0 is not in the range 0.0<=x<=1.0"),
        (["{small}", "--failures", "0"], "0.0 is not in the range x>0.0"),
        (["nowhere.yaml"], "nowhere.yaml: there is no such study file"),
    ],
)
def test_what_cannot_be_simulated_is_refused_in_one_line(small: Study, arguments: list[str], complaint: str) -> None:
    ran = run(*(argument.format(small=small.file) if "{small}" in argument else argument for argument in arguments))
    assert ran.returncode == 2, ran.stderr
    assert complaint in ran.stderr
    assert ran.stderr.count("\n") == 1
