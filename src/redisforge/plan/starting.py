"""Which Units are started next, and which of them may start without data.

Members first: Units that have been part of a cluster are started before blank ones, so that a node that lost its data
can learn from them that it must wait (fleet/keeper.py, "The guard").
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from redisforge.errors import RefusedError, UnreachableError
from redisforge.model.facts import Facts, PeerView, UnitState
from redisforge.model.slots import describe, subtract
from redisforge.model.steps import Gate, Phase, StartUnit, Step
from redisforge.model.topology import RedisNode, Topology
from redisforge.plan import gates
from redisforge.plan.refusals import refuse_if_forgotten
from redisforge.plan.view import (
    claimed_slots,
    copies_of,
    declared_at,
    key_total,
    owned_slots,
    unclaimed_slots,
)

_WAIT_FOR_NODES = Phase(title="wait for the nodes that run", steps=(), gate=Gate("nodes_answer", 30.0))


class Wishes(msgspec.Struct, frozen=True):
    """What the planner must know beside topology and facts.

    `config_hashes` and `placed_hashes` by Unit name (model/unit.py); empty when nothing is run by RedisForge
    (init-cluster).
    `accepted_losses` are names of nodes that may start without their data.
    """

    config_hashes: Mapping[str, str] = {}
    accepted_losses: frozenset[str] = frozenset()
    placed_hashes: Mapping[str, str] = {}


def start_units(topology: Topology, facts: Facts, wishes: Wishes) -> Phase | None:
    """The next Units to start; None when every Unit runs.

    Raises:
        RefusedError: a node lost its data and no replica has it; or its members were all forgotten.
        HostError: hosts cannot be reached. What has data on the others has been started before, so that whatever can
            serve does; nothing starts blank, since those that cannot be asked may expect its slots.
    """
    redis_names = {node.name for node in topology.nodes}
    unknown = [name for name in wishes.config_hashes if _is_unknown(facts, name)]
    down = [name for name in wishes.config_hashes if not _runs(facts, name) and name not in unknown]
    if _is_forming(facts):
        down = [name for name in down if name in redis_names]
    down_nodes = [name for name in down if name in redis_names]
    members = [name for name in down_nodes if name in facts.units and facts.units[name].has_cluster_config]
    accepted = [name for name in wishes.accepted_losses & redis_names if _is_held(facts, name)]
    gate = _WAIT_FOR_NODES.gate
    if accepted:
        steps = tuple(
            StartUnit(unit=name, permit_blank=True, why="its loss of data was accepted") for name in sorted(accepted)
        )
        return Phase(title="start nodes whose loss was accepted", steps=steps, gate=gate)
    envoys_only = bool(unknown) and not down_nodes and bool(down) and not _is_forming(facts)
    if members or envoys_only:
        wave = [*members, *(name for name in down if name not in redis_names)]
        return Phase(title="start nodes that have data", steps=_starts(wave, frozenset()), gate=gate)
    if unknown:
        raise _unreachable(
            topology,
            facts,
            unknown,
            "what has data on the other hosts runs; bring the host back, or the way to it, and run `redisforge up` "
            "again",
        )
    if not down:
        return _start_held(topology, facts, wishes)
    if facts.units and gates.nodes_answer(topology, facts):
        # A silent member could still expect slots of a node that is about to start blank: hear it first.
        return _WAIT_FOR_NODES
    refuse_if_forgotten(topology, facts, wishes.accepted_losses)
    expected = {(p.address, p.port) for n in facts.reachable_nodes() for p in n.peers if p.slots}
    blank = frozenset(
        node.name for node in topology.nodes if node.name in down and (node.address, node.port) not in expected
    )
    title = "start the nodes" if down_nodes else "start the Envoys"
    return Phase(title=title, steps=_starts(down, blank), gate=gate)


def _is_forming(facts: Facts) -> bool:
    """Nothing is stored and the cluster is not whole: an Envoy started now would learn a half of it, and keep to
    that until its next refresh. Later, Envoys start together with the nodes, to serve what can be served."""
    nodes = facts.reachable_nodes()
    whole = not unclaimed_slots(facts) and all(node.slots or node.replication_offset for node in nodes)
    whole = whole and not gates.untold(facts)
    was_member = any(unit.has_cluster_config and not _runs(facts, unit.name) for unit in facts.units.values())
    return not key_total(facts) and not whole and not was_member


def _start_held(topology: Topology, facts: Facts, wishes: Wishes) -> Phase | None:
    """Release nodes whose guard holds them although there is nothing left to protect."""
    steps: list[Step] = []
    owned = owned_slots(facts)
    held = [node for node in topology.nodes if _is_held(facts, node.name)]
    if held and unclaimed_slots(facts) and gates.nodes_answer(topology, facts):
        return _WAIT_FOR_NODES  # one that is reading its data may expect slots of those that are held
    refuse_if_forgotten(topology, facts, wishes.accepted_losses)
    for node in held:
        claims = _claims_on(topology, facts, node)
        copies = [copy for claim in claims for copy in copies_of(topology, facts, claim.id)]
        # Whoever was a member, and can ask nobody, may be the only one that is left.
        unknown = not claims and facts.units[node.name].has_cluster_config and not claimed_slots(facts)
        nothing_kept = topology.redis.persistence.mode == "none" or not (claims or unknown)
        if nothing_kept and not any(copy.keys for copy in copies):
            why = "it keeps nothing on disk and no replica holds a key of it" if claims else "nobody expects it"
            steps.append(StartUnit(unit=node.name, permit_blank=True, why=why))
        elif unknown or (any(subtract(claim.slots, owned) for claim in claims) and not copies):
            raise RefusedError(
                f"{node.name} has lost its data, and no replica of it can be reached",
                where=f"slots {describe(claims[0].slots)}" if claims else f"{node.address}:{node.port}",
                why=facts.units[node.name].reason,
                next_step="bring its data folder back and run `redisforge up` again; or, to serve these slots as "
                f"empty, `redisforge up --accept-data-loss {node.name}`",
            )
    if not steps:
        return None
    return Phase(title="start nodes that have nothing to lose", steps=tuple(steps), gate=_WAIT_FOR_NODES.gate)


def _claims_on(topology: Topology, facts: Facts, node: RedisNode) -> list[PeerView]:
    """What the others expect of a held node: slots under its address, or, for a member that may have moved since,
    under an address that is nobody's."""
    views = [peer for other in facts.reachable_nodes() for peer in other.peers if peer.slots]
    here = [peer for peer in views if (peer.address, peer.port) == (node.address, node.port)]
    if here or not facts.units[node.name].has_cluster_config:
        return here
    gone = [peer for peer in views if facts.node_by_id(peer.id) is None]
    return [peer for peer in gone if declared_at(topology, peer.address, peer.port) is None]


