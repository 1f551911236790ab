"""A small residual network, chains of random widths, and probes that look at them."""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainables.pruning.graph import Traced, trace
from trainables.pruning.probe import Probe


class Residual(nn.Module):
    """Two residual blocks, one with an identity and one with a strided 1x1 shortcut: two tied streams."""

    def __init__(self, stream: int = 4, inner: int = 5, classes: int = 3, channels: int = 2) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, stream, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(stream)
        self.conv1 = nn.Conv2d(stream, inner, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, stream, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(stream)
        self.conv3 = nn.Conv2d(stream, inner + 1, 3, stride=2, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(inner + 1)
        self.conv4 = nn.Conv2d(inner + 1, stream + 2, 3, padding=1, bias=False)
        self.bn4 = nn.BatchNorm2d(stream + 2)
        self.shortcut = nn.Conv2d(stream, stream + 2, 1, stride=2, bias=False)
        self.bn5 = nn.BatchNorm2d(stream + 2)
        self.fc = nn.Linear(stream + 2, classes)

    def forward(self, images: Tensor) -> Tensor:
        x = F.relu(self.bn(self.conv(images)))
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        out += x
        x = F.relu(out, inplace=True)
        out = self.bn4(self.conv4(F.relu(self.bn3(self.conv3(x)))))
        x = F.relu(out + self.bn5(self.shortcut(x)))
        x = F.max_pool2d(x, 3)
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


def chain(widths: Sequence[int], *, classes: int = 3, channels: int = 2) -> nn.Sequential:
    """Convolutions of these widths, then a linear layer."""
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * channels, classes))


def settled(model: nn.Module, seed: int = 0) -> nn.Module:
    """The model with weights and running statistics that no symmetry makes easy."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None
                assert module.running_var is not None
                module.running_mean.normal_(0.0, 0.3, generator=generator)
                module.running_var.uniform_(0.5, 2.0, generator=generator)
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.normal_(0.1, 0.3, generator=generator)
            elif isinstance(module, (nn.Conv2d, nn.Linear)):
                module.weight.normal_(0.0, 0.4, generator=generator)
                if module.bias is not None:
                    module.bias.normal_(0.0, 0.2, generator=generator)
    return model


def probed(
    model: nn.Module,
    *,
    images: int = 12,
    shape: tuple[int, int, int] = (2, 6, 6),
    classes: int = 3,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> tuple[Traced, Probe]:
    """The model's trace and a probe over random labelled images."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(images, *shape, generator=generator, dtype=torch.float64).to(dtype)
    labels = torch.randint(0, classes, (images,), generator=generator)

    def batches(samples: int, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        taken = min(samples, images)
        for start in range(0, taken, batch_size):
            stop = min(start + batch_size, taken)
            yield inputs[start:stop], labels[start:stop]

    traced = trace(model, inputs[:1])
    probe = Probe(
        model=model,
        groups=traced.graph.groups,
        loss=F.cross_entropy,
        num_classes=classes,
        batches=batches,
        generator=torch.Generator().manual_seed(seed + 1),
        forward_macs=traced.costs.macs(),
        gates={name: torch.linspace(-1, 1, group.channels).double() for name, group in traced.graph.groups.items()},
    )
    return traced, probe
