"""torchvision's classification networks, one row per name, and its published weights. Stems are torchvision's."""

from collections.abc import Callable
from typing import Any

import torch
import torchvision
from torch import nn

from spaces.errors import UserError, unknown
from trainables.models.cifar import InputShape

Builder = Callable[[InputShape], nn.Module]


def rows() -> list[Builder]:
    """One plug-in per classification network that the installed torchvision has."""
    return [_row(name) for name in torchvision.models.list_models(module=torchvision.models)]


def _row(name: str) -> Builder:
    def build(shape: InputShape, /) -> nn.Module:
        if shape.channels != 3:
            raise UserError(f"model '{name}' takes images of 3 channels; the data has {shape.channels}")
        network: nn.Module = torchvision.models.get_model(
            name, weights=None, num_classes=shape.classes, **arguments(name, shape)
        )
        return network

    build.__name__ = build.__qualname__ = name
    build.__doc__ = f"torchvision's {name}."
    return build


def arguments(name: str, shape: InputShape) -> dict[str, Any]:
    """What a few builders have to be told: the size of an image, or that their own initial weights are wanted."""
    if name.startswith("vit_"):
        return {"image_size": shape.height}
    if name.startswith("maxvit"):
        return {"input_size": (shape.height, shape.width)}
    return {"init_weights": True} if name in ("googlenet", "inception_v3") else {}


def published_weights(model: str, weights: str) -> dict[str, torch.Tensor]:
    """The tensors of torchvision's weights `IMAGENET1K_V2`, `DEFAULT` or `ResNet50_Weights.IMAGENET1K_V2`.

    They come from torch's cache, or once over the network. Raises UserError for an unknown name and when they
    cannot be had.
    """
    if model not in torchvision.models.list_models(module=torchvision.models):
        raise UserError(f"torchvision has no weights for model '{model}'; give a .safetensors file instead")
    known = torchvision.models.get_model_weights(model)
    name = weights.rpartition(".")[2]
    if name not in known.__members__:
        raise UserError(unknown(f"weights of model '{model}'", weights, [*known.__members__, "DEFAULT"]))
    try:
        state: dict[str, torch.Tensor] = known[name].get_state_dict(progress=False, check_hash=True)
    except OSError as error:  # urllib's errors are OSErrors
        cache = f"{torch.hub.get_dir()}/checkpoints"
        raise UserError(f"cannot get {known[name].url} ({error}); put the file into {cache}") from error
    return state
