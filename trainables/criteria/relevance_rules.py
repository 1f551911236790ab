"""How relevance goes back through one layer: the alpha-beta rule and what stands beside it (FRS 2020; LRP 2015).

Each rule takes the relevance of a layer's output and returns that of its input. Epsilon comes in two modes: `paper`
adds 1e-9 whatever the sign, as the authors do; `stable` adds it away from zero, so that no denominator crosses it.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

Mode = Literal["paper", "stable"]
Split = Literal["weights", "products"]
PRODUCTS_OF = {"weights": 4, "products": 8}
"""How many times the layer's own products the way back takes."""
Operation = Callable[[Tensor, Tensor], Tensor]
"""(signal, weight) -> output, without bias"""

ALPHA, BETA = 2.0, 1.0
EPSILON = 1e-9


def stabilised(denominator: Tensor, mode: Mode) -> Tensor:
    """The denominator with epsilon added."""
    if mode == "paper":
        return denominator + EPSILON
    return denominator + torch.copysign(denominator.new_tensor(EPSILON), denominator)


def split_for(signal: Tensor, mode: Mode) -> Split:
    """What a weighted layer splits by the sign of.

    The authors split weights, which supposes inputs that are not negative. Where some are, `stable` splits products,
    the same thing otherwise: else the terms of Z+ cancel and relevance explodes.
    """
    return "products" if mode == "stable" and bool(signal.amin() < 0) else "weights"


def weighted(
    signal: Tensor,
    weight: Tensor,
    operation: Operation,
    relevance: Tensor,
    mode: Mode,
    split: Split,
    *,
    outputs: Literal[0, 1] = 0,
) -> Tensor:
    """Convolution and linear layer: a * (sum w+ alpha R / (Z+ + eps) - sum w- beta R / (Z- + eps)).

    `outputs`: the weight's dimension along its outputs, 1 for a transposed convolution. Both signs of the weights are
    one layer with twice the outputs, both signs of the signal one batch of twice the samples: each pass over memory
    that has to be fetched anew costs as much as the products.
    """
    margin = EPSILON if mode == "paper" and weight.dim() > 2 else 0.0  # the authors clamp convolutions at +-1e-9
    axis, sign = (-1, -2) if weight.dim() == 2 else (1, 2)
    groups = 1 if weight.dim() == 2 else (relevance if outputs else signal).shape[1] // weight.shape[1]
    both = _beside(weight.clamp(min=margin), weight.clamp(max=-margin), groups, outputs)
    above, below = (signal, None) if split == "weights" else (signal.clamp(min=0), signal.clamp(max=0))
    output, send = _adjoint(above if below is None else torch.cat([above, below]), both, operation)
    positive, negative = torch.unflatten(output, axis, (groups, 2, -1)).unbind(sign)
    relevance, samples = torch.unflatten(relevance, axis, (groups, -1)), len(signal)
    if below is None:
        _share(relevance, positive, negative, mode)
        return send(output).mul_(signal)
    excited, inhibited = positive[:samples], negative[:samples]
    _share(relevance, excited.add_(negative[samples:]), inhibited.add_(positive[samples:]), mode)
    negative[samples:], positive[samples:] = excited, inhibited
    sent = send(output)
    return sent[:samples].mul_(above).add_(sent[samples:].mul_(below))


def _beside(positive: Tensor, negative: Tensor, groups: int, outputs: int) -> Tensor:
    """One weight whose outputs are, in each group, those of the first and then those of the second."""
    if outputs == 1:
        return torch.cat([positive, negative], 1)
    return torch.cat([torch.unflatten(part, 0, (groups, -1)) for part in (positive, negative)], 1).flatten(0, 1)


def _share(relevance: Tensor, excited: Tensor, inhibited: Tensor, mode: Mode) -> None:
    """In place: alpha R / (Z+ + eps) and -beta R / (Z- + eps). Z+ is not under zero and Z- not over it, so that the
    side of zero which epsilon must go to in `stable` is known."""
    down = EPSILON if mode == "paper" else -EPSILON
    torch.add(excited.new_tensor(EPSILON / ALPHA), excited, alpha=1 / ALPHA, out=excited)
    torch.add(inhibited.new_tensor(-down / BETA), inhibited, alpha=-1 / BETA, out=inhibited)
    torch.div(relevance, excited, out=excited)
    torch.div(relevance, inhibited, out=inhibited)


def maximum(signal: Tensor, pool: Callable[[Tensor], Tensor], relevance: Tensor, mode: Mode) -> Tensor:
    """Max-pooling: the relevance goes to the input that won."""
    output, send = _linearised(signal, pool)
    return signal * send(relevance / stabilised(output, mode))


def average(signal: Tensor, pool: Callable[[Tensor], Tensor], relevance: Tensor, mode: Mode) -> Tensor:
    """Average pooling: each input gets its share. The authors' nearest up-sampling gives every input the whole:
    relevance grows by the size of the window, which `paper` keeps.
    """
    output, send = _linearised(signal, pool)
    grown = signal.numel() / output.numel() if mode == "paper" else 1.0
    return signal * send(relevance / stabilised(output, mode)) * grown


def added(summand: Tensor, output: Tensor, relevance: Tensor, mode: Mode) -> Tensor:
    """A sum: each summand gets its share of what came out."""
    return (summand * relevance / stabilised(output, mode)).sum_to_size(summand.shape)


def _adjoint(signal: Tensor, weight: Tensor, operation: Operation) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    return _linearised(signal, lambda source: operation(source, weight))


def _linearised(signal: Tensor, operation: Callable[[Tensor], Tensor]) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """The output at `signal`, and the way back from the output: the transpose of the operation's derivative there."""
    with torch.enable_grad():
        source = signal.detach().requires_grad_()
        output = operation(source)

    def send(from_output: Tensor) -> Tensor:
        (to_signal,) = torch.autograd.grad(output, source, from_output)
        return to_signal

    return output.detach(), send
