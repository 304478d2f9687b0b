"""`simulate`: observe once, and conclude what would survive a loss. Nothing is stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from redisforge.errors import NodeError
from redisforge.model.facts import Facts
from redisforge.model.report import Survival
from redisforge.model.topology import Topology
from redisforge.plan.simulate import LossKind, units_lost
from redisforge.plan.simulate import simulate as conclude
from redisforge.runbooks.cluster import Cluster
from redisforge.runbooks.observe import Observer
from redisforge.runbooks.shared_record import as_changed, changed_elsewhere

_TIMEOUT_S = 1.5


def simulate(cluster: Cluster, losses: Sequence[tuple[LossKind, str]]) -> Survival:
    """What would be left after losing all of `losses` at once, each a kind and a name.

    Raises:
        NotFoundError: a host, zone or node of that name does not exist.
        NodeError: no node answers, so nothing is known.
    """

    async def look() -> tuple[Topology, Facts]:
        record = await changed_elsewhere(cluster)
        there = as_changed(cluster, record) if record else cluster
        async with Observer(there, timeout_s=_TIMEOUT_S) as observer:
            return there.topology, await observer.look()

    topology, facts = asyncio.run(look())
    lost = frozenset[str]().union(*(units_lost(topology, kind, name) for kind, name in losses))
    if not facts.reachable_nodes():
        raise NodeError(
            "no node answers, so nothing can be concluded",
            where=cluster.topology.name,
            why=next((node.problem for node in facts.nodes.values()), ""),
            next_step=f"`redisforge up -c {cluster.topology.name}` starts it",
        )
    return conclude(topology, facts, lost)
