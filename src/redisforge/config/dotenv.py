"""Reading .env files: NAME=value lines as shells and container tools write them.

`export` before the name, comments, single quotes (literal), double quotes (with backslash escapes), values
over several lines inside quotes. Variables are not expanded: a `$` stands for itself, so that a password may
hold one.
"""

from __future__ import annotations

import re

import msgspec

MAX_BYTES = 256 * 1024
MAX_VALUE_LINES = 200
"""A quoted value may span this many lines (a certificate takes about 30)."""

_ASSIGNMENT = re.compile(r"\s*(?:export\s+)?([^\s=]+)\s*=[ \t]*")
_EXPORT_ONLY = re.compile(r"\s*export\s+[A-Za-z_][A-Za-z0-9_]*\s*(#.*)?\Z")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}


class DotenvLine(msgspec.Struct, frozen=True):
    """A variable and the line (from 1) that its assignment starts on."""

    name: str
    value: str
    line: int

    def __repr__(self) -> str:
        return f"DotenvLine({self.name!r}, ***, {self.line})"


class DotenvProblem(msgspec.Struct, frozen=True):
    """A line that cannot be read. The text of the line is left out: it may hold a password."""

    line: int
    what: str


def read_dotenv(text: str) -> tuple[dict[str, DotenvLine], tuple[DotenvProblem, ...]]:
    """The variables of a .env file (the last line of a name counts), and what cannot be read."""
    variables: dict[str, DotenvLine] = {}
    problems: list[DotenvProblem] = []
    lines = text.replace("\r\n", "\n").split("\n")
    position = 0
    while position < len(lines):
        content, number = lines[position], position + 1
        position += 1
        if not content.strip() or content.lstrip().startswith("#") or _EXPORT_ONLY.match(content):
            continue
        match = _ASSIGNMENT.match(content)
        if not match:
            problems.append(DotenvProblem(number, "is not NAME=value"))
            continue
        rest = content[match.end() :]
        if rest[:1] not in {"'", '"'}:
            variables[match[1]] = DotenvLine(match[1], _without_comment(rest), number)
            continue
        try:
            value, position = _quoted_value(rest, lines, position)
        except ValueError as error:
            problems.append(DotenvProblem(number, f"{match[1]}: {error}"))
            continue
        variables[match[1]] = DotenvLine(match[1], value, number)
    return variables, tuple(problems)


def _without_comment(text: str) -> str:
    """A value without quotes ends at a `#` that stands at its start or after white space."""
    return re.split(r"(?:^|\s)#", text, maxsplit=1)[0].strip()


def _quoted_value(rest: str, lines: list[str], position: int) -> tuple[str, int]:
    """A value that starts with a quote, and the position of the line after it.

    What follows a closing quote without white space belongs to the value, as in a shell: `'it'"'"'s'`.

    Raises:
        ValueError: a quote is not closed, or something other than a comment follows the value.
    """
    value = ""
    while rest and not rest[0].isspace():
        if rest[0] in {"'", '"'}:
            quote = rest[0]
            text, rest, position = _quoted_part(rest, lines, position)
            value += _unescape(text) if quote == '"' else text
        else:
            match = re.match(r"[^\s'\"]+", rest)
            assert match
            value, rest = value + match[0], rest[match.end() :]
    if rest.strip() and not rest.strip().startswith("#"):
        raise ValueError("there is text after the closing quote")
    return value, position


def _quoted_part(rest: str, lines: list[str], position: int) -> tuple[str, str, int]:
    """The text between quotes, which may span lines; what follows on its last line; the next position."""
    closing = re.compile(r'(?:[^"\\]|\\.)*"' if rest[0] == '"' else r"[^']*'")
    pieces = [rest[1:]]
    for line in [*lines[position : position + MAX_VALUE_LINES], None]:
        match = closing.match(pieces[-1])
        if match:
            last, rest = match[0][:-1], pieces[-1][match.end() :]
            return "\n".join([*pieces[:-1], last]), rest, position + len(pieces) - 1
        if line is not None:
            pieces.append(line)
    raise ValueError("the quote is not closed")


def _unescape(text: str) -> str:
    """Resolve backslash escapes; an unknown one keeps its character (`\\$` is `$`)."""
    return re.sub(r"\\(.)", lambda match: _ESCAPES.get(match[1], match[1]), text, flags=re.DOTALL)
