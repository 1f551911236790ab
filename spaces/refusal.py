"""What pydantic finds wrong, in the project's one voice: one line with file and line, what was got, what is allowed."""

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from pydantic import ValidationError

from spaces.catalogue import Schema
from spaces.document import Place
from spaces.errors import Misfit, UserError, shown, unknown
from spaces.shape import allowed, fields, inside, item, plan_shape

Keys = tuple[str | int, ...]


def refuse(error: ValidationError, place_of: Callable[[Sequence[Any]], Place], shape: Schema | None = None) -> NoReturn:
    """Raise the UserError for the first thing that is wrong, in the order of the file."""
    shape = plan_shape() if shape is None else shape
    details = error.errors(include_url=False)
    typos = [detail for detail in details if detail["type"] == "extra_forbidden"]  # often why another key is missing
    told = [_told(detail, shape) for detail in typos or details]
    place, message = min(((place_of(keys), message) for keys, message in told), key=lambda one: one[0].line or 0)
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
        known = fields(parent, None) or ()
        return (*above, location[-1]), unknown("key", str(location[-1]), known, inside=_dotted(above))
    if detail["type"] == "missing":
        above, _ = _known(location[:-1], shape)
        return above, f"'{location[-1]}' is missing{f' in {_dotted(above)}' if above else ''}"
    if location[-1] == "[key]":
        expected = detail.get("ctx", {}).get("expected", "")
        return location[:-1], f"unknown key '{location[-2]}' in {_dotted(location[:-2])}; known: {expected}"
    keys, schema = _known(location, shape)
    return keys, f"'{_dotted(keys)}' is {shown(detail['input'])}; allowed: {allowed(schema)}"


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
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys).removeprefix(".")
