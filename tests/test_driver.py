"""The decision core without Ray: who waits for the baseline, what a resumed search does, when it is over."""

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from search.driver import Assignment, Driver, Log
from spaces.errors import UserError
from spaces.path import Step
from spaces.plan import Plan
from spaces.study import Study
from tests.standin import StandInOutlook, stand_in_study
from tracking.events import Event
from tracking.log import EventLog

ONE_TRUNK = "train.learning_rate=0.1"  # every plan shares the baseline's training up to its first event


def driver_of(study: Study, log: Log, **more: Any) -> Driver:
    driver = Driver(study, log, **{"outlook": StandInOutlook(), "trials": study.budget.trials + 1, **more})
    driver.open()
    return driver


def next_of(driver: Driver, workers: int) -> Assignment:
    answer = driver.next_trial(workers)
    assert isinstance(answer, Assignment), answer
    return answer


def metrics_of(assignment: Assignment) -> dict[str, Any]:
    prune = assignment.plan.prune
    keep = 1.0 if prune is None else prune.amount.keep_macs
    return {"epoch": 8, "accuracy": 0.9, "keep_macs": keep, "params": 100, "checkpoint": "key"}


def finish(driver: Driver, assignment: Assignment) -> None:
    driver.started(assignment.number, node="here", from_epoch=0)
    driver.finished(assignment.number, metrics_of(assignment))


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    return EventLog.open(tmp_path / "log")


def test_what_shares_the_baselines_training_waits_until_the_baseline_is_past_the_fork(
    tmp_path: Path, log: EventLog
) -> None:
    driver = driver_of(stand_in_study(tmp_path, ONE_TRUNK), log)
    baseline = next_of(driver, 3)
    assert baseline.plan.prune is None
    assert baseline.saves == {4}
    assert driver.next_trial(3) == "wait"
    assert driver.reported(0, {"epoch": 3}) == "go on"
    assert driver.next_trial(3) == "wait"
    assert driver.reported(0, {"epoch": 4}) == "stop"
    assert [next_of(driver, 3).number for _ in range(3)] == [1, 2, 3]
    assert driver.next_trial(3) == "wait", "there are three workers"


def test_what_trains_differently_from_the_baseline_has_a_trunk_of_its_own(tmp_path: Path, log: EventLog) -> None:
    study = stand_in_study(tmp_path, "train.learning_rate={choices: [0.1, 0.2]}")
    driver = driver_of(study, log)
    baseline, other = next_of(driver, 8), next_of(driver, 8)
    assert other.plan.train.learning_rate != baseline.plan.train.learning_rate
    assert driver.next_trial(8) == "wait", "for the fork of one trunk or of the other"
    driver.reported(0, {"epoch": 4})
    held = [next_of(driver, 8), next_of(driver, 8)]
    assert {one.plan.train.learning_rate for one in held} == {baseline.plan.train.learning_rate}
    assert held[0].number < held[1].number, "held back, not forgotten: the oldest goes first"
    assert driver.reported(other.number, {"epoch": 4}) == "go on"
    assert next_of(driver, 8).plan.train.learning_rate == other.plan.train.learning_rate


class ThreeForks(StandInOutlook):
    """As the stand-in's, but that the criterion decides after how many epochs a plan leaves the baseline's way."""

    @staticmethod
    def fork(plan: Plan) -> int:
        return 8 if plan.prune is None else {"l1": 2, "l2": 4, "random": 6}[plan.prune.criterion.name]

    def path(self, plan: Plan) -> tuple[Step, ...]:
        fork, dense = self.fork(plan), plan.dense().hash
        way = [Step(f"{dense}-{epoch}", epoch, 0, 3) for epoch in range(1, fork + 1)]
        event = [] if plan.prune is None else [Step(f"{plan.hash}-event", fork, 1, 0)]
        return (*way, *event, *(Step(f"{plan.hash}-{epoch}", epoch, 1, 3) for epoch in range(fork + 1, 9)))


