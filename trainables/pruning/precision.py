"""Which number formats an event can work in: a network that a CPU cannot compute properly is refused by layer."""

import torch
from torch import nn

from spaces.errors import UserError


def refuse_half_precision(model: nn.Module) -> None:
    """Raises UserError, naming the first such layer, where weights or buffers on a CPU are float16.

    A CPU has no arithmetic of its own for float16, and its range ends at 65504: sums of squares overflow, so that
    scores and checks say nothing. bfloat16, with the range of float32, may stay.
    """
    for path, module in model.named_modules():
        own = (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
        for name, tensor in own:
            if tensor.dtype == torch.float16 and tensor.device.type == "cpu":
                raise UserError(
                    f"layer '{path or name}' is in half precision (float16) on a CPU; allowed there are float32, "
                    "float64 and bfloat16: use model.float(), or train.precision: bfloat16 to compute faster"
                )
