"""redis.conf as the engine's line splitter reads it."""

from __future__ import annotations

from typing import Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from redisforge.errors import ConfigError
from redisforge.model.secret import Secret
from redisforge.model.topology import EngineKind, Persistence, RedisNode, RedisSettings, Role
from redisforge.render.redis_conf import RedisConfContext, render_redis_conf
from redisforge.render.redis_words import quote_word, write_directive

MIB = 1024 * 1024
SETTINGS = RedisSettings(
    max_memory_bytes=256 * MIB,
    max_memory_policy="noeviction",
    persistence=Persistence("aof", "everysec"),
    node_timeout_ms=5000,
    max_clients=10000,
    tcp_backlog=511,
    io_threads=1,
    log_level="notice",
)
CONTEXT = RedisConfContext(
    node=RedisNode("redis-1", "local", "127.0.0.11", "a", 7001, 17001, 0, Role.MASTER),
    node_count=6,
    settings=SETTINGS,
    engine_kind="redis",
    engine_version="8.6.3",
    require_client_certificates=False,
    data_path="/srv/my cluster/data",
    ca_path="/srv/tls/ca.crt",
    certificate_path="/srv/tls/redis-1.crt",
    key_path="/srv/tls/redis-1.key",
    acl_path="/srv/users.acl",
    replication_user="replication_user",
    replication_password=Secret('pass # "word" \'é\\'),
)

SIMPLE_ESCAPES = {"n": b"\n", "r": b"\r", "t": b"\t", "b": b"\b", "a": b"\a"}


def split_line(line: bytes) -> list[bytes]:
    """The engine's rules of splitting a line, written down a second time (double quotes and bare words)."""
    words: list[bytes] = []
    rest = line.strip()
    while rest:
        if not rest.startswith(b'"'):
            word, _, rest = rest.partition(b" ")
            words.append(word)
        else:
            word, rest = read_quoted(rest[1:])
            words.append(word)
        rest = rest.lstrip()
    return words


def read_quoted(text: bytes) -> tuple[bytes, bytes]:
    word = b""
    position = 0
    while text[position : position + 1] != b'"':
        character = text[position : position + 1]
        assert character, "a quote is not closed"
        following = text[position + 1 : position + 2].decode("latin-1")
        if character != b"\\":
            word, position = word + character, position + 1
        elif following == "x":
            word, position = word + bytes.fromhex(text[position + 2 : position + 4].decode()), position + 4
        else:
            word, position = word + SIMPLE_ESCAPES.get(following, following.encode("latin-1")), position + 2
    assert text[position + 1 : position + 2] in (b"", b" "), "a word must end after its quote"
    return word, text[position + 1 :]


def read(context: RedisConfContext) -> dict[str, list[str]]:
    """Directive to its words; of several lines the last wins, as in the engine."""
    found: dict[str, list[str]] = {}
    for line in render_redis_conf(context).reveal().encode().split(b"\n"):
        if line.strip() and not line.startswith(b"#"):
            name, *values = (word.decode() for word in split_line(line))
            found[name] = values
    return found


def with_settings(**changes: object) -> RedisConfContext:
    return msgspec.structs.replace(CONTEXT, settings=msgspec.structs.replace(SETTINGS, **changes))


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_every_word_comes_back(word: str) -> None:
    line = f"masterauth {quote_word(word)}"
    assert "\n" not in line
    assert split_line(line.encode()) == [b"masterauth", word.encode()]


def test_undecodable_bytes_of_a_path_come_back() -> None:
    path = b"/srv/\xff\xfe".decode("utf-8", "surrogateescape")
    assert split_line(quote_word(path).encode()) == [b"/srv/\xff\xfe"]


@pytest.mark.parametrize("word", ["a\0b", "\ud800"])
def test_what_the_file_cannot_hold_is_refused(word: str) -> None:
    with pytest.raises(ConfigError):
        quote_word(word)


def test_only_tls_on_one_address() -> None:
    conf = read(CONTEXT)
    assert conf["port"] == ["0"]
    assert conf["tls-port"] == ["7001"]
    assert conf["cluster-port"] == ["17001"]
    assert conf["bind"] == ["127.0.0.11"]
    assert conf["tls-cluster"] == conf["tls-replication"] == ["yes"]
    assert conf["tls-protocols"] == ["TLSv1.2 TLSv1.3"]
    assert conf["protected-mode"] == ["yes"]
    assert "unixsocket" not in conf
    assert "requirepass" not in conf


@pytest.mark.parametrize(
    ("address", "bound", "announced"),
    [
        ("127.0.0.1", "127.0.0.1", ["127.0.0.1"]),
        ("127.0.0.12", "127.0.0.12", ["127.0.0.12"]),
        ("localhost", "127.0.0.1", ["127.0.0.1"]),
        ("::1", "::1", ["::1"]),
        ("10.1.2.3", "10.1.2.3", ["10.1.2.3"]),
        ("redis-1.example.org", "redis-1.example.org", None),
    ],
)
def test_a_node_speaks_from_its_own_address(address: str, bound: str, announced: list[str] | None) -> None:
    node = msgspec.structs.replace(CONTEXT.node, address=address)
    conf = read(msgspec.structs.replace(CONTEXT, node=node))
    assert conf["bind"] == [bound]
    assert conf.get("bind-source-addr") == announced
    assert conf.get("cluster-announce-ip") == announced


