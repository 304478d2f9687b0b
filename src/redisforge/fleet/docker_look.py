"""What a host's engine of Docker has: asked through its own client, in one exchange."""

from __future__ import annotations

from typing import Any

import msgspec

from redisforge.errors import HostError
from redisforge.fleet.transport import Transport
from redisforge.model.image_report import DockerFacts
from redisforge.model.images import ImageFacts

LOOK_LIMIT_S = 60.0
MAKE_ROOM = "make room where Docker keeps its images (docker image prune), and run the same command again"
_LOOK = r"""
export LC_ALL=C
docker version --format '{{.Server.Version}} {{.Server.Os}}/{{.Server.Arch}}' || exit
docker info --format '{{.DockerRootDir}}' || exit
docker info --format '{{json .DriverStatus}}' || exit
root=$(docker info --format '{{.DockerRootDir}}')
stat -fc '%a %S' -- "$root" 2>/dev/null || stat -fc '%a %S' -- / || exit
ids=$(docker image ls --quiet --no-trunc | sort -u) || exit
[ -z "$ids" ] || docker image inspect $ids
"""
_CONTAINERD_STORE = "io.containerd.snapshotter"
"""In the driver's status where images lie in containerd's store. Source: docs.docker.com, containerd image store."""
_NAMELESS = "<none>"


class _RootFs(msgspec.Struct, rename="pascal"):
    layers: list[str] | None = None


class _Config(msgspec.Struct, rename="pascal"):
    labels: dict[str, str] | None = None


class _Inspected(msgspec.Struct, rename="pascal"):
    """What is read of `docker image inspect`."""

    id: str
    size: int
    created: str = ""
    architecture: str = ""
    repo_tags: list[str] | None = None
    repo_digests: list[str] | None = None
    root_fs: _RootFs = msgspec.field(default_factory=_RootFs, name="RootFS")
    config: _Config | None = None


async def look_at_docker(transport: Transport) -> DockerFacts:
    """The engine of a host and its images. Raises HostError, with the cure, when it does not answer."""
    done = await transport.run(("sh", "-c", _LOOK), timeout_s=LOOK_LIMIT_S, check=False)
    if done.exit_status:
        raise docker_problem(transport.host, done.stderr or done.stdout)
    try:
        return read_look(done.stdout)
    except (ValueError, msgspec.DecodeError) as error:
        raise HostError(
            "the Docker client's answer cannot be read",
            where=transport.host,
            why=f"{error}: {done.stdout[:300]}",
            next_step="look at what `docker version`, `docker info` and `docker image inspect` say there",
        ) from error


def read_look(text: str) -> DockerFacts:
    """What _LOOK printed. Raises ValueError or msgspec.DecodeError if it is something else."""
    engine, root, driver, space, *rest = text.split("\n", 4)
    version, platform = engine.split()
    blocks, size_bytes = space.split()
    images = "".join(rest).strip()
    inspected = msgspec.json.decode(images, type=list[_Inspected]) if images else []
    return DockerFacts(
        version=version,
        platform=platform,
        root=root,
        free_bytes=int(blocks) * int(size_bytes),
        takes_parts=_CONTAINERD_STORE not in driver,
        images=tuple(_facts(image) for image in inspected),
    )


def _facts(image: _Inspected) -> ImageFacts:
    return ImageFacts(
        id=image.id,
        names=_named(image.repo_tags),
        digests=_named(image.repo_digests),
        size_bytes=image.size,
        created_at=image.created,
        architecture=image.architecture,
        layers=tuple(image.root_fs.layers or ()),
        labels=dict((image.config.labels if image.config else None) or {}),
    )


def _named(names: list[str] | None) -> tuple[str, ...]:
    return tuple(name for name in names or () if not name.startswith(_NAMELESS))


def is_full(said: str) -> bool:
    """Whether the client says that a disk is full."""
    return "no space left on device" in said.lower()


def docker_problem(host: str, said: str, *, what: str = "") -> HostError:
    """What the Docker client complained of, as an error with its cure."""
    why = said.strip()[-2000:]
    known: dict[str, Any] = {"where": host, "why": why}
    if "docker: not found" in why or "docker: command not found" in why or "cannot run docker" in why:
        return HostError("Docker is not installed", next_step="install Docker 20.10 or newer there", **known)
    if "permission denied" in why.lower() and "docker" in why.lower():
        return HostError(
            "the user may not use Docker",
            next_step="add the user to the group `docker` there (sudo usermod -aG docker USER), and connect again",
            **known,
        )
    if "Cannot connect to the Docker daemon" in why or "docker daemon running" in why:
        return HostError("Docker is not running", next_step="start it there: sudo systemctl start docker", **known)
    if is_full(why):
        return HostError(what or "the disk is full", next_step=MAKE_ROOM, **known)
    return HostError(what or "the Docker client failed", next_step="look at what it says", **known)
