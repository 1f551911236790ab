"""Networks for small images: the CIFAR ResNets (He et al. 2015, 2016) and VGG with BatchNorm.

A copy of this file lies next to an exported checkpoint, so it imports torch and pydantic and nothing of ours.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

Shortcut = Annotated[
    Literal["A", "B"], Field(description="A: zeros for the channels that are new, no parameters; B: 1x1 convolution")
]
Width = Annotated[int, Field(ge=1, description="channels of the first stage")]
Widths = Annotated[
    tuple[Annotated[int, Field(ge=1)], ...],
    Field(description="of every channel group, in network order, instead of those that follow from width; empty: none"),
]


@dataclass(frozen=True)
class InputShape:
    """What a network is built for: the size of an image and the number of classes."""

    channels: int
    height: int
    width: int
    classes: int


class _Sizes:
    """The width of each channel group, asked for in network order: given, or what the network has of itself."""

    def __init__(self, given: tuple[int, ...]) -> None:
        self._given, self._asked = given, 0

    def next(self, own: int) -> int:
        """The width of the next group; `own` where none are given."""
        self._asked += 1
        return self._given[self._asked - 1] if self._asked <= len(self._given) else own

    def close(self) -> None:
        """Raises ValueError where more or fewer widths were given than the network has groups."""
        if self._given and len(self._given) != self._asked:
            raise ValueError(f"'widths' has {len(self._given)} numbers; this network has {self._asked} channel groups")


class ZeroPad(nn.Module):
    """Option A: every `stride`-th pixel, and channels of zeros `before` and `after` those that there are.

    The zeros are buffers rather than counts, so that removing channels cuts them as it cuts any other tensor.
    """

    before: Tensor
    after: Tensor

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.register_buffer("before", torch.zeros(before, 1, 1), persistent=False)
        self.register_buffer("after", torch.zeros(after, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, channels, height, width] -> [batch, before + channels + after, height / stride, width / stride]."""
        if self.stride > 1:
            x = x[:, :, :: self.stride, :: self.stride]
        batch, _, height, width = x.shape
        return torch.cat(
            [self.before.expand(batch, -1, height, width), x, self.after.expand(batch, -1, height, width)], 1
        )

    def extra_repr(self) -> str:
        """For `print(model)`."""
        return f"before={len(self.before)}, after={len(self.after)}, stride={self.stride}"


