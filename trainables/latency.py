"""How long a network takes: the median of many runs, warmed up, the device waited for, threads fixed."""

import time
from typing import Any

import torch
from torch import Tensor, nn

WARM_UP = 0.2
"""Seconds of runs that are not counted; at least two."""


def latency_ms(model: nn.Module, example: Tensor | tuple[Any, ...], *, threads: int = 1, repeats: int = 50) -> float:
    """Median milliseconds of one forward pass of `example` as it is given (its first dimension is the batch).

    Runs in eval mode without gradients on the device the example is on, with `threads` CPU threads; modes and thread
    count are put back.
    """
    inputs = example if isinstance(example, tuple) else (example,)
    device = next((item.device for item in inputs if isinstance(item, Tensor)), torch.device("cpu"))
    modes = {module: module.training for module in model.modules()}
    found = torch.get_num_threads()
    torch.set_num_threads(threads)
    model.eval()
    try:
        with torch.inference_mode():
            start, runs = time.perf_counter(), 0
            while runs < 2 or time.perf_counter() - start < WARM_UP:
                _timed(model, inputs, device)
                runs += 1
            times = sorted(_timed(model, inputs, device) for _ in range(repeats))
    finally:
        torch.set_num_threads(found)
        for module, training in modes.items():
            module.training = training
    middle = len(times) // 2
    return 1000 * (times[middle] if len(times) % 2 else (times[middle - 1] + times[middle]) / 2)


def _timed(model: nn.Module, inputs: tuple[Any, ...], device: torch.device) -> float:
    """Seconds from the call until the device has finished."""
    _wait(device)
    start = time.perf_counter()
    model(*inputs)
    _wait(device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
