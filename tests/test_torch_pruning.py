"""Where torch-pruning can prune a network as well, the same indices give the same shapes and the same answers."""

import copy

import pytest
import torch
from torch import nn
from torchvision import models

from tests.networks import kept_at_random, unsettle
from trainables.models import cifar
from trainables.pruning.graph import trace
from trainables.pruning.removal import apply, removal_of

torch_pruning = pytest.importorskip("torch_pruning")
NETWORKS = {
    "resnet18": lambda: models.resnet18(num_classes=10),
    "mobilenet_v2": lambda: models.mobilenet_v2(num_classes=10),
    "mobilenet_v3_small": lambda: models.mobilenet_v3_small(num_classes=10),
    "efficientnet_b0": lambda: models.efficientnet_b0(num_classes=10),
    "densenet121": lambda: models.densenet121(num_classes=10),
    "googlenet": lambda: models.googlenet(num_classes=10, init_weights=False, aux_logits=False),
    "regnet_y_400mf": lambda: models.regnet_y_400mf(num_classes=10),
    "cifar resnet20 B": lambda: cifar.resnet20(cifar.InputShape(3, 32, 32, 10), shortcut="B"),
    "cifar vgg16": lambda: cifar.vgg16_bn_cifar(cifar.InputShape(3, 32, 32, 10), width=16),
}


def cut_with_torch_pruning(model: nn.Module, example: torch.Tensor, groups: dict, kept: dict) -> None:
    """Each group's channels go by their first producer, all at once per group."""
    graph = torch_pruning.DependencyGraph().build_dependency(model, example)
    modules = dict(model.named_modules())
    for name, group in groups.items():
        rows = next(part for part in group.slices if part.role == "out" and part.tensor.endswith("weight"))
        gone = sorted(set(range(group.channels)) - set(kept[name].tolist()))
        indices = sorted(rows.positions[gone].reshape(-1).tolist())
        module = modules[rows.module]
        grouped = isinstance(module, nn.Conv2d) and module.groups == module.out_channels
        prune = torch_pruning.prune_depthwise_conv_out_channels if grouped else None
        if prune is None:
            is_linear = isinstance(module, nn.Linear)
            prune = torch_pruning.prune_linear_out_channels if is_linear else torch_pruning.prune_conv_out_channels
        if indices:
            graph.get_pruning_group(module, prune, idxs=indices).prune()


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_torch_pruning_agrees(name):
    torch.manual_seed(0)
    model = unsettle(NETWORKS[name]()).double().eval()
    other = copy.deepcopy(model)
    example = torch.randn(2, 3, 64, 64).double()
    groups = trace(model, example).graph.groups
    kept = kept_at_random(groups, 0.5)
    apply(model, removal_of(groups, kept))
    cut_with_torch_pruning(other, example, groups, kept)
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    assert shapes == {key: tuple(value.shape) for key, value in other.state_dict().items()}
    for key, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[key])
    with torch.no_grad():
        assert torch.allclose(model(example), other.eval()(example), rtol=0, atol=1e-10)