@pytest.mark.parametrize("workers", [1, 2, 3, 6])
def test_the_baseline_rests_at_the_first_fork_beyond_which_nobody_waits(
    tmp_path: Path, log: EventLog, workers: int
) -> None:
    driver = driver_of(stand_in_study(tmp_path, ONE_TRUNK, "budget.trials=60"), log, outlook=ThreeForks())
    assert next_of(driver, workers).saves == {2, 4, 6}
    assert driver.next_trial(workers) == "wait"
    waiting = [Plan.model_validate(event.body["plan"]) for event in log.events() if event.trial]
    assert len(waiting) == workers - 1
    deepest = max(map(ThreeForks.fork, waiting), default=2)
    verdicts = {epoch: driver.reported(0, {"epoch": epoch}) for epoch in range(1, deepest + 1)}
    assert verdicts == {**dict.fromkeys(range(1, deepest), "go on"), deepest: "stop"}


def test_a_trial_that_goes_on_where_the_baseline_rests_saves_its_way_for_the_others(
    tmp_path: Path, log: EventLog
) -> None:
    driver = driver_of(stand_in_study(tmp_path, ONE_TRUNK, "budget.trials=60"), log, outlook=ThreeForks())
    next_of(driver, 1)
    assert driver.reported(0, {"epoch": 2}) == "stop"
    while ThreeForks.fork((trial := next_of(driver, 1)).plan) != 6:
        finish(driver, trial)
    assert trial.saves == {2, 4, 6}


def test_the_rest_of_the_baseline_waits_until_it_is_small_beside_what_the_others_cost(
    tmp_path: Path, log: EventLog
) -> None:
    study = stand_in_study(tmp_path, ONE_TRUNK, "budget.trials=60")
    driver = driver_of(study, log)
    baseline = next_of(driver, 1)
    driver.started(0, node="here", from_epoch=0)
    assert driver.reported(0, {"epoch": 4}) == "stop"
    for number in range(1, 5):  # each of them trains four epochs of its own, and so does the rest of the baseline
        assert next_of(driver, 1).number == number
        driver = driver_of(study, log) if number == 2 else driver  # a resumed search knows that the baseline waits
        if number == 2:
            assert next_of(driver, 1).number == 2
        driver.started(number, node="here", from_epoch=4)
        driver.finished(number, metrics_of(baseline))
    assert next_of(driver, 1) == replace(baseline, heard=4)
    driver.started(0, node="here", from_epoch=4)
    assert driver.reported(0, {"epoch": 5}) == "go on"
    driver.finished(0, metrics_of(baseline))
    assert next_of(driver, 1).number == 5


def test_a_baseline_whose_rest_is_due_does_not_rest_again_where_it_begins_anew(tmp_path: Path, log: EventLog) -> None:
    study = stand_in_study(tmp_path, ONE_TRUNK, "budget.trials=60")
    driver = driver_of(study, log)
    baseline = next_of(driver, 1)
    driver.started(0, node="here", from_epoch=0)
    assert driver.reported(0, {"epoch": 4}) == "stop"
    for _ in range(4):
        finish(driver, next_of(driver, 1))
    assert next_of(driver, 1) == replace(baseline, heard=4)
    driver.started(0, node="here", from_epoch=0)  # what it had saved is gone
    assert driver.reported(0, {"epoch": 4}) == "go on"


def test_an_idle_worker_takes_up_the_rest_of_the_baseline(tmp_path: Path, log: EventLog) -> None:
    driver = driver_of(stand_in_study(tmp_path, ONE_TRUNK, "budget.trials=1"), log)
    next_of(driver, 2)
    assert driver.reported(0, {"epoch": 4}) == "stop"
    assert [next_of(driver, 2).number, next_of(driver, 2).number] == [1, 0]
    assert not driver.is_over


def test_a_trial_whose_final_widths_break_a_constraint_ends_at_once_and_counts_as_infeasible(
    tmp_path: Path, log: EventLog
) -> None:
    study = stand_in_study(tmp_path, ONE_TRUNK, "constraints.params={max: 50}", "budget.trials=2")
    driver = driver_of(study, log)
    finish(driver, next_of(driver, 1))
    driver.started(next_of(driver, 1).number, node="here", from_epoch=4)
    assert driver.reported(1, {"epoch": 4, "params": 100, "events": 0}) == "go on"
    assert driver.reported(1, {"epoch": 5, "params": 100, "events": 1}) == "stop"
    (stopped,) = [event for event in log.events() if event.kind == "stopped"]
    assert stopped.body["reason"] == "params 100 is above the constraint's max 50"
    assert next_of(driver, 1).number == 2
    assert next_of(driver_of(study, log), 1).number == 2


