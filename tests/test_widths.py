"""The numbers of network adjustment, against plain computations and against MACs counted on built networks."""

import random
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from search.widths import FLOOR, Measured, Widths, moved, rescaled
from spaces.study import Adjust
from trainables.models import MODELS, InputShape
from trainables.pruning.graph import trace
from trainables.pruning.utilization import drop_rates
from trainables.utilization import described

SHAPE = InputShape(channels=3, height=16, width=16, classes=10)
NETWORKS: dict[str, dict[str, Any]] = {
    "resnet8": {"width": 4, "shortcut": "B"},
    "resnet20": {"width": 8, "shortcut": "B"},
    "resnet164": {"width": 4, "shortcut": "B"},
    "vgg16_bn_cifar": {"width": 4, "hidden": 12},
}


def measured(name: str) -> Measured:
    """What a trial of this network would report, its ratios all zero."""
    traced = trace(MODELS[name](SHAPE, **NETWORKS[name]), torch.zeros(1, 3, 16, 16))
    found = Measured.read({"utilization": described(traced, {})})
    assert found is not None
    return found


def counted(name: str, widths: Mapping[str, int]) -> int:
    """MACs of the network built at these widths, by PyTorch's own counter: two FLOPs for one MAC."""
    settings = {key: value for key, value in NETWORKS[name].items() if key != "width"}
    model = MODELS[name](SHAPE, **settings, widths=tuple(widths.values())).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, 16, 16))
    return counter.get_total_flops() // 2


@pytest.mark.parametrize("name", ["resnet8", "resnet20", "vgg16_bn_cifar"])
def test_macs_by_the_reported_terms_are_those_of_networks_built_at_any_widths(name: str) -> None:
    found, rng = measured(name), random.Random(0)
    assert found.macs(found.widths) == counted(name, found.widths)
    for _ in range(5):
        widths = {group: rng.randint(1, 40) for group in found.widths}
        assert found.macs(widths) == counted(name, widths)


@pytest.mark.parametrize("name", ["resnet8", "vgg16_bn_cifar"])
def test_what_goes_with_a_group_is_its_width_times_the_slope_of_macs(name: str) -> None:
    """phi_i = c_i dF/dc_i by central differences of networks really built; a probe's rates remove equal MACs."""
    found = measured(name)
    costs = trace(MODELS[name](SHAPE, **NETWORKS[name]), torch.zeros(1, 3, 16, 16)).costs
    slopes = {
        group: width
        * (counted(name, {**found.widths, group: width + 1}) - counted(name, {**found.widths, group: width - 1}))
        / 2
        for group, width in found.widths.items()
    }
    gone = {group: costs.macs() - costs.macs({group: 0}) for group in found.widths}
    assert gone == slopes
    rates, scales = drop_rates(gone, 0.05)
    mean = sum(slopes.values()) / len(slopes)
    for group, slope in slopes.items():
        assert rates[group] == pytest.approx(min(0.05 * mean / slope, 0.5))
        assert rates[group] * scales[group] * slope == pytest.approx(0.05 * mean)


def a_ladder(count: int, width: int = 20) -> tuple[Widths, dict[str, float]]:
    """Groups a, b, ... of one width whose ratios fall in that order."""
    names = [chr(ord("a") + index) for index in range(count)]
    return dict.fromkeys(names, width), {name: float(count - index) for index, name in enumerate(names)}


def test_ranks_move_by_steps_of_the_first_width() -> None:
    first, ratios = a_ladder(6, width=100)
    now = {**first, "a": 150, "f": 60}
    after = moved(now, first, ratios, Adjust(layers=2, layers_decay=0.5, step=0.15, step_decay=0.02), done=0)
    assert after == {"a": 165, "b": 113, "c": 100, "d": 100, "e": 87, "f": 45}


@pytest.mark.parametrize(("done", "moving"), [(0, 6), (1, 6), (2, 5), (4, 4), (10, 1), (11, 0), (12, 0), (50, 0)])
def test_fewer_groups_move_each_time_and_then_none(done: int, moving: int) -> None:
    """round(6 - t / 2), never under 0: an empty slice must not mean all of them."""
    first, ratios = a_ladder(20)
    after = moved(first, first, ratios, Adjust(), done=done)
    assert sum(after[name] > first[name] for name in first) == moving
    assert sum(after[name] < first[name] for name in first) == moving


def test_no_group_grows_and_shrinks_at_once_and_ties_go_by_network_order() -> None:
    first, _ = a_ladder(5)
    after = moved(first, first, dict.fromkeys(first, 1.0), Adjust(layers=4, step=0.5, step_decay=0.0), done=0)
    assert after == {"a": 30, "b": 30, "c": 20, "d": 10, "e": 10}


def test_a_group_keeps_four_channels_or_what_it_had() -> None:
    first = {"a": 20, "b": 6, "c": 3, "d": 20}
    settings = Adjust(layers=2, step=1.0, step_decay=0.0)
    after = moved(first, first, {"a": 4.0, "d": 3.0, "b": 2.0, "c": 1.0}, settings, done=0)
    assert (after["b"], after["c"]) == (FLOOR, 3)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("seed", range(3))
def test_macs_are_equal_within_one_percent_after_every_adjustment(name: str, seed: int) -> None:
    found, rng = measured(name), random.Random(seed)
    goal, widths = found.macs(found.widths), dict(found.widths)
    for done in range(4):
        ratios = {group: rng.lognormvariate(0.0, 1.0) for group in widths}
        wanted = moved(widths, found.widths, ratios, Adjust(step=0.3), done=done)
        adjusted = rescaled(wanted, found.widths, found.macs, goal)
        assert adjusted is not None
        assert adjusted != widths
        widths = adjusted
        assert abs(counted(name, widths) / goal - 1.0) <= 0.01
        assert all(width >= min(FLOOR, found.widths[group]) for group, width in widths.items())
        assert list(widths) == list(found.widths)


def test_macs_that_no_widths_cost_are_told() -> None:
    assert rescaled({"a": 8}, {"a": 8}, lambda widths: 1000 * widths["a"], 8500) is None
