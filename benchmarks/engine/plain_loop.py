"""The loop that ours is compared with: what PyTorch's tutorials and most CIFAR repositories write."""

import numpy
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks.engine.setting import DEVIATION, MEAN
from spaces.plan import Train
from trainables.data.source import Images
from trainables.training import precision


class Pictures(Dataset[tuple[Tensor, int]]):
    """torchvision's CIFAR-10 in memory: a PIL image per index, augmented on the CPU."""

    def __init__(self, images: Images) -> None:
        self.pixels = images.pixels.permute(0, 2, 3, 1).contiguous().numpy()
        self.labels: list[int] = images.labels.tolist()
        self.transform = transforms.Compose(
            [
                _as_picture,
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, DEVIATION),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.pixels[index]), self.labels[index]


def _as_picture(pixels: numpy.ndarray) -> object:
    return transforms.functional.to_pil_image(pixels)


def loader(images: Images, train: Train, *, workers: int, device: torch.device) -> DataLoader:
    return DataLoader(
        Pictures(images),
        train.batch_size,
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=device.type == "cuda",
    )


def plain_epoch(
    model: nn.Module, batches: DataLoader, optimizer: torch.optim.Optimizer, train: Train, device: torch.device
) -> float:
    """One epoch; returns the mean loss."""
    model.train()
    total = 0.0
    for images, labels in batches:
        images, labels = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
        if train.memory_format == "channels_last":
            images = images.to(memory_format=torch.channels_last)
        with precision(train, device):
            loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item()
    return total / len(batches)
