"""Too few zones, and zones with too few hosts, are named with the cure; Envoys are dealt to zones, then to hosts."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redisforge.config.resolve import topology_of
from redisforge.config.schema import Declaration
from redisforge.config.zone_notices import zone_notices
from redisforge.model.topology import Host

zone_sizes = st.lists(st.integers(1, 4), min_size=1, max_size=4)


def hosts(*sizes: int) -> tuple[Host, ...]:
    """One zone for each size: a, b, c ..."""
    return tuple(
        Host(f"{zone}{number}", f"10.0.{index}.{number}", zone)
        for index, (zone, size) in enumerate(zip("abcd", sizes, strict=False))
        for number in range(1, size + 1)
    )


@pytest.mark.parametrize(
    ("sizes", "shards", "replicas", "words"),
    [
        ((1,), 3, 1, []),
        ((1, 1, 1), 3, 1, []),
        ((2, 2, 2), 6, 2, []),
        ((1, 1, 1, 1), 3, 1, []),
        ((3,), 3, 1, ["all hosts are in zone a"]),
        ((1, 1), 3, 1, ["there are two zones, a and b"]),
        ((2, 2), 3, 2, ["there are two zones", "3 copies, and there are 2 zones"]),
        ((2, 2, 2), 3, 3, ["4 copies, and there are 3 zones"]),
        ((1, 3, 3), 6, 1, ["zone a has one host, and each carries up to 4 nodes; in b it is 2. Add hosts to a"]),
        ((2, 4, 4), 12, 1, ["zone a has 2 hosts, and each carries up to 4 nodes; in b it is 2. Add hosts to a"]),
    ],
)
def test_what_is_noticed(sizes: tuple[int, ...], shards: int, replicas: int, words: list[str]) -> None:
    notices = zone_notices(hosts(*sizes), shards, replicas)
    assert len(notices) == len(words), notices
    for notice, start in zip(notices, words, strict=True):
        assert start in notice
        assert notice[-1] != ".", "as the other notices end"


def test_two_names_of_one_machine_are_no_zone_more() -> None:
    same = (Host("a", "10.0.0.1", "a"), Host("b", "10.0.0.1", "b"))
    assert zone_notices(same, 3, 1) == []


@given(zone_sizes, st.integers(3, 9), st.integers(0, 3))
def test_zones_of_one_size_have_enough_hosts(sizes: list[int], shards: int, replicas: int) -> None:
    even = zone_notices(hosts(*[sizes[0]] * len(sizes)), shards, replicas)
    assert not [notice for notice in even if "Add hosts to" in notice]


@given(zone_sizes, st.integers(1, 8))
def test_envoys_are_dealt_to_zones_then_to_hosts(sizes: list[int], instances: int) -> None:
    declared = [{"name": host.name, "address": host.address, "zone": host.zone} for host in hosts(*sizes)]
    declaration = Declaration.model_validate({"hosts": declared, "envoy": {"instances": instances}})
    topology = topology_of(declaration, Path("/"), "")
    envoys = topology.envoys
    assert len(envoys) == instances
    by_zone = Counter({host.zone: 0 for host in topology.hosts})
    by_zone.update(envoy.zone for envoy in envoys)
    assert max(by_zone.values()) - min(by_zone.values()) <= 1
    for zone in by_zone:
        by_host = Counter({host.name: 0 for host in topology.hosts if host.zone == zone})
        by_host.update(envoy.host for envoy in envoys if envoy.zone == zone)
        assert max(by_host.values()) - min(by_host.values()) <= 1
    for endpoint in topology.endpoints:
        doors = [(door.address, door.port) for door in endpoint.listeners]
        assert len(set(doors)) == len(doors) == instances
