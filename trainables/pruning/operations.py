"""What each torch operation does to channel labels, by name. One that is not here freezes what it reads."""

from typing import Any

from trainables.pruning.elementwise import ELEMENTWISE
from trainables.pruning.layers import LAYERS
from trainables.pruning.movement import MOVEMENT
from trainables.pruning.norms import NORMS
from trainables.pruning.products import PRODUCTS
from trainables.pruning.reductions import REDUCTIONS
from trainables.pruning.shuffles import SHUFFLES
from trainables.pruning.splits import SPLITS
from trainables.pruning.tracer import Handler, Tracer, argument, label, nothing, tensors_of, words


def like(tracer: Tracer, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
    """A new tensor of the same shape follows the shape of its model."""
    label(out, tracer.read(argument(args, kwargs, 0, "input")))


def constant(tracer: Tracer, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
    """A new tensor without channels."""
    for tensor in tensors_of(out):
        label(tensor, nothing(tensor))


HANDLERS: dict[str, Handler] = {
    **ELEMENTWISE,
    **REDUCTIONS,
    **dict.fromkeys(words("zeros_like ones_like empty_like full_like rand_like randn_like"), like),
    **dict.fromkeys(
        words(
            "zeros ones empty full arange linspace rand randn randint tensor eye new_zeros new_ones new_empty new_full "
            "new_tensor scalar_tensor as_tensor from_numpy set_grad_enabled is_grad_enabled"
        ),
        constant,
    ),
    **LAYERS,
    **NORMS,
    **PRODUCTS,
    **MOVEMENT,
    **SPLITS,
    **SHUFFLES,
}
