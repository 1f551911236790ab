"""Hand-written networks, one per thing that pruning must get right; all take [N, 3, 8, 8] unless they say otherwise."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

IMAGE = (3, 8, 8)


def conv(ins: int, outs: int, size: int = 3, **kwargs: object) -> nn.Conv2d:
    return nn.Conv2d(ins, outs, size, padding=size // 2, **kwargs)


class Head(nn.Module):
    """Mean over pixels and a classifier."""

    def __init__(self, width: int, classes: int = 4) -> None:
        super().__init__()
        self.fc = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.flatten(2).mean(2))


class Concatenation(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.left, self.right = conv(3, 8), conv(8, 6), conv(8, 10)
        self.norm, self.mix, self.head = nn.BatchNorm2d(24), conv(24, 8, 1), Head(8)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        return self.head(F.relu(self.mix(F.relu(self.norm(torch.cat([self.left(x), x, self.right(x)], 1))))))


class Chunks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.left, self.head = conv(3, 12), conv(6, 6), Head(12)

    def forward(self, x: Tensor) -> Tensor:
        a, b = F.relu(self.stem(x)).chunk(2, 1)
        return self.head(torch.cat([self.left(a), b], 1))


class SplitByShape(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.left, self.head = conv(3, 12), conv(4, 4), Head(8)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        a, b = torch.split(x, [x.shape[1] // 3, x.shape[1] - x.shape[1] // 3], 1)
        return self.head(torch.cat([self.left(a), b[:, : x.size(1) // 3]], 1))


class FixedSplit(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.left, self.head = conv(3, 12), conv(4, 6), Head(14)

    def forward(self, x: Tensor) -> Tensor:
        a, b = F.relu(self.stem(x)).split([4, 8], 1)
        return self.head(torch.cat([self.left(a), b], 1))


class ChannelShuffle(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.grouped, self.last, self.head = conv(3, 12), conv(12, 12, groups=3), conv(12, 6), Head(6)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.grouped(F.relu(self.stem(x))))
        n, c, h, w = x.shape
        x = x.view(n, 3, c // 3, h, w).transpose(1, 2).reshape(n, c, h, w)
        return self.head(F.relu(self.last(F.channel_shuffle(x, 2) if hasattr(F, "channel_shuffle") else x)))


class PixelShuffles(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.up, self.down, self.head = conv(3, 16), conv(4, 5), conv(20, 6), Head(6)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.up(F.pixel_shuffle(F.relu(self.stem(x)), 2)))
        return self.head(F.relu(self.down(F.pixel_unshuffle(x, 2))))


class Grouped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.grouped, self.norm = conv(3, 16), conv(16, 32, groups=4), nn.BatchNorm2d(32)
        self.head = Head(32)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.norm(self.grouped(F.relu(self.stem(x))))))


class Depthwise(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.depth, self.norm = conv(3, 8), conv(8, 16, groups=8), nn.BatchNorm2d(16)
        self.point, self.head = conv(16, 12, 1), Head(12)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu6(self.point(F.relu6(self.norm(self.depth(F.relu6(self.stem(x))))))))


class Transposed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 8)
        self.up = nn.ConvTranspose2d(8, 6, 4, 2, 1)
        self.grouped = nn.ConvTranspose2d(6, 12, 3, 1, 1, groups=2)
        self.depth = nn.ConvTranspose2d(12, 24, 3, 1, 1, groups=12)
        self.head = Head(24)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.depth(F.relu(self.grouped(F.relu(self.up(F.relu(self.stem(x)))))))))


class OneDimensional(nn.Module):
    """[N, 3, 16]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv1d(3, 8, 3, padding=1), nn.BatchNorm1d(8)
        self.next, self.head = nn.Conv1d(8, 6, 3, stride=2), Head(6)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.next(F.max_pool1d(F.relu(self.norm(self.stem(x))), 2))))


