"""What pydantic finds wrong, in the project's one voice: one line with file and line, what was got, what is allowed."""

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from pydantic import ValidationError

from spaces.catalogue import Schema
from spaces.document import Place
from spaces.errors import Misfit, UserError, unknown
from spaces.shape import allowed, fields, inside, item, plan_shape

Keys = tuple[str | int, ...]


def refuse(error: ValidationError, place_of: Callable[[Sequence[Any]], Place], shape: Schema | None = None) -> NoReturn:
    """Raise the UserError for the first thing that is wrong, in the order of the file."""
    shape = plan_shape() if shape is None else shape
    found = []
    for detail in error.errors(include_url=False):
        keys, message = _told(detail, shape)
        found.append((place_of(keys), message))
    place, message = min(found, key=lambda one: one[0].line or 0)
    raise UserError(message, file=place.file, line=place.line) from error


def _told(detail: Any, shape: Schema) -> tuple[Keys, str]:
    """The keys that lead to the fault as the file writes them, and what to say about it."""
    location: Keys = tuple(detail["loc"])
    cause = detail.get("ctx", {}).get("error")
    if isinstance(cause, Misfit):
        return (*_known(location, shape)[0], *cause.below), str(cause)
    if isinstance(cause, ValueError):
        return _known(location, shape)[0], str(cause)
    if detail["type"] == "extra_forbidden":
        above, parent = _known(location[:-1], shape)
        return (*above, location[-1]), f"{unknown('key', str(location[-1]), fields(parent, None) or ())}{_in(above)}"
    if detail["type"] == "missing":
        above, _ = _known(location[:-1], shape)
        return above, f"'{location[-1]}' is missing{_in(above)}"
    keys, schema = _known(location, shape)
    return keys, f"'{_dotted(keys)}' is {_short(detail['input'])}; allowed: {allowed(schema)}"


def _known(location: Keys, shape: Schema) -> tuple[Keys, Schema]:
    """Pydantic names the members of unions too, and `settings`: keep what the file has, and find its schema."""
    keys: list[str | int] = []
    for key in location:
        if isinstance(key, int):
            shape = item(shape)
        else:
            below = fields(shape, None)
            if below is not None and key not in below:
                break
            if below is None and not inside(shape, key):
                break
            shape = inside(shape, key)
        keys.append(key)
    return tuple(keys), shape


def _dotted(keys: Keys) -> str:
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys).removeprefix(".") or "the file"


def _in(keys: Keys) -> str:
    return f" in {_dotted(keys)}" if keys else ""


def _short(value: Any) -> str:
    text = repr(list(value) if isinstance(value, tuple) else value)
    return text if len(text) <= 60 else f"{text[:57]}..."
