"""Times of several sides, taken in turn (ABAB...), so that a machine that slows down slows all of them."""

import gc
import time
from collections.abc import Callable, Mapping

import torch

Run = Callable[[], object]
Prepare = Callable[[], Run]
"""Makes what is timed; its own time does not count."""


def interleaved(
    sides: Mapping[str, Prepare], *, rounds: int, device: torch.device, warm_up: int = 1
) -> dict[str, list[float]]:
    """Seconds per side and round; the first `warm_up` rounds are not counted."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    gc.collect()
    gc.freeze()  # what is there already need not be looked through before every timing
    try:
        for number in range(warm_up + rounds):
            for name, prepare in sides.items():
                seconds = timed(prepare(), device)
                if number >= warm_up:
                    times[name].append(seconds)
    finally:
        gc.unfreeze()
    return times


def timed(run: Run, device: torch.device) -> float:
    """Seconds until the device has finished; the garbage of what ran before is not charged."""
    gc.collect()
    gc.disable()
    try:
        _wait(device)
        start = time.perf_counter()
        run()
        _wait(device)
        return time.perf_counter() - start
    finally:
        gc.enable()


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
