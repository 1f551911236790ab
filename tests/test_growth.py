"""Growing: wider groups answer as before, take the optimizer along, train, and are pruned again."""

import copy
import json

import pytest
import torch
from torch import nn

from spaces.errors import UserError
from tests.networks import CASES, kept_at_random, unsettle
from tests.test_graph_matrix import CIFAR, FAMILIES, build, train_step
from tests.test_removal import OPTIMIZERS, Residual
from tests.test_removal import train_step as residual_step
from tests.test_trial import a_plan
from trainables.pruning.graph import trace
from trainables.pruning.growth import NEW, grow, growth_of
from trainables.pruning.masking import answers, difference
from trainables.pruning.removal import removal_of, verify_removal
from trainables.pruning.tracer import tensors_of
from trainables.trial import Trial


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def widened(model, example, columns="zero", optimizer=None):
    """Every group by another number of channels."""
    groups = trace(model, example).graph.groups
    more = {name: 1 + number % 3 for number, name in enumerate(groups)}
    return groups, more, grow(model, groups, more, optimizer, example, generator=seeded(), columns=columns)


def check_growth(model, example):
    """The network grows, answers as before, costs what its widths say, and is pruned twice."""
    inputs = example if isinstance(example, tuple) else (example,)
    before, parameters = answers(model, inputs), list(model.parameters())
    modes = [module.training for module in model.modules()]
    costs = trace(model, example).costs
    groups, more, growth = widened(model, example)
    assert difference(before, answers(model, inputs)) < 1e-10
    assert all(old is new for old, new in zip(parameters, model.parameters(), strict=True))
    assert modes == [module.training for module in model.modules()]
    after = trace(model, example)
    wider = {name: group.channels + more[name] for name, group in groups.items()}
    assert {name: group.channels for name, group in after.graph.groups.items()} == wider
    assert after.costs.params() == sum(p.numel() for p in model.parameters()) == costs.params(wider)
    assert after.costs.macs() == costs.macs(wider)
    assert json.loads(json.dumps(growth)).keys() == growth.keys()
    for seed in range(2):
        found = trace(model, example).graph.groups
        kept = kept_at_random(found, 0.6, seed)
        verify_removal(model, found, kept, removal_of(found, kept), example)


def check_a_step(model, inputs):
    """One step after growing, in which every trainable tensor moves."""
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, weight_decay=1e-2)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    parts = tensors_of(model(*inputs))
    sum((part.square().mean() + part.mean() for part in parts), torch.zeros(())).backward()
    optimizer.step()
    still = {name for name, p in model.named_parameters() if p.grad is not None and torch.equal(before[name], p)}
    assert still == set()


@pytest.mark.parametrize("name", CASES)
def test_a_network_grows_without_changing_its_answers_trains_and_is_pruned_again(name):
    torch.manual_seed(0)
    case = CASES[name]
    model = unsettle(case.make()).double()
    check_growth(copy.deepcopy(model), case.example())
    widened(model, case.example())
    check_a_step(model, case.example(4))


@pytest.mark.parametrize("name", CIFAR)
def test_a_cifar_network_grows_trains_and_is_pruned(name):
    model, example = build(name)
    check_growth(copy.deepcopy(model), example)
    widened(model, example)
    assert train_step(model, example) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in FAMILIES if not name.startswith("shufflenet")])
def test_a_published_network_grows_trains_and_is_pruned(name):
    model, example = build(name)
    check_growth(copy.deepcopy(model), example)
    widened(model, example)
    assert train_step(model, example) == []