class ThreeDimensional(nn.Module):
    """[N, 3, 4, 8, 8]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv3d(3, 8, 3, padding=1), nn.BatchNorm3d(8)
        self.next, self.head = nn.Conv3d(8, 6, 3, padding=1), Head(6)

    def forward(self, x: Tensor) -> Tensor:
        x = F.avg_pool3d(F.relu(self.norm(self.stem(x))), 2)
        return self.head(F.relu(self.next(x)))


class UsedTwice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.shared, self.norm, self.head = conv(3, 8), conv(8, 8), nn.BatchNorm2d(8), Head(8)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        return self.head(self.shared(F.relu(self.norm(self.shared(x)))))


class SharedParameter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first, self.second, self.head = conv(3, 8), conv(8, 8), conv(8, 8), Head(8)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.second(F.relu(self.first(F.relu(self.stem(x))))))


class SqueezeExcitation(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.squeeze, self.excite, self.head = conv(3, 8), conv(8, 4, 1), conv(4, 8, 1), Head(8)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.stem(x))
        gate = torch.sigmoid(self.excite(F.silu(self.squeeze(F.adaptive_avg_pool2d(x, 1)))))
        return self.head(x * gate)


class GroupNormed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm, self.plain = conv(3, 16), nn.GroupNorm(8, 16), nn.GroupNorm(4, 12, affine=False)
        self.next, self.head = conv(16, 12), Head(12)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.plain(self.next(F.relu(self.norm(self.stem(x)))))))


class LayerNormed(nn.Module):
    """The norm's channels stay, those between the two linear layers go."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = conv(3, 8), nn.LayerNorm(8)
        self.wide, self.narrow, self.head = nn.Linear(8, 16), nn.Linear(16, 8), Head(8)
        self.scale = nn.Parameter(torch.rand(8, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.narrow(F.gelu(self.wide(self.norm(x.permute(0, 2, 3, 1))))).permute(0, 3, 1, 2)
        return self.head(x + self.scale * y)


class InstanceNormed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm, self.plain = conv(3, 8), nn.InstanceNorm2d(8, affine=True), nn.InstanceNorm2d(6)
        self.next, self.head = conv(8, 6), Head(6)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.plain(self.next(F.relu(self.norm(self.stem(x)))))) + 0.1)


class LearnedSlopes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.each, self.next, self.one = conv(3, 8), nn.PReLU(8), conv(8, 6), nn.PReLU()
        self.head = Head(6)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.one(self.next(self.each(self.stem(x)))))


class BareParameters(nn.Module):
    """A layer scale, a bias, and a buffer indexed by channel."""

    mask: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.next, self.head = conv(3, 8, bias=False), conv(8, 8, bias=False), Head(8)
        self.scale, self.shift = nn.Parameter(torch.rand(8)), nn.Parameter(torch.rand(1, 8, 1, 1))
        self.register_buffer("mask", torch.rand(8, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x) + self.shift)
        return self.head(x + self.mask * self.scale.view(1, -1, 1, 1) * self.next(x))


class SeveralOutputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.next, self.seen, self.head = conv(3, 8), conv(8, 8), conv(8, 6), Head(6)

    def forward(self, x: Tensor) -> dict[str, Tensor | list[Tensor]]:
        x = F.relu(self.next(F.relu(self.stem(x))))
        y = self.seen(x)
        return {"logits": self.head(F.relu(y)), "maps": [x]}


