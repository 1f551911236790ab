"""Convolutions and linear layers: they read the channels of their input and make new ones."""

from typing import Any

import torch
from torch import Tensor, nn

from trainables.pruning.ledger import Ids
from trainables.pruning.tracer import Handler, Tracer, argument, label, named, nothing, words
from trainables.pruning.width import Width

CUT_AS = "_was_cut_as"
"""What a module with groups was before it was cut: down to its last channels it may look like something else."""


def along(tracer: Tracer, ids: Ids, dim: int, size: int, what: str) -> Ids:
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
    bias, groups = argument(args, kwargs, 2, "bias"), argument(args, kwargs, 6, "groups", 1)
    transposed = "transpose" in name
    owner = named(weight)
    if owner is None or weight.ndim != out.ndim:
        _computed(tracer, name, source, weight, bias, out)
        return
    tracer.visited.add(owner)
    layer = owner.rpartition(".")[0]
    positions = source.shape[2:] if transposed else out.shape[2:]
    tracer.weighted.append((owner, positions.numel() * weight.shape[2:].numel()))
    incoming = along(tracer, tracer.read(source), 1, source.shape[1], layer)
    kind = "depthwise" if isinstance(groups, Width) else kind_of(groups, source.shape[1])
    kind = getattr(tracer.modules.get(layer), CUT_AS, kind)
    if groups > 1 and not _groups_may_change(tracer, layer, groups):
        tracer.ledger.freeze(incoming, f"'{layer}' fixes its number of groups")
        incoming = torch.zeros_like(incoming)
    if kind == "depthwise":
        rows = tracer.ledger.nodes(owner, 0, weight.shape[0], "out")
        outgoing = _depthwise(tracer, layer, incoming, rows, out.shape[1] // groups, transposed)
    else:
        outgoing = _mixing(tracer, layer, owner, weight, incoming, groups, transposed)
    _add_bias(tracer, bias, outgoing)
    label(out, outgoing.view([-1 if d == 1 else 1 for d in range(out.ndim)]))


def kind_of(groups: int, in_channels: int) -> str:
    """depthwise: one channel per group; grouped: several; dense: no groups."""
    return "dense" if groups == 1 else "depthwise" if groups == in_channels else "grouped"


def _computed(tracer: Tracer, name: str, source: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor) -> None:
    """A weight that is worked out from parameters (normalised, masked) cannot be cut where it is used."""
    for tensor in (source, weight, bias):
        if tensor is not None:
            tracer.freeze_all(tensor, f"'{name}' uses a computed weight{tracer.where()}")
    label(out, nothing(out))


def _groups_may_change(tracer: Tracer, layer: str, groups: int) -> bool:
    """Whether the number of groups is an attribute that removal can set, or follows the channels by itself."""
    return isinstance(groups, Width) or isinstance(tracer.modules.get(layer), nn.modules.conv._ConvNd)


def _depthwise(tracer: Tracer, layer: str, incoming: Ids, rows: Ids, multiplier: int, transposed: bool) -> Ids:
    """A channel goes in and out together; rows are output channels, of a transposed one input channels."""
    outgoing = rows.repeat_interleave(multiplier) if transposed else rows
    consume(tracer, incoming if transposed else incoming.repeat_interleave(multiplier), rows, layer)
    return outgoing


def _mixing(
    tracer: Tracer, layer: str, owner: str, weight: Tensor, incoming: Ids, groups: int, transposed: bool
) -> Ids:
    """Every channel of a group reads the whole group; all groups lose the same positions, in and out."""
    out_dim, in_dim = (1, 0) if transposed else (0, 1)
    rows = tracer.ledger.nodes(owner, out_dim, weight.shape[out_dim], "out")
    columns = tracer.ledger.nodes(owner, in_dim, weight.shape[in_dim], "in")
    if groups == 1:
        consume(tracer, incoming, columns, layer)
        return rows
    grid = (columns if transposed else rows).view(groups, -1)
    tracer.ledger.tie(grid[:1].expand_as(grid[1:]), grid[1:])
    consume(tracer, incoming, columns if transposed else columns.repeat(groups), layer)
    return rows.repeat(groups) if transposed else rows


def _add_bias(tracer: Tracer, bias: Tensor | None, outgoing: Ids) -> None:
    if bias is None:
        return
    name = named(bias)
    if name is None:
        tracer.freeze_all(bias, "is a computed bias")
        tracer.ledger.freeze(outgoing, "has a computed bias")
        return
    tracer.visited.add(name)
    tracer.ledger.follow(name, 0, bias.shape[0], outgoing, "out")


def linear(tracer: Tracer, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
    """Reads the last dimension, makes a new one."""
    source, weight = argument(args, kwargs, 0, "input"), argument(args, kwargs, 1, "weight")
    bias = argument(args, kwargs, 2, "bias")
    owner = named(weight)
    if owner is None or weight.ndim != 2:
        _computed(tracer, name, source, weight, bias, out)
        return
    tracer.visited.add(owner)
    layer = owner.rpartition(".")[0]
    tracer.weighted.append((owner, source.shape[:-1].numel()))
    rows = tracer.ledger.nodes(owner, 0, weight.shape[0], "out")
    columns = tracer.ledger.nodes(owner, 1, weight.shape[1], "in")
    consume(tracer, along(tracer, tracer.read(source), -1, source.shape[-1], layer), columns, layer)
    _add_bias(tracer, bias, rows)
    label(out, rows.view([1] * (out.ndim - 1) + [-1]))


LAYERS: dict[str, Handler] = {
    **dict.fromkeys(words("conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d"), convolution),
    "linear": linear,
}
