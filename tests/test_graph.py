"""The channel graph: what is tied, what is left alone, and that looking changes nothing."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaces.errors import UserError
from tests.networks import CASES, conv, kept_at_random, unsettle
from trainables.pruning.graph import trace
from trainables.pruning.removal import removal_of, verify_removal


@pytest.mark.parametrize("name", CASES)
def test_a_network_prunes_twice_exactly_and_then_trains(name):
    case = CASES[name]
    torch.manual_seed(0)
    model = unsettle(case.make()).double()
    names = None
    for event in range(2):
        graph = trace(model, case.example(1)).graph
        names = names or list(graph.groups)
        assert list(graph.groups) == names
        assert len(names) == case.groups
        kept = kept_at_random(graph.groups, 0.5, event)
        removal = removal_of(graph.groups, kept)
        verify_removal(model, graph.groups, kept, removal, case.example(3))
        widths = {name: group.channels for name, group in trace(model, case.example(1)).graph.groups.items()}
        assert widths == {name: len(kept[name]) for name in names}
    model.train()
    before = [parameter.clone() for parameter in model.parameters()]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
    out = model(*case.example(3))
    while not isinstance(out, Tensor):
        out = next(iter(out.values())) if isinstance(out, dict) else sum(part.sum() for part in out)
    out.square().sum().backward()
    optimizer.step()
    for old, parameter in zip(before, model.parameters(), strict=True):
        assert not parameter.requires_grad or parameter.grad is None or not torch.equal(old, parameter)


@pytest.mark.parametrize("name", ["concatenation", "stochastic", "reads_values", "frozen", "auxiliary_head"])
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_a_trace_leaves_everything_as_it_was(name, mode):
    case = CASES[name]
    model = case.make().train(mode == "train")
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    model(*case.example(2, torch.float32))
    before = copy.deepcopy(model.state_dict())
    attributes = {part: list(module.__dict__) for part, module in model.named_modules()}
    pointers = [parameter.data_ptr() for parameter in model.parameters()]
    generator = torch.get_rng_state()
    trace(model, case.example(2, torch.float32))
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert pointers == [parameter.data_ptr() for parameter in model.parameters()]
    assert torch.equal(generator, torch.get_rng_state())
    assert {part: list(module.__dict__) for part, module in model.named_modules()} == attributes
    assert all(module.training == (mode == "train") for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(hasattr(tensor, "_parameter_name") for tensor in model.parameters())


class Chain(nn.Module):
    """Two convolutions with something between them."""

    def __init__(self, between) -> None:
        super().__init__()
        self.first, self.second, self.last = conv(3, 8), conv(8, 8), nn.Linear(8, 4)
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.second(self.between(self.first(x)))).mean((2, 3)))


class Doubled(torch.autograd.Function):
    """Code whose inside is out of sight: the values leave torch and come back."""

    @staticmethod
    def forward(ctx, x):
        return torch.from_numpy(x.numpy() * 2)

    @staticmethod
    def backward(ctx, grad):
        return grad * 2


LEFT_ALONE = {
    "an unknown operation": (lambda x: torch.fft.fft2(x).real, "'fft_fft2' in 'first'|is not understood"),
    "softmax over channels": (lambda x: x.softmax(1), "mixes channels"),
    "mean over channels": (lambda x: x - x.mean(1, keepdim=True), "mixes channels"),
    "normalisation across channels": (nn.LayerNorm([8, 8, 8]), "normalised across channels by 'between'"),
    "one group": (nn.GroupNorm(1, 8), "normalised across channels by 'between'"),
    "fixed positions": (lambda x: x[:, [3, 1, 2, 0, 7, 6, 5, 4]], "picks positions"),
    "a fixed reshape": (lambda x: x.view(-1, 8, 64).view(-1, 8, 8, 8), "fixed number of channels"),
    "a constant per channel": (lambda x: x * torch.ones(8, 1, 1, device=x.device), "constant of fixed width"),
    "rolled channels": (lambda x: x.roll(1, 1), "rolled by a fixed number"),
    "numbers read by Python": (lambda x: x * float(x.detach()[0, 0, 0, 0]), "fixed positions are picked"),
    "values that leave torch": (Doubled.apply, "is not understood"),
    "an attention product": (
        lambda x: (x.flatten(2).mT @ x.flatten(2)).unsqueeze(1)[:, :, :8, :8].expand(-1, 8, -1, -1),
        "",
    ),
}


@pytest.mark.parametrize("what", LEFT_ALONE)
def test_what_cannot_be_pruned_safely_is_left_alone_and_named(what):
    between, reason = LEFT_ALONE[what]
    graph = trace(Chain(between), torch.randn(2, 3, 8, 8)).graph
    assert list(graph.groups) == ["second"]
    assert set(graph.left_alone) == {"first", "last"}
    assert graph.left_alone["last"] == "network output"
    assert any(part in graph.left_alone["first"] for part in reason.split("|"))


def test_a_computed_weight_freezes_both_its_sides():
    model = Chain(nn.Identity())
    torch.nn.utils.parametrizations.weight_norm(model.second)
    graph = trace(model, torch.randn(1, 3, 8, 8)).graph
    assert not graph.groups
    assert "computed weight" in graph.left_alone["first"]


def test_padding_written_in_the_code_keeps_its_channels():
    graph = trace(CASES["zero_padded"].make(), torch.randn(1, 3, 8, 8)).graph
    assert graph.groups["stem"].channels == 8
    assert graph.left_alone["inner"].startswith("8 of 16 channels: meets a constant of fixed width")


def test_grouped_convolutions_lose_the_same_positions_in_every_group():
    graph = trace(CASES["grouped"].make(), torch.randn(1, 3, 8, 8)).graph
    assert {name: group.channels for name, group in graph.groups.items()} == {"stem": 4, "grouped": 8}
    assert graph.groups["stem"].filters == 4


def test_whole_normalisation_groups_go():
    graph = trace(CASES["group_norm"].make(), torch.randn(1, 3, 8, 8)).graph
    assert {name: group.channels for name, group in graph.groups.items()} == {"stem": 8, "next": 4}


def test_a_group_remembers_its_dense_width():
    model = CASES["concatenation"].make()
    dense = {name: group.channels for name, group in trace(model, torch.randn(1, 3, 8, 8)).graph.groups.items()}
    groups = trace(model, torch.randn(1, 3, 8, 8), dense={**dense, "stem": 99}).graph.groups
    assert groups["stem"].dense_channels == 99
    assert groups["left"].dense_channels == groups["left"].channels


@pytest.mark.parametrize(
    ("example", "layer"),
    [
        (torch.randn(1, 4, 8, 8), "layer 'first'"),
        (torch.randn(1, 3), "layer 'first'"),
    ],
)
def test_a_network_that_does_not_run_is_named_with_its_layer(example, layer):
    with pytest.raises(UserError, match=layer):
        trace(Chain(nn.Identity()), example)


def test_a_forward_that_fails_names_the_innermost_layer():
    class Broken(nn.Module):
        def forward(self, x):
            raise ZeroDivisionError("by nothing")

    with pytest.raises(UserError, match="layer 'between': by nothing"):
        trace(Chain(Broken()), torch.randn(1, 3, 8, 8))
