"""The frame of the benchmarks, and the cheapest of each measurement: rows with all six fields, nothing flattered."""

import argparse
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import command, report
from benchmarks.engine import captured, events, graphs, shrinking, stepping, steps, throughput
from benchmarks.engine.setting import Setting, pruned, setting
from benchmarks.figures import Figure, Target, ratio
from benchmarks.report import FIELDS
from benchmarks.search import proposing
from benchmarks.timing import Prepare, interleaved

MISSED = Figure("time", 0.7, "x", "median of 3", Target("at most", 0.5))
MET = Figure("throughput", 1.2, "x", "median of 3", Target("at least", 1.0))
LEFT_OUT = Figure("graphs", None, "x", "needs a GPU", Target("at least", 3.0))


@pytest.fixture(scope="module")
def small() -> Setting:
    return replace(setting(quick=True, data=None), device=torch.device("cpu"))


@pytest.fixture
def once(monkeypatch: pytest.MonkeyPatch) -> None:
    """One round without warm-up: the rows are looked at here, not the times."""

    def measured(sides: Mapping[str, Prepare], *, rounds: int, device: torch.device, **rest: int) -> object:
        return interleaved(sides, rounds=1, device=device, warm_up=0)

    for module in (captured, events, graphs, shrinking, steps, throughput):
        monkeypatch.setattr(module, "interleaved", measured)


def run(arguments: list[str], parts: dict[str, command.Part]) -> int:
    parsed = command.parser("example", "An example.").parse_args(arguments)
    return command.run("example", parsed, parts, packages=("torch", "no-such-package"), left_out="most of it")


def whole(figures: list[Figure]) -> bool:
    return bool(figures) and all(
        tuple(figure.row()) == FIELDS and figure.figure and figure.unit and figure.how for figure in figures
    )


def test_a_figure_is_met_missed_or_not_judged() -> None:
    assert [figure.met for figure in (MISSED, MET, LEFT_OUT)] == [False, True, None]
    assert MISSED.cells()[4] == "**missed**"
    assert LEFT_OUT.cells()[1] == "not measured"


def test_sides_are_timed_in_turn() -> None:
    order: list[str] = []
    sides = {name: lambda name=name: lambda: order.append(name) for name in "ab"}
    times = interleaved(sides, rounds=2, device=torch.device("cpu"), warm_up=1)
    assert "".join(order) == "ababab"
    assert [len(seconds) for seconds in times.values()] == [2, 2]


def test_a_ratio_pairs_what_was_timed_in_the_same_round() -> None:
    assert ratio([1.0, 10.0, 3.0], [2.0, 20.0, 3.0]).middle == 0.5


def test_json_has_every_field_of_every_figure(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    assert run(["--quick", "--json", str(file)], {"all": lambda: [MISSED, MET, LEFT_OUT]}) == 0
    written = json.loads(file.read_text())
    assert [tuple(row) for row in written["figures"]] == [FIELDS] * 3
    assert [row["met"] for row in written["figures"]] == [False, True, None]
    assert written["left_out"] == "most of it"
    assert "no-such-package not installed" in written["versions"]


def test_a_full_run_writes_a_page_in_which_a_missed_target_stays_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "RESULTS", tmp_path / "results")
    assert run([], {"all": lambda: [MISSED, MET, LEFT_OUT]}) == 0
    page = (tmp_path / "results" / "example.md").read_text()
    assert "| time | 0.7 | x | at most 0.5 | **missed** | median of 3 |" in page
    assert "1 of 2 targets met" in page
    assert str(tmp_path) not in page


def test_one_part_alone_is_measured_and_leaves_the_page_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(report, "RESULTS", tmp_path / "results")
    file = tmp_path / "figures.json"
    parts = {"first": lambda: [MISSED], "second": lambda: [MET]}
    assert run(["--only", "second", "--json", str(file)], parts) == 0
    written = json.loads(file.read_text())
    assert [row["figure"] for row in written["figures"]] == [MET.figure]
    assert written["command"] == "python -m benchmarks.example --only 'second'"
    assert run(["--only", "third"], parts) == 2
    assert "no part 'third': one of first, second" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


