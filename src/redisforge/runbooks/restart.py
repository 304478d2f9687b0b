"""`restart`: nodes one after the other, replicas first, masters after a handover."""

from __future__ import annotations

import time

from redisforge.errors import UsageError
from redisforge.model.facts import Facts
from redisforge.model.topology import RedisNode, Topology
from redisforge.plan.named import named_node
from redisforge.plan.predict import Planner
from redisforge.plan.restart import Restart, restart_phase
from redisforge.plan.starting import Wishes
from redisforge.runbooks.change import Verb
from redisforge.runbooks.external import refuse_without_units


def restart_verb(names: tuple[str, ...], *, force: bool = False) -> Verb:
    """Restart the named nodes, or all that RedisForge runs."""
    since_s = time.time()

    def planner(topology: Topology, facts: Facts, _: Wishes) -> Planner:
        refuse_without_units(
            topology, "restart", "restart its nodes by what runs them, masters after `redisforge failover`"
        )
        chosen = [named_node(topology, facts, name) for name in names] or [n for n in topology.nodes if n.managed]
        _refuse_unmanaged(chosen)
        wanted = Restart(names=frozenset(node.name for node in chosen), since_s=since_s, force=force)
        return lambda seen: restart_phase(topology, seen, wanted)

    return Verb(name="restart", what=", ".join(names) or "all nodes", planner=planner, needs_units=True)


def _refuse_unmanaged(nodes: list[RedisNode]) -> None:
    others = [f"{node.name} ({node.address}:{node.port})" for node in nodes if not node.managed]
    if others:
        raise UsageError(
            f"{', '.join(others)} is not run by RedisForge",
            why="it was added with `redisforge scale add`",
            next_step="restart it by what runs it, after `redisforge failover` if it is a master",
        )
