"""Change single options in a redisforge.yaml and leave everything else in it as it was written. Pure.

A verb that changes what is declared (the number of shards, the engine's version) must leave a file that declares what
runs. The line is changed in the text itself; the result is read again, and counts only if exactly that option differs.
"""

from __future__ import annotations

import copy
import re
from typing import Any

from redisforge.config.problems import OptionPath
from redisforge.config.yaml_lines import UnreadableYamlError, plain_value, read_yaml


def set_option(text: str, path: OptionPath, value: str) -> str | None:
    """The text with the option at `path` (of one or two names) set to the scalar `value`; None if that cannot be done
    without touching anything else (flow style, anchors, a file that cannot be read)."""
    try:
        document = read_yaml(text.encode())
    except UnreadableYamlError:
        return None
    wanted = _with(document.data or {}, path, _read_back(value))
    lines = text.splitlines()
    if path in document.lines:
        changed = _replaced(lines, document.lines[path], str(path[-1]), value)
    elif len(path) == 1:
        changed = [*lines, f"{path[0]}: {value}"]
    elif path[:1] in document.lines:
        line = document.lines[path[:1]]
        changed = [*lines[:line], f"  {path[1]}: {value}", *lines[line:]]
    else:
        changed = [*lines, f"{path[0]}:", f"  {path[1]}: {value}"]
    if changed is None or wanted is None:
        return None
    result = "\n".join(changed) + "\n"
    try:
        return result if read_yaml(result.encode()).data == wanted else None
    except UnreadableYamlError:
        return None


def _read_back(value: str) -> object:
    """What YAML reads of a value as it is written here: plain, or in quotes, which make it a text in any case."""
    return value[1:-1] if value[:1] in {'"', "'"} else plain_value(value)


def _replaced(lines: list[str], number: int, name: str, value: str) -> list[str] | None:
    """The lines with the value of `name: value` in line `number` (from 1) replaced; a comment behind it stays."""
    match = re.fullmatch(rf"(\s*{re.escape(name)}\s*:[ \t]+)([^#]*?)([ \t]*(?:#.*)?)", lines[number - 1])
    if match is None:
        return None
    return [*lines[: number - 1], f"{match[1]}{value}{match[3]}", *lines[number:]]


def _with(data: Any, path: OptionPath, value: object) -> Any:
    """A copy of the data with one option set; None if it has no place for it."""
    changed: Any = copy.deepcopy(data)
    place: Any = changed
    for name in path[:-1]:
        if not isinstance(place, dict):
            return None
        place = place.setdefault(name, {})  # pyright: ignore[reportUnknownMemberType,reportUnknownVariableType]
    if not isinstance(place, dict):
        return None
    place[path[-1]] = value
    return changed  # pyright: ignore[reportUnknownVariableType]
