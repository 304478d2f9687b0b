"""`external`: nodes that somebody else runs, as redisforge.yaml declares them."""

from __future__ import annotations

from pathlib import Path

import pytest

from redisforge.config.edit import set_items
from redisforge.config.load import LoadedConfig, load
from redisforge.errors import RedisForgeError
from redisforge.model.topology import Role
from redisforge.runbooks.declare import external_nodes

NODES = "".join(
    f"    - {{address: 10.0.0.{number}, port: 7000, shard: {number}, role: master}}\n" for number in (1, 2, 3)
)
PLAIN = f"external:\n  tls: false\n  password: false\n  nodes:\n{NODES}"


def loaded(folder: Path, text: str, **environment: str) -> LoadedConfig:
    (folder / "redisforge.yaml").write_text(text)
    return load(None, environment, folder)


def test_nothing_is_ours_there(tmp_path: Path) -> None:
    found = loaded(tmp_path, PLAIN)
    topology = found.topology
    assert [node.name for node in topology.nodes] == ["10.0.0.1:7000", "10.0.0.2:7000", "10.0.0.3:7000"]
    assert [(n.bus_port, n.shard, n.intended_role, n.managed) for n in topology.nodes] == [
        (17000, shard, Role.MASTER, False) for shard in range(3)
    ]
    assert not topology.own_nodes
    assert not (topology.envoys)
    assert not (topology.endpoints)
    assert not topology.users
    assert any("plain text" in notice for notice in found.notices)
    assert any("whoever reaches the nodes" in notice for notice in found.notices)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("memory: {max: 64mb}\n", {"maxmemory": "67108864"}),
        ("memory: {policy: allkeys-lru}\n", {"maxmemory-policy": "allkeys-lru"}),
        ("memory:\n", {}),
        ("persistence: {mode: aof}\n", {"appendonly": "yes"}),
        ("persistence: {mode: none}\n", {"appendonly": "no", "save": ""}),
        ("persistence: {mode: rdb}\n", {"appendonly": "no", "save": "3600 1 300 100 60 10000"}),
        ("persistence: {fsync: always}\n", {"appendfsync": "always"}),
        ("node_timeout_ms: 5000\n", {"cluster-node-timeout": "5000"}),  # the default, and yet declared
        ("max_clients: 500\nlog_level: verbose\n", {"maxclients": "500", "loglevel": "verbose"}),
        ("tcp_backlog: 64\nio_threads: 2\n", {"tcp-backlog": "64", "io-threads": "2"}),
        ("redis_conf: {HZ: 20, notify-keyspace-events: ''}\n", {"hz": "20", "notify-keyspace-events": ""}),
        (
            "redis_conf: {client-output-buffer-limit: [replica 1mb 1mb 1, pubsub 2mb 2mb 2]}\n",
            {"client-output-buffer-limit": "slave 1048576 1048576 1 pubsub 2097152 2097152 2"},
        ),
    ],
)
def test_only_what_is_written_is_declared_of_the_nodes(tmp_path: Path, text: str, expected: dict[str, str]) -> None:
    found = loaded(tmp_path, PLAIN + text)
    assert dict(found.topology.node_settings or ()) == expected
    assert not any("redis_conf" in notice for notice in found.notices)


def test_the_environment_declares_too_and_own_clusters_have_no_such_thing(tmp_path: Path) -> None:
    found = loaded(tmp_path, PLAIN, REDIS_MAXMEMORY="96mb").topology
    assert found.node_settings == (("maxmemory", "100663296"),)
    assert loaded(tmp_path, "memory: {max: 64mb}\n").topology.node_settings is None


def test_hosts_give_zones_and_a_node_may_have_its_own(tmp_path: Path) -> None:
    text = PLAIN.replace("10.0.0.3, port: 7000,", "10.0.0.3, port: 7000, zone: c,")
    hosts = "hosts:\n  - {name: one, address: 10.0.0.1, zone: a}\n"
    topology = loaded(tmp_path, hosts + text).topology
    assert [(node.host, node.zone) for node in topology.nodes] == [
        ("one", "a"),
        ("10.0.0.2", "10.0.0.2"),
        ("10.0.0.3", "c"),
    ]


def test_what_is_written_back_is_read_as_the_same(tmp_path: Path) -> None:
    from redisforge.render.adopted_yaml import node_text

    text = PLAIN.replace("10.0.0.3, port: 7000,", "10.0.0.3, port: 7000, zone: c,")
    text = text.replace("10.0.0.1, port: 7000,", "10.0.0.1, port: 7000, service: 'docker:redis-1',")
    hosts = "hosts:\n  - {name: one, address: 10.0.0.1, zone: a}\n"
    topology = loaded(tmp_path, hosts + text).topology
    assert topology.nodes[0].service == "docker:redis-1"
    lines = [node_text(node) for node in external_nodes(topology)]
    changed = set_items(hosts + text, ("external", "nodes"), lines)
    assert changed is not None
    assert loaded(tmp_path, changed).topology.nodes == topology.nodes


def test_the_operator_password_may_be_weak_there(tmp_path: Path) -> None:
    text = PLAIN.replace("  password: false\n", "")
    found = loaded(tmp_path, text, REDIS_REQUIREPASS="hunter2")
    assert found.passwords["default"].reveal() == "hunter2"
    assert any("REDIS_REQUIREPASS" in notice for notice in found.notices)
    assert "hunter2" not in str(found.notices)
    with pytest.raises(RedisForgeError):
        loaded(tmp_path, "name: main\n", REDIS_REQUIREPASS="hunter2")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (PLAIN.replace("tls: false", "tls: true"), "needs tls.ca_file"),
        (PLAIN + "shards: 4\n", "no node of shard 4"),
        (PLAIN.replace("10.0.0.3", "10.0.0.2"), "is there twice"),
        (PLAIN.replace("password: false", "password: false\n  user: admin"), "external.password is false"),
        (PLAIN + "tls: {cert_file: a.crt}\n", "is tls.cert_file and tls.key_file"),
        (PLAIN.replace("role: master}", "role: primary}", 1), "external.nodes[0].role"),
        (PLAIN.replace("shard: 1", "shrad: 1"), "shrad"),
        (
            PLAIN.replace("shard: 1", "service: systemd:redis, shard: 1"),
            "systemd:redis runs on a host that is not among",
        ),
        (PLAIN.replace("shard: 1", 'service: "rc:redis", shard: 1'), "must be systemd:UNIT or docker:CONTAINER"),
        (PLAIN.replace("shard: 1", 'service: "docker:a;b", shard: 1'), "must be systemd:UNIT or docker:CONTAINER"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(RedisForgeError) as caught:
        loaded(tmp_path, text)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "external: {nodes: [{address: 10.0.0.1}]}\n",  # not one a line
        "external:\n  nodes: []\n",
        "name: main\n",
        "external: [\n",
    ],
)
def test_a_list_that_cannot_be_replaced_line_by_line_is_left(text: str) -> None:
    assert set_items(text, ("external", "nodes"), ["{address: 10.0.0.2}"]) is None


def test_only_the_list_is_replaced() -> None:
    text = "# top\nexternal:\r\n  nodes:\n    - {a: 1}  # one\n    - a: 2\n      b: 3\n  tls: false\nname: x"
    changed = set_items(text, ("external", "nodes"), ["{a: 4}"])
    assert changed == "# top\nexternal:\r\n  nodes:\n    - {a: 4}\n  tls: false\nname: x"
