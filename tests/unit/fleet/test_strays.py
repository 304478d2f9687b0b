"""A Unit that a host runs and nobody declares: the one look at the host shows it, and the command that stops it."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from redisforge.fleet.docker import DockerHost, DockerRuntime
from redisforge.fleet.fake import FakeTransport
from redisforge.fleet.runtime import ProcessRuntime, Runtime
from redisforge.fleet.transport import CommandResult, LocalTransport
from redisforge.model.facts import UnitFacts, UnitState
from redisforge.model.layout import ClusterLayout
from redisforge.model.unit import UnitFile
from redisforge.render.container import CONFIG_LABEL, FOLDER_LABEL, UNIT_LABEL

LAYOUT = ClusterLayout("/srv/clusters/main")
KEEPER = "/srv/clusters/main/keeper.py"
NODE_ID = "07c37dfeb235213a872192d90877d0cd55635b91"  # pragma: allowlist secret - an id as in nodes.conf


def processes(transport: FakeTransport) -> ProcessRuntime:
    transport.files[KEEPER] = UnitFile("keeper.py", "")
    return ProcessRuntime(transport, LAYOUT, python="python3")


def containers(transport: FakeTransport) -> DockerRuntime:
    return DockerRuntime(transport, LAYOUT, DockerHost("main", "redisforge-main-"))


def kept() -> str:
    """What the keeper says of a Unit."""
    unit = {"name": "redis-7", "state": "running", "pid": 12, "keeper_pid": 11}
    return json.dumps([{**unit, "has_cluster_config": True, "node_id": NODE_ID}])


def contained() -> str:
    """What the look at a host with Docker prints: a container that its labels make one of the cluster."""
    state = {"Status": "running", "Pid": 12, "StartedAt": "2026-01-01T00:00:00.5Z"}
    labels = {FOLDER_LABEL: LAYOUT.folder, UNIT_LABEL: "redis-7", CONFIG_LABEL: "old"}
    lines = (
        ("container", "redis-7", json.dumps(state), json.dumps(labels), "0", "0 0 unless-stopped"),
        ("unit", "redis-7", "{}"),
        ("nodes", "redis-7", f"1 6 {NODE_ID}"),
    )
    return "".join("\t".join(line) + "\n" for line in lines)


@pytest.mark.parametrize(
    ("make", "said", "stop"),
    [
        (processes, kept, ("python3", "-I", KEEPER, "stop", LAYOUT.unit("redis-7"))),
        (containers, contained, ("docker", "stop", "redisforge-main-redis-7")),
    ],
    ids=["process", "docker"],
)
async def test_a_unit_that_nobody_declared_is_seen_in_one_command(
    make: Callable[[FakeTransport], Runtime], said: Callable[[], str], stop: tuple[str, ...]
) -> None:
    transport = FakeTransport(lambda argv: CommandResult(argv, 0, said(), ""))
    runtime = make(transport)

    seen = (await runtime.observe())["redis-7"]
    stray = runtime.as_stray(seen)

    assert (seen.state, seen.node_id, seen.has_cluster_config) == (UnitState.RUNNING, NODE_ID, True)
    assert (stray.unit, stray.host, stray.stop_command) == (seen, "fake", stop)
    assert len(transport.commands) == 1


def test_this_machine_is_called_so() -> None:
    unit = UnitFacts(name="redis-7", state=UnitState.RUNNING)
    assert ProcessRuntime(LocalTransport(), LAYOUT).as_stray(unit).host == "this machine"
