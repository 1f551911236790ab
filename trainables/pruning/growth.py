"""Growing: channel groups become wider, as removal makes them narrower; every `Parameter` stays itself.

What an outer loop needs that gives width to one layer and takes it from another (network adjustment, Chen et al.
2020). Does NOT cover which groups grow. A grown network has no record of kept indices, so it cannot be checkpointed.
"""

import copy
from collections.abc import Callable, Mapping
from math import sqrt
from typing import Any, Literal

import torch
from torch import Tensor, nn

from spaces.errors import UserError
from trainables.pruning.attributes import adjust, hold
from trainables.pruning.graph import trace
from trainables.pruning.groups import Groups, Slice
from trainables.pruning.masking import answers, difference
from trainables.pruning.precision import refuse_half_precision
from trainables.pruning.removal import TOLERANCE, is_real, laid_out_like
from trainables.pruning.undo import remember

Growth = dict[str, dict[int, list[int]]]
"""{tensor name: {dimension: the index that each one had before, NEW for a new one}}; JSON, as `Removal` is."""
NEW = -1
GROWN = "_was_grown"

Columns = Literal["zero", "random"]
"""What consumers make of new channels at first: `zero`, nothing, so that the network answers as before; or `random`."""


def grow(
    model: nn.Module,
    groups: Groups,
    more: Mapping[str, int],
    optimizer: torch.optim.Optimizer | None,
    example: Tensor | tuple[Any, ...],
    *,
    generator: torch.Generator,
    columns: Columns = "zero",
) -> Growth:
    """Gives each group `more[group]` further channels, in place; the optimizer knows nothing (zeros) of them.

    They come right behind the group's last channel. New filters are drawn from `generator` (on the CPU) as He et al.
    (2015) begin, with biases of zero; new channels of a batch norm begin as new ones do; what else runs along channels
    takes the last channel's values. Raises UserError, with everything put back, where a second trace does not find
    exactly these groups, or where the answers change although `columns` is zero.
    """
    refuse_half_precision(model)
    growth = growth_of(groups, more)
    inputs = example if isinstance(example, tuple) else (example,)
    undo = remember(model, growth, optimizer)
    try:
        before = answers(model, inputs)
        _apply(model, growth, optimizer)
        _fill(model, groups, growth, more, generator, columns)
        _check_groups(model, inputs, groups, more, growth)
        if columns == "zero":
            _check_answers(model, inputs, before, undo, remember(model, growth, optimizer))
    except Exception as error:
        undo()
        raise UserError(f"channels cannot be added to {', '.join(more)}, nothing was changed: {error}") from error
    setattr(model, GROWN, True)
    return growth


def growth_of(groups: Groups, more: Mapping[str, int]) -> Growth:
    """Where the new channels come to stand. Raises UserError for a group that is not there or a number under 1."""
    gaps: dict[tuple[str, int], dict[int, int]] = {}  # before which index how many new ones come
    sizes: dict[tuple[str, int], int] = {}
    for name, count in more.items():
        if name not in groups:
            raise UserError(f"no channel group '{name}' may grow; groups: {', '.join(groups) or 'none'}")
        if count < 1:
            raise UserError(f"group '{name}' can grow by 1 channel or more; got {count}")
        for part in groups[name].slices:
            place = part.tensor, part.dim
            sizes[place] = part.size
            for run in _runs(part):
                gaps.setdefault(place, {})[run[0] if _descends(part) else run[-1] + 1] = count * len(run)
    growth: Growth = {}
    for (tensor, dim), counts in gaps.items():
        origins: list[int] = []
        for index in range(sizes[tensor, dim] + 1):
            origins += [*[NEW] * counts.get(index, 0), index]
        growth.setdefault(tensor, {})[dim] = origins[:-1]
    return growth


def _descends(part: Slice) -> bool:
    """Whether channels stand in reverse order here, so that what comes after the last one stands before it."""
    positions = part.positions
    return len(positions) > 1 and bool(positions[-1].amin() < positions[-2].amin())


def _runs(part: Slice) -> list[list[int]]:
    """The last channel's indices, those that follow each other together: a flattened image stays in one piece."""
    runs: list[list[int]] = []
    for index in sorted(part.positions[-1].tolist()):
        if runs and runs[-1][-1] == index - 1:
            runs[-1].append(index)
        else:
            runs.append([index])
    return runs


