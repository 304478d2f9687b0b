"""`host maintenance`, `drain`, `remove`, `replace`: a host gives up its masters, or everything, or its very place.

Each function makes a Verb (runbooks/change.py); plan/evacuate.py says what comes next. That a host is in maintenance is
part of the recorded topology, so that every verb, and every operator who has the record, goes by it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec
from msgspec.structs import replace

from redisforge.errors import NotFoundError, RefusedError, UsageError
from redisforge.model.facts import Facts, UnitState
from redisforge.model.topology import Host, Topology
from redisforge.model.words import counted
from redisforge.plan.envoy_places import EnvoyPlaces, first_ports, with_envoys, without_envoys
from redisforge.plan.evacuate import Evacuation, await_heirs, evacuation_phase
from redisforge.plan.predict import Planner
from redisforge.plan.relocate import (
    Machine,
    refuse_lost_majority,
    refuse_no_room,
    refuse_shared_hosts,
    relocated,
)
from redisforge.plan.removal import refuse_lost_data
from redisforge.plan.resize import as_it_is, id_of, without
from redisforge.plan.resting import envoys_on, masters_among, nodes_on, rest_phase, stuck_masters
from redisforge.plan.starting import Wishes, refuse_unreachable_newcomers
from redisforge.plan.view import newest_owners, replicas_of
from redisforge.runbooks.change import Verb
from redisforge.runbooks.scale import refuse_broken


def named_host(topology: Topology, name: str) -> Host:
    """The host that is called so, or has this address. Raises NotFoundError, which lists the hosts."""
    found = next((host for host in topology.hosts if name in (host.name, host.address)), None)
    if found is None:
        raise NotFoundError(
            f"no host called {name!r}",
            where=topology.name,
            why=f"hosts of this cluster: {', '.join(host.name for host in topology.hosts)}",
            next_step="name one of them; a host that redisforge.yaml has since declared is known after `redisforge up`",
        )
    return found


def enter_verb(name: str, *, force: bool = False) -> Verb:
    """Put a host into maintenance: its masters hand over, and none comes back until `exit`."""
    notices: list[str] = []

    def target(topology: Topology, _: Facts) -> Topology:
        return with_maintenance(topology, named_host(topology, name).name)

    def planner(topology: Topology, facts: Facts, _: Wishes) -> Planner:
        host = named_host(topology, name)
        resting = frozenset(topology.maintenance)
        rest_phase(topology, facts, resting, force=force)  # what cannot be is refused before anything is recorded
        notices[:] = _what_is_left(topology, facts, host)
        return lambda seen: rest_phase(topology, seen, resting, force=force)

    return Verb(name="host", what=f"maintenance enter {name}", planner=planner, target=target, notices=notices)


def exit_verb(name: str) -> Verb:
    """End a host's maintenance. Nothing moves."""
    notices: list[str] = []

    def target(topology: Topology, _: Facts) -> Topology:
        host = named_host(topology, name)
        notices[:] = ["`redisforge rebalance --roles` gives the host masters again"]
        if host.name not in topology.maintenance:
            notices[:] = [f"{host.name} is not in maintenance"]
        return replace(topology, maintenance=tuple(other for other in topology.maintenance if other != host.name))

    def planner(_: Topology, __: Facts, ___: Wishes) -> Planner:
        return lambda seen: None

    return Verb(name="host", what=f"maintenance exit {name}", planner=planner, target=target, notices=notices)


class Leaving(msgspec.Struct, frozen=True, kw_only=True):
    """How a host is to be emptied. `machines`: the memory of the others, by host. `envoy_count`: how many Envoys are
    declared. `force`: go on where the cluster is less protected afterwards."""

    machines: Mapping[str, Machine] = {}
    envoy_count: int = 0
    force: bool = False


def _never() -> bool:
    return False


def drain_verb(name: str, how: Leaving) -> Verb:
    """Empty a host of nodes: masters hand over, and the copies that it holds are made anew on other hosts. It stays in
    maintenance, so that nothing new is placed there."""

    def target(topology: Topology, facts: Facts) -> Topology:
        host = named_host(topology, name)
        return relocated(with_maintenance(topology, host.name), facts, *_from_to(topology, host))

    def planner(topology: Topology, facts: Facts, wishes: Wishes) -> Planner:
        host = named_host(topology, name)
        wanted = Evacuation(hosts=frozenset({host.name}), nodes=nodes_on(topology, {host.name}), wishes=wishes)
        _refuse(topology, facts, wanted, how, host)
        return lambda seen: evacuation_phase(topology, seen, wanted)

    def result(topology: Topology, facts: Facts) -> Topology:
        return as_it_is(without(topology, nodes_on(topology, {named_host(topology, name).name})), facts)

    notices = [f"{name} stays in maintenance: `redisforge host maintenance exit {name}` lets new nodes be placed there"]
    return Verb(
        name="host", what=f"drain {name}", planner=planner, needs_units=True, target=target, result=result,
        notices=notices,
    )  # fmt: skip


