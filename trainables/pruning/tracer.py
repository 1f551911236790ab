"""Runs a network once and follows its channels: every activation carries labels, one node id per channel.

Labels are compact: an int64 tensor with as many dimensions as the activation, each as long as the activation's or 1
where the label does not change. The run happens on the meta device where it can, so nothing is computed.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from trainables.pruning.ledger import Ids, Ledger

Handler = Callable[["Tracer", str, tuple[Any, ...], dict[str, Any], Any], None]
"""(tracer, operation, args, kwargs, output): labels the output."""


class Tracer(TorchFunctionMode):
    """Intercepts every torch function of one forward pass."""

    def __init__(self, ledger: Ledger, model: nn.Module, handlers: dict[str, Handler]) -> None:
        super().__init__()
        self.ledger = ledger
        self.handlers = handlers
        self.modules = dict(model.named_modules())
        self.counted: list[tuple[str, int]] = []  # (weight, multiply-adds per weight element), one sample
        self.constant: list[tuple[str, int]] = []  # (module, multiply-adds) that do not depend on widths
        self.visited: set[str] = set()
        self.stack: list[str] = []  # modules being run, innermost last

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = operation(func)
        if name in SHAPE_ONLY:
            return func(*args, **kwargs)
        if name in IDENTITY and isinstance(args[0], Tensor):
            out = args[0] if kwargs.get("inplace") else args[0].clone()
        else:
            out = func(*args, **kwargs)
        handler = self.handlers.get(name)
        if handler is None:
            self.give_up(name, args, kwargs)
        else:
            handler(self, name, args, kwargs, out)
        return out

    def give_up(self, name: str, args: Any, kwargs: Any) -> None:
        """Freezes everything an operation reads; its output has no channels."""
        for tensor in tensors_of((args, kwargs)):
            self.freeze_all(tensor, f"operation '{name}'{self.where()} is not understood")

    def freeze_all(self, tensor: Tensor, reason: str) -> None:
        """Freezes an activation's channels, or every dimension of a parameter."""
        if (name := named(tensor)) is not None:
            self.visited.add(name)
            for dim, size in enumerate(tensor.shape):
                self.ledger.freeze(self.ledger.nodes(name, dim, size, "norm"), reason)
        else:
            self.ledger.freeze(labels(tensor), reason)

    def where(self) -> str:
        """` in 'layer1.0'`: the module that is running."""
        return f" in '{self.stack[-1]}'" if self.stack and self.stack[-1] else ""

    def read(self, tensor: Tensor) -> Ids:
        """The labels of an activation, or of a parameter or buffer that has one long dimension."""
        name = named(tensor)
        if name is None:
            return labels(tensor)
        self.visited.add(name)
        long = [dim for dim, size in enumerate(tensor.shape) if size > 1]
        if len(long) == 1:
            nodes = self.ledger.nodes(name, long[0], tensor.shape[long[0]], "norm")
            return nodes.view([-1 if dim == long[0] else 1 for dim in range(tensor.ndim)])
        return nothing(tensor)


def operation(func: Any) -> str:
    """`add` for torch.add, Tensor.add_, Tensor.__add__ and Tensor.__iadd__ alike."""
    name = getattr(func, "__name__", type(func).__name__)
    if name == "__get__":
        return "get_" + str(func.__self__.__name__)
    return str(name).strip("_")


def label(tensor: Tensor, ids: Ids) -> None:
    """Gives an activation its labels."""
    tensor._channels = ids  # type: ignore[attr-defined]


def labels(tensor: Tensor) -> Ids:
    """An activation's labels; of one that has none, zeros."""
    ids: Ids | None = getattr(tensor, "_channels", None)
    return nothing(tensor) if ids is None else ids


def nothing(tensor: Tensor) -> Ids:
    """Labels that say: no channels."""
    return torch.zeros([1] * tensor.ndim, dtype=torch.int64)


def named(tensor: Tensor) -> str | None:
    """The name of a parameter or buffer of the network; None for everything else."""
    return getattr(tensor, "_parameter_name", None)


def tensors_of(value: Any) -> Iterator[Tensor]:
    """Every tensor in nested containers and result objects."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors_of(item)
    elif isinstance(value, (list, tuple, set)):
        for item in value:
            yield from tensors_of(item)
    elif hasattr(value, "__dataclass_fields__"):
        for field in value.__dataclass_fields__:
            yield from tensors_of(getattr(value, field))


SHAPE_ONLY = frozenset(
    [
        "get_shape",
        "get_device",
        "get_dtype",
        "get_ndim",
        "get_requires_grad",
        "get_is_cuda",
        "get_is_meta",
        "get_layout",
        "get_grad",
        "get_is_leaf",
        "get_is_cpu",
        "get_is_nested",
        "get_is_sparse",
        "get_is_quantized",
        "get_names",
        "get_is_mps",
        "get_grad_fn",
        "get_itemsize",
        "get_nbytes",
        "size",
        "dim",
        "ndimension",
        "stride",
        "numel",
        "nelement",
        "is_contiguous",
        "is_floating_point",
        "is_complex",
        "element_size",
        "type",
        "get_device",
        "len",
        "is_inference",
        "storage_offset",
        "result_type",
        "can_cast",
        "set_requires_grad",
    ]
)
"""Questions about shapes: they do not read values."""

IDENTITY = frozenset(
    [
        "batch_norm",
        "instance_norm",
        "dropout",
        "dropout1d",
        "dropout2d",
        "dropout3d",
        "alpha_dropout",
        "feature_alpha_dropout",
    ]
)
"""Shape-preserving layers that are not run: some refuse one sample, some draw random numbers."""
