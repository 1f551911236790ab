"""Module attributes that repeat a width (`out_channels`, `num_features` ...): set right after a cut."""

from collections.abc import Mapping

from torch import Tensor, nn

from trainables.pruning.layers import CUT_AS, kind_of

Kept = Mapping[str, Mapping[int, list[int]]]


def adjust(model: nn.Module, removal: Kept) -> None:
    """Makes the attributes of every module whose tensors were cut agree with them."""
    touched = {name.rpartition(".")[0] for name in removal}
    for name, module in model.named_modules(remove_duplicate=False):
        if name in touched:
            _fix(module)


def _fix(module: nn.Module) -> None:
    weight = getattr(module, "weight", None)
    if isinstance(module, nn.modules.conv._ConvNd) and isinstance(weight, Tensor):
        _fix_convolution(module, weight)
    elif isinstance(module, nn.Linear) and isinstance(weight, Tensor) and weight.ndim == 2:
        module.out_features, module.in_features = weight.shape
    elif isinstance(module, (nn.modules.batchnorm._NormBase)):
        sized = weight if isinstance(weight, Tensor) else module.running_mean
        if isinstance(sized, Tensor):
            module.num_features = sized.shape[0]
    elif isinstance(module, nn.GroupNorm) and isinstance(weight, Tensor):
        hold(module, "num_channels", weight.shape[0])
    elif isinstance(module, nn.PReLU) and isinstance(weight, Tensor):
        module.num_parameters = weight.numel()


def _fix_convolution(module: nn.modules.conv._ConvNd, weight: Tensor) -> None:
    """Depthwise convolutions lose groups; grouped ones keep them and lose positions inside each."""
    kind = getattr(module, CUT_AS, kind_of(module.groups, module.in_channels))
    if kind != "dense":
        setattr(module, CUT_AS, kind)
    if kind == "depthwise":
        multiplier = module.out_channels // module.groups
        module.groups = weight.shape[0] // (1 if module.transposed else multiplier)
        module.in_channels, module.out_channels = module.groups, module.groups * multiplier
        return
    ins, outs = (weight.shape[0], weight.shape[1]) if module.transposed else (weight.shape[1], weight.shape[0])
    ins, outs = (ins, outs * module.groups) if module.transposed else (ins * module.groups, outs)
    module.in_channels, module.out_channels = ins, outs


HELD = frozenset(("num_features", "num_channels"))
"""Attributes that a removal may set: the widths of norms without parameters."""


def hold(module: nn.Module, attribute: str, width: int) -> None:
    """Sets a width that a module keeps as a whole number and no tensor shows."""
    if isinstance(module, nn.GroupNorm):
        setattr(module, CUT_AS, "groups")
        module.num_groups = width // (module.num_channels // module.num_groups)
    setattr(module, attribute, width)
