"""The most activation memory that a forward pass holds at one time, counted storage by storage."""

import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode


class _Watch(TorchDispatchMode):
    """Adds up the storages that operations make, and takes them off when they are freed."""

    def __init__(self, known: set[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.known = known
        self.held: int = 0
        self.peak: int = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (list, tuple)) else (out,):
            if isinstance(tensor, Tensor):
                self._count(tensor)
        return out

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self.known:
            return
        self.known.add(key)
        self.held += size
        self.peak = max(self.peak, self.held)
        weakref.finalize(storage, self._freed, key, size)

    def _freed(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.held -= size


def activation_peak_bytes(model: nn.Module, example: Tensor | tuple[Any, ...]) -> int:
    """Largest number of bytes of activations alive together in one forward pass without gradients, in eval mode.

    Weights, buffers and the input are not counted. Runs on the meta device: nothing is computed, nothing changed.
    """
    inputs = example if isinstance(example, tuple) else (example,)
    tensors = {
        name: torch.empty_like(t, device="meta") for name, t in (*model.named_parameters(), *model.named_buffers())
    }
    samples = tuple(torch.empty_like(item, device="meta") if isinstance(item, Tensor) else item for item in inputs)
    known = {t.untyped_storage()._cdata for t in (*tensors.values(), *samples) if isinstance(t, Tensor)}
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad(), _Watch(known) as watch:
            torch.func.functional_call(model, tensors, samples)
    finally:
        for module, training in modes.items():
            module.training = training
    peak: int = watch.peak
    return peak
