"""Removal is exact, keeps every parameter itself, and takes the optimizer along."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from spaces.errors import UserError
from spaces.plan import Prune
from trainables.pruning.event import fire
from trainables.pruning.graph import trace
from trainables.pruning.masking import mask
from trainables.pruning.removal import apply, compose, removal_of, remove, verify_removal
from trainables.pruning.size import measure_dense
from trainables.pruning.sparse import fire_weights
from trainables.schedules import Moment

OPTIMIZERS = {
    "sgd_momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, lr=1e-3),
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-3, amsgrad=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=1e-3, momentum=0.9, centered=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=1e-2),
}


class Residual(nn.Module):
    """A stem, a residual block and a classifier."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.head = nn.Linear(width, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.norm(self.stem(x)))
        x = F.relu(x + self.second(F.relu(self.first(x))))
        return self.head(x.mean((2, 3)))


def half(groups, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randperm(g.channels, generator=generator)[: max(1, g.channels // 2)].sort().values
        for name, g in groups.items()
    }


def train_step(model, optimizer):
    optimizer.zero_grad()
    F.cross_entropy(model(torch.randn(8, 3, 6, 6)), torch.randint(5, (8,))).backward()
    optimizer.step()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_optimizer_goes_on_with_every_live_parameter(name):
    torch.manual_seed(0)
    model = Residual()
    optimizer = OPTIMIZERS[name](model.parameters())
    train_step(model, optimizer)
    before = list(model.parameters())
    groups = trace(model, torch.randn(1, 3, 6, 6)).graph.groups
    kept = half(groups)
    verify_removal(model, groups, kept, removal_of(groups, kept), torch.randn(4, 3, 6, 6), optimizer)
    assert all(a is b for a, b in zip(before, model.parameters(), strict=True))
    for parameter in model.parameters():
        assert parameter.grad is None or parameter.grad.shape == parameter.shape
        for value in optimizer.state[parameter].values():
            assert not isinstance(value, torch.Tensor) or value.ndim == 0 or value.shape == parameter.shape
    old = [p.detach().clone() for p in model.parameters()]
    train_step(model, optimizer)
    assert all(not torch.equal(a, b) for a, b in zip(old, model.parameters(), strict=True))


def test_two_removals_compose_into_one():
    torch.manual_seed(0)
    dense, model = Residual(), Residual()
    model.load_state_dict(dense.state_dict())
    total = {}
    for seed in (0, 1):
        groups = trace(model, torch.randn(1, 3, 6, 6)).graph.groups
        removal = removal_of(groups, half(groups, seed))
        apply(model, removal)
        total = compose(total, removal)
    apply(dense, total)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, dense.state_dict()[name])


def cut_in_half(model, optimizer=None, size=(3, 6, 6)):
    groups = trace(model, torch.randn(1, *size)).graph.groups
    kept = half(groups)
    removal = removal_of(groups, kept)
    verify_removal(model, groups, kept, removal, torch.randn(4, *size), optimizer)
    return removal


def test_freezing_modes_layout_and_parameter_groups_survive():
    model = Residual(16).to(memory_format=torch.channels_last).train()
    model.first.eval()
    model.first.weight.requires_grad_(False)
    weights, rest = [model.stem.weight, model.second.weight], [model.head.weight, model.head.bias]
    optimizer = torch.optim.SGD([{"params": weights, "lr": 0.5}, {"params": rest, "lr": 0.25}], momentum=0.9)
    cut_in_half(model, optimizer)
    assert not model.first.weight.requires_grad
    assert model.second.weight.requires_grad
    assert model.training
    assert not model.first.training
    assert all(model.get_submodule(name).weight.stride()[1] == 1 for name in ("stem", "first", "second"))
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.25]
    assert all(a is b for a, b in zip(optimizer.param_groups[0]["params"], weights, strict=True))


def test_attributes_follow_their_tensors():
    model = Residual()
    cut_in_half(model)
    assert (model.stem.in_channels, model.stem.out_channels) == (3, 4)
    assert (model.first.in_channels, model.first.out_channels) == (4, 4)
    assert model.norm.num_features == 4
    assert (model.head.in_features, model.head.out_features) == (4, 5)


def test_hooks_go_on_and_see_the_new_shapes():
    model = Residual()
    seen = {}
    model.first.register_forward_hook(lambda module, inputs, out: seen.update(forward=out.shape[1]))
    model.first.register_full_backward_hook(lambda module, ins, outs: seen.update(backward=outs[0].shape[1]))
    model.first.weight.register_hook(lambda gradient: seen.update(tensor=gradient.shape[0]))
    model.first.weight.register_post_accumulate_grad_hook(lambda p: seen.update(accumulated=p.grad.shape[0]))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    train_step(model, optimizer)
    cut_in_half(model, optimizer)
    train_step(model, optimizer)
    assert seen == {"forward": 4, "backward": 4, "tensor": 4, "accumulated": 4}


