"""Where new nodes stand, and that nothing that runs is moved for them."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from topologies import formed, hosts_in_zones, make_topology

from redisforge.errors import ConfigError
from redisforge.model.topology import Topology
from redisforge.plan.resize import as_it_is, grow, keep_places, leaving_nodes, without

many = settings(max_examples=200, deadline=None)
topologies = st.builds(
    make_topology,
    st.integers(3, 8),
    st.integers(0, 3),
    st.lists(st.integers(1, 3), min_size=1, max_size=3).map(lambda machines: hosts_in_zones(*machines)),
)


def declared_shards(topology: Topology) -> dict[str, int]:
    """Every node in the shard that it is declared for."""
    return {node.name: node.shard for node in topology.nodes}


@many
@given(topologies, st.integers(0, 5), st.integers(0, 2))
def test_growing_adds_and_moves_nothing(topology: Topology, more_shards: int, more_replicas: int) -> None:
    shards, replicas = topology.shards + more_shards, topology.replicas + more_replicas
    grown = grow(topology, shards, replicas, declared_shards(topology))
    assert grown.nodes[: len(topology.nodes)] == topology.nodes
    assert Counter(node.shard for node in grown.nodes) == dict.fromkeys(range(shards), replicas + 1)
    taken = [(node.address, port) for node in grown.nodes for port in (node.port, node.bus_port)]
    assert len(set(taken)) == len(taken)
    assert len({node.name for node in grown.nodes}) == len(grown.nodes)
    assert grow(grown, shards, replicas, declared_shards(grown)) == grown


@many
@given(topologies, st.integers(0, 3), st.integers(0, 2))
def test_new_shards_stand_apart_where_they_can(topology: Topology, more_shards: int, more_replicas: int) -> None:
    replicas = topology.replicas + more_replicas
    grown = grow(topology, topology.shards + more_shards, replicas, declared_shards(topology))
    machines = len({host.address for host in topology.hosts})
    for shard in range(topology.shards, grown.shards):
        addresses = {node.address for node in grown.nodes if node.shard == shard}
        assert len(addresses) == min(machines, replicas + 1)


@many
@given(topologies, st.integers(0, 3), st.integers(0, 2))
def test_what_was_scaled_and_is_then_declared_stays(topology: Topology, more_shards: int, more_replicas: int) -> None:
    shards, replicas = topology.shards + more_shards, topology.replicas + more_replicas
    recorded = grow(topology, shards, replicas, declared_shards(topology))
    afresh = make_topology(shards, replicas, topology.hosts)
    assert keep_places(afresh, recorded).nodes == recorded.nodes
    assert keep_places(afresh, topology).nodes == recorded.nodes, "declared by hand, it is the same as by scale"


def test_other_hosts_or_fewer_nodes_are_placed_afresh() -> None:
    recorded = make_topology(4, 1, hosts_in_zones(2, 1))
    for declared in (make_topology(3, 1, recorded.hosts), make_topology(4, 0, recorded.hosts), make_topology(4, 1)):
        assert keep_places(declared, recorded) is declared


def test_another_first_port_shifts_all() -> None:
    recorded = replace(make_topology(), first_port=7001)
    declared = replace(recorded, first_port=8001, bus_offset=1000)
    kept = keep_places(declared, recorded)
    assert [node.port for node in kept.nodes] == [node.port + 1000 for node in recorded.nodes]
    assert [node.bus_port for node in kept.nodes] == [node.port + 2000 for node in recorded.nodes]


def test_no_port_is_left() -> None:
    topology = replace(make_topology(), first_port=55533)
    assert grow(topology, 3, 2, declared_shards(topology)).nodes[-1].port == 55535
    with pytest.raises(ConfigError, match="no port is left"):
        grow(topology, 3, 3, declared_shards(topology))


@pytest.mark.parametrize(
    ("shards", "replicas", "leaving"),
    [
        (4, 1, set[str]()),
        (5, 2, set[str]()),
        (3, 1, {"redis-4", "redis-8"}),
        (4, 0, {"redis-5", "redis-6", "redis-7", "redis-8"}),
        (3, 0, {"redis-4", "redis-5", "redis-6", "redis-7", "redis-8"}),
    ],
)
def test_who_leaves(shards: int, replicas: int, leaving: set[str]) -> None:
    topology = make_topology(4, 1)
    assert leaving_nodes(topology, formed(topology), shards, replicas) == leaving


@many
@given(topologies)
def test_a_cluster_as_it_is(topology: Topology) -> None:
    facts = formed(topology)
    assert as_it_is(topology, facts) == topology
    names = frozenset(node.name for node in topology.nodes[-1:])
    assert {node.name for node in without(topology, names).nodes} == {node.name for node in topology.nodes} - names
