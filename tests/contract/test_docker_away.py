"""A host whose Docker is missing, too old or does not answer, or has unfit images: nothing is taken for done."""

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

TOOLS = ("sh", "id", "chown", "chmod", "ls", "rm", "grep", "tr", "sed", "stat", "cat")
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
    "check": lambda runtime, unit: runtime.check([unit]),
    "start": lambda runtime, unit: runtime.start([unit]),
    "stop": lambda runtime, unit: runtime.stop([unit.name]),
    "observe": lambda runtime, _: runtime.observe(),
    "remove": lambda runtime, unit: runtime.remove([unit.name]),
}


def is_there(path: str) -> bool:
    return Path(path).exists()


def runtime_and_unit(tmp_path: Path, image: str = "redisforge/redis:8.6.3") -> tuple[DockerRuntime, Unit]:
    layout = ClusterLayout(str(tmp_path / "main"))
    unit = Unit(
        name="redis-1", kind="redis", host="local", folder=layout.unit("redis-1"), argv=("/bin/true",), files=(),
        ports=(), container=Container(image, (layout.tls,)),
    )  # fmt: skip
    return DockerRuntime(LocalTransport(), layout, DockerHost("main", "redisforge-main-")), unit


def put_docker(programs: Path, script: str) -> None:
    (programs / "docker").write_text(f"#!/bin/sh\n{script}\n")
    (programs / "docker").chmod(0o755)


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize(("answers", "what"), [("missing", "not installed"), ("silent", "not running")])
async def test_every_use_says_what_is_wrong_with_docker(
    use: str, answers: str, what: str, programs: Path, tmp_path: Path
) -> None:
    if answers == "silent":
        put_docker(programs, f"echo '{NO_ANSWER}' >&2\nexit 1")
    runtime, unit = runtime_and_unit(tmp_path)
    with pytest.raises(HostError, match=what) as raised:
        await USES[use](runtime, unit)
    assert raised.value.next_step
    assert not is_there(unit.folder)


ANSWERS = """
case "$*" in
  version*) printf '%s amd64\\n' "$VERSION" ;;
  "image inspect --format"*) printf 'redis\\t%s\\n' "$IMAGE_FOR" ;;
  "image inspect"*) ;;
  "ps --all"*) printf 'redisforge-main-redis-1\\t%s\n' "$FOLDER" ;;
  *) echo "asked to: $*" >&2; exit 125 ;;
esac
"""


@pytest.mark.parametrize(
    ("version", "image_for", "what", "why"),
    [
        ("19.03.15", "amd64", "Docker is too old", "it is 19.03.15, and 20.10 or newer is needed"),
        ("1.13.1-rc2", "amd64", "Docker is too old", "it is 1.13.1-rc2"),
        ("20.10.0", "arm64", "an image is for another architecture", "redis:8.6.3 is for arm64, and the host is amd64"),
    ],
)
async def test_nothing_starts_where_docker_or_an_image_cannot_do_it(
    version: str, image_for: str, what: str, why: str, programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VERSION", version)
    monkeypatch.setenv("IMAGE_FOR", image_for)
    put_docker(programs, ANSWERS)
    runtime, unit = runtime_and_unit(tmp_path)
    with pytest.raises(HostError, match=what) as raised:
        await runtime.start([unit])
    assert raised.value.where == "local"
    assert why in raised.value.why
    assert raised.value.next_step
    assert not is_there(unit.folder)


@pytest.mark.parametrize(
    ("image", "cure"), [("redisforge/redis:8.6.3", "`redisforge images build`"), ("redis:8.6", "docker.pull: true")]
)
async def test_a_missing_image_has_the_cure_that_fits_it(image: str, cure: str, programs: Path, tmp_path: Path) -> None:
    """Building RedisForge's own would not bring an image of somebody else."""
    put_docker(programs, 'case "$*" in version*) echo 28.0.1 amd64 ;; "ps --all"*) ;; *) exit 1 ;; esac')
    runtime, unit = runtime_and_unit(tmp_path, image)
    with pytest.raises(HostError, match=f"an image is missing: {image}") as raised:
        await runtime.check([unit])
    assert cure in raised.value.next_step


@pytest.mark.parametrize(
    ("version", "folder", "what"),
    [
        ("19.03.15", "", "Docker is too old"),
        ("28.0.1", "", "a container redisforge-main-redis-1 that is not of this cluster"),
        ("28.0.1", "/another/main", "a container redisforge-main-redis-1 that is not of this cluster"),
    ],
)
async def test_it_is_known_before_anything_starts(
    version: str, folder: str, what: str, programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VERSION", version)
    monkeypatch.setenv("IMAGE_FOR", "amd64")
    monkeypatch.setenv("FOLDER", folder)
    put_docker(programs, ANSWERS)
    runtime, unit = runtime_and_unit(tmp_path)
    with pytest.raises(HostError, match=what) as raised:
        await runtime.check([unit])
    assert raised.value.next_step
    monkeypatch.setenv("VERSION", "28.0.1")
    monkeypatch.setenv("FOLDER", str(tmp_path / "main"))
    await runtime.check([unit])
    assert not is_there(unit.folder)


async def test_a_new_docker_with_a_fitting_image_gets_as_far_as_the_container(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fake answers nothing else: what the two refusals above do not let happen is what happens here."""
    monkeypatch.setenv("VERSION", "20.10.0+dfsg1")
    monkeypatch.setenv("IMAGE_FOR", "amd64")
    put_docker(programs, ANSWERS)
    runtime, unit = runtime_and_unit(tmp_path)
    with pytest.raises(HostError, match="redis-1 was not started") as raised:
        await runtime.start([unit])
    assert "asked to: run" in raised.value.why
