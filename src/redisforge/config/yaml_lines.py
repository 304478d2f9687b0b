"""YAML with line numbers, for files that nobody vouches for.

PyYAML's scanner and parser turn the text into events; the values are built here. That gives the line of every
key and item, refuses duplicate keys, and bounds depth and size, aliases included, so that no file can exhaust
memory or stack. Plain words are read as YAML 1.2 reads them: only true and false are booleans, so `fsync: no`
is the text "no". A number keeps its spelling (values.WrittenFloat): `version: 8.10` is not 8.1.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from redisforge.config.problems import OptionPath, dotted
from redisforge.config.values import WrittenFloat

if TYPE_CHECKING:
    import yaml

MAX_BYTES = 256 * 1024
"""A thousand hosts written out take about 60 kB."""
MAX_DEPTH = 16
"""The declaration itself is four levels deep."""
MAX_VALUES = 20_000
"""Values after aliases are resolved (an alias of an alias of an alias can ask for billions). A thousand hosts take
8,000."""

_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})\Z")
_FLOAT = re.compile(r"[-+]?(?=[0-9]*[.eE])(\.[0-9]{1,32}|[0-9]{1,32}(\.[0-9]{0,32})?)([eE][-+]?[0-9]{1,3})?\Z")
_MERGE = "<<"


class UnreadableYamlError(Exception):
    """The text cannot be read. `line` counts from 1; 0 if no line is to blame."""

    def __init__(self, line: int, what: str, next_step: str = "") -> None:
        super().__init__(what)
        self.line = line
        self.what = what
        self.next_step = next_step


class Document:
    """What a YAML text holds: `data` (None if it holds nothing), and the line of each option."""

    def __init__(self, data: Any, lines: dict[OptionPath, int]) -> None:
        self.data = data
        self.lines = lines

    def line(self, path: OptionPath) -> int:
        """The line of `path`, or of the nearest option around it that is written; 0 if none is."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 0)