def test_a_part_that_fails_costs_neither_the_other_figures_nor_goes_unnoticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "RESULTS", tmp_path / "results")
    file = tmp_path / "figures.json"

    def broken() -> list[Figure]:
        raise ValueError("no such kernel")

    assert run(["--json", str(file)], {"broken": broken, "whole": lambda: [MET]}) == 1
    rows = json.loads(file.read_text())["figures"]
    assert rows[0]["how"] == "failed: ValueError: no such kernel"
    assert rows[1]["met"] is True
    assert not (tmp_path / "results").exists()


def test_every_benchmark_has_the_common_options() -> None:
    parsed = command.parser("example", "An example.").parse_args(["--quick", "--json", "out.json"])
    assert isinstance(parsed, argparse.Namespace)
    assert (parsed.quick, parsed.json) == (True, Path("out.json"))


@pytest.mark.usefixtures("once")
def test_trace_and_removal_rows_are_whole_with_and_without_an_opponent(
    small: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graphs, "NETWORKS", ("squeezenet1_1", "left out by --quick"))
    monkeypatch.setitem(graphs.SIDES, "theirs", graphs.SIDES["checked"])
    monkeypatch.setattr(graphs, "has_opponent", lambda: True)
    assert whole(graphs.figures(small))
    monkeypatch.setattr(graphs, "has_opponent", lambda: False)
    alone = graphs.figures(small)
    assert whole(alone)
    assert [figure.value for figure in alone[:2]] == [None, None]


def test_a_network_rebuilt_from_scratch_answers_as_the_pruned_one(small: Setting) -> None:
    train = small.recipes()["float32"]
    model = pruned(small, "resnet8", train, keep=0.5, multiple=1).model
    rebuilt = stepping.rebuilt(small, "resnet8", model, train)
    images, _ = small.batch(2, train)
    assert torch.equal(rebuilt.eval()(images), model.eval()(images))


def test_a_masked_step_leaves_what_was_pruned_at_zero(small: Setting) -> None:
    train = small.recipes()["float32"]
    removal = pruned(small, "resnet8", train, keep=0.5, multiple=1).result.removal
    dense = small.network("resnet8", train)
    stepping.masked_step(dense, removal, *small.batch(4, train), train)()
    kept = removal["conv1.weight"][0] if "conv1.weight" in removal else list(range(16))
    weight = dense.get_parameter("conv1.weight")
    gone = [channel for channel in range(16) if channel not in kept]
    assert not weight[gone].any()
    assert weight[kept].any()


@pytest.mark.usefixtures("once")
@pytest.mark.parametrize("module", [steps, shrinking], ids=["steps", "shrinking"])
def test_step_rows_are_whole(module: object, small: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NETWORKS", ("resnet8",))
    assert whole(module.figures(small))  # type: ignore[attr-defined]


@pytest.mark.usefixtures("once")
def test_there_is_an_event_row_for_every_criterion_and_for_fur(small: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "NETWORK", "resnet8")
    monkeypatch.setattr(events, "QUICKER", 64)
    few = small.recipes()["float32"].model_copy(update={"batch_size": 4})
    monkeypatch.setattr(Setting, "recipes", lambda _: {"float32": few})
    figures = events.figures(small)
    assert whole(figures)
    assert [figure.figure.rpartition(" ")[2] for figure in figures] == [*events.CRITERIA, "fur"]


@pytest.mark.usefixtures("once")
def test_throughput_rows_are_whole(small: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    train = small.recipes()["float32"].model_copy(update={"batch_size": 8})
    times = throughput.measure(small, "resnet8", train, images=16, workers=(0,), rounds=1)
    assert set(times) == {"ours", "plain 0"}
    monkeypatch.setattr(
        throughput, "measure", lambda *args, workers, **rest: {"ours": [1.0], "plain 0": [2.0], "plain 2": [3.0]}
    )
    figures = throughput.figures(small)
    assert whole(figures)
    assert [figure.value for figure in figures] == [2.0, 3.0]


def test_what_needs_a_gpu_says_so(small: Setting) -> None:
    figures = captured.graph_figures(small) + captured.compile_figures(small)
    assert whole(figures)
    assert all(figure.value is None for figure in figures)


def test_proposals_are_timed_on_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proposing, "FINISHED", 30)
    (row,) = proposing.figures(quick=True)
    assert row.value is not None
    assert row.value > 0.0
    assert row.target == Target("at most", 1.25)
