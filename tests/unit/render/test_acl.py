"""users.acl: shape, versions and bad input. What the rules really allow is shown on real engines in
tests/integration/test_acl_matrix.py."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redisforge.errors import ConfigError
from redisforge.model.topology import EngineKind, User, UserRole
from redisforge.render.acl import render_users_acl

HASH = "ab" * 32
USERS = tuple(User(f"{role.value}_user", role) for role in UserRole)
HASHES = {user.name: HASH for user in USERS}
ENGINES: tuple[tuple[EngineKind, str], ...] = (
    ("redis", "7.0.15"),
    ("redis", "7.4.2"),
    ("redis", "8.0.2"),
    ("redis", "8.6.3"),
    ("valkey", "7.2.5"),
    ("valkey", "8.1.0"),
    ("valkey", "9.1.2"),
)


def rules(kind: EngineKind, version: str, role: UserRole) -> list[str]:
    lines = render_users_acl(USERS, HASHES, kind, version).splitlines()
    return next(line.split() for line in lines if line.startswith(f"user {role.value}_user "))


@pytest.mark.parametrize(("kind", "version"), ENGINES)
def test_one_line_per_user_and_default_is_off(kind: EngineKind, version: str) -> None:
    text = render_users_acl(USERS, HASHES, kind, version)
    lines = text.splitlines()
    assert text.endswith("\n")
    assert lines[0] == "user default off resetpass resetkeys resetchannels -@all"
    assert [line.split()[1] for line in lines[1:]] == [user.name for user in USERS]
    for line in lines[1:]:
        assert line.split()[2:4] == ["on", f"#{HASH}"]
        assert "nopass" not in line
        assert ">" not in line


@pytest.mark.parametrize(
    ("rule", "role", "known_to"),
    [
        ("+client|setinfo", UserRole.MONITOR, {"redis 7.4.2", "redis 8.0.2", "redis 8.6.3", "valkey *"}),
        ("+cluster|slot-stats", UserRole.MONITOR, {"redis 8.6.3", "valkey 8.1.0", "valkey 9.1.2"}),
        ("+commandlog|get", UserRole.MONITOR, {"valkey 8.1.0", "valkey 9.1.2"}),
        ("+cluster|getslotmigrations", UserRole.MONITOR, {"valkey 9.1.2"}),
        ("+cluster|syncslots", UserRole.REPLICATION, {"redis 8.6.3", "valkey 9.1.2"}),
        ("+restore", UserRole.REPLICATION, {"valkey 9.1.2"}),
        ("+cluster|myshardid", UserRole.READONLY, {"redis 7.4.2", "redis 8.0.2", "redis 8.6.3", "valkey *"}),
    ],
)
def test_a_name_is_written_only_where_the_engine_knows_it(rule: str, role: UserRole, known_to: set[str]) -> None:
    for kind, version in ENGINES:
        expected = f"{kind} {version}" in known_to or f"{kind} *" in known_to
        assert (rule in rules(kind, version, role)) is expected, (kind, version)


@pytest.mark.parametrize(("kind", "version"), ENGINES)
def test_nobody_but_the_operator_reads_the_replication_password(kind: EngineKind, version: str) -> None:
    for role in UserRole:
        assert not any("config" in rule for rule in rules(kind, version, role)), role
    assert rules(kind, version, UserRole.OPERATOR)[4:] == ["~*", "&*", "+@all"]


@pytest.mark.parametrize(("kind", "version"), ENGINES)
def test_nothing_dangerous_is_opened_again_by_a_category(kind: EngineKind, version: str) -> None:
    for role in (UserRole.APPLICATION, UserRole.READONLY):
        line = rules(kind, version, role)
        closed = line.index("-@dangerous")
        assert not [rule for rule in line[closed:] if rule.startswith("+@")]
    for role in (UserRole.MONITOR, UserRole.REPLICATION, UserRole.HANDOFF):
        line = rules(kind, version, role)
        assert "-@all" in line
        assert "&*" not in line
    assert "resetkeys" in rules(kind, version, UserRole.MONITOR)


@pytest.mark.parametrize("name", ["default", "", "a b", "a\tb", "a\nuser evil on nopass +@all", 'a"b', "a\0b"])
def test_a_name_that_the_file_cannot_hold(name: str) -> None:
    with pytest.raises(ConfigError, match="application"):
        render_users_acl([User(name, UserRole.APPLICATION)], {name: HASH}, "redis", "8.6.3")


@pytest.mark.parametrize("password_hash", [None, "", "0123", "AB" * 32, HASH + " +@all", "secret"])
def test_a_hash_that_is_none(password_hash: str | None) -> None:
    hashes = {} if password_hash is None else {"app_user": password_hash}
    with pytest.raises(ConfigError, match="app_user") as caught:
        render_users_acl([User("app_user", UserRole.APPLICATION)], hashes, "redis", "8.6.3")
    assert not password_hash or password_hash not in str(caught.value)


@pytest.mark.parametrize("version", ["newest", "", ">=8.2", "8"])
def test_the_version_must_be_the_running_one(version: str) -> None:
    with pytest.raises(ValueError, match="version"):
        render_users_acl(USERS, HASHES, "redis", version)


@given(st.integers(7, 12), st.integers(0, 12), st.integers(0, 30), st.sampled_from(["redis", "valkey"]))
def test_every_version_gives_well_formed_lines(major: int, minor: int, patch: int, kind: EngineKind) -> None:
    text = render_users_acl(USERS, HASHES, kind, f"{major}.{minor}.{patch}")
    rule = re.compile(r"(%R)?~\*|&\*|resetkeys|resetchannels|[+-]@[a-z]+|[+-][a-z_]+(\|[a-z_-]+)?")
    for line in text.splitlines()[1:]:
        assert all(rule.fullmatch(word) for word in line.split()[4:]), line
