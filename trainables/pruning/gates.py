"""Gates: one factor per channel, multiplied in where a group's channels are made or where they are read.

The weights of convolutions and linear layers tell which call belongs to which group, so that layers, functional
calls and modules used twice are all caught. Does NOT change the network: gates act only inside `gated`.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from trainables.pruning.groups import Groups, Slice

Where = Literal["made", "read"]
"""made: on the output of each producer, after its bias and before its norm; read: on the input of each consumer."""

CONVOLUTIONS = {torch.conv1d: 1, torch.conv2d: 2, torch.conv3d: 3}
TRANSPOSED = {torch.conv_transpose1d: 1, torch.conv_transpose2d: 2, torch.conv_transpose3d: 3}


@contextmanager
def gated(model: nn.Module, groups: Groups, gates: Mapping[str, Tensor], *, where: Where) -> Iterator[None]:
    """Multiply gates[group], [channels] or [batch, channels], into the forward passes made inside.

    Groups that `gates` does not name are left alone, and so are layers that a pass does not reach.
    """
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    slices: dict[str, list[tuple[str, Slice]]] = {}
    for group in gates:
        for piece in groups[group].slices:
            if piece.role == ("out" if where == "made" else "in"):
                slices.setdefault(piece.tensor, []).append((group, piece))
    with _GateMode(names, slices, gates, where):
        yield


class _GateMode(TorchFunctionMode):
    """Multiplies the gates of whatever weight a convolution or linear layer is called with."""

    def __init__(
        self,
        names: Mapping[int, str],
        slices: Mapping[str, list[tuple[str, Slice]]],
        gates: Mapping[str, Tensor],
        where: Where,
    ) -> None:
        super().__init__()
        self.names, self.slices, self.gates, self.where = names, slices, gates, where

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is not F.linear and func not in CONVOLUTIONS and func not in TRANSPOSED:
            return func(*args, **kwargs)
        given = dict(zip(("input", "weight", "bias"), args, strict=False)) | kwargs
        weight = given["weight"]
        pieces = self.slices.get(self.names.get(id(weight), ""), [])
        if not pieces:
            return func(*args, **kwargs)
        axis = -1 if func is F.linear else -1 - (CONVOLUTIONS | TRANSPOSED)[func]
        if self.where == "made":
            output = func(*args, **kwargs)
            return self._multiply(output, pieces, axis, weight.shape[1 if func in TRANSPOSED else 0])
        given["input"] = self._multiply(given["input"], pieces, axis, weight.shape[0 if func in TRANSPOSED else 1])
        return func(given["input"], *args[1:], **{name: item for name, item in kwargs.items() if name != "input"})

    def _multiply(self, signal: Tensor, pieces: list[tuple[str, Slice]], axis: int, width: int) -> Tensor:
        """The signal times the gates of its channels.

        `width` is what the weight shows of them: where a grouped convolution shows one conv group's share, a position
        means the same channel of each.
        """
        channels = signal.shape[axis]
        starts = torch.arange(0, channels, width, device=signal.device)
        gates = [self.gates[group] for group, _ in pieces]
        factor = torch.ones(*gates[0].shape[:-1], channels, dtype=signal.dtype, device=signal.device)
        for gate, (_, piece) in zip(gates, pieces, strict=True):
            positions = piece.positions.to(signal.device)
            index = (positions[:, :, None] + starts).flatten(1)  # [channels of the group, signal channels of each]
            factor = factor.index_copy(-1, index.flatten(), gate.to(factor.dtype).repeat_interleave(index.shape[1], -1))
        return signal * _facing(factor, signal.dim(), axis)


def _facing(factor: Tensor, dimensions: int, axis: int) -> Tensor:
    """[channels] or [batch, channels] shaped to multiply a signal whose channels stand at `axis` (from the end)."""
    shape = [1] * dimensions
    shape[axis] = factor.shape[-1]
    if factor.dim() == 2:
        shape[0] = factor.shape[0]
    return factor.reshape(shape)
