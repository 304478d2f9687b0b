"""Observe: units, nodes, Envoys and endpoints become Facts. Connections are kept between two looks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence

import msgspec

from redisforge.envoy.admin import observe_envoy
from redisforge.errors import HostError
from redisforge.model.facts import EndpointFacts, EnvoyFacts, Facts, NodeFacts, Stray, UnitFacts, UnitState
from redisforge.model.slots import key_in
from redisforge.model.topology import EnvoyInstance, UserRole
from redisforge.plan import gates
from redisforge.redis.connection import Login
from redisforge.redis.observe import NodeAsker
from redisforge.redis.probe import PROBE_PREFIX, Probe, probe_all
from redisforge.render.envoy import redis_cluster_names
from redisforge.runbooks.cluster import Cluster

_UNITS_FRESH_S = 0.3
"""For this long a look at the Units is reused: asking the keepers costs a process."""
_UNITS_LONGEST_S = 3.0
_UNITS_COST = 10
"""While every node does what was last seen of its Unit, a look at the Units is reused for as many times what it took:
over SSH, and with Docker, it takes longer than everything else."""

_HISTORY_S = 2.0
"""What nodes said longer ago than this is asked again, if the look took that long."""
_IDLE = (UnitState.ABSENT, UnitState.STOPPED, UnitState.UNKNOWN)


class Observer:
    """Looks at one cluster again and again. Use as an async context manager."""

    def __init__(
        self,
        cluster: Cluster,
        *,
        login: Login | None = None,
        timeout_s: float = 2.0,
        with_listing: bool = False,
        settings: Sequence[str] = (),
    ) -> None:
        self._cluster = cluster
        self._timeout_s = timeout_s
        self.asker = NodeAsker(
            login or cluster.operator_login(),
            timeout_s=timeout_s,
            with_listing=with_listing,
            settings=settings,
            reading_users=cluster.topology.reading_users,
        )
        self._units: dict[str, UnitFacts] = {}
        self._units_at_s = float("-inf")
        self._units_took_s = 0.0
        self._nodes_at_s = float("-inf")

    async def look(self, *, fresh_units: bool = False, always_probe: bool = False) -> Facts:
        """The facts of this moment.

        Endpoints are tried only once the cluster itself is in order (or with `always_probe`): before that
        they cannot serve, and their failures would say nothing new.
        """
        nodes_seen = asyncio.ensure_future(self._look_at_nodes())

        async def probed() -> tuple[EndpointFacts, ...]:
            return await self._look_at_endpoints(await nodes_seen) if always_probe else ()

        nodes, units, envoys, endpoints = await asyncio.gather(
            nodes_seen,
            self._look_at_units(nodes_seen, fresh=fresh_units),
            self._look_at_envoys(self._cluster.topology.envoys),
            probed(),
        )
        # A host that does not answer is waited for. What the others said before that is history: a replica may have
        # taken over since.
        if time.monotonic() - self._nodes_at_s > _HISTORY_S:
            nodes_seen = asyncio.ensure_future(self._look_at_nodes())
            answered = [envoy for envoy in self._cluster.topology.envoys if not envoys[envoy.name].problem]
            nodes, again, endpoints = await asyncio.gather(nodes_seen, self._look_at_envoys(answered), probed())
            envoys |= again
        # Without the Envoys: one that is away keeps nobody from trying the others.
        facts = Facts(observed_at_s=time.time(), units=units, nodes=nodes)
        if not always_probe and not gates.settled(self._cluster.topology, facts):
            endpoints = await self._look_at_endpoints(nodes)
        return msgspec.structs.replace(facts, envoys=envoys, endpoints=endpoints, strays=self._strays(units))

    def forget_units(self) -> None:
        """What was seen of the Units holds no more: somebody has changed them."""
        self._units_at_s = float("-inf")

    async def _look_at_nodes(self) -> dict[str, NodeFacts]:
        seen = await self.asker.observe_all(
            (node.name, (node.address, node.port)) for node in self._cluster.topology.nodes
        )
        self._nodes_at_s = time.monotonic()
        return seen

    async def _look_at_units(self, nodes: asyncio.Future[dict[str, NodeFacts]], *, fresh: bool) -> dict[str, UnitFacts]:
        began_s = time.monotonic()
        age_s = began_s - self._units_at_s
        longest_s = min(_UNITS_LONGEST_S, _UNITS_COST * self._units_took_s)
        if not fresh and (age_s <= _UNITS_FRESH_S or (age_s <= longest_s and self._fits(await nodes))):
            return self._units
        self._units = await self._cluster.runtime.observe()
        self._units_at_s = time.monotonic()
        self._units_took_s = self._units_at_s - began_s
        return self._units

    def _strays(self, units: Mapping[str, UnitFacts]) -> tuple[Stray, ...]:
        declared = self._cluster.topology.unit_names
        running = (unit for name, unit in units.items() if name not in declared and unit.state not in _IDLE)
        return tuple(self._cluster.runtime.as_stray(unit) for unit in running)

    def _fits(self, nodes: Mapping[str, NodeFacts]) -> bool:
        """Whether those nodes answer whose Units ran when they were last looked at, and no others."""
        running = {name for name, unit in self._units.items() if unit.state is UnitState.RUNNING and name in nodes}
        return running == {name for name, node in nodes.items() if node.reachable and name in self._units}

    async def _look_at_envoys(self, envoys: Sequence[EnvoyInstance]) -> dict[str, EnvoyFacts]:
        seen = await asyncio.gather(*(self._look_at_envoy(envoy) for envoy in envoys))
        return {envoy.name: envoy for envoy in seen}

    async def _look_at_envoy(self, envoy: EnvoyInstance) -> EnvoyFacts:
        transport = self._cluster.sites[envoy.host].transport
        try:
            await transport.open()  # within its own limits: the Envoy's are for its answer
        except HostError as error:
            return EnvoyFacts(name=envoy.name, problem=f"its host cannot be asked: {error.what}: {error.why}")
        clusters = redis_cluster_names(self._cluster.topology, envoy.name)
        return await observe_envoy(envoy, clusters, timeout_s=self._timeout_s, connect=transport.connect)

    async def _look_at_endpoints(self, nodes: Mapping[str, NodeFacts]) -> tuple[EndpointFacts, ...]:
        owned = [node.slots for node in nodes.values() if node.reachable and node.slots]
        keys = [key_in(slots, PROBE_PREFIX) for slots in owned] or [f"{PROBE_PREFIX}0"]
        topology = self._cluster.topology
        monitors = {user.name for user in topology.users if user.role is UserRole.MONITOR}
        probes = [
            Probe(endpoint, listener, self._cluster.user_login(endpoint.user), may_read=endpoint.user not in monitors)
            for endpoint in topology.endpoints
            for listener in endpoint.listeners
        ]
        return await probe_all(probes, keys, timeout_s=self._timeout_s)

    async def __aenter__(self) -> Observer:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.asker.close()