def remove_verb(name: str, how: Leaving, *, removed_before: Callable[[], bool] = _never) -> Verb:
    """Take a host out of the cluster: everything on it is made anew on other hosts first, Envoys included.

    `removed_before`: see scale.remove_verb.
    """
    return _leave_verb(_Move(name=name, what=f"remove {name}", how=how, gone_before=removed_before))


def replace_verb(
    old: str,
    new: str,
    how: Leaving,
    *,
    declared: Sequence[Host] = (),
    replaced_before: Callable[[], bool] = lambda: False,
) -> Verb:
    """Let the host `new` take the place of `old`, which may be lost. `declared`: the hosts that redisforge.yaml has."""
    if old == new:
        raise UsageError("a host cannot replace itself", next_step="name the host that takes its place")
    move = _Move(name=old, what=f"replace {old} {new}", how=how, gone_before=replaced_before, heir=new)
    return _leave_verb(move, tuple(declared))


class _Move(msgspec.Struct, frozen=True, kw_only=True):
    """What `remove` and `replace` have in common: `name` leaves, everything goes to `heir` or, without one, to all."""

    name: str
    what: str
    how: Leaving
    gone_before: Callable[[], bool]
    heir: str = ""


def _leave_verb(move: _Move, declared: tuple[Host, ...] = ()) -> Verb:
    notices: list[str] = []

    def leaving(topology: Topology) -> Host | None:
        try:
            return named_host(topology, move.name)
        except NotFoundError:
            if not move.gone_before():
                raise
            return None

    def target(topology: Topology, facts: Facts) -> Topology:
        host = leaving(topology)
        if host is None:
            return topology
        base = first_ports(topology)
        if move.heir:
            topology = _with_host(topology, move.heir, declared)
        names, hosts = _from_to(topology, host, move.heir)
        grown = relocated(with_maintenance(topology, host.name), facts, names, hosts)
        return with_envoys(grown, EnvoyPlaces(move.how.envoy_count, hosts, base, envoys_on(grown, {host.name})))

    def planner(topology: Topology, facts: Facts, wishes: Wishes) -> Planner:
        host = leaving(topology)
        if host is None:
            notices[:] = [f"{move.name} is already gone: it is no part of the cluster"]
            return lambda _: None
        here = frozenset({host.name})
        nodes, envoys = nodes_on(topology, here), envoys_on(topology, here)
        wanted = Evacuation(hosts=here, nodes=nodes, envoys=envoys, wishes=wishes)
        _refuse(topology, facts, wanted, move.how, host)
        notices[:] = [*_about_zones(topology, host, move.heir), *_about_leftovers(facts, wanted, host)]
        return lambda seen: evacuation_phase(topology, seen, wanted)

    def result(topology: Topology, facts: Facts) -> Topology:
        host = leaving(topology)
        return topology if host is None else _without_host(topology, facts, host)

    return Verb(
        name="host", what=move.what, planner=planner, needs_units=True, target=target, result=result, notices=notices,
        undeclares=(move.name,),
    )  # fmt: skip


def _from_to(topology: Topology, host: Host, heir: str = "") -> tuple[frozenset[str], tuple[Host, ...]]:
    """The nodes of a host, and where they may go."""
    others = tuple(
        other
        for other in topology.hosts
        if other.address != host.address and other.name not in topology.maintenance and heir in ("", other.name)
    )
    return nodes_on(topology, {host.name}), others


def _with_host(topology: Topology, name: str, declared: tuple[Host, ...]) -> Topology:
    """The topology with a host that redisforge.yaml has and the record may not have yet. Raises NotFoundError."""
    if any(host.name == name for host in topology.hosts):
        return topology
    found = next((host for host in declared if host.name == name), None)
    if found is None:
        raise NotFoundError(
            f"no host called {name!r} is declared",
            where=topology.source or topology.name,
            why=f"declared are: {', '.join(host.name for host in declared or topology.hosts)}",
            next_step="add it under hosts: in redisforge.yaml, then run this command again (without `up` in between)",
        )
    return replace(topology, hosts=(*topology.hosts, found))


