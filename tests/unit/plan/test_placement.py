"""Placement: who stands where, and that a shard is never less separated than the hosts allow."""

from __future__ import annotations

from collections import Counter
from itertools import groupby

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from topologies import hosts_in_zones

from redisforge.model.slots import SLOT_COUNT
from redisforge.model.topology import Host, Role
from redisforge.plan.placement import Seat, assign, place, sharing_is_forced, split_slots

machine_counts = st.lists(st.integers(1, 6), min_size=1, max_size=5)
shard_counts = st.integers(3, 12)
replica_counts = st.integers(0, 3)


def by_shard(seats: tuple[Seat, ...]) -> dict[int, list[Seat]]:
    ordered = sorted(seats, key=lambda seat: seat.shard)
    return {shard: list(group) for shard, group in groupby(ordered, key=lambda seat: seat.shard)}


def spread(values: list[str], among: set[str]) -> int:
    """The difference between the most and the least loaded of `among`."""
    load = Counter(values)
    return max(load[value] for value in among) - min(load[value] for value in among)


@given(machine_counts, shard_counts, replica_counts)
def test_every_shard_has_one_master_and_its_replicas(machines: list[int], shards: int, replicas: int) -> None:
    seats = place(hosts_in_zones(*machines), shards, replicas)
    assert len(seats) == shards * (replicas + 1)
    for members in by_shard(seats).values():
        assert [seat.role for seat in members].count(Role.MASTER) == 1
        assert len(members) == replicas + 1
    assert [seat.shard for seat in seats[:shards]] == list(range(shards)), "masters come first, by shard"
    assert all(seat.role is Role.REPLICA for seat in seats[shards:])


@given(machine_counts, shard_counts, replica_counts)
def test_no_machine_holds_two_nodes_of_a_shard_unless_it_must(machines: list[int], shards: int, replicas: int) -> None:
    hosts = hosts_in_zones(*machines)
    for members in by_shard(place(hosts, shards, replicas)).values():
        used = len({seat.host.address for seat in members})
        assert used == min(replicas + 1, len(hosts))


@given(machine_counts, shard_counts, replica_counts)
def test_a_shard_uses_as_many_zones_as_it_can(machines: list[int], shards: int, replicas: int) -> None:
    """Also when zones are of different sizes: the even share of a zone is never more than it can separate."""
    for members in by_shard(place(hosts_in_zones(*machines), shards, replicas)).values():
        assert len({seat.host.zone for seat in members}) == min(replicas + 1, len(machines))


@given(machine_counts, shard_counts, replica_counts)
def test_nodes_are_dealt_evenly_to_machines_of_equal_zones(machines: list[int], shards: int, replicas: int) -> None:
    hosts = hosts_in_zones(*[machines[0]] * len(machines))
    seats = place(hosts, shards, replicas)
    zones = {host.zone for host in hosts}
    assert spread([seat.host.zone for seat in seats], zones) <= 1
    for zone in zones:
        inside = [seat.host.address for seat in seats if seat.host.zone == zone]
        assert spread(inside, {host.address for host in hosts if host.zone == zone}) <= 1


@given(machine_counts, shard_counts, replica_counts)
def test_no_other_choice_of_one_shards_master_is_more_even(machines: list[int], shards: int, replicas: int) -> None:
    seats = place(hosts_in_zones(*machines), shards, replicas)
    masters = {seat.shard: seat.host for seat in seats if seat.role is Role.MASTER}
    zones, addresses = Counter(h.zone for h in masters.values()), Counter(h.address for h in masters.values())
    for seat in seats:
        current = masters[seat.shard]
        assert zones[current.zone] - zones[seat.host.zone] <= 1
        if current.zone == seat.host.zone and current.address != seat.host.address:
            assert addresses[current.address] - addresses[seat.host.address] <= 1


@pytest.mark.parametrize(
    ("machines", "shards", "replicas"), [((1, 1, 1), 3, 1), ((1, 1, 1), 3, 2), ((2, 2, 2), 6, 1), ((1,) * 6, 3, 1)]
)
def test_masters_stand_apart_where_that_is_easy(machines: tuple[int, ...], shards: int, replicas: int) -> None:
    seats = place(hosts_in_zones(*machines), shards, replicas)
    masters = [seat.host for seat in seats if seat.role is Role.MASTER]
    assert len({host.address for host in masters}) == min(shards, sum(machines))
    assert spread([host.zone for host in masters], {host.zone for host in masters}) <= 1


