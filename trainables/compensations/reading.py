"""What consumers read of each group, as sums over data, and the norm that follows each consumer."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from trainables.pruning.gates import CONVOLUTIONS, TRANSPOSED
from trainables.pruning.groups import Group, Slice
from trainables.pruning.tracer import SHAPE_ONLY, operation, tensors_of


@dataclass(eq=False)
class Reading:
    """Sums over everything that one consumer read of one group: images, positions, and places in its input.

    `total` is [conv groups, channels], `products` [conv groups, channels, channels], both float64.
    """

    group: str
    piece: Slice
    count: int
    total: Tensor
    products: Tensor

    @property
    def mean(self) -> Tensor:
        """[conv groups, channels]."""
        return self.total / max(self.count, 1)


class Reader(TorchFunctionMode):
    """Sums up, in the passes made inside, what the consumers of some groups read."""

    def __init__(self, model: nn.Module, groups: Iterable[Group]) -> None:
        super().__init__()
        self._names = {id(parameter): name for name, parameter in model.named_parameters(remove_duplicate=False)}
        self._buffers = {id(buffer): name for name, buffer in model.named_buffers()}
        self._pieces: dict[str, list[tuple[str, Slice]]] = {}
        for group in groups:
            for piece in group.slices:
                if piece.role == "in":
                    self._pieces.setdefault(piece.tensor, []).append((group.name, piece))
        self._readings: dict[tuple[str, int], Reading] = {}
        self._norms: dict[str, set[str | None]] = {}  # consumer: running means of the norms that read its output

    @property
    def readings(self) -> list[Reading]:
        """One for each consumer and group that the passes reached."""
        return list(self._readings.values())

    def following_norms(self) -> Mapping[str, str]:
        """{consumer's weight: running mean}, where one BatchNorm and nothing else reads the consumer's output."""
        return {
            weight: name
            for weight, found in self._norms.items()
            if len(found) == 1
            for name in found
            if name is not None
        }

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        self._note_reader(func, args, kwargs)
        if func is not F.linear and func not in CONVOLUTIONS and func not in TRANSPOSED:
            return func(*args, **kwargs)
        given = dict(zip(("input", "weight", "bias"), args, strict=False)) | kwargs
        name = self._names.get(id(given["weight"]), "")
        output = func(*args, **kwargs)
        if name in self._pieces:
            axis = -1 if func is F.linear else -1 - (CONVOLUTIONS | TRANSPOSED)[func]
            width = given["weight"].shape[0 if func in TRANSPOSED else 1]
            for number, (group, piece) in enumerate(self._pieces[name]):
                self._add(name, number, group, piece, given["input"].movedim(axis, -1), width)
            output._made_by = name
        return output

    def _note_reader(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if operation(func) in SHAPE_ONLY:
            return
        for tensor in tensors_of((args, kwargs)):
            weight = getattr(tensor, "_made_by", None)
            if weight is not None:
                mean = args[1] if func is F.batch_norm and len(args) > 1 else None
                self._norms.setdefault(weight, set()).add(self._buffers.get(id(mean)))

    def _add(self, name: str, number: int, group: str, piece: Slice, signal: Tensor, width: int) -> None:
        starts = range(0, signal.shape[-1], width)
        channels = len(piece.positions)
        if (name, number) not in self._readings:
            total = torch.zeros(len(starts), channels, dtype=torch.float64, device=signal.device)
            products = total.new_zeros(len(starts), channels, channels)
            self._readings[name, number] = Reading(group, piece, 0, total, products)
        reading = self._readings[name, number]
        for place, start in enumerate(starts):
            read = signal[..., piece.positions.to(signal.device) + start]  # [..., channels, places of each]
            samples = read.detach().double().movedim(-2, -1).reshape(-1, channels)
            reading.total[place] += samples.sum(0)
            reading.products[place] += samples.T @ samples
        reading.count += samples.shape[0]
