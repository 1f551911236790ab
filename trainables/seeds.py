"""Where every random number of a trial comes from: seeds derived from (seed, what), never from what ran before."""

import hashlib
import random

import numpy
import torch


def seeded(seed: int, *what: object) -> int:
    """A 64-bit seed for `what` ("epoch", 3): equal on every machine, unrelated between different `what`."""
    text = "\x1f".join([str(seed), *map(str, what)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big", signed=True)


def generator(seed: int, *what: object) -> torch.Generator:
    """A generator on the CPU for `what`, so that CPU and GPU decide alike."""
    return torch.Generator().manual_seed(seeded(seed, *what))


def reseed(seed: int, *what: object) -> torch.Generator:
    """Put every global generator (dropout, stochastic depth, initial weights) at `what`; return one for the order.

    Called at each epoch and each event: what ran before, or where a trial was resumed, then leaves no trace.
    """
    own = seeded(seed, *what)
    torch.manual_seed(own)
    random.seed(own)
    numpy.random.seed(own % 2**32)
    return generator(seed, *what, "order")
