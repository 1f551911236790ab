"""What each torch operation does to channel labels. An operation that is not in `HANDLERS` freezes what it reads.

The table is by operation name; `layers` holds operations with weights, `movement` those that move data.
"""

from typing import Any

from torch import Tensor

from trainables.pruning.layers import LAYERS
from trainables.pruning.ledger import Ids
from trainables.pruning.movement import MOVEMENT
from trainables.pruning.tracer import Handler, Tracer, label, labels, named, nothing, tensors_of


def elementwise(tracer: Tracer, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
    """Channels that meet element by element are tied; a tensor that is broadcast along channels is not."""
    result = None
    inputs = list(tensors_of((args, kwargs)))
    for out_tensor in tensors_of(out):
        ndim = out_tensor.ndim
        wide = [t for t in inputs if named(t) is not None and sum(size > 1 for size in t.shape) > 1]
        for tensor in inputs:
            if any(tensor is other for other in wide) or tensor is out_tensor is not inputs[0]:
                continue
            size = (1,) * (ndim - tensor.ndim) + tuple(tensor.shape)
            ids = tracer.read(tensor)
            ids = ids.reshape((1,) * (ndim - ids.ndim) + tuple(ids.shape))
            result = (ids, size) if result is None else meet(tracer, result, (ids, size))
        ids = nothing(out_tensor) if result is None else result[0]
        for tensor in wide:
            bind(tracer, tensor, ids, out_tensor)
        label(out_tensor, ids)


def meet(
    tracer: Tracer, first: tuple[Ids, tuple[int, ...]], second: tuple[Ids, tuple[int, ...]]
) -> tuple[Ids, tuple[int, ...]]:
    """The labels of an element-wise result of two operands, given as (labels, sizes)."""
    (a, a_size), (b, b_size) = first, second
    size = tuple(max(x, y) if 0 not in (x, y) else 0 for x, y in zip(a_size, b_size, strict=True))
    dims = range(len(size))
    a_over_b = any(a.shape[d] > 1 and b_size[d] == 1 for d in dims)  # b is broadcast along a's channels
    b_over_a = any(b.shape[d] > 1 and a_size[d] == 1 for d in dims)
    if a_over_b and b_over_a:
        for ids in (a, b):
            tracer.ledger.freeze(ids, f"channels cross in an outer operation{tracer.where()}")
        return a.new_zeros([1] * len(size)), size
    if a_over_b or b_over_a:
        kept, lost = (a, b) if a_over_b else (b, a)
        tracer.ledger.freeze(lost, f"is broadcast over channels{tracer.where()}")
        return kept, size
    if not bool(a.any()) or not bool(b.any()):
        kept, other = (b, a_size) if not bool(a.any()) else (a, b_size)
        if any(kept.shape[d] > 1 and other[d] > 1 for d in dims):
            tracer.ledger.freeze(kept, f"meets a constant of fixed width{tracer.where()}")
        return kept, size
    if any((a.shape[d] > 1) != (b.shape[d] > 1) and size[d] > 1 for d in dims):
        for ids in (a, b):
            tracer.ledger.freeze(ids, f"channels of different dimensions meet{tracer.where()}")
        return a.new_zeros([1] * len(size)), size
    tracer.ledger.tie(a, b)
    return a.maximum(b), size


def bind(tracer: Tracer, parameter: Tensor, ids: Ids, out: Tensor) -> None:
    """Ties a parameter of several dimensions to the channels of what it meets element by element."""
    name = named(parameter)
    assert name is not None
    tracer.visited.add(name)
    shift = out.ndim - parameter.ndim
    varying = [dim for dim in range(out.ndim) if ids.shape[dim] > 1]
    if len(varying) == 1 and varying[0] >= shift and parameter.shape[varying[0] - shift] > 1:
        dim = varying[0] - shift
        tracer.ledger.tie(tracer.ledger.nodes(name, dim, parameter.shape[dim], "norm"), ids.reshape(-1))
    elif varying:
        tracer.ledger.freeze(ids, f"meets parameter '{name}' across channels")


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
    source = args[0] if args else kwargs["input"]
    ids = tracer.read(source)
    if named(source) is not None and not bool(ids.any()):
        tracer.freeze_all(source, f"'{name}' reads it whole{tracer.where()}")
    given = kwargs.get("dim", args[1] if len(args) > 1 else None)
    if name in ("normalize", "cosine_similarity"):
        given = kwargs.get("dim", 1)
    dims = tuple(range(source.ndim)) if given is None else (given,) if isinstance(given, int) else tuple(given)
    dims = tuple(dim % source.ndim for dim in dims) if source.ndim else ()
    if any(ids.shape[dim] > 1 for dim in dims):
        tracer.ledger.freeze(ids, f"'{name}' mixes channels{tracer.where()}")
        ids = nothing(source)
    for result in tensors_of(out):
        if result.ndim == ids.ndim:
            label(result, ids)
        elif result.ndim == ids.ndim - len(dims):
            label(result, ids.reshape([s for dim, s in enumerate(ids.shape) if dim not in dims]))
        else:
            tracer.ledger.freeze(ids, f"'{name}' mixes channels{tracer.where()}")


def like(tracer: Tracer, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
    """A new tensor of the same shape follows the shape of its model."""
    label(out, labels(args[0] if args else kwargs["input"]))


def constant(tracer: Tracer, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
    """A new tensor without channels."""


ELEMENTWISE = [
    "add",
    "iadd",
    "radd",
    "sub",
    "isub",
    "rsub",
    "subtract",
    "mul",
    "imul",
    "rmul",
    "multiply",
    "div",
    "idiv",
    "truediv",
    "itruediv",
    "rtruediv",
    "true_divide",
    "divide",
    "relu",
    "relu6",
    "hardswish",
    "hardsigmoid",
    "hardtanh",
    "sigmoid",
    "logsigmoid",
    "tanh",
    "gelu",
    "silu",
    "mish",
    "elu",
    "selu",
    "celu",
    "softplus",
    "softsign",
    "leaky_relu",
    "rrelu",
    "threshold",
    "clamp",
    "clip",
    "clamp_min",
    "clamp_max",
    "abs",
    "neg",
    "exp",
    "expm1",
    "log",
    "log1p",
    "sqrt",
    "rsqrt",
    "square",
    "pow",
    "ipow",
    "rpow",
    "reciprocal",
    "erf",
    "sin",
    "cos",
    "sign",
    "floor",
    "ceil",
    "round",
    "maximum",
    "minimum",
    "where",
    "lerp",
    "addcmul",
    "addcdiv",
    "clone",
    "contiguous",
    "to",
    "float",
    "double",
    "half",
    "bfloat16",
    "type_as",
    "detach",
    "alias",
    "get_data",
    "requires_grad",
    "copy",
    "dropout",
    "alpha_dropout",
    "dropout1d",
    "dropout2d",
    "dropout3d",
    "feature_alpha_dropout",
    "hardshrink",
    "softshrink",
    "tanhshrink",
    "positive",
    "nan_to_num",
    "masked_fill",
    "fill",
    "gt",
    "lt",
    "ge",
    "le",
    "eq",
    "ne",
    "logical_and",
    "logical_or",
    "logical_not",
    "cpu",
    "cuda",
    "int",
    "long",
    "bool",
    "zero",
    "bernoulli",
    "uniform",
    "normal",
    "invert",
    "and",
    "or",
    "xor",
    "isnan",
    "isinf",
    "isfinite",
    "rand_like",
]
SPATIAL = [
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
    "adaptive_max_pool1d",
    "adaptive_max_pool2d",
    "adaptive_max_pool3d",
    "interpolate",
    "upsample",
    "lp_pool1d",
    "lp_pool2d",
    "max_pool1d_with_indices",
    "max_pool2d_with_indices",
    "max_pool3d_with_indices",
    "upsample_nearest",
    "upsample_bilinear",
]
REDUCTIONS = [
    "mean",
    "sum",
    "softmax",
    "log_softmax",
    "softmin",
    "norm",
    "var",
    "std",
    "amax",
    "amin",
    "max",
    "min",
    "prod",
    "logsumexp",
    "argmax",
    "argmin",
    "var_mean",
    "std_mean",
    "cumsum",
    "normalize",
    "all",
    "any",
    "sort",
    "topk",
]
LIKE = ["zeros_like", "ones_like", "empty_like", "full_like", "rand_like", "randn_like"]
CONSTANTS = [
    "zeros",
    "ones",
    "empty",
    "full",
    "arange",
    "linspace",
    "rand",
    "randn",
    "randint",
    "tensor",
    "eye",
    "new_zeros",
    "new_ones",
    "new_empty",
    "new_full",
    "new_tensor",
    "scalar_tensor",
    "as_tensor",
    "from_numpy",
    "set_grad_enabled",
    "is_grad_enabled",
]

HANDLERS: dict[str, Handler] = {
    **dict.fromkeys(ELEMENTWISE, elementwise),
    **dict.fromkeys(SPATIAL, spatial),
    **dict.fromkeys(REDUCTIONS, reduction),
    **dict.fromkeys(LIKE, like),
    **dict.fromkeys(CONSTANTS, constant),
    **LAYERS,
    **MOVEMENT,
}