def test_a_plan_whose_amount_breaks_a_constraint_is_never_proposed(tmp_path: Path, log: EventLog) -> None:
    driver = driver_of(stand_in_study(tmp_path, "constraints.keep_macs={max: 0.3}"), log)
    while isinstance(answer := driver.next_trial(1), Assignment):
        assert answer.plan.prune is None or (answer.plan.prune.amount.keep_macs or 1.0) <= 0.3
        finish(driver, answer)
    with pytest.raises(UserError, match=r"no plan of this study can be run: amount keep_macs .* constraint's max"):
        driver_of(stand_in_study(tmp_path, "constraints.keep_macs={max: 0.001}"), log)


def test_nobody_waits_for_a_baseline_that_broke(tmp_path: Path, log: EventLog) -> None:
    driver = driver_of(stand_in_study(tmp_path, ONE_TRUNK), log)
    next_of(driver, 2)
    assert driver.next_trial(2) == "wait"
    driver.failed(0, epoch=1, reason="loss is nan")
    assert next_of(driver, 2).number == 1


def test_every_event_is_in_the_log_before_anyone_hears_of_it(tmp_path: Path, log: EventLog) -> None:
    heard: list[Event] = []

    def hear(event: Event) -> None:
        assert log.events()[-1] == event
        heard.append(event)

    driver = driver_of(stand_in_study(tmp_path, "budget.trials=2"), log, heard=[hear])
    while isinstance(answer := driver.next_trial(1), Assignment):
        finish(driver, answer)
    driver.close("budget spent")
    assert tuple(heard) == log.events()
    assert [event.kind for event in heard] == ["opened", *["proposed", "started", "finished"] * 3, "closed"]
    assert driver.is_over


def test_an_epoch_that_is_run_again_after_a_lost_worker_is_one_fact(tmp_path: Path, log: EventLog) -> None:
    driver = driver_of(stand_in_study(tmp_path), log)
    next_of(driver, 1)
    for _ in range(2):
        driver.started(0, node="here", from_epoch=0)
        driver.reported(0, {"epoch": 1})
    kinds = [(event.kind, event.body.get("attempt")) for event in log.events()][2:]
    assert kinds == [("started", 1), ("reported", None), ("started", 2)]


def test_what_attempts_that_died_have_executed_is_charged(tmp_path: Path, log: EventLog) -> None:
    study = stand_in_study(tmp_path, ONE_TRUNK)
    driver = driver_of(study, log)
    baseline = next_of(driver, 1)
    driver.started(0, node="here", from_epoch=0)
    driver.reported(0, {"epoch": 1, "training_macs": 100})
    driver.started(0, node="there", from_epoch=0)  # the first worker was lost
    driver.reported(0, {"epoch": 2, "training_macs": 200})
    resumed = driver_of(study, log)  # and so was the driver
    assert next_of(resumed, 1).number == 0
    resumed.started(0, node="here", from_epoch=2)
    resumed.finished(0, {**metrics_of(baseline), "training_macs": 50})
    (finished,) = [event for event in log.events() if event.kind == "finished"]
    assert finished.body["training_macs"] == 100 + 200 + 50


def test_a_worker_is_told_how_far_the_log_knows_its_trial_to_be(tmp_path: Path, log: EventLog) -> None:
    study = stand_in_study(tmp_path, ONE_TRUNK)
    driver = driver_of(study, log)
    finish(driver, next_of(driver, 1))
    assert next_of(driver, 1).heard is None
    for heard, epoch in ((3, None), (5, 5), (6, 6)):
        if epoch is None:
            driver.started(1, node="here", from_epoch=3)
        else:
            driver.reported(1, {"epoch": epoch})
        assert driver.assignment(1).heard == heard
        assert next_of(driver_of(study, log), 1).heard == heard, "and so it is by the log"


