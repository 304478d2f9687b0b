"""Envoys stay where they run when hosts come and go; new ones go where the fewest are, on ports of their own."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from topologies import hosts_in_zones, make_topology

from redisforge.model.topology import ENVOY_PORT_STEP, EnvoyInstance, Host, Listener, Topology
from redisforge.plan.envoy_places import EnvoyPlaces, first_ports, keep_envoys, with_envoys, without_envoys


def dealt(hosts: tuple[Host, ...], envoys: int) -> Topology:
    """Envoys dealt to the zones in turn, as config/resolve.py does."""
    bare = make_topology(3, 1, hosts, envoys=1)
    door = bare.endpoints[0].listeners[0]
    bare = replace(bare, envoys=(), endpoints=(replace(bare.endpoints[0], listeners=()),))
    first = EnvoyInstance("envoy-1", hosts[0].name, hosts[0].address, hosts[0].zone, 9901)
    endpoint = replace(bare.endpoints[0], listeners=(Listener("envoy-1", hosts[0].address, door.port),))
    one = replace(bare, envoys=(first,), endpoints=(endpoint,))
    return with_envoys(one, EnvoyPlaces(envoys, hosts, first_ports(one)))


machines = st.lists(st.integers(1, 3), min_size=1, max_size=3)


@given(machines, st.integers(1, 6))
def test_envoys_are_spread_over_zones_then_hosts(counts: list[int], envoys: int) -> None:
    hosts = hosts_in_zones(*counts)
    made = dealt(hosts, envoys)
    zones = [sum(e.zone == zone for e in made.envoys) for zone in {host.zone for host in hosts}]
    assert max(zones) - min(zones) <= 1
    for zone in {host.zone for host in hosts}:
        there = [sum(e.address == h.address for e in made.envoys) for h in hosts if h.zone == zone]
        assert max(there) - min(there) <= 1
    places = [(door.address, door.port) for door in made.endpoints[0].listeners]
    assert len(set(places)) == len(places) == envoys
    assert len({envoy.admin_port for envoy in made.envoys}) == envoys


@given(machines, st.integers(1, 6), st.data())
def test_who_runs_stays_when_a_host_is_taken_out(counts: list[int], envoys: int, data: st.DataObject) -> None:
    hosts = hosts_in_zones(*counts)
    recorded = dealt(hosts, envoys)
    gone = data.draw(st.sampled_from(hosts))
    left = tuple(host for host in hosts if host is not gone)
    if not left:
        return
    kept = keep_envoys(dealt(left, envoys), recorded)
    assert len(kept.envoys) == envoys
    now = {envoy.name: envoy for envoy in kept.envoys}
    stay = {envoy.name: envoy for envoy in recorded.envoys if envoy.host != gone.name}
    if any(dealt(left, envoys).envoys[number].host != envoy.host for number, envoy in enumerate(stay.values())):
        assert all(now[name].host == envoy.host for name, envoy in stay.items())
    places = [(door.address, door.port) for door in kept.endpoints[0].listeners]
    assert len(set(places)) == len(places) == envoys
    assert {door.envoy for door in kept.endpoints[0].listeners} == set(now)
    assert keep_envoys(dealt(left, envoys), kept) == kept, "and the next time, too"


def test_what_is_declared_counts_while_it_moves_nobody() -> None:
    hosts = hosts_in_zones(1, 1, 1)
    declared, recorded = dealt(hosts, 3), dealt(hosts, 2)
    assert keep_envoys(declared, recorded) is declared
    assert keep_envoys(recorded, declared) is recorded, "fewer instances: as declared"


def test_ports_move_with_the_declaration() -> None:
    hosts = hosts_in_zones(1, 1, 1)
    recorded = dealt(hosts, 3)
    recorded = without_envoys(recorded, {"envoy-1"})
    declared = dealt(hosts, 2)
    moved = tuple(replace(door, port=door.port + 7) for door in declared.endpoints[0].listeners)
    declared = replace(declared, endpoints=(replace(declared.endpoints[0], listeners=moved),))
    kept = keep_envoys(declared, recorded)
    assert {envoy.name for envoy in kept.envoys} == {"envoy-2", "envoy-3"}
    assert {door.port for door in kept.endpoints[0].listeners} == {moved[0].port}
    assert ENVOY_PORT_STEP == 100
