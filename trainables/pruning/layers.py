"""Operations with weights: they read the channels of their input and make new ones."""

from typing import Any

import torch
from torch import Tensor, nn

from trainables.pruning.ledger import Ids
from trainables.pruning.tracer import Handler, Tracer, label, named, nothing

FIXED_GROUPS = "_prunes_inside_groups"
"""Set on a grouped convolution once it was cut: it may by now look depthwise, and is not."""


def argument(args: tuple[Any, ...], kwargs: dict[str, Any], position: int, name: str, default: Any = None) -> Any:
    """One argument of a torch function, however it was passed."""
    return args[position] if len(args) > position else kwargs.get(name, default)


def along(ids: Ids, dim: int, size: int, tracer: Tracer, what: str) -> Ids:
    """The labels along one dimension, [size]; labels that change along others are frozen."""
    if any(length > 1 for d, length in enumerate(ids.shape) if d != dim % ids.ndim):
        tracer.ledger.freeze(ids, f"'{what}' works across the dimension of these channels")
        return torch.zeros(size, dtype=torch.int64)
    return ids.reshape(-1).expand(size)


def consume(tracer: Tracer, incoming: Ids, weight: Ids, what: str) -> None:
    """Ties a consumer's columns to the channels it reads; a fixed input fixes them."""
    if bool(incoming.any()):
        tracer.ledger.tie(incoming, weight)
    else:
        tracer.ledger.freeze(weight, f"'{what}' reads an input of fixed width")