def test_averaged_weights_are_cut_like_the_network():
    model = Residual()
    average = torch.optim.swa_utils.AveragedModel(model)
    apply(average.module, cut_in_half(model))
    average.update_parameters(model)
    assert [p.shape for p in average.module.parameters()] == [p.shape for p in model.parameters()]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_after_the_removal_is_the_step_of_the_kept_channels(name):
    """Momentum and second moments of a channel stay with it: its next step is the one it would have taken."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 6), nn.Linear(6, 2)).double()
    optimizer = OPTIMIZERS[name](model.parameters())
    twin = copy.deepcopy(model)
    other = OPTIMIZERS[name](twin.parameters())
    gradients = [torch.randn_like(p) for p in model.parameters()]
    kept = [0, 2, 5]
    removal = {"0.weight": {0: kept}, "0.bias": {0: kept}, "1.weight": {1: kept}}
    for net, opt in ((model, optimizer), (twin, other)):
        for step in range(3):
            if step == 2 and net is model:
                apply(net, removal, opt)
            for (key, p), gradient in zip(net.named_parameters(), gradients, strict=True):
                dims = removal.get(key, {}) if step == 2 and net is model else {}
                for dim, indices in dims.items():
                    gradient = gradient.index_select(dim, torch.tensor(indices))
                p.grad = gradient.clone()
            opt.step()
    assert torch.equal(model[0].weight, twin[0].weight[kept])
    assert torch.equal(model[0].bias, twin[0].bias[kept])
    assert torch.equal(model[1].weight, twin[1].weight[:, kept])
    assert torch.equal(model[1].bias, twin[1].bias)


def test_a_wrong_removal_is_refused_and_nothing_is_changed():
    model = Residual()
    optimizer = torch.optim.Adam(model.parameters())
    train_step(model, optimizer)
    groups = trace(model, torch.randn(1, 3, 6, 6)).graph.groups
    kept = half(groups)
    wrong = removal_of(groups, kept)
    wrong["first.weight"][1] = [0, 1, 2, 3] if wrong["first.weight"][1] != [0, 1, 2, 3] else [1, 2, 3, 4]
    before = copy.deepcopy(model.state_dict())
    moments = copy.deepcopy(optimizer.state_dict())
    with pytest.raises(UserError, match=r"nothing was changed: the network answers differently"):
        verify_removal(model, groups, kept, wrong, torch.randn(2, 3, 6, 6), optimizer)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert model.stem.out_channels == 8
    for key, state in optimizer.state_dict()["state"].items():
        assert torch.equal(state["exp_avg"], moments["state"][key]["exp_avg"])


@pytest.mark.parametrize(
    ("removal", "message"),
    [
        ({"nowhere.weight": {0: [0]}}, "no parameter or buffer 'nowhere.weight'"),
        ({"stem.weight": {7: [0]}}, "'stem.weight' has no dimension 7"),
        ({"stem.weight": {0: [0, 99]}}, "'stem.weight' has 8 indices in dimension 0"),
        ({"stem.weight": {0: [1, 0]}}, "ascending"),
        ({"stem.weight": {0: []}}, "'stem.weight' has 8 indices"),
        ({"stem.in_channels": {0: [0]}}, "no parameter or buffer 'stem.in_channels'"),
        ({"stem.__class__": {0: [0]}}, "no parameter or buffer"),
    ],
)
def test_a_removal_that_does_not_fit_is_refused_before_anything_changes(removal, message):
    model = Residual()
    with pytest.raises(UserError, match=message):
        apply(model, {"head.weight": {1: [0, 1]}, **removal})
    assert model.head.weight.shape == (5, 8)
    assert model.stem.in_channels == 3


def test_no_group_is_ever_emptied():
    groups = trace(Residual(), torch.randn(1, 3, 6, 6)).graph.groups
    with pytest.raises(ValueError, match="'stem' would be left without a channel"):
        removal_of(groups, {"stem": torch.tensor([], dtype=torch.int64)})


def test_a_masked_network_is_put_back():
    model = Residual()
    groups = trace(model, torch.randn(1, 3, 6, 6)).graph.groups
    before = copy.deepcopy(model.state_dict())
    with mask(model, groups, half(groups)):
        assert not torch.equal(before["second.weight"], model.second.weight)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_type_of_the_numbers_survives(dtype):
    model = Residual().to(dtype)
    groups = trace(model, torch.randn(1, 3, 6, 6, dtype=dtype)).graph.groups
    kept = half(groups)
    verify_removal(model, groups, kept, removal_of(groups, kept), torch.randn(2, 3, 6, 6, dtype=dtype))
    assert all(parameter.dtype == dtype for parameter in model.parameters())


@pytest.mark.parametrize("entry", ["trace", "removal", "event on channels", "event on weights"])
def test_half_precision_on_a_cpu_is_refused_by_layer_before_anything_is_changed(entry):
    model = Residual()
    example = torch.randn(1, 3, 6, 6)
    traced = trace(model, example)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    dense, costs = measure_dense(model, example, None)
    model.first.half()
    model.second.half()
    before = copy.deepcopy(model.state_dict())
    whole = {"criterion": "magnitude", "granularity": "weights", "amount": {"keep_weights": 0.5}}
    beside = {"moment": Moment(0, 0.5), "dense": dense, "probe": lambda groups, macs: None, "epoch": 0}
    entries = {
        "trace": lambda: trace(model, example),
        "removal": lambda: remove(model, traced.graph.groups, half(traced.graph.groups), optimizer, example),
        "event on channels": lambda: fire(
            model, optimizer, example, prune=Prune.model_validate({"amount": {"keep_macs": 0.5}}), **beside
        ),
        "event on weights": lambda: fire_weights(
            model, optimizer, prune=Prune.model_validate(whole), costs=costs, masks={}, progress=0.0, **beside
        ),
    }
    with pytest.raises(UserError, match=r"^layer 'first' is in half precision \(float16\) on a CPU; allowed"):
        entries[entry]()
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_half_precision_on_a_gpu_survives_a_removal():
    model = Residual().half().cuda()
    groups = trace(model, torch.randn(1, 3, 6, 6).half().cuda()).graph.groups
    kept = half(groups)
    verify_removal(model, groups, kept, removal_of(groups, kept), torch.randn(2, 3, 6, 6).half().cuda())
    assert all(parameter.dtype == torch.float16 for parameter in model.parameters())
