"""Operations that only move data: they move the labels in the same way. Those that cut or regroup are in `splits`."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from trainables.pruning.ledger import Ids
from trainables.pruning.tracer import Handler, Tracer, argument, label, nothing, words


def permute(tracer: Tracer, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
    """permute, transpose, T: the same method, on the labels."""
    ids = tracer.read(args[0] if args else kwargs["input"])
    if name in ("get_T", "get_mT", "t"):
        label(out, ids.mT if ids.ndim > 1 else ids)
    else:
        label(out, getattr(ids, name)(*args[1:], **{key: value for key, value in kwargs.items() if key != "input"}))


def concatenate(tracer: Tracer, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
    """Parts along `dim` follow each other; along every other dimension they are the same channels."""
    parts = [part for part in argument(args, kwargs, 0, "tensors") if part.ndim == out.ndim]
    dim = argument(args, kwargs, 1, "dim", 0) % out.ndim
    read = [tracer.read(part) for part in parts]
    if all(ids.shape[d] == 1 or d == dim for ids in read for d in range(out.ndim)):
        shape = [1] * out.ndim
        full = []
        for part, ids in zip(parts, read, strict=True):
            shape[dim] = part.shape[dim]
            full.append(ids.expand(shape))
        joined = torch.cat(full, dim)
        label(out, joined if bool(joined.any()) else nothing(out))
    else:
        label(out, _rectangular(tracer, read, dim))


def _rectangular(tracer: Tracer, read: list[Ids], dim: int) -> Ids:
    """Parts whose channels lie along another dimension than `dim` lose the same ones."""
    if any(ids.shape != read[0].shape for ids in read) or read[0].shape[dim] > 1:
        for ids in read:
            tracer.ledger.freeze(ids, f"concatenation across channels{tracer.where()}")
        return torch.zeros([1] * read[0].ndim, dtype=torch.int64)
    for ids in read[1:]:
        tracer.ledger.tie(read[0], ids)
    return read[0]


def stack(tracer: Tracer, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
    """Parts side by side in a new dimension: every part keeps the same channels."""
    parts = argument(args, kwargs, 0, "tensors")
    dim = argument(args, kwargs, 1, "dim", 0) % out.ndim
    read = [tracer.read(part).unsqueeze(dim) for part in parts]
    label(out, _rectangular(tracer, read, dim))


def pad(tracer: Tracer, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
    """Padding along channels adds channels of a number that stands in the code; elsewhere it changes nothing."""
    source: Tensor = argument(args, kwargs, 0, "input")
    ids = tracer.read(source)
    widths = list(argument(args, kwargs, 1, "pad", ()))
    mode = argument(args, kwargs, 2, "mode", "constant")
    amounts: list[int] = []
    for position in range(len(widths) // 2):
        dim = source.ndim - 1 - position
        last_channel = dim == 1 and source.shape[1] == 1 and bool(ids.any())
        padded = ids.shape[dim] > 1 or last_channel
        amounts += widths[2 * position : 2 * position + 2] if padded else [0, 0]
    if any(amounts) and (mode != "constant" or min(amounts) < 0):
        tracer.ledger.freeze(ids, f"padding changes channels{tracer.where()}")
        ids = nothing(out)
    label(out, functional.pad(ids, amounts) if any(amounts) and bool(ids.any()) else ids)


def expand(tracer: Tracer, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
    """Broadcasting by hand: a dimension of length 1 becomes longer, its label stays."""
    ids = tracer.read(args[0])
    label(out, ids.reshape((1,) * (out.ndim - ids.ndim) + tuple(ids.shape)))


def repeat(tracer: Tracer, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
    """repeat and tile: copies of a channel go with it."""
    ids = tracer.read(args[0])
    ids = ids.reshape((1,) * (out.ndim - ids.ndim) + tuple(ids.shape))
    times = [size if ids.shape[d] > 1 else 1 for d, size in enumerate(_copies(ids, args[0], out))]
    label(out, ids.repeat(times))


def _copies(ids: Ids, source: Tensor, out: Tensor) -> list[int]:
    before = (1,) * (out.ndim - source.ndim) + tuple(source.shape)
    return [after // size for after, size in zip(out.shape, before, strict=True)]


def repeat_interleave(tracer: Tracer, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
    """Every channel several times in a row."""
    source, dim = args[0], argument(args, kwargs, 2, "dim")
    times = argument(args, kwargs, 1, "repeats")
    ids = tracer.read(source)
    if dim is None or not isinstance(times, int):
        tracer.ledger.freeze(ids, f"'{name}' mixes channels{tracer.where()}")
        label(out, nothing(out))
    else:
        label(out, ids.repeat_interleave(times, dim) if ids.shape[dim] > 1 else ids)


def flip(tracer: Tracer, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
    """Channels in reverse order."""
    dims = args[1:] if len(args) > 2 else argument(args, kwargs, 1, "dims")
    ids = tracer.read(args[0])
    label(out, ids.flip(dims if not isinstance(dims, int) else (dims,)))


def roll(tracer: Tracer, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
    """Rolling pixels changes no channel; rolling channels moves them by a fixed number."""
    ids, dims = tracer.read(args[0]), argument(args, kwargs, 2, "dims")
    dims = range(ids.ndim) if dims in (None, ()) else (dims,) if isinstance(dims, int) else dims
    if any(ids.shape[dim] > 1 for dim in dims):
        tracer.ledger.freeze(ids, f"channels are rolled by a fixed number{tracer.where()}")
        ids = nothing(out)
    label(out, ids)


MOVEMENT: dict[str, Handler] = {
    **dict.fromkeys(words("permute transpose t get_T get_mT movedim moveaxis swapaxes swapdims"), permute),
    **dict.fromkeys(words("cat concat concatenate"), concatenate),
    **dict.fromkeys(words("expand expand_as broadcast_to"), expand),
    **dict.fromkeys(words("repeat tile"), repeat),
    "repeat_interleave": repeat_interleave,
    "stack": stack,
    "pad": pad,
    "flip": flip,
    "roll": roll,
}