class SeveralInputs(nn.Module):
    """[N, 3, 8, 8] and [N, 5]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.side, self.next, self.head = conv(3, 8), nn.Linear(5, 8), conv(8, 6), Head(6)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.head(F.relu(self.next(F.relu(self.stem(x)) + self.side(y)[:, :, None, None])))


class FunctionalCalls(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.first_bias = nn.Parameter(torch.randn(8, 3, 3, 3) / 5), nn.Parameter(torch.zeros(8))
        self.second, self.last = nn.Parameter(torch.randn(6, 8, 3, 3) / 8), nn.Parameter(torch.randn(4, 6) / 3)
        self.depth = nn.Parameter(torch.randn(6, 1, 3, 3) / 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(F.conv2d(x, self.first, self.first_bias, padding=1))
        x = F.relu(torch.conv2d(x, weight=self.second, padding=1))
        x = F.relu(F.conv2d(x, self.depth, padding=1, groups=x.shape[1]))
        return F.linear(x.mean([2, 3]), self.last)


class ControlFlow(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.next, self.head = conv(3, 8), conv(8, 8), nn.Linear(8 * 16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        while x.shape[-1] > 4:
            x = F.max_pool2d(F.relu(self.next(x)), 2)
        return self.head(x.view(x.shape[0], -1))


class Frozen(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.next, self.head = conv(3, 8), conv(8, 6), Head(6)
        for parameter in self.stem.parameters():
            parameter.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.next(F.relu(self.stem(x)))))


class FrozenNorm(nn.Module):
    """BatchNorm written out with buffers, as detectors do."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.next, self.head = conv(3, 8, bias=False), conv(8, 6), Head(6)
        for name in ("weight", "bias", "mean", "var"):
            self.register_buffer(name, torch.rand(8) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight.reshape(1, -1, 1, 1) * (self.var.reshape(1, -1, 1, 1) + 1e-5).rsqrt()
        shift = self.bias.reshape(1, -1, 1, 1) - self.mean.reshape(1, -1, 1, 1) * scale
        return self.head(F.relu(self.next(F.relu(self.stem(x) * scale + shift))))


class ZeroPadded(nn.Module):
    """An option-A shortcut with the padding written into the code: only the first eight channels may go."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down, self.inner, self.head = conv(3, 8), conv(8, 6, stride=2), conv(6, 16), Head(16)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        y = self.inner(F.relu(self.down(x)))
        return self.head(F.relu(y + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4))))


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.next, self.head = conv(3, 12), conv(6, 6), Head(6)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.next(F.glu(self.stem(x), 1))))


class Stacked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.left, self.right, self.head = conv(3, 8), conv(8, 6), conv(8, 6), Head(6)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        return self.head(torch.stack([self.left(x), self.right(x)]).sum(0))


class Repeated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.next, self.head = conv(3, 6), conv(12, 8), Head(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.next(F.relu(self.stem(x)).repeat(1, 2, 1, 1).flip(1)))


class Stochastic(nn.Module):
    """Dropout and stochastic depth; several dtypes of noise."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.next, self.drop, self.head = conv(3, 8), conv(8, 8), nn.Dropout2d(0.3), Head(8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(F.relu(self.stem(x)))
        y = self.next(x)
        if self.training:
            y = y * torch.empty(len(x), 1, 1, 1, dtype=x.dtype, device=x.device).bernoulli_(0.5)
        return self.head(x + y)


class AuxiliaryHead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.next, self.head, self.side = conv(3, 8), conv(8, 6), Head(6), Head(8)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        x = F.relu(self.stem(x))
        out = self.head(F.relu(self.next(x)))
        return (out, self.side(x)) if self.training else out


class ReadsValues(nn.Module):
    """Data decides the way: the meta device cannot follow."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.next, self.head = conv(3, 8), conv(8, 6), Head(6)

    def forward(self, x: Tensor) -> Tensor:
        if x.abs().sum().item() < 0:
            raise ValueError("cannot be")
        return self.head(F.relu(self.next(F.relu(self.stem(x)))))


@dataclass(frozen=True)
class Case:
    """A network, what it is called with, and how many groups it must offer."""

    make: Callable[[], nn.Module]
    groups: int
    inputs: tuple[tuple[int, ...], ...] = (IMAGE,)

    def example(self, samples: int = 2, dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(7)
        return tuple(torch.randn(samples, *shape, generator=generator, dtype=dtype) for shape in self.inputs)


CASES = {
    "concatenation": Case(Concatenation, 4),
    "chunks": Case(Chunks, 2),
    "split_by_shape": Case(SplitByShape, 2),
    "fixed_split": Case(FixedSplit, 1),
    "channel_shuffle": Case(ChannelShuffle, 3),
    "pixel_shuffles": Case(PixelShuffles, 3),
    "grouped": Case(Grouped, 2),
    "depthwise": Case(Depthwise, 2),
    "transposed": Case(Transposed, 3),
    "one_dimensional": Case(OneDimensional, 2, ((3, 16),)),
    "three_dimensional": Case(ThreeDimensional, 2, ((3, 4, 8, 8),)),
    "used_twice": Case(UsedTwice, 1),
    "shared_parameter": Case(SharedParameter, 1),
    "squeeze_excitation": Case(SqueezeExcitation, 2),
    "group_norm": Case(GroupNormed, 2),
    "layer_norm": Case(LayerNormed, 1),
    "instance_norm": Case(InstanceNormed, 2),
    "learned_slopes": Case(LearnedSlopes, 2),
    "bare_parameters": Case(BareParameters, 1),
    "several_outputs": Case(SeveralOutputs, 2),
    "several_inputs": Case(SeveralInputs, 2, (IMAGE, (5,))),
    "functional_calls": Case(FunctionalCalls, 2),
    "control_flow": Case(ControlFlow, 2),
    "frozen": Case(Frozen, 2),
    "frozen_norm": Case(FrozenNorm, 2),
    "zero_padded": Case(ZeroPadded, 2),
    "gated": Case(Gated, 2),
    "stacked": Case(Stacked, 2),
    "repeated": Case(Repeated, 2),
    "stochastic": Case(Stochastic, 1),
    "auxiliary_head": Case(AuxiliaryHead, 2),
    "reads_values": Case(ReadsValues, 2),
}


def unsettle(model: nn.Module, seed: int = 0) -> nn.Module:
    """Every parameter and buffer gets values that hide nothing: no zeros, no ones."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim < 2:
                parameter.copy_(torch.rand(parameter.shape, generator=generator) + 0.5)
                if name.endswith("bias"):
                    parameter.sub_(1.0)
            elif not bool(parameter.any()) or "scale" in name:
                parameter.copy_(torch.rand(parameter.shape, generator=generator) * 0.2 - 0.1)
        for name, buffer in model.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer.copy_(torch.rand(buffer.shape, generator=generator) + 0.5)
    return model


def kept_at_random(groups: dict, keep: float, seed: int = 0) -> dict[str, Tensor]:
    """Of each group a random part, at least one channel."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randperm(group.channels, generator=generator)[: max(1, int(group.channels * keep))].sort().values
        for name, group in groups.items()
    }


def state_of(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.state_dict().items()
