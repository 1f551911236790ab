"""Operations that only move data: they move the labels in the same way."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from trainables.pruning.ledger import Ids
from trainables.pruning.tracer import Handler, Tracer, label, nothing, tensors_of


def regroup(ids: Ids, before: Sequence[int], after: Sequence[int]) -> Ids:
    """Labels of a reshaped tensor: dimensions are matched in blocks of equal size, only mixed ones are written out."""
    shape: list[int] = []
    filled: list[int] = []
    i = j = 0
    before, after = list(before), list(after)
    while i < len(before) or j < len(after):
        ins, outs = before[i : i + 1], after[j : j + 1]
        i, j = i + len(ins), j + len(outs)
        first = i - len(ins)
        while _product(ins) != _product(outs):
            if _product(ins) < _product(outs):
                ins.append(before[i])
                i += 1
            else:
                outs.append(after[j])
                j += 1
        if all(ids.shape[d] == 1 for d in range(first, i)):
            shape += [1] * len(outs)
            filled += [1] * len(ins)
        else:
            shape += outs
            filled += ins
    return ids.expand(filled).reshape(shape)


def _product(sizes: Sequence[int]) -> int:
    total = 1
    for size in sizes:
        total *= size
    return total


def reshape(tracer: Tracer, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
    """view, reshape, flatten, squeeze ...: the same elements in the same order."""
    source: Tensor = args[0] if args else kwargs["input"]
    ids = tracer.read(source)
    if 0 in source.shape:
        return
    label(out, regroup(ids, source.shape, out.shape))


def permute(tracer: Tracer, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
    """permute, transpose, T: the same method, on the labels."""
    ids = tracer.read(args[0])
    if name in ("get_T", "get_mT", "t"):
        label(out, ids.mT if ids.ndim > 1 else ids)
    else:
        label(out, getattr(ids, name)(*args[1:], **kwargs))


def concatenate(tracer: Tracer, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
    """Parts along `dim` follow each other; along every other dimension they meet."""
    parts = list(args[0] if args else kwargs["tensors"])
    parts = [part for part in parts if part.ndim == out.ndim]
    dim = kwargs.get("dim", args[1] if len(args) > 1 else 0) % out.ndim
    read = [tracer.read(part) for part in parts]
    shape = [max(ids.shape[d] for ids in read) for d in range(out.ndim)]
    if any(ids.shape[dim] > 1 or not torch.equal(ids, read[0]) for ids in read):
        shape[dim] = -1
    if shape[dim] == 1:
        label(out, read[0])
        return
    others = [d for d in range(out.ndim) if d != dim and shape[d] > 1]
    if others:  # channels along another dimension: they are the same channels in every part
        for ids in read[1:]:
            tracer.ledger.tie(read[0], ids) if ids.shape == read[0].shape else None
        same = all(ids.shape == read[0].shape and ids.shape[dim] == 1 for ids in read)
        if same:
            label(out, read[0])
            return
        for ids in read:
            tracer.ledger.freeze(ids, f"concatenation across channels{tracer.where()}")
        return
    full = []
    for part, ids in zip(parts, read, strict=True):
        sizes = list(shape)
        sizes[dim] = part.shape[dim]
        full.append(ids.expand(sizes))
    label(out, torch.cat(full, dim))


def slices(tracer: Tracer, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
    """Indexing; along channels the code holds fixed positions, so those channels are frozen."""
    source: Tensor = args[0]
    ids = tracer.read(source)
    if not bool(ids.any()):
        return
    index = args[1] if name == "getitem" else None
    if index is None or any(
        isinstance(item, (Tensor, list)) for item in (index if isinstance(index, tuple) else (index,))
    ):
        tracer.ledger.freeze(ids, f"'{name}' picks channels{tracer.where()}")
        return
    full = ids.expand(source.shape)[index]
    picked = full.expand(out.shape) if full.shape == out.shape else full
    touched = _touched(source.ndim, index)
    if any(ids.shape[dim] > 1 for dim in touched):
        tracer.ledger.freeze(ids, f"fixed positions are picked from channels{tracer.where()}")
    label(out, compact(picked))


def _touched(ndim: int, index: Any) -> list[int]:
    """The dimensions that an index of numbers, slices, None and ... does not take whole."""
    items = [item for item in (index if isinstance(index, tuple) else (index,))]
    real = [item for item in items if item is not None and item is not Ellipsis]
    touched, dim = [], 0
    for item in items:
        if item is None:
            continue
        if item is Ellipsis:
            dim += ndim - len(real)
            continue
        if item != slice(None):
            touched.append(dim)
        dim += 1
    return touched


def compact(ids: Ids) -> Ids:
    """The same labels, with every dimension along which they do not change cut down to 1."""
    for dim in range(ids.ndim):
        if ids.shape[dim] > 1 and (ids.stride(dim) == 0 or bool((ids == ids.narrow(dim, 0, 1)).all())):
            ids = ids.narrow(dim, 0, 1)
    return ids


def pad(tracer: Tracer, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
    """Padding along channels adds channels of fixed number; elsewhere it changes nothing.

    A module whose attributes `before` and `after` hold the number of channels added can lose some of those as well.
    """
    source: Tensor = args[0]
    ids = tracer.read(source)
    widths = list(kwargs.get("pad", args[1] if len(args) > 1 else ()))
    mode = kwargs.get("mode", args[2] if len(args) > 2 else "constant")
    for position in range(len(widths) // 2):
        dim = source.ndim - 1 - position
        before, after = widths[2 * position : 2 * position + 2]
        if ids.shape[dim] == 1 or before == after == 0:
            continue
        if mode != "constant" or before < 0 or after < 0:
            tracer.ledger.freeze(ids, f"padding changes channels{tracer.where()}")
            label(out, nothing(out))
            return
        sizes = list(ids.shape)
        sides = [_padding(tracer, side, amount) for side, amount in (("before", before), ("after", after))]
        shaped = [side.view([-1 if d == dim else 1 for d in range(ids.ndim)]) for side in sides]
        filled = [
            side.expand([len(flat) if d == dim else size for d, size in enumerate(sizes)])
            for side, flat in zip(shaped, sides, strict=True)
        ]
        ids = torch.cat([filled[0], ids, filled[1]], dim)
    label(out, ids)


def _padding(tracer: Tracer, attribute: str, amount: int) -> Ids:
    """Ids of padded channels: zeros, unless the module that pads keeps their number as an attribute."""
    path = tracer.stack[-1] if tracer.stack else ""
    held = getattr(tracer.modules.get(path), attribute, None)
    if amount == 0 or isinstance(held, bool) or held != amount:
        return torch.zeros(amount, dtype=torch.int64)
    return tracer.ledger.nodes(f"{path}.{attribute}", 0, amount, "norm")


def expand(tracer: Tracer, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
    """Broadcasting by hand: a dimension of length 1 becomes longer, its label stays."""
    ids = tracer.read(args[0])
    label(out, ids.reshape((1,) * (out.ndim - ids.ndim) + tuple(ids.shape)))


def split(tracer: Tracer, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
    """chunk, split, unbind: parts of equal size give up the same positions together; unequal ones stay."""
    source: Tensor = args[0]
    ids = tracer.read(source)
    dim = kwargs.get("dim", args[2] if len(args) > 2 else 0) % source.ndim
    if ids.shape[dim] == 1:
        for part in out:
            label(part, ids)
        return
    parts = ids.split([part.shape[dim] for part in out], dim)
    if len({part.shape[dim] for part in out}) == 1:
        for part in parts[1:]:
            tracer.ledger.tie(parts[0], part)
        if name != "chunk":
            tracer.ledger.suspect(ids, f"'{name}' may hold a fixed width{tracer.where()}")
    else:
        tracer.ledger.freeze(ids, f"parts of unequal width are split off{tracer.where()}")
    for part, part_ids in zip(tensors_of(out), parts, strict=True):
        label(part, part_ids)


RESHAPES = ["view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "view_as", "reshape_as", "ravel"]
PERMUTES = ["permute", "transpose", "t", "get_T", "get_mT", "movedim", "moveaxis", "swapaxes", "swapdims"]

MOVEMENT: dict[str, Handler] = {
    **dict.fromkeys(RESHAPES, reshape),
    **dict.fromkeys(PERMUTES, permute),
    **dict.fromkeys(["cat", "concat", "concatenate"], concatenate),
    **dict.fromkeys(["getitem", "narrow", "select"], slices),
    **dict.fromkeys(["chunk", "split"], split),
    **dict.fromkeys(["expand", "expand_as", "broadcast_to"], expand),
    "pad": pad,
}
