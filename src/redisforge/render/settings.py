r"""redis.conf read back, and compared with what CONFIG GET says of a running node. Pure.

CONFIG GET prints sizes in bytes, some names under two spellings, all classes of client-output-buffer-limit in one value
and the flags of notify-keyspace-events in an order of its own (config.c). What still looks different is set once more:
that does no harm.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import msgspec

SECRET_DIRECTIVES = frozenset(
    {"masterauth", "primaryauth", "requirepass", "tls-key-file-pass", "tls-client-key-file-pass"}
)
"""Never asked of a node, never shown: another password is a rotation."""
_UNTOLD = SECRET_DIRECTIVES | {"include", "loadmodule", "rename-command", "user"}

_WORD = re.compile(r'"((?:[^"\\]|\\.)*)"|\'((?:[^\'\\]|\\\')*)\'|(\S+)')
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|(.))", re.DOTALL)
_CONTROL = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "a": "\a"}
_SIZE = re.compile(r"(\d+)(k|kb|m|mb|g|gb)")
_UNITS = {"k": 1000, "kb": 1 << 10, "m": 1000**2, "mb": 1 << 20, "g": 1000**3, "gb": 1 << 30}
_SPELLINGS = {
    "lua-time-limit": "busy-reply-threshold",
    "list-max-ziplist-size": "list-max-listpack-size",
    "repl-ping-slave-period": "repl-ping-replica-period",
}
_LIMITS = "client-output-buffer-limit"
_EVENTS = "notify-keyspace-events"
_ALL_EVENTS = "g$lshzxetd"
"""What `A` stands for (notify.c, NOTIFY_ALL)."""


class Difference(msgspec.Struct, frozen=True):
    """A directive whose running value is not the declared one."""

    name: str
    wanted: str
    running: str


def read_conf(text: str) -> dict[str, str]:
    """The directives of a redis.conf by name in lower case, each with its value as CONFIG SET takes it.

    Words are unquoted and joined by a blank. Of a name that comes twice the last line counts, except for
    client-output-buffer-limit, of which every class keeps its last line.
    """
    found: dict[str, str] = {}
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, *words = _words(line)
        value = " ".join(words)
        name = name.lower()
        if name == _LIMITS and name in found:
            value = _joined({**_classes(found[name]), **_classes(value)})
        found[name] = value
    return found


def untold_text(text: str) -> str:
    """The lines that CONFIG GET tells nothing of, or must not be asked for: only a start takes them."""
    lines = (line for line in text.splitlines() if line.strip() and not line.startswith("#"))
    return "".join(f"{line}\n" for line in lines if line.split()[0].lower() in _UNTOLD)


def differences(wanted: Mapping[str, str], running: Mapping[str, str]) -> tuple[Difference, ...]:
    """The directives of `wanted` that a node has otherwise. What the node does not tell of is not compared."""
    last = {_spelling(name): (name, value) for name, value in wanted.items()}
    return tuple(
        Difference(name, value, running[name])
        for spelling, (name, value) in last.items()
        if name in running and not _is_same(spelling, value, running[name])
    )


def taken_back(placed: Iterable[str], wanted: Iterable[str], defaults: Mapping[str, str]) -> dict[str, str]:
    """Directives that the placed file has and the wanted one has not, with the values that they fall back to.

    One without a known default is missing in the answer: only a restart takes it back.
    """
    kept = {_spelling(name) for name in wanted}
    return {name: defaults[name] for name in placed if _spelling(name) not in kept and name in defaults}


def gone(placed: Iterable[str], wanted: Iterable[str]) -> tuple[str, ...]:
    """Directives that the placed file has and the wanted one has not."""
    kept = {_spelling(name) for name in wanted}
    return tuple(name for name in placed if _spelling(name) not in kept)


def _words(line: str) -> list[str]:
    return [
        _unescaped(double) if double is not None else single.replace("\\'", "'") if single is not None else bare
        for double, single, bare in ((m[1], m[2], m[3]) for m in _WORD.finditer(line))
    ]


def _unescaped(text: str) -> str:
    """The bytes that the engine reads, as text (undecodable ones as surrogates, as redis_words writes them)."""
    raw = bytearray()
    position = 0
    for match in _ESCAPE.finditer(text):
        raw += text[position : match.start()].encode("utf-8", "surrogateescape")
        raw += bytes.fromhex(match[1]) if match[1] else _CONTROL.get(match[2], match[2]).encode()
        position = match.end()
    raw += text[position:].encode("utf-8", "surrogateescape")
    return raw.decode("utf-8", "surrogateescape")


def _spelling(name: str) -> str:
    """One name for directives that are known by several."""
    name = name.lower()
    name = _SPELLINGS.get(name, name).replace("slave", "replica").replace("ziplist", "listpack")
    return name.replace("_cpulist", "-cpulist")


def _is_same(name: str, wanted: str, running: str) -> bool:
    if name == _LIMITS:
        asked, given = _classes(wanted), _classes(running)
        return all(given.get(kind) == limits for kind, limits in asked.items())
    if name == _EVENTS:
        return _events(wanted) == _events(running)
    return _plain(wanted) == _plain(running)


def _plain(value: str) -> str:
    lowered = " ".join(value.lower().split())
    match = _SIZE.fullmatch(lowered)
    return str(int(match[1]) * _UNITS[match[2]]) if match else lowered


def _classes(value: str) -> dict[str, tuple[str, ...]]:
    """`replica 256mb 64mb 60` -> {"slave": ("268435456", "67108864", "60")}."""
    words = value.lower().split()
    groups = (words[start : start + 4] for start in range(0, len(words), 4))
    return {group[0].replace("replica", "slave"): tuple(map(_plain, group[1:])) for group in groups}


def _joined(classes: Mapping[str, tuple[str, ...]]) -> str:
    return " ".join(" ".join((kind, *limits)) for kind, limits in classes.items())


def _events(value: str) -> frozenset[str]:
    return frozenset(value.replace("A", _ALL_EVENTS))