def convolution(tracer: Tracer, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
    """conv1d to 3d, transposed or not, grouped, depthwise."""
    source, weight = argument(args, kwargs, 0, "input"), argument(args, kwargs, 1, "weight")
    bias = argument(args, kwargs, 2, "bias")
    transposed = "transpose" in name
    groups = argument(args, kwargs, 6, "groups", 1)
    owner = named(weight)
    if owner is None or weight.ndim != out.ndim:
        for tensor in (source, weight, bias):
            if tensor is not None:
                tracer.freeze_all(tensor, f"'{name}' uses a computed weight{tracer.where()}")
        return
    tracer.visited.add(owner)
    layer = owner.rpartition(".")[0]
    spatial = source.shape[2:] if transposed else out.shape[2:]
    tracer.counted.append((owner, spatial.numel() * weight.shape[2:].numel()))
    incoming = along(tracer.read(source), source.ndim - weight.ndim + 1, source.shape[1], tracer, layer)
    out_dim, in_dim = (1, 0) if transposed else (0, 1)
    rows = tracer.ledger.nodes(owner, out_dim, weight.shape[out_dim], "out")
    if groups == 1:
        columns = tracer.ledger.nodes(owner, in_dim, weight.shape[in_dim], "in")
        consume(tracer, incoming, columns, layer)
        outgoing = rows
    else:
        outgoing = _grouped(tracer, layer, owner, weight, incoming, rows, groups, transposed)
    _add_bias(tracer, bias, outgoing)
    label(out, outgoing.view([-1 if d == 1 else 1 for d in range(out.ndim)]))


def _grouped(
    tracer: Tracer, layer: str, owner: str, weight: Tensor, incoming: Ids, rows: Ids, groups: int, transposed: bool
) -> Ids:
    """Depthwise: a channel goes in and out together. Otherwise the same position goes in every group."""
    module = tracer.modules.get(layer)
    size = incoming.numel() // groups
    if not isinstance(module, nn.modules.conv._ConvNd):
        for ids in (incoming, rows):
            tracer.ledger.freeze(ids, f"'{layer}' fixes its number of groups")
        return rows if not transposed else rows.repeat(groups)
    if transposed:
        columns = tracer.ledger.nodes(owner, 0, weight.shape[0], "in")
        consume(tracer, incoming, columns, layer)
        outgoing = rows.repeat(groups)
        if size == 1 and not hasattr(module, FIXED_GROUPS):
            tracer.ledger.freeze(rows, f"'{layer}' is a transposed depthwise convolution")
        else:
            _same_position(tracer, columns, groups)
        return outgoing
    if size == 1 and not hasattr(module, FIXED_GROUPS):
        if bool(incoming.any()):
            tracer.ledger.tie(incoming.repeat_interleave(rows.numel() // groups), rows)
        else:
            tracer.ledger.freeze(rows, f"'{layer}' reads an input of fixed width")
        return rows
    columns = tracer.ledger.nodes(owner, 1, weight.shape[1], "in")
    consume(tracer, incoming, columns.repeat(groups), layer)
    _same_position(tracer, rows, groups)
    return rows


def _same_position(tracer: Tracer, ids: Ids, groups: int) -> None:
    grid = ids.view(groups, -1)
    tracer.ledger.tie(grid[:1].expand_as(grid[1:]), grid[1:])


def _add_bias(tracer: Tracer, bias: Tensor | None, outgoing: Ids) -> None:
    if bias is None:
        return
    name = named(bias)
    if name is None:
        tracer.freeze_all(bias, "is a computed bias")
        tracer.ledger.freeze(outgoing, "has a computed bias")
        return
    tracer.visited.add(name)
    tracer.ledger.tie(tracer.ledger.nodes(name, 0, bias.shape[0], "out"), outgoing)


def linear(tracer: Tracer, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
    """Reads the last dimension, makes a new one."""
    source, weight = argument(args, kwargs, 0, "input"), argument(args, kwargs, 1, "weight")
    bias = argument(args, kwargs, 2, "bias")
    owner = named(weight)
    if owner is None or weight.ndim != 2:
        for tensor in (source, weight, bias):
            if tensor is not None:
                tracer.freeze_all(tensor, f"'{name}' uses a computed weight{tracer.where()}")
        return
    tracer.visited.add(owner)
    layer = owner.rpartition(".")[0]
    tracer.counted.append((owner, source.shape[:-1].numel()))
    rows = tracer.ledger.nodes(owner, 0, weight.shape[0], "out")
    columns = tracer.ledger.nodes(owner, 1, weight.shape[1], "in")
    consume(tracer, along(tracer.read(source), -1, source.shape[-1], tracer, layer), columns, layer)
    _add_bias(tracer, bias, rows)
    label(out, rows.view([1] * (out.ndim - 1) + [-1]))


def channel_norm(tracer: Tracer, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
    """batch_norm, instance_norm, prelu: one number per channel, dimension 1."""
    source: Tensor = argument(args, kwargs, 0, "input")
    ids = tracer.read(source)
    named_arguments = {"prelu": ("weight",)}.get(name, ("running_mean", "running_var", "weight", "bias"))
    dim = 1 if source.ndim > 1 else 0
    for position, key in enumerate(named_arguments, start=1):
        tensor = argument(args, kwargs, position, key)
        if tensor is None or tensor.numel() == 1:
            continue
        own = tracer.read(tensor).reshape(-1)
        if not bool(own.any()):
            tracer.ledger.freeze(ids, f"'{name}' uses a computed parameter{tracer.where()}")
        else:
            consume(tracer, along(ids, dim, source.shape[dim], tracer, name), own, name)
    label(out, ids)


def across_norm(tracer: Tracer, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
    """layer_norm, local_response_norm: channels are normalised with each other, so none may go."""
    source: Tensor = argument(args, kwargs, 0, "input")
    ids = tracer.read(source)
    layer = tracer.stack[-1] if tracer.stack else name
    if name == "layer_norm" and not any(size > 1 for size in ids.shape[source.ndim - len(args[1]) :]):
        label(out, ids)
        return
    tracer.ledger.freeze(ids, f"normalised across channels by '{layer}'")
    label(out, nothing(out))


LAYERS: dict[str, Handler] = {
    **dict.fromkeys(
        ["conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"], convolution
    ),
    "linear": linear,
    **dict.fromkeys(["batch_norm", "instance_norm", "prelu"], channel_norm),
    **dict.fromkeys(["layer_norm", "local_response_norm", "group_norm", "rms_norm"], across_norm),
}
