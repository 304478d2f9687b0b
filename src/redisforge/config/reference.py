"""The pages of docs/reference that follow from the declaration. Pure; scripts/generate.py writes them.

- `config.md`: `reference_markdown()`
- `env.md`: `environment_markdown()`
- `redisforge.schema.json`: `json_schema_text()`
- `redisforge.example.yaml`: `example_yaml()`
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, cast

from redisforge.config.deployment import DERIVED
from redisforge.config.deployment import VARIABLES as DEPLOY_VARIABLES
from redisforge.config.described import bounds_of, default_of, description_of, type_of
from redisforge.config.environment import OPTION_VARIABLES, PASSWORD_VARIABLES, TOOL_VARIABLES
from redisforge.config.example import example_yaml
from redisforge.config.external import ExternalNodeOptions
from redisforge.config.passwords import MIN_DIFFERENT_CHARACTERS, MIN_LENGTH
from redisforge.config.problems import dotted
from redisforge.config.schema import (
    DEFAULT_ENDPOINTS,
    Declaration,
    EndpointOptions,
    HostOptions,
    Options,
    UserOptions,
)

__all__ = ["environment_markdown", "example_yaml", "json_schema", "json_schema_text", "reference_markdown"]

_HEAD = ("| Option | Type | Default | Meaning |", "| --- | --- | --- | --- |")

_REFERENCE_INTRO = """\
# redisforge.yaml

The file is optional: without it the built-in topology is used, which is every default below. An unknown key is an
error, and all problems are shown at once, each with its line. Names are the same in the file, in
`redisforge config show` and in messages. `redisforge init` writes a
[commented example](redisforge.example.yaml); editors can use the [JSON Schema](redisforge.schema.json), which
`redisforge config schema` prints too.

What the environment or `.env` sets wins over the file: see [env.md](env.md). Relative paths start at the folder of
the file. Words without quotes are read as YAML 1.2 reads them: only `true` and `false` are booleans.

This page is generated from the declaration (`src/redisforge/config/schema.py`).
"""

_ENVIRONMENT_INTRO = f"""\
# Environment and .env

The process environment wins over `.env`, which wins over `redisforge.yaml`. `.env` is read from the folder of
`redisforge.yaml`, or from the current folder if there is no `redisforge.yaml`. `redisforge config show` lists the
names that took effect and where each came from.

`.env` holds `NAME=value` lines; `export`, comments, single and double quotes are understood, and a `$` stands for
itself. The names are those of the usual convention for a Redis Cluster behind Envoy, in which every node has a host
of its own. A file of that convention works unchanged: names that mean nothing here (ENVOY_RETRY_ATTEMPTS,
REDIS_EXPORTER_PORT, BACKUP_DIR and others) are ignored, and so is every name that is not in the tables below. Those of
"Host by host" are for `redisforge deploy` alone.

A password has at least {MIN_LENGTH} characters, at least {MIN_DIFFERENT_CHARACTERS} different ones, is no placeholder
(CHANGE_ME) and not made of common words. One that is not given is generated.

