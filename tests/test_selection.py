"""Which channels stay: to the last unit of the target, in packs, for every criterion, allocation and schedule."""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.probing import Residual, chain, probed, settled
from trainables.allocations import ALLOCATIONS
from trainables.criteria import CRITERIA
from trainables.pruning.costs import Costs
from trainables.pruning.graph import trace
from trainables.pruning.groups import Groups
from trainables.pruning.removal import apply, removal_of
from trainables.pruning.selection import Order, Target, select, smallest, widths_of
from trainables.schedules import SCHEDULES

ROOT = Path(__file__).parent.parent
QUICK = {
    "taylor": {"samples": 4, "batch_size": 4},
    "snap": {"samples": 4, "batch_size": 4},
    "frs": {"samples": 4, "batch_size": 4},
    "fur": {"samples": 4, "batch_size": 4},
    "given": {"keeps": (0.9, 0.4)},
}
NETWORKS = st.one_of(
    st.builds(chain, st.lists(st.integers(1, 26), min_size=1, max_size=3)),
    st.builds(Residual, st.integers(2, 20), st.integers(1, 18)),
)


def check_to_the_last_unit(
    order: Order, groups: Groups, costs: Costs, widths: dict[str, int], most: int, multiple: int
) -> None:
    """At or under the target; and back over it when the pack that went last comes back."""
    assert costs.macs(widths) <= most
    last = {}
    for name, width in widths.items():
        options = widths_of(groups[name], multiple)
        assert width in options
        if width != options[0]:
            before = options[options.index(width) - 1]
            taken = order.turns[name][groups[name].channels - before : groups[name].channels - width]
            last[name] = (float(taken.mean()), list(groups).index(name), before)
    if last:
        name = max(last, key=lambda group: last[group][:2])
        assert costs.macs(widths | {name: last[name][2]}) > most


@settings(max_examples=150, deadline=None)
@given(
    model=NETWORKS,
    criterion=st.sampled_from(list(CRITERIA)),
    allocation=st.sampled_from(list(ALLOCATIONS)),
    schedule=st.sampled_from(list(SCHEDULES)),
    keep=st.floats(0.02, 0.99),
    multiple=st.sampled_from([1, 8]),
)
def test_every_combination_ends_at_its_target_to_the_last_unit(
    model: nn.Module, criterion: str, allocation: str, schedule: str, keep: float, multiple: int
) -> None:
    settled(model)
    traced, probe = probed(model, images=4)
    example, _ = next(probe.sample(1, 1))
    dense = {name: group.channels for name, group in probe.groups.items()}
    full = traced.costs.macs()
    floor = smallest(traced.graph.groups, traced.costs, multiple)
    moments = SCHEDULES[schedule](12, 1.0 - keep)
    assert moments
    for moment in moments:
        target = Target.macs(int((1.0 - moment.sparsity) * full))
        while True:
            traced = trace(model, example, dense=dense)
            groups, costs = traced.graph.groups, traced.costs
            if target.reached(groups, costs):
                break
            probe.groups, probe.forward_macs = groups, costs.macs()
            scores = CRITERIA.bind(criterion, QUICK.get(criterion, {}))(groups, probe)
            order = ALLOCATIONS.bind(allocation, QUICK.get(allocation, {}))(scores, groups, probe)
            nearer = target.within(order.valid_for, costs)
            kept = select(order, scores, groups, costs, target=nearer, multiple=multiple)
            widths = {name: len(indices) for name, indices in kept.items()}
            if nearer.value >= floor:
                check_to_the_last_unit(order, groups, costs, widths, nearer.value, multiple)
            else:
                assert costs.macs(widths) == floor or costs.macs(widths) <= nearer.value
            apply(model, removal_of(groups, kept))
            probe.gates = {name: gates[kept[name]] for name, gates in probe.gates.items()}
            if target.value < floor and costs.macs(widths) == floor:
                break
    last = trace(model, example).costs.macs()
    assert last <= max(target.value, floor)
    assert all(group.channels >= (multiple if dense[name] >= multiple else 1) for name, group in groups.items())


@settings(max_examples=60, deadline=None)
@given(model=NETWORKS, keep=st.floats(0.01, 1.0), multiple=st.sampled_from([1, 3, 8]), seed=st.integers(0, 9))
def test_selection_equals_taking_one_pack_after_another(
    model: nn.Module, keep: float, multiple: int, seed: int
) -> None:
    traced, probe = probed(settled(model), images=1, seed=seed)
    groups, costs = traced.graph.groups, traced.costs
    scores = CRITERIA["random"](groups, probe)
    order = ALLOCATIONS["global"](scores, groups, probe)
    most = int(keep * costs.macs())
    widths = {name: group.channels for name, group in groups.items()}
    while costs.macs(widths) > most:
        candidates = {}
        for name, group in groups.items():
            lower = [width for width in widths_of(group, multiple) if width < widths[name]]
            if lower:
                turns = order.turns[name][group.channels - widths[name] : group.channels - lower[0]]
                candidates[name] = (float(turns.mean()), lower[0])
        if not candidates:
            break
        name = min(candidates, key=lambda group: candidates[group][0])
        widths[name] = candidates[name][1]
    kept = select(order, scores, groups, costs, target=Target.macs(most), multiple=multiple)
    assert {name: len(indices) for name, indices in kept.items()} == widths


