"""What is told of a plan's way before it is trained, against the way that a trial takes."""

import itertools
from typing import Any

import pytest

from search.stages import shared
from spaces.path import Path
from spaces.plan import Plan
from tests.test_trial import a_plan
from trainables.costing import Costing
from trainables.foresight import retraining
from trainables.trial import Trial

PRUNE = a_plan().prune
SPARSE: dict[str, Any] = {
    "criterion": "magnitude",
    "granularity": "weights",
    "schedule": {"name": "every", "interval": 2, "until": 4},
    "amount": {"keep_weights": 0.4},
}


def plan(**changes: Any) -> Plan:
    small = {
        "data": {"name": "digits", "validation": 900, "train_images": 64},
        "model": {"name": "resnet8", "width": 4},
    }
    return a_plan(**{**small, **changes})


def pruned(**changes: Any) -> Plan:
    assert PRUNE is not None
    return plan(prune={**PRUNE.model_dump(mode="json"), **changes})


PLANS = {
    "dense": plan().dense(),
    "taylor": plan(),
    "taylor, the same rates after the events": plan(recover={"name": "continue"}),
    "taylor, other rates after the events": plan(recover={"name": "cosine", "peak": 0.5}),
    "taylor, the damage weighs more": plan(recover={"name": "damage_aware", "peak": 0.5}),
    "l1": pruned(criterion={"name": "l1"}),
    "deeper": pruned(amount={"keep_macs": 0.2}),
    "one event": pruned(schedule={"name": "once", "after": 2}),
    "one event, other rates": plan(
        prune={"criterion": "taylor", "schedule": {"name": "once", "after": 2}, "amount": {"keep_macs": 0.4}},
        recover={"name": "linear", "peak": 0.5},
    ),
    "pressed from the second epoch on": pruned(regularizer={"name": "bn_l1"}, pressure_start=1),
    "single weights": plan(prune=SPARSE),
    "another network": plan(model={"name": "resnet8", "width": 5}),
}


def trained(one: Plan) -> list[tuple[str, int]]:
    """The real keys of all boundaries of the plan, and training MACs of each from the one before."""
    trial = Trial(one)
    passed = [(trial.progress.key, 0)]
    fire = trial._fire

    def noted() -> None:
        passed.append((trial.progress.key, trial.progress.training_macs))

    def fire_and_note(moment: Any) -> None:
        fire(moment)
        noted()

    trial._fire = fire_and_note  # type: ignore[method-assign]
    train = trial._train

    def train_and_note(epoch: int) -> tuple[float, float]:
        answer = train(epoch)
        noted()
        return answer

    trial._train = train_and_note  # type: ignore[method-assign]
    while not trial.done:
        trial.step()
    return passed[1:]


@pytest.fixture(scope="module")
def ways() -> dict[str, tuple[Path, list[tuple[str, int]]]]:
    costing = Costing()
    return {name: (costing.path(one), trained(one)) for name, one in PLANS.items()}


def test_foreseen_boundaries_are_the_boundaries_that_come(ways: dict[str, tuple[Path, list[tuple[str, int]]]]) -> None:
    for name, (path, real) in ways.items():
        assert len(path) == len(real), name


def test_two_plans_share_in_truth_what_they_are_foreseen_to_share(
    ways: dict[str, tuple[Path, list[tuple[str, int]]]],
) -> None:
    found = set()
    for (one, (path, real)), (other, (path_of_other, real_of_other)) in itertools.combinations(ways.items(), 2):
        foreseen = shared(path, path_of_other)
        both = itertools.takewhile(lambda pair: pair[0][0] == pair[1][0], zip(real, real_of_other, strict=False))
        assert foreseen == sum(1 for _ in both), f"{one} and {other}"
        found.add(foreseen)
    assert found == {0, 1, 2, 3}, "apart from the start, after epochs that differ, before an event and after it"


def test_what_an_epoch_costs_before_the_first_event_is_exact(
    ways: dict[str, tuple[Path, list[tuple[str, int]]]],
) -> None:
    path, real = ways["taylor"]
    total = 0
    for step, (_, spent) in zip(path, real, strict=True):
        if step.events:
            break
        total += step.macs
        assert spent == total


def test_where_an_event_may_come_or_not_one_step_stands_for_the_rest() -> None:
    waiting = pruned(
        regularizer={"name": "greg"},
        schedule={"name": "when_finished", "start": 1, "until": 4},
        pressure_start=1,
    )
    path = Costing().path(waiting)
    assert [(step.epochs, step.events) for step in path] == [(1, 0), (6, 1)]
    assert path[1].macs == 5 * path[0].macs


SHORT = {"epochs": 6, "batch_size": 2, "learning_rate": 0.1}
LEVEL = {**SHORT, "decay": "constant"}


def area_of(one: Plan) -> float:
    """From the learning rate of every step that a trial takes."""
    trial, taken = Trial(one), list[tuple[int, list[float]]]()
    train = trial._train

    def train_and_note(epoch: int) -> tuple[float, float]:
        taken.append((trial.progress.events, trial._chain.rates(trial.progress)))
        return train(epoch)

    trial._train = train_and_note  # type: ignore[method-assign]
    while not trial.done:
        trial.step()
    cut, area = [0.0, *(moment.sparsity for moment in trial._chain.moments)], 0.0
    for event in range(1, trial.progress.events + 1):
        after = sum(sum(rates) / len(rates) for events, rates in taken if events >= event)
        area += (cut[event] - cut[event - 1]) / cut[-1] * after
    return area / (len(taken) * one.train.learning_rate)


@pytest.mark.parametrize(
    ("one", "area"),
    [
        (plan(train=LEVEL).dense(), 1.0),
        (plan(train=SHORT, recover={"name": "continue"}), None),
        (plan(train=LEVEL, recover={"name": "continue"}), 3 / 6),  # halves of the cut, after two and after four epochs
        (plan(train=LEVEL, recover={"name": "constant", "peak": 0.1}), 0.1 * 3 / 6),
        (plan(train=LEVEL, recover={"name": "linear", "peak": 0.5, "warmup": 0.0}), None),
        (plan(train=SHORT, recover={"name": "cosine"}), None),
        (plan(train={**LEVEL, "warmup_epochs": 5}, recover={"name": "continue"}), None),
    ],
)
def test_retraining_is_the_area_under_the_learning_rates_after_a_cut(one: Plan, area: float | None) -> None:
    """Against arithmetic where it is easy; else against every step that a trial takes."""
    if area is None:
        area = area_of(one)
    assert retraining(one) == pytest.approx(area, rel=0.1)
