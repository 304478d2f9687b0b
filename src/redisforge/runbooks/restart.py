"""`restart`: nodes one after the other, replicas first, masters after a handover."""

from __future__ import annotations

import time

from redisforge.errors import UsageError
from redisforge.model.facts import Facts
from redisforge.model.topology import RedisNode, Topology
from redisforge.plan.named import named_node, with_address
from redisforge.plan.predict import Planner
from redisforge.plan.ready import refuse_silent
from redisforge.plan.restart import Restart, restart_phase
from redisforge.plan.starting import Wishes
from redisforge.runbooks.change import Verb
from redisforge.runbooks.external import refuse_without_units


def restart_verb(names: tuple[str, ...], *, force: bool = False) -> Verb:
    """Restart the named nodes, or all that RedisForge runs."""
    since_s = time.time()

    def planner(topology: Topology, facts: Facts, _: Wishes) -> Planner:
        refuse_silent(topology, facts)
        chosen = [named_node(topology, facts, name) for name in names] or _ours(topology)
        if not chosen:
            refuse_without_units(topology, "restart", _NAME_SERVICES)
        _refuse_unmanaged(chosen)
        wanted = Restart(names=frozenset(node.name for node in chosen), since_s=since_s, force=force)
        return lambda seen: restart_phase(topology, seen, wanted)

    return Verb(
        name="restart", what=" ".join(names), planner=planner, needs_units=True, restarts=True,
        keeps_nodes=True,
    )  # fmt: skip


_NAME_SERVICES = (
    "name what runs each node in external.nodes (service: systemd:UNIT or docker:CONTAINER) and run `redisforge up`; "
    "or restart its nodes by what runs them, masters after `redisforge failover`"
)


def _ours(topology: Topology) -> list[RedisNode]:
    """The nodes that RedisForge runs, or, where it runs none, those of which it knows what runs them."""
    return [node for node in topology.nodes if node.managed or (topology.access and node.service)]


def _refuse_unmanaged(nodes: list[RedisNode]) -> None:
    others = [with_address(node) for node in nodes if not (node.managed or node.service)]
    if others:
        raise UsageError(
            f"{', '.join(others)} {'is' if len(others) == 1 else 'are'} not run by RedisForge",
            why="somebody else does, and it is not known what restarts it",
            next_step="restart it by what runs it, after `redisforge failover` if it is a master",
        )
