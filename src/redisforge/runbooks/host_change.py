"""`host maintenance`, `drain`, `remove`, `replace`: a host gives up its masters, or everything, or its very place.

Each function makes a Verb (runbooks/change.py); plan/evacuate.py says what comes next. That a host is in maintenance is
part of the recorded topology, so that every verb, and every operator who has the record, goes by it.
"""

from __future__ import annotations

from msgspec.structs import replace

from redisforge.errors import NotFoundError
from redisforge.model.facts import Facts
from redisforge.model.topology import Host, Topology
from redisforge.plan.evacuate import envoys_on, masters_among, nodes_on, rest_phase, stuck_masters
from redisforge.plan.predict import Planner
from redisforge.plan.starting import Wishes
from redisforge.plan.view import newest_owners, replicas_of
from redisforge.runbooks.change import Verb


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
    told += [f"while {host.name} is down, {alone} shard(s) have one copy each"] if alone else []
    envoys = sorted(envoys_on(topology, {host.name}))
    told += [f"clients of {', '.join(envoys)} need another Envoy meanwhile"] if envoys else []
    return [*told, f"when it is back: `redisforge host maintenance exit {host.name}`"]
