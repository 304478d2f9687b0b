"""Ports that the kernel keeps for root are said before anything starts, here and on other hosts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from test_status_report import TOPOLOGY

from redisforge.errors import HostError
from redisforge.fleet import host_room
from redisforge.fleet.fake import FakeTransport
from redisforge.fleet.host_room import look_for_room
from redisforge.fleet.hosts import Site
from redisforge.fleet.ports import DENIED, is_privileged, unprivileged_from
from redisforge.fleet.runtime import NoRuntime
from redisforge.fleet.transport import CommandResult, LocalTransport
from redisforge.model.facts import Facts, UnitFacts, UnitState
from redisforge.model.hosts import SshAccess
from redisforge.model.layout import ClusterLayout
from redisforge.model.topology import (
    DockerSettings,
    Endpoint,
    EndpointKind,
    EnvoyInstance,
    Host,
    Listener,
    Topology,
)
from redisforge.model.unit import Unit
from redisforge.runbooks import preflight_ports
from redisforge.runbooks.preflight_hosts import check_other_hosts
from redisforge.runbooks.preflight_ports import OTHER_PORTS_IN_ENV, check_ports

LOW, HIGH = 443, 6390
LAYOUT = ClusterLayout("/nowhere/clusters/main")
NOTHING = Facts(observed_at_s=0.0)


def one_envoy(host: Host, port: int = LOW, **docker: Any) -> Topology:
    """An Envoy on one host, and nothing else."""
    envoy = EnvoyInstance("envoy-1", host.name, host.address, host.zone, HIGH)
    endpoint = Endpoint(
        "primary", EndpointKind.COMMANDS, "RESP2", "app_user", False, (Listener("envoy-1", host.address, port),)
    )
    return replace(
        TOPOLOGY, hosts=(host,), nodes=(), envoys=(envoy,), endpoints=(endpoint,), docker=DockerSettings(**docker)
    )


def envoy_unit(topology: Topology) -> dict[str, Unit]:
    unit = Unit("envoy-1", "envoy", topology.hosts[0].name, "/nowhere", ("envoy",), (), ())
    return {unit.name: unit}


def running(config_hash: str) -> Facts:
    unit = UnitFacts(name="envoy-1", state=UnitState.RUNNING, config_hash=config_hash)
    return replace(NOTHING, units={"envoy-1": unit})


HERE = Host("h1", "127.0.0.1", "zone")
IN_DOCKER = replace(HERE, runtime="docker")


def free(*_: object) -> str:
    return ""


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine on which everything is free, ports below 1024 are root's, and the user is not root."""

    def found(_: str, port: int) -> str:
        return DENIED if port < 1024 else ""

    monkeypatch.setattr(preflight_ports, "bind_problem", found)
    monkeypatch.setattr(preflight_ports, "is_privileged", lambda: False)
    monkeypatch.setattr(preflight_ports, "unprivileged_from", lambda: 1024)
    return monkeypatch


def said_of(topology: Topology, facts: Facts = NOTHING, units: dict[str, Unit] | None = None) -> str:
    with pytest.raises(HostError) as caught:
        check_ports(topology, LAYOUT, facts, units)
    return str(caught.value.what) + "\n" + caught.value.why + "\n" + caught.value.next_step


def test_a_process_of_another_user_than_root(kernel: pytest.MonkeyPatch) -> None:
    said = said_of(one_envoy(HERE))
    assert "ports are kept for root" in said
    assert f"envoy-1 needs 127.0.0.1:{LOW}: ports below 1024 are root's there" in said
    assert "its process will not have CAP_NET_BIND_SERVICE" in said
    assert "declare ports from 1024 on" in said
    check_ports(one_envoy(HERE, HIGH + 1), LAYOUT, NOTHING)
    kernel.setattr(preflight_ports, "is_privileged", lambda: True)
    kernel.setattr(preflight_ports, "bind_problem", free)
    check_ports(one_envoy(HERE), LAYOUT, NOTHING)


def test_a_container_of_the_hosts_network_even_if_roots(kernel: pytest.MonkeyPatch) -> None:
    kernel.setattr(preflight_ports, "is_privileged", lambda: True)
    kernel.setattr(preflight_ports, "bind_problem", free)
    said = said_of(one_envoy(IN_DOCKER))
    assert "a container on its host's network is not root" in said
    assert "network: bridge" in said


@pytest.mark.usefixtures("kernel")
def test_docker_publishes_a_low_port_for_a_user_who_may_not() -> None:
    check_ports(one_envoy(IN_DOCKER, network="bridge"), LAYOUT, NOTHING)


def test_a_lowered_limit_counts(kernel: pytest.MonkeyPatch) -> None:
    kernel.setattr(preflight_ports, "unprivileged_from", lambda: LOW)
    kernel.setattr(preflight_ports, "bind_problem", free)
    check_ports(one_envoy(IN_DOCKER), LAYOUT, NOTHING)


@pytest.mark.usefixtures("kernel")
def test_one_that_runs_is_asked_about_when_it_is_to_be_started_again() -> None:
    topology = one_envoy(IN_DOCKER)
    units = envoy_unit(topology)
    check_ports(topology, LAYOUT, running(units["envoy-1"].config_hash), units)
    check_ports(topology, LAYOUT, running("older"))
    assert f"127.0.0.1:{LOW}" in said_of(topology, running("older"), units)


