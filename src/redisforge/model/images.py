"""Container images: their names, what is in them and where, and what an engine of Docker says of them.

    redisforge/redis:8.6.3     redisforge/valkey:9.1.2     redisforge/envoy:1.40.0

A name says which program and version is inside; the labels say it again, for who renames an image. Official images
(redis:, valkey/valkey:, envoyproxy/envoy:) have their programs at the same paths, but no keeper.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from redisforge.model.topology import EngineKind

ImageProgram = Literal["redis", "valkey", "envoy"]
"""What an image is made to run."""

NAMESPACE = "redisforge"
"""The first part of the names of images that `images build` makes."""
DEFAULT_BASE = "debian:trixie-slim"
"""An image that whoever has a registry can pull. The same is written in the Dockerfiles."""

LABEL = "io.redisforge.image"
"""Every image that `images build` makes has it."""
PROGRAM_LABEL = "io.redisforge.program"
VERSION_LABEL = "io.redisforge.version"

PROGRAMS_PATH = "/usr/lib/redisforge"
"""The keeper, what it loads, and the health check."""
DOCKER_FLOOR = (20, 10)
"""The oldest Docker that is worked with: the first that can be told not to pull (`docker run --pull never`)."""
KEEPER_PATH = f"{PROGRAMS_PATH}/keeper.py"
KEEPER_FILES = ("keeper.py", "handoff.py", "peers.py")
"""The keeper and the programs that it loads from its own folder."""
ENGINE_PATH = f"{PROGRAMS_PATH}/engine"
"""Where an engine lies that `redisforge binaries` had."""
ENVOY_PATH = "/usr/local/bin/envoy"

_DOCKER_HUB = ("docker.io", "index.docker.io")
"""Where images are that are named without a registry."""

ENGINE_USER = 999
"""The user and group that an engine's container runs as unless it is told another; the official images' too."""
ENVOY_USER = 101


def image_name(program: ImageProgram, version: str) -> str:
    """The name of the image with this version of a program ("8.6.3")."""
    return f"{NAMESPACE}/{program}:{version}"


def engine_image(kind: EngineKind, version: str) -> str:
    """The name of the image with this version of an engine ("8.6.3")."""
    return image_name(kind, version)


def envoy_image(version: str) -> str:
    """The name of the image with this version of Envoy ("1.40.0")."""
    return image_name("envoy", version)


def own_version(image: str) -> str:
    """The version that one of our images is named after; empty for an image of somebody else, or of a registry's."""
    return image.partition(":")[2] if image.startswith(f"{NAMESPACE}/") and not is_pinned(image) else ""


def is_pinned(image: str) -> bool:
    """Whether an image is named by its digest (`name@sha256:…`). Only what came from a registry has such a name."""
    return "@" in image


def listed_name(image: str) -> str:
    """The name by which Docker lists what it takes `image` for: `redis:latest` for `docker.io/library/redis`.

    Beside a digest, a tag means nothing to it (moby, reference/store.go; distribution, reference/normalize.go).
    """
    path, _, digest = image.partition("@")
    registry, _, rest = path.partition("/")
    if rest and registry in _DOCKER_HUB:
        path = rest
    if path.count("/") == 1:
        path = path.removeprefix("library/")
    folder, slash, last = path.rpartition("/")
    repository, _, tag = last.partition(":")
    return f"{folder}{slash}{repository}" + (f"@{digest}" if digest else f":{tag or 'latest'}")


def server_path(kind: EngineKind) -> str:
    """The server's program in an image."""
    return f"/usr/local/bin/{kind}-server"


def cli_path(kind: EngineKind) -> str:
    """The command line client in an image."""
    return f"/usr/local/bin/{kind}-cli"


class ImageFacts(msgspec.Struct, frozen=True, kw_only=True):
    """An image as an engine of Docker describes it (`docker image inspect`)."""

    id: str
    """`sha256:…` of its configuration: the same on every host."""
    names: tuple[str, ...]
    """With their tags (RepoTags)."""
    size_bytes: int
    created_at: str
    """ISO 8601, UTC."""
    architecture: str
    """As Docker calls it: amd64, arm64."""
    layers: tuple[str, ...] = ()
    """Hashes of its layers' contents, the base first."""
    labels: dict[str, str] = {}
    digests: tuple[str, ...] = ()
    """Its names `name@sha256:…` (RepoDigests): what registries that it was pulled from call it."""

    def is_called(self, name: str) -> bool:
        """Whether Docker takes `name` for this image."""
        return listed_name(name) in (*self.names, *self.digests)

    @property
    def program(self) -> str:
        """What it is made to run; empty for one that `images build` did not make."""
        return self.labels.get(PROGRAM_LABEL, "")
