"""A plan with some values left open: the tree a study file describes, and the parameters that stand in it.

The space is flat: every parameter always has a value, and a plan takes up those that its choices make active.
Paths: `prune.criterion` is a choice; `prune.criterion[frs].mode` a setting of one choice; `keeps[0]` the first of a
vector.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from spaces.catalogue import Schema
from spaces.document import Node, Place
from spaces.domains import Choices, Domain, Range, Value, quantised
from spaces.errors import shown, unknown
from spaces.shape import allowed, inside, item, plan_shape, types

_RANGE_KEYS = ("from", "to", "log", "step", "size")
_LONGEST = 1000  # numbers in a vector: no sampler can make use of more


@dataclass(frozen=True)
class Parameter:
    """One open value. It is active where every (path, value) of `when` is chosen; else plans leave it out."""

    path: str
    domain: Domain
    when: tuple[tuple[str, Value], ...] = ()


@dataclass(frozen=True)
class Template:
    """A place of the plan: fixed (`value`), a mapping or a list of further places, or open (`parameter`).

    Below an open place with choices stand its `options`, by label; one that is a range has none.
    """

    place: Place
    value: Value = None
    entries: dict[str, "Template"] | None = None
    items: tuple["Template", ...] | None = None
    parameter: Parameter | None = None
    options: dict[Value, "Template"] = field(default_factory=dict)

    def parameters(self) -> Iterator[Parameter]:
        """Every open value, in the order of the file."""
        if self.parameter is not None:
            yield self.parameter
        below = [*(self.entries or {}).values(), *(self.items or ()), *self.options.values()]
        for template in below:
            yield from template.parameters()

    def resolve(self, choices: Mapping[str, Value]) -> Any:
        """The plain value with every open place filled in; choices that are not active are not looked at."""
        if self.parameter is not None:
            chosen = self.parameter.domain.taken(choices[self.parameter.path])
            return self.options[chosen].resolve(choices) if self.options else chosen
        if self.entries is not None:
            return {key: entry.resolve(choices) for key, entry in self.entries.items()}
        if self.items is not None:
            return [one.resolve(choices) for one in self.items]
        return self.value

    def active(self, choices: Mapping[str, Value]) -> Iterator[Parameter]:
        """The parameters that a plan with these choices depends on."""
        for parameter in self.parameters():
            if all(choices[path] == value for path, value in parameter.when):
                yield parameter

    def place_of(self, keys: Sequence[Any], choices: Mapping[str, Value]) -> Place:
        """Where the value at `keys` was written, as near as the file says."""
        if self.parameter is not None and self.options:
            return self.options[self.parameter.domain.taken(choices[self.parameter.path])].place_of(keys, choices)
        if keys and self.entries is not None and keys[0] in self.entries:
            return self.entries[keys[0]].place_of(keys[1:], choices)
        if keys and self.items is not None and isinstance(keys[0], int) and keys[0] < len(self.items):
            return self.items[keys[0]].place_of(keys[1:], choices)
        return self.place


def template_of(root: Node) -> Template:
    """The template that the plan's part of a study file describes. Raises UserError where a domain is impossible."""
    return _template(root, "", (), plan_shape())


When = tuple[tuple[str, Value], ...]


def _template(node: Node, path: str, when: When, shape: Schema) -> Template:
    if "choices" in node.entries and "name" not in node.entries:
        return _choices(node, path, when, shape)
    if ("from" in node.entries or "to" in node.entries) and "name" not in node.entries:
        return _range(node, path, when, shape)
    if isinstance(node.value, dict):
        name = node.entries["name"].value if "name" in node.entries else None
        named = name if isinstance(name, str) else None
        entries = {
            key: _template(entry, f"{path}.{key}" if path else key, when, inside(shape, key, named))
            for key, entry in node.entries.items()
        }
        return Template(node.place, entries=entries)
    if isinstance(node.value, list):
        rows = [_template(one, f"{path}[{index}]", when, item(shape)) for index, one in enumerate(node.value)]
        return Template(node.place, items=tuple(rows))
    return Template(node.place, value=node.value)