def test_a_resumed_search_begins_with_what_was_left_unfinished(tmp_path: Path, log: EventLog) -> None:
    study = stand_in_study(tmp_path, ONE_TRUNK)
    first = driver_of(study, log)
    finish(first, next_of(first, 3))
    left = [next_of(first, 3), next_of(first, 3), next_of(first, 3)]
    finish(first, left[1])
    resumed = driver_of(study, log)
    assert [next_of(resumed, 3) for _ in range(2)] == [left[0], left[2]]
    assert next_of(resumed, 3).number == 4


def test_a_failed_trial_is_not_run_again_by_a_resumed_search(tmp_path: Path, log: EventLog) -> None:
    study = stand_in_study(tmp_path)
    first = driver_of(study, log)
    finish(first, next_of(first, 1))
    first.failed(next_of(first, 1).number, epoch=2, reason="loss is nan")
    assert next_of(driver_of(study, log), 1).number == 2


def test_trials_can_be_added_to_a_finished_search(tmp_path: Path, log: EventLog) -> None:
    study = stand_in_study(tmp_path, "budget.trials=1")
    first = driver_of(study, log)
    while isinstance(answer := first.next_trial(1), Assignment):
        finish(first, answer)
    assert driver_of(study, log).is_over
    assert next_of(driver_of(study, log, trials=4), 1).number == 2


def test_a_study_that_was_changed_is_not_resumed(tmp_path: Path, log: EventLog) -> None:
    driver_of(stand_in_study(tmp_path), log)
    with pytest.raises(UserError, match="was changed since its search began"):
        driver_of(stand_in_study(tmp_path, "train.epochs=10"), log)
    driver_of(stand_in_study(tmp_path, "resources.workers=7", "budget.trials=90"), log)


def test_when_the_time_is_over_running_trials_end_and_no_other_begins(tmp_path: Path, log: EventLog) -> None:
    seconds = [0.0]
    driver = driver_of(stand_in_study(tmp_path, "budget.minutes=1"), log, clock=lambda: seconds[0])
    running = next_of(driver, 1)
    seconds[0] = 61.0
    assert driver.next_trial(1) == "wait"
    finish(driver, running)
    assert driver.next_trial(1) == "over"
    assert driver.why_ended == "1 minutes are over"


def test_a_space_that_is_used_up_ends_the_search_with_a_reason(tmp_path: Path, log: EventLog) -> None:
    small = ("prune.allocation=global", "prune.amount.keep_macs=0.5", "recover=continue", ONE_TRUNK)
    driver = driver_of(stand_in_study(tmp_path, *small), log)
    while isinstance(answer := driver.next_trial(1), Assignment):
        finish(driver, answer)
    assert driver.next_trial(1) == "over"
    assert driver.why_ended is not None
    assert driver.why_ended.startswith("the space is used up: 7 plans")


def test_a_plan_that_cannot_run_is_passed_over_and_the_log_says_why(tmp_path: Path, log: EventLog) -> None:
    class Picky(StandInOutlook):
        def problem(self, plan: Plan) -> str | None:
            return "no l1 today" if plan.prune is not None and plan.prune.criterion.name == "l1" else None

    study = stand_in_study(tmp_path)
    driver = driver_of(study, log, outlook=Picky())
    while isinstance(answer := driver.next_trial(1), Assignment):
        finish(driver, answer)
    proposed = [event for event in log.events() if event.kind == "proposed"]
    assert len(proposed) == 12
    assert all(event.body["plan"]["prune"]["criterion"]["name"] != "l1" for event in proposed[1:])
    assert {offered["obstacle"] for event in proposed for offered in event.body["passed_over"]} == {"no l1 today"}
    assert driver_of(study, log, outlook=Picky()).is_over, "the log can be taken up again"


RUNGS = ("stopper.name=front", "stopper.grace=2", "stopper.reduction=2", "stopper.fractions=[0.5]")


def alternating(number: int) -> float:
    """Later ones better, but odd ones poor."""
    return 0.5 + 0.01 * number * (-1) ** number