def _conv(ins: int, outs: int, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(ins, outs, size, stride=stride, padding=size // 2, bias=False)


def _zero_pad(ins: int, outs: int, stride: int) -> ZeroPad:
    before = (outs - ins) // 2
    return ZeroPad(before, outs - ins - before, stride)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut; ReLU after the sum (He et al. 2015)."""

    expansion, inner = 1, 1

    def __init__(self, ins: int, inner: tuple[int, ...], outs: int, stride: int, shortcut: str) -> None:
        super().__init__()
        (width,) = inner
        self.conv1, self.bn1 = _conv(ins, width, 3, stride), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = _conv(width, outs, 3), nn.BatchNorm2d(outs)
        self.shortcut: nn.Module = nn.Identity()
        if shortcut == "A":
            self.shortcut = _zero_pad(ins, outs, stride)
        elif shortcut == "B":
            self.shortcut = nn.Sequential(_conv(ins, outs, 1, stride), nn.BatchNorm2d(outs))

    def forward(self, x: Tensor) -> Tensor:
        """[batch, ins, height, width] -> [batch, outs, height / stride, width / stride]."""
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class PreactivationBottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions, BatchNorm and ReLU before each; nothing after the sum (He et al. 2016)."""

    expansion, inner = 4, 2

    def __init__(self, ins: int, inner: tuple[int, ...], outs: int, stride: int, shortcut: str) -> None:
        super().__init__()
        first, second = inner
        self.bn1, self.conv1 = nn.BatchNorm2d(ins), _conv(ins, first, 1)
        self.bn2, self.conv2 = nn.BatchNorm2d(first), _conv(first, second, 3, stride)
        self.bn3, self.conv3 = nn.BatchNorm2d(second), _conv(second, outs, 1)
        self.shortcut: nn.Module = nn.Identity()
        if shortcut == "A":
            self.shortcut = _zero_pad(ins, outs, stride)
        elif shortcut == "B":
            self.shortcut = _conv(ins, outs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, ins, height, width] -> [batch, outs, height / stride, width / stride]."""
        y = self.conv1(F.relu(self.bn1(x)))
        y = self.conv2(F.relu(self.bn2(y)))
        total: Tensor = self.conv3(F.relu(self.bn3(y))) + self.shortcut(x)
        return total


def _stages(
    block: type[BasicBlock] | type[PreactivationBottleneck],
    blocks: int,
    width: int,
    shortcut: str,
    sizes: _Sizes,
    stem: int,
) -> nn.Sequential:
    """Three stages of `blocks` blocks, each with half the pixels and twice the channels of the one before.

    A stage has one stream, and each block inner layers. Groups in network order: of each block its inner layers, and
    after those of a stage's first block the stage's stream, unless that is the stem's.
    """
    layers: list[nn.Module] = []
    own, ins, outs = width, stem, stem
    for stage in range(3):
        planes = width * 2**stage
        stage_blocks = []
        for number in range(blocks):
            inner = tuple(sizes.next(planes) for _ in range(block.inner))
            begins = number == 0 and own != planes * block.expansion
            if begins:
                own, outs = planes * block.expansion, sizes.next(planes * block.expansion)
            stride = 2 if stage > 0 and number == 0 else 1
            stage_blocks.append(block(ins, inner, outs, stride, shortcut if begins else "none"))
            ins = outs
        layers.append(nn.Sequential(*stage_blocks))
    return nn.Sequential(*layers)


def _initialise(model: nn.Module) -> None:
    """He et al. (2015b): normal, by the number of inputs, for convolutions and the classifier."""
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _outs(stages: nn.Sequential) -> int:
    """Channels of the stream that leaves the last stage."""
    return [module.out_channels for module in stages.modules() if isinstance(module, nn.Conv2d)][-1]


class CifarResNet(nn.Module):
    """Depth 6n + 2 from basic blocks: a 3x3 stem without pooling, three stages, the mean over pixels, a classifier."""

    def __init__(self, shape: InputShape, *, blocks: int, width: int, shortcut: str, widths: tuple[int, ...]) -> None:
        super().__init__()
        sizes = _Sizes(widths)
        stem = sizes.next(width)
        self.conv1, self.bn1 = _conv(shape.channels, stem, 3), nn.BatchNorm2d(stem)
        self.stages = _stages(BasicBlock, blocks, width, shortcut, sizes, stem)
        sizes.close()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(_outs(self.stages), shape.classes)
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Images [batch, channels, height, width] -> logits [batch, classes]."""
        x = self.stages(F.relu(self.bn1(self.conv1(x))))
        logits: Tensor = self.fc(self.pool(x).flatten(1))
        return logits


class PreactivationResNet(nn.Module):
    """Depth 9n + 2 from pre-activation bottlenecks (He et al. 2016)."""

    def __init__(self, shape: InputShape, *, blocks: int, width: int, shortcut: str, widths: tuple[int, ...]) -> None:
        super().__init__()
        sizes = _Sizes(widths)
        stem = sizes.next(width)
        self.conv1 = _conv(shape.channels, stem, 3)
        self.stages = _stages(PreactivationBottleneck, blocks, width, shortcut, sizes, stem)
        sizes.close()
        self.bn = nn.BatchNorm2d(_outs(self.stages))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(_outs(self.stages), shape.classes)
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Images [batch, channels, height, width] -> logits [batch, classes]."""
        x = F.relu(self.bn(self.stages(self.conv1(x))))
        logits: Tensor = self.fc(self.pool(x).flatten(1))
        return logits


class CifarVgg(nn.Module):
    """VGG's convolutions with BatchNorm and one classifier (Simonyan and Zisserman 2014, as used on CIFAR).

    A pooling that would leave no pixel is left out, so that 28x28 and 8x8 images work as well.
    """

    def __init__(
        self, shape: InputShape, *, repeats: tuple[int, ...], width: int, hidden: int, widths: tuple[int, ...]
    ) -> None:
        super().__init__()
        sizes = _Sizes(widths)
        layers: list[nn.Module] = []
        ins, edge = shape.channels, min(shape.height, shape.width)
        for stage, repeat in enumerate(repeats):
            for _ in range(repeat):
                outs = sizes.next(width * min(2**stage, 8))
                layers += [_conv(ins, outs, 3), nn.BatchNorm2d(outs), nn.ReLU()]
                ins = outs
            if edge >= 2:
                layers.append(nn.MaxPool2d(2))
                edge //= 2
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        units = sizes.next(hidden) if hidden else ins
        sizes.close()
        head: list[nn.Module] = [nn.Linear(ins, units), nn.ReLU()] if hidden else []
        self.classifier = nn.Sequential(*head, nn.Linear(units, shape.classes))
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Images [batch, channels, height, width] -> logits [batch, classes]."""
        logits: Tensor = self.classifier(self.pool(self.features(x)).flatten(1))
        return logits


def resnet8(shape: InputShape, /, *, width: Width = 16, shortcut: Shortcut = "A", widths: Widths = ()) -> nn.Module:
    """CIFAR ResNet-8: one block per stage."""
    return CifarResNet(shape, blocks=1, width=width, shortcut=shortcut, widths=widths)


def resnet20(shape: InputShape, /, *, width: Width = 16, shortcut: Shortcut = "A", widths: Widths = ()) -> nn.Module:
    """CIFAR ResNet-20: three blocks per stage (He et al. 2015)."""
    return CifarResNet(shape, blocks=3, width=width, shortcut=shortcut, widths=widths)


def resnet32(shape: InputShape, /, *, width: Width = 16, shortcut: Shortcut = "A", widths: Widths = ()) -> nn.Module:
    """CIFAR ResNet-32: five blocks per stage (He et al. 2015)."""
    return CifarResNet(shape, blocks=5, width=width, shortcut=shortcut, widths=widths)


def resnet56(shape: InputShape, /, *, width: Width = 16, shortcut: Shortcut = "A", widths: Widths = ()) -> nn.Module:
    """CIFAR ResNet-56: nine blocks per stage (He et al. 2015)."""
    return CifarResNet(shape, blocks=9, width=width, shortcut=shortcut, widths=widths)


def resnet110(shape: InputShape, /, *, width: Width = 16, shortcut: Shortcut = "A", widths: Widths = ()) -> nn.Module:
    """CIFAR ResNet-110: eighteen blocks per stage (He et al. 2015)."""
    return CifarResNet(shape, blocks=18, width=width, shortcut=shortcut, widths=widths)


def resnet164(shape: InputShape, /, *, width: Width = 16, shortcut: Shortcut = "B", widths: Widths = ()) -> nn.Module:
    """CIFAR ResNet-164: eighteen pre-activation bottlenecks per stage (He et al. 2016)."""
    return PreactivationResNet(shape, blocks=18, width=width, shortcut=shortcut, widths=widths)


Hidden = Annotated[int, Field(ge=0, description="units of a fully connected layer before the classifier; 0: none")]


def vgg16_bn_cifar(shape: InputShape, /, *, width: Width = 64, hidden: Hidden = 0, widths: Widths = ()) -> nn.Module:
    """VGG-16 with BatchNorm for small images."""
    return CifarVgg(shape, repeats=(2, 2, 3, 3, 3), width=width, hidden=hidden, widths=widths)


def vgg19_bn_cifar(shape: InputShape, /, *, width: Width = 64, hidden: Hidden = 0, widths: Widths = ()) -> nn.Module:
    """VGG-19 with BatchNorm for small images."""
    return CifarVgg(shape, repeats=(2, 2, 4, 4, 4), width=width, hidden=hidden, widths=widths)
