"""Pooling and reductions: along pixels each channel stays itself, along channels they are mixed."""

from typing import Any

from torch import Tensor

from trainables.pruning.elementwise import elementwise
from trainables.pruning.tracer import Handler, Tracer, argument, label, nothing, tensors_of, words


def spatial(tracer: Tracer, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
    """Pooling and resizing: each channel by itself, so labels pass; labels along the pooled dimensions are frozen."""
    source = args[0] if args else kwargs["input"]
    ids = tracer.read(source)
    for result in tensors_of(out):
        if any(size > 1 for size in ids.shape[2:]):
            tracer.ledger.freeze(ids, f"'{name}' mixes channels{tracer.where()}")
            ids = nothing(source)
        label(result, ids)


def reduction(tracer: Tracer, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
    """Sums, means, norms and softmax along dimensions; along channels they mix them, which freezes."""
    source: Tensor = argument(args, kwargs, 0, "input")
    if len(args) > 1 and isinstance(args[1], Tensor):
        elementwise(tracer, name, args, kwargs, out)  # max and min of two tensors
        return
    ids = tracer.read(source)
    dims = _reduced(name, source.ndim, args, kwargs)
    if any(ids.shape[dim] > 1 for dim in dims):
        tracer.ledger.freeze(ids, f"'{name}' mixes channels{tracer.where()}")
        ids = nothing(source)
    for result in tensors_of(out):
        kept = ids if result.ndim == ids.ndim else ids.reshape([s for d, s in enumerate(ids.shape) if d not in dims])
        label(result, kept if kept.ndim == result.ndim else nothing(result))


def _reduced(name: str, ndim: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[int, ...]:
    """The dimensions that are summed over; all of them where none is named."""
    position = DIM_POSITION.get(name, 1)
    given = argument(args, kwargs, position, "dim", kwargs.get("axis", 1 if name == "normalize" else None))
    if given is None or isinstance(given, (bool, str)):
        return tuple(range(ndim))
    dims = (given,) if isinstance(given, int) else tuple(given)
    return tuple(dim % ndim for dim in dims) if ndim else ()


DIM_POSITION = {"norm": 2, "normalize": 2, "topk": 2}
"""Where `dim` stands among the arguments, when not second."""

REDUCTIONS: dict[str, Handler] = {
    **dict.fromkeys(
        words(
            "max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d "
            "adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d interpolate upsample "
            "lp_pool1d lp_pool2d max_pool1d_with_indices max_pool2d_with_indices max_pool3d_with_indices "
            "upsample_nearest upsample_bilinear"
        ),
        spatial,
    ),
    **dict.fromkeys(
        words(
            "mean sum softmax log_softmax softmin norm var std amax amin max min prod logsumexp argmax argmin var_mean "
            "std_mean cumsum normalize all any sort topk"
        ),
        reduction,
    ),
}
