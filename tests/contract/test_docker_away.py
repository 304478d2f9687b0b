"""A host whose Docker is missing or does not answer: nothing is taken for done."""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from redisforge.errors import HostError
from redisforge.fleet.docker import DockerHost, DockerRuntime
from redisforge.fleet.transport import LocalTransport
from redisforge.model.layout import ClusterLayout
from redisforge.model.unit import Container, Unit

TOOLS = ("sh", "id", "chown", "ls", "rm", "grep", "tr", "sed", "stat", "cat")
NO_ANSWER = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?"

Use = Callable[[DockerRuntime, Unit], Awaitable[object]]


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH with the usual tools, and no Docker."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found, tool
        (folder / tool).symlink_to(found)
    monkeypatch.setenv("PATH", str(folder))
    return folder


USES: dict[str, Use] = {
    "start": lambda runtime, unit: runtime.start([unit]),
    "stop": lambda runtime, unit: runtime.stop([unit.name]),
    "observe": lambda runtime, _: runtime.observe(),
    "remove": lambda runtime, unit: runtime.remove([unit.name]),
}


def is_there(path: str) -> bool:
    return Path(path).exists()


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize(("answers", "what"), [("missing", "not installed"), ("silent", "not running")])
async def test_every_use_says_what_is_wrong_with_docker(
    use: str, answers: str, what: str, programs: Path, tmp_path: Path
) -> None:
    if answers == "silent":
        (programs / "docker").write_text(f"#!/bin/sh\necho '{NO_ANSWER}' >&2\nexit 1\n")
        (programs / "docker").chmod(0o755)
    layout = ClusterLayout(str(tmp_path / "main"))
    runtime = DockerRuntime(LocalTransport(), layout, DockerHost("main", "redisforge-main-"))
    unit = Unit(
        name="redis-1", kind="redis", host="local", folder=layout.unit("redis-1"), argv=("/bin/true",), files=(),
        ports=(), container=Container("redisforge/redis:8.6.3", (layout.tls,)),
    )  # fmt: skip
    with pytest.raises(HostError, match=what) as raised:
        await USES[use](runtime, unit)
    assert raised.value.next_step
    assert not is_there(unit.folder)
