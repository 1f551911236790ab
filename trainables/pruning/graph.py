"""The channel graph of a network: found by running it once, nothing of the network changed.

`trace` runs, `grouping` turns what was tied into groups, `costs` into counts.
"""

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules import module as module_hooks

from spaces.errors import UserError
from trainables.pruning.costs import Costs, costs_of
from trainables.pruning.grouping import group
from trainables.pruning.groups import ChannelGraph
from trainables.pruning.ledger import Ledger
from trainables.pruning.operations import HANDLERS
from trainables.pruning.precision import refuse_half_precision
from trainables.pruning.tracer import Tracer, label, nothing, tensors_of

Example = Tensor | tuple[Tensor, ...]
"""What the network is called with; only the first sample is used."""


@dataclass(frozen=True)
class Traced:
    """One run's findings."""

    graph: ChannelGraph
    costs: Costs


def trace(model: nn.Module, example: Example, dense: Mapping[str, int] | None = None) -> Traced:
    """The channel groups of `model` and what they cost, from one forward pass of one sample.

    `dense` gives each group's channels before any pruning; without it the present ones count as dense. Parameters that
    an evaluating network does not touch (auxiliary heads) are looked for in a training pass.
    Raises UserError when the network cannot be run on the example, naming the layer it stopped in, and when a layer is
    in half precision on a CPU.
    """
    refuse_half_precision(model)
    ledger = Ledger()
    inputs = example if isinstance(example, tuple) else (example,)
    tracer = _run(ledger, model, inputs, training=False)
    unseen = {name for name, _ in model.named_parameters()} - tracer.visited
    if unseen:
        unseen -= _run(ledger, model, inputs, training=True).visited
    groups, left_alone = group(ledger, dense or {})
    for name in sorted(unseen):
        left_alone.setdefault(name.rpartition(".")[0] or name, "the forward pass does not reach it")
    return Traced(ChannelGraph(groups, left_alone), costs_of(model, ledger, groups, tracer.weighted, tracer.weightless))


def _run(ledger: Ledger, model: nn.Module, inputs: tuple[Tensor, ...], *, training: bool) -> Tracer:
    """One traced pass: on the meta device, or for real where the network looks at values."""
    try:
        return _pass(ledger, model, inputs, training=training, device=torch.device("meta"))
    except UserError:
        pass
    return _pass(ledger, model, inputs, training=training, device=None)


def _pass(
    ledger: Ledger, model: nn.Module, inputs: tuple[Tensor, ...], *, training: bool, device: torch.device | None
) -> Tracer:
    attempt = Ledger(dict(ledger.blocks), list(ledger.ties), list(ledger.freezes), ledger.size)
    tracer = Tracer(attempt, model, HANDLERS)
    stand_ins = {name: _stand_in(t, name, device) for name, t in (*model.named_parameters(), *model.named_buffers())}
    samples = tuple(_sample(t, device) for t in inputs)
    with _as_found(model), torch.no_grad(), _watched(model, tracer):
        for module in model.modules():  # not model.train(): networks override it
            module.training = training
        try:
            with tracer:
                out = functional_call(model, stand_ins, samples)
        except Exception as error:
            layer = next((name for name in reversed(tracer.stack) if name), "the network itself")
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise UserError(f"the network cannot be run on the example: layer '{layer}': {reason}") from error
    for tensor in tensors_of(out):
        tracer.freeze_all(tensor, "network output")
    ledger.__dict__.update(attempt.__dict__)
    return tracer


def _stand_in(tensor: Tensor, name: str, device: torch.device | None) -> Tensor:
    """A tensor of the same shape that knows its name; the network's own is neither read nor written."""
    copy = tensor.detach().clone() if device is None else torch.empty_like(tensor, device=device)
    copy._parameter_name = name  # type: ignore[attr-defined]
    return copy


def _sample(tensor: Any, device: torch.device | None) -> Any:
    if not isinstance(tensor, Tensor):
        return tensor
    first = tensor[:1] if tensor.ndim else tensor
    sample = first.detach().clone() if device is None else torch.empty_like(first, device=device)
    label(sample, nothing(sample))
    return sample


def _cuda_devices() -> list[int]:
    in_use = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return list(range(torch.cuda.device_count())) if in_use else []


@contextmanager
def _as_found(model: nn.Module) -> Iterator[None]:
    """Puts back module attributes, modes and generators, whatever the forward pass does to them."""
    attributes = {module: dict(module.__dict__) for module in model.modules()}
    python = random.getstate()
    with torch.random.fork_rng(devices=_cuda_devices()):
        try:
            yield
        finally:
            random.setstate(python)
            for module, found in attributes.items():
                module.__dict__.clear()
                module.__dict__.update(found)


@contextmanager
def _watched(model: nn.Module, tracer: Tracer) -> Iterator[None]:
    """Tells the tracer which module is running; a failure leaves the stack as it was."""
    names = {module: name for name, module in model.named_modules()}

    def enter(module: nn.Module, args: Any) -> None:
        tracer.stack.append(names.get(module, ""))

    def leave(module: nn.Module, args: Any, out: Any) -> None:
        tracer.stack.pop()

    before = module_hooks.register_module_forward_pre_hook(enter)
    after = module_hooks.register_module_forward_hook(leave)
    try:
        yield
    finally:
        before.remove()
        after.remove()
