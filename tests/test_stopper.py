"""Front-aware stopping: what a rung keeps, who is better than whom, and that events repeated give the same verdicts."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.agreement import spearman
from search.ranking import Ranking, Score, score_of, spread_order
from search.stages import Step
from search.stopper import FrontStopper, rungs, stopper_of
from spaces.plan import Plan
from spaces.study import Stopping, Study
from tests.standin import stand_in_study

OBJECTIVES = {"accuracy": "maximize", "keep_macs": "minimize"}
FRACTIONS = (0.5, 0.75)

WHOLE = st.integers(-50, 50)
POINTS = st.lists(st.tuples(WHOLE, WHOLE), min_size=1, max_size=30)
SCORES = st.lists(
    st.builds(Score, st.sampled_from([0.0, 0.0, 0.5, 2.0]), st.tuples(WHOLE.map(float), WHOLE.map(float))), max_size=25
)


def ranking_of(scores: Sequence[Score]) -> Ranking[Any]:
    ranking = Ranking[Any]()
    for number, score in enumerate(scores):
        ranking.add(number, score)
    return ranking


def order_of(scores: Sequence[Score]) -> list[Score]:
    """The distinct scores, best first."""
    return [scores[next(iter(equal))] for equal in ranking_of(scores).order()]


# Rank and order


@given(SCORES)
def test_a_rank_is_the_longest_chain_of_members_each_beaten_by_the_next(scores: list[Score]) -> None:
    ranks: dict[int, int] = {}
    while len(ranks) < len(scores):  # peel: whoever is beaten by nobody that is left
        left = [number for number in range(len(scores)) if number not in ranks]
        rank = max(ranks.values(), default=-1) + 1
        ranks |= {n: rank for n in left if not any(scores[other].beats(scores[n]) for other in left)}
    assert ranking_of(scores).ranks() == ranks


@given(SCORES)
def test_the_order_lists_everybody_once_by_rising_rank(scores: list[Score]) -> None:
    ranking = ranking_of(scores)
    ranks, listed = ranking.ranks(), [number for equal in ranking.order() for number in equal]
    assert sorted(listed) == list(range(len(scores)))
    assert [ranks[number] for number in listed] == sorted(ranks.values())


@given(SCORES)
def test_a_position_is_the_place_in_the_order(scores: list[Score]) -> None:
    ranking, before = ranking_of(scores), 0
    for equal in ranking.order():
        for number in equal:
            assert ranking.position(scores[number]) == before
            for count in range(len(scores) + 1):
                assert ranking.is_among(count, scores[number]) == (before < count)
        before += len(equal)


@given(SCORES, st.integers(0, 30))
def test_the_first_are_those_with_too_few_before_them(scores: list[Score], count: int) -> None:
    ranking = ranking_of(scores)
    assert sorted(ranking.first(count)) == [n for n, score in enumerate(scores) if ranking.is_among(count, score)]


def test_a_rank_is_not_a_place_in_the_order() -> None:
    worst, best, middle = Score(0.0, (3.0, 3.0)), Score(0.0, (1.0, 1.0)), Score(0.0, (2.0, 2.0))
    ranking = ranking_of([worst, best, middle])
    assert ranking.ranks() == {0: 2, 1: 0, 2: 1}
    assert list(ranking.order()) == [[1], [2], [0]]


@given(st.data(), SCORES)
def test_the_ranking_does_not_depend_on_the_order_of_its_members(data: st.DataObject, scores: list[Score]) -> None:
    shuffled = data.draw(st.permutations(scores))
    assert order_of(scores) == order_of(shuffled)
    assert [ranking_of(scores).position(score) for score in scores] == [
        ranking_of(shuffled).position(score) for score in scores
    ]


@given(POINTS, st.sampled_from([0, 1]), st.integers(1, 1000), st.integers(-1000, 1000))
def test_the_ranking_does_not_depend_on_the_unit_of_an_objective(
    points: list[tuple[int, int]], which: int, factor: int, offset: int
) -> None:
    # Whole numbers, because then the other unit is the same numbers and not a rounding of them.
    there = [tuple(factor * v + offset if n == which else v for n, v in enumerate(point)) for point in points]
    ours, theirs = (ranking_of([Score(0.0, tuple(map(float, p))) for p in given]) for given in (points, there))
    assert list(map(sorted, ours.order())) == list(map(sorted, theirs.order()))


@given(POINTS)
def test_the_spread_of_a_front_begins_at_an_end_and_goes_on_with_the_farthest(points: list[tuple[int, int]]) -> None:
    order = spread_order([tuple(map(float, point)) for point in points])
    assert sorted(order) == sorted({tuple(map(float, point)) for point in points})
    assert order[0] == min(order)


def test_the_spread_of_a_front_covers_it_from_the_ends_inwards() -> None:
    line = [(float(x), 16.0 - x) for x in range(17)]
    assert spread_order(line)[:5] == [(0.0, 16.0), (16.0, 0.0), (8.0, 8.0), (4.0, 12.0), (12.0, 4.0)]


def test_an_objective_in_which_all_agree_does_not_count() -> None:
    assert spread_order([(1.0, 7.0, 3.0), (0.0, 7.0, 4.0)]) == [(0.0, 7.0, 4.0), (1.0, 7.0, 3.0)]
    assert spread_order([(2.0, 2.0), (2.0, 2.0)]) == [(2.0, 2.0)]
    assert spread_order([]) == []


# Constraints, and what is no number


@given(SCORES)
def test_what_breaks_a_constraint_loses_to_what_breaks_none_and_to_what_breaks_it_by_less(scores: list[Score]) -> None:
    violations = [score.violation for score in order_of(scores)]
    assert violations == sorted(violations)


def test_a_violation_is_how_far_each_bound_is_passed_in_parts_of_the_bound() -> None:
    constraints = {"params": {"max": 200.0}, "accuracy": {"min": 0.8}}
    score = score_of({"accuracy": 0.6, "keep_macs": 0.5, "params": 300}, OBJECTIVES, constraints)
    assert score.losses == (-0.6, 0.5)
    assert score.violation == pytest.approx(0.5 + 0.25)
    assert score_of({"accuracy": 0.9, "keep_macs": 0.5, "params": 200}, OBJECTIVES, constraints).violation == 0.0


@pytest.mark.parametrize("missing", [{}, {"accuracy": math.nan}, {"accuracy": None}, {"accuracy": -math.inf}])
def test_a_metric_that_is_missing_or_no_number_comes_last(missing: Mapping[str, Any]) -> None:
    ranking = ranking_of([Score(9.0, (50.0, 50.0)), Score(0.0, (1.0, 1.0))])
    for number, constraints in enumerate([{}, {"accuracy": {"min": 0.1}}]):
        score = score_of({"keep_macs": 0.0, **missing}, OBJECTIVES, constraints)
        ranking.add(f"nothing {number}", score)
        assert not score.is_valid
        assert ranking.position(score) == len(ranking)
        assert not ranking.is_among(len(ranking), score)


# Rungs


def path_of(*events: int, epochs: int) -> tuple[Step, ...]:
    """A boundary at every epoch, and one more at the end of each epoch in `events`."""
    steps, fired = [], 0
    for epoch in range(1, epochs + 1):
        steps.append(Step(f"{epoch}-{fired}", epoch, fired, 100))
        for _ in range(events.count(epoch)):
            fired += 1
            steps.append(Step(f"{epoch}-{fired}", epoch, fired, 0))
    return tuple(steps)


def test_rungs_are_fractions_of_what_follows_the_last_event() -> None:
    assert rungs(path_of(2, 6, 10, epochs=30), FRACTIONS) == {20: 0.5, 25: 0.75}
    assert rungs(path_of(9, epochs=30), FRACTIONS) == {20: 0.5, 25: 0.75}
    assert rungs(path_of(10, 10, epochs=20), (0.7,)) == {17: 0.7}, "a product of floats that is just above 7"


def test_the_dense_baseline_has_no_rung() -> None:
    assert rungs(path_of(epochs=30), FRACTIONS) == {}
    assert rungs((), FRACTIONS) == {}


@given(st.integers(1, 60), st.integers(1, 60), st.lists(st.floats(0.5, 0.999), min_size=1, max_size=5, unique=True))
def test_no_rung_comes_before_half_of_the_recovery_nor_at_its_end(
    begin: int, length: int, fractions: list[float]
) -> None:
    end = begin + length
    for epoch in rungs(path_of(begin, epochs=end), tuple(sorted(fractions))):
        assert (epoch - begin) / length + 1e-9 >= 0.5
        assert begin < epoch < end


# The stopper


class Race:
    """A stopper, and trials that all prune after epoch 10 of 30, so that their rungs are at 20 and 25."""

    def __init__(self, *, name: Literal["none", "front"] = "front", grace: int = 4, **more: Any) -> None:
        settings = Stopping(name=name, reduction=more.get("reduction", 2.0), fractions=FRACTIONS, grace=grace)
        self.stopper = FrontStopper(settings, objectives=OBJECTIVES, constraints=more.get("constraints", {}))
        self.calls: list[tuple[int, int, dict[str, float]]] = []

    def enter(self, number: int, *, plan: Plan, epochs: int = 30, event: int = 10) -> frozenset[int]:
        return self.stopper.enter(number, plan, path_of(event, epochs=epochs))

    def report(self, number: int, accuracy: float, keep: float, *, epoch: int = 20) -> str:
        metrics = {"epoch": epoch, "accuracy": accuracy, "keep_macs": keep}
        self.calls.append((number, epoch, metrics))
        return self.stopper.heard(number, epoch, metrics)


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    study = stand_in_study(tmp_path_factory.mktemp("study"))
    return study.plan(study.defaults())


def race_of(plan: Plan, trials: int = 60, **more: Any) -> Race:
    race = Race(**more)
    for number in range(1, trials):
        race.enter(number, plan=plan)
    return race


RESULTS = st.lists(st.tuples(st.integers(0, 20), st.integers(1, 20)), min_size=1, max_size=40)


@given(RESULTS)
def test_a_newcomer_that_beats_all_others_is_never_stopped(plan: Plan, results: list[tuple[int, int]]) -> None:
    race = race_of(plan, grace=1, reduction=50.0)
    for number, (accuracy, keep) in enumerate(results, start=1):
        race.report(number, accuracy / 100, keep / 20)
    assert race.report(len(results) + 1, 0.21, 0.04) == "go on"


@given(RESULTS, st.integers(1, 7))
def test_the_same_events_give_the_same_verdicts(plan: Plan, results: list[tuple[int, int]], every: int) -> None:
    def run() -> list[Any]:
        race = race_of(plan)
        said: list[Any] = []
        for number, (accuracy, keep) in enumerate(results, start=1):
            said.append(race.report(number, accuracy / 100, keep / 20))
            revived = race.stopper.revived()
            if revived and number % every == 0:
                race.stopper.taken_up(revived[0])
                said.append((revived, race.report(revived[0], accuracy / 90, keep / 20, epoch=25)))
        return [*said, race.stopper.revived()]

    assert run() == run()


@given(RESULTS, st.data())
def test_a_repeated_report_changes_nothing(plan: Plan, results: list[tuple[int, int]], data: st.DataObject) -> None:
    once, again = race_of(plan), race_of(plan)
    for number, (accuracy, keep) in enumerate(results, start=1):
        verdict = once.report(number, accuracy / 100, keep / 20)
        assert again.report(number, accuracy / 100, keep / 20) == verdict
        repeated = data.draw(st.integers(1, number))
        known = again.calls[[call[0] for call in again.calls].index(repeated)]
        before = again.stopper.heard(*known)
        assert again.stopper.heard(known[0], known[1], {**known[2], "accuracy": 0.99}) == before
    assert once.stopper.revived() == again.stopper.revived()


def test_a_rung_stops_nobody_before_it_has_seen_enough(plan: Plan) -> None:
    race = race_of(plan, grace=4)
    assert [race.report(number, 0.9 - number / 10, 0.5) for number in (1, 2, 3)] == ["go on"] * 3
    assert race.report(4, 0.1, 0.6) == "stop"
    assert race.report(1, 0.8, 0.5, epoch=25) == "go on", "the next rung counts for itself"


def test_what_is_no_rung_is_never_judged(plan: Plan) -> None:
    race = race_of(plan, grace=1)
    race.report(1, 0.9, 0.1)
    assert race.report(2, 0.1, 0.9, epoch=19) == "go on"
    assert race.report(2, 0.1, 0.9) == "stop"


def test_trials_of_different_lengths_meet_at_the_same_fraction(plan: Plan) -> None:
    race = Race(grace=1)
    assert race.enter(1, plan=plan) == {20, 25}
    assert race.enter(2, plan=plan, epochs=50) == {30, 40}
    race.report(1, 0.9, 0.1)
    assert race.report(2, 0.8, 0.2, epoch=30) == "stop"


def test_half_of_what_came_to_a_rung_goes_on_and_the_whole_front_is_covered(plan: Plan) -> None:
    race = race_of(plan, grace=1, reduction=4.0)
    verdicts = {}
    for number in range(1, 17):  # all on one front
        verdicts[number] = race.report(number, number / 20, number / 20)
    survivors = set(range(1, 17)) - {n for n, v in verdicts.items() if v == "stop"} | set(race.stopper.revived())
    assert {1, 16} <= survivors


def test_a_trial_that_breaks_a_constraint_is_stopped_before_one_that_does_not(plan: Plan) -> None:
    race = race_of(plan, grace=2, constraints={"keep_macs": {"max": 0.5}})
    race.report(1, 0.2, 0.5)
    assert race.report(2, 0.9, 0.6) == "stop"
    assert race.report(3, 0.1, 0.5) == "go on", "two of three go on, and this one is the second"


def test_a_trial_whose_objective_is_no_number_is_stopped(plan: Plan) -> None:
    race = race_of(plan, grace=2)
    race.report(1, 0.1, 0.9)
    assert race.report(2, math.nan, 0.1) == "stop"
    assert race.stopper.heard(3, 20, {"keep_macs": 0.1}) == "stop"


def test_a_stopped_trial_is_revived_when_its_rung_keeps_more(plan: Plan) -> None:
    race = race_of(plan, grace=2)
    race.report(1, 0.9, 0.5)
    assert race.report(2, 0.8, 0.5) == "stop"
    assert race.stopper.revived() == ()
    race.report(3, 0.1, 0.6)
    assert race.stopper.revived() == (2,)
    race.stopper.taken_up(2)
    assert race.stopper.revived() == ()
    assert race.report(2, 0.8, 0.5) == "go on", "its boundary was lost, and the rung is reached again"
    race.report(1, 0.9, 0.5, epoch=25)
    assert race.report(2, 0.8, 0.5, epoch=25) == "stop", "the next rung judges for itself"


def test_the_best_are_revived_first_and_those_nearest_to_their_end_before_them(plan: Plan) -> None:
    race = race_of(plan, grace=2, reduction=4.0)
    for number, accuracy in ((1, 0.9), (2, 0.7), (3, 0.8), (4, 0.6)):
        race.report(number, accuracy, 0.5)
    for number, accuracy in ((5, 0.99), (6, 0.98)):
        race.stopper.taken_up(number)
        race.report(number, accuracy, 0.4)
        race.report(number, accuracy, 0.4, epoch=25)
    for number in range(10, 26):
        race.report(number, 0.1, 0.9)
    for number in range(10, 14):
        race.report(number, 0.1, 0.9, epoch=25)
    assert race.stopper.revived()[:3] == (6, 3, 2)


def test_a_trial_that_went_on_all_the_same_is_not_revived(plan: Plan) -> None:
    race = race_of(plan, grace=2)
    race.report(1, 0.9, 0.5)
    race.report(2, 0.8, 0.5)
    race.report(3, 0.1, 0.6)
    race.report(2, 0.8, 0.5, epoch=21)
    assert race.stopper.revived() == ()


def test_a_trial_that_is_over_is_not_revived(plan: Plan) -> None:
    race = race_of(plan, grace=2)
    for number, accuracy in ((1, 0.9), (2, 0.8), (3, 0.1)):
        race.report(number, accuracy, 0.5)
    race.stopper.ended(2, None)
    assert race.stopper.revived() == ()


def test_without_a_stopper_everybody_goes_on_and_nothing_more_is_saved(plan: Plan) -> None:
    race = Race(name="none", grace=1)
    assert race.enter(1, plan=plan) == race.enter(2, plan=plan) == frozenset()
    race.report(1, 0.9, 0.1)
    assert race.report(2, 0.1, 0.9) == "go on"
    assert race.stopper.revived() == ()


# How well rungs foretell the end


def test_rank_correlation_is_told_for_each_recovery_over_what_was_fully_trained(plan: Plan) -> None:
    race = Race(name="none")
    cosine = plan.model_copy(update={"recover": plan.recover.model_copy(update={"name": "cosine"})})
    for number in range(1, 9):
        steady = number % 2 == 1
        race.enter(number, plan=plan if steady else cosine)
        race.report(number, number / 10, 0.5)
        if number < 7:
            race.stopper.ended(number, {"accuracy": (number if steady else 10 - number) / 10, "keep_macs": 0.5})
    race.stopper.ended(8, None)
    told = {(a.recovery, a.fraction, a.metric): (a.spearman, a.trials) for a in race.stopper.rank_correlations()}
    assert told == {
        (plan.recover.name, 0.5, "accuracy"): (pytest.approx(1.0), 3),
        ("cosine", 0.5, "accuracy"): (pytest.approx(-1.0), 3),
    }


def test_equal_values_share_their_mean_rank() -> None:
    scipy_says = 0.9486832980505138  # scipy.stats.spearmanr([1, 2, 2, 4], [1, 2, 3, 4])
    assert spearman([(1, 1), (2, 2), (2, 3), (4, 4)]) == pytest.approx(scipy_says)
    assert math.isnan(spearman([(1, 1), (2, 2)]))
    assert math.isnan(spearman([(1, 1), (1, 2), (1, 3)]))


# The study's section


def test_a_study_says_how_trials_are_stopped(tmp_path: Path) -> None:
    study: Study = stand_in_study(tmp_path, "stopper={name: front, reduction: 3, fractions: [0.6]}")
    assert study.stopper == Stopping(name="front", reduction=3.0, fractions=(0.6,))
    assert isinstance(stopper_of(study), FrontStopper)
    assert stand_in_study(tmp_path).stopper.name == "none"


def test_how_trials_are_stopped_may_change_when_a_search_is_resumed(tmp_path: Path) -> None:
    assert stand_in_study(tmp_path, "stopper.name=front").fingerprint == stand_in_study(tmp_path).fingerprint
