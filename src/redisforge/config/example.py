"""The commented redisforge.yaml: every option with its description and value, made from the declaration."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, cast

from redisforge.config.described import bounds_of, description_of, type_of
from redisforge.config.schema import DEFAULT_ENDPOINTS, Declaration, HostOptions, Options
from redisforge.config.yaml_lines import plain_value

_WIDTH = 100
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]*\Z")

_HEADER = """\
The declaration of a RedisForge cluster. Every option is here with its value; a line may be removed,
and its default is then used. Check the file with:   redisforge config check
Show what follows from it with:                      redisforge config show
Passwords do not stand here: they come from .env or the environment, or are generated."""

_DIRECTIVES_EXAMPLE = """\
  # For example:
  # maxmemory-samples: 10
  # notify-keyspace-events: Ex
"""


def example_yaml(declaration: Declaration | None = None) -> str:
    """redisforge.yaml with all options of `declaration` (default: the built-in topology) and their descriptions.

    Loading the text gives the same topology again.
    """
    shown = declaration or Declaration()
    lines = [f"# {line}" for line in _HEADER.splitlines()]
    for name in Declaration.model_fields:
        lines += ["", *_entry(Declaration, name, _value(shown, name))]
    return "\n".join(lines) + "\n"


def _value(declaration: Declaration, name: str) -> Any:
    """The option's value; what depends on whether `hosts` is written is spelled out, because here it is."""
    if name == "placement" and declaration.placement.allow_shared_hosts is None:
        return {"allow_shared_hosts": "hosts" not in declaration.model_fields_set}
    value = getattr(declaration, name)
    return value.model_dump() if isinstance(value, Options) else value


def _entry(model: type[Options], name: str, value: Any) -> Iterator[str]:
    """The lines of a top-level option: its description as a comment, then its value."""
    section = model.model_fields[name].annotation
    yield from _comment(model, name, "")
    if name == "redis_conf":
        yield from _directives(value)
    elif name == "hosts":
        yield "hosts:"
        yield from _field_comments(HostOptions, "  ")
        yield from (f"  - {_flow(host.model_dump(exclude_none=True))}" for host in value)
    elif name == "endpoints":
        yield "endpoints:"
        yield from _endpoints(value)
    elif isinstance(section, type) and issubclass(section, Options):
        yield f"{name}:"
        for inner in section.model_fields:
            yield from _comment(section, inner, "  ")
            yield f"  {inner}: {_flow(value[inner])}"
    else:
        yield f"{name}: {_flow(value)}"


def _endpoints(endpoints: Mapping[str, Options]) -> Iterator[str]:
    yield from _field_comments(type(next(iter(endpoints.values()))), "  ")
    for name, endpoint in endpoints.items():
        yield f"  {name}:"
        yield from (f"    {key}: {_flow(value)}" for key, value in endpoint.model_dump().items())
    yield from (f"  {name}: null" for name in DEFAULT_ENDPOINTS if name not in endpoints)


def _directives(directives: Mapping[str, tuple[str, ...]]) -> Iterator[str]:
    if directives:
        yield "redis_conf:"
        yield from (f"  {name}: {_flow(list(values))}" for name, values in directives.items())
    else:
        yield "redis_conf: {}"
    yield from _DIRECTIVES_EXAMPLE.splitlines()


def _field_comments(model: type[Options], indent: str) -> Iterator[str]:
    for name in model.model_fields:
        yield from _comment(model, name, indent, label=f"{name}: ")


def _comment(model: type[Options], name: str, indent: str, label: str = "") -> list[str]:
    """The description of an option, with the values that it may take."""
    kind = type_of(model, name)
    allowed = bounds_of(model, name) or (kind if kind.startswith("one of") else "")
    text = f"{label}{description_of(model, name)}" + (f" [{allowed}]" if allowed else "")
    prefix = f"{indent}# "
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=prefix,
        subsequent_indent=prefix + ("  " if label else ""),
        break_on_hyphens=False,
        break_long_words=False,
    )


def _flow(value: Any) -> str:
    """A value on one line."""
    if isinstance(value, dict):
        items = cast("dict[str, Any]", value)
        return "{" + ", ".join(f"{key}: {_flow(item)}" for key, item in items.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_flow(member) for member in cast("list[Any]", value)) + "]"
    if isinstance(value, str):
        is_plain = _PLAIN.match(value) and isinstance(plain_value(value), str)
        return value if is_plain else json.dumps(value, ensure_ascii=False)
    return json.dumps(value)
