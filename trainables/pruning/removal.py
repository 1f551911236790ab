"""Physical removal: channels are cut out of parameters, buffers and optimizer state; every `Parameter` stays itself.

A removal is plain data, {tensor: {dimension: kept indices}}, so that a checkpoint can hold it as JSON and a network
can be rebuilt from it without a trace.
"""

import copy
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from spaces.errors import UserError
from trainables.pruning.attributes import HELD, adjust, hold
from trainables.pruning.groups import Groups
from trainables.pruning.masking import answers, difference, mask
from trainables.pruning.precision import refuse_half_precision
from trainables.pruning.undo import remember

Removal = dict[str, dict[int, list[int]]]
"""{tensor name: {dimension: kept indices, ascending}}; what is not named stays whole.

A width that a module keeps as a whole number (a norm without parameters) is named like a tensor of that length.
"""

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
"""Largest difference between masked and removed, relative to the largest output."""


def remove(
    model: nn.Module,
    groups: Groups,
    kept: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer | None,
    example: Tensor | tuple[Any, ...],
) -> Removal:
    """Leaves of each group the channels `kept[group]`, and refuses to go on unless the answers stay the same.

    The smaller network is compared with the masked one on `example`, in eval mode; see `verify_removal`.
    """
    removal = removal_of(groups, kept)
    if removal:
        verify_removal(model, groups, kept, removal, example, optimizer)
    return removal


def verify_removal(
    model: nn.Module,
    groups: Groups,
    kept: Mapping[str, Tensor],
    removal: Removal,
    example: Tensor | tuple[Any, ...],
    optimizer: torch.optim.Optimizer | None = None,
) -> float:
    """Applies the removal; returns the largest difference to the masked network, relative to the largest output.

    Where rounding hides the answer, both are compared once more in float64. Raises UserError on a mismatch, with
    everything put back, and where a layer is in half precision on a CPU.
    """
    refuse_half_precision(model)
    inputs = example if isinstance(example, tuple) else (example,)
    undo = remember(model, removal, optimizer)
    try:
        gap = _gap(model, groups, kept, removal, inputs, optimizer)
        dtype = next(model.parameters()).dtype
        if not gap <= TOLERANCE.get(dtype, 0.0):
            exact = copy.deepcopy(model).double()
            undo()
            wide = copy.deepcopy(model).double()
            precise = tuple(item.double() if is_real(item) else item for item in inputs)
            with mask(wide, groups, kept):
                gap = difference(answers(wide, precise), answers(exact, precise))
            if not gap <= TOLERANCE[torch.float64]:
                raise UserError(f"the network answers differently: relative difference {gap:.1e}")
            apply(model, removal, optimizer)
    except Exception as error:
        undo()
        names = ", ".join(kept)
        raise UserError(f"channels cannot be removed from {names}, nothing was changed: {error}") from error
    return gap


def _gap(
    model: nn.Module,
    groups: Groups,
    kept: Mapping[str, Tensor],
    removal: Removal,
    inputs: tuple[Any, ...],
    optimizer: torch.optim.Optimizer | None,
) -> float:
    with mask(model, groups, kept):
        expected = answers(model, inputs)
    apply(model, removal, optimizer)
    return difference(expected, answers(model, inputs))


def is_real(value: Any) -> bool:
    """Whether it is a tensor of real numbers."""
    return isinstance(value, Tensor) and value.is_floating_point()


def removal_of(groups: Groups, kept: Mapping[str, Tensor]) -> Removal:
    """The removal that leaves of each group the channels `kept[group]`; groups not named stay whole."""
    gone: dict[tuple[str, int], list[Tensor]] = {}
    for name, keep in kept.items():
        group = groups[name]
        dropped = torch.ones(group.channels, dtype=torch.bool)
        dropped[keep.cpu()] = False
        if not bool(dropped.any()):
            continue
        if bool(dropped.all()):
            raise ValueError(f"group '{name}' would be left without a channel")
        for part in group.slices:
            gone.setdefault((part.tensor, part.dim), []).append(part.positions[dropped].reshape(-1))
    sizes = {(part.tensor, part.dim): part.size for group in groups.values() for part in group.slices}
    removal: Removal = {}
    for (tensor, dim), positions in gone.items():
        stays = torch.ones(sizes[tensor, dim], dtype=torch.bool)
        stays[torch.cat(positions)] = False
        removal.setdefault(tensor, {})[dim] = stays.nonzero().reshape(-1).tolist()
    return removal


