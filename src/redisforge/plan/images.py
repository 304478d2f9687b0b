"""Which images a host lacks, whether it can take them, and which of their layers it has. Pure.

A layer is known by its chain: the hashes of its own content and of everything below it. An engine that has any image
with the same beginning has the layer, and need not be sent it (moby, image/tarexport/load.go: it looks for the chain
before it opens the layer's file).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from redisforge.model.image_report import DockerFacts
from redisforge.model.images import ImageFacts, is_pinned

Chain = tuple[str, ...]
"""Hashes of layers, the base first."""

_UNPACKING = 2
"""An engine writes what arrives into a temporary folder, and then unpacks it: both lie there for a moment."""


class PushStep(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done for one image on one host. `why` says what is in the way (refuse)."""

    image: ImageFacts
    name: str
    action: Literal["nothing", "name", "send", "refuse"]
    there_id: str = ""
    """What the image is called there (nothing, name)."""
    why: str = ""
    next_step: str = ""


def next_push(docker: DockerFacts, wanted: Sequence[tuple[str, ImageFacts]]) -> tuple[PushStep, ...]:
    """What a host needs of the `wanted` images (name, image), in their order."""
    return tuple(_step(docker, name, image) for name, image in wanted)


def _step(docker: DockerFacts, name: str, image: ImageFacts) -> PushStep:
    if is_pinned(name):
        return _pinned_step(docker, name, image)
    for found in docker.images:
        if is_same(found, image):
            action = "nothing" if found.is_called(name) else "name"
            return PushStep(image=image, name=name, action=action, there_id=found.id)
    platform = f"linux/{image.architecture}"
    if platform != docker.platform:
        return PushStep(
            image=image, name=name, action="refuse",
            why=f"the image is for {platform}, and this host runs {docker.platform}",
            next_step=f"build it on a machine that runs {docker.platform}, or let the host pull one from a registry",
        )  # fmt: skip
    return PushStep(image=image, name=name, action="send")


def _pinned_step(docker: DockerFacts, name: str, image: ImageFacts) -> PushStep:
    """Docker gives a name with a digest to what it pulls, and to nothing else: not to what is loaded or tagged."""
    if found := next((found for found in docker.images if found.is_called(name)), None):
        return PushStep(image=image, name=name, action="nothing", there_id=found.id)
    return PushStep(
        image=image, name=name, action="refuse",
        why="it is named by its digest, and Docker gives such a name only to what it pulls from a registry",
        next_step="let the host pull it (docker.pull: true in redisforge.yaml), or give it a name with a tag here "
        "(docker tag) and declare and push it by that",
    )  # fmt: skip


def is_same(one: ImageFacts, other: ImageFacts) -> bool:
    """Whether two images are the same. Engines with another image store count ids otherwise, so contents count too."""
    if one.id == other.id:
        return True
    return bool(one.layers) and (one.layers, one.created_at, one.labels) == (
        other.layers, other.created_at, other.labels,
    )  # fmt: skip


def chains_of(images: Iterable[ImageFacts]) -> frozenset[Chain]:
    """Every layer that an engine with these images has."""
    return frozenset(image.layers[:count] for image in images for count in range(1, len(image.layers) + 1))


def room_problem(docker: DockerFacts, sent_bytes: int) -> str:
    """Why a host's disk cannot take so much; "" if it can."""
    needed = _UNPACKING * sent_bytes
    if docker.free_bytes >= needed:
        return ""
    return (
        f"{docker.root} has {docker.free_bytes >> 20} MiB free, and {needed >> 20} MiB are needed while it is unpacked"
    )
