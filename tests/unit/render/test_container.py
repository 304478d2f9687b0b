"""The command line of a container: its network, and what changes it."""

from __future__ import annotations

import msgspec

from redisforge.model.unit import Container, Unit
from redisforge.render.container import ContainerIdentity, create_command

PORTS = (("10.0.0.1", 7001), ("fd00::1", 17001))
CONTAINER = Container("redisforge/redis:8.6.3", ("/srv/tls",))
UNIT = Unit(
    name="redis-1", kind="redis", host="h1", folder="/srv/redis-1", argv=("redis-server",), files=(), ports=PORTS,
    stop_grace_s=30.0,
)  # fmt: skip


def command(container: Container) -> str:
    return " ".join(create_command(UNIT, container, ContainerIdentity("c", "main", "/srv"), kept=True))


def test_a_container_uses_its_hosts_network_and_publishes_nothing() -> None:
    assert "--network host" in command(CONTAINER)
    assert "--publish" not in command(CONTAINER)


def test_on_a_bridge_every_port_is_published_at_its_hosts_address() -> None:
    bridged = msgspec.structs.replace(CONTAINER, published=PORTS)
    assert "--network bridge --publish 10.0.0.1:7001:7001 --publish [fd00::1]:17001:17001 --restart" in command(bridged)
    assert bridged.hash != CONTAINER.hash


def test_what_is_new_in_redisforge_makes_no_container_anew() -> None:
    assert CONTAINER.hash == "ed9e0928682738c5"  # pragma: allowlist secret
    assert msgspec.structs.replace(CONTAINER, cpus=1.0).hash != CONTAINER.hash
