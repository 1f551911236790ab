"""Pressure on the scales of batch norms."""

from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from trainables.pruning.groups import Groups, Slice
from trainables.pruning.pressure import State, View
from trainables.regularizers.regularizer import Regularizer


def bn_l1(*, strength: Annotated[float, Field(gt=0.0)] = 1e-4) -> Regularizer:
    """The L1 norm of batch norms' scales (Network Slimming, Liu et al. 2017): strength * sign(gamma) on the gradient.

    Of the groups that may be pruned alone. Goes with the criterion `bn_scale`.
    """

    def init(view: View) -> State:
        return {}

    def step(view: View, state: State) -> None:
        with torch.no_grad():
            for piece in scales(view.model, view.groups):
                scale = view.model.get_parameter(piece.tensor)
                if scale.grad is not None:
                    positions = piece.positions.flatten().to(scale.device)
                    scale.grad[positions] += strength * scale[positions].sign()

    return Regularizer(init, step)


def scales(model: nn.Module, groups: Groups) -> list[Slice]:
    """Where the groups' channels stand in the scales of norms."""
    parameters = dict(model.named_parameters())
    return [
        piece
        for group in groups.values()
        for piece in group.slices
        if piece.role == "norm" and piece.tensor.endswith("weight") and piece.tensor in parameters
    ]
