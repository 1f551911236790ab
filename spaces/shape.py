"""What each place of a plan allows, as JSON Schema: read off `Plan` and the catalogue of plug-ins."""

from functools import cache
from typing import Any

from spaces.catalogue import Schema, catalogue, describe
from spaces.plan import Plan
from spaces.plugin import PLUGIN


@cache
def plan_shape() -> Schema:
    """The JSON Schema of a plan without references; `plugin` marks where a plug-in of that kind stands."""
    return without_references(Plan.model_json_schema())


def without_references(schema: Schema) -> Schema:
    """The schema with every definition written where it is used."""
    shape: Schema = _whole(schema, schema.get("$defs", {}))
    return shape


def _whole(schema: Any, definitions: Schema) -> Any:
    if isinstance(schema, list):
        return [_whole(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        beside = {key: value for key, value in schema.items() if key != "$ref"}
        return {**_whole(definitions[schema["$ref"].rpartition("/")[2]], definitions), **_whole(beside, definitions)}
    return {key: _whole(value, definitions) for key, value in schema.items() if key != "$defs"}


def options(schema: Schema) -> list[Schema]:
    """The alternatives of a schema; itself where there is one."""
    return [leaf for option in schema["anyOf"] for leaf in options(option)] if "anyOf" in schema else [schema]


def plugin_kind(schema: Schema) -> str | None:
    """The kind of the plug-in that stands here, if one does."""
    return schema.get(PLUGIN)


def own_fields(schema: Schema) -> dict[str, Schema]:
    """What a plug-in of this place has beside its settings: `root` of data, `weights` of a model."""
    return {key: item for key, item in schema.get("properties", {}).items() if key not in ("name", "settings")}


def fields(schema: Schema, name: str | None) -> dict[str, Schema] | None:
    """What may stand below this place, given the plug-in's `name` where one stands here; None: anything."""
    found: dict[str, Schema] = {}
    for option in options(schema):
        kind = plugin_kind(option)
        if kind is not None:
            row = catalogue()[kind].get(name or "")
            if row is None:
                return None
            return {"name": {"type": "string"}, **own_fields(option), **row["settings"]}
        if "additionalProperties" in option and option["additionalProperties"] is not False:
            return None
        found.update(option.get("properties", {}))
    return found if found else None


def inside(schema: Schema, key: str, name: str | None = None) -> Schema:
    """The schema of entry `key`; an empty one, which allows anything, where nothing is known."""
    known = fields(schema, name)
    if known is not None:
        return known.get(key, {})
    for option in options(schema):
        kind, below = plugin_kind(option), option.get("additionalProperties")
        if kind is not None and key in own_fields(option):
            return own_fields(option)[key]
        if kind is None and isinstance(below, dict):
            return below
    return {}


def item(schema: Schema) -> Schema:
    """The schema of a list's items; an empty one where nothing is known."""
    return next((option["items"] for option in options(schema) if "items" in option), {})


def types(schema: Schema) -> set[str]:
    """The JSON types a place allows; empty where nothing is known."""
    return {option["type"] for option in options(schema) if "type" in option}


def allowed(schema: Schema) -> str:
    """What a place allows, in words."""
    words = {kind: f"the name of a {kind}, or a mapping with name and settings" for kind in _kinds(schema)}
    return " or ".join(words.get(plugin_kind(option) or "", describe(option)) for option in options(schema))


def _kinds(schema: Schema) -> list[str]:
    return [kind for option in options(schema) if (kind := plugin_kind(option)) is not None]
