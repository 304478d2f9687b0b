"""Who takes the place of a host's nodes: apart from the rest of the shard, by host and then by zone, evenly."""

from __future__ import annotations

from collections import Counter

from changing import topologies
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from topologies import formed

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
