"""Channel groups: channels that can only be removed together, and where each of them lives.

Does NOT cover how they are found (`graph`) nor how they are cut (`removal`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

Role = Literal["out", "norm", "in", "weights"]
"""out: a producer's own rows (weight, bias); norm: per-channel parameters and buffers; in: a consumer's columns.

weights: single weights of a layer (`weights`); their positions are those of the flattened tensor.
"""


@dataclass(frozen=True, eq=False)
class Slice:
    """Where the channels of a group stand in one parameter or buffer.

    `positions` is int64 [channels, per_channel]: removing channel c removes the indices positions[c] of `dim`.
    """

    tensor: str
    dim: int
    positions: Tensor
    size: int  # of the whole dimension, other groups and fixed indices included
    role: Role
    module: str


@dataclass(frozen=True, eq=False)
class Group:
    """Channels that live and die together across every slice; named after its first producer module."""

    name: str
    channels: int
    slices: tuple[Slice, ...]
    producers: tuple[str, ...]  # modules that compute these channels, in network order
    consumers: tuple[str, ...]  # modules that read them
    dense_channels: int  # before any pruning; equals `channels` until the first event

    @property
    def filters(self) -> int:
        """Filters that removing one channel removes: one per producer row (papers count these)."""
        return sum(s.positions.shape[1] for s in self.slices if s.role == "out" and s.tensor.endswith("weight"))


Groups = Mapping[str, Group]
Scores = dict[str, Tensor]
"""{group: float tensor [channels of the group]}; low is pruned first."""


@dataclass(frozen=True)
class ChannelGraph:
    """What a network offers to pruning: groups in network order, and by name what is left alone and why."""

    groups: dict[str, Group]
    left_alone: dict[str, str] = field(default_factory=dict)
