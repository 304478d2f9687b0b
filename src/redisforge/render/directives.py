"""Which redis.conf directives an engine knows, and which of them RedisForge writes itself. Pure.

An unknown directive stops a server at its start, and Redis 8 says no more of it than "Module Configuration
detected", so it is looked up before anything starts. The tables beside this file were captured from the engines
themselves (scripts/capture_directives.py): what CONFIG GET * lists, aliases included, and the few directives that
only a file can hold; which of them a running server refuses to set; and the defaults of the rest. An engine's hidden
settings for its own tests are in no table.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from importlib import resources

import msgspec

TABLES: dict[str, tuple[str, ...]] = {"redis": ("7.0", "8.0", "8.6"), "valkey": ("8.1", "9.1")}
"""The series with a table, by engine, oldest first."""

_RULE = re.compile(r"(>=\s*)?(\d{1,4})(?:\.(\d{1,4}))?(?:\.\d{1,4})?", re.ASCII)

MANAGED: dict[str, str] = {
    "aclfile": "users",
    "appenddirname": "",
    "appendfilename": "",
    "appendfsync": "persistence.fsync",
    "appendonly": "persistence.mode",
    "bind": "hosts",
    "bind-source-addr": "hosts",
    "cluster-announce-*": "hosts",
    "cluster-config-file": "",
    "cluster-enabled": "",
    "cluster-node-timeout": "node_timeout_ms",
    "cluster-port": "ports.bus_offset",
    "daemonize": "",
    "dbfilename": "",
    "dir": "REDISFORGE_HOME",
    "include": "redis_conf itself",
    "io-threads": "io_threads",
    "logfile": "redisforge logs",
    "loglevel": "log_level",
    "masterauth": "users.replication",
    "masteruser": "users.replication",
    "maxclients": "max_clients",
    "maxmemory": "memory.max",
    "maxmemory-policy": "memory.policy",
    "pidfile": "",
    "port": "ports.redis",
    "primaryauth": "users.replication",
    "primaryuser": "users.replication",
    "protected-mode": "",
    "rename-command": "users",
    "replicaof": "replicas",
    "requirepass": "users",
    "save": "persistence.mode",
    "slaveof": "replicas",
    "supervised": "",
    "tcp-backlog": "tcp_backlog",
    "tls-*": "tls",
    "unixsocket*": "",
    "user": "users",
}
"""Directives that RedisForge writes, as names or patterns (fnmatch), and what to use instead; empty: nothing.

`rename-command` is among them because tools and Envoy speak the commands' own names: dangerous commands are
closed by ACL. `loadmodule` is not: it may be written under `redis_conf`.
"""


class _Table(msgspec.Struct, frozen=True):
    kind: str
    version: str
    directives: tuple[str, ...]
    file_only: tuple[str, ...]
    fixed: tuple[str, ...]
    defaults: dict[str, str]


class Directives(msgspec.Struct, frozen=True):
    """What a running server can do with directives: `settable` ones take CONFIG SET, and have these `defaults`."""

    settable: frozenset[str]
    defaults: Mapping[str, str]


def settable_directives(kind: str, version: str) -> Directives:
    """The directives that CONFIG SET takes in an engine of this version ("8.6.3"), with their defaults.

    Between two tables only what both allow counts; the nearest tables stand for versions outside of all. Whatever is
    not in the answer needs a restart.
    """
    series = TABLES.get(kind, ())
    asked = _numbers(".".join(version.split(".")[:2]))
    near = [name for name in series if _numbers(name) <= asked][-1:] or list(series[:1])
    near += [name for name in series if _numbers(name) >= asked][:1]
    tables = [_table(kind, name) for name in dict.fromkeys(near)]
    if not tables:
        return Directives(frozenset(), {})
    settable = frozenset[str].intersection(*(frozenset(t.directives) - frozenset(t.fixed) for t in tables))
    common = {name: value for name, value in tables[0].defaults.items() if tables[-1].defaults.get(name) == value}
    return Directives(settable, common)


def known_directives(kind: str, version: str) -> frozenset[str] | None:
    """The directives that an engine knows, in lower case; None when that is not known, so nothing can be checked.

    Args:
        kind: "redis" or "valkey".
        version: "newest", a series or version ("8.6", "8.6.3"), or a floor (">=8.2"). The first and the last get
            the newest table: the newest engine that fits is what will run.

    A series between two tables gets both: nothing that it knows is refused, and what it does not know after all
    it refuses itself. One older than all gets the oldest. Of one newer than all nothing is known.
    """
    series = TABLES.get(kind)
    if series is None:
        return None
    newest = _numbers(series[-1])
    if version.strip() == "newest":
        return _directives_of(kind, series[-1])
    match = _RULE.fullmatch(version.strip())
    if match is None:
        return None
    asked = (int(match[2]), int(match[3] or 0))
    if match[1] is None and match[3] is None:
        return _union(kind, tuple(name for name in series if _numbers(name)[0] == asked[0]))
    if asked > newest:
        return None
    if match[1]:
        return _directives_of(kind, series[-1])
    below = [name for name in series if _numbers(name) <= asked][-1:]
    above = [name for name in series if _numbers(name) >= asked][:1]
    return _union(kind, (*below, *above))


def _union(kind: str, series: tuple[str, ...]) -> frozenset[str] | None:
    return frozenset[str]().union(*(_directives_of(kind, name) for name in series)) if series else None


def _numbers(series: str) -> tuple[int, int]:
    major, _, minor = series.partition(".")
    return int(major), int(minor)


def _directives_of(kind: str, series: str) -> frozenset[str]:
    read = _table(kind, series)
    return frozenset((*read.directives, *read.file_only))


@functools.cache
def _table(kind: str, series: str) -> _Table:
    table = resources.files("redisforge.render") / "directive_tables" / f"{kind}-{series}.json"
    return msgspec.json.decode(table.read_bytes(), type=_Table)
