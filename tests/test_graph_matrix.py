"""Every torchvision classification family and the CIFAR networks: pruned by 30, 50 and 80 %, twice, then trained."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision import models

from tests.networks import kept_at_random, unsettle
from trainables.models import cifar
from trainables.pruning.graph import trace
from trainables.pruning.removal import removal_of, verify_removal

SIZES = {"inception_v3": 299, "swin_t": 64, "swin_v2_t": 64, "maxvit_t": 224}
FAMILIES = """
    alexnet vgg11 vgg11_bn resnet18 resnet50 wide_resnet50_2 resnext50_32x4d densenet121 squeezenet1_0 squeezenet1_1
    googlenet inception_v3 mobilenet_v2 mobilenet_v3_small mobilenet_v3_large mnasnet0_5 efficientnet_b0
    efficientnet_v2_s regnet_x_400mf regnet_y_400mf shufflenet_v2_x0_5 convnext_tiny vit_b_32 swin_t swin_v2_t
    maxvit_t
""".split()  # noqa: SIM905
CIFAR = {
    "resnet20 A": lambda shape: cifar.resnet20(shape, shortcut="A"),
    "resnet20 B": lambda shape: cifar.resnet20(shape, shortcut="B"),
    "resnet164 A": lambda shape: cifar.resnet164(shape, width=4, shortcut="A"),
    "resnet164 B": lambda shape: cifar.resnet164(shape, width=4, shortcut="B"),
    "vgg16": lambda shape: cifar.vgg16_bn_cifar(shape, width=16),
}
LEFT_ALONE = {
    "vit_b_32": ("conv_proj", "encoder.layers.encoder_layer_0.mlp.3"),
    "swin_t": ("features.0.0", "features.1.0.mlp.3"),
    "swin_v2_t": ("features.0.0",),
    "convnext_tiny": ("features.0.0", "features.1.0.block.5"),
}
"""Layers that must be reported as left alone, beside the classifier."""


def build(name: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    if name in CIFAR:
        model = CIFAR[name](cifar.InputShape(3, 32, 32, 10))
        return unsettle(model).double(), torch.randn(2, 3, 32, 32).double()
    settings = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    if name.startswith("vit"):
        settings["image_size"] = 64
    model = models.get_model(name, num_classes=10, **settings)
    size = SIZES.get(name, 64)
    return unsettle(model).double(), torch.randn(2, 3, size, size).double()


def train_step(model: nn.Module, example: Tensor) -> list[str]:
    """The trainable tensors that one step leaves as they were."""
    model.train()
    for module in model.modules():
        if isinstance(module, (nn.modules.dropout._DropoutNd,)) or type(module).__name__ == "StochasticDepth":
            module.p = 0.0
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-2)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    out = model(torch.cat([example, -example]))
    heads = [out] if isinstance(out, Tensor) else [head for head in out if head is not None]
    sum(F.cross_entropy(head, torch.arange(4)) for head in heads).backward()
    optimizer.step()
    named = zip(before, model.named_parameters(), strict=True)
    return [name for old, (name, parameter) in named if torch.equal(old, parameter)]


@pytest.mark.slow
@pytest.mark.parametrize("cut", [0.3, 0.5, 0.8])
@pytest.mark.parametrize("name", [*FAMILIES, *CIFAR])
def test_a_published_network_prunes_twice_exactly_and_then_trains(name, cut):
    model, example = build(name)
    modes = [module.training for module in model.modules()]
    names: list[str] = []
    for event in range(2):
        traced = trace(model, example)
        groups = traced.graph.groups
        assert groups
        assert names in ([], list(groups))
        names = list(groups)
        assert all(layer in traced.graph.left_alone for layer in LEFT_ALONE.get(name, ()))
        kept = kept_at_random(groups, 1.0 - cut, event)
        verify_removal(model, groups, kept, removal_of(groups, kept), example)
        widths = {group: len(indices) for group, indices in kept.items()}
        after = trace(model, example)
        assert {group: item.channels for group, item in after.graph.groups.items()} == widths
        assert after.costs.macs() == traced.costs.macs(widths)
        assert sum(p.numel() for p in model.parameters()) == traced.costs.params(widths)
    assert modes == [module.training for module in model.modules()]
    assert train_step(model, example) == []