def _starts(names: list[str], blank: frozenset[str]) -> tuple[Step, ...]:
    return tuple(
        StartUnit(unit=name, permit_blank=name in blank, why="it is meant to run and does not") for name in names
    )


def _runs(facts: Facts, name: str) -> bool:
    unit = facts.units.get(name)
    return unit is not None and unit.state in (UnitState.RUNNING, UnitState.BACKOFF, UnitState.HELD)


def _is_unknown(facts: Facts, name: str) -> bool:
    unit = facts.units.get(name)
    return unit is not None and unit.state is UnitState.UNKNOWN


def refuse_unreachable_newcomers(topology: Topology, facts: Facts, parting: frozenset[str] = frozenset()) -> None:
    """Nodes that nobody knows yet can be started only where their host is reached; those that are `parting` may have
    been forgotten already. Raises UnreachableError."""
    known = {(peer.address, peer.port) for node in facts.reachable_nodes() for peer in node.peers}
    new = [node for node in topology.own_nodes if (node.address, node.port) not in known and node.name not in parting]
    if lost := [node.name for node in new if _is_unknown(facts, node.name)]:
        raise _unreachable(
            topology, facts, lost, "nothing was changed; bring the host back, or the way to it, and run this again"
        )


def _unreachable(topology: Topology, facts: Facts, names: list[str], next_step: str) -> UnreachableError:
    host_of = {unit.name: unit.host for unit in (*topology.nodes, *topology.envoys)}
    reasons = {host_of[name]: facts.units[name].reason for name in names}
    cures = dict.fromkeys(facts.units[name].cure for name in names)
    hosts = ", ".join(sorted(reasons))
    return UnreachableError(
        f"{hosts} cannot be reached",
        where=", ".join(names),
        why="\n".join(reasons[host] for host in sorted(reasons)),
        next_step="\n".join([*filter(None, cures), next_step]),
    )


def _is_held(facts: Facts, name: str) -> bool:
    unit = facts.units.get(name)
    return unit is not None and unit.state is UnitState.HELD