def _choices(node: Node, path: str, when: When, shape: Schema) -> Template:
    _refuse_keys(node, path, ("choices", "size"))
    listed = node.entries["choices"]
    if not isinstance(listed.value, list) or not listed.value:
        listed.place.refuse(f"the choices of '{path}' must be a list of at least one")
    if "size" in node.entries:
        return _vector(node, path, when, shape)
    options: dict[Value, Template] = {}
    for option, label in zip(listed.value, labels(listed.value), strict=True):
        if label in options:
            option.place.refuse(f"'{path}' has the choice {label} twice")
        if "choices" in option.entries or "from" in option.entries:
            option.place.refuse(f"a choice of '{path}' cannot itself be a range or choices; its settings can")
        options[label] = _template(option, f"{path}[{label}]", (*when, (path, label)), shape)
    parameter = Parameter(path, Choices(values=tuple(options)), when)
    return Template(node.place, parameter=parameter, options=options)


def labels(options: list[Node]) -> list[Value]:
    """What the search calls each choice: a scalar itself, a plug-in its name, with settings where names are equal."""
    names = [_name(option) for option in options]
    return [
        _written(option) if isinstance(name, str) and names.count(name) > 1 and option.entries else name
        for option, name in zip(options, names, strict=True)
    ]


def _name(option: Node) -> Value:
    if isinstance(option.value, (dict, list)):
        name = option.entries["name"].value if "name" in option.entries else None
        return name if isinstance(name, str) else _written(option)
    return option.value


def _written(option: Node) -> str:
    """A choice with settings in one word: `every(interval=3)`, `keep_macs=0.5`, `[64, 128]`."""
    if isinstance(option.value, list):
        return f"[{', '.join(_written(one) for one in option.value)}]"
    if not isinstance(option.value, dict):
        return "null" if option.value is None else str(option.value)
    settings = ", ".join(f"{key}={_written(entry)}" for key, entry in option.value.items() if key != "name")
    return f"{option.value['name'].value}({settings})" if "name" in option.value else settings


def _range(node: Node, path: str, when: When, shape: Schema) -> Template:
    _refuse_keys(node, path, _RANGE_KEYS)
    if "size" in node.entries:
        return _vector(node, path, when, shape)
    for key in ("from", "to"):
        if key not in node.entries:
            node.place.refuse(f"the range of '{path}' has no '{key}'")
    kinds = types(shape)
    if shape and not kinds & {"integer", "number"}:
        node.place.refuse(f"'{path}' takes no range; allowed: {allowed(shape)}")
    low, high = _number(node, path, "from"), _number(node, path, "to")
    step = _number(node, path, "step") if "step" in node.entries else None
    integers = all(isinstance(number, int) for number in (low, high, step or 0))
    if kinds and "number" not in kinds and not integers:
        node.place.refuse(f"the range of '{path}' has fractions; allowed: {allowed(shape)}")
    log = node.entries["log"].value if "log" in node.entries else False
    if not isinstance(log, bool):
        node.entries["log"].place.refuse(f"log of '{path}' is {shown(log)}; allowed: true or false")
    try:
        whole = integers and kinds != {"number"}
        domain = Range(low=_end(low), high=_end(high), log=log, step=step, whole=whole)
    except ValidationError as error:
        reason = str(error.errors()[0].get("ctx", {}).get("error", error.errors()[0]["msg"]))
        node.entries["from"].place.refuse(f"the range of '{path}' is impossible: {reason}")
    return Template(node.place, parameter=Parameter(path, domain, when))


def _end(number: int | float) -> float:
    return float(number) if isinstance(number, int) else quantised(number)


def _number(node: Node, path: str, key: str) -> int | float:
    value = node.entries[key].value
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        got = node.entries[key].plain()
        node.entries[key].place.refuse(f"{key} in the range of '{path}' is {shown(got)}; allowed: a number")
    return value


def _vector(node: Node, path: str, when: When, shape: Schema) -> Template:
    size = node.entries["size"]
    if isinstance(size.value, bool) or not isinstance(size.value, int) or not 1 <= size.value <= _LONGEST:
        size.place.refuse(f"size of '{path}' is {shown(size.plain())}; allowed: integer from 1 to {_LONGEST}")
    if shape and "array" not in types(shape):
        size.place.refuse(f"'{path}' is no list, so it takes no size")
    one = Node({key: entry for key, entry in node.entries.items() if key != "size"}, node.place)
    return Template(
        node.place,
        items=tuple(_template(one, f"{path}[{index}]", when, item(shape)) for index in range(size.value)),
    )


def _refuse_keys(node: Node, path: str, known: tuple[str, ...]) -> None:
    for key, entry in node.entries.items():
        if key not in known:
            what = "choices" if "choices" in known else "range"
            entry.place.refuse(unknown("key", key, known, inside=f"the {what} of '{path}'"))