def read_yaml(content: bytes) -> Document:
    """Read one YAML document.

    Raises:
        UnreadableYamlError: not UTF-8, not YAML, several documents, a key twice, or over one of the bounds.
    """
    import yaml

    if len(content) > MAX_BYTES:
        raise UnreadableYamlError(0, f"is larger than {MAX_BYTES // 1024} KiB", "Is it really a redisforge.yaml?")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UnreadableYamlError(
            line, f"is not UTF-8 text (byte 0x{content[error.start]:02x})", "Save it as UTF-8."
        ) from None
    try:
        parse: Callable[..., Iterable[yaml.Event]] = yaml.parse  # pyright: ignore[reportUnknownMemberType,reportUnknownVariableType]
        return _Builder(parse(text, Loader=yaml.SafeLoader)).document()
    except RecursionError:
        raise UnreadableYamlError(0, "is nested too deep") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        code = error.character if isinstance(error.character, int) else ord(error.character)
        raise UnreadableYamlError(line, f"holds a control character (U+{code:04X})") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = ", ".join(part for part in (error.context, error.problem) if part)
        raise UnreadableYamlError(mark.line + 1 if mark else 0, f"is not YAML: {what}", _yaml_advice(what)) from None
    except (yaml.YAMLError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
        # PyYAML lets these escape from a few malformed texts (a bad %YAML line, an escape beyond U+10FFFF)
        raise UnreadableYamlError(0, f"is not YAML: {error}") from None


def _yaml_advice(what: str) -> str:
    if "\\t" in what:
        return "Indent with spaces, not tabs."
    return "Check the indentation, the colons and the quotes of this line and the one before it."


def _line_of(event: yaml.Event) -> int:
    """The line of an event, from 1; a parser's events all have a mark, though its stubs leave that open."""
    return event.start_mark.line + 1 if event.start_mark else 1


class _Builder:
    """Builds values from the parser's events, which are kept: an alias builds its anchor's once more."""

    def __init__(self, events: Iterable[yaml.Event]) -> None:
        self._events: list[yaml.Event] = []
        self._targets: dict[int, int] = {}
        self._start: int | None = None
        self._value_count = 0
        self._lines: dict[OptionPath, int] = {}
        self._collect(events)

    def document(self) -> Document:
        if self._start is None:
            return Document(None, {})
        self._lines[()] = self._line(self._start)
        data, _ = self._value(self._start, (), 0)
        return Document(data, self._lines)

    def _line(self, position: int) -> int:
        return _line_of(self._events[position])

    def _collect(self, events: Iterable[yaml.Event]) -> None:
        """Keep the events and find each alias's anchor, within the bounds on depth and size."""
        import yaml

        anchors: dict[str, int] = {}
        depth = 0
        for position, event in enumerate(events):
            self._events.append(event)
            line = _line_of(event)
            if isinstance(event, yaml.DocumentStartEvent):
                if self._start is not None:
                    raise UnreadableYamlError(
                        line, "holds more than one document", "Keep one, without a '---' after it."
                    )
                self._start = position + 1
            elif isinstance(event, yaml.AliasEvent):
                if event.anchor not in anchors:
                    raise UnreadableYamlError(line, f"the alias *{event.anchor} has no anchor before it")
                self._targets[position] = anchors[event.anchor]
            elif isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent):
                if event.tag is not None:
                    raise UnreadableYamlError(
                        line, "YAML tags (!...) are not supported", "Put text with a '!' in quotes."
                    )
                if event.anchor is not None:
                    anchors[event.anchor] = position
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            self._check_bounds(line, depth, position)

    def _check_bounds(self, line: int, depth: int, count: int) -> None:
        if depth > MAX_DEPTH:
            raise UnreadableYamlError(line, f"is nested deeper than {MAX_DEPTH} levels")
        if count > MAX_VALUES:
            raise UnreadableYamlError(line, f"holds more than {MAX_VALUES} values")

    def _value(self, position: int, path: OptionPath, depth: int) -> tuple[Any, int]:
        """The value that starts at `position`, and the position after it."""
        import yaml

        self._value_count += 1
        self._check_bounds(self._line(position), depth, self._value_count)
        event = self._events[position]
        if isinstance(event, yaml.AliasEvent):
            value, _ = self._value(self._targets[position], path, depth + 1)
            return value, position + 1
        if isinstance(event, yaml.ScalarEvent):
            return plain_value(event.value) if event.implicit[0] else event.value, position + 1
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(position + 1, path, depth)
        return self._mapping(position + 1, path, depth)

    def _sequence(self, position: int, path: OptionPath, depth: int) -> tuple[list[Any], int]:
        import yaml

        items: list[Any] = []
        while not isinstance(self._events[position], yaml.SequenceEndEvent):
            item_path = (*path, len(items))
            self._lines[item_path] = self._line(position)
            item, position = self._value(position, item_path, depth + 1)
            items.append(item)
        return items, position + 1

    def _mapping(self, position: int, path: OptionPath, depth: int) -> tuple[dict[str, Any], int]:
        import yaml

        mapping: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        while not isinstance(self._events[position], yaml.MappingEndEvent):
            line = self._line(position)
            key = self._key(position)
            if key in mapping:
                first = self._lines[*path, key]
                what = f"the key {dotted((*path, key))} is there twice (first on line {first})"
                raise UnreadableYamlError(line, what, "Keep one of the two.")
            key_path = (*path, key)
            self._lines[key_path] = line
            value, position = self._value(position + 1, key_path, depth + 1)
            if key == _MERGE:
                merged = _merged(value, line)
            else:
                mapping[key] = value
        return merged | mapping, position + 1

    def _key(self, position: int) -> str:
        import yaml

        event = self._events[position]
        if isinstance(event, yaml.AliasEvent):
            event = self._events[self._targets[position]]
        if not isinstance(event, yaml.ScalarEvent):
            raise UnreadableYamlError(
                self._line(position), "a key must be a plain word", "Check the braces and brackets."
            )
        return event.value


def _merged(value: object, line: int) -> dict[str, Any]:
    """The content of a `<<` key: one mapping, or several of which earlier ones win."""
    merged: dict[str, Any] = {}
    for source in value if isinstance(value, list) else [value]:  # pyright: ignore[reportUnknownVariableType]
        if not isinstance(source, dict):
            raise UnreadableYamlError(line, "'<<' takes a mapping or a list of mappings")
        merged = {**source, **merged}
    return merged


def plain_value(text: str) -> object:
    """A word without quotes, by YAML 1.2's core schema (section 10.3.2), decimal numbers only."""
    if text in {"", "~", "null", "Null", "NULL"}:
        return None
    if text in {"true", "True", "TRUE"}:
        return True
    if text in {"false", "False", "FALSE"}:
        return False
    if _INTEGER.match(text):
        return int(text)
    if _FLOAT.match(text):
        number = WrittenFloat(text)
        return number if math.isfinite(number) else text
    return text
