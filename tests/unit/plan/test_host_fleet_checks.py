"""What is judged between hosts: ways, round-trip times, clocks, and hosts that are one machine."""

from __future__ import annotations

import pytest
from host_world import HERE, NEEDS, good_facts, look_of
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from redisforge.model.host_facts import ClockSample, FleetLook, Reach
from redisforge.model.host_report import Check, Verdict
from redisforge.plan.host_checks import judge
from redisforge.plan.host_fleet_checks import OPERATOR

PASS, WARN, FAIL = Verdict.PASS, Verdict.WARN, Verdict.FAIL
HOSTS = tuple(NEEDS)
LOOK = look_of(*(good_facts(host) for host in HOSTS))
INNER = {host: tuple(port for port in NEEDS[host].ports if port.use in ("node", "bus")) for host in HOSTS}


def all_ways(rtt_s: float = 0.001) -> tuple[Reach, ...]:
    """Everybody reaches everybody."""
    return tuple(
        Reach(source, target, port.address, port.port, "", rtt_s)
        for source in HOSTS
        for target in HOSTS
        for port in INNER[target]
        if source != target
    )


def found(look: FleetLook, name: str) -> dict[str, Check]:
    return {check.host: check for check in judge(look, NEEDS, HERE) if check.name == name}


def test_all_ways_are_open() -> None:
    checks = found(replace(LOOK, reaches=all_ways()), "reachable by the others")
    assert {check.verdict for check in checks.values()} == {PASS}
    assert "4 ports, from 2 hosts" in checks[HOSTS[0]].what


def test_a_blocked_bus_is_named_with_who_meets_the_wall() -> None:
    ways = all_ways()
    bus = INNER[HOSTS[1]][1]
    blocked = tuple(
        replace(way, problem="no answer within 2 s", rtt_s=None)
        if (way.source, way.target, way.port) == (HOSTS[0], HOSTS[1], bus.port)
        else way
        for way in ways
    )
    checks = found(replace(LOOK, reaches=blocked), "reachable by the others")
    assert [checks[host].verdict for host in HOSTS] == [PASS, FAIL, PASS]
    what = f"{HOSTS[0]} cannot reach {bus.address}:{bus.port} ({bus.unit}, the cluster bus): no answer within 2 s"
    assert checks[HOSTS[1]].what == what


def test_what_could_not_be_tried_is_said() -> None:
    port = INNER[HOSTS[2]][0].port
    look = replace(LOOK, reaches=all_ways(), untried=frozenset({(HOSTS[2], port)}))
    checks = found(look, "reachable by the others")
    assert [checks[host].verdict for host in HOSTS] == [PASS, PASS, WARN]
    assert str(port) in checks[HOSTS[2]].what
    silent = found(
        replace(LOOK, reaches=all_ways(), reach_problems={HOSTS[0]: "bash: not found"}), checks[HOSTS[0]].name
    )
    assert [silent[host].verdict for host in HOSTS] == [PASS, WARN, WARN]


@pytest.mark.parametrize(("rtt_s", "verdict"), [(0.0005, PASS), (0.009, PASS), (0.010, WARN), (2.4, WARN), (2.5, FAIL)])
def test_round_trips_between_zones(rtt_s: float, verdict: Verdict) -> None:
    checks = found(replace(LOOK, reaches=all_ways(rtt_s)), "round trip")
    assert {check.verdict for check in checks.values()} == {verdict}
    assert set(checks) == set(HOSTS)


def test_the_quickest_of_several_attempts_counts() -> None:
    slow = tuple(replace(way, rtt_s=9.0) if way.port == INNER[way.target][0].port else way for way in all_ways())
    assert {check.verdict for check in found(replace(LOOK, reaches=slow), "round trip").values()} == {PASS}


def clocks(*offsets_s: float, uncertainty_s: float = 0.01) -> dict[str, Verdict]:
    facts = [
        replace(good_facts(host), clock=ClockSample(offset_s, uncertainty_s))
        for host, offset_s in zip(HOSTS, offsets_s, strict=False)
    ]
    return {host: check.verdict for host, check in found(look_of(*facts), "clock").items()}


@pytest.mark.parametrize(
    ("offsets_s", "verdicts"),
    [
        ((0.0, 0.1, -0.1), (PASS, PASS, PASS)),
        ((0.0, 0.0, 3.0), (PASS, PASS, WARN)),
        ((0.0, 0.0, -30.0), (PASS, PASS, FAIL)),
        ((0.0, 30.0), (PASS, FAIL)),
        ((30.0,), (FAIL,)),
        ((-0.6,), (WARN,)),
    ],
)
def test_clocks(offsets_s: tuple[float, ...], verdicts: tuple[Verdict, ...]) -> None:
    assert clocks(*offsets_s) == dict(zip(HOSTS, verdicts, strict=False))


def test_when_all_hosts_agree_it_is_the_operators_clock() -> None:
    assert clocks(60.0, 60.1, 59.9) == {**dict.fromkeys(HOSTS, PASS), OPERATOR: FAIL}


def test_a_slow_line_is_no_skew() -> None:
    assert clocks(0.0, 0.0, 1.4, uncertainty_s=1.0) == dict.fromkeys(HOSTS, PASS)


@given(st.floats(-1e6, 1e6), st.permutations(range(3)))
def test_a_lone_wrong_clock_is_the_one_that_is_blamed(apart_s: float, order: list[int]) -> None:
    offsets = [apart_s if number == 0 else 0.0 for number in order]
    blamed = {host for host, verdict in clocks(*offsets, uncertainty_s=0.0).items() if verdict is not PASS}
    wrong = {HOSTS[order.index(0)]} if abs(apart_s) >= 0.5 else set[str]()
    assert blamed == wrong


def test_two_hosts_that_are_one_machine() -> None:
    facts = [replace(good_facts(host), machine="same" if host != HOSTS[2] else "other") for host in HOSTS]
    checks = found(look_of(*facts), "machine")
    assert {host: check.verdict for host, check in checks.items()} == {HOSTS[0]: WARN, HOSTS[1]: WARN}
    assert HOSTS[1] in checks[HOSTS[0]].what


def test_a_single_host_reaches_nobody_and_need_not() -> None:
    names = {check.name for check in judge(look_of(good_facts(HOSTS[0])), NEEDS, HERE)}
    assert not names & {"reachable by the others", "round trip", "machine"}