def _apply(model: nn.Module, growth: Growth, optimizer: torch.optim.Optimizer | None) -> None:
    """New storage with room for the new channels; gradients and optimizer state get zeros there."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for name, dims in growth.items():
        if name not in tensors:
            module, _, attribute = name.rpartition(".")
            hold(model.get_submodule(module), attribute, len(dims[0]))
            continue
        tensor = tensors[name]
        before, gradient = tensor.shape, tensor.grad
        tensor.grad = None
        tensor.data = _widened(tensor.data, dims)
        if gradient is not None:
            tensor.grad = _zeroed(_widened(gradient, dims), dims)
        state = {} if optimizer is None else optimizer.state.get(tensor, {})
        for key, value in state.items():
            if isinstance(value, Tensor) and value.ndim == len(before):
                along = {dim: origins for dim, origins in dims.items() if value.shape[dim] == before[dim]}
                state[key] = _zeroed(_widened(value, along), along)
    adjust(model, growth)


def _widened(tensor: Tensor, dims: Mapping[int, list[int]]) -> Tensor:
    """With something in the place of new channels."""
    result = tensor
    for dim, origins in dims.items():
        sources = [max(origin, 0) for origin in origins]
        result = result.index_select(dim, torch.tensor(sources, device=tensor.device))
    return laid_out_like(result, tensor)


def _zeroed(tensor: Tensor, dims: Mapping[int, list[int]]) -> Tensor:
    for dim, origins in dims.items():
        tensor.index_fill_(dim, _new(origins).to(tensor.device), 0)
    return tensor


def _new(origins: list[int]) -> Tensor:
    """The indices of the new channels."""
    return (torch.tensor(origins) == NEW).nonzero()[:, 0]


def _fill(
    model: nn.Module,
    groups: Groups,
    growth: Growth,
    more: Mapping[str, int],
    generator: torch.Generator,
    columns: Columns,
) -> None:
    """What new channels begin with: columns first, so that new filters read new channels too."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    parts = [(count, part) for name, count in more.items() for part in groups[name].slices if part.tensor in tensors]
    for count, part in sorted(parts, key=lambda each: each[1].role != "in"):
        tensor, rows = tensors[part.tensor], torch.tensor(_meant(part, growth, count))
        last, new = rows[-count - 1].repeat(count).to(tensor.device), rows[-count:].flatten().to(tensor.device)
        along = tensor.data.movedim(part.dim, 0)
        if part.role == "in" and columns == "zero":
            along[new] = 0
        elif part.role in ("in", "out") and tensor.ndim > 1:
            along[new] = _drawn(tensor, part, len(new), generator)
        elif part.role == "out":
            along[new] = 0
        elif isinstance(model.get_submodule(part.module), nn.modules.batchnorm._NormBase):
            along[new] = 1 if part.tensor.endswith(("weight", "running_var")) else 0
        else:
            along[new] = along[last]


def _drawn(tensor: Tensor, part: Slice, count: int, generator: torch.Generator) -> Tensor:
    """Normal, with a variance of 2 over the inputs of one output."""
    outputs = tensor.shape[part.dim] if part.role == "out" else tensor.shape[1 - part.dim]
    shape = [count, *tensor.movedim(part.dim, 0).shape[1:]]
    drawn = torch.randn(shape, generator=generator, dtype=torch.float64) * sqrt(2.0 * outputs / tensor.numel())
    return drawn.to(tensor.device, tensor.dtype)


def _check_groups(
    model: nn.Module, inputs: tuple[Any, ...], groups: Groups, more: Mapping[str, int], growth: Growth
) -> None:
    """The wider network must be what was meant: the same groups, each channel where it was put."""
    found = trace(model, inputs).graph.groups
    for name, group in groups.items():
        count = more.get(name, 0)
        if name not in found or found[name].channels != group.channels + count:
            raise UserError(f"'{name}' would not have {group.channels + count} channels")
        stand = {(part.tensor, part.dim): _rows(part.positions) for part in found[name].slices}
        for part in group.slices:
            if stand.get((part.tensor, part.dim)) != _meant(part, growth, count):
                raise UserError(f"the layers of '{name}' do not agree where its new channels stand")


def _meant(part: Slice, growth: Growth, count: int) -> list[list[int]]:
    """The indices of every channel, new ones last, once the tensor has grown."""
    origins = growth.get(part.tensor, {}).get(part.dim, list(range(part.size)))
    now = {origin: index for index, origin in enumerate(origins) if origin != NEW}
    rows = [sorted(now[index] for index in channel) for channel in part.positions.tolist()]
    for number in range(count):
        row: list[int] = []
        for run in _runs(part):
            length = len(run)
            first = now[run[0]] - (number + 1) * length if _descends(part) else now[run[-1]] + 1 + number * length
            row += range(first, first + length)
        rows.append(row)
    return rows


def _rows(positions: Tensor) -> list[list[int]]:
    """The indices of each channel, ascending."""
    return [sorted(channel) for channel in positions.tolist()]


def _check_answers(
    model: nn.Module,
    inputs: tuple[Any, ...],
    before: list[Tensor],
    undo: Callable[[], None],
    redo: Callable[[], None],
) -> None:
    """Columns of zero change nothing; where rounding hides it, both networks are compared in float64."""
    gap = difference(before, answers(model, inputs))
    if gap <= TOLERANCE.get(next(model.parameters()).dtype, 0.0):
        return
    precise = tuple(item.double() if is_real(item) else item for item in inputs)
    wide = answers(copy.deepcopy(model).double(), precise)
    undo()
    gap = difference(answers(copy.deepcopy(model).double(), precise), wide)
    redo()
    if not gap <= TOLERANCE[torch.float64]:
        raise UserError(f"the network answers differently: relative difference {gap:.1e}")
