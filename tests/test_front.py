"""The front, its hypervolume and the choice from it: against brute force, an oracle, and cases worked by hand."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna._hypervolume import compute_hypervolume

from spaces.errors import UserError
from tracking.front import (
    DECADES,
    MARGIN,
    Budget,
    GrowingFront,
    Point,
    best_within,
    described,
    front,
    hypervolume,
    is_feasible,
    knee,
    recommended,
    short,
)

OBJECTIVES = {"accuracy": "maximize", "keep_macs": "minimize"}
THREE = {**OBJECTIVES, "params": "minimize"}
PRUNED = {"prune": {"amount": {"keep_macs": 0.5}}}


def point(accuracy: float, keep: float, number: int = 1, **metrics: float) -> Point:
    plan = PRUNED if number else {"prune": None, "data": {"validation": 900}}
    values = {"accuracy": accuracy, "keep_macs": keep, "macs": 1e6 * keep, "params": 1e5 * keep, **metrics}
    return Point(f"{number:016x}", values, trial=number, run_id=f"run{number}", name=f"#{number:03d}", plan=plan)


grid = st.sampled_from([round(0.05 * step, 2) for step in range(1, 21)])
anywhere = st.floats(0.001, 1.0)
clouds = st.lists(st.tuples(grid | anywhere, grid | anywhere, grid), max_size=30).map(
    lambda rows: [point(a, k, number, params=p) for number, (a, k, p) in enumerate(rows, start=1)]
)


def beats(one: Point, other: Point, objectives: dict[str, str]) -> bool:
    sign = {"maximize": 1, "minimize": -1}
    gains = [sign[way] * (one.metrics[name] - other.metrics[name]) for name, way in objectives.items()]
    return all(gain >= 0 for gain in gains) and any(gain > 0 for gain in gains)


@settings(deadline=None)
@given(clouds, st.sampled_from([OBJECTIVES, THREE]), st.sampled_from([{}, {"accuracy": {"min": 0.4}}]))
def test_points_that_join_a_front_one_by_one_make_the_front_of_them_all(
    points: list[Point], objectives: dict[str, str], constraints: dict[str, dict[str, float]]
) -> None:
    growing = GrowingFront(objectives, constraints)
    came = [growing.join(one) for one in points]
    members = growing.members
    assert sum(came) >= len(members) == len(growing)
    expected = front(points, objectives, constraints)
    assert {member.trial for member in members} == {member.trial for member in expected}
    assert [member.keep_macs for member in members] == sorted(member.keep_macs for member in members)


@settings(deadline=None)
@given(clouds, st.sampled_from([OBJECTIVES, THREE]))
def test_the_front_is_what_brute_force_says(points: list[Point], objectives: dict[str, str]) -> None:
    expected = {p.trial for p in points if not any(beats(other, p, objectives) for other in points)}
    assert {p.trial for p in front(points, objectives)} == expected


@settings(deadline=None)
@given(clouds, st.randoms())
def test_the_front_does_not_depend_on_the_order_of_arrival(points: list[Point], random) -> None:  # type: ignore[no-untyped-def]
    shuffled = random.sample(points, len(points))
    assert front(shuffled, THREE) == front(points, THREE)


@settings(deadline=None)
@given(clouds)
def test_the_front_built_one_by_one_is_the_front_of_all(points: list[Point]) -> None:
    so_far: list[Point] = []
    for newcomer in points:
        so_far = front([*so_far, newcomer], THREE)
    assert so_far == front(points, THREE)


@settings(deadline=None)
@given(clouds)
def test_a_newcomer_that_beats_all_others_is_the_whole_front(points: list[Point]) -> None:
    best = point(1.1, 0.0001, 99, params=0.0)
    assert front([*points, best], THREE) == [best]


def test_a_point_without_a_finite_objective_is_never_on_the_front() -> None:
    assert front([point(math.nan, 0.1), point(0.9, math.inf, 2)], OBJECTIVES) == []
    assert front([point(0.9, 0.5)], {**OBJECTIVES, "latency_ms": "minimize"}) == []


def test_a_point_that_breaks_a_constraint_is_not_on_the_front() -> None:
    good, better = point(0.9, 0.5, 1, latency_ms=2.0), point(0.95, 0.4, 2, latency_ms=5.0)
    assert front([good, better], OBJECTIVES, {"latency_ms": {"max": 3.0}}) == [good]
    assert not is_feasible(point(0.9, 0.5), {"latency_ms": {"max": 3.0}})
    assert is_feasible(good, {"latency_ms": {"min": 2.0, "max": 2.0}})


@settings(deadline=None)
@given(clouds, st.floats(0.3, 1.0))
def test_the_hypervolume_is_what_optuna_computes(points: list[Point], dense: float) -> None:
    reference = np.array([1.0 - dense + MARGIN, 0.0])
    losses = np.array([[1.0 - p.accuracy, math.log10(p.keep_macs)] for p in points]).reshape(-1, 2)
    inside = losses[(losses < reference).all(axis=1)]
    expected = compute_hypervolume(inside, reference) / (reference[0] * DECADES) if len(inside) else 0.0
    assert hypervolume(points, dense) == pytest.approx(expected, abs=1e-12)


@settings(deadline=None)
@given(clouds, grid, grid)
def test_a_newcomer_never_shrinks_the_hypervolume(points: list[Point], accuracy: float, keep: float) -> None:
    assert hypervolume([*points, point(accuracy, keep, 99)], 0.9) >= hypervolume(points, 0.9)
    assert hypervolume(front(points, OBJECTIVES), 0.9) == pytest.approx(hypervolume(points, 0.9))


def test_the_hypervolume_has_a_scale_one_can_name() -> None:
    assert hypervolume([point(1.0, 0.01)], 0.95) == pytest.approx(1.0)
    assert hypervolume([point(0.95, 1.0)], 0.95) == 0.0
    assert hypervolume([point(0.85, 0.1)], 0.95) == pytest.approx(0.0)
    # Half of the error left to the reference, half of the two decades: a quarter.
    assert hypervolume([point(1 - 0.15 / 2, 0.1)], 0.95) == pytest.approx(0.25)


def test_the_knee_is_where_the_front_bends() -> None:
    points = [point(0.60, 0.01, 1), point(0.93, 0.05, 2), point(0.94, 0.3, 3), point(0.95, 1.0, 0)]
    assert knee(points).trial == 2
    assert knee(points[:1]).trial == 1
    assert knee(points[-1:]).trial == 0
    assert knee([point(0.8, 0.1, 1), point(0.9, 1.0, 0)]).trial == 1


@settings(deadline=None)
@given(clouds.filter(len))
def test_the_knee_is_a_point_of_the_front(points: list[Point]) -> None:
    members = front(points, OBJECTIVES)
    assert knee(members) in members


def test_without_a_budget_it_is_the_cheapest_within_one_standard_error_of_dense() -> None:
    dense = point(0.95, 1.0, 0)  # 900 images: a standard error of 0.00726
    points = [point(0.90, 0.05, 1), point(0.944, 0.2, 2), point(0.948, 0.5, 3), dense]
    assert recommended(points, dense).trial == 2


def test_without_a_budget_and_none_near_dense_it_is_the_knee_and_never_dense_itself() -> None:
    dense = point(0.99, 1.0, 0)
    points = [point(0.60, 0.01, 1), point(0.90, 0.05, 2), point(0.91, 0.3, 3), dense]
    assert recommended(points, dense).trial == 2
    assert recommended(points, None).trial == 2


def test_under_a_budget_it_is_the_most_accurate_point() -> None:
    points = [point(0.90, 0.05, 1), point(0.94, 0.2, 2), point(0.95, 0.5, 3)]
    assert best_within(points, Budget(max_macs=0.3e6)).trial == 2
    assert best_within(points, Budget(max_params=0.06e5)).trial == 1
    assert best_within(points, Budget(max_macs=1e6, max_params=0.06e5)).trial == 1
    assert best_within(points, Budget(min_accuracy=0.93)).trial == 2


def test_no_point_within_the_budget_names_the_nearest() -> None:
    points = [point(0.90, 0.05, 1), point(0.94, 0.2, 2)]
    with pytest.raises(UserError, match=r"nearest is #001 \(accuracy 0\.900, 5 % of the MACs, 50 k MACs, 5 k param"):
        best_within(points, Budget(max_macs=1e4))
    with pytest.raises(UserError, match="nearest is #002"):
        best_within(points, Budget(min_accuracy=0.99))
    with pytest.raises(UserError, match="the nearest is"):
        best_within(points, Budget(max_latency_ms=1.0))
    with pytest.raises(UserError, match="the front is empty"):
        best_within([], Budget())


def test_counts_are_spelled_for_people() -> None:
    assert [short(count) for count in (125_485_696, 848_954, 980, 1.25, 4.1e9)] == [
        "125 M",
        "849 k",
        "980",
        "1.25",
        "4.1 G",
    ]
    assert described(point(0.951, 0.21, 7)) == "#007 (accuracy 0.951, 21 % of the MACs, 210 k MACs, 21 k parameters)"


def test_a_point_as_json_keeps_counts_whole_and_leaves_no_nan() -> None:
    row = point(0.9, 1.0, 3, macs=125485696.0, events=0.0, loss=math.inf).to_json()
    assert isinstance(row["events"], int)
    assert isinstance(row["keep_macs"], float)
    assert row["run_id"] == "run3"
    assert isinstance(row["macs"], int)
    assert row["loss"] is None
    assert row["plan"] == PRUNED
