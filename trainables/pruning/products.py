"""Products of activations (attention): they mix channels in ways that are left alone, but their cost is counted."""

import math
from typing import Any

from torch import Tensor

from trainables.pruning.tracer import Handler, Tracer, argument, label, nothing, tensors_of, words


def _leave_alone(tracer: Tracer, name: str, args: Any, kwargs: Any, out: Any) -> None:
    for tensor in tensors_of((args, kwargs)):
        tracer.freeze_all(tensor, f"'{name}' multiplies activations{tracer.where()}")
    for tensor in tensors_of(out):
        label(tensor, nothing(tensor))


def _count(tracer: Tracer, macs: int) -> None:
    tracer.weightless.append((tracer.stack[-1] if tracer.stack else "", int(macs)))


def matmul(tracer: Tracer, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
    """matmul, bmm, mm, addmm: output elements times the length of what is summed over."""
    factors = list(tensors_of((args, kwargs)))[-2:]
    _count(tracer, out.numel() * factors[0].shape[-1])
    _leave_alone(tracer, name, args, kwargs, out)


def einsum(tracer: Tracer, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
    """Every letter is a loop."""
    factors = list(tensors_of(args))
    if len(factors) == 2 and isinstance(args[0], str) and "." not in args[0]:
        letters: dict[str, int] = {}
        for letters_of, tensor in zip(args[0].replace(" ", "").split("->")[0].split(","), factors, strict=True):
            letters.update(zip(letters_of, tensor.shape, strict=True))
        _count(tracer, math.prod(letters.values()))
    _leave_alone(tracer, name, args, kwargs, out)


def attention(tracer: Tracer, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
    """softmax(query key) value: two products."""
    query, key, value = (argument(args, kwargs, n, key) for n, key in enumerate(("query", "key", "value")))
    pairs = query.shape[:-1].numel() * key.shape[-2]
    _count(tracer, pairs * (query.shape[-1] + value.shape[-1]))
    _leave_alone(tracer, name, args, kwargs, out)


def multi_head_attention(tracer: Tracer, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
    """Projections of query, key, value, the two products, and the projection of the result; [length, batch, width]."""
    query, key, value = (argument(args, kwargs, n, key) for n, key in enumerate(("query", "key", "value")))
    width, (length, batch) = query.shape[-1], (query.shape[0], query.shape[1] if query.ndim == 3 else 1)
    sources = batch * key.shape[0]
    projections = width * (length * batch * width + sources * key.shape[-1] + sources * value.shape[-1])
    products = 2 * batch * length * key.shape[0] * width
    _count(tracer, projections + products + length * batch * width * width)
    _leave_alone(tracer, name, args, kwargs, out)


PRODUCTS: dict[str, Handler] = {
    **dict.fromkeys(words("matmul rmatmul imatmul bmm mm addmm baddbmm mv dot"), matmul),
    "einsum": einsum,
    "scaled_dot_product_attention": attention,
    "multi_head_attention_forward": multi_head_attention,
}
