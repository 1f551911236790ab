"""Which network is trained: the CIFAR networks, torchvision's, or the user's own function."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn
from torchvision.models import GoogLeNet, Inception3

from spaces.errors import UserError
from spaces.plan import Model
from trainables.models import cifar, published
from trainables.models.cifar import InputShape
from trainables.models.weights import load_weights
from trainables.table import Table

MODELS: Table[Callable[..., nn.Module]] = Table(
    "model",
    cifar.resnet8,
    cifar.resnet20,
    cifar.resnet32,
    cifar.resnet56,
    cifar.resnet110,
    cifar.resnet164,
    cifar.vgg16_bn_cifar,
    cifar.vgg19_bn_cifar,
    *published.rows(),
)
"""`function(shape: InputShape, /, *, settings) -> nn.Module` that maps images to logits [batch, classes]."""


def build_dense(model: Model, shape: InputShape) -> nn.Module:
    """The network at full width with random weights from torch's global generator, whatever `model.weights` says."""
    try:
        built: Any = MODELS.call(model.name, model.settings, shape)
    except ValueError as error:  # settings that only the network itself can judge
        raise UserError(f"model '{model.name}': {error}") from error
    if not isinstance(built, nn.Module):
        raise UserError(f"model '{model.name}' returned a {type(built).__name__}; expected a torch.nn.Module")
    network: nn.Module = built
    if model.weights is not None and isinstance(network, (GoogLeNet, Inception3)):
        # torchvision's GoogLeNet and Inception weights were trained on [-1, 1] and convert from ImageNet's scale.
        network.transform_input = not model.weights.endswith(".safetensors")
    return network


def build_model(model: Model, shape: InputShape) -> nn.Module:
    """The network a trial starts from: at full width, with `model.weights` where they are given."""
    network = build_dense(model, shape)
    if model.weights is not None:
        load_weights(network, model=model.name, weights=model.weights)
    return network


def source_file(name: str) -> Path | None:
    """The one file that builds model `name`, importing nothing of ours; None where another package builds it."""
    if ":" in name or MODELS[name].__module__ != cifar.__name__:
        return None
    return Path(cifar.__file__)


__all__ = ["MODELS", "InputShape", "build_dense", "build_model", "source_file"]
