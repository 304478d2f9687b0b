"""Ports that the kernel keeps for root: who may not listen on them, and what is told."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from topologies import make_topology

from redisforge.model.topology import Host, Topology
from redisforge.plan.host_needs import host_needs
from redisforge.plan.low_ports import ListensAs, cure, kept_for_root, listens_as, may_bind_all


def on(runtime: str, network: str = "host") -> Topology:
    host = Host("h1", "10.0.0.1", "zone", runtime="docker" if runtime == "docker" else "process")
    made = make_topology(hosts=(host,))
    return replace(made, docker=replace(made.docker, network="bridge" if network == "bridge" else "host"))


@pytest.mark.parametrize(
    ("listener", "port", "limit", "is_privileged", "words"),
    [
        ("process", 443, 1024, False, "its process will not have CAP_NET_BIND_SERVICE"),
        ("process", 443, 1024, True, ""),
        ("process", 1023, 1024, False, "ports below 1024 are root's there"),
        ("process", 1024, 1024, False, ""),
        ("process", 443, 0, False, ""),
        ("process", 443, 443, False, ""),
        ("process", 2000, 5000, False, "below 5000"),
        ("container", 443, 1024, False, "a container on its host's network is not root"),
        ("container", 443, 1024, True, "a container on its host's network is not root"),
        ("container", 443, 80, True, ""),
        ("bridged", 443, 1024, False, ""),
    ],
)
def test_who_may_listen(listener: ListensAs, port: int, limit: int, is_privileged: bool, words: str) -> None:
    said = kept_for_root(listener, port, limit, is_privileged=is_privileged)
    assert words in said
    assert bool(said) == bool(words)


@pytest.mark.parametrize(
    ("effective", "may"),
    [
        ("000001ffffffffff", True),  # root's
        ("0000000000000400", True),  # somebody else's, who was given this one alone
        ("000001fffffffbff", False),  # root's, from whom it was taken
        ("0000000000000000", False),
        ("", False),
        ("?", False),
    ],
)
def test_capabilities_say_who_may_listen_on_every_port(effective: str, may: bool) -> None:
    assert may_bind_all(effective) is may


@pytest.mark.parametrize(
    ("runtime", "network", "listener"),
    [
        ("process", "host", "process"),
        ("process", "bridge", "process"),
        ("docker", "host", "container"),
        ("docker", "bridge", "bridged"),
    ],
)
def test_how_a_unit_listens(runtime: str, network: str, listener: str) -> None:
    topology = on(runtime, network)
    assert {listens_as(topology, unit) for unit in (*topology.nodes, *topology.envoys)} == {listener}
    needs = host_needs(topology, {"h1": "/srv"})["h1"]
    assert {port.listener for port in needs.ports} == {listener}
    assert needs.runtime == runtime, "what `host check` goes by"


def test_a_bridge_is_a_way_out_for_containers_alone() -> None:
    assert "bridge" in cure("container", 1024)
    assert "bridge" not in cure("process", 1024)
    assert "from 1024 on" in cure("process", 1024)
