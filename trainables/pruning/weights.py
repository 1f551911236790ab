"""Single weights as the things that are pruned: which there are, which stay, and the masks that keep them at zero.

A layer's weight is a group whose channels are its weights still alive, or, with a pattern N:M, its blocks of M weights
still whole; so criteria and allocations deal with it as with any group. Masks make nothing faster.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from trainables.pruning.groups import Group, Groups, Scores, Slice
from trainables.pruning.selection import Order

Masks = dict[str, Tensor]
"""{parameter: bool of its shape}, True where the weight is alive; a parameter that is not named is whole."""


@dataclass(frozen=True)
class Pattern:
    """`kept` weights stay in each block of `of` along a layer's inputs, as sparse matrix units want them."""

    kept: int
    of: int

    @classmethod
    def read(cls, text: str) -> "Pattern":
        """From "2:4"."""
        kept, of = map(int, text.split(":"))
        return cls(kept, of)

    def blocks(self, weight: Tensor, dim: int) -> Tensor:
        """Flat positions of each block's weights, [blocks, of]; none where the inputs do not come in blocks."""
        if weight.shape[dim] % self.of:
            return torch.empty(0, self.of, dtype=torch.int64)
        return torch.arange(weight.numel()).view(weight.shape).movedim(dim, -1).reshape(-1, self.of)


def weight_groups(model: nn.Module, masks: Mapping[str, Tensor]) -> dict[str, Group]:
    """The weights of convolutions and linear layers that are alive, one group per parameter, in network order."""
    groups = {}
    for name, weight in weights_of(model):
        module = name.rpartition(".")[0]
        alive = masks[name].flatten().cpu().nonzero() if name in masks else torch.arange(weight.numel())[:, None]
        piece = Slice(name, 0, alive, weight.numel(), "weights", module)
        groups[name] = Group(name, len(alive), (piece,), (module,), (module,), weight.numel())
    return groups


def weights_of(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """The parameters whose single weights may be masked, in network order: biases and norms may not."""
    for name, weight in model.named_parameters():
        if _is_weight(model.get_submodule(name.rpartition(".")[0]), name):
            yield name, weight


def _is_weight(module: nn.Module, name: str) -> bool:
    if isinstance(module, nn.MultiheadAttention):
        return name.endswith("in_proj_weight")
    return isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)) and name.rpartition(".")[2] == "weight"


def fewest_left(model: nn.Module, groups: Groups, pattern: Pattern | None) -> int:
    """The weights that are left when every group is at its floor: one weight, or what the pattern keeps."""
    if pattern is None:
        return len(groups)
    whole = {name: len(_whole_blocks(model, group, pattern)) for name, group in groups.items()}
    return sum(group.channels - whole[name] * (pattern.of - pattern.kept) for name, group in groups.items())


def select_weights(
    model: nn.Module,
    groups: Groups,
    scores: Scores,
    allocate: Callable[[Scores, Groups], Order],
    *,
    most: int,
    pattern: Pattern | None,
) -> Masks:
    """The masks after as many weights have gone, in turn, as leave at most `most` alive; or all that may go.

    No layer empties. Equal turns go in the order of the network, equal scores in that of their position. With a
    pattern the block is what goes: its lowest weights, whose sum is its score.
    """
    units = _blocks(model, groups, scores, pattern) if pattern is not None else _singles(groups, scores)
    order = allocate({name: unit.scores for name, unit in units.items()}, {n: u.group for n, u in units.items()})
    alive = sum(group.channels for group in groups.values())
    each = 1 if pattern is None else pattern.of - pattern.kept
    counts = _counts(order, units, -(-max(alive - most, 0) // each), spare=1 if pattern is None else 0)
    masks = {}
    for name, group in groups.items():
        mask = torch.zeros(group.dense_channels, dtype=torch.bool)
        mask[group.slices[0].positions[:, 0]] = True
        unit = units.get(name)
        if unit is not None:
            lowest = torch.argsort(unit.scores, stable=True)[: counts[name]]
            mask[unit.removes[lowest].flatten()] = False
        weight = model.get_parameter(name)
        masks[name] = mask.view(weight.shape).to(weight.device)
    return masks


@dataclass(frozen=True, eq=False)
class _Units:
    """What can go at once in one layer: the flat positions of the weights that each unit gives, and its score."""

    group: Group
    removes: Tensor  # int64 [units, weights of each]
    scores: Tensor  # float64 [units]


def _singles(groups: Groups, scores: Scores) -> dict[str, _Units]:
    return {
        name: _Units(group, group.slices[0].positions, scores[name].detach().double().cpu())
        for name, group in groups.items()
    }


def _whole_blocks(model: nn.Module, group: Group, pattern: Pattern) -> Tensor:
    """The group's blocks of which nothing is gone yet, as flat positions [blocks, of]."""
    weight = model.get_parameter(group.name)
    transposed = getattr(model.get_submodule(group.producers[0]), "transposed", False)
    blocks = pattern.blocks(weight, 0 if transposed else 1)
    alive = torch.zeros(weight.numel(), dtype=torch.bool)
    alive[group.slices[0].positions[:, 0]] = True
    return blocks[alive[blocks].all(1)]


def _blocks(model: nn.Module, groups: Groups, scores: Scores, pattern: Pattern) -> dict[str, _Units]:
    units = {}
    for name, group in groups.items():
        blocks = _whole_blocks(model, group, pattern)
        if not len(blocks):
            continue
        everywhere = torch.zeros(group.dense_channels, dtype=torch.float64)
        everywhere[group.slices[0].positions[:, 0]] = scores[name].detach().double().cpu()
        ranked = torch.sort(everywhere[blocks], dim=1, stable=True)
        goes = pattern.of - pattern.kept
        narrow = replace(group, channels=len(blocks), dense_channels=group.dense_channels // pattern.of)
        removes = blocks.gather(1, ranked.indices[:, :goes])
        units[name] = _Units(narrow, removes, ranked.values[:, :goes].sum(1))
    return units


def _counts(order: Order, units: Mapping[str, _Units], wanted: int, *, spare: int) -> dict[str, int]:
    """How many units go from each layer: the `wanted` lowest turns of all, `spare` units of each layer aside."""
    if not units:
        return {}
    turns = [
        torch.cummax(order.turns[name].detach().double().cpu(), 0).values[: len(unit.scores) - spare]
        for name, unit in units.items()
    ]
    owners = torch.cat([torch.full((len(own),), place) for place, own in enumerate(turns)])
    first = owners[torch.argsort(torch.cat(turns), stable=True)[:wanted]]
    found = torch.bincount(first, minlength=len(units)).tolist()
    return dict(zip(units, found, strict=True))


def enforce(model: nn.Module, masks: Mapping[str, Tensor], optimizer: torch.optim.Optimizer) -> None:
    """Masked weights are zero, and so is what the optimizer remembers of them."""
    with torch.no_grad():
        for name, mask in masks.items():
            weight = model.get_parameter(name)
            for tensor in (weight, *optimizer.state.get(weight, {}).values()):
                if isinstance(tensor, Tensor) and tensor.shape == weight.shape:
                    tensor.masked_fill_(~mask, 0)


def hide_gradients(model: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Masked weights have no gradient, so that they neither move nor count in the gradient's norm."""
    for name, mask in masks.items():
        gradient = model.get_parameter(name).grad
        if gradient is not None:
            gradient.masked_fill_(~mask, 0)


def masked_out(masks: Mapping[str, Tensor]) -> int:
    """How many weights are held at zero."""
    return sum(int((~mask).sum()) for mask in masks.values())