def example() -> tuple[Groups, Costs]:
    traced, _ = probed(settled(chain([5, 20])), images=1)
    return traced.graph.groups, traced.costs


def by_score(scores: dict[str, torch.Tensor]) -> Order:
    return Order({name: score.double().sort().values for name, score in scores.items()})


def test_the_lowest_scored_channels_go_and_the_rest_stays_in_order() -> None:
    groups, costs = example()
    scores = {"0": torch.tensor([5.0, 1.0, 4.0, 2.0, 3.0]), "3": torch.arange(20.0) + 100}
    kept = select(by_score(scores), scores, groups, costs, target=Target.filters(23), multiple=1)
    assert kept["0"].tolist() == [0, 2, 4]
    assert kept["0"].dtype == torch.int64
    assert kept["3"].tolist() == list(range(20))


def test_equal_scores_fall_by_index_and_groups_by_their_place() -> None:
    groups, costs = example()
    scores = {"0": torch.zeros(5), "3": torch.zeros(20)}
    kept = select(by_score(scores), scores, groups, costs, target=Target.removing(2), multiple=1)
    assert kept["0"].tolist() == [2, 3, 4]
    assert len(kept["3"]) == 20


@pytest.mark.parametrize(
    ("channels", "multiple", "widths"),
    [
        (20, 8, [20, 16, 8]),
        (16, 8, [16, 8]),
        (8, 8, [8]),
        (5, 8, [5, 4, 3, 2, 1]),
        (3, 1, [3, 2, 1]),
        (1, 1, [1]),
    ],
)
def test_widths_end_on_multiples_where_the_group_is_wide_enough(
    channels: int, multiple: int, widths: list[int]
) -> None:
    traced, _ = probed(settled(chain([channels])), images=1)
    assert widths_of(traced.graph.groups["0"], multiple) == widths


def test_a_target_below_the_floor_gives_the_floor() -> None:
    groups, costs = example()
    scores = {"0": torch.rand(5), "3": torch.rand(20)}
    kept = select(by_score(scores), scores, groups, costs, target=Target.macs(1), multiple=8)
    assert {name: len(indices) for name, indices in kept.items()} == {"0": 1, "3": 8}
    assert costs.macs({"0": 1, "3": 8}) == smallest(groups, costs, 8)


def test_removing_counts_filters_of_every_tied_layer() -> None:
    traced, _ = probed(settled(Residual(stream=4, inner=5)), images=1)
    groups = traced.graph.groups
    assert {name: group.filters for name, group in groups.items()} == {"conv": 2, "conv1": 1, "conv3": 1, "conv4": 2}
    scores = {name: torch.full((group.channels,), 9.0) for name, group in groups.items()}
    scores["conv"] = torch.arange(4.0)
    removed = partial(select, by_score(scores), scores, groups, traced.costs, multiple=1)
    assert len(removed(target=Target.removing(2))["conv"]) == 3
    assert len(removed(target=Target.removing(3))["conv"]) == 2  # three cannot be had of twos: the fewest above


def test_a_target_may_be_neared_in_steps_of_the_present_macs() -> None:
    groups, costs = example()
    far = Target.macs(costs.macs() // 2)
    assert far.within(0.1, costs) == Target.macs(int(0.9 * costs.macs()))
    assert far.within(0.9, costs) is far
    assert Target.filters(3).within(0.1, costs) == Target.filters(3)
    assert not far.reached(groups, costs)
    assert Target.macs(costs.macs()).reached(groups, costs)
    assert not Target.removing(1).reached(groups, costs)
    assert Target.filters(25).reached(groups, costs)
    assert not Target.filters(24).reached(groups, costs)


def test_two_processes_given_the_same_scores_remove_the_same_channels() -> None:
    """As the ranks of a distributed run must: whatever their hash seeds and threads are."""
    code = """
import json, sys, torch
from trainables.allocations import ALLOCATIONS
from trainables.models import InputShape, MODELS
from trainables.pruning.graph import trace
from trainables.pruning.selection import Target, select
torch.set_num_threads(int(sys.argv[1]))
traced = trace(MODELS.bind("resnet8", {})(InputShape(1, 8, 8, 10)), torch.zeros(1, 1, 8, 8))
groups = traced.graph.groups
scores = {name: torch.arange(group.channels) % 5 / 7 for name, group in groups.items()}  # many ties
order = ALLOCATIONS["global"](scores, groups, None)
kept = select(order, scores, groups, traced.costs, target=Target.macs(traced.costs.macs() // 3), multiple=1)
print(json.dumps({name: indices.tolist() for name, indices in kept.items()}))
"""
    answers = set()
    for rank, threads in (("0", "1"), ("1", "2")):
        paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "PYTHONHASHSEED": rank, "PYTHONPATH": paths}
        command = [sys.executable, "-c", code, threads]
        answers.add(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)
    assert len(answers) == 1
    assert any(len(kept) < 16 for kept in json.loads(answers.pop()).values())
