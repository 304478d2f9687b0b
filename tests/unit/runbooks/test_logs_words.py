"""`logs` where RedisForge has none: what runs the nodes has them."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace
from test_scale_words import ADOPTED

from redisforge.errors import UsageError
from redisforge.fleet.runtime import NoRuntime
from redisforge.model.layout import ClusterLayout
from redisforge.model.topology import Credentials, RedisNode, Topology
from redisforge.runbooks.cluster import Cluster
from redisforge.runbooks.logs import unit_logs

LAYOUT = ClusterLayout("/nowhere/clusters/main")


def refused(nodes: tuple[RedisNode, ...], unit: str | None = None) -> UsageError:
    topology: Topology = replace(ADOPTED, nodes=nodes, envoys=(), endpoints=())
    cluster = Cluster(topology, LAYOUT, Credentials({}), {}, NoRuntime())
    with asyncio.Runner() as runner, pytest.raises(UsageError) as caught:
        unit_logs(cluster, unit, runner)
    return caught.value


def test_what_runs_an_adopted_node_has_its_log() -> None:
    first, second, third, *_ = (replace(node, managed=False) for node in ADOPTED.nodes)
    assert "see the logs of what runs the nodes" in refused((first, second)).next_step
    named = (replace(first, service="systemd:redis@1"), replace(second, service="docker:redis-2"), third)
    said = refused(named).next_step
    assert f"{first.name}: `journalctl -u redis@1` on {first.host}" in said
    assert f"{second.name}: `docker logs redis-2` on {second.host}" in said
    assert "for the others see the logs of what runs the nodes" in said
    assert refused(named, second.name).next_step == f"{second.name}: `docker logs redis-2` on {second.host}"
