"""A host in maintenance: its masters hand over to replicas in sync on other hosts, one after the other."""

from __future__ import annotations

from collections.abc import Collection

from redisforge.errors import RefusedError
from redisforge.model.facts import Facts, NodeFacts, UnitState
from redisforge.model.slots import describe
from redisforge.model.steps import Phase
from redisforge.model.topology import Topology
from redisforge.plan import gates
from redisforge.plan.handover import best_replica, hand_over
from redisforge.plan.ready import whole_first
from redisforge.plan.resize import is_ghost
from redisforge.plan.view import newest_owners, replicas_of


def nodes_on(topology: Topology, hosts: Collection[str]) -> frozenset[str]:
    """The names of the nodes that stand on these hosts; hosts that share an address are one machine."""
    return frozenset(node.name for node in topology.nodes if node.address in _addresses(topology, hosts))


def envoys_on(topology: Topology, hosts: Collection[str]) -> frozenset[str]:
    """The names of the Envoys that stand on these hosts."""
    return frozenset(envoy.name for envoy in topology.envoys if envoy.address in _addresses(topology, hosts))


def left_out(topology: Topology, facts: Facts) -> frozenset[str]:
    """Nodes of hosts in maintenance that have been deleted, and that nobody in the cluster knows: a drain that was cut
    off is about to take them off the record. Nothing blank starts in their place."""
    if not topology.maintenance or not newest_owners(facts):
        return frozenset()
    nodes = (node.name for node in topology.own_nodes if node.host in topology.maintenance)
    units = ((name, facts.units.get(name)) for name in nodes)
    absent = (name for name, unit in units if facts.units and (unit is None or unit.state is UnitState.ABSENT))
    return frozenset(name for name in absent if is_ghost(topology, facts, name))


def left_out_words(topology: Topology, facts: Facts) -> tuple[str, ...]:
    """What the operator is to know of those, a line for each host."""
    out = left_out(topology, facts)
    by_host = {host: sorted(nodes_on(topology, {host}) & out) for host in topology.maintenance}
    return tuple(
        f"{', '.join(names)}: not started, for {host} is in maintenance and nobody in the cluster knows "
        f"{'it' if len(names) == 1 else 'them'} any more; {take_off(host)}"
        for host, names in by_host.items()
        if names
    )


def take_off(host: str) -> str:
    """What is to be done about nodes that are left out."""
    return (
        f"`redisforge host drain {host}` goes on where it was cut off; to have it back, `redisforge host maintenance "
        f"exit {host}` and `redisforge up`"
    )


def _addresses(topology: Topology, hosts: Collection[str]) -> frozenset[str]:
    return frozenset(host.address for host in topology.hosts if host.name in hosts)


def masters_among(facts: Facts, names: frozenset[str]) -> tuple[NodeFacts, ...]:
    """Those of the nodes called `names` that own slots now."""
    return tuple(node for node in newest_owners(facts) if node.name in names)


def stuck_masters(facts: Facts, names: frozenset[str]) -> tuple[NodeFacts, ...]:
    """The masters among `names` that have no replica but among `names`."""
    return tuple(
        master
        for master in masters_among(facts, names)
        if all(replica.name in names for replica in replicas_of(facts, master.id))
    )


def _pronoun(hosts: frozenset[str]) -> str:
    return "it" if len(hosts) == 1 else "them"


def rest_phase(topology: Topology, facts: Facts, hosts: frozenset[str], *, force: bool = False) -> Phase | None:
    """The next phase on the way to `hosts` without masters; None when there is nothing left to do. What does not answer
    there may be down already.

    With `force` a master whose shard has no node elsewhere stays what it is.

    Raises:
        RefusedError: a shard has no replica elsewhere, or slots are not served.
    """
    names, envoys = nodes_on(topology, hosts), envoys_on(topology, hosts)
    stuck = stuck_masters(facts, names)
    if stuck and not force:
        raise RefusedError(
            f"{', '.join(master.name for master in stuck)} cannot hand over",
            where=f"slots {describe(stuck[0].slots)}",
            why=f"no replica outside {', '.join(sorted(hosts))} has their data; with {_pronoun(hosts)} these slots "
            "would be down",
            next_step="add a replica first (`redisforge scale --replicas N`), or accept that with --force"
            + ("; or end the maintenance of the other host first" if len(hosts) > 1 else ""),
        )
    silent_nodes = frozenset(name for name in names if not facts.nodes[name].reachable)
    silent_envoys = frozenset(name for name in envoys if facts.envoys[name].problem)
    if phase := whole_first(topology, facts, silent_nodes, silent_envoys):
        return phase
    for master in masters_among(facts, names):
        if heir := best_replica(topology, facts, master.id, names):
            phase = hand_over(topology, facts, master, heir, f"the host of {master.name} is to have no masters")
            return gates.but_for(silent_nodes | silent_envoys, phase)
    return None
