"""Opponents of the search benchmark: their own objects behind one face, in virtual time, charged for all they train."""

import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.search.curves import curve, reach
from benchmarks.search.opponents import Opponent, RandomChoices, RayAsha, RayNsga, RayOptuna, SyneTuneMoasha, longest
from benchmarks.search.plain import PlainSearch, run_plain
from search.simulated_run import OwnShelf
from search.simulated_workers import Clock, Conditions
from search.simulator import Finish, Simulator
from spaces.errors import UserError
from spaces.lap import Lap
from spaces.plan import Plan
from spaces.study import Study
from tests.standin import stand_in_study
from tracking.front import Point, hypervolume

EPOCHS, EVENT = 8, 4
MACS, SECONDS = 100, 2.0  # of each epoch


class Tiny:
    """Trials in closed form: pruned after epoch 4 of 8; those of criterion `random` break after epoch 6."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def check(self, study: Study) -> None:
        pass

    def problem(self, plan: Plan) -> str | None:
        return "it keeps too little" if _keep(plan) < 0.055 else None

    def failure(self, plan: Plan) -> str | None:
        return "loss is nan" if plan.prune is not None and plan.prune.criterion.name == "random" else None

    def laps(self, plan: Plan) -> Sequence[Lap]:
        self.asked.append(plan.hash)
        laps = []
        for epoch in range(1, EPOCHS + 1 if self.failure(plan) is None else 7):
            keep = _keep(plan) if epoch > EVENT else 1.0
            accuracy = epoch / EPOCHS * (0.95 - 0.3 * (1.0 - keep) ** 4) - plan.train.learning_rate / 10
            metrics = {"accuracy": accuracy, "keep_macs": keep}
            laps.append(Lap(f"{plan.hash}-{epoch}", epoch, int(epoch > EVENT), MACS, SECONDS, metrics))
        return laps


def _keep(plan: Plan) -> float:
    assert plan.prune is not None
    assert plan.prune.amount.keep_macs is not None
    return plan.prune.amount.keep_macs


class Scripted:
    """Proposes what it was given and notes what it hears."""

    name = "scripted"

    def __init__(self, choices: Sequence[Mapping[str, Any]], stops: Mapping[int, int] | None = None) -> None:
        """`stops`: {number of a trial: the epoch at which it is stopped}."""
        self._choices, self._stops = iter(choices), stops or {}
        self.heard: list[tuple[int, int]] = []
        self.told: dict[int, Mapping[str, Any] | None] = {}

    def ask(self) -> Mapping[str, Any] | None:
        return next(self._choices, None)

    def report(self, number: int, epoch: int, metrics: Mapping[str, Any]) -> Any:
        self.heard.append((number, epoch))
        return "stop" if self._stops.get(number) == epoch else "go on"

    def tell(self, number: int, metrics: Mapping[str, Any] | None) -> None:
        assert number not in self.told
        self.told[number] = metrics


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return stand_in_study(tmp_path)


def choices_of(study: Study, **changes: Any) -> dict[str, Any]:
    return {**study.defaults(), **{path.replace("__", "."): value for path, value in changes.items()}}


def conditions(workers: int = 1) -> Conditions:
    return Conditions(workers=workers, setup_seconds=0.0)


# What is charged


def test_every_trial_is_trained_from_nothing_and_charged_whole_even_one_that_was_trained_before(study: Study) -> None:
    again = [choices_of(study)] * 3
    result = run_plain(study, Scripted(again), Tiny(), trials=3, conditions=conditions())
    assert result.macs == 3 * EPOCHS * MACS
    assert [finish.macs for finish in result.finishes] == [EPOCHS * MACS * n for n in (1, 2, 3)]
    assert [finish.seconds for finish in result.finishes] == [EPOCHS * SECONDS * n for n in (1, 2, 3)]


def test_several_workers_take_less_time_and_as_many_macs(study: Study) -> None:
    again = [choices_of(study)] * 6
    result = run_plain(study, Scripted(again), Tiny(), trials=6, conditions=conditions(workers=3))
    assert result.macs == 6 * EPOCHS * MACS
    assert result.seconds == 2 * EPOCHS * SECONDS


def test_a_stopped_trial_is_charged_as_far_as_it_came_and_is_no_result(study: Study) -> None:
    opponent = Scripted([choices_of(study)] * 2, stops={0: 5})
    result = run_plain(study, opponent, Tiny(), trials=2, conditions=conditions())
    assert result.macs == (5 + EPOCHS) * MACS
    assert [finish.number for finish in result.finishes] == [1]
    told = opponent.told[0]
    assert told is not None
    assert told["epoch"] == 5


def test_a_trial_that_breaks_is_charged_and_told_as_broken(study: Study) -> None:
    opponent = Scripted([choices_of(study, prune__criterion="random")])
    result = run_plain(study, opponent, Tiny(), trials=1, conditions=conditions())
    assert result.macs == 6 * MACS
    assert result.finishes == ()
    assert opponent.told == {0: None}


def test_what_cannot_be_run_costs_an_opponent_nothing_and_is_no_trial(study: Study) -> None:
    out_of_reach = choices_of(study, prune__amount__keep_macs=0.05)
    opponent = Scripted([out_of_reach, choices_of(study), out_of_reach, choices_of(study)])
    result = run_plain(study, opponent, Tiny(), trials=2, conditions=conditions())
    assert result.macs == 2 * EPOCHS * MACS
    assert [finish.number for finish in result.finishes] == [1, 3]
    assert opponent.told[0] is opponent.told[2] is None


def test_an_opponent_hears_every_epoch_the_last_one_too(study: Study) -> None:
    opponent = Scripted([choices_of(study)])
    run_plain(study, opponent, Tiny(), trials=1, conditions=conditions())
    assert opponent.heard == [(0, epoch) for epoch in range(1, EPOCHS + 1)]


def test_a_plain_search_ends_with_its_trials_its_macs_or_its_proposals(study: Study) -> None:
    def run(proposals: int, **more: Any) -> int:
        opponent = Scripted([choices_of(study)] * proposals)
        return run_plain(study, opponent, Tiny(), conditions=conditions(), **more).macs // (EPOCHS * MACS)

    assert run(9, trials=4) == 4
    assert run(9, trials=9, macs=2 * EPOCHS * MACS + 1) == 3
    assert run(2, trials=9) == 2


def test_an_opponent_that_only_proposes_what_cannot_be_run_is_done(study: Study) -> None:
    opponent = Scripted(list(itertools.repeat(choices_of(study, prune__amount__keep_macs=0.05), 2000)))
    search = PlainSearch(study, opponent, Tiny(), trials=1, macs=None)
    assert search.next_trial(1) == "over"


# The opponents' own objects


def syne_tune(study: Study, **more: Any) -> SyneTuneMoasha:
    pytest.importorskip("syne_tune")
    return SyneTuneMoasha(study, **more)


OPPONENTS: list[Callable[..., Opponent]] = [RandomChoices, RayOptuna, RayNsga, RayAsha, syne_tune]


@pytest.mark.parametrize("made", OPPONENTS, ids=lambda made: made.__name__)
def test_an_opponent_searches_the_whole_flat_space_and_repeats_itself_with_its_seed(
    study: Study, made: Callable[..., Opponent]
) -> None:
    others_draw = itertools.count()

    def run(seed: int) -> tuple[list[str], Any]:
        source = Tiny()
        random.seed(next(others_draw))  # what others draw is none of its business
        np.random.seed(next(others_draw))
        result = run_plain(study, made(study, seed=seed), source, trials=15, conditions=conditions(workers=3))
        return source.asked, result

    (plans, result), (again, _), (others, _) = run(1), run(1), run(2)
    assert plans == again
    assert plans != others
    assert len(plans) == 15
    assert len(set(plans)) > 10
    assert 0 < len(result.finishes) < 15, "some break, and some may be stopped"


@pytest.mark.parametrize("made", [RayAsha, syne_tune], ids=lambda made: made.__name__)
def test_an_opponent_with_a_scheduler_stops_trials_at_its_rung_and_nowhere_else(
    study: Study, made: Callable[..., Opponent]
) -> None:
    opponent = made(study, seed=0, grace_period=6)
    search = PlainSearch(study, opponent, Tiny(), trials=30, macs=None)
    Simulator(search, Tiny(), conditions(), clock=Clock(), shelf=OwnShelf()).run()
    assert set(search.stopped_at.values()) == {6}
    assert 5 <= len(search.stopped_at) <= 25


@pytest.mark.parametrize("made", [RayAsha, syne_tune], ids=lambda made: made.__name__)
def test_numpys_global_generator_is_left_as_it_was(study: Study, made: Callable[..., Opponent]) -> None:
    np.random.seed(3)
    before = np.random.get_state()[1].tolist()
    opponent = made(study, seed=0)
    first = opponent.ask()
    assert first is not None
    opponent.report(0, 1, {"epoch": 1, "accuracy": 0.5, "keep_macs": 1.0})
    assert np.random.get_state()[1].tolist() == before


def test_asha_is_told_a_stopped_trial_as_ray_tune_tells_it(study: Study) -> None:
    """Its controller completes a stopped trial with the last report: the searcher takes that for a result."""
    opponent = RayAsha(study, seed=0)
    result = run_plain(study, opponent, Tiny(), trials=20, conditions=conditions())
    states = [trial.state.name for trial in opponent._search._ot_study.trials]
    assert states.count("COMPLETE") > len(result.finishes)


def test_the_longest_training_is_that_of_the_study(tmp_path: Path) -> None:
    assert longest(stand_in_study(tmp_path)) == 8
    assert longest(stand_in_study(tmp_path, "train.epochs={from: 8, to: 20}")) == 20


def test_syne_tune_that_is_not_there_is_said_in_plain_words(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.search.opponents.find_spec", lambda name: None)
    with pytest.raises(UserError, match="make opponents"):
        SyneTuneMoasha(study, seed=0)


@pytest.mark.parametrize(
    "domain",
    [
        "{choices: [0.3, 0.5]}",
        "{from: 0.2, to: 0.8}",
        "{from: 0.2, to: 0.8, log: true}",
        "{from: 0.2, to: 0.8, step: 0.2}",
    ],
)
def test_every_kind_of_domain_is_offered_to_syne_tune_as_it_is(tmp_path: Path, domain: str) -> None:
    study = stand_in_study(
        tmp_path,
        f"prune.amount.keep_macs={domain}",
        "train.batch_size={from: 20, to: 60, step: 20}",
        "train.epochs={from: 8, to: 32, log: true}",
    )
    opponent = syne_tune(study, seed=0)
    offered = [opponent.ask() for _ in range(200)]
    for parameter in study.parameters:
        seen = {choices[parameter.path] for choices in offered}
        assert len(seen) > 1
        assert seen == {parameter.domain.taken(value) for value in seen}
    assert {choices["train.batch_size"] for choices in offered} == {20, 40, 60}


# Curves


def finish(macs: int, accuracy: float, keep: float) -> Finish:
    return Finish(0, {"accuracy": accuracy, "keep_macs": keep, "other": "text"}, macs / 10, macs)


def test_a_curve_is_the_hypervolume_of_what_was_fully_trained_until_then() -> None:
    finishes = [finish(100, 0.9, 0.5), finish(200, 0.8, 0.6), finish(300, 0.88, 0.1)]
    points = curve(finishes, dense_accuracy=0.95)
    kept = [Point("", {"accuracy": f.metrics["accuracy"], "keep_macs": f.metrics["keep_macs"]}) for f in finishes]
    assert [point.hypervolume for point in points] == [hypervolume(kept[:n], 0.95) for n in (1, 2, 3)]
    assert points[0].hypervolume == points[1].hypervolume < points[2].hypervolume
    assert [(point.macs, point.seconds) for point in points] == [(100, 10.0), (200, 20.0), (300, 30.0)]


def test_a_level_is_reached_by_the_first_point_at_or_above_it() -> None:
    points = curve([finish(100, 0.9, 0.5), finish(200, 0.8, 0.6), finish(300, 0.88, 0.1)], dense_accuracy=0.95)
    assert reach(points, points[0].hypervolume) == points[0]
    assert reach(points, points[0].hypervolume + 1e-9) == points[2]
    assert reach(points, 1.0) is None
    assert reach([], 0.0) is None