def test_what_is_taken_is_told_beside_it(kernel: pytest.MonkeyPatch) -> None:
    def found(_: str, port: int) -> str:
        return "in use by x" if port == HIGH else DENIED

    kernel.setattr(preflight_ports, "bind_problem", found)
    said = said_of(one_envoy(HERE))
    assert "ports are not free and ports are kept for root" in said
    assert f"127.0.0.1:{HIGH}: in use by x" in said
    assert f"127.0.0.1:{LOW}: ports below 1024" in said
    assert "stop what uses them" in said


AWAY = Host("h2", "10.0.0.2", "zone", ssh=SshAccess(), folder="/srv/redisforge")


class _Answers:
    """A host that answers the one question of look_for_room, and counts."""

    def __init__(self, **room: Any) -> None:
        self.asked = 0
        self._room: dict[str, Any] = {
            "unprivileged_from": 1024,
            "is_privileged": True,
            "free_bytes": 2**40,
            "missing": [],
        } | room

    def __call__(self, argv: Sequence[str]) -> CommandResult:
        self.asked += 1
        sockets = json.loads(argv[-1])["sockets"]
        found = [DENIED if port < 1024 and not self._room["is_privileged"] else "" for _, port in sockets]
        return CommandResult(tuple(argv), 0, json.dumps(self._room | {"problems": found}), "")


async def other_host(
    topology: Topology, answers: _Answers, facts: Facts = NOTHING, units: dict[str, Unit] | None = None
) -> str:
    """What is said of the one other host; empty if it can take what is to start."""
    site = Site("h2", FakeTransport(answers), ClusterLayout("/srv/redisforge/clusters/main"), NoRuntime())
    try:
        await check_other_hosts(topology, {"h2": site}, facts, units)
    except HostError as error:
        return f"{error.where}\n{error.why}\n{error.next_step}"
    return ""


async def test_another_host_is_asked_in_the_same_exchange() -> None:
    process, container = one_envoy(AWAY), one_envoy(replace(AWAY, runtime="docker"))
    answers = _Answers(is_privileged=False)
    said = await other_host(process, answers)
    assert f"h2: envoy-1 needs 10.0.0.2:{LOW}: ports below 1024 are root's there" in said
    assert said.count(f":{LOW}") == 1
    assert answers.asked == 1
    assert await other_host(process, _Answers()) == ""
    assert "network: bridge" in await other_host(container, _Answers())
    assert await other_host(container, _Answers(unprivileged_from=80)) == ""
    bridged = one_envoy(replace(AWAY, runtime="docker"), network="bridge")
    assert await other_host(bridged, _Answers(is_privileged=False)) == ""


async def test_another_host_on_which_all_runs_is_asked_only_for_a_low_port_that_is_to_be_opened() -> None:
    topology = one_envoy(replace(AWAY, runtime="docker"))
    units, answers = envoy_unit(topology), _Answers()
    assert await other_host(topology, answers, running(units["envoy-1"].config_hash), units) == ""
    high = one_envoy(replace(AWAY, runtime="docker"), HIGH + 1)
    assert await other_host(high, answers, running("older"), units) == ""
    assert answers.asked == 0
    assert f":{LOW}: ports below" in await other_host(topology, answers, running("older"), units)


async def test_a_look_tells_of_this_kernel_and_without_python_of_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    room = await look_for_room(LocalTransport(), "/", [], [])
    assert room is not None
    assert (room.unprivileged_from, room.is_privileged) == (unprivileged_from(), is_privileged())
    assert room.free_bytes
    bare = host_room._LOOK.replace("command -v python3", "false")  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr(host_room, "_LOOK", bare)
    without = await look_for_room(LocalTransport(), "/", [("127.0.0.1", 1)], ["/absent"])
    assert without is not None
    assert without.is_privileged == is_privileged()
    assert (without.unprivileged_from, without.problems, without.missing) == (unprivileged_from(), ("",), ())


def test_the_cluster_that_declares_the_port_is_named_only_if_it_is_at_that_address(
    kernel: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def found(_: str, port: int) -> str:
        return "in use by x" if port == LOW else ""

    kernel.setattr(preflight_ports, "unprivileged_from", lambda: LOW)
    kernel.setattr(preflight_ports, "bind_problem", found)
    layout = ClusterLayout(str(tmp_path / "main"))
    record = tmp_path / "other" / "topology.json"
    record.parent.mkdir()
    for address, end in (("127.0.0.1", ", of the cluster 'other'"), ("127.0.0.9", "")):
        node = {"address": address, "port": LOW, "bus_port": HIGH}
        record.write_text(json.dumps({"nodes": [node], "envoys": [], "endpoints": []}))
        with pytest.raises(HostError) as caught:
            check_ports(one_envoy(HERE), layout, NOTHING)
        assert caught.value.why == f"envoy-1 needs 127.0.0.1:{LOW}: in use by x{end}"


def test_deploy_tells_of_env_and_not_of_a_file_that_it_does_not_read(kernel: pytest.MonkeyPatch) -> None:
    def found(*_: object) -> str:
        return "in use by x"

    kernel.setattr(preflight_ports, "bind_problem", found)
    with pytest.raises(HostError) as caught:
        check_ports(one_envoy(HERE, HIGH + 1), LAYOUT, NOTHING, other_ports=OTHER_PORTS_IN_ENV)
    assert "REDIS_PORT" in caught.value.next_step
    assert "redisforge.yaml" not in caught.value.next_step
