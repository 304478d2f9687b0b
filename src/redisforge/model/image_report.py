"""What `redisforge images …` prints, and what a host's engine of Docker says of itself. The schemas follow them."""

from __future__ import annotations

from typing import Literal

import msgspec

from redisforge.model.images import ImageFacts


class DockerFacts(msgspec.Struct, frozen=True, kw_only=True):
    """An engine of Docker and its images."""

    version: str
    """Of the engine, such as 26.1.5."""
    platform: str
    """What its containers run on: linux/amd64, linux/arm64."""
    root: str
    """The folder in which it keeps everything."""
    free_bytes: int
    """On that folder's file system."""
    takes_parts: bool
    """Whether it loads an archive without the layers that it has; the containerd image store does not."""
    images: tuple[ImageFacts, ...] = ()


class BuiltImage(msgspec.Struct, frozen=True, kw_only=True):
    """An image that `images build` made."""

    name: str
    id: str
    size_bytes: int
    platform: str
    base: str
    seconds: float


class BuildReport(msgspec.Struct, frozen=True, kw_only=True):
    """What `images build` made, in order."""

    images: tuple[BuiltImage, ...]


class HostImages(msgspec.Struct, frozen=True, kw_only=True):
    """The images of RedisForge's on one machine. `problem` says why it could not be asked."""

    host: str
    images: tuple[ImageFacts, ...] = ()
    platform: str = ""
    problem: str = ""


class ImageList(msgspec.Struct, frozen=True, kw_only=True):
    """The operator's machine first (host `""`), then the declared hosts."""

    hosts: tuple[HostImages, ...]


PushVerdict = Literal["there", "named", "sent", "failed"]
"""There already, by the same content; there, but not by that name; sent now; not there."""


class PushedImage(msgspec.Struct, frozen=True, kw_only=True):
    """One image and one host."""

    host: str
    name: str
    id: str
    verdict: PushVerdict
    raw_bytes: int = 0
    """Of what its host was sent, all its images together, before it was packed."""
    sent_bytes: int = 0
    """Of the same, as it went over the line."""
    problem: str = ""
    next_step: str = ""


class PushReport(msgspec.Struct, frozen=True, kw_only=True):
    """What `images push` did. `passed`: every host has every image."""

    passed: bool
    results: tuple[PushedImage, ...]
    raw_bytes: int
    """Of all that hosts were sent, before it was packed."""
    sent_bytes: int
    seconds: float
