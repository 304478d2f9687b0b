"""Who takes the place of a host's nodes: apart from the rest of the shard, by host and then by zone, evenly."""

from __future__ import annotations

from collections import Counter

from changing import topologies
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from topologies import formed, hosts_in_zones, make_topology

from redisforge.model.topology import Topology
from redisforge.plan.relocate import relocated
from redisforge.plan.resting import nodes_on


@settings(max_examples=100, deadline=None)
@given(topologies(), st.data())
def test_shards_stay_as_separated_as_the_hosts_allow(topology: Topology, data: st.DataObject) -> None:
    gone = data.draw(st.sampled_from(topology.hosts), label="gone")
    others = tuple(host for host in topology.hosts if host is not gone)
    if not others:
        reject()
    leaving = nodes_on(topology, {gone.name})
    made = relocated(topology, formed(topology), leaving, others)
    staying = [node for node in made.nodes if node.name not in leaving]
    assert len(staying) == topology.shards * (topology.replicas + 1)
    assert set(topology.nodes) <= set(made.nodes), "nobody else moves"
    assert not {node.host for node in staying} & {gone.name}
    places = [(node.address, port) for node in made.nodes for port in (node.port, node.bus_port)]
    assert len(set(places)) == len(places)
    for shard in range(topology.shards):
        members = [node for node in staying if node.shard == shard]
        old = [node for node in members if node in topology.nodes]
        machines, zones = {node.address for node in members}, {node.zone for node in members}
        assert len(members) == topology.replicas + 1
        kept = len(old) - len({node.address for node in old})  # those shared a machine before
        assert len(machines) == min(len(members) - kept, len({host.address for host in others}))
        if len(machines) == len(members) and len(members) > len(old):
            free = {host.zone for host in others} - {node.zone for node in old}
            new = {node.zone for node in members if node not in old}
            assert new <= free or len(zones) == len({host.zone for host in others}) or not free
    load = Counter({host.address: 0 for host in others})
    load.update(node.address for node in staying if node.name not in {old.name for old in topology.nodes})
    assert sum(load.values()) == len(leaving)


def test_old_and_new_nodes_are_numbered_alike() -> None:
    """By the first slot of their shard, whatever was on record: a run that is cut off leaves what makes sense."""
    topology = make_topology(3, 1, hosts_in_zones(1, 1, 1, 1))
    recorded = replace(topology, nodes=tuple(replace(n, shard=(n.shard + 1) % 3) for n in topology.nodes))
    leaving = nodes_on(topology, {"host-1-1"})
    made = relocated(recorded, formed(topology), leaving, topology.hosts[1:])
    assert made.nodes[: len(topology.nodes)] == topology.nodes
    new = sorted(node.shard for node in made.nodes[len(topology.nodes) :])
    assert new == sorted(node.shard for node in topology.nodes if node.name in leaving)
