"""A YAML file as values that know their line: strict where YAML is lenient.

Scalars follow YAML 1.2's core schema: `1e-3` is a number, `on` and `no` are words. A key that stands twice, a tag,
NaN and infinity are errors.
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import yaml

from spaces.errors import UserError

Scalar = bool | int | float | str | None


@dataclass(frozen=True)
class Place:
    """Where a value was written; `line` counts from 1 and is None for a value from the command line."""

    file: str
    line: int | None = None

    def refuse(self, message: str) -> NoReturn:
        """Raise the UserError that points here."""
        raise UserError(message, file=self.file, line=self.line)


@dataclass(frozen=True)
class Node:
    """A scalar, a list of nodes or a mapping to nodes; an entry of a mapping is placed at its key."""

    value: "Scalar | list[Node] | dict[str, Node]"
    place: Place

    @property
    def entries(self) -> "dict[str, Node]":
        """The entries of a mapping; none for anything else."""
        return self.value if isinstance(self.value, dict) else {}

    def plain(self) -> Any:
        """The value without its places."""
        if isinstance(self.value, dict):
            return {key: item.plain() for key, item in self.value.items()}
        if isinstance(self.value, list):
            return [item.plain() for item in self.value]
        return self.value


class _Loader(yaml.SafeLoader):
    """Composes nodes with the core schema's scalars in place of YAML 1.1's."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (PyYAML's own spelling)


_NULL, _BOOL, _INT, _FLOAT = (f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float"))
_FORMS = (
    (_NULL, r"(?:~|null|Null|NULL|)", ["~", "n", "N", ""]),
    (_BOOL, r"(?:true|True|TRUE|false|False|FALSE)", list("tTfF")),
    (_INT, r"[-+]?[0-9]+", list("-+0123456789")),
    (
        _FLOAT,
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        list("-+0123456789."),
    ),
)
for _tag, _form, _first in _FORMS:
    _Loader.add_implicit_resolver(_tag, re.compile(f"(?:{_form})\\Z"), _first)


def read(path: Path, what: str) -> Node:
    """The one document in a file; `what` names it in errors: `no study at spaces/digits.yml`."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"there is no such {what} file", file=path) from None
    except (OSError, UnicodeDecodeError) as error:
        reason = "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise UserError(f"this {what} file cannot be read: {reason}", file=path) from error
    return parse(text, str(path))


def parse(text: str, file: str) -> Node:
    """The one document in `text`, placed in `file`. Raises UserError with the line."""
    try:
        root = _Loader(text).get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = " ".join(part for part in (error.context, error.problem) if part)
        Place(file, mark.line + 1 if mark else None).refuse(f"this is not YAML: {problem}")
    except (yaml.YAMLError, RecursionError) as error:
        Place(file).refuse(f"this is not YAML: {' '.join(str(error).split())}")
    if root is None:
        Place(file).refuse("the file is empty")
    return _node(root, Place(file, root.start_mark.line + 1), ())


def argument(text: str, origin: str) -> Node:
    """A value given on the command line; errors point at `origin`, since a line says nothing there."""
    here = Place(origin)
    try:
        node = parse(text, origin)
    except UserError as error:
        if not text.strip():
            return Node(None, here)
        here.refuse(error.message)
    return _moved(node, here)


def _moved(node: Node, place: Place) -> Node:
    if isinstance(node.value, dict):
        return Node({key: _moved(item, place) for key, item in node.value.items()}, place)
    if isinstance(node.value, list):
        return Node([_moved(item, place) for item in node.value], place)
    return Node(node.value, place)


def _node(node: yaml.Node, place: Place, above: tuple[yaml.Node, ...]) -> Node:
    if any(node is other for other in above):
        place.refuse("this alias contains itself")
    if not node.tag.startswith("tag:yaml.org,2002:"):
        place.refuse(f"the tag {node.tag} means nothing here")
    here = (*above, node)
    if isinstance(node, yaml.MappingNode):
        entries: dict[str, Node] = {}
        for key, value in node.value:
            at = Place(place.file, key.start_mark.line + 1)
            if not isinstance(key, yaml.ScalarNode):
                at.refuse("a key must be a word")
            if key.value in entries:
                at.refuse(f"the key '{key.value}' stands twice; first on line {entries[key.value].place.line}")
            entries[key.value] = _node(value, at, here)
        return Node(entries, place)
    if isinstance(node, yaml.SequenceNode):
        return Node([_node(item, Place(place.file, item.start_mark.line + 1), here) for item in node.value], place)
    return Node(_scalar(node, place), place)


def _scalar(node: yaml.Node, place: Place) -> Scalar:
    text = str(node.value)
    try:
        if node.tag == _NULL:
            return None
        if node.tag == _BOOL:
            return {"true": True, "false": False}[text.lower()]
        if node.tag == _INT:
            return int(text)
        if node.tag == _FLOAT:
            number = float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
            if not math.isfinite(number):
                place.refuse(f"{text} is not a finite number")
            return number
    except (ValueError, KeyError):
        place.refuse(f"{text!r} is not {node.tag.rpartition(':')[2]}")
    if node.tag != "tag:yaml.org,2002:str":
        place.refuse(f"the tag {node.tag} means nothing here")
    return text