def compose(first: Removal, second: Removal) -> Removal:
    """One removal that does what `first` and then `second` (made on the smaller network) do."""
    result = {tensor: dict(dims) for tensor, dims in first.items()}
    for tensor, dims in second.items():
        mine = result.setdefault(tensor, {})
        for dim, kept in dims.items():
            mine[dim] = [mine[dim][index] for index in kept] if dim in mine else list(kept)
    return result


def apply(model: nn.Module, removal: Removal, optimizer: torch.optim.Optimizer | None = None) -> None:
    """Cuts the network, its gradients and the optimizer's state down to what the removal keeps.

    Raises UserError, with nothing changed, where the removal does not fit the network.
    """
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    _check(removal, tensors, model)
    for name, dims in removal.items():
        if name in tensors:
            _apply_to(tensors[name], dims, optimizer)
        else:
            module, _, attribute = name.rpartition(".")
            hold(model.get_submodule(module), attribute, len(dims[0]))
    adjust(model, removal)


def _apply_to(tensor: Tensor, dims: Mapping[int, list[int]], optimizer: torch.optim.Optimizer | None) -> None:
    indices = {dim: torch.tensor(kept, device=tensor.device) for dim, kept in dims.items()}
    before, gradient = tensor.shape, tensor.grad
    tensor.grad = None
    tensor.data = cut(tensor.data, indices)
    if gradient is not None:
        tensor.grad = cut(gradient, indices)
    if optimizer is not None and tensor in optimizer.state:
        _cut_state(optimizer.state[tensor], before, indices)


def _check(removal: Removal, tensors: Mapping[str, Tensor], model: nn.Module) -> None:
    for name, dims in removal.items():
        shape = tuple(tensors[name].shape) if name in tensors else _held_width(model, name)
        for dim, kept in dims.items():
            if not 0 <= dim < len(shape):
                raise UserError(f"the removal does not fit the network: '{name}' has no dimension {dim}")
            ascending = all(a < b for a, b in pairwise(kept))
            may_be_empty = name not in tensors
            if not (kept or may_be_empty) or not ascending or (kept and (kept[0] < 0 or kept[-1] >= shape[dim])):
                raise UserError(
                    f"the removal does not fit the network: '{name}' has {shape[dim]} indices in dimension {dim}, "
                    "and what is kept must be some of them, ascending"
                )


def _held_width(model: nn.Module, name: str) -> tuple[int, ...]:
    """The width that a module keeps as a whole number (a norm without parameters)."""
    path, _, attribute = name.rpartition(".")
    module = dict(model.named_modules()).get(path)
    held = getattr(module, attribute, None)
    if attribute not in HELD or not isinstance(held, int) or isinstance(held, bool):
        raise UserError(f"the removal does not fit the network: it has no parameter or buffer '{name}'")
    return (held,)


def cut(tensor: Tensor, indices: Mapping[int, Tensor]) -> Tensor:
    """The kept part, in the same memory format."""
    result = tensor
    for dim, kept in indices.items():
        result = result.index_select(dim, kept)
    return laid_out_like(result, tensor)


def laid_out_like(result: Tensor, tensor: Tensor) -> Tensor:
    """`result` in the memory format of `tensor`."""
    for ndim, layout in ((4, torch.channels_last), (5, torch.channels_last_3d)):
        if tensor.ndim == ndim and _is_laid_out(tensor, layout):
            return torch.empty(result.shape, dtype=result.dtype, device=result.device, memory_format=layout).copy_(
                result
            )
    return result.contiguous()


def _is_laid_out(tensor: Tensor, layout: torch.memory_format) -> bool:
    return tensor.stride(1) == 1 and tensor.shape[1] > 1 and tensor.is_contiguous(memory_format=layout)


def _cut_state(state: dict[str, Any], before: torch.Size, indices: Mapping[int, Tensor]) -> None:
    """Cuts every state tensor that runs along the parameter; step counters stay."""
    for key, value in state.items():
        if isinstance(value, Tensor) and value.ndim == len(before):
            fitting = {dim: kept.to(value.device) for dim, kept in indices.items() if value.shape[dim] == before[dim]}
            state[key] = cut(value, fitting)
