"""Operations that cut or regroup channels: reshapes, slices, chunks, shuffles.

They are right after a removal only where their sizes follow the number of channels (`width`) and the parts lose the
same positions; what holds a fixed number is frozen.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from trainables.pruning.ledger import Ids
from trainables.pruning.tracer import Handler, Tracer, argument, label, nothing, tensors_of, words
from trainables.pruning.width import follows


def blocks(before: Sequence[int], after: Sequence[int]) -> list[tuple[range, range]]:
    """Dimensions of a reshape matched in the smallest runs of equal size: (of the input, of the output)."""
    matched = []
    i = j = 0
    while i < len(before) or j < len(after):
        i_end, j_end = min(i + 1, len(before)), min(j + 1, len(after))
        while (ins := math.prod(before[i:i_end])) != (outs := math.prod(after[j:j_end])):
            if ins < outs:
                i_end += 1
            else:
                j_end += 1
        matched.append((range(i, i_end), range(j, j_end)))
        i, j = i_end, j_end
    return matched


def regroup(tracer: Tracer, ids: Ids, source: Tensor, out: Tensor, free: Sequence[bool]) -> Ids:
    """Labels of a reshaped tensor; `free[d]` says that the code lets output dimension d follow the channels."""
    shape = [1] * out.ndim
    filled = [1] * source.ndim
    for ins, outs in blocks(source.shape, out.shape):
        if all(ids.shape[d] == 1 for d in ins):
            continue
        for d in ins:
            filled[d] = source.shape[d]
        for d in outs:
            shape[d] = out.shape[d]
    moved = ids.expand(filled).reshape(shape)
    for ins, outs in blocks(source.shape, out.shape):
        if any(ids.shape[d] > 1 for d in ins):
            _check_block(tracer, moved, out, ins, [d for d in outs if out.shape[d] > 1], free)
    return moved


def _check_block(
    tracer: Tracer, moved: Ids, out: Tensor, ins: range, outs: Sequence[int], free: Sequence[bool]
) -> None:
    """Ties or freezes the channels of one run of dimensions, by which of its output sizes follow them."""
    following = [d for d in outs if free[d]]
    if len(following) != 1:
        tracer.ledger.freeze(moved, f"a reshape holds a fixed number of channels{tracer.where()}")
        return
    if len(outs) > 1:
        for d in outs:
            if d != following[0]:
                first = moved.narrow(d, 0, 1)
                tracer.ledger.tie(first.expand_as(moved), moved)


def reshape(tracer: Tracer, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
    """view, reshape, flatten, squeeze ...: the same elements in the same order."""
    source: Tensor = argument(args, kwargs, 0, "input")
    ids = tracer.read(source)
    if source.numel() == 0:
        label(out, nothing(out))
        return
    label(out, regroup(tracer, ids, source, out, _free(name, args, kwargs, out)))


def _free(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> list[bool]:
    if name in ("view", "reshape"):
        sizes = argument(args, kwargs, 1, "shape", kwargs.get("size"))
        sizes = args[1:] if isinstance(sizes, int) else sizes
        if isinstance(sizes, torch.dtype):
            return [False] * out.ndim
        return [follows(size) for size in sizes]
    if name == "unflatten":
        dim = argument(args, kwargs, 1, "dim") % (out.ndim - len(argument(args, kwargs, 2, "sizes")) + 1)
        sizes = argument(args, kwargs, 2, "sizes")
        return [True] * dim + [follows(size) for size in sizes] + [True] * (out.ndim - dim - len(sizes))
    return [name not in ("view_as", "reshape_as")] * out.ndim


def slices(tracer: Tracer, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
    """Indexing, narrow, select: parts whose bounds follow the channels are tied, fixed positions are frozen."""
    source: Tensor = args[0]
    ids = tracer.read(source)
    items = _items(name, source.ndim, args, kwargs)
    if any(isinstance(item, (Tensor, list, bool)) for item in items):
        tracer.ledger.freeze(ids, f"'{name}' picks positions{tracer.where()}")
        label(out, nothing(out))
        return
    dim = 0
    for item in items:
        if item is not None:
            if ids.shape[dim] > 1 and item != slice(None):
                _check_slice(tracer, ids, dim, item)
            dim += 1
    shape = [size if ids.shape[d] > 1 else 1 for d, size in enumerate(source.shape)]
    index: list[Any] = []
    dim = 0
    for item in items:  # where labels do not change, one position stands for all
        if item is None:
            index.append(item)
            continue
        flat = ids.shape[dim] == 1
        index.append((0 if isinstance(item, int) else slice(None)) if flat else item)
        dim += 1
    label(out, ids.expand(shape)[tuple(index)])


def _items(name: str, ndim: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """One item per dimension: a slice or a number; None for a new dimension."""
    if name == "getitem":
        given = list(args[1]) if isinstance(args[1], tuple) else [args[1]]
        real = sum(item is not None and item is not Ellipsis for item in given)
        rest = [slice(None)] * (ndim - real)
        if any(item is Ellipsis for item in given):
            at = next(number for number, item in enumerate(given) if item is Ellipsis)
            return [*given[:at], *rest, *given[at + 1 :]]
        return [*given, *rest]
    dim = argument(args, kwargs, 1, "dim") % ndim
    item = argument(args, kwargs, 2, "index" if name == "select" else "start")
    if name == "narrow":
        length = argument(args, kwargs, 3, "length")
        item = slice(item, item + length)
    return [slice(None)] * dim + [item] + [slice(None)] * (ndim - dim - 1)


def _check_slice(tracer: Tracer, ids: Ids, dim: int, item: Any) -> None:
    """A slice with bounds in proportion to the channels, or with a step from end to end, is kept right by ties."""
    size = ids.shape[dim]
    if isinstance(item, slice):
        bounds = [bound for bound in (item.start, item.stop) if bound not in (None, 0)]
        step = item.step or 1
        if all(follows(bound) and bound >= 0 for bound in bounds):
            part = math.gcd(size, *bounds)
            if step == 1:
                tie_parts(tracer, ids, dim, part)
                return
            if not bounds and size % step == 0:
                tie_runs(tracer, ids, dim, step)
                return
    tracer.ledger.freeze(ids, f"fixed positions are picked from channels{tracer.where()}")


def tie_parts(tracer: Tracer, ids: Ids, dim: int, part: int) -> None:
    """The same position of every part of `part` channels goes together."""
    first = ids.narrow(dim, 0, part)
    for start in range(part, ids.shape[dim], part):
        tracer.ledger.tie(first, ids.narrow(dim, start, part))


def tie_runs(tracer: Tracer, ids: Ids, dim: int, run: int) -> None:
    """Every `run` neighbours go together."""
    runs = ids.reshape(*ids.shape[:dim], -1, run, *ids.shape[dim + 1 :])
    tracer.ledger.tie(runs.narrow(dim + 1, 0, 1).expand_as(runs), runs)


def split(tracer: Tracer, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
    """chunk, split, unbind: parts that follow the channels give up the same positions; others are frozen."""
    source: Tensor = args[0]
    ids = tracer.read(source)
    dim = argument(args, kwargs, 1 if name == "unbind" else 2, "dim", 0) % source.ndim
    parts = list(tensors_of(out))
    if name == "unbind":
        if ids.shape[dim] > 1:
            tracer.ledger.freeze(ids, f"channels are taken one by one{tracer.where()}")
        for number, part in enumerate(parts):
            label(part, ids.select(dim, number if ids.shape[dim] > 1 else 0))
        return
    lengths = [part.shape[dim] for part in parts]
    if ids.shape[dim] == 1:
        lengths = [1] * len(parts)
    elif len(parts) > 1:
        given = argument(
            args, kwargs, 1, {"split": "split_size"}.get(name, "chunks"), kwargs.get("split_size_or_sections")
        )
        sizes = given if isinstance(given, (list, tuple)) else [given]
        if name == "split_with_sizes" or (name == "split" and not all(follows(size) for size in sizes)):
            tracer.ledger.freeze(ids, f"a split holds a fixed number of channels{tracer.where()}")
        elif name != "split" and (isinstance(given, (list, tuple, Tensor)) or len(set(lengths)) > 1):
            tracer.ledger.freeze(ids, f"channels are cut into unequal parts{tracer.where()}")
        else:
            tie_parts(tracer, ids, dim, math.gcd(*lengths))
        for part, its in zip(parts, torch.split(ids, lengths, dim), strict=True):
            label(part, its)
        return
    for part in parts:
        label(part, ids)


SPLITS: dict[str, Handler] = {
    **dict.fromkeys(words("view reshape flatten unflatten squeeze unsqueeze view_as reshape_as ravel"), reshape),
    **dict.fromkeys(words("getitem narrow select"), slices),
    **dict.fromkeys(words("chunk split unbind tensor_split split_with_sizes unsafe_chunk unsafe_split"), split),
}
