"""Loads the pruned network of the directory this file lies in. Needs torch and safetensors, and nothing of prunefront.

    from network import load, normalised
    model = load()                             # torch.nn.Module, eval mode, float32, on the CPU
    logits = model(normalised(images))         # images: uint8 [batch, channels, height, width]

`architecture.json` names the constructor of the dense network and, for every tensor, the indices that were kept.
No pickle is read.
"""

import importlib
import importlib.util
import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

FORMAT = 1
HERE = Path(__file__).resolve().parent


def load(directory: str | Path = HERE, *, constructor: str | Path | None = None) -> nn.Module:
    """The network: the dense one built anew, cut, and filled. `constructor`: another copy of `constructor.py`.

    Raises ValueError where the files do not fit each other.
    """
    directory = Path(directory)
    architecture = read_architecture(directory)
    with torch.random.fork_rng(devices=[]):
        model = build(architecture, Path(constructor or directory / "constructor.py"))
    _cut(model, architecture["kept"])
    _adjust(model, architecture["attributes"])
    try:
        model.load_state_dict(load_file(directory / "model.safetensors"))
    except RuntimeError as error:
        raise ValueError(f"model.safetensors does not fit architecture.json: {error}") from error
    return model.float().eval()


def normalised(images: Tensor, directory: str | Path = HERE) -> Tensor:
    """What the network takes, from uint8 pixels [batch, channels, height, width]: (pixels / 255 - mean) / std."""
    scale = read_architecture(Path(directory))["normalisation"]
    mean, std = (torch.tensor(scale[name], dtype=torch.float32)[:, None, None] for name in ("mean", "std"))
    return (images.to(torch.float32) / 255 - mean.to(images.device)) / std.to(images.device)


def read_architecture(directory: Path) -> dict[str, Any]:
    """`architecture.json`, of the format that this file reads."""
    architecture: dict[str, Any] = json.loads((directory / "architecture.json").read_text())
    if not isinstance(architecture, dict) or architecture.get("format") != FORMAT:
        got = architecture.get("format") if isinstance(architecture, dict) else type(architecture).__name__
        raise ValueError(f"architecture.json: format {got!r}; this reads format {FORMAT}")
    return architecture


def build(architecture: dict[str, Any], constructor: Path) -> nn.Module:
    """The dense network with random weights."""
    named, shape = architecture["constructor"], architecture["input"]
    if named["from"] == "torchvision":
        import torchvision

        model = torchvision.models.get_model(
            named["function"], weights=None, num_classes=shape["classes"], **named["settings"]
        )
    elif named["from"] == "constructor.py":
        module = _module(constructor)
        model = getattr(module, named["function"])(module.InputShape(**shape), **named["settings"])
    elif named["from"] == "module":
        model = _function(named["function"])(_Shape(**shape), **named["settings"])
    else:
        raise ValueError(f"architecture.json: a constructor from {named['from']!r} is not known")
    if not isinstance(model, nn.Module):
        raise ValueError(f"architecture.json: {named['function']} does not build a network")
    return model


class _Shape:
    """What a network is built for, as your own function is told it."""

    def __init__(self, *, channels: int, height: int, width: int, classes: int) -> None:
        self.channels, self.height, self.width, self.classes = channels, height, width, classes


def _module(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location("constructor", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _function(path: str) -> Callable[..., Any]:
    module, _, function = path.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return found


def _cut(model: nn.Module, kept: dict[str, dict[str, list[int]]]) -> None:
    """Leave of each tensor the indices that are kept."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for name, dims in kept.items():
        tensor = tensors.get(name)
        if tensor is None:
            raise ValueError(f"architecture.json: the network has no tensor {name!r}")
        for written, indices in dims.items():
            dim = int(written)
            if not 0 <= dim < tensor.dim() or not _are_some_of(indices, tensor.shape[dim]):
                raise ValueError(f"architecture.json: what is kept of {name!r} does not fit its shape")
            tensor.data = tensor.data.index_select(dim, torch.tensor(indices, dtype=torch.int64))


def _are_some_of(indices: list[int], size: int) -> bool:
    ascending = all(one < other for one, other in pairwise(indices))
    return ascending and (not indices or (indices[0] >= 0 and indices[-1] < size))


def _adjust(model: nn.Module, attributes: dict[str, dict[str, Any]]) -> None:
    """Set the numbers that modules keep beside their tensors (`out_channels`, `groups` ...)."""
    for path, values in attributes.items():
        module = model.get_submodule(path)
        for name, value in values.items():
            if type(vars(module).get(name)) is not (tuple if isinstance(value, list) else type(value)):
                raise ValueError(f"architecture.json: {path or 'the network'} has no number {name!r}")
            setattr(module, name, tuple(value) if isinstance(value, list) else value)
