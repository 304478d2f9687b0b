"""Put back a node that did not come up with a new version, so that the cluster works as before.

It is a replica then (replicas go first, masters hand over before they stop), so its data is safe with its master.

- Its master runs the old version: it gets the old program, configuration and nodes.conf again. When the old version
  cannot read what the new one has written, it starts blank and syncs from its master.
- Its master is new already: the old version could not sync from it. It starts blank, with the new version; if that
  does not work either it stays down, and the shard is served by its master.
- It has no master (`--force` restarts a master without replicas): its files are the only copy. It gets the old program
  back, and starts blank never.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping

from redisforge.errors import RedisForgeError, UnitError
from redisforge.fleet.binaries import cache_folder, ensure_envoy
from redisforge.model.facts import Facts, NodeFacts
from redisforge.model.topology import Role
from redisforge.model.unit import Unit, UnitFile
from redisforge.plan import gates
from redisforge.plan.upgrade import Upgrade, is_upgraded
from redisforge.render.redis_conf import CLUSTER_CONFIG_FILE
from redisforge.runbooks.cluster import Cluster
from redisforge.runbooks.observe import Observer
from redisforge.runbooks.placed import PlacedNode, engines_of, local_program
from redisforge.runbooks.run import Progress, log_tail
from redisforge.runbooks.units import Programs, build_units
from redisforge.runbooks.work import KEPT_IDENTITY

_IN_SYNC_LIMIT_S = 60.0
_LOADING_LIMIT_S = 600.0
_WHOLE_LIMIT_S = 15.0
_CRASHES = 3
_DATA_FILES = ("appendonlydir", "dump.rdb")


class PutBack:
    """Puts back what an upgrade left in disorder. `before` are the nodes as they were placed when it began."""

    def __init__(
        self, cluster: Cluster, observer: Observer, wanted: Upgrade, units: Mapping[str, Unit],
        before: Mapping[str, PlacedNode], progress: Progress,
    ) -> None:  # fmt: skip
        self._cluster = cluster
        self._observer = observer
        self._wanted = wanted
        self._units = units
        self._before = before
        self._progress = progress

    async def run(self, error: RedisForgeError) -> None:
        """Find the node that did not come up, put it back, and say so.

        Returns when no node was left in disorder; the error of the upgrade stands then.

        Raises:
            UnitError: a node was put back, or could not be.
        """
        facts = await self._observer.look(fresh_units=True)
        for name in self._units:
            unit = facts.units.get(name)
            touched = unit is not None and unit.placed_hash == self._units[name].placed_hash
            if touched and not _is_in_sync(facts.nodes[name]):
                tail = await log_tail(self._cluster, name)
                master = _master_of(self._cluster, facts, name)
                outcome = await self._put_back(name, facts, master)
                if outcome is None:
                    continue
                serves = master is not None or _is_in_sync((await self._observer.look()).nodes[name])
                if serves:
                    await self._await_whole()
                raise UnitError(
                    f"{name} did not come up with {self._wanted.version}; {outcome}",
                    where=self._cluster.runtime.log_path(name),
                    why=f"{error.what}\n{tail}",
                    next_step="the cluster works; mend the cause and run the same command again, it goes on from here"
                    if serves
                    else f"its data is kept in {self._cluster.unit_folder(name)}/data; mend the cause, start the node "
                    "with `redisforge up`, and run the same command again",
                )

    async def _put_back(self, name: str, facts: Facts, master: NodeFacts | None) -> str | None:
        """Returns what the node does now, in words; None where there is no older program to go back to."""
        if master is not None and is_upgraded(facts, self._wanted, master.name):
            self._progress(f"{name} starts blank and syncs from {master.name} …")
            if await self._start(name, self._units[name], blank=True):
                return f"it lost its copy and has synced with {self._wanted.version} from {master.name}"
            await self._cluster.runtime.stop([name])
            return f"it is stopped, and its shard is served by {master.name}"
        old = self._old_unit(name, master)
        if old is None:
            return None
        self._progress(f"{name} goes back to the old version …")
        await self._give_identity_back(name)
        if await self._start(name, old, blank=False):
            return "it runs the old version again"
        if master is None:
            return "it does not come up with the old version either, and no other node has a copy of its data"
        await self._give_identity_back(name)
        if await self._start(name, old, blank=True):
            return "it runs the old version again, with a new copy of its master's data"
        return "it does not come up with the old version either; its master serves the shard"

    async def _give_identity_back(self, name: str) -> None:
        await self._cluster.runtime.stop([name])
        folder, transport = self._cluster.unit_folder(name), self._cluster.site_of(name).transport
        if (kept := await transport.read(f"{folder}/{KEPT_IDENTITY}")) is not None:
            await transport.place(f"{folder}/data", [UnitFile(CLUSTER_CONFIG_FILE, kept)])

    def _old_unit(self, name: str, master: NodeFacts | None) -> Unit | None:
        """The node's Unit with the program that it had, or, after a run that was cut off, that its master has. None if
        all nodes have had the new one before: then it is not the version that keeps the node down."""
        unit = self._units[name]
        image = unit.container.image if unit.container else ""
        new_path = local_program(self._cluster, name, unit.argv[0], image)
        candidates = [name, *([master.name] if master else []), *self._before]
        known = (self._before[n] for n in candidates if n in self._before)
        node = next((placed for placed in known if placed.server_path != new_path), None)
        if node is None:
            return None
        engine = engines_of(self._cluster, [node])[node.server_path]
        topology, cache = self._cluster.topology, cache_folder(os.environ)
        envoy = ensure_envoy(topology.envoy.version, topology.envoy.path, cache, self._progress, os.environ)
        programs = Programs(engine, envoy)
        return build_units(topology, self._cluster.layout, self._cluster.credentials, programs)[name]

    async def _start(self, name: str, unit: Unit, *, blank: bool) -> bool:
        """Start the node and wait until it is in sync; False when it does not get there."""
        runtime = self._cluster.runtime
        await runtime.stop([name])
        if blank:
            for file in _DATA_FILES:
                await self._cluster.site_of(name).transport.remove(f"{unit.folder}/data/{file}")
        await runtime.start([unit])
        deadline, loading_deadline = time.monotonic() + _IN_SYNC_LIMIT_S, time.monotonic() + _LOADING_LIMIT_S
        while True:
            facts = await self._observer.look(fresh_units=True)
            node, seen = facts.nodes[name], facts.units[name]
            if _is_in_sync(node):
                return True
            limit = loading_deadline if node.loading or node.sync_in_progress else deadline
            if seen.restart_count >= _CRASHES or time.monotonic() > limit:
                return False
            await asyncio.sleep(0.1)

    async def _await_whole(self) -> None:
        """Give the cluster a moment to be in order; the error that follows is more important than whether it is."""
        topology, deadline = self._cluster.topology, time.monotonic() + _WHOLE_LIMIT_S
        while time.monotonic() < deadline:
            facts = await self._observer.look(fresh_units=True, always_probe=True)
            if not gates.settled(topology, facts) and not gates.endpoints_serve(topology, facts):
                return
            await asyncio.sleep(0.1)


def _is_in_sync(node: NodeFacts) -> bool:
    if not node.reachable:
        return False
    return bool(node.slots) if node.role is Role.MASTER else node.master_link_up and bool(node.replication_offset)


def _master_of(cluster: Cluster, facts: Facts, name: str) -> NodeFacts | None:
    """The master of a node, as the others see it."""
    node = cluster.topology.node(name)
    for other in facts.reachable_nodes():
        for peer in other.peers:
            if (peer.address, peer.port) == (node.address, node.port) and peer.master_id:
                return facts.node_by_id(peer.master_id)
    return None
