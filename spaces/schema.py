"""The JSON Schema of a study file, for editors: `python -m spaces.schema` writes `study.schema.json`.

It says less than the loader does: nothing about values that only fit together, such as events after the last epoch.
"""

import json
from pathlib import Path
from typing import Any

from spaces.catalogue import Schema, catalogue
from spaces.shape import own_fields, plan_shape, plugin_kind, types, without_references
from spaces.study import Settings

FILE = Path(__file__).with_name("study.schema.json")
_OWN_FUNCTION = {"type": "string", "pattern": "^[^:]+:[^:]+$", "description": "package.module:function"}


def study_schema() -> Schema:
    """The schema, whole: plan sections with every value openable, and the study's own sections."""
    plan, own = plan_shape(), without_references(Settings.model_json_schema())
    kinds: dict[str, dict[str, Schema]] = {kind: {} for kind in catalogue()} | {
        section: own_fields(plan["properties"][section]) for section in ("data", "model")
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A study of prunefront",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "name": {**own["properties"]["name"], "description": "the file's name where it is left out"},
            **{key: _open(section) for key, section in plan["properties"].items()},
            **{key: _tidy(section) for key, section in own["properties"].items() if key != "name"},
        },
        "required": [*plan["required"], *(key for key in own["required"] if key != "name")],
        "$defs": {kind: _plugin(kind, fields) for kind, fields in kinds.items()},
    }


def _plugin(kind: str, fields: dict[str, Schema]) -> Schema:
    """A name alone, or a mapping with the settings of that name."""
    rows = catalogue()[kind]
    whole = [
        _mapping({"name": {"const": name}, **fields, **row["settings"]}, ["name"], row["summary"])
        for name, row in rows.items()
        if row["settings"]
    ]
    bare = [name for name, row in rows.items() if not row["settings"]]
    alone = [_mapping({"name": {"enum": bare}, **fields}, ["name"], "no settings of its own")] if bare else []
    users = {"type": "object", "properties": {"name": _OWN_FUNCTION}, "required": ["name"]}
    return {"anyOf": [{"enum": list(rows)}, _OWN_FUNCTION, *whole, *alone, users]}


def _mapping(properties: dict[str, Schema], required: list[str], description: str) -> Schema:
    opened = {key: item if key == "name" else _open(item) for key, item in properties.items()}
    return {
        "type": "object",
        "description": description,
        "properties": opened,
        "required": required,
        "additionalProperties": False,
    }


def _open(schema: Schema) -> Schema:
    """A value of the plan: fixed, one of some choices, or a range where numbers are allowed."""
    beside: Schema = {key: schema[key] for key in ("description", "default") if key in schema}
    fixed = _fixed(schema)
    if "properties" in fixed:  # a section: what varies are its entries
        return {**fixed, **beside}
    open_forms: list[Schema] = [_choices(fixed)]
    if types(schema) & {"integer", "number"}:
        open_forms.append(_RANGE)
    if "array" in types(schema):
        open_forms += [{**_RANGE, "required": ["from", "to", "size"], "properties": {**_RANGE["properties"], **_SIZE}}]
    return {**beside, "anyOf": [fixed, *open_forms]}


def _fixed(schema: Schema) -> Schema:
    kind = plugin_kind(schema)
    if kind is not None:
        return {"$ref": f"#/$defs/{kind}"}
    if "anyOf" in schema:
        return {"anyOf": [_fixed(option) for option in schema["anyOf"]]}
    kept = {key: value for key, value in schema.items() if key not in ("title", "default", "description", "plugin")}
    if "properties" in kept:
        kept["properties"] = {key: _open(item) for key, item in kept["properties"].items()}
    if "items" in kept:
        kept["items"] = _open(kept["items"])
    if isinstance(kept.get("additionalProperties"), dict):
        kept["additionalProperties"] = _open(kept["additionalProperties"])
        kept["not"] = {"anyOf": [{"required": ["choices"]}, {"required": ["from"]}]}
    return kept


def _choices(option: Schema) -> Schema:
    listed = {"type": "array", "minItems": 1, "items": option}
    return {
        "type": "object",
        "properties": {"choices": listed},
        "required": ["choices"],
        "additionalProperties": False,
    }


_SIZE: Schema = {"size": {"type": "integer", "minimum": 1, "description": "as many such values, in a list"}}
_RANGE: Schema = {
    "type": "object",
    "properties": {
        "from": {"type": "number"},
        "to": {"type": "number"},
        "log": {"type": "boolean", "default": False, "description": "evenly spread in the logarithm"},
        "step": {"type": "number", "exclusiveMinimum": 0},
    },
    "required": ["from", "to"],
    "additionalProperties": False,
}


def _tidy(schema: Any) -> Any:
    """Without the titles that pydantic makes up from names."""
    if isinstance(schema, list):
        return [_tidy(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {key: _tidy(value) for key, value in schema.items() if key != "title" or isinstance(value, dict)}


def text() -> str:
    """What `study.schema.json` holds."""
    return json.dumps(study_schema(), indent=1) + "\n"


if __name__ == "__main__":
    FILE.write_text(text())