def test_a_network_whose_shuffles_would_tie_other_channels_together_is_refused_and_left_as_it_was():
    model, example = build("shufflenet_v2_x0_5")
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(UserError, match=r"nothing was changed: '\S+' would not have \d+ channels"):
        widened(model, example)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize("columns", ["zero", "random"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_optimizer_goes_on_and_knows_nothing_of_new_channels(name, columns):
    torch.manual_seed(0)
    model = Residual()
    optimizer = OPTIMIZERS[name](model.parameters())
    residual_step(model, optimizer)
    states = {p: {k: v.clone() for k, v in state.items()} for p, state in optimizer.state.items()}
    values = {p: p.detach().clone() for p in model.parameters()}
    _, _, growth = widened(model, torch.randn(2, 3, 6, 6), columns, optimizer)
    for key, p in model.named_parameters():
        old = torch.ones(p.shape, dtype=torch.bool)
        for dim, origins in growth.get(key, {}).items():
            old.index_fill_(dim, (torch.tensor(origins) == NEW).nonzero()[:, 0], False)
        assert torch.equal(p[old], values[p].flatten())
        assert p.grad is None or (p.grad.shape == p.shape and not bool(p.grad[~old].any()))
        for entry, value in optimizer.state[p].items():
            if value.ndim:
                assert torch.equal(value[old], states[p][entry].flatten())
                assert not bool(value[~old].any())
    held = [p for group in optimizer.param_groups for p in group["params"]]
    assert all(a is b for a, b in zip(held, model.parameters(), strict=True))
    before = [p.detach().clone() for p in model.parameters()]
    residual_step(model, optimizer)
    assert all(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_new_channels_learn_although_nobody_reads_them_at_first():
    torch.manual_seed(0)
    model = Residual()
    groups = trace(model, torch.randn(1, 3, 6, 6)).graph.groups
    grow(model, groups, {"first": 2}, None, torch.randn(1, 3, 6, 6), generator=seeded())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    assert not bool(model.second.weight[:, 8:].any())
    rows = model.first.weight[8:].detach().clone()
    residual_step(model, optimizer)
    assert bool(model.second.weight[:, 8:].all())
    residual_step(model, optimizer)
    assert not torch.equal(rows, model.first.weight[8:])


def test_new_channels_begin_as_in_a_new_network():
    torch.manual_seed(0)
    model = unsettle(Residual(64))
    groups = trace(model, torch.randn(1, 3, 6, 6)).graph.groups
    grow(model, groups, {"stem": 64, "first": 64}, None, torch.randn(1, 3, 6, 6), generator=seeded())
    spread = float(model.first.weight[64:].detach().std())
    assert spread == pytest.approx((2 / (128 * 9)) ** 0.5, rel=0.02)
    assert not bool(model.first.bias[64:].any())
    assert bool((model.norm.weight[64:] == 1).all() and (model.norm.running_var[64:] == 1).all())
    assert not bool(model.norm.bias[64:].any() or model.norm.running_mean[64:].any())
    again = unsettle(Residual(64))
    grow(again, groups, {"stem": 64}, None, torch.randn(1, 3, 6, 6), generator=seeded(), columns="random")
    assert float(again.first.weight[:, 64:].detach().std()) == pytest.approx((2 / (128 * 9)) ** 0.5, rel=0.02)


def test_attributes_layout_freezing_and_modes_survive():
    model = Residual().to(memory_format=torch.channels_last)
    model.first.weight.requires_grad_(False)
    model.norm.eval()
    groups = trace(model, torch.randn(1, 3, 6, 6)).graph.groups
    grow(model, groups, {"stem": 3, "first": 2}, None, torch.randn(1, 3, 6, 6), generator=seeded())
    assert (model.stem.out_channels, model.first.in_channels, model.first.out_channels) == (11, 11, 10)
    assert (model.norm.num_features, model.head.in_features) == (11, 11)
    assert model.first.weight.is_contiguous(memory_format=torch.channels_last)
    assert not model.first.weight.requires_grad
    assert model.training
    assert not model.norm.training


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"nowhere": 1}, "no channel group 'nowhere' may grow; groups: stem, first"),
        ({"stem": 0}, "group 'stem' can grow by 1 channel or more; got 0"),
    ],
)
def test_a_growth_that_cannot_be_is_refused(more, message):
    model = Residual()
    groups = trace(model, torch.randn(1, 3, 6, 6)).graph.groups
    with pytest.raises(UserError, match=message):
        growth_of(groups, more)


class Mirrored(nn.Module):
    """Its second layer reads the channels forwards, then backwards: new ones belong between the two last."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3)
        self.second = nn.Conv2d(12, 4, 3)

    def forward(self, x):
        x = self.first(x)
        return self.second(torch.cat([x, x.flip(1)], 1))


def test_layers_that_disagree_where_new_channels_stand_are_refused_and_nothing_is_changed():
    torch.manual_seed(0)
    model = Mirrored()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.randn(2, 3, 6, 6)).square().mean().backward()
    optimizer.step()
    before = copy.deepcopy((model.state_dict(), optimizer.state_dict()["state"]))
    groups = trace(model, torch.randn(1, 3, 6, 6)).graph.groups
    with pytest.raises(UserError, match="nothing was changed: the layers of 'first' do not agree where"):
        grow(model, groups, {"first": 2}, optimizer, torch.randn(1, 3, 6, 6), generator=seeded(), columns="random")
    assert all(torch.equal(before[0][key], value) for key, value in model.state_dict().items())
    for number, state in optimizer.state_dict()["state"].items():
        assert torch.equal(before[1][number]["momentum_buffer"], state["momentum_buffer"])
    assert (model.first.out_channels, model.second.in_channels) == (6, 12)


def test_a_grown_network_is_not_saved_as_if_it_were_a_part_of_the_dense_one(tmp_path):
    trial = Trial(a_plan())
    widened(trial.model, trial._example())
    with pytest.raises(UserError, match="a network that has grown cannot be saved"):
        trial._write(tmp_path)
    assert list(tmp_path.iterdir()) == []