This page is generated from the declaration (`src/redisforge/config/environment.py`).
"""


_TOOL_INTRO = "These are read from the process environment alone, and not from `.env`."
_DEPLOY_INTRO = f"""\
`redisforge deploy redis|envoy`, run on each host, reads these as well; the .env of the hosts differ in
REDIS_CLUSTER_ANNOUNCE_IP alone. All passwords must be given, the same on every host; only {DERIVED} may be left out: it
then follows from REDIS_REQUIREPASS. See [deploy.md](../deploy.md)."""


def reference_markdown() -> str:
    """The page of all options."""
    plain = [name for name in Declaration.model_fields if _section_of(name) is None]
    sections = [name for name in Declaration.model_fields if _section_of(name) is not None]
    lines = [_REFERENCE_INTRO, "## Top level", "", *_table(Declaration, plain)]
    for name in sections:
        section = _section_of(name)
        assert section is not None
        lines += ["", f"## {name}", "", description_of(Declaration, name), ""]
        if name == "users":
            lines += _users_table(section)
        else:
            lines += _table(section, list(section.model_fields))
        if name == "external":
            lines += ["", "Each of `nodes`:", ""]
            lines += _table(ExternalNodeOptions, list(ExternalNodeOptions.model_fields))
        if name == "endpoints":
            lines += ["", "There by default:", "", *_default_endpoints()]
    return "\n".join(lines) + "\n"


def environment_markdown() -> str:
    """The page of all names that the environment and .env may hold."""
    lines = [_ENVIRONMENT_INTRO, "## Options", "", "| Name | Option | Note |", "| --- | --- | --- |"]
    lines += [f"| `{option.name}` | `{dotted(option.path)}` | {_cell(option.note)} |" for option in OPTION_VARIABLES]
    lines += ["", "## Passwords", "", "| Name | Password of |", "| --- | --- |"]
    lines += [f"| `{name}` | the {role} user |" for name, role in PASSWORD_VARIABLES.items()]
    lines += ["", "## RedisForge itself", "", _TOOL_INTRO, "", "| Name | Meaning |", "| --- | --- |"]
    lines += [f"| `{name}` | {_cell(meaning)} |" for name, meaning in TOOL_VARIABLES.items()]
    lines += ["", "## Host by host", "", _DEPLOY_INTRO, "", "| Name | Meaning |", "| --- | --- |"]
    for names, meaning in DEPLOY_VARIABLES.items():
        lines.append(f"| {', '.join(f'`{name}`' for name in names.split(', '))} | {_cell(meaning)} |")
    return "\n".join(lines) + "\n"


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of redisforge.yaml, for editors and other programs."""
    schema = _without_titles(Declaration.model_json_schema())
    endpoint: dict[str, Any] = schema["$defs"]["EndpointOptions"]
    partial = {key: value for key, value in endpoint.items() if key != "required"}
    schema["$defs"]["DefaultEndpointOptions"] = partial | {
        "description": "An endpoint that is there by default: a few fields may be changed."
    }
    changed: dict[str, Any] = {"$ref": "#/$defs/DefaultEndpointOptions"}
    switchable: dict[str, Any] = {"anyOf": [changed, {"type": "null"}]}
    endpoints = schema["properties"]["endpoints"]
    # pydantic binds the options to the pattern of the names, which would bind the default endpoints as well
    pattern, own = endpoints.pop("patternProperties").popitem()
    endpoints["propertyNames"] = {"pattern": pattern}
    endpoints["additionalProperties"] = own
    endpoints["properties"] = {name: changed if name == "primary" else switchable for name in DEFAULT_ENDPOINTS}
    for name, options in schema["properties"].items():
        if "$ref" in options or name in {"endpoints", "redis_conf"}:
            _allow_nothing(schema["properties"], name)
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "redisforge.yaml",
    }
    return head | schema


def json_schema_text() -> str:
    """`json_schema()` as the file holds it."""
    return json.dumps(json_schema(), indent=2) + "\n"


def _allow_nothing(properties: dict[str, Any], name: str) -> None:
    """A section may be written without content."""
    inner = properties[name]
    default = inner.pop("default", None)
    description = inner.pop("description", description_of(Declaration, name))
    properties[name] = {"anyOf": [inner, {"type": "null"}], "description": description, "default": default}


def _without_titles(schema: Any) -> Any:
    """Drop pydantic's titles, which only repeat the names (a `title` that is text, not an option)."""
    if isinstance(schema, dict):
        items = cast("dict[str, Any]", schema)
        return {
            key: _without_titles(value)
            for key, value in items.items()
            if not (key == "title" and isinstance(value, str))
        }
    if isinstance(schema, list):
        return [_without_titles(member) for member in cast("list[Any]", schema)]
    return schema


def _section_of(name: str) -> type[Options] | None:
    """The model whose options the page shows below `name`, or None for an option of its own."""
    if name in {"hosts", "endpoints"}:
        return HostOptions if name == "hosts" else EndpointOptions
    annotation: Any = Declaration.model_fields[name].annotation
    return annotation if isinstance(annotation, type) and issubclass(annotation, Options) else None


def _table(model: type[Options], names: list[str]) -> Iterator[str]:
    yield from _HEAD
    for name in names:
        kind = ", ".join(part for part in (type_of(model, name), bounds_of(model, name)) if part)
        meaning = _cell(description_of(model, name))
        yield f"| `{name}` | {kind} | {default_of(model, name)} | {meaning} |"


def _users_table(section: type[Options]) -> Iterator[str]:
    yield from _HEAD
    for role, field in section.model_fields.items():
        user: UserOptions = field.default
        yield f"| `{role}.name` | text | `{user.name}` | {_cell(description_of(section, role))} |"


def _default_endpoints() -> Iterator[str]:
    names = list(EndpointOptions.model_fields)
    yield "| Endpoint | " + " | ".join(names) + " |"
    yield "| --- |" + " --- |" * len(names)
    for name, endpoint in DEFAULT_ENDPOINTS.items():
        cells = [json.dumps(value).strip('"') for value in endpoint.model_dump().values()]
        yield f"| `{name}` | " + " | ".join(cells) + " |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
