"""Whole numbers that follow a number of channels: what a network's code reads off a shape during the trace.

`x.shape[1] // 2` still says half of the channels after a removal, the number 32 in the code does not. So a reshape
or a slice by a `Width` may be pruned, one by a plain number that counts channels may not.
"""

from collections.abc import Callable
from typing import Any


class Width(int):
    """A number proportional to a number of channels; products and quotients by whole numbers still are."""

    def __mul__(self, other: Any) -> Any:
        return _proportional(int.__mul__(self, other), other)

    __rmul__ = __mul__

    def __floordiv__(self, other: Any) -> Any:
        return _proportional(int.__floordiv__(self, other), other)

    def __add__(self, other: Any) -> Any:
        return _sum(int.__add__, self, other)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Any:
        return _sum(int.__sub__, self, other)


def _proportional(result: Any, other: Any) -> Any:
    """Twice the channels follows the channels; channels times channels does not."""
    follows = isinstance(result, int) and isinstance(other, int) and not isinstance(other, Width)
    return Width(result) if follows else result


def _sum(operation: Callable[[int, Any], Any], width: int, other: Any) -> Any:
    """The sum of two numbers that follow the channels does so too; one of them plus 8 does not."""
    result = operation(width, other)
    follows = isinstance(other, Width) or other == 0
    return Width(result) if follows and isinstance(result, int) else result


def follows(size: Any) -> bool:
    """Whether a size given to an operation changes with the number of channels; -1 is worked out, so it does."""
    return isinstance(size, Width) or (isinstance(size, int) and size == -1)
