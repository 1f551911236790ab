"""A size as a study file gives it: a number of bytes, or one with its unit."""

from typing import Annotated, Any

from pydantic import BeforeValidator, ByteSize, TypeAdapter, ValidationError, WithJsonSchema

from spaces.errors import Misfit

_READER = TypeAdapter(ByteSize)


def _bytes(size: Any) -> Any:
    if size is None or (isinstance(size, int) and not isinstance(size, bool)):
        return size
    try:
        return int(_READER.validate_python(size if isinstance(size, str) else "?"))
    except ValidationError as error:
        raise Misfit(f"a size is a number of bytes or has a unit: MB, GB, TB, MiB, GiB, TiB; got {size!r}") from error


def _positive(size: int | None) -> int | None:
    if size is not None and size < 1:
        raise Misfit(f"a size is at least 1 byte; got {size}")
    return size


_SCHEMA = {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string"}, {"type": "null"}]}

Size = Annotated[int | None, BeforeValidator(lambda size: _positive(_bytes(size))), WithJsonSchema(_SCHEMA)]
"""Bytes, or None for no limit."""
