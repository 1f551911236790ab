"""Schedules that wait: what they remember, when their event comes, and that a resumed trial remembers it too."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from spaces.plan import Plan
from tests.probing import Residual, settled
from tests.test_pressure import viewed
from tests.test_trial import _killed_until_done, a_plan, measured, run, same_weights
from trainables.acting import READY, SCHEDULE
from trainables.checkpoint import acting_tensors, read
from trainables.costing import Costing
from trainables.pruning.pressure import State
from trainables.schedules import Ready, Standing
from trainables.schedules.waiting import likeness, when_stable
from trainables.store import StageStore
from trainables.trial import Trial

STABLE = {"name": "when_stable", "threshold": 0.95, "memory": 2, "start": 1, "until": 8}


def waiting_plan(criterion: str = "taylor", **schedule: Any) -> Plan:
    recipe = {"epochs": 10, "batch_size": 32, "learning_rate": 0.05, "checkpoint_minutes": 0.0}
    prune = {"criterion": criterion, "schedule": {**STABLE, **schedule}, "amount": {"keep_macs": 0.3}}
    return a_plan(prune=prune, train=recipe)


def ready_of(**settings: Any) -> Ready:
    (moment,) = when_stable(40, 0.5, **settings)
    assert moment.ready is not None
    return moment.ready


def answers_to(ready: Ready, kept: Sequence[dict[str, int]]) -> tuple[list[bool], State]:
    """What the schedule says at the end of each epoch where the event would leave so many channels."""
    view = viewed(settled(Residual()))
    state: State = {}
    answers = []
    for epoch, widths in enumerate(kept, 1):
        left = {name: torch.arange(width) for name, width in widths.items()}
        standing = Standing(epoch, True, lambda left=left: replace(view, ahead=lambda: left))
        state = state or ready.init(standing)
        answers.append(ready.step(standing, state))
    return answers, state


def psi(one: dict[str, int], other: dict[str, int]) -> float:
    """The likeness by hand for `Residual`: the stream has two layers, and so has the strided one."""
    layers = ["conv", "conv", "conv1", "conv3", "conv4", "conv4"]
    apart = [abs(one[name] - other[name]) / (one[name] + other[name]) for name in layers]
    return 1.0 - sum(apart) / len(layers)


def test_the_indicator_is_the_mean_likeness_to_the_epochs_before() -> None:
    start = {"conv": 4, "conv1": 5, "conv3": 6, "conv4": 6}
    kept = [start, {**start, "conv": 2}, {**start, "conv1": 1}, {**start, "conv4": 3, "conv": 1}]
    _, state = answers_to(ready_of(memory=2), kept)
    by_hand = [sum(psi(kept[t], kept[t - j]) for j in (1, 2)) / 2 for t in (2, 3)]
    assert state["indicators"].tolist() == pytest.approx(by_hand, abs=1e-15)
    assert state["widths"].tolist() == [[4, 4, 1, 6, 6, 6], [1, 1, 5, 6, 3, 3]]


def test_likeness_is_one_for_equal_widths_and_falls_with_their_distance() -> None:
    widths = torch.tensor([8, 4])
    assert likeness(widths, torch.tensor([[8, 4], [2, 4], [8, 1]])).tolist() == [1.0, 1.0 - 0.3, 1.0 - 0.3]


def test_the_event_waits_for_the_threshold_and_for_an_indicator_that_does_not_fall() -> None:
    wide, narrow = ({"conv": 4, "conv1": n, "conv3": 6, "conv4": 6} for n in (5, 1))
    settling = [wide, narrow, narrow, narrow, narrow]
    answers, _ = answers_to(ready_of(memory=2, threshold=0.99), settling)
    assert answers == [False, False, False, True, True]
    # 1, then a step to both sides of the threshold: what falls behind an earlier indicator must wait.
    low = psi(wide, narrow)
    answers, _ = answers_to(ready_of(memory=1, threshold=low - 0.01), [wide, wide, narrow, narrow])
    assert answers == [False, True, False, True]
    answers, _ = answers_to(ready_of(memory=1, threshold=1.0), [wide, narrow, wide])
    assert answers == [False, False, False]


def test_only_the_last_five_indicators_count() -> None:
    wide, less = ({"conv": 4, "conv1": 5, "conv3": n, "conv4": 6} for n in (6, 5))
    back_and_forth = [wide, wide, *[less, wide] * 4]  # an indicator of 1, then equal ones under it
    answers, state = answers_to(ready_of(memory=1, threshold=0.5), back_and_forth)
    assert answers == [False, True, False, False, False, False, False, True, True, True]
    assert len(state["indicators"]) == 5


def test_the_event_comes_between_the_first_epoch_it_may_and_the_last() -> None:
    (moment,) = when_stable(40, 0.5, memory=3, start=4, until=12)
    assert (moment.epoch, moment.first_epoch) == (12, 6)  # looks at the ends of epochs 3, 4, 5, and then an indicator
    (moment,) = when_stable(40, 0.5, memory=30, until=12)
    assert (moment.epoch, moment.first_epoch) == (12, 12)


def indicators(criterion: str) -> list[float]:
    """What the schedule computes while its event does not come, from the third epoch on."""
    trial = Trial(waiting_plan(criterion, threshold=1.0))
    found = []
    while trial.progress.epochs < 8:
        trial.step()
        if trial.progress.events:
            break
        found += trial._acting._memory["indicators"][-1:].tolist()
    return found


def between(found: Sequence[float]) -> float:
    """A threshold that the first indicator does not reach, and a later one does that is not under those before it."""
    tops = [(max(found[:place]), each) for place, each in enumerate(found) if place and each > max(found[:place])]
    return sum(tops[0]) / 2


@pytest.fixture(scope="module", params=["taylor", "l1"])
def straight(request: pytest.FixtureRequest) -> tuple[Plan, Trial, list[dict[str, Any]]]:
    """A trial whose event came neither as early nor as late as it may."""
    plan = waiting_plan(request.param, threshold=between(indicators(request.param)))
    trial, heard = run(plan, None)
    assert 3 < trial.progress.events_at[0] < 9
    return plan, trial, heard


def test_scores_that_never_change_bring_the_event_as_early_as_it_may_come() -> None:
    trial, _ = run(waiting_plan("random", threshold=1.0), None)
    assert trial.progress.events_at == (3,)


def test_a_waiting_trial_resumed_anywhere_equals_one_run_straight(
    straight: tuple[Plan, Trial, list[dict[str, Any]]], tmp_path: Path
) -> None:
    plan, trial, heard = straight
    (at,) = trial.progress.events_at
    for epochs in (1, 2, at - 1, at, at + 1):
        store = tmp_path / str(epochs)
        interrupted = Trial(plan, store=StageStore(store))
        while interrupted.progress.epochs < epochs:
            interrupted.step()
        resumed, again = run(plan, store)
        assert resumed.inherited_epochs == epochs
        assert resumed.progress == trial.progress
        assert same_weights(trial, resumed)
        assert measured(again[-1]) == measured(heard[-1])


def test_a_trial_resumed_right_before_its_event_still_knows_that_it_comes(
    straight: tuple[Plan, Trial, list[dict[str, Any]]], tmp_path: Path
) -> None:
    plan, trial, heard = straight
    (at,) = trial.progress.events_at
    store = StageStore(tmp_path)
    interrupted = Trial(plan, store=store, saves=[at])
    while interrupted.progress.epochs < at:
        interrupted.step()
    store.discard(interrupted.progress.key)
    resumed = Trial(plan, store=store)
    assert (resumed.progress.epochs, resumed.progress.events) == (at, 0)
    folder = store.fetch(resumed.progress.key)
    assert folder is not None
    assert {f"{SCHEDULE}widths", f"{SCHEDULE}indicators", f"{READY}now"} == set(acting_tensors(read(folder)))
    again = []
    while not resumed.done:
        again.append(resumed.step())
    assert resumed.progress == trial.progress
    assert same_weights(trial, resumed)
    assert measured(again[-1]) == measured(heard[-1])


def test_a_waiting_process_killed_resumes_to_the_same_numbers(tmp_path: Path) -> None:
    plan = waiting_plan(threshold=between(indicators("taylor")))
    straight, heard = run(plan, None)
    assert _killed_until_done(plan, tmp_path, kills=3, longest=0.4) == 3
    resumed = Trial(plan, store=StageStore(tmp_path / "store"))
    assert same_weights(straight, resumed)
    assert measured(resumed.step()) == measured(heard[-1])


def test_until_it_looks_for_the_first_time_a_waiting_plan_shares_the_baselines_epochs(tmp_path: Path) -> None:
    plan = waiting_plan(start=3)
    run(plan.dense(), tmp_path, saves=[1, 2, 3, 4])
    assert Trial(plan, store=StageStore(tmp_path)).progress.epochs == 2
    costing = Costing()
    shared = {step.key for step in costing.path(plan)} & {step.key for step in costing.path(plan.dense())}
    assert len(shared) == 2
    alike, _ = run(plan, tmp_path)
    apart, _ = run(plan, None)
    assert same_weights(alike, apart)


def test_two_plans_that_wait_for_different_things_share_nothing_from_the_first_look_on(tmp_path: Path) -> None:
    run(waiting_plan(), tmp_path)
    for other in (waiting_plan("l1"), waiting_plan(threshold=0.9), waiting_plan(memory=3)):
        assert Trial(other, store=StageStore(tmp_path)).progress.epochs == 0


def test_every_look_is_charged_like_the_events_own(straight: tuple[Plan, Trial, list[dict[str, Any]]]) -> None:
    plan, trial, heard = straight
    (at,) = trial.progress.events_at
    looked = 200 * 2 if plan.prune is not None and plan.prune.criterion.name == "taylor" else 0
    dense, pruned = heard[0]["macs"], heard[-1]["macs"]
    events = 1 + at  # a look at the end of each epoch, and the event itself
    epochs = 3 * 200 * (at * dense + (10 - at) * pruned)
    assert trial.progress.training_macs == epochs + events * looked * dense


def test_a_schedule_that_compares_widths_is_refused_for_single_weights() -> None:
    prune = {"granularity": "weights", "criterion": "magnitude", "amount": {"keep_weights": 0.5}}
    with pytest.raises(ValueError, match="schedule 'when_stable' compares widths and needs granularity 'channels'"):
        a_plan(prune={**prune, "schedule": "when_stable"})
