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
    signal: Tensor, weight: Tensor, operation: Operation, relevance: Tensor, mode: Mode, split: Split
) -> Tensor:
    """Convolution and linear layer: a * (sum w+ alpha R / (Z+ + eps) - sum w- beta R / (Z- + eps))."""
    margin = EPSILON if mode == "paper" and weight.dim() > 2 else 0.0  # the authors clamp convolutions at +-1e-9
    positive, negative = weight.clamp(min=margin), weight.clamp(max=-margin)
    if split == "weights":
        excited, send_excited = _adjoint(signal, positive, operation)
        inhibited, send_inhibited = _adjoint(signal, negative, operation)
        return signal * (
            send_excited(ALPHA * relevance / stabilised(excited, mode))
            - send_inhibited(BETA * relevance / stabilised(inhibited, mode))
        )
    above, below = signal.clamp(min=0), signal.clamp(max=0)
    above_positive, send_above_positive = _adjoint(above, positive, operation)
    above_negative, send_above_negative = _adjoint(above, negative, operation)
    below_positive, send_below_positive = _adjoint(below, positive, operation)
    below_negative, send_below_negative = _adjoint(below, negative, operation)
    excited = ALPHA * relevance / stabilised(above_positive + below_negative, mode)
    inhibited = BETA * relevance / stabilised(above_negative + below_positive, mode)
    return above * (send_above_positive(excited) - send_above_negative(inhibited)) + below * (
        send_below_negative(excited) - send_below_positive(inhibited)
    )


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
