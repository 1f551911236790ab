"""Normalisation: channel by channel it prunes, across channels only whole normalisation groups may go."""

from typing import Any

from torch import Tensor, nn

from trainables.pruning.layers import CUT_AS, along, consume
from trainables.pruning.ledger import Ids
from trainables.pruning.splits import tie_runs
from trainables.pruning.tracer import Handler, Tracer, argument, label, named, nothing, words


def channel_norm(tracer: Tracer, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
    """batch_norm, instance_norm, prelu: one number per channel, dimension 1."""
    source: Tensor = argument(args, kwargs, 0, "input")
    ids = tracer.read(source)
    keys = ("weight",) if name == "prelu" else ("running_mean", "running_var", "weight", "bias")
    dim = 1 if source.ndim > 1 else 0
    tensors = [argument(args, kwargs, position, key) for position, key in enumerate(keys, start=1)]
    tensors = [tensor for tensor in tensors if tensor is not None and tensor.numel() > 1]
    _bind(tracer, name, tensors, along(tracer, ids, dim, source.shape[dim], name))
    if not tensors and name != "prelu":
        _hold(tracer, "num_features", source.shape[dim], along(tracer, ids, dim, source.shape[dim], name))
    label(out, ids)


def _bind(tracer: Tracer, name: str, tensors: list[Tensor], channels: Ids) -> None:
    """Ties per-channel parameters and buffers to the channels: the first to them, the others to the first."""
    leader: Ids | None = None
    for tensor in tensors:
        own_name = named(tensor)
        if leader is not None and own_name is not None and tensor.ndim == 1:
            tracer.visited.add(own_name)
            tracer.ledger.follow(own_name, 0, tensor.shape[0], leader, "norm")
            continue
        own = tracer.read(tensor).reshape(-1)
        if bool(own.any()):
            consume(tracer, channels, own, name)
            leader = own if own_name is not None else leader
        else:
            tracer.ledger.freeze(channels, f"'{name}' uses a computed parameter{tracer.where()}")


def _hold(tracer: Tracer, attribute: str, width: int, channels: Ids) -> None:
    """A norm without parameters repeats its width only in an attribute: that is cut like a tensor."""
    path = tracer.stack[-1] if tracer.stack else ""
    held = getattr(tracer.modules.get(path), attribute, None)
    if path and held == width:
        consume(tracer, channels, tracer.ledger.nodes(f"{path}.{attribute}", 0, width, "norm"), path)


def group_norm(tracer: Tracer, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
    """Channels of one normalisation group are normalised with each other: they go together or not at all."""
    source: Tensor = argument(args, kwargs, 0, "input")
    groups = argument(args, kwargs, 1, "num_groups")
    ids = tracer.read(source)
    path = tracer.stack[-1] if tracer.stack else ""
    channels = along(tracer, ids, 1, source.shape[1], name)
    kind = getattr(tracer.modules.get(path), CUT_AS, "whole" if groups == 1 else "groups")
    tensors = [argument(args, kwargs, 2, "weight"), argument(args, kwargs, 3, "bias")]
    _bind(tracer, name, [tensor for tensor in tensors if tensor is not None and tensor.numel() > 1], channels)
    if not isinstance(tracer.modules.get(path), nn.GroupNorm) or kind == "whole":
        tracer.ledger.freeze(ids, f"normalised across channels by '{path or name}'")
    elif ids.shape[1] > 1:
        tie_runs(tracer, ids, 1, source.shape[1] // groups)
        _hold(tracer, "num_channels", source.shape[1], channels)
    label(out, ids)


def across_norm(tracer: Tracer, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
    """layer_norm, rms_norm, local_response_norm: channels are normalised with each other, so none may go."""
    source: Tensor = argument(args, kwargs, 0, "input")
    ids = tracer.read(source)
    shape = argument(args, kwargs, 1, "normalized_shape") if name != "local_response_norm" else None
    mixed = ids.shape[source.ndim - len(shape) :] if shape is not None else ids.shape
    if any(size > 1 for size in mixed):
        layer = tracer.stack[-1] if tracer.stack and tracer.stack[-1] else name
        tracer.ledger.freeze(ids, f"normalised across channels by '{layer}'")
        ids = nothing(out)
    for position, key in enumerate(("weight", "bias"), start=2):
        tensor = argument(args, kwargs, position, key) if shape is not None else None
        if tensor is not None:
            tracer.freeze_all(tensor, f"belongs to the normalisation across channels{tracer.where()}")
    label(out, ids)


NORMS: dict[str, Handler] = {
    **dict.fromkeys(words("batch_norm instance_norm prelu"), channel_norm),
    **dict.fromkeys(words("layer_norm rms_norm local_response_norm"), across_norm),
    "group_norm": group_norm,
}
