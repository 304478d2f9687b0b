"""The tables of redis.conf directives: which series gets which, and what they hold."""

from __future__ import annotations

import fnmatch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redisforge.render.directives import MANAGED, TABLES, known_directives, settable_directives

SERIES = [(kind, series) for kind, all_series in TABLES.items() for series in all_series]
IN_EVERY_TABLE = {
    "include", "loadmodule", "rename-command", "user", "save", "client-output-buffer-limit", "oom-score-adj-values",
    "slave-read-only", "replica-read-only", "tls-port", "io-threads", "hz", "notify-keyspace-events", "slaveof",
}  # fmt: skip


def known(kind: str, version: str) -> frozenset[str]:
    found = known_directives(kind, version)
    assert found is not None
    return found


@pytest.mark.parametrize(("kind", "series"), SERIES)
def test_every_table(kind: str, series: str) -> None:
    names = known(kind, series)
    assert names >= IN_EVERY_TABLE
    assert not names & {"sentinel", "redisforge-probe", "maxmemroy"}
    assert all(name == name.lower().strip() for name in names)


@pytest.mark.parametrize(
    ("kind", "version", "same_as"),
    [
        ("redis", "newest", "8.6"),
        ("redis", "8.6.3", "8.6"),
        ("redis", " >= 8.2", "8.6"),
        ("redis", ">=7.0", "8.6"),
        ("redis", "7.0.15", "7.0"),
        ("redis", "6.2", "7.0"),
        ("valkey", "newest", "9.1"),
        ("valkey", "9", "9.1"),
        ("valkey", "7.2", "8.1"),
    ],
)
def test_which_table(kind: str, version: str, same_as: str) -> None:
    assert known(kind, version) == known(kind, same_as)


def test_a_series_between_two_tables_gets_both() -> None:
    assert known("redis", "8.2") == known("redis", "8.0") | known("redis", "8.6")
    assert known("redis", "7.4.1") == known("redis", "7.0") | known("redis", "8.0")
    assert known("redis", "8") == known("redis", "8.0") | known("redis", "8.6")


@pytest.mark.parametrize(
    ("kind", "version"),
    [("redis", "8.8"), ("redis", ">=9"), ("redis", "9"), ("redis", "11.2.3"), ("keydb", "newest"), ("redis", "latest")],
)
def test_of_what_is_not_known_nothing_is_said(kind: str, version: str) -> None:
    assert known_directives(kind, version) is None


@pytest.mark.parametrize(
    ("directive", "since"), [("hide-user-data-from-log", "8.0"), ("cluster-slot-stats-enabled", "8.6")]
)
def test_a_directive_is_known_since(directive: str, since: str) -> None:
    having = [series for series in TABLES["redis"] if directive in known("redis", series)]
    assert having == [series for series in TABLES["redis"] if series >= since]


@given(st.text())
def test_any_text_may_be_asked_for(version: str) -> None:
    found = known_directives("redis", version)
    assert found is None or "maxmemory" in found


def test_what_is_managed_is_a_directive_of_some_engine() -> None:
    everything = frozenset[str]().union(*(known(kind, series) for kind, series in SERIES))
    assert [pattern for pattern in MANAGED if not fnmatch.filter(everything, pattern)] == []


@pytest.mark.parametrize(
    "name", ["loadmodule", "hz", "replica-read-only", "client-output-buffer-limit", "tcp-keepalive"]
)
def test_what_an_operator_may_write(name: str) -> None:
    assert not any(fnmatch.fnmatchcase(name, pattern) for pattern in MANAGED)


@pytest.mark.parametrize(("kind", "series"), SERIES)
def test_what_a_running_server_sets_has_no_fixed_directive(kind: str, series: str) -> None:
    found = settable_directives(kind, f"{series}.1")
    assert {"maxmemory", "appendonly", "tcp-keepalive"} <= found.settable
    assert not {"databases", "tcp-backlog", "aclfile", "cluster-enabled", "dir"} & found.settable
    assert found.defaults["tcp-keepalive"] == "300"
    assert not any(name in found.defaults for name in ("maxmemory", "port", "databases"))


def test_between_two_tables_only_what_both_set_counts() -> None:
    found = settable_directives("redis", "8.2.1")
    older, newer = settable_directives("redis", "8.0.0"), settable_directives("redis", "8.6.0")
    assert found.settable == older.settable & newer.settable
    assert settable_directives("redis", "9.9.9") == newer
    assert settable_directives("redis", "6.2.0") == settable_directives("redis", "7.0.15")
    assert not settable_directives("keydb", "6.3").settable
