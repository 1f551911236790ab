"""Allocations: what holds for every row of the table, and each against a plain computation."""

from statistics import median

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from spaces.errors import UserError
from tests.probing import Residual, chain, probed, settled
from trainables.allocations import ALLOCATIONS
from trainables.allocations.proportional import proportional
from trainables.allocations.utilization import shares
from trainables.criteria import CRITERIA
from trainables.pruning.graph import trace
from trainables.pruning.probe import Probe
from trainables.pruning.selection import Order, Target, select
from trainables.pruning.utilization import drop_rates

NEEDED = {"given": {"keeps": (0.5, 1.0, 0.25)}}


def allocate(name: str, probe: Probe, **settings: object) -> Order:
    scores = CRITERIA["l1"](probe.groups, probe)
    return ALLOCATIONS.bind(name, {**NEEDED.get(name, {}), **settings})(scores, probe.groups, probe)


@pytest.mark.parametrize("name", list(ALLOCATIONS))
def test_turns_never_fall_within_a_group_and_are_the_same_again(name: str) -> None:
    orders = []
    for _ in range(2):
        _, probe = probed(settled(Residual()))
        orders.append(allocate(name, probe))
    assert set(orders[0].turns) == set(probe.groups)
    assert 0.0 < orders[0].valid_for <= 1.0
    for group, turns in orders[0].turns.items():
        assert turns.dtype == torch.float64
        assert tuple(turns.shape) == (probe.groups[group].channels,)
        assert bool((turns.diff() >= 0).all())
        assert torch.equal(turns, orders[1].turns[group])


@pytest.mark.parametrize("name", list(ALLOCATIONS))
def test_the_network_is_left_as_found_and_passes_are_charged(name: str) -> None:
    model = settled(Residual()).train()
    _, probe = probed(model)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    generator = torch.get_rng_state()
    allocate(name, probe)
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert model.training
    assert (probe.charged_macs > 0) == (name == "fur")


def widths_at(order: Order, factor: float) -> dict[str, int]:
    """Channels that are left once every turn before -factor has been taken."""
    return {name: int((turns >= -factor).sum()) for name, turns in order.turns.items()}


def test_proportions_are_scaled_by_one_factor_and_clipped() -> None:
    _, probe = probed(settled(chain([10, 20, 7])))
    own = dict(zip(probe.groups, (0.5, 1.0, 2.0), strict=True))
    order = proportional(probe.groups, own, least=0.2)
    for factor in (0.1, 0.33, 0.5, 0.77, 1.0, 1.9):
        for name, width in widths_at(order, factor).items():
            dense = probe.groups[name].dense_channels
            keep = min(max(factor * own[name], 0.2), 1.0)
            assert width == int(keep * dense + 1e-9), (name, factor)


def test_proportions_are_of_the_dense_channels() -> None:
    model = settled(chain([6, 10]))
    _, probe = probed(model)
    images, _ = next(probe.sample(1, 1))
    groups = trace(model, images, dense={"0": 12, "3": 10}).graph.groups
    assert widths_at(proportional(groups, dict.fromkeys(groups, 1.0)), 0.5) == {"0": 6, "3": 5}


def test_a_global_threshold_takes_the_lowest_scores_of_the_network() -> None:
    _, probe = probed(settled(chain([3, 2])))
    scores = {"0": torch.tensor([0.3, 0.1, 0.2]), "3": torch.tensor([0.25, 0.15])}
    turns = ALLOCATIONS["global"](scores, probe.groups, probe).turns
    assert turns["0"].tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert turns["3"].tolist() == pytest.approx([0.15, 0.25])


def test_given_goes_by_patterns_over_producers() -> None:
    _, probe = probed(settled(Residual()))
    order = allocate("given", probe, keeps={"conv2": 0.5, "conv*": 0.25})
    widths = widths_at(order, 1.0)
    assert widths["conv"] == 2  # the stream, which conv2 makes too: the first pattern that fits counts
    assert widths["conv1"] == 1
    assert {widths[name] for name in widths} == {2, 1}


