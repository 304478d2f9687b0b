"""Observe: units, nodes, Envoys and endpoints become Facts. Connections are kept between two looks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import msgspec

from redisforge.envoy.admin import observe_envoy
from redisforge.model.facts import EndpointFacts, EnvoyFacts, Facts, NodeFacts, UnitFacts
from redisforge.model.slots import key_in
from redisforge.model.topology import UserRole
from redisforge.plan import gates
from redisforge.redis.connection import Login
from redisforge.redis.observe import NodeAsker
from redisforge.redis.probe import PROBE_PREFIX, Probe, probe_all
from redisforge.render.envoy import redis_cluster_names
from redisforge.runbooks.cluster import Cluster

_UNITS_FRESH_S = 0.3
"""For this long a look at the Units is reused: asking the keepers costs a process."""


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
            reading_users=cluster.topology.reading_users if with_listing else (),
        )
        self._units: dict[str, UnitFacts] = {}
        self._units_at_s = float("-inf")

    async def look(self, *, fresh_units: bool = False, always_probe: bool = False) -> Facts:
        """The facts of this moment.

        Endpoints are tried only once the cluster itself is in order (or with `always_probe`): before that
        they cannot serve, and their failures would say nothing new.
        """
        topology = self._cluster.topology
        units, nodes = await asyncio.gather(
            self._look_at_units(fresh=fresh_units),
            self.asker.observe_all((node.name, (node.address, node.port)) for node in topology.nodes),
        )
        facts = Facts(observed_at_s=time.time(), units=units, nodes=nodes)
        if always_probe or not gates.settled(topology, facts):
            envoys, endpoints = await asyncio.gather(self._look_at_envoys(), self._look_at_endpoints(nodes))
        else:
            envoys, endpoints = await self._look_at_envoys(), ()
        return msgspec.structs.replace(facts, envoys=envoys, endpoints=endpoints)

    async def _look_at_units(self, *, fresh: bool) -> dict[str, UnitFacts]:
        if fresh or time.monotonic() - self._units_at_s > _UNITS_FRESH_S:
            self._units = await self._cluster.runtime.observe()
            self._units_at_s = time.monotonic()
        return self._units

    async def _look_at_envoys(self) -> dict[str, EnvoyFacts]:
        topology = self._cluster.topology
        seen = await asyncio.gather(
            *(
                observe_envoy(
                    envoy,
                    redis_cluster_names(topology, envoy.name),
                    timeout_s=self._timeout_s,
                    connect=self._cluster.sites[envoy.host].transport.connect,
                )
                for envoy in topology.envoys
            )
        )
        return {envoy.name: envoy for envoy in seen}

    async def _look_at_endpoints(self, nodes: dict[str, NodeFacts]) -> tuple[EndpointFacts, ...]:
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
