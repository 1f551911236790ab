"""How a step follows from a gradient: the optimizers, and which parameters their weight decay acts on."""

from collections.abc import Callable
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import nn

from spaces.plan import Train
from trainables.table import Table

Parameters = list[dict[str, Any]]
"""Parameter groups, each with its own `weight_decay`."""
Beta = Annotated[float, Field(ge=0.0, lt=1.0)]


def sgd(parameters: Parameters, learning_rate: float, /, *, momentum: Beta = 0.9, nesterov: bool = False) -> Any:
    """Stochastic gradient descent with momentum; weight decay is added to the gradient."""
    nesterov = nesterov and momentum > 0  # without momentum there is nothing to look ahead with
    return torch.optim.SGD(parameters, lr=learning_rate, momentum=momentum, nesterov=nesterov)


def adamw(
    parameters: Parameters,
    learning_rate: float,
    /,
    *,
    beta1: Beta = 0.9,
    beta2: Beta = 0.999,
    epsilon: Annotated[float, Field(gt=0.0)] = 1e-8,
) -> Any:
    """Adam with weight decay apart from the gradient (Loshchilov and Hutter 2019)."""
    return torch.optim.AdamW(parameters, lr=learning_rate, betas=(beta1, beta2), eps=epsilon)


OPTIMIZERS: Table[Callable[..., torch.optim.Optimizer]] = Table("optimizer", sgd, adamw)
"""`function(parameters: Parameters, learning_rate, /, *, settings) -> torch.optim.Optimizer`."""


def make_optimizer(model: nn.Module, train: Train) -> torch.optim.Optimizer:
    """The recipe's optimizer over the parameters that learn; by choice without decay on norms and biases."""
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups: Parameters = [{"params": learning, "weight_decay": train.weight_decay}]
    if train.weight_decay_on == "weights":
        weights = [parameter for parameter in learning if parameter.ndim > 1]
        scales = [parameter for parameter in learning if parameter.ndim <= 1]
        groups = [
            {"params": weights, "weight_decay": train.weight_decay},
            {"params": scales, "weight_decay": 0.0},
        ]
    groups = [group for group in groups if group["params"]]
    return OPTIMIZERS.bind(train.optimizer.name, train.optimizer.settings)(groups, train.learning_rate)
