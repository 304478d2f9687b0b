"""What Redis prints about itself, as it has printed it in versions 7.0 to 9."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redisforge.model.facts import PeerView
from redisforge.model.slots import SlotRange
from redisforge.model.topology import Role
from redisforge.redis.observe import read_facts, read_listing
from redisforge.redis.parse import parse_cluster_nodes, parse_info, parse_key_count

A, B, C = "a" * 40, "b" * 40, "c" * 40


@pytest.mark.parametrize(
    ("line", "peer"),
    [
        (
            f"{A} 10.0.0.1:7001@17001 myself,master - 0 0 1 connected 0-5460 5462",
            PeerView(
                id=A, address="10.0.0.1", port=7001, bus_port=17001, flags=("myself", "master"), config_epoch=1,
                slots=(SlotRange(0, 5460), SlotRange(5462, 5462)),
            ),
        ),
        (
            f"{B} 10.0.0.2:7001@17001,host-2,shard-id=69bc slave {A} 0 1700000000000 1 connected",
            PeerView(
                id=B, address="10.0.0.2", port=7001, bus_port=17001, flags=("slave",), master_id=A, config_epoch=1
            ),
        ),
        (
            f"{C} ::1:7003@17003 master,fail? - 1700000000000 0 3 disconnected 10923-16383",
            PeerView(
                id=C, address="::1", port=7003, bus_port=17003, flags=("master", "fail?"), config_epoch=3,
                link_up=False, slots=(SlotRange(10923, 16383),),
            ),
        ),
        (
            f"{C} :0@0 master,fail,noaddr - 1 0 3 disconnected",
            PeerView(id=C, address="", port=0, flags=("master", "fail", "noaddr"), config_epoch=3, link_up=False),
        ),
        (
            f"{A} 10.0.0.1:7001@17001 myself,master - 0 0 1 connected 0-9 [5->-{B}] [77-<-{C}]",
            PeerView(
                id=A, address="10.0.0.1", port=7001, bus_port=17001, flags=("myself", "master"), config_epoch=1,
                slots=(SlotRange(0, 9),), migrating=((5, B),), importing=((77, C),),
            ),
        ),
        (
            f"{B} 10.0.0.2:7001 handshake - 0 0 0 disconnected",
            PeerView(id=B, address="10.0.0.2", port=7001, flags=("handshake",), link_up=False),
        ),
    ],
    ids=["master", "replica with host name", "IPv6", "without address", "open slots", "before 4.0"],
)  # fmt: skip
def test_a_line_of_cluster_nodes(line: str, peer: PeerView) -> None:
    assert parse_cluster_nodes(line + "\n") == (peer,)


def test_nodes_conf_reads_like_cluster_nodes() -> None:
    text = (
        f"{A} 10.0.0.1:7001@17001 myself,master - 0 0 1 connected 0-16383\n"
        f"{B} 10.0.0.2:7001@17001 slave {A} 0 0 1 connected\n"
        "vars currentEpoch 6 lastVoteEpoch 0\n"
    )
    assert [peer.id for peer in parse_cluster_nodes(text)] == [A, B]


@pytest.mark.parametrize(
    "text", ["nonsense", f"{A} 10.0.0.1:7001@17001 master - 0 0", f"{A} 10.0.0.1:x@y master - 0 0 1 connected"]
)
def test_another_format_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_cluster_nodes(text)


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=200))
def test_any_text_is_read_or_is_a_value_error(text: str) -> None:
    try:
        peers = parse_cluster_nodes(text)
    except ValueError:
        return
    assert len(peers) <= len(text.splitlines())


def test_flags_in_words() -> None:
    peers = parse_cluster_nodes(
        f"{A} h:1@2 master,fail - 0 0 1 connected\n{B} h:1@2 slave,fail? {A} 0 0 1 connected\n"
        f"{C} h:1@2 handshake - 0 0 0 connected\n"
    )
    assert [peer.is_failed for peer in peers] == [True, False, False]
    assert [peer.role for peer in peers] == [Role.MASTER, Role.REPLICA, Role.MASTER]
    assert [peer.in_handshake for peer in peers] == [False, False, True]


@pytest.mark.parametrize(
    ("text", "info"),
    [
        ("# Server\r\nredis_version:8.6.3\r\n\r\n# Keyspace\r\n", {"redis_version": "8.6.3"}),
        ("executable:/srv/a:b\r\n", {"executable": "/srv/a:b"}),
        ("config_file:\r\n", {"config_file": ""}),
        ("no separator\r\n", {}),
        ("", {}),
    ],
)
def test_info(text: str, info: dict[str, str]) -> None:
    assert parse_info(text) == info


@pytest.mark.parametrize(
    ("line", "keys"),
    [("db0:keys=12,expires=0,avg_ttl=0,subexpiry=0", 12), ("db1:keys=7,expires=0", 0), ("", 0)],
)
def test_key_count(line: str, keys: int) -> None:
    assert parse_key_count(parse_info(f"# Keyspace\r\n{line}\r\n")) == keys


NODES = (
    f"{A} 10.0.0.1:7001@17001 master - 0 0 1 connected 0-16383\n"
    f"{B} 10.0.0.2:7001@17001 myself,slave {A} 0 0 1 connected\n"
)
CLUSTER_INFO = "cluster_state:ok\r\ncluster_current_epoch:6\r\n"
REPLICA_INFO = (
    "redis_version:8.6.3\r\nrole:slave\r\nmaster_link_status:up\r\nmaster_sync_in_progress:0\r\nslave_repl_offset:99\r\n"
    "master_repl_offset:7\r\nused_memory:1000\r\nmaxmemory:2000\r\nprocess_id:42\r\nloading:0\r\n"
    "aof_last_write_status:ok\r\nrdb_last_bgsave_status:ok\r\ndb0:keys=3,expires=0,avg_ttl=0\r\n"
)
LISTING: list[Any] = [[0, 16383, ["10.0.0.1", 7001, A, []], ["10.0.0.2", 7001, B, []]]]


def test_answers_become_facts() -> None:
    facts = read_facts("redis-2", ("10.0.0.2", 7001), [B, NODES, CLUSTER_INFO, REPLICA_INFO, LISTING])
    assert (facts.id, facts.role, facts.master_id) == (B, Role.REPLICA, A)
    assert (facts.keys, facts.used_memory_bytes, facts.max_memory_bytes, facts.pid) == (3, 1000, 2000, 42)
    assert (facts.cluster_state, facts.current_epoch, facts.version) == ("ok", 6, "8.6.3")
    assert (facts.replication_offset, facts.master_link_up, facts.sync_in_progress) == (99, True, False)
    assert facts.listed == (A, B)
    assert facts.aof_ok


@pytest.mark.parametrize(
    ("old", "new", "field", "value"),
    [
        ("redis_version:8.6.3", "redis_version:7.2.4\r\nvalkey_version:9.1.2", "version", "9.1.2"),
        ("role:slave", "role:master", "replication_offset", 7),
        ("slave_repl_offset:99", "slave_repl_offset:-1", "replication_offset", 0),
        ("master_link_status:up", "master_link_status:down", "master_link_up", False),
        ("master_sync_in_progress:0", "master_sync_in_progress:1", "sync_in_progress", True),
        ("loading:0", "loading:1", "loading", True),
        ("aof_last_write_status:ok", "aof_last_write_status:err", "aof_ok", False),
        ("rdb_last_bgsave_status:ok", "rdb_last_bgsave_status:err", "aof_ok", False),
    ],
)
def test_single_facts(old: str, new: str, field: str, value: object) -> None:
    assert old in REPLICA_INFO
    facts = read_facts("redis-2", ("10.0.0.2", 7001), [B, NODES, CLUSTER_INFO, REPLICA_INFO.replace(old, new)])
    assert getattr(facts, field) == value
    assert facts.listed is None, "it was not asked"


def test_a_listing_names_every_node_once() -> None:
    twice: list[Any] = [*LISTING, [5, 5, ["10.0.0.1", 7001, A, []], ["10.0.0.3", 7001, C, []]]]
    assert read_listing(twice) == (A, B, C)
    assert read_listing([]) == ()
