"""Every plug-in's name, settings, ranges and defaults, read from `plugins.json` so that no torch is imported.

`plugins.json` is generated from the tables in `trainables` (`python -m trainables.catalogue`); a test keeps it current.
Each setting is a JSON Schema fragment with a default.
"""

import json
import math
from collections.abc import Iterable
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from typing import Any

from spaces.errors import Misfit, shown, unknown

Schema = dict[str, Any]


@cache
def catalogue() -> dict[str, dict[str, dict[str, Any]]]:
    """kind -> name -> {"summary": str, "settings": {setting: schema with default}}."""
    loaded: dict[str, dict[str, dict[str, Any]]] = json.loads(files("spaces").joinpath("plugins.json").read_text())
    return loaded


def prunes_weights(kind: str, name: str) -> bool:
    """Whether a criterion or an allocation can deal with single weights as well as with channels."""
    return bool(catalogue()[kind][name].get("weights", False))


def complete(kind: str, name: str, settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of plug-in `name` with every default written out, numbers in the type the setting has.

    Raises Misfit in the project's one voice: unknown name, unknown setting, or a value outside what is allowed.
    """
    rows = catalogue()[kind]
    if name not in rows:
        raise Misfit(unknown(kind, name, rows), "name")
    schemas: dict[str, Schema] = rows[name]["settings"]
    for setting, value in settings.items():
        if setting not in schemas:
            known = ", ".join(schemas) or "none"
            raise Misfit(
                f"{kind} '{name}' has no setting '{setting}'{_hint(setting, schemas)} settings: {known}", setting
            )
        if not fits(value, schemas[setting]):
            allowed = describe(schemas[setting])
            raise Misfit(f"setting '{setting}' of {kind} '{name}' is {shown(value)}; allowed: {allowed}", setting)
    return {setting: typed(settings.get(setting, schema.get("default")), schema) for setting, schema in schemas.items()}


def _hint(got: str, known: Iterable[str]) -> str:
    close = get_close_matches(got, list(known), n=1)
    return f"; did you mean '{close[0]}'?" if close else ";"


def typed(value: Any, schema: Schema) -> Any:
    """An integer where the schema wants a number becomes one, so that `1` and `1.0` make equal plans."""
    if "anyOf" in schema:
        matching = [option for option in schema["anyOf"] if fits(value, option)]
        return typed(value, matching[0]) if matching else value
    if isinstance(value, int) and not isinstance(value, bool) and schema.get("type") == "number":
        return float(value)
    if isinstance(value, (list, tuple)):
        return [typed(item, schema.get("items", {})) for item in value]
    if isinstance(value, dict):
        return {key: typed(item, schema.get("additionalProperties", {})) for key, item in value.items()}
    return value


def fits(value: Any, schema: Schema) -> bool:
    """Whether a value is allowed by the part of JSON Schema that the catalogue uses."""
    if "anyOf" in schema:
        return any(fits(value, option) for option in schema["anyOf"])
    if "enum" in schema:
        return value in schema["enum"]
    if "const" in schema:
        return bool(value == schema["const"])
    match schema.get("type"):
        case "boolean":
            return isinstance(value, bool)
        case "null":
            return value is None
        case "string":
            return isinstance(value, str)
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool) and _within(value, schema)
        case "number":
            return isinstance(value, (int, float)) and not isinstance(value, bool) and _within(value, schema)
        case "array":
            return (
                isinstance(value, (list, tuple))
                and schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", math.inf)
                and all(fits(item, schema.get("items", {})) for item in value)
            )
        case "object":
            inner = schema.get("additionalProperties") or {}
            return isinstance(value, dict) and all(fits(item, inner) for item in value.values())
    return True


def _within(value: float, schema: Schema) -> bool:
    return (
        math.isfinite(value)
        and value >= schema.get("minimum", -math.inf)
        and value <= schema.get("maximum", math.inf)
        and value > schema.get("exclusiveMinimum", -math.inf)
        and value < schema.get("exclusiveMaximum", math.inf)
    )


def describe(schema: Schema) -> str:
    """What a schema allows, in words: `integer from 1`, `one of: paper, stable`."""
    if "anyOf" in schema:
        return " or ".join(describe(option) for option in schema["anyOf"])
    if "enum" in schema:
        return "one of: " + ", ".join(str(item) for item in schema["enum"])
    if "const" in schema:
        return str(schema["const"])
    kind = str(schema.get("type", "anything"))
    words = {"boolean": "true or false", "string": "text"}
    if kind == "array":
        return f"a list of {describe(schema.get('items', {}))}"
    if kind == "object":
        return f"a mapping to {describe(schema.get('additionalProperties') or {})}"
    bounds = (
        ("minimum", "from"),
        ("exclusiveMinimum", "above"),
        ("maximum", "to"),
        ("exclusiveMaximum", "below"),
    )
    parts = [f"{word} {schema[key]:g}" for key, word in bounds if key in schema]
    return " ".join([words.get(kind, kind), *parts])
