"""The text that `adopt` writes: what is said, what is a comment, and what never stands there."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from redisforge.config.environment import Overrides
from redisforge.config.layers import Written, declare
from redisforge.config.yaml_lines import read_yaml
from redisforge.model.adopted import AdoptedNode, AdoptedShape
from redisforge.model.facts import NodeFacts
from redisforge.model.topology import ExternalAccess, Role, Topology
from redisforge.plan.apply_external import ApplyExternal, external_need
from redisforge.render.adopted_yaml import Adopted, adopted_yaml

slow_enough = limits(max_examples=60, deadline=None)

NODES = tuple(
    AdoptedNode("10.0.0.1", 7000 + number, 17000 + number, number % 3 + 1, Role.MASTER if number < 3 else Role.REPLICA)
    for number in range(6)
)
BY_NAME = {"maxmemory": "104857600", "maxmemory-policy": "allkeys-lru", "appendonly": "no", "save": "3600 1"}


def found(**changes: object) -> Adopted:
    values: dict[str, object] = {
        "name": "legacy", "seed": "10.0.0.1:7000", "kind": "redis", "series": "8.6",
        "shape": AdoptedShape(NODES, 3, 1, ()), "access": ExternalAccess(tls=False, password=False),
    }  # fmt: skip
    return Adopted(**(values | changes))  # type: ignore[arg-type]


def read_back(text: str) -> Topology:
    document = read_yaml(text.encode())
    declared = declare(
        Written(document.data, document.lines, "redisforge.yaml", "/x/redisforge.yaml"),
        Overrides({}, {}, {}, {}, ()),
        Path("/x"),
    )
    assert not declared.problems, declared.problems
    return declared.topology


def settings(**changes: str) -> dict[str, dict[str, str]]:
    values = BY_NAME | {name.replace("_", "-"): value for name, value in changes.items()}
    return {f"10.0.0.1:{node.port}": values for node in NODES}


def test_it_is_read_back_as_it_was_found() -> None:
    topology = read_back(adopted_yaml(found(settings=settings())))
    assert [(n.address, n.port, n.bus_port, n.shard + 1, n.intended_role) for n in topology.nodes] == [
        (n.address, n.port, n.bus_port, n.shard, n.role) for n in NODES
    ]
    assert not topology.own_nodes
    assert not (topology.envoys)
    assert not (topology.endpoints)
    assert not topology.users
    assert (topology.redis.max_memory_bytes, topology.redis.max_memory_policy) == (104857600, "allkeys-lru")
    assert topology.redis.persistence.mode == "rdb"
    assert topology.access == ExternalAccess(tls=False, password=False)


@pytest.mark.parametrize(
    ("directive", "value", "line"),
    [
        ("maxmemory", "1000", "#   maxmemory 1000   (default: 0)"),  # below what memory.max can say
        ("cluster-node-timeout", "90000", "#   cluster-node-timeout 90000   (default: 15000)"),
        ("hz", "50", "#   hz 50   (default: 10)"),
        ("notify-keyspace-events", "", '#   notify-keyspace-events ""   (default: Ex)'),
    ],
)
def test_what_has_no_option_is_a_comment(directive: str, value: str, line: str) -> None:
    defaults = {"maxmemory": "0", "cluster-node-timeout": "15000", "hz": "10", "notify-keyspace-events": "Ex"}
    given = {node: {**values, directive: value} for node, values in settings().items()}
    text = adopted_yaml(found(settings=given, defaults=defaults))
    assert line in text.splitlines()
    read_back(text)


def test_what_differs_is_told_node_by_node() -> None:
    given = settings()
    given["10.0.0.1:7001"] = {**BY_NAME, "hz": "50", "maxmemory": "209715200"}
    given["10.0.0.1:7000"] = {**BY_NAME, "hz": "10"}
    text = adopted_yaml(found(settings=given, defaults={"hz": "10"}))
    assert "#   hz 50   (10.0.0.1:7001)" in text
    assert "#   maxmemory 209715200   (10.0.0.1:7001)" in text
    assert "max:" not in text


@slow_enough
@given(
    st.lists(
        st.fixed_dictionaries(
            {},
            optional={
                "maxmemory": st.sampled_from(["0", "1000", "104857600", "104857601"]),
                "maxmemory-policy": st.sampled_from(["noeviction", "allkeys-lru", "other"]),
                "appendonly": st.sampled_from(["yes", "no"]),
                "save": st.sampled_from(["", "3600 1", "900 1 60 10"]),
                "appendfsync": st.sampled_from(["everysec", "no"]),
                "cluster-node-timeout": st.sampled_from(["100", "2000"]),
                "maxclients": st.sampled_from(["4064", "10000"]),
                "loglevel": st.sampled_from(["notice", "nothing"]),
                "tcp-backlog": st.just("128"),
                "io-threads": st.sampled_from(["1", "4"]),
                "hz": st.sampled_from(["10", "50"]),
            },
        ),
        min_size=6,
        max_size=6,
    )
)
def test_whatever_the_nodes_have_apply_config_has_nothing_to_do(values: list[dict[str, str]]) -> None:
    given = {f"10.0.0.1:{node.port}": each for node, each in zip(NODES, values, strict=True)}
    declared = read_back(adopted_yaml(found(settings=given, defaults={"hz": "10"})))
    asked = ApplyExternal(settings=dict(declared.node_settings or ()), kind="redis")
    for name, running in given.items():
        need = external_need(NodeFacts(name=name, address="", port=0, version="8.6.3", settings=running), asked)
        assert not need.told
        assert not need.fixed


def test_no_secret_and_nothing_of_one_process_stands_there() -> None:
    text = adopted_yaml(
        found(
            settings=settings(requirepass="geheim", masterauth="geheim", dir="/var/lib/a", tls_key_file_pass="geheim"),
            defaults={"requirepass": "", "masterauth": "", "dir": "", "tls-key-file-pass": ""},
        )
    )
    assert "geheim" not in text
    assert "/var/lib/a" not in text


def test_a_directive_of_two_names_is_said_once() -> None:
    both = settings(slave_lazy_flush="yes", replica_lazy_flush="yes")
    text = adopted_yaml(found(settings=both, defaults={"slave-lazy-flush": "no", "replica-lazy-flush": "no"}))
    assert "replica-lazy-flush yes" in text
    assert "slave" not in text


def test_a_hostile_value_stays_a_comment() -> None:
    given = settings(hz="1\nname: other")
    text = adopted_yaml(found(settings=given, defaults={"hz": "10"}))
    assert read_back(text).name == "legacy"


def test_what_is_not_protected_is_said() -> None:
    plain = adopted_yaml(found())
    assert plain.count("# Not protected") == 2
    access = ExternalAccess(tls=True, check_hostname=False, user="admin")
    guarded = adopted_yaml(found(access=access, ca_path="/x/ca.crt"))
    assert "Not protected" not in guarded
    topology = read_back(guarded)
    assert topology.access == access
    assert [user.name for user in topology.users] == ["admin"]
    assert topology.tls.ca_path == "/x/ca.crt"