def test_given_cuts_a_list_into_equal_stretches() -> None:
    _, probe = probed(settled(chain([8, 8, 8, 8])))
    assert list(widths_at(allocate("given", probe, keeps=(1.0, 0.5)), 1.0).values()) == [8, 8, 4, 4]


def test_given_refuses_a_pattern_that_fits_nothing_and_no_keeps_at_all() -> None:
    _, probe = probed(settled(chain([4, 4])))
    with pytest.raises(UserError, match=r"names 'stem', which fits no layer; layers: 0, 3"):
        allocate("given", probe, keeps={"stem": 0.5})
    with pytest.raises(UserError, match="needs its setting 'keeps'"):
        allocate("given", probe, keeps=())


def test_every_probe_of_fur_removes_equal_macs_unless_half_the_channels_are_too_few() -> None:
    macs = {"a": 1000, "b": 500, "c": 10}
    rates, scales = drop_rates(macs, 0.2)
    mean = sum(macs.values()) / 3
    for name, share in macs.items():
        assert rates[name] * share * scales[name] == pytest.approx(0.2 * mean)
        assert rates[name] <= 0.5
    assert scales == {"a": 1.0, "b": 1.0, "c": pytest.approx(0.2 * mean / 5)}


def test_fur_shares_are_the_ratio_to_the_median() -> None:
    assert shares({"a": 4.0, "b": 1.0, "c": -3.0}, 0.5) == {"a": 2.0, "b": 1.0, "c": 0.0}
    assert shares({"a": -1.0, "b": 0.0}, 1.0) == {"a": 1.0, "b": 1.0}


def test_fur_equals_a_layer_by_layer_computation() -> None:
    net = settled(Residual()).double()
    traced, probe = probed(net, dtype=torch.float64)
    order = allocate("fur", probe, strength=0.7, drop=0.3, repeats=2, batch_size=8, least=0.0)

    assert isinstance(net, Residual)
    net.eval()
    _, fresh = probed(net, dtype=torch.float64)
    generator = fresh.generator
    readers = {
        "conv": [net.conv1, net.conv3, net.shortcut],
        "conv1": [net.conv2],
        "conv3": [net.conv4],
        "conv4": [net.fc],
    }
    macs = {name: traced.costs.macs() - traced.costs.macs({name: 0}) for name in readers}
    mean = sum(macs.values()) / len(macs)
    rates = {name: min(0.3 * mean / own, 0.5) for name, own in macs.items()}
    scales = {name: 0.3 * mean / own / rates[name] for name, own in macs.items()}
    increases = dict.fromkeys(readers, 0.0)
    with torch.no_grad():
        for images, labels in fresh.sample(0, 8):
            intact = float(F.cross_entropy(net(images), labels))
            for name, modules in readers.items():
                for _ in range(2):
                    shape = (len(labels), probe.groups[name].channels)
                    kept = torch.rand(shape, generator=generator, dtype=torch.float64) >= rates[name]
                    factor = kept / (1 - rates[name])

                    def drop(module: object, inputs: tuple[Tensor, ...], factor: Tensor = factor) -> tuple[Tensor]:
                        signal = inputs[0]
                        return (signal * factor.reshape(*factor.shape, *[1] * (signal.dim() - 2)),)

                    handles = [module.register_forward_pre_hook(drop) for module in modules]
                    increases[name] += (float(F.cross_entropy(net(images), labels)) - intact) / 2 * len(labels)
                    for handle in handles:
                        handle.remove()
    ratios = {name: max(scales[name] * increase / 12, 0.0) for name, increase in increases.items()}
    middle = median(ratios.values())
    for name, ratio in ratios.items():
        own = (ratio / middle) ** 0.7
        dense = probe.groups[name].dense_channels
        expected = [-(dense - j) / dense / max(own, 1e-12) for j in range(dense)]
        assert order.turns[name].tolist() == pytest.approx(expected, rel=1e-9)


