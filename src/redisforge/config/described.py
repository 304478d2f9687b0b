"""What an option's declaration says about it, in words: description, type, bounds, unit and default. Pure."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from redisforge.config.schema import Options

_TYPES = {
    "integer": "whole number",
    "number": "number",
    "boolean": "true or false",
    "string": "text",
    "array": "list",
    "object": "section",
}


@cache
def _properties(model: type[Options]) -> dict[str, dict[str, Any]]:
    return model.model_json_schema()["properties"]


def description_of(model: type[Options], name: str) -> str:
    """The option's description; a section's is the first paragraph of its model's docstring."""
    field = model.model_fields[name]
    if field.description:
        return field.description
    paragraph = (getattr(field.annotation, "__doc__", "") or "").split("\n\n")[0]
    return " ".join(paragraph.split())


def type_of(model: type[Options], name: str) -> str:
    """The option's type: `whole number`, or `one of a, b, c`."""
    schema = _properties(model)[name]
    if "$ref" in schema:
        return "section"
    if "anyOf" in schema:
        schema = schema["anyOf"][0]
    if "enum" in schema:
        return "one of " + ", ".join(schema["enum"])
    kind = schema["type"]
    return _TYPES["string" if isinstance(kind, list) else kind]


def bounds_of(model: type[Options], name: str) -> str:
    """The values that the option may take and their unit, for example `500 to 60000 ms`; empty if any."""
    schema = _properties(model)[name]
    unit = schema.get("x-unit", "")
    if "minimum" in schema:
        return f"{schema['minimum']:g} to {schema['maximum']:.10g} {unit}".strip()
    return f"with a unit: {unit}" if unit else ""


def default_of(model: type[Options], name: str) -> str:
    """The default as it would be written; `required` if there is none, `-` for nothing."""
    field = model.model_fields[name]
    if field.is_required():
        return "required"
    default = field.get_default(call_default_factory=False)
    if default is None or default in ("", (), {}):
        return "-"
    return f"`{default if isinstance(default, str) else json.dumps(default)}`"
