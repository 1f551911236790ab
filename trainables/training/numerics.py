"""How numbers are computed: threads, deterministic algorithms, precision, memory format."""

import os
import re
from contextlib import AbstractContextManager, nullcontext, suppress

import torch
from torch import Tensor, nn

from spaces.errors import UserError
from spaces.plan import Train


def set_numerics(train: Train) -> None:
    """Set this process to the recipe's threads and algorithms. Called before the first tensor of a trial.

    float32 means float32: the shorter TF32 products are used only with `algorithms: fast`.
    """
    deterministic = train.algorithms == "deterministic"
    # Read when CUDA starts: without it cuBLAS may add in another order from run to run.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(train.threads)
    with suppress(RuntimeError):  # can be set once per process, before any parallel work; later it does not matter
        torch.set_num_interop_threads(1)
    torch.use_deterministic_algorithms(deterministic)
    # Filling fresh memory finds reads of it, which is a debugging aid; it costs time and changes no result.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = deterministic
    torch.backends.cudnn.allow_tf32 = not deterministic
    torch.backends.cuda.matmul.allow_tf32 = not deterministic


def require_device(name: str) -> None:
    """Raises UserError where this machine has no such device."""
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise UserError(f"unknown device '{name}'; known: cpu, cuda, cuda:N")
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name != "cpu" and int(name.partition(":")[2] or 0) >= found:
        raise UserError(f"no device '{name}' here: this machine has {found} GPUs that torch can use")


def placed(model: nn.Module, train: Train, device: torch.device | str) -> nn.Module:
    """The model on `device` in the recipe's precision and memory format."""
    layout = torch.channels_last if train.memory_format == "channels_last" else torch.contiguous_format
    dtype = torch.float64 if train.precision == "float64" else torch.float32
    moved: nn.Module = model.to(device, dtype, memory_format=layout)  # type: ignore[call-overload]
    return moved


def prepared(images: Tensor, train: Train) -> Tensor:
    """Images in the recipe's precision and memory format."""
    if train.precision == "float64":
        images = images.double()
    if train.memory_format == "channels_last":
        images = images.contiguous(memory_format=torch.channels_last)
    return images


def precision(train: Train, device: torch.device) -> AbstractContextManager[object]:
    """The context a forward pass runs in: bfloat16 by autocast, or nothing."""
    if train.precision == "bfloat16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()
