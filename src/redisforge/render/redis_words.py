r"""Words and lines of redis.conf.

The syntax: one directive per line, words separated by blanks; `#` at the start of a line makes a comment. In
double quotes a word may hold blanks and the escapes `\n \r \t \b \a \\ \" \xHH`; no line continues another.
Source: the comments of the engines' own redis.conf, and `sdssplitargs` in sds.c, which splits the lines.
"""

from __future__ import annotations

import re

from redisforge.errors import ConfigError

_BARE_WORD = re.compile(r"[A-Za-z0-9_./:@%+,=-]+")
_ESCAPES = {'"': r"\"", "\\": r"\\", "\n": r"\n", "\r": r"\r", "\t": r"\t", "\b": r"\b", "\a": r"\a"}


def quote_word(word: str) -> str:
    """Write `word` so that the engine's line splitter reads exactly its UTF-8 bytes back.

    Lone surrogates (undecodable bytes of a path, PEP 383) come back as those bytes.

    Raises:
        ConfigError: it holds a NUL, where the engine would cut it off, or is not text.
    """
    if _BARE_WORD.fullmatch(word):
        return word
    if "\0" in word:
        raise ConfigError("a value for redis.conf holds a NUL character", next_step="Remove the character.")
    quoted: list[str] = []
    for character in word:
        if character in _ESCAPES:
            quoted.append(_ESCAPES[character])
        elif character.isprintable():
            quoted.append(character)
        else:
            quoted += (f"\\x{byte:02x}" for byte in _bytes(character))
    return '"' + "".join(quoted) + '"'


def _bytes(character: str) -> bytes:
    try:
        return character.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise ConfigError(
            "a value for redis.conf holds a character that is no text (a lone surrogate)",
            next_step="Remove the character.",
        ) from None


def write_directive(name: str, value: str) -> str:
    """Write a line whose value is already in the syntax of redis.conf, as an operator typed it.

    Raises:
        ConfigError: it would become several lines, or be cut off at a NUL.
    """
    if any(character in name + value for character in "\r\n\0"):
        raise ConfigError(
            f"redis_conf: {name!r} cannot be written to redis.conf",
            problems=("it holds a line break or a NUL character",),
            next_step="Write one directive per entry.",
        )
    return f"{name} {value}".rstrip()
