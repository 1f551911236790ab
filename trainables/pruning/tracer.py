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
from trainables.pruning.width import Width

Handler = Callable[["Tracer", str, tuple[Any, ...], dict[str, Any], Any], None]
"""(tracer, operation, args, kwargs, output): labels the output."""


class Tracer(TorchFunctionMode):
    """Intercepts every torch function of one forward pass."""

    def __init__(self, ledger: Ledger, model: nn.Module, handlers: dict[str, Handler]) -> None:
        super().__init__()
        self.ledger = ledger
        self.handlers = handlers
        self.modules = dict(model.named_modules())
        self.weighted: list[tuple[str, int]] = []  # (weight, multiply-adds per weight element), one sample
        self.weightless: list[tuple[str, int]] = []  # (module, multiply-adds) that depend on no width
        self.visited: set[str] = set()
        self.stack: list[str] = []  # modules being run, innermost last

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = operation(func)
        if name in SHAPE_ONLY:
            out = func(*args, **kwargs)
            return following(args[0], name, args, kwargs, out) if name in SIZES else out
        first = args[0] if args else None
        if isinstance(first, Tensor) and (name in NOT_RUN or (first.is_meta and name in ACTIVATIONS)):
            out = first.clone()
        else:
            out = func(*args, **kwargs)
        handler = self.handlers.get(name)
        if handler is None or not any(True for _ in tensors_of(out)):
            self.give_up(name, args, kwargs, out)
        else:
            handler(self, name, args, kwargs, out)
        return out

    def give_up(self, name: str, args: Any, kwargs: Any, out: Any) -> None:
        """Freezes everything an operation reads; its output has no channels."""
        for tensor in tensors_of((args, kwargs)):
            self.freeze_all(tensor, f"operation '{name}'{self.where()} is not understood")
        for tensor in tensors_of(out):
            label(tensor, nothing(tensor))

    def freeze_all(self, tensor: Tensor, reason: str) -> None:
        """Freezes an activation's channels, or every dimension of a parameter."""
        name = named(tensor)
        if name is None:
            self.ledger.freeze(self.read(tensor), reason)
            return
        self.visited.add(name)
        for dim, size in enumerate(tensor.shape):
            self.ledger.freeze(self.ledger.nodes(name, dim, size, "norm"), reason)

    def where(self) -> str:
        """` in 'layer1.0'`: the module that is running."""
        return f" in '{self.stack[-1]}'" if self.stack and self.stack[-1] else ""

    def read(self, tensor: Tensor) -> Ids:
        """The labels of an activation, or of a parameter or buffer that has one long dimension.

        A larger parameter that is read as a whole keeps its shape. So does everything traced so far when a tensor turns
        up that no operation in sight has made: it came through code that cannot be followed.
        """
        name = named(tensor)
        if name is None:
            ids: Ids | None = getattr(tensor, "_channels", None)
            if ids is None:
                if tensor.is_meta:
                    reason = f"code that cannot be followed ran{self.where()}"
                    self.ledger.freeze(torch.arange(1, self.ledger.size), reason)
                return nothing(tensor)
            return ids
        self.visited.add(name)
        long = [dim for dim, size in enumerate(tensor.shape) if size > 1]
        if len(long) == 0 and tensor.ndim:
            return self.ledger.nodes(name, 0, 1, "norm").view([1] * tensor.ndim)
        if len(long) == 1:
            nodes = self.ledger.nodes(name, long[0], tensor.shape[long[0]], "norm")
            return nodes.view([-1 if dim == long[0] else 1 for dim in range(tensor.ndim)])
        if long:
            self.freeze_all(tensor, f"'{name}' is used in a computation{self.where()}")
        return nothing(tensor)


def operation(func: Any) -> str:
    """`add` for torch.add, Tensor.add_, Tensor.__add__ and Tensor.__iadd__ alike."""
    name = getattr(func, "__name__", type(func).__name__)
    if name == "__get__":
        return "get_" + str(func.__self__.__name__)
    if name in READERS:
        return f"read{name.strip('_')}"
    return str(name).strip("_")


def following(tensor: Tensor, name: str, args: Any, kwargs: Any, out: Any) -> Any:
    """The answer to a question about sizes, with those marked that follow a number of channels."""
    ids = getattr(tensor, "_channels", None)
    if ids is None:
        return out
    if all(length == 1 for length in ids.shape):
        if not bool(ids.any()):
            return out
        sizes = [Width(size) if size == 1 and dim > 0 else size for dim, size in enumerate(tensor.shape)]  # one channel
    else:
        sizes = [Width(size) if length > 1 else size for size, length in zip(tensor.shape, ids.shape, strict=True)]
    if isinstance(out, torch.Size):
        return torch.Size(sizes)
    if name in ("numel", "nelement"):
        return Width(out) if any(length > 1 for length in ids.shape) else out
    return sizes[args[1] if len(args) > 1 else kwargs["dim"]]


def label(tensor: Tensor, ids: Ids) -> None:
    """Gives an activation its labels."""
    tensor._channels = ids  # type: ignore[attr-defined]


def nothing(tensor: Tensor) -> Ids:
    """Labels that say: no channels."""
    return torch.zeros([1] * tensor.ndim, dtype=torch.int64)


def named(tensor: Tensor) -> str | None:
    """The name of a parameter or buffer of the network; None for everything else."""
    return getattr(tensor, "_parameter_name", None)


def argument(args: tuple[Any, ...], kwargs: dict[str, Any], position: int, name: str, default: Any = None) -> Any:
    """One argument of a torch function, however it was passed."""
    return args[position] if len(args) > position else kwargs.get(name, default)


def words(text: str) -> list[str]:
    """Names written with spaces between them: long tables stay short."""
    return text.split()


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


SIZES = frozenset(words("get_shape size numel nelement"))

SHAPE_ONLY = SIZES | frozenset(
    words(
        "get_device get_dtype get_ndim get_requires_grad get_is_cuda get_is_meta get_layout get_grad get_is_leaf "
        "get_is_cpu get_is_nested get_is_sparse get_is_quantized get_names get_is_mps get_grad_fn get_itemsize "
        "get_nbytes dim ndimension stride is_contiguous is_floating_point is_complex element_size type is_grad_enabled "
        "is_tensor len is_inference storage_offset result_type can_cast set_requires_grad set_grad_enabled"
    )
)
"""Questions about shapes: they do not read values."""

READERS = frozenset(("__bool__", "__int__", "__float__", "__index__", "__complex__"))
"""Python's conversions, whose names would otherwise be those of torch's casts."""

NOT_RUN = frozenset(
    words("batch_norm instance_norm dropout dropout1d dropout2d dropout3d alpha_dropout feature_alpha_dropout")
)
"""Shape-preserving layers that are not run: some refuse one sample, some draw random numbers."""

ACTIVATIONS = frozenset(
    words(
        "relu relu6 hardtanh hardswish hardsigmoid sigmoid tanh silu gelu mish elu selu celu leaky_relu softplus "
        "softsign logsigmoid"
    )
)
"""Activations are not run on the meta device, where some take a hundred times as long as a copy."""