def test_fur_of_a_layer_whose_output_is_all_zero_is_zero() -> None:
    model = settled(Residual())
    assert isinstance(model, Residual)
    with torch.no_grad():
        model.bn1.weight.zero_()
        model.bn1.bias.zero_()
    _, probe = probed(model)
    order = allocate("fur", probe, least=0.0)
    assert float(order.turns["conv1"][-1]) <= -1e11
    assert float(order.turns["conv"][-1]) > -1e3


def test_fur_is_asked_again_for_each_tenth_of_the_dense_macs() -> None:
    model = settled(chain([8, 8]))
    _, probe = probed(model)
    assert allocate("fur", probe).valid_for == pytest.approx(0.1)
    images, _ = next(probe.sample(1, 1))
    halved = trace(model, images, dense={"0": 16, "3": 16})
    probe.groups = halved.graph.groups
    dense = halved.costs.macs({"0": 16, "3": 16})
    assert allocate("fur", probe).valid_for == pytest.approx(0.1 * dense / halved.costs.macs())


def everything(order: Order) -> dict[str, list[float]]:
    return {name: turns.tolist() for name, turns in order.turns.items()}


@pytest.mark.parametrize("keeps", [(0.3, 1.0, 0.6), (0.25,), {"conv1": 0.5, "conv*": 0.2}])
def test_fur_of_no_strength_is_given_and_passes_over_nothing(keeps: object) -> None:
    _, probe = probed(settled(Residual()))
    given = allocate("given", probe, keeps=keeps)
    centred = allocate("fur", probe, keeps=keeps, strength=0.0, least=0.0)
    assert everything(centred) == everything(given)
    assert centred.valid_for == given.valid_for
    assert probe.charged_macs == 0


def test_fur_of_no_strength_selects_what_given_does_until_a_layer_is_at_its_least() -> None:
    traced, probe = probed(settled(chain([20, 30, 25])))
    scores = CRITERIA["l1"](probe.groups, probe)
    keeps = (0.4, 1.0, 0.7)
    orders = [allocate("given", probe, keeps=keeps), allocate("fur", probe, keeps=keeps, strength=0.0)]
    for keep in (0.9, 0.5, 0.2, 0.05):
        target = Target.macs(int(keep * traced.costs.macs()))
        given, centred = (
            select(order, scores, probe.groups, traced.costs, target=target, multiple=1) for order in orders
        )
        assert all(torch.equal(given[name], centred[name]) for name in probe.groups)


def test_keeps_of_fur_multiply_what_the_ratios_suggest_and_only_their_ratios_count() -> None:
    _, probe = probed(settled(chain([8, 8, 8])))
    alone, centred, halved = (
        allocate("fur", probe, keeps=keeps, strength=1.0, least=0.0)
        for keeps in ((), (1.0, 0.5, 0.8), (0.5, 0.25, 0.4))
    )
    for name, keep in zip(probe.groups, (1.0, 0.5, 0.8), strict=True):
        assert (centred.turns[name] * keep).tolist() == pytest.approx(alone.turns[name].tolist(), rel=1e-12)
        assert (halved.turns[name] / 2).tolist() == pytest.approx(centred.turns[name].tolist(), rel=1e-12)


def test_fur_says_itself_that_a_pattern_fits_nothing() -> None:
    _, probe = probed(settled(chain([4, 4])))
    with pytest.raises(UserError, match=r"allocation 'fur' names 'stem', which fits no layer; layers: 0, 3"):
        allocate("fur", probe, keeps={"stem": 0.5})


def test_fur_is_the_same_whatever_the_criterion_drew_before() -> None:
    orders = []
    for name in ("l1", "random"):
        _, probe = probed(settled(Residual()))
        scores = CRITERIA[name](probe.groups, probe)
        orders.append(everything(ALLOCATIONS.bind("fur", {})(scores, probe.groups, probe)))
    assert orders[0] == orders[1]
