"""From ties to groups: a channel is one class of tied nodes; channels that touch the same tensors form a group."""

from collections.abc import Mapping

import torch
from torch import Tensor

from trainables.pruning.groups import Group, Slice
from trainables.pruning.ledger import Block, Ids, Ledger


def group(ledger: Ledger, dense: Mapping[str, int]) -> tuple[dict[str, Group], dict[str, str]]:
    """The groups in network order, and for every layer left alone the reason."""
    members: dict[int, list[Block]] = {}  # by first node: the leader, then what has the very same nodes
    for each in ledger.blocks.values():
        members.setdefault(each.first, []).append(each)
    blocks = [same[0] for same in members.values()]
    roots = ledger.roots()
    reasons = ledger.frozen(roots)
    if not blocks:
        return {}, {}
    root = torch.cat([roots[b.first : b.first + b.size] for b in blocks])
    block = torch.cat([torch.full((b.size,), number) for number, b in enumerate(blocks)])
    position = torch.cat([torch.arange(b.size) for b in blocks])
    _complete(reasons, blocks, root, block, ledger.size)
    free = torch.ones(ledger.size, dtype=torch.bool)
    free[list(reasons)] = False
    rows = free[root]
    groups = _groups(blocks, root[rows], block[rows], position[rows], members, dense)
    return groups, _left_alone(blocks, roots, reasons)


def _complete(reasons: dict[int, str], blocks: list[Block], root: Ids, block: Ids, size: int) -> None:
    """Freezes classes that nothing computes or nothing reads: their other half is out of sight."""
    is_out = torch.tensor([b.role == "out" for b in blocks])
    is_in = torch.tensor([b.role == "in" for b in blocks])
    made = torch.zeros(size, dtype=torch.bool)
    made[root[is_out[block]]] = True
    used = torch.zeros(size, dtype=torch.bool)
    used[root[is_in[block]]] = True
    for missing, reason in ((~made, "no layer computes it"), (~used, "no layer reads it")):
        for item in torch.unique(root[missing[root]]).tolist():
            reasons.setdefault(item, reason)


def _groups(
    blocks: list[Block],
    root: Ids,
    block: Ids,
    position: Ids,
    members: Mapping[int, list[Block]],
    dense: Mapping[str, int],
) -> dict[str, Group]:
    """Splits the free rows (root, block, position) into groups by what each channel touches."""
    if not root.numel():
        return {}
    size = int(root.max()) + 1
    signature = _signature(root, block, size)
    _, kind = torch.unique(signature[root], return_inverse=True)
    is_out = torch.tensor([b.role == "out" for b in blocks])
    place = torch.arange(root.numel())
    rank = torch.full((size,), root.numel())
    outs = is_out[block]
    rank.scatter_reduce_(0, root[outs], place[outs], "amin")  # a channel stands where it is first computed
    order = torch.argsort((kind * len(blocks) + block) * (root.numel() + 1) + rank[root], stable=True)
    channels = torch.bincount(kind[torch.unique(rank[root])]).tolist()  # one row stands for each channel
    kind, block, position = kind[order], block[order], position[order]
    runs, lengths = torch.unique_consecutive(kind * len(blocks) + block, return_counts=True)
    made: dict[int, list[tuple[Block, Tensor]]] = {}
    for run, part in zip(runs.tolist(), torch.split(position, lengths.tolist()), strict=True):
        this, of = divmod(run, len(blocks))
        made.setdefault(this, []).append((blocks[of], part.view(channels[this], -1)))
    number = {id(b): n for n, b in enumerate(blocks)}

    def place_in_network(parts: list[tuple[Block, Tensor]]) -> list[tuple[bool, int, int]]:
        return sorted((b.role != "out", number[id(b)], p.shape[1]) for b, p in parts)

    return _named(sorted(made.values(), key=place_in_network), members, dense)


def _signature(root: Ids, block: Ids, size: int) -> Ids:
    """One number per class: which blocks it touches and how often (a sum of well-mixed 63-bit numbers)."""
    generator = torch.Generator().manual_seed(0x5EED)
    mixed = torch.randint(-(2**62), 2**62, (int(block.max()) + 1,), generator=generator)
    return torch.zeros(size, dtype=torch.int64).scatter_add_(0, root, mixed[block])


def _named(
    parts: list[list[tuple[Block, Tensor]]], members: Mapping[int, list[Block]], dense: Mapping[str, int]
) -> dict[str, Group]:
    groups: dict[str, Group] = {}
    for leaders in parts:
        slices = tuple(
            Slice(b.tensor, b.dim, positions, b.size, b.role, b.module)
            for leader, positions in leaders
            for b in members[leader.first]
        )
        producers = tuple(dict.fromkeys(s.module for s in slices if s.role == "out"))
        consumers = tuple(dict.fromkeys(s.module for s in slices if s.role == "in"))
        name, again = producers[0] or slices[0].tensor, 2
        while name in groups:
            name, again = f"{producers[0] or slices[0].tensor}#{again}", again + 1
        channels = slices[0].positions.shape[0]
        groups[name] = Group(name, channels, slices, producers, consumers, dense.get(name, channels))
    return groups


def _left_alone(blocks: list[Block], roots: Ids, reasons: dict[int, str]) -> dict[str, str]:
    left: dict[str, str] = {}
    for b in blocks:
        layer = b.module or b.tensor
        if b.role != "out" or layer in left:
            continue
        mine = roots[b.first : b.first + b.size].tolist()
        found = [reasons[root] for root in mine if root in reasons]
        if found:
            part = "" if len(found) == len(mine) else f"{len(found)} of {len(mine)} channels: "
            left[layer] = part + found[0]
    return left
