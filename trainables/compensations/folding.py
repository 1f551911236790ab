"""Folding: what channels that go would have contributed, written into the weights and biases of who read them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from spaces.errors import TrialFailed
from trainables.compensations.reading import Reading

Adjustments = dict[str, Tensor]
"""{parameter or buffer: its new value}."""


@dataclass(frozen=True, eq=False)
class Replacement:
    """What stands for the channels that go, in one consumer: gone = mix^T kept + constant, per conv group.

    `mix` is [conv groups, kept, gone], `constant` [conv groups, gone], both float64.
    """

    reading: Reading
    kept: Tensor
    gone: Tensor
    mix: Tensor
    constant: Tensor


class Folder:
    """Collects the new values of a network's consumers."""

    def __init__(self, model: nn.Module, norms: Mapping[str, str]) -> None:
        self._model, self._norms = model, norms
        self._parameters = {name: value.detach() for name, value in model.named_parameters()}
        self.adjustments: Adjustments = {}

    def takes_constants(self, reading: Reading) -> bool:
        """Whether the consumer has a bias, or a BatchNorm alone behind it, that can take a constant."""
        return self._place_of_constants(reading) is not None

    def fold(self, part: Replacement) -> None:
        """Add the contribution of `part` to its consumer. A constant is exact but where zeros are padded around it."""
        piece = part.reading.piece
        weight = self._parameters[piece.tensor]
        columns = self._new(piece.tensor, weight).movedim(piece.dim, 0)
        before = weight.double().movedim(piece.dim, 0)  # [inputs, outputs, kernel ...]
        shares = len(part.mix)
        outputs = before.shape[1]
        shift = torch.zeros(outputs, dtype=torch.float64, device=weight.device)
        for share in range(shares):
            rows = slice(share * outputs // shares, (share + 1) * outputs // shares)
            for place in piece.positions.T.to(weight.device):
                kept, gone = place[part.kept], before[place[part.gone]][:, rows]
                columns[kept, rows] += torch.einsum("kg,g...->k...", part.mix[share], gone).to(columns.dtype)
                shift[rows] += torch.einsum(
                    "g,go->o", part.constant[share], gone.flatten(2).sum(2) if gone.dim() > 2 else gone
                )
        target = self._place_of_constants(part.reading)
        if target is not None:
            name, sign = target
            value = dict(self._model.named_buffers()).get(name, self._parameters.get(name))
            assert value is not None, "biases and running means are in the network"
            self._new(name, value).add_(shift.to(value.dtype), alpha=sign)

    def _new(self, name: str, value: Tensor) -> Tensor:
        return self.adjustments.setdefault(name, value.detach().clone())

    def _place_of_constants(self, reading: Reading) -> tuple[str, int] | None:
        """The tensor that takes a constant, and its sign: a running mean is subtracted."""
        weight = reading.piece.tensor
        bias = weight.removesuffix("weight") + "bias"
        if weight.endswith("weight") and bias in self._parameters:
            return bias, 1
        return (self._norms[weight], -1) if weight in self._norms else None


def check_adjustments(adjustments: Adjustments, model: nn.Module, epoch: int) -> None:
    """A compensation that answers nonsense must not change anything. Raises TrialFailed."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for name, value in adjustments.items():
        wanted = tuple(tensors[name].shape) if name in tensors else "no such tensor"
        if tuple(value.shape) != wanted:
            raise TrialFailed(
                f"the compensation gave {tuple(value.shape)} for '{name}'; there is {wanted}", epoch=epoch
            )
        if not bool(torch.isfinite(value).all()):
            raise TrialFailed(f"the compensation gave a value that is not finite for '{name}'", epoch=epoch)


@contextmanager
def taken_up(model: nn.Module, adjustments: Adjustments) -> Iterator[None]:
    """Write the new values; where what is done inside fails, the old ones come back."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    before = {name: tensors[name].detach().clone() for name in adjustments}
    with torch.no_grad():
        for name, value in adjustments.items():
            tensors[name].copy_(value)
    try:
        yield
    except Exception:
        with torch.no_grad():
            for name, value in before.items():
                tensors[name].copy_(value)
        raise


def split(kept: Tensor, channels: int) -> tuple[Tensor, Tensor]:
    """(kept, gone): indices of a group's channels."""
    gone = torch.ones(channels, dtype=torch.bool)
    gone[kept.cpu()] = False
    return kept.cpu(), gone.nonzero()[:, 0]
