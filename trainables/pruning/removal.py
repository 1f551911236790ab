"""Physical removal: channels are cut out of parameters, buffers and optimizer state; every `Parameter` stays itself.

A removal is plain data, {tensor: {dimension: kept indices}}, so that a checkpoint can hold it as JSON and a network
can be rebuilt from it without a trace.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from spaces.errors import UserError
from trainables.pruning.attributes import adjust
from trainables.pruning.groups import Groups

Removal = dict[str, dict[int, list[int]]]
"""{tensor name: {dimension: kept indices, ascending}}; what is not named stays whole."""


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
    _check(removal, tensors)
    for name, dims in removal.items():
        tensor = tensors[name]
        indices = {dim: torch.tensor(kept, device=tensor.device) for dim, kept in dims.items()}
        before = tensor.shape
        gradient = tensor.grad
        if gradient is not None:
            tensor.grad = None
        tensor.data = cut(tensor.data, indices)
        if gradient is not None:
            tensor.grad = cut(gradient, indices)
        if optimizer is not None and tensor in optimizer.state:
            _cut_state(optimizer.state[tensor], before, indices)
    adjust(model, removal)


def _check(removal: Removal, tensors: Mapping[str, Tensor]) -> None:
    for name, dims in removal.items():
        if name not in tensors:
            raise UserError(f"the removal does not fit the network: it has no parameter or buffer '{name}'")
        shape = tuple(tensors[name].shape)
        for dim, kept in dims.items():
            if not 0 <= dim < len(shape):
                raise UserError(f"the removal does not fit the network: '{name}' has no dimension {dim}")
            if not kept or kept[0] < 0 or kept[-1] >= shape[dim] or any(a >= b for a, b in zip(kept, kept[1:])):
                raise UserError(
                    f"the removal does not fit the network: '{name}' has {shape[dim]} indices in dimension {dim}, "
                    "and what is kept must be some of them, ascending"
                )


def cut(tensor: Tensor, indices: Mapping[int, Tensor]) -> Tensor:
    """The kept part, in the same memory format."""
    result = tensor
    for dim, kept in indices.items():
        result = result.index_select(dim, kept)
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
