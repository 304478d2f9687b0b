"""YAML with comments, from plain data: what an operator reads at night explains itself.

Only what configuration files need: mappings, lists, strings, numbers, booleans. A value wrapped in `Noted` is
printed with its note as comment lines above it. Every string that YAML could read as something else is
quoted.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import msgspec

_COMMENT_WIDTH = 100
_PLAIN = re.compile(r"[A-Za-z_/][A-Za-z0-9_./-]*")
# YAML 1.1 reads these words as booleans or null (https://yaml.org/type/bool.html, /null.html).
_RESERVED = frozenset({"y", "n", "yes", "no", "true", "false", "on", "off", "null"})
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


class Noted(msgspec.Struct, frozen=True):
    """A value and the comment that explains it."""

    value: Value
    note: str


Scalar: TypeAlias = str | int | float | bool
Value: TypeAlias = "Scalar | Mapping[str, Value] | Sequence[Value] | Noted"


def to_yaml(document: Mapping[str, Value], *, header: str = "") -> str:
    """Return `document` as YAML text that ends with a newline; `header` becomes its first comment."""
    lines = [*_comment(header, 0), *_mapping(document, 0)]
    return "\n".join(lines) + "\n"


def _comment(note: str, indent: int) -> list[str]:
    prefix = " " * indent + "# "
    lines: list[str] = []
    for paragraph in note.splitlines():
        wrapped = textwrap.wrap(paragraph, _COMMENT_WIDTH - indent) or [""]
        lines += [(prefix + line).rstrip() for line in wrapped]
    return lines


def _mapping(mapping: Mapping[str, Value], indent: int) -> list[str]:
    lines: list[str] = []
    for key, entry in mapping.items():
        value = entry.value if isinstance(entry, Noted) else entry
        if isinstance(entry, Noted):
            lines += _comment(entry.note, indent)
        lines += _entry(" " * indent + quote(key) + ":", value, indent)
    return lines


def _entry(start: str, value: Value, indent: int) -> list[str]:
    if isinstance(value, Mapping):
        return [start, *_mapping(value, indent + 2)] if value else [f"{start} {{}}"]
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [start, *_sequence(value, indent + 2)] if value else [f"{start} []"]
    if isinstance(value, Noted):
        return _entry(start, value.value, indent)
    return [f"{start} {_scalar(value)}"]


def _sequence(items: Sequence[Value], indent: int) -> list[str]:
    lines: list[str] = []
    for item in items:
        value = item.value if isinstance(item, Noted) else item
        if isinstance(item, Noted):
            lines += _comment(item.note, indent)
        if isinstance(value, Mapping) and value:
            lines += _hung(_mapping(value, indent + 2), indent)
        else:
            lines += _entry(" " * indent + "-", value, indent)
    return lines


def _hung(lines: list[str], indent: int) -> list[str]:
    """Hang a mapping on its dash. Comments before its first key stay above the dash."""
    first = next(index for index, line in enumerate(lines) if not line.lstrip().startswith("#"))
    above = [line[2:] for line in lines[:first]]
    dashed = " " * indent + "- " + lines[first][indent + 2 :]
    return [*above, dashed, *lines[first + 1 :]]


def _scalar(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return quote(value) if isinstance(value, str) else str(value)


def quote(text: str) -> str:
    """Return `text` as a YAML scalar that every reader takes for exactly this string."""
    if _PLAIN.fullmatch(text) and text.lower() not in _RESERVED:
        return text
    return '"' + "".join(_escaped(character) for character in text) + '"'


def _escaped(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
