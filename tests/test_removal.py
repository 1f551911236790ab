"""Removal is exact, keeps every parameter itself, and takes the optimizer along."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from trainables.pruning.graph import trace
from trainables.pruning.removal import apply, compose, removal_of, verify_removal

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
