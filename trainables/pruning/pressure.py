"""What acts on channels before they are removed: what a regularizer or a gate sees, and the state it keeps.

A kind with state is a pair of functions, init and step; its state is tensors by name, which a checkpoint holds. An
entry that runs along a group's channels is named `entry/group`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainables.pruning.groups import Groups

State = dict[str, Tensor]
Kept = dict[str, Tensor]
"""{group: int64 indices of the channels that stay, ascending}."""


@dataclass(frozen=True)
class View:
    """The network between two events, its groups at their present widths, and what comes next."""

    model: nn.Module
    groups: Groups
    left: Callable[[Mapping[str, Tensor]], Tensor]  # fraction of the dense network at these widths, in the plan's unit
    keep: float  # what is left in that unit after the next event
    ahead: Callable[[], Kept]  # what the next event would leave if it came now; its passes are charged

    @property
    def device(self) -> torch.device:
        """Where the network's weights are."""
        return next(self.model.parameters()).device


def along(state: State, entry: str, groups: Groups) -> dict[str, Tensor]:
    """The entry of every group."""
    return {name: state[f"{entry}/{name}"] for name in groups}


def cut_state(state: State, kept: Mapping[str, Tensor]) -> State:
    """The state of the channels that stay; what does not run along channels stays as it is."""
    result = {}
    for path, tensor in state.items():
        indices = kept.get(path.partition("/")[2])
        result[path] = tensor if indices is None else tensor.detach()[indices.to(tensor.device)]
    return result
