"""What the search benchmark makes of its races: nothing flattered, what was never reached said so."""

import math
from pathlib import Path

import pytest

from benchmarks.search import overhead
from benchmarks.search.curves import Reached
from benchmarks.search.finding import against, clothes_figures, parts
from benchmarks.search.ours import OURS
from benchmarks.search.plot import save_plot
from benchmarks.search.races import PLAIN, Race, by_way, middle, shares


def race(way: str, seed: int, *points: tuple[int, float]) -> Race:
    """Hypervolumes after so many training MACs; a second for each."""
    reached = [Reached(macs, float(macs), area) for macs, area in points]
    return Race(way, seed, reached, points[-1][0], float(points[-1][0]), reuse=1.0)


FOUND = by_way(
    [
        race(PLAIN, 0, (50, 0.2), (100, 0.4), (150, 0.4)),
        race(PLAIN, 1, (100, 0.3)),
        race("random", 0, (100, 0.3), (200, 0.35)),
        race("random", 1, (50, 0.1)),
        race("another", 0, (20, 0.4)),
        race("another", 1, (10, 0.3)),
        race(OURS.name, 1, (5, 0.2), (30, 0.5)),
        race(OURS.name, 0, (10, 0.4), (60, 0.5)),
        race("ours without sharing", 0, (50, 0.4)),
        race("ours without sharing", 1, (70, 0.2)),
    ]
)


def test_a_share_counts_to_where_the_other_last_gained_and_not_to_its_end() -> None:
    assert shares(FOUND[OURS.name], FOUND[PLAIN]) == [10 / 100, 30 / 100]


def test_the_hardest_opponent_is_the_one_that_is_judged() -> None:
    figures = against(FOUND, "here")
    assert [figure.target is not None for figure in figures] == [True, True, False]
    assert figures[0].value == pytest.approx(0.2)
    assert "another" in figures[1].figure
    assert figures[1].value == pytest.approx((10 / 20 + 30 / 10) / 2)
    assert figures[1].met is False


def test_a_way_that_never_gets_there_says_in_how_many_seeds() -> None:
    (whole, without) = parts(FOUND, "here")
    assert "never" not in whole.how
    assert "1 of 2 seeds never got there" in without.how
    assert without.value == math.inf
    assert middle([1.0, math.inf, 2.0]) == 2.0


def test_the_plot_is_written(tmp_path: Path) -> None:
    file = tmp_path / "plot.svg"
    save_plot(file, "two ways", {name: FOUND[name] for name in (PLAIN, OURS.name)})
    assert file.read_text().startswith("<?xml")


def test_without_the_data_the_row_says_what_it_needs() -> None:
    (figure,) = clothes_figures(quick=True, processes=1, data=None)
    assert figure.value is None
    assert "--data ROOT" in figure.how


def test_memory_is_told_per_thousand_trials() -> None:
    assert overhead._grown({"before": 100.0, "after": 120.0, "trials": 500, "seconds": 1.0}) == 40.0


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_thousand_trials_that_train_nothing_run_on_a_local_ray() -> None:
    assert overhead._run("ours", 1000)["trials"] == 1001
