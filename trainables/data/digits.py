"""scikit-learn's handwritten digits: 1,797 real images of 8x8 pixels that come inside a package."""

from pathlib import Path

import torch

from trainables.data.source import Images, Source
from trainables.data.strata import stratified

TEST_IMAGES = 697


def digits(root: Path | None, /) -> Source:
    """Handwritten digits, 8x8 pixels, inside scikit-learn: 1,100 images for training and 697 for test."""
    from sklearn.datasets import load_digits  # imported here: it takes a second that other data need not pay

    bunch = load_digits()
    pixels = torch.from_numpy(bunch.images).to(torch.uint8)[:, None] * 15  # from 0..16 to 0..240
    images = Images(pixels, torch.from_numpy(bunch.target).to(torch.int64))
    # The set has no official test part; this split is part of what the name `digits` means here.
    test, train = stratified(images.labels, TEST_IMAGES, seed=0, what="test split of digits")
    return Source(train=images.take(train), test=lambda: images.take(test), num_classes=10)
