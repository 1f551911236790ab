"""What a person sees while a search runs, and when it is over."""

import io
import math
from typing import Any

from rich.console import Console

from search.cluster import Capacity
from search.progress import Lines, Picture, percent, progress_for, spell, thinned
from search.scoreboard import Scoreboard
from search.summary import print_summary
from spaces.load import load_study
from spaces.study import Resources
from tests.standin import STUDY
from tracking.events import Event


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def a_search(board: Scoreboard, clock: Clock) -> list[tuple[Event, bool]]:
    """A baseline, one trial that ends, one that fails, one that runs; ten seconds each. What was heard, and changed."""
    study = load_study(STUDY)
    pruned = study.plan(study.defaults())
    heard = []

    def hear(kind: Any, trial: int | None = None, **body: Any) -> None:
        plan_hash = None if trial is None else f"plan{trial}"
        event = Event(kind, trial, plan_hash, body)
        heard.append((event, board.hear(event)))

    objectives = {"accuracy": "maximize", "keep_macs": "minimize"}
    hear("opened", study="standin", objectives=objectives, constraints={})
    board.begin()
    for trial in range(4):
        plan = study.baseline() if trial == 0 else pruned
        hear("proposed", trial, plan=plan.model_dump(mode="json"), choices={})
        hear("started", trial, attempt=1, node="here", from_epoch=0)
        hear("reported", trial, epoch=4, accuracy=0.5, keep_macs=1.0)
        if trial != 3:
            clock.now += 10
        metrics = {"accuracy": 0.9 - 0.05 * trial, "keep_macs": 0.5**trial, "macs": 1e6 * 0.5**trial, "params": 1000}
        if trial < 2:
            hear("finished", trial, epoch=8, training_macs=5e6, **metrics)
        elif trial == 2:
            hear("failed", trial, epoch=4, reason="loss is nan")
    return heard


def test_without_a_terminal_every_trial_that_ends_is_one_line() -> None:
    clock, said = Clock(), list[str]()
    board = Scoreboard(5, clock=clock)
    lines = Lines(board, said.append)
    with lines:
        for event, changed in a_search(board, clock):
            lines.hear(event, front_changed=changed)
            lines.tick()
    assert [line.partition("  ")[2].partition(";")[0] for line in said] == [
        "#000 dense: accuracy 0.9000, 100 % of the MACs *",
        "#001 l1·every·given keep 0.2: accuracy 0.8500, 50 % of the MACs *",
        "#002 l1·every·given keep 0.2: failed: loss is nan",
    ]


def test_time_left_follows_from_the_pace_and_counts_running_trials_by_their_epochs() -> None:
    clock = Clock()
    board = Scoreboard(5, clock=clock)
    assert math.isinf(board.seconds_left)
    a_search(board, clock)
    assert board.elapsed == 30
    assert board.ended == 3
    assert board.seconds_left == 10 * 1.5


def test_a_resumed_search_takes_its_pace_from_this_run_alone() -> None:
    clock = Clock()
    board = Scoreboard(5, clock=clock)
    a_search(board, clock)
    board.begin()
    assert math.isinf(board.seconds_left)
    assert not board.running, "what ran in the killed search does not run now"


def test_in_a_terminal_the_picture_shows_trials_front_hypervolume_and_time_left() -> None:
    clock, screen = Clock(), io.StringIO()
    board = Scoreboard(5, clock=clock)
    console = Console(file=screen, force_terminal=True, width=120)
    picture = progress_for(board, console)
    assert isinstance(picture, Picture)
    a_search(board, clock)
    with picture:
        picture.tick()
        picture.note("trial 3: its worker was lost")
    shown = screen.getvalue()
    for part in ("standin", "3/5 trials", "running 1", "failed 1", "15 s left", "#003 l1·every·given keep 0.2"):
        assert part in shown, part
    for part in ("epoch 4/8", "front: 2 points, hypervolume 0.", "0.8500", "50 %", "500 k", "worker was lost"):
        assert part in shown, part


def test_the_summary_says_how_many_failed_and_why_and_how_far_accuracies_can_be_told_apart() -> None:
    clock, screen = Clock(), io.StringIO()
    board = Scoreboard(5, clock=clock)
    a_search(board, clock)
    print_summary(Console(file=screen, width=120), board, why_ended="1 minutes are over")
    shown = screen.getvalue()
    assert "3 of 5 trials in 30 s: 2 finished, 1 failed" in shown
    assert "1 failed: loss is nan" in shown
    assert "no more trials: 1 minutes are over" in shown
    assert "900 validation images, standard error 0.0100" in shown
    assert "1e+07 (1 MAC = 2 FLOPs)" in shown


def test_numbers_are_for_people() -> None:
    assert [spell(seconds) for seconds in (0, 59.4, 200, 7500, math.inf)] == [
        "0 s",
        "59 s",
        "3 min 20 s",
        "2 h 05 min",
        "?",
    ]
    assert [percent(0.2131), percent(1.0)] == ["21.3 %", "100 %"]


def test_a_long_front_is_thinned_and_keeps_its_ends() -> None:
    points: list[Any] = list(range(40))
    assert len(thinned(points)) == 16
    assert thinned(points)[0] == 0
    assert thinned(points)[-1] == 39
    assert thinned(points[:16]) == points[:16]


def test_as_many_trials_run_at_once_as_fit_on_every_node(monkeypatch: Any) -> None:
    import ray

    nodes = [
        {"Alive": True, "Resources": {"CPU": 8.0, "GPU": 2.0}},
        {"Alive": True, "Resources": {"CPU": 3.0, "GPU": 1.0}},
        {"Alive": True, "Resources": {"CPU": 16.0}},
        {"Alive": False, "Resources": {"CPU": 8.0, "GPU": 8.0}},
    ]
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    assert Capacity(Resources(cpus=2, gpus=0.25), grows=False).workers(0.0) == 4 + 1
    assert Capacity(Resources(cpus=2, gpus=1), grows=True).workers(0.0) == 2 + 1 + 1
    assert Capacity(Resources(cpus=2), grows=False).workers(0.0) == 4 + 1 + 8
    assert Capacity(Resources(cpus=2, workers=7), grows=True).workers(0.0) == 7
