"""Versions and the rules that a topology states about them. Pure.

A rule is one of four texts:

    newest      the newest series that this RedisForge is tested with (catalogue.py), or anything later
    8.6         that series, any patch
    8.6.3       that version exactly
    >=8.2       that version or anything later
"""

from __future__ import annotations

import re

import msgspec

Version = tuple[int, ...]

NEWEST = "newest"

_VERSION = re.compile(r"\d{1,4}(?:\.\d{1,4}){0,2}", re.ASCII)
_SERVER_BANNER = re.compile(r"^(\w+) server v=(\d+\.\d+\.\d+)\b", re.MULTILINE)
_ENVOY_BANNER = re.compile(r"\bversion: [0-9a-f]+/(\d+\.\d+\.\d+)[^/\s]*/")
_DEBIAN_VERSION = re.compile(r"(?:\d+:)?(\d+\.\d+\.\d+)")


class VersionRule(msgspec.Struct, frozen=True):
    """What is asked: `numbers` exactly (as far as they go), or at least (`is_floor`)."""

    text: str
    numbers: Version
    is_floor: bool

    def matches(self, version: Version) -> bool:
        """Whether `version` is what the rule asks for."""
        if self.is_floor:
            return version >= self.numbers
        return version[: len(self.numbers)] == self.numbers

    def __str__(self) -> str:
        if self.text == NEWEST:
            return f"{show(self.numbers)} or later"
        return self.text


def parse_version(text: str) -> Version:
    """Read `"8.6.3"`, `"8.6"` or `"8"`.

    Raises:
        ValueError: anything else.
    """
    if not _VERSION.fullmatch(text):
        raise ValueError(f"not a version: {text!r}")
    return tuple(int(part) for part in text.split("."))


def parse_rule(text: str, newest_series: str) -> VersionRule:
    """Read a rule; `newest` stands for `newest_series` or later.

    Raises:
        ValueError: not one of the four forms of the module's banner.
    """
    stripped = text.strip()
    if stripped == NEWEST:
        return VersionRule(NEWEST, parse_version(newest_series), is_floor=True)
    if stripped.startswith(">="):
        return VersionRule(stripped, parse_version(stripped[2:].strip()), is_floor=True)
    return VersionRule(stripped, parse_version(stripped), is_floor=False)


def show(version: Version) -> str:
    """`(8, 6, 3)` as `"8.6.3"`."""
    return ".".join(str(number) for number in version)


def series_of(version: str) -> str:
    """`"8.6.3"` as `"8.6"`: the first two numbers name a series."""
    return ".".join(version.split(".")[:2])


def parse_server_banner(output: str) -> tuple[str, str] | None:
    """("redis", "8.6.3") from what `redis-server --version` prints; None if that is no such line."""
    match = _SERVER_BANNER.search(output)
    return (match[1].lower(), match[2]) if match else None


def parse_envoy_banner(output: str) -> str | None:
    """The version from what `envoy --version` prints; None if that is no such line."""
    match = _ENVOY_BANNER.search(output)
    return match[1] if match else None


def parse_debian_version(text: str) -> str | None:
    """`"5:8.6.3-1"` as `"8.6.3"`: without epoch and Debian's revision. None if there is no version in it."""
    match = _DEBIAN_VERSION.match(text)
    return match[1] if match else None
