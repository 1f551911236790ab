"""Training steps to be timed: of a network as it is, rebuilt from scratch at its widths, or masked instead of cut."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.engine.setting import Setting
from benchmarks.timing import Prepare
from spaces.plan import Train
from trainables.models.cifar import ZeroPad
from trainables.pruning.removal import Removal
from trainables.training import make_optimizer, placed, precision

Step = Callable[[], None]


def step_of(model: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor, train: Train) -> Step:
    """Forward, backward, update, always on the same batch."""
    model.train()

    def step() -> None:
        with precision(train, images.device):
            loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return step


def repeated(step: Step, times: int) -> Prepare:
    """A side that takes so many steps each time: on a GPU one alone is too short to time."""

    def run() -> None:
        for _ in range(times):
            step()

    return lambda: run


def steps_at_once(setting: Setting) -> int:
    return 20 if setting.on_gpu else 1


def batch_size(setting: Setting) -> int:
    """Smaller than the recipe's on a CPU, where a step takes seconds."""
    return 128 if setting.on_gpu else 32 if setting.quick else 64


def rebuilt(setting: Setting, network: str, pruned: nn.Module, train: Train) -> nn.Module:
    """The same widths and weights in modules made by their constructors."""
    model = setting.network(network, train).to("cpu")
    for name, module in pruned.named_modules():
        anew = _made_anew(module)
        if anew is not None:
            model.set_submodule(name, anew)
    model.load_state_dict(pruned.state_dict())
    return placed(model, train, setting.device)


def _made_anew(module: nn.Module) -> nn.Module | None:
    match module:
        case nn.Conv2d():
            return nn.Conv2d(
                module.in_channels,
                module.out_channels,
                module.kernel_size,
                module.stride,
                module.padding,
                module.dilation,
                module.groups,
                bias=module.bias is not None,
            )
        case nn.BatchNorm2d():
            return nn.BatchNorm2d(module.num_features, module.eps, module.momentum)
        case nn.Linear():
            return nn.Linear(module.in_features, module.out_features, bias=module.bias is not None)
        case ZeroPad():
            return ZeroPad(len(module.before), len(module.after), module.stride)
    return None


def masked_step(dense: nn.Module, removal: Removal, images: Tensor, labels: Tensor, train: Train) -> Step:
    """The cheapest masking there is: a dense step, then the weights of what was pruned are zeroed."""
    step = step_of(dense, make_optimizer(dense, train), images, labels, train)
    weights, masks = [], []
    for name, parameter in dense.named_parameters():
        if name in removal:
            mask = torch.ones_like(parameter)
            for dim, kept in removal[name].items():
                gone = torch.ones(parameter.shape[dim], dtype=torch.bool)
                gone[kept] = False
                mask.index_fill_(dim, gone.nonzero().reshape(-1).to(mask.device), 0.0)
            weights.append(parameter)
            masks.append(mask)

    def masked() -> None:
        step()
        with torch.no_grad():
            torch._foreach_mul_(weights, masks)

    return masked