def test_a_second_name_of_a_machine_adds_no_capacity() -> None:
    hosts = (Host("a", "10.0.0.1", "z1"), Host("alias", "10.0.0.1", "z1"), Host("b", "10.0.0.2", "z2"))
    for members in by_shard(place(hosts, 4, 1)).values():
        assert {seat.host.address for seat in members} == {"10.0.0.1", "10.0.0.2"}


def test_a_small_zone_is_not_overloaded() -> None:
    """One machine in zone-1 and four in zone-2: the lone machine takes one node of each shard, not half of all."""
    seats = place(hosts_in_zones(1, 4), 4, 2)
    load = Counter(seat.host.address for seat in seats)
    assert load["10.1.0.1"] == 4
    assert all(len({seat.host.address for seat in members}) == 3 for members in by_shard(seats).values())


@pytest.mark.parametrize(("shards", "replicas"), [(3, 1), (5, 2)])
def test_further_replicas_are_appended(shards: int, replicas: int) -> None:
    """On one machine, what runs keeps its place (and so its name and port) when replicas are added."""
    hosts = hosts_in_zones(1)
    assert place(hosts, shards, replicas + 1)[: shards * (replicas + 1)] == place(hosts, shards, replicas)


@given(st.lists(st.sampled_from(hosts_in_zones(2, 2, 2)), min_size=6, max_size=24), st.integers(3, 6))
def test_existing_nodes_are_grouped_as_they_stand(seats: list[Host], shards: int) -> None:
    """assign, for init-cluster: every node is used once, and shards are as separated as the nodes allow."""
    seated = assign(seats, shards)
    assert Counter(seat.host for seat in seated) == Counter(seats)
    load = Counter(seat.host.address for seat in seated)
    members = by_shard(seated)
    assert set(members) == set(range(shards))
    for address, nodes in load.items():
        per_shard = [sum(seat.host.address == address for seat in group) for group in members.values()]
        assert max(per_shard) <= -(-nodes // shards), "two of a shard only when the machine has more nodes than shards"


@pytest.mark.parametrize(
    ("hosts", "shards", "replicas"), [((), 3, 1), (hosts_in_zones(1), 0, 1), (hosts_in_zones(1), 3, -1)]
)
def test_impossible_placements_are_errors(hosts: tuple[Host, ...], shards: int, replicas: int) -> None:
    with pytest.raises(ValueError, match="placement needs"):
        place(hosts, shards, replicas)


def test_fewer_nodes_than_shards_are_an_error() -> None:
    with pytest.raises(ValueError, match="2 nodes cannot form 3 shards"):
        assign(hosts_in_zones(2), 3)


@pytest.mark.parametrize(("machines", "replicas", "forced"), [((1,), 1, True), ((2,), 1, False), ((1, 1), 2, True)])
def test_sharing_is_forced(machines: tuple[int, ...], replicas: int, forced: bool) -> None:
    assert sharing_is_forced(hosts_in_zones(*machines), replicas) is forced


@given(st.integers(1, 1000))
def test_slots_are_split_into_contiguous_even_ranges(shards: int) -> None:
    ranges = split_slots(shards)
    assert len(ranges) == shards
    assert [slot for r in ranges for slot in range(r.first, r.last + 1)] == list(range(SLOT_COUNT))
    sizes = {r.slot_count for r in ranges}
    assert max(sizes) - min(sizes) <= 1


@settings(max_examples=5)
@given(st.lists(st.integers(20, 60), min_size=3, max_size=5))
def test_a_thousand_shards_are_as_well_separated(machines: list[int]) -> None:
    hosts = hosts_in_zones(*machines)
    seats = place(hosts, 1000, 2)
    members = by_shard(seats)
    assert len(seats) == 3000
    assert len(members) == 1000
    assert all(len({seat.host.address for seat in group}) == 3 for group in members.values())
    masters = [seat.host for seat in seats if seat.role is Role.MASTER]
    zones = {host.zone for host in hosts}
    assert spread([host.zone for host in masters], zones) <= 1
