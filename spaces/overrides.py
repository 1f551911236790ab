"""`--set path=value`: one value of a study file replaced from the command line, as if the file said so."""

import re
from collections.abc import Sequence

from spaces.document import Node, Place, argument
from spaces.errors import UserError, unknown
from spaces.template import labels

_STEP = re.compile(r"([^.\[\]=]+)|\[((?:[^\[\]]|\[[^\[\]]*\])*)\]")


def overridden(root: Node, overrides: Sequence[str]) -> Node:
    """The tree with each `path=value` put in, in turn. Raises UserError for a path that leads nowhere."""
    for text in overrides:
        origin = f"--set {text}"
        path, equals, value = text.partition("=") if "]=" not in text else _after_bracket(text)
        if not equals or not path.strip():
            raise UserError("write PATH=VALUE, as in train.epochs=10", file=origin)
        steps = [match.group(1) or f"[{match.group(2)}" for match in _STEP.finditer(path.strip())]
        root = _put(root, steps, argument(value, origin), Place(origin), "")
    return root


def _after_bracket(text: str) -> tuple[str, str, str]:
    """`prune.schedule[every(interval=3)].until=8` has an equals sign in its path."""
    depth = 0
    for index, letter in enumerate(text):
        depth += {"[": 1, "]": -1}.get(letter, 0)
        if letter == "=" and depth == 0:
            return text[:index], "=", text[index + 1 :]
    return text, "", ""


def _put(node: Node, steps: list[str], value: Node, origin: Place, path: str) -> Node:
    if not steps:
        return value
    step, rest = steps[0], steps[1:]
    if step.startswith("["):
        return _put_option(node, step[1:], rest, value, origin, path)
    below = f"{path}.{step}" if path else step
    if "choices" in node.entries:
        origin.refuse(f"'{path}' is open: name one choice, {path}[CHOICE].{step}, or replace it whole")
    if isinstance(node.value, str):  # a plug-in written by its name alone
        node = Node({"name": node}, node.place)
    if node.value is None:
        node = Node({}, node.place)
    if not isinstance(node.value, dict):
        origin.refuse(f"'{path}' is one value and has nothing below it")
    entries = dict(node.value)
    entries[step] = _put(entries.get(step, Node(None, origin)), rest, value, origin, below)
    return Node(entries, node.place)


def _put_option(node: Node, label: str, rest: list[str], value: Node, origin: Place, path: str) -> Node:
    """Into the choice called `label`, or the item of a list at that index."""
    if isinstance(node.value, list) and label.isdecimal() and int(label) < len(node.value):
        rows = list(node.value)
        rows[int(label)] = _put(rows[int(label)], rest, value, origin, f"{path}[{label}]")
        return Node(rows, node.place)
    listed = node.entries.get("choices")
    if listed is None or not isinstance(listed.value, list):
        origin.refuse(f"'{path}' has no choices to pick '{label}' from")
    names = [str(name) for name in labels(listed.value)]
    if label not in names:
        origin.refuse(unknown(f"choice of {path}", label, names))
    options = list(listed.value)
    index = names.index(label)
    options[index] = _put(options[index], rest, value, origin, f"{path}[{label}]")
    return Node({**node.entries, "choices": Node(options, listed.place)}, node.place)
