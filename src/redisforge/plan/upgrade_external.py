"""Take nodes that somebody else runs to another version: their owner has brought the program, a restart starts it.

The order and the gates are those of plan/upgrade.py. What is not known beforehand is whether a restart brings the
version at all: that the first node shows, and where it does not, the cluster is left as it is then, whole. A container
keeps the image that it was made from, so its restart would be in vain: its node is made a replica, and then it is the
owner's turn to make the container anew.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from redisforge.errors import GateError
from redisforge.model.facts import Facts, NodeFacts
from redisforge.model.steps import Phase, Promote, RestartUnit
from redisforge.model.topology import Role, Topology
from redisforge.plan.upgrade import Upgrade, is_upgraded, upgrade_phase

_DOCKER = "docker:"
_LISTED = 6


def upgrade_external_phase(
    topology: Topology, facts: Facts, wanted: Upgrade, processes: Mapping[str, int]
) -> Phase | None:
    """The next phase, or None when every node runs the version. `processes` are the nodes' pids, as their supervisors
    knew them when the verb began: another one is another start.

    Raises:
        GateError: a node came back with what it ran before, or no restart could bring it the version.
        RefusedError: as `upgrade_phase`.
    """
    phase = upgrade_phase(topology, facts, wanted)
    if phase is None or not any(isinstance(step, RestartUnit | Promote) for step in phase.steps):
        return phase
    for node in _behind(topology, facts, wanted):
        unit = facts.units.get(node.name)
        if unit and unit.pid and unit.pid != processes.get(node.name):
            raise _in_vain(topology, facts, wanted, node)
    restarting = [step for step in phase.steps if isinstance(step, RestartUnit)]
    for step in restarting:
        _refuse_what_no_restart_brings(topology, facts, wanted, facts.nodes[step.unit])
    if not restarting:
        return phase
    return replace(phase, steps=tuple(replace(step, keep_identity=False) for step in restarting))


def _behind(topology: Topology, facts: Facts, wanted: Upgrade) -> list[NodeFacts]:
    nodes = [facts.nodes[node.name] for node in topology.nodes]
    return [node for node in nodes if node.reachable and not is_upgraded(facts, wanted, node.name)]


def _in_vain(topology: Topology, facts: Facts, wanted: Upgrade, node: NodeFacts) -> GateError:
    """A restart that brought the old version again: all other nodes would go the same way."""
    behind, kind, service = _behind(topology, facts, wanted), topology.engine.kind, topology.node(node.name).service
    done = len(topology.nodes) - len(behind)
    return GateError(
        f"{node.name} was restarted and still runs {kind} {node.version}, not {wanted.version}",
        where=f"{service} on {topology.node(node.name).host}",
        why="what is started there is still the old program. The cluster is whole; "
        f"{done} of its {len(topology.nodes)} nodes run {wanted.version}",
        next_step=f"install {kind} {wanted.version} where {service} finds it, and the same for "
        f"{_listed(topology, behind)}; then run the same command again: it passes over nodes that run the version",
    )


def _refuse_what_no_restart_brings(topology: Topology, facts: Facts, wanted: Upgrade, node: NodeFacts) -> None:
    declared, unit, kind = topology.node(node.name), facts.units.get(node.name), topology.engine.kind
    where = f"{declared.service} on {declared.host}"
    if unit is None or not unit.pid:
        raise GateError(
            f"{node.name} answers, and {declared.service} does not run",
            where=where,
            why=(unit.reason if unit else "") or "something else runs the node",
            next_step="correct its `service` in external.nodes of redisforge.yaml, then `redisforge up`",
        )
    if not declared.service.startswith(_DOCKER):
        return
    ready = [
        other
        for other in _behind(topology, facts, wanted)
        if other.role is Role.REPLICA and topology.node(other.name).service.startswith(_DOCKER)
    ]
    role = "it is a replica, so clients do not notice" if node in ready else "its slots are not served meanwhile"
    more = f"; one at a time, the same for {_listed(topology, ready)}" if len(ready) > 1 else ""
    raise GateError(
        f"{node.name} runs {kind} {node.version}, and its container starts nothing else",
        where=where,
        why="a container keeps the image that it was made from, whatever its tag means now. Nothing was stopped",
        next_step=f"make the container anew from an image with {kind} {wanted.version}, with the same data and address "
        f"({role}){more}. Then run the same command again: it passes over nodes that run the version",
    )


def _listed(topology: Topology, nodes: list[NodeFacts]) -> str:
    named = [f"{node.name} ({topology.node(node.name).service})" for node in nodes[:_LISTED]]
    return ", ".join(named) + (f" and {len(nodes) - _LISTED} more" if len(nodes) > _LISTED else "")