def _without_host(topology: Topology, facts: Facts, host: Host) -> Topology:
    """What is left: nothing of the host, and everything else is recorded as it is now."""
    left = as_it_is(without(topology, nodes_on(topology, {host.name})), facts)
    left = without_envoys(left, envoys_on(left, {host.name}))
    return replace(
        left,
        hosts=tuple(other for other in left.hosts if other.address != host.address),
        maintenance=tuple(name for name in left.maintenance if name != host.name),
    )


def _refuse(topology: Topology, facts: Facts, wanted: Evacuation, how: Leaving, host: Host) -> None:
    """What would be lost, or has no room, is told before anything is recorded or started. Raises RefusedError."""
    others = [name for name in sorted(wanted.nodes) if not topology.node(name).managed]
    if others or topology.access:
        raise RefusedError(
            f"RedisForge does not run {', '.join(others) or 'the nodes of this cluster'}",
            where=host.name,
            why="it cannot start a node in their place on another host",
            next_step="start one there and add it (`redisforge scale add HOST:PORT`), then take the old one out "
            "(`redisforge scale remove NODE`); `redisforge host maintenance enter` works for these, too",
        )
    refuse_unreachable_newcomers(topology, facts, wanted.nodes)
    if not await_heirs(topology, facts, wanted):
        refuse_broken(topology, facts)
    for name in sorted(wanted.nodes):
        seen = facts.nodes[name]
        if not seen.reachable and not any(r.name not in wanted.nodes for r in replicas_of(facts, id_of(facts, name))):
            refuse_lost_data(topology, facts, topology.node(name), wanted.nodes)
    new = [node for node in topology.nodes if node.name not in wanted.nodes and node.name not in facts.units]
    new = [node for node in new if node.managed and not facts.nodes[node.name].reachable]
    refuse_no_room(topology, facts, new, how.machines)
    if how.force:
        return
    refuse_shared_hosts(topology, facts, wanted.nodes, new)
    refuse_lost_majority(topology, host)


def _about_zones(topology: Topology, host: Host, heir: str) -> list[str]:
    """That the new host stands in another zone than the old one: copies may come to share it."""
    new = next((other for other in topology.hosts if other.name == heir), host)
    if new.zone == host.zone:
        return []
    return [
        f"{new.name} is in {new.zone}, and {host.name} is in {host.zone}: afterwards shards may have all of their "
        "copies in one zone"
    ]


def _about_leftovers(facts: Facts, wanted: Evacuation, host: Host) -> list[str]:
    """What could not be deleted, because nobody answers there."""
    names = sorted(wanted.nodes | wanted.envoys)
    left = [name for name in names if (unit := facts.units.get(name)) and unit.state is UnitState.UNKNOWN]
    if not left:
        return []
    return [
        f"{host.name} cannot be reached: {', '.join(left)} are still there. Nobody knows them any more; delete its "
        "folder of this cluster before the machine is used again"
    ]


def with_maintenance(topology: Topology, host: str) -> Topology:
    """The topology with one host more in maintenance."""
    return replace(topology, maintenance=tuple(sorted({*topology.maintenance, host})))


def _what_is_left(topology: Topology, facts: Facts, host: Host) -> list[str]:
    """What the operator should know before the host goes down."""
    here = nodes_on(topology, {host.name})
    stuck = [node.name for node in stuck_masters(facts, nodes_on(topology, topology.maintenance)) if node.name in here]
    moving = {node.name for node in masters_among(facts, here)} - set(stuck)
    alone = 0
    for owner in newest_owners(facts):
        shard = (owner, *replicas_of(facts, owner.id))
        alone += len(shard) > 1 and sum(node.name not in here for node in shard) == 1
    told = [f"{', '.join(sorted(moving))} hand over to other hosts"] if moving else []
    told += [f"{', '.join(stuck)} stay masters: no other host has their data"] if stuck else []
    if alone:
        copies = "has one copy" if alone == 1 else "have one copy each"
        told.append(f"while {host.name} is down, {counted(alone, 'shard')} {copies}")
    envoys = sorted(envoys_on(topology, {host.name}))
    told += [f"clients of {', '.join(envoys)} need another Envoy meanwhile"] if envoys else []
    return [*told, f"when it is back: `redisforge host maintenance exit {host.name}`"]
