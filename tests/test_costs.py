"""MACs, parameters, activation memory and latency agree with counts made in other ways."""

import time

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision import models

from tests.networks import CASES, Head, conv, kept_at_random
from trainables.activations import activation_peak_bytes
from trainables.latency import latency_ms
from trainables.models import cifar
from trainables.pruning.graph import trace
from trainables.pruning.removal import apply, removal_of

CIFAR = cifar.InputShape(channels=3, height=32, width=32, classes=10)


def counted(model: nn.Module, inputs: tuple) -> int:
    """PyTorch's own counter, which says two FLOPs for one MAC."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(*inputs)
    return counter.get_total_flops() // 2


@pytest.mark.parametrize("name", CASES)
def test_macs_agree_with_pytorchs_counter_at_full_and_at_half_width(name):
    case = CASES[name]
    model, example = case.make(), case.example(1, torch.float32)
    traced = trace(model, example)
    assert traced.costs.macs() == counted(model, example)
    kept = kept_at_random(traced.graph.groups, 0.5)
    widths = {group: len(indices) for group, indices in kept.items()}
    apply(model, removal_of(traced.graph.groups, kept))
    assert traced.costs.macs(widths) == counted(model, example)
    assert traced.costs.params(widths) == sum(parameter.numel() for parameter in model.parameters())
    assert sum(traced.costs.layer_macs(widths).values()) == traced.costs.macs(widths)


@pytest.mark.parametrize(
    "name", ["shufflenet_v2_x0_5", "mobilenet_v3_small", "vit_b_32", "googlenet", "regnet_y_400mf"]
)
def test_macs_of_published_networks_agree_with_pytorchs_counter(name):
    extra = {"init_weights": False} if name == "googlenet" else {}
    model = models.get_model(name, **extra).eval()
    example = torch.zeros(1, 3, 224, 224)
    traced = trace(model, example)
    meta = model.to("meta")
    assert traced.costs.macs() == counted(meta, (example.to("meta"),))


@pytest.mark.parametrize(
    ("make", "weights", "macs"), [(cifar.resnet56, 848_954, 125_485_696), (cifar.resnet110, 1_719_866, 252_887_680)]
)
def test_the_cifar_resnets_cost_what_the_papers_say(make, weights, macs):
    """The papers' parameter count leaves out BatchNorm, which adds two per channel."""
    model = make(CIFAR)
    costs = trace(model, torch.zeros(1, 3, 32, 32)).costs
    norms = sum(
        p.numel() for module in model.modules() if isinstance(module, nn.BatchNorm2d) for p in module.parameters()
    )
    assert costs.macs() == macs
    assert costs.params() - norms == weights


def test_the_batch_of_the_example_does_not_change_the_cost():
    model = CASES["depthwise"].make()
    assert trace(model, torch.zeros(1, 3, 8, 8)).costs.macs() == trace(model, torch.zeros(5, 3, 8, 8)).costs.macs()


def test_a_module_used_twice_costs_twice_and_its_parameters_once():
    model = CASES["used_twice"].make()
    costs = trace(model, torch.zeros(1, 3, 8, 8)).costs
    assert costs.layer_macs()["shared"] == 2 * 64 * 9 * 8 * 8
    assert costs.params() == sum(parameter.numel() for parameter in model.parameters())


def test_layers_are_listed_in_network_order():
    assert list(trace(CASES["grouped"].make(), torch.zeros(1, 3, 8, 8)).costs.layer_macs()) == [
        "stem",
        "grouped",
        "head.fc",
    ]


def test_the_activation_peak_is_the_largest_pair_of_neighbours():
    model = nn.Sequential(conv(3, 8), nn.ReLU(), conv(8, 4), Head(4))
    assert activation_peak_bytes(model, torch.zeros(2, 3, 8, 8)) == 2 * (8 + 8) * 64 * 4
    assert model.training


class Sleeper(nn.Module):
    def __init__(self, seconds: list[float]) -> None:
        super().__init__()
        self.seconds = seconds
        self.threads: set[int] = set()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.threads.add(torch.get_num_threads())
        time.sleep(self.seconds.pop(0) if self.seconds else 0.005)
        return x


def test_latency_is_a_median_after_warming_up_with_the_threads_asked_for():
    model = Sleeper([0.15, 0.15])
    before = torch.get_num_threads()
    took = latency_ms(model, torch.zeros(1), threads=1, repeats=9)
    assert 4.5 < took < 50
    assert model.threads == {1}
    assert torch.get_num_threads() == before
    assert model.training
