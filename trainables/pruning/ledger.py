"""Who belongs with whom: one node per index of every parameter dimension, ties between nodes, and what is frozen.

A node is an int64 id; 0 means "no channel" (a constant, the network's input). Ties are collected during the trace and
resolved once at the end, so that the trace itself only moves small integer tensors.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from trainables.pruning.groups import Role

Ids = Tensor
"""int64 node ids, of any shape."""


@dataclass(frozen=True, eq=False)
class Block:
    """The nodes of one dimension of one parameter or buffer."""

    tensor: str
    dim: int
    size: int
    first: int  # id of index 0
    role: Role
    module: str


@dataclass
class Ledger:
    """All nodes, ties and freezes of one trace, in network order."""

    blocks: dict[tuple[str, int], Block] = field(default_factory=dict)
    ties: list[tuple[Ids, Ids]] = field(default_factory=list)
    freezes: list[tuple[Ids, str]] = field(default_factory=list)
    size: int = 1

    def nodes(self, tensor: str, dim: int, size: int, role: Role) -> Ids:
        """The ids along one dimension of a parameter; the same ones whenever it is used again."""
        block = self.blocks.get((tensor, dim))
        if block is None:
            module = tensor.rpartition(".")[0]
            block = Block(tensor, dim, size, self.size, role, module)
            self.blocks[tensor, dim] = block
            self.size += size
        return torch.arange(block.first, block.first + block.size)

    def follow(self, tensor: str, dim: int, size: int, leader: Ids, role: Role) -> None:
        """Ties all of a parameter's dimension to nodes that lie in a row, by giving it those very nodes."""
        if (tensor, dim) in self.blocks or int(leader[-1]) - int(leader[0]) != size - 1:
            self.tie(self.nodes(tensor, dim, size, role), leader)
        else:
            module = tensor.rpartition(".")[0]
            self.blocks[tensor, dim] = Block(tensor, dim, size, int(leader[0]), role, module)

    def tie(self, first: Ids, second: Ids) -> None:
        """Channels that live and die together; where one side is no channel, the other is frozen."""
        shape = (first + second).shape
        first, second = first.expand(shape).reshape(-1), second.expand(shape).reshape(-1)
        both = (first > 0) & (second > 0)
        if bool(both.all()):
            self.ties.append((first, second))
            return
        self.ties.append((first[both], second[both]))
        lone = torch.maximum(first, second)[~both]
        self.freeze(lone, "meets a constant of fixed width")

    def freeze(self, ids: Ids, reason: str) -> None:
        """Channels that are never removed, and why."""
        ids = ids.reshape(-1)
        ids = ids[ids > 0]
        if ids.numel():
            self.freezes.append((ids, reason))

    def roots(self) -> Ids:
        """For every node the smallest node it is tied to, directly or not."""
        parent = torch.arange(self.size)
        if not self.ties:
            return parent
        first = torch.cat([a for a, _ in self.ties])
        second = torch.cat([b for _, b in self.ties])
        while True:
            a, b = parent[first], parent[second]
            differ = a != b
            if not bool(differ.any()):
                return parent
            low, high = torch.minimum(a, b)[differ], torch.maximum(a, b)[differ]
            parent.scatter_reduce_(0, high, low, "amin")
            while not torch.equal(parent, jumped := parent[parent]):
                parent = jumped

    def frozen(self, roots: Ids) -> dict[int, str]:
        """Frozen classes by root, each with the first reason given."""
        reasons: dict[int, str] = {}
        for ids, reason in self.freezes:
            for root in torch.unique(roots[ids]).tolist():
                reasons.setdefault(root, reason)
        return reasons
