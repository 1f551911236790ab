"""Operations element by element: channels that meet are tied, broadcast tensors have none of their own."""

from typing import Any

import torch
from torch import Tensor

from trainables.pruning.ledger import Ids
from trainables.pruning.tracer import Handler, Tracer, label, named, nothing, tensors_of, words

Operand = tuple[Ids, tuple[int, ...]]
"""Labels and sizes of one tensor, both with the result's number of dimensions."""


def elementwise(tracer: Tracer, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
    """Channels that meet element by element are tied; a tensor that is broadcast along channels is not."""
    inputs = list(tensors_of((args, kwargs)))
    wide = [t for t in inputs if named(t) is not None and sum(size > 1 for size in t.shape) > 1]
    single = [t for t in inputs if named(t) is not None and t.numel() == 1]  # one number for all channels
    narrow = [t for t in inputs if not any(t is other for other in (*wide, *single))]
    tracer.visited.update(str(named(t)) for t in single)
    for result in tensors_of(out):
        met: tuple[Ids, tuple[int, ...]] | None = None
        for tensor in narrow:
            size = (1,) * (result.ndim - tensor.ndim) + tuple(tensor.shape)
            ids = tracer.read(tensor)
            operand = (ids.reshape((1,) * (result.ndim - ids.ndim) + tuple(ids.shape)), size)
            met = operand if met is None else meet(tracer, met, operand)
        ids = nothing(result) if met is None else met[0]
        for tensor in wide:
            bind(tracer, tensor, ids, result)
        label(result, ids)


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
        kept, own, other = (b, b_size, a_size) if not bool(a.any()) else (a, a_size, b_size)
        if kept.numel() == 1 and any(mine < size for mine, size in zip(own, other, strict=True)):
            tracer.ledger.freeze(kept, f"is broadcast over what has no channels{tracer.where()}")
            return torch.zeros_like(kept), size
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
    else:
        tracer.ledger.freeze(ids, f"meets parameter '{name}' across channels")
        tracer.freeze_all(parameter, f"is used across channels{tracer.where()}")


ELEMENTWISE: dict[str, Handler] = dict.fromkeys(
    words(
        "add iadd radd sub isub rsub subtract mul imul rmul multiply div idiv truediv itruediv rtruediv true_divide "
        "divide relu relu6 hardswish hardsigmoid hardtanh sigmoid logsigmoid tanh gelu silu mish elu selu celu "
        "softplus softsign leaky_relu rrelu threshold clamp clip clamp_min clamp_max abs neg exp expm1 log log1p sqrt "
        "rsqrt square pow ipow rpow reciprocal erf sin cos sign floor ceil round maximum minimum where lerp addcmul "
        "addcdiv clone contiguous to float double half bfloat16 type_as detach alias get_data requires_grad copy "
        "dropout alpha_dropout dropout1d dropout2d dropout3d feature_alpha_dropout hardshrink softshrink tanhshrink "
        "positive nan_to_num masked_fill fill gt lt ge le eq ne logical_and logical_or logical_not cpu cuda int long "
        "bool zero bernoulli uniform normal invert and or xor isnan isinf isfinite"
    ),
    elementwise,
)
