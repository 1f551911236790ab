"""Operations that trade channels for pixels or interleave them: the channels they merge go together."""

from typing import Any

from torch import Tensor

from trainables.pruning.ledger import Ids
from trainables.pruning.splits import tie_parts, tie_runs
from trainables.pruning.tracer import Handler, Tracer, argument, label, nothing, words


def pixel_shuffle(tracer: Tracer, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
    """[.., C r r, H, W] -> [.., C, H r, W r]: r x r channels become one and go together; and the reverse."""
    source, factor = args[0], argument(args, kwargs, 1, "upscale_factor", kwargs.get("downscale_factor"))
    ids = _only_channels(tracer, name, source, source.ndim - 3)
    if ids.shape[source.ndim - 3] > 1:
        if name == "pixel_shuffle":
            tie_runs(tracer, ids, ids.ndim - 3, factor * factor)
            ids = first_of_runs(ids, ids.ndim - 3, factor * factor)
        else:
            ids = ids.repeat_interleave(factor * factor, ids.ndim - 3)
    label(out, ids)


def patches(tracer: Tracer, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
    """unfold: [N, C, H, W] -> [N, C k k, L], a channel's window goes with it; fold is the reverse."""
    source = args[0]
    if source.ndim != (4 if name == "unfold" else 3) or out.ndim != (3 if name == "unfold" else 4):
        tracer.give_up(name, args, kwargs, out)
        return
    ids = _only_channels(tracer, name, source, 1)
    if ids.shape[1] > 1:
        window = out.shape[1] // source.shape[1] if name == "unfold" else source.shape[1] // out.shape[1]
        if name == "unfold":
            ids = ids.repeat_interleave(window, 1).select(-1, 0)
        else:
            tie_runs(tracer, ids, 1, window)
            ids = first_of_runs(ids, 1, window).unsqueeze(-1)
        label(out, ids)
    else:
        label(out, nothing(out))


def first_of_runs(ids: Ids, dim: int, run: int) -> Ids:
    """One label for every `run` neighbours."""
    return ids.reshape(*ids.shape[:dim], -1, run, *ids.shape[dim + 1 :]).select(dim + 1, 0)


def _only_channels(tracer: Tracer, name: str, source: Tensor, dim: int) -> Ids:
    ids = tracer.read(source)
    if any(size > 1 for d, size in enumerate(ids.shape) if d != dim):
        tracer.ledger.freeze(ids, f"'{name}' mixes channels{tracer.where()}")
        return nothing(source)
    return ids


def channel_shuffle(tracer: Tracer, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
    """[N, g, C / g] -> [N, C / g, g]: every group loses the same positions."""
    groups = argument(args, kwargs, 1, "groups")
    ids = _only_channels(tracer, name, args[0], 1)
    if ids.shape[1] > 1:
        tie_parts(tracer, ids, 1, ids.shape[1] // groups)
        ids = ids.reshape(ids.shape[0], groups, -1, *ids.shape[2:]).transpose(1, 2).flatten(1, 2)
    label(out, ids)


def glu(tracer: Tracer, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
    """One half gates the other."""
    ids = tracer.read(args[0])
    dim = argument(args, kwargs, 1, "dim", -1) % ids.ndim
    if ids.shape[dim] > 1:
        tie_parts(tracer, ids, dim, ids.shape[dim] // 2)
        ids = ids.narrow(dim, 0, ids.shape[dim] // 2)
    label(out, ids)


SHUFFLES: dict[str, Handler] = {
    **dict.fromkeys(words("pixel_shuffle pixel_unshuffle"), pixel_shuffle),
    **dict.fromkeys(words("unfold fold"), patches),
    **dict.fromkeys(words("channel_shuffle native_channel_shuffle"), channel_shuffle),
    "glu": glu,
}
