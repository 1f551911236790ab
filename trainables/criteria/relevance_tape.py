"""A forward pass whose backward pass carries relevance instead of gradients, on any graph of known layers.

Every call that touches the signal is replaced by one that computes the same and knows its rule; autograd does the
walking back. A call without a rule is refused by the name of its layer: relevance is never guessed.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from spaces.errors import UserError
from trainables.criteria import relevance_rules as rules
from trainables.criteria.relevance_rules import Mode

WEIGHTED = {
    *("linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
}
POINTWISE = {
    *("relu", "relu6", "hardtanh", "hardswish", "hardsigmoid", "sigmoid", "tanh", "silu", "gelu", "elu", "selu"),
    *("celu", "leaky_relu", "rrelu", "prelu", "mish", "softplus", "clamp", "batch_norm", "dropout", "dropout1d"),
    *("dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout", "to", "float", "double", "contiguous"),
    *("clone",),
}
MOVING = {
    *("flatten", "reshape", "view", "permute", "transpose", "movedim", "squeeze", "unsqueeze", "chunk", "split"),
    *("tensor_split", "narrow", "select", "unbind", "__getitem__", "cat", "concat", "stack", "pad"),
    *("pixel_shuffle", "pixel_unshuffle", "channel_shuffle"),
}
AVERAGES = {
    *("avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d"),
    "mean",
}
MAXIMA = {
    *("max_pool1d", "max_pool2d", "max_pool3d", "adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d"),
}
SUMS = {"add", "__add__", "__radd__", "__iadd__"}
PRODUCTS = {"mul", "multiply", "__mul__", "__rmul__", "__imul__"}
SCALINGS = {"sub", "__sub__", "__isub__", "div", "__truediv__", "__itruediv__"}  # by what is no signal
IN_PLACE = {"__iadd__", "__imul__", "__isub__", "__itruediv__"}

Passing = Literal["same", "sum", "other"]


@dataclass(frozen=True, eq=False)
class _Use:
    """One call that read a signal, and what came of it."""

    passing: Passing
    output: Tensor


class _Replaced(torch.autograd.Function):
    """Computes as told and sends relevance back as told. `root` makes outputs part of the graph in place of the
    images, so that nothing need be sent into those."""

    @staticmethod
    def forward(ctx: Any, run: Callable[[], Tensor], spread: Any, root: Tensor, *signals: Tensor) -> Tensor:
        """Run the call; autograd records nothing of it."""
        output = run()
        output = output.view_as(output) if any(output is signal for signal in signals) else output
        ctx.spread, ctx.output = spread, output.detach()
        return output

    @staticmethod
    def backward(ctx: Any, relevance: Tensor) -> tuple[Tensor | None, ...]:
        """Send relevance to the signals that want it."""
        wanted = ctx.needs_input_grad[3:]
        sent = (ctx.spread(relevance, which, ctx.output) if want else None for which, want in enumerate(wanted))
        return (None, None, None, *sent)


class RelevanceTape(TorchFunctionMode):
    """Records one forward pass. `macs` counts what was executed, the way back included."""

    def __init__(self, model: nn.Module, mode: Mode) -> None:
        super().__init__()
        self.rules_mode: Mode = mode
        self.macs = 0
        self.made: dict[str, list[Tensor]] = {}  # outputs of each weight, by its name
        self._names = {id(p): name for name, p in model.named_parameters()}
        self._signals: dict[int, Tensor] = {}
        self._uses: dict[int, list[_Use]] = {}
        self._instead: dict[int, Tensor] = {}  # what a tensor that was changed in place stands for now
        self._kept: list[Tensor] = []
        self._layers = [""]
        self._model = model

    @contextmanager
    def recording(self, images: Tensor) -> Iterator[None]:
        """Forward passes made inside with `images` are recorded."""
        self._root = torch.zeros((), device=images.device, requires_grad=True)
        self._signals[id(images)] = images
        names = {module: name for name, module in self._model.named_modules()}
        handles = [m.register_forward_pre_hook(lambda m, _: self._layers.append(names[m])) for m in names]
        handles += [m.register_forward_hook(lambda *_: self._leave()) for m in names]
        try:
            with self, torch.enable_grad():
                yield
        finally:
            for handle in handles:
                handle.remove()

    def read_at(self, made: Tensor) -> Tensor:
        """Where the relevance of a layer's output is read: at the sum that it goes into and nowhere else, through
        layers that pass relevance on as it is; otherwise at the output itself (FRS: post-addition, else bn1)."""
        at = made
        while True:
            uses = self._uses.get(id(at), [])
            if len(uses) != 1 or uses[0].passing == "other":
                return made
            if uses[0].passing == "sum":
                return uses[0].output
            at = uses[0].output

    def forget(self) -> None:
        """Let go of all that was recorded: the way back refers to the tape and the tape to it, and that circle would
        hold the activations of batch after batch until Python happens to look for circles."""
        for held in (self.made, self._signals, self._uses, self._instead, self._kept):
            held.clear()

    def _leave(self) -> None:
        self._layers.pop()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = {name: self._current(item) for name, item in (kwargs or {}).items()}
        changed = args[0] if args else None
        args = tuple(self._current(item) for item in args)
        signals = self._signals_in([*args, *kwargs.values()])
        if not signals:
            return func(*args, **kwargs)
        name = getattr(func, "__name__", str(func))
        in_place = name in IN_PLACE or (name.endswith("_") and not name.endswith("__")) or kwargs.get("inplace") is True
        name = name if name.startswith("__") else name.rstrip("_")
        if name in MOVING and not in_place:
            output = func(*args, **kwargs)
            for part in [output] if isinstance(output, Tensor) else output:
                self._note(signals, "other", part)
            return output
        call = _Call(name, func, args, kwargs)
        rule = self._rule(call, signals)
        if rule is None:
            output = func(*args, **kwargs)
            if _holds_tensor(output):
                raise UserError(f"criterion 'frs' has no rule for '{name}' in layer '{self._layers[-1] or 'network'}'")
            return output
        # The rules need inputs as they were, so what works in place works on a copy that takes the name over.
        run = (lambda: func(args[0].clone(), *args[1:], **kwargs)) if in_place else (lambda: func(*args, **kwargs))
        output = rule.apply(run, self._root)
        self._note(signals, rule.passing, output)
        if in_place and isinstance(changed, Tensor):
            self._kept.append(changed)  # its id must not go to another tensor
            self._instead[id(changed)] = output
        return output

    def _rule(self, call: "_Call", signals: list[Tensor]) -> "_Rule | None":
        """The rule for a call, or None where it has none."""
        mode, first = self.rules_mode, signals[0]
        if call.name in WEIGHTED:
            return self._weighted(call, signals)
        if call.name in SUMS and len(signals) == 2 and call.kwargs.get("alpha", 1) == 1:
            return _Rule("sum", signals, lambda r, which, out: rules.added(signals[which], out, r, mode))
        if call.name in PRODUCTS and len(signals) == 2:
            # Squeeze-and-excitation: the relevance follows the signal; the gate, one value per channel, gets none.
            signal, gate = sorted(signals, key=Tensor.numel, reverse=True)
            return _Rule("same", [signal], _identity) if signal.numel() > gate.numel() else None
        if len(signals) != 1:
            return None
        if call.name in AVERAGES | MAXIMA and call.args and call.args[0] is first:
            rule = rules.average if call.name in AVERAGES else rules.maximum
            return _Rule("other", signals, lambda r, which, out: rule(first, call.on, r, mode))
        scaled = call.name in SCALINGS and call.args[0] is first
        if call.name in POINTWISE | SUMS | PRODUCTS or scaled:
            return _Rule("same", signals, lambda r, which, out: r.sum_to_size(first.shape))
        return None

    def _weighted(self, call: "_Call", signals: list[Tensor]) -> "_Rule | None":
        given = dict(zip(("input", "weight", "bias"), call.args, strict=False)) | call.kwargs
        signal, weight = given["input"], given["weight"]
        if len(signals) != 1 or signal is not signals[0]:
            return None
        options = {name: item for name, item in call.kwargs.items() if name not in ("input", "weight", "bias")}

        def operation(source: Tensor, weights: Tensor) -> Tensor:
            return cast(Tensor, call.func(source, weights, None, *call.args[3:], **options))

        def spread(relevance: Tensor, which: int, output: Tensor) -> Tensor:
            split = rules.split_for(signal, self.rules_mode)
            self.macs += rules.PRODUCTS_OF[split] * products(output)
            outputs: Literal[0, 1] = 1 if "transpose" in call.name else 0
            return rules.weighted(
                signal, weight.detach(), operation, relevance, self.rules_mode, split, outputs=outputs
            )

        def products(output: Tensor) -> int:
            elements: int = weight[0].numel()
            return elements * (signal if "transpose" in call.name else output).numel()

        def made(output: Tensor) -> None:
            self.macs += products(output)
            self.made.setdefault(self._names.get(id(weight), ""), []).append(output)

        return _Rule("other", signals, spread, made)

    def _note(self, signals: list[Tensor], passing: Passing, output: Tensor) -> None:
        self._signals[id(output)] = output
        for signal in signals:
            self._uses.setdefault(id(signal), []).append(_Use(passing, output))

    def _current(self, item: Any) -> Any:
        if isinstance(item, Tensor):
            return self._instead.get(id(item), item)
        if isinstance(item, (list, tuple)) and any(isinstance(entry, Tensor) for entry in item):
            return [self._current(entry) for entry in item]
        return item

    def _signals_in(self, items: Sequence[Any]) -> list[Tensor]:
        found = []
        for item in items:
            if isinstance(item, Tensor) and id(item) in self._signals:
                found.append(item)
            elif isinstance(item, (list, tuple)):
                found += self._signals_in(item)
        return found


@dataclass(frozen=True, eq=False)
class _Call:
    """One call of a torch function."""

    name: str
    func: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def on(self, signal: Tensor) -> Tensor:
        """The same call on another first argument."""
        return cast(Tensor, self.func(signal, *self.args[1:], **self.kwargs))


@dataclass(frozen=True, eq=False)
class _Rule:
    """What replaces a call: how relevance passes it, to which signals, and what to do with its output."""

    passing: Passing
    signals: list[Tensor]
    spread: Callable[[Tensor, int, Tensor], Tensor]  # (relevance, which signal, output) -> relevance
    then: Callable[[Tensor], None] = lambda output: None

    def apply(self, run: Callable[[], Tensor], root: Tensor) -> Tensor:
        """The output, with this rule in place of the derivative."""
        output = cast(Tensor, _Replaced.apply(run, self.spread, root, *self.signals))
        self.then(output)
        return output


def _identity(relevance: Tensor, which: int, output: Tensor) -> Tensor:
    return relevance


def _holds_tensor(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(_holds_tensor(entry) for entry in value)
    return isinstance(value, Tensor)