def test_a_node_behind_address_translation_listens_and_speaks_inside_and_announces_the_outside() -> None:
    conf = read(msgspec.structs.replace(CONTEXT, bind_address="10.9.0.1"))
    assert conf["bind"] == conf["bind-source-addr"] == ["10.9.0.1"]
    assert conf["cluster-announce-ip"] == conf["replica-announce-ip"] == ["127.0.0.11"]
    conf = read(msgspec.structs.replace(CONTEXT, bind_address="0.0.0.0"))
    assert conf["bind"] == ["0.0.0.0"]
    assert "bind-source-addr" not in conf


@pytest.mark.parametrize(
    ("mode", "appendonly", "save"),
    [
        ("aof", "yes", [""]),
        ("rdb", "no", ["3600", "1", "300", "100", "60", "10000"]),
        ("none", "no", [""]),
    ],
)
def test_persistence(mode: Literal["aof", "rdb", "none"], appendonly: str, save: list[str]) -> None:
    conf = read(with_settings(persistence=Persistence(mode, "always")))
    assert conf["appendonly"] == [appendonly]
    assert conf["save"] == save
    assert conf["appendfsync"] == ["always"]
    assert conf["dir"] == ["/srv/my cluster/data"]


@pytest.mark.parametrize(
    ("memory_mib", "backlog_mib", "hard_mib"),
    [(16, 1, 256), (256, 16, 256), (4096, 256, 1024), (65536, 512, 16384)],
)
def test_replication_buffers_follow_the_memory(memory_mib: int, backlog_mib: int, hard_mib: int) -> None:
    conf = read(with_settings(max_memory_bytes=memory_mib * MIB))
    assert conf["repl-backlog-size"] == [str(backlog_mib * MIB)]
    assert conf["client-output-buffer-limit"] == [
        "replica",
        str(hard_mib * MIB),
        str(hard_mib * MIB // 4),
        "60",
    ]


@pytest.mark.parametrize(
    ("version", "hidden"), [("7.0.15", None), ("7.4.1", None), ("8.0.2", ["yes"]), ("9.1.2", ["yes"])]
)
def test_data_is_hidden_from_the_log_where_the_engine_can(version: str, hidden: list[str] | None) -> None:
    assert read(msgspec.structs.replace(CONTEXT, engine_version=version)).get("hide-user-data-from-log") == hidden


@pytest.mark.parametrize(
    ("kind", "version", "nodes", "timeout_ms", "interval"),
    [
        ("redis", "8.6.3", 6, 5000, ["100"]),
        ("redis", "8.0.6", 30, 5000, ["100"]),
        ("redis", "8.6.3", 31, 5000, ["300"]),
        ("redis", "8.6.3", 100, 500, ["250"]),  # never longer than the engine's own rule
        ("redis", "8.6.3", 101, 5000, None),
        ("redis", "7.4.1", 6, 5000, None),
        ("valkey", "8.0.2", 6, 5000, None),
        ("valkey", "8.1.1", 6, 5000, ["100"]),
    ],
)
def test_pings_are_as_frequent_as_engine_and_cluster_bear(
    kind: EngineKind, version: str, nodes: int, timeout_ms: int, interval: list[str] | None
) -> None:
    context = msgspec.structs.replace(
        with_settings(node_timeout_ms=timeout_ms), engine_kind=kind, engine_version=version, node_count=nodes
    )
    assert read(context).get("cluster-ping-interval") == interval


def test_the_version_must_be_the_running_one() -> None:
    with pytest.raises(ValueError, match="newest"):
        render_redis_conf(msgspec.structs.replace(CONTEXT, engine_version="newest"))


def test_client_certificates_and_threads_on_demand() -> None:
    assert read(CONTEXT)["tls-auth-clients"] == ["optional"]
    assert "io-threads" not in read(CONTEXT)
    strict = msgspec.structs.replace(with_settings(io_threads=4), require_client_certificates=True)
    assert read(strict)["tls-auth-clients"] == ["yes"]
    assert read(strict)["io-threads"] == ["4"]


def test_the_operators_own_directives_come_last_and_as_written() -> None:
    own = (("slowlog-max-len", "5"), ("latency-tracking-info-percentiles", '50 "99"'))
    conf = read(with_settings(directives=own))
    assert conf["slowlog-max-len"] == ["5"]
    assert conf["latency-tracking-info-percentiles"] == ["50", "99"]
    assert render_redis_conf(with_settings(directives=own)).reveal().endswith('percentiles 50 "99"\n')


@pytest.mark.parametrize("value", ["1\nrequirepass x", "1\rx", "a\0b"])
def test_a_directive_cannot_become_two_lines(value: str) -> None:
    with pytest.raises(ConfigError, match="maxmemory-samples"):
        write_directive("maxmemory-samples", value)


def test_the_password_is_written_once_and_never_shown() -> None:
    rendered = render_redis_conf(CONTEXT)
    assert read(CONTEXT)["masterauth"] == [CONTEXT.replication_password.reveal()]
    assert repr(rendered) == "***"
    assert CONTEXT.replication_password.reveal() not in repr(CONTEXT)


def test_every_line_is_short_and_every_section_explained() -> None:
    lines = render_redis_conf(CONTEXT).reveal().splitlines()
    assert max(map(len, lines)) <= 120
    assert sum(line.startswith("#") for line in lines) >= sum(not line.startswith("#") for line in lines) / 3
