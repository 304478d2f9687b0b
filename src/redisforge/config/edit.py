"""Change single options in a redisforge.yaml and leave everything else in it as it was written. Pure.

A verb that changes what is declared (the number of shards, the engine's version) must leave a file that declares what
runs. The line is changed in the text itself; the result is read again, and counts only if exactly that option differs.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from typing import Any, cast

from redisforge.config.problems import OptionPath
from redisforge.config.yaml_lines import Document, UnreadableYamlError, plain_value, read_yaml


def set_option(text: str, path: OptionPath, value: str) -> str | None:
    """The text with the option at `path` (of one or two names) set to the scalar `value`; None if that cannot be done
    without touching anything else (most of flow style, anchors, a file that cannot be read)."""
    try:
        document = read_yaml(text.encode())
    except UnreadableYamlError:
        return None
    wanted = _with(document.data or {}, path, _read_back(value))
    lines = text.splitlines(keepends=True)
    end = "\r\n" if lines and lines[0].endswith("\r\n") else "\n"
    if lines and not lines[-1].endswith(("\n", "\r")):
        lines[-1] += end
    if path in document.lines:
        changed = _replaced(lines, document.lines[path], str(path[-1]), value)
    elif len(path) == 1:
        changed = [*lines, f"{path[0]}: {value}{end}"]
    elif path[:1] in document.lines:
        line, indent = document.lines[path[:1]], _indent(lines, document, path[:1])
        changed = [*lines[:line], f"{indent}{path[1]}: {value}{end}", *lines[line:]]
    else:
        changed = [*lines, f"{path[0]}:{end}", f"  {path[1]}: {value}{end}"]
    if changed is None or wanted is None:
        return None
    result = "".join(changed)
    try:
        return result if read_yaml(result.encode()).data == wanted else None
    except UnreadableYamlError:
        return None


def set_items(text: str, path: OptionPath, items: Sequence[str]) -> str | None:
    """The text with the list at `path` replaced by `items`, each a flow mapping on a line of its own; None if that
    cannot be done without touching anything else. Comments between the old items go with them."""
    try:
        document = read_yaml(text.encode())
        values = [read_yaml(item.encode()).data for item in items]
    except UnreadableYamlError:
        return None
    wanted = _with(document.data or {}, path, values)
    start = document.lines.get(path)
    old = [line for at, line in document.lines.items() if at[: len(path)] == path and len(at) > len(path)]
    if start is None or wanted is None or not old or min(old) <= start:
        return None
    lines = text.splitlines(keepends=True)
    end = "\r\n" if lines[0].endswith("\r\n") else "\n"
    first = lines[min(old) - 1]
    indent = first[: len(first) - len(first.lstrip(" "))]
    fresh = [f"{indent}- {item}{end}" for item in items]
    result = "".join([*lines[: min(old) - 1], *fresh, *lines[max(old) :]])
    try:
        return result if read_yaml(result.encode()).data == wanted else None
    except UnreadableYamlError:
        return None


def drop_host(text: str, name: str) -> str | None:
    """The text without the host called `name` in `hosts`; as it is if there is none, None if that cannot be done
    without touching anything else, or if no host would be left."""
    try:
        document = read_yaml(text.encode())
    except UnreadableYamlError:
        return None
    wanted: Any = copy.deepcopy(document.data)
    if not isinstance(wanted, dict) or not isinstance(wanted.get("hosts"), list):  # pyright: ignore[reportUnknownMemberType]
        return text
    entries = cast("list[Any]", wanted["hosts"])
    number = next((at for at, host in enumerate(entries) if isinstance(host, dict) and host.get("name") == name), None)  # pyright: ignore[reportUnknownMemberType]
    if number is None:
        return text
    del entries[number]
    if not entries:
        return None
    lines = text.splitlines(keepends=True)
    first = document.lines["hosts", number] - 1
    later = [line - 1 for path, line in document.lines.items() if line - 1 > first and path[:2] != ("hosts", number)]
    after = _without_comments(lines, first, min(later, default=len(lines)))
    result = "".join((*lines[:first], *lines[after:]))
    try:
        return result if read_yaml(result.encode()).data == wanted else None
    except UnreadableYamlError:
        return None


def _without_comments(lines: list[str], first: int, after: int) -> int:
    """Where an entry that begins in line `first` ends, at most at `after`: comments and empty lines behind it, which
    stand before what follows, are not part of it."""
    while after > first + 1 and (not (line := lines[after - 1].strip()) or line.startswith("#")):
        after -= 1
    return after


def _read_back(value: str) -> object:
    """What YAML reads of a value as it is written here: plain, or in quotes, which make it a text in any case."""
    return value[1:-1] if value[:1] in {'"', "'"} else plain_value(value)


def _indent(lines: list[str], document: Document, section: OptionPath) -> str:
    """How the options of a section are indented: as the first of them is, or by two spaces if there is none."""
    inside = [line for path, line in document.lines.items() if path[:-1] == section and path != section]
    first = lines[min(inside) - 1] if inside else "  "
    return first[: len(first) - len(first.lstrip(" "))]


def _replaced(lines: list[str], number: int, name: str, value: str) -> list[str] | None:
    """The lines with the value of `name: value` in line `number` (from 1) replaced; a comment behind it stays."""
    match = re.fullmatch(
        rf"(\ufeff?\s*{re.escape(name)}\s*:[ \t]+)([^#\r\n]*?)([ \t]*(?:#.*)?[\r\n]*)", lines[number - 1]
    )
    if match is None:  # perhaps within the braces of a section on one line; what it becomes is read again in any case
        match = re.fullmatch(
            rf"""([^#\r\n]*?[{{,][ \t]*{re.escape(name)}[ \t]*:[ \t]+)("[^"]*"|'[^']*'|[^\s,}}"']+)(.*[\r\n]*)""",
            lines[number - 1],
        )
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
        if place.get(name) is None:  # pyright: ignore[reportUnknownMemberType]
            place[name] = {}  # a section without options reads as nothing
        place = place[name]  # pyright: ignore[reportUnknownVariableType]
    if not isinstance(place, dict):
        return None
    place[path[-1]] = value
    return changed  # pyright: ignore[reportUnknownVariableType]