def run_all(
    driver: Driver, *, until: int = 10**9, accuracy: Callable[[int], float] = alternating
) -> list[tuple[int, int]]:
    """Trials one after the other: (number, epochs when its run ended), until so many runs."""
    runs: list[tuple[int, int]] = []
    while len(runs) < until and isinstance(answer := driver.next_trial(1), Assignment):
        keep = 1.0 if answer.plan.prune is None else answer.plan.prune.amount.keep_macs or 1.0
        driver.started(answer.number, node="here", from_epoch=0)
        measured = {"accuracy": accuracy(answer.number), "keep_macs": keep, "macs": 1}
        measured |= {"params": 100, "loss": 0.1, "checkpoint": "key"}
        epoch, verdict = 0, "go on"
        while verdict == "go on" and epoch < 7:
            epoch += 1
            verdict = driver.reported(answer.number, {**measured, "epoch": epoch, "events": int(epoch > 4)})
        if verdict == "go on":
            epoch = 8
            driver.finished(answer.number, {**measured, "epoch": 8, "events": 1})
        runs.append((answer.number, epoch))
    return runs


def test_a_trial_that_others_at_its_rung_are_ahead_of_is_stopped_and_not_counted_as_a_result(
    tmp_path: Path, log: EventLog
) -> None:
    study = stand_in_study(tmp_path, ONE_TRUNK, *RUNGS, "budget.trials=8", "prune.amount.keep_macs=0.5")
    driver = driver_of(study, log)
    runs = run_all(driver)
    stopped = [event.trial for event in log.events() if event.kind == "stopped"]
    assert stopped, "some trial was poor"
    assert all((number, 6) in runs for number in stopped), "at the rung, half of the recovery over"
    ended = {event.trial for event in log.events() if event.kind == "finished"}
    assert ended | set(stopped) == set(range(9))
    assert {8, 6} <= ended, "the best went on"
    assert driver.is_over
    assert [one.recovery for one in driver.agreements]
    assert driver_of(study, log).is_over, "the log can be taken up again"


def test_a_stopped_trial_that_its_rung_would_let_go_on_by_now_is_taken_up_when_all_plans_were_proposed(
    tmp_path: Path, log: EventLog
) -> None:
    study = stand_in_study(tmp_path, ONE_TRUNK, *RUNGS, "budget.trials=8", "prune.amount.keep_macs=0.5")
    found = {1: 0.5, 2: 0.9, 3: 0.6, 4: 0.55}
    runs = run_all(driver_of(study, log), accuracy=lambda number: found.get(number, 0.1))
    assert [end for one, end in runs if one == 4] == [6, 8], "third of four at first, third of eight in the end"
    pruned = [number for number, _ in runs if number]
    assert pruned[-2:] == [8, 4], "after all proposals"
    assert [event.body["attempt"] for event in log.events() if (event.kind, event.trial) == ("started", 4)] == [1, 2]


def test_a_search_with_rungs_that_is_resumed_again_and_again_decides_what_an_undisturbed_one_does(
    tmp_path: Path, log: EventLog
) -> None:
    study = stand_in_study(tmp_path, ONE_TRUNK, *RUNGS, "budget.trials=8")
    with EventLog.open(tmp_path / "straight") as straight:
        expected = run_all(driver_of(study, straight))
    runs: list[tuple[int, int]] = []
    while one := run_all(driver_of(study, log), until=1):
        runs += one
    assert runs == expected


class Cut:
    """A log that ends after so many facts, as that of a search that was killed does."""

    def __init__(self, events: tuple[Event, ...]) -> None:
        self._events = list(events)

    def append(self, event: Event) -> bool:
        self._events.append(event)
        return True

    def events(self) -> tuple[Event, ...]:
        return tuple(self._events)


def test_wherever_a_search_with_rungs_is_cut_off_it_goes_on_as_if_it_were_not(tmp_path: Path, log: EventLog) -> None:
    study = stand_in_study(tmp_path, ONE_TRUNK, *RUNGS, "budget.trials=8")
    run_all(driver_of(study, log))
    whole = log.events()
    ends = [(event.kind, event.trial) for event in whole if event.kind in ("stopped", "finished", "paused")]
    moments = [place for place, event in enumerate(whole, 1) if whole[place - 1 : place + 1][-1].kind != "reported"]
    for moment in sorted({*moments, *random.Random(0).sample(range(1, len(whole)), 20)}):
        cut = Cut(whole[:moment])
        run_all(driver_of(study, cut))
        found = [(event.kind, event.trial) for event in cut.events() if event.kind in ("stopped", "finished", "paused")]
        assert found == ends, f"cut after {moment} facts"
