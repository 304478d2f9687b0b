"""What concerns hosts among each other: ports and who has them, the ways between them, clocks."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from redisforge.model.host_facts import ClockSample, FleetLook, HostFacts, ListeningSocket, Reach
from redisforge.model.host_report import Check, Verdict
from redisforge.model.words import counted
from redisforge.plan.host_needs import HostNeeds
from redisforge.plan.host_words import readable_seconds

SKEW_WARNING_S = 0.5
SKEW_LIMIT_S = 10.0
"""Expiry is sent to replicas as a time of the clock (PEXPIREAT): with clocks apart, keys live longer or shorter after a
failover. Certificates that were just issued are not valid yet on a host that is behind."""
SLOW_RTT_S = 0.010
"""Between zones: what each command costs that goes through an Envoy of another zone."""
WILDCARDS = ("0.0.0.0", "::")  # noqa: S104 - compared with, not bound to
OPERATOR = "this machine"
"""Stands for the operator's machine among the clocks."""
SHOWN = 3
"""Ports and hosts that a line names before it only counts."""


def check_fleet(look: FleetLook, needs: Mapping[str, HostNeeds]) -> Iterator[Check]:
    """Ports, ways and round-trip times, clocks, and hosts that are the same machine."""
    asked = [host.facts for host in look.hosts if host.facts is not None]
    for facts in asked:
        yield _ports(facts, needs[facts.host])
    if len(look.hosts) > 1:
        for facts in asked:
            yield _reachable(facts.host, look, needs)
        yield from _round_trips(look.reaches, needs)
    yield from _clocks({facts.host: facts.clock for facts in asked if facts.clock})
    yield from _same_machines(asked)


def _ports(facts: HostFacts, needs: HostNeeds) -> Check:
    taken: list[str] = []
    own = 0
    for wanted in needs.ports:
        held = [socket for socket in facts.listeners if takes(socket, *wanted.socket)]
        strangers = [socket for socket in held if not _is_own(socket, facts, needs)]
        own += bool(held) and not strangers
        taken += [f"{wanted.unit} needs {wanted.port}: in use by {_who(socket)}" for socket in strangers[:1]]
    if taken:
        return Check(
            host=facts.host,
            name="ports",
            verdict=Verdict.FAIL,
            what=_listed(taken, "; "),
            cure="stop what uses them, or declare others (ports, endpoints, envoy)",
        )
    used = f", {own} used by this cluster itself" if own else ""
    return Check(host=facts.host, name="ports", verdict=Verdict.PASS, what=f"{len(needs.ports)} free{used}")


def takes(socket: ListeningSocket, address: str, port: int) -> bool:
    """Whether this socket is in the way of another one at (address, port)."""
    return socket.port == port and socket.address in (address, *WILDCARDS)


def _is_own(socket: ListeningSocket, facts: HostFacts, needs: HostNeeds) -> bool:
    """A Unit of this cluster works in its own folder, or names a file of it (Envoy), or Docker listens for it."""
    if (socket.address, socket.port) in facts.docker.published:
        return True
    return f"{socket.folder}/".startswith(f"{needs.folder}/") or f"{needs.folder}/" in socket.command


def _who(socket: ListeningSocket) -> str:
    if not socket.pid:
        return "a process of another user"
    return f"process {socket.pid} ({socket.command or '?'})"


def _reachable(host: str, look: FleetLook, needs: Mapping[str, HostNeeds]) -> Check:
    """Whether the others reach this host's nodes."""
    name = "reachable by the others"
    arriving = [reach for reach in look.reaches if reach.target == host]
    blocked = [reach for reach in arriving if reach.problem]
    if blocked:
        lines = [f"{reach.source} cannot reach {_use(reach, needs)}: {reach.problem}" for reach in blocked]
        cure = f"let the firewalls pass these ports of {host}; is {blocked[0].address} the address of {host}?"
        return Check(host=host, name=name, verdict=Verdict.FAIL, what=_listed(lines, "; "), cure=cure)
    untried = sorted(port for place, port in look.untried if place == host)
    silent = [f"{source}: {problem}" for source, problem in look.reach_problems.items() if source != host]
    if untried or silent:
        reasons = [f"nothing listens at {_listed(map(str, untried), ', ')} yet" if untried else "", *silent]
        what = f"could not be tried in full: {_listed(filter(None, reasons), '; ')}"
        cure = "install python3 on the hosts, or check again when the cluster runs"
        return Check(host=host, name=name, verdict=Verdict.WARN, what=what, cure=cure)
    ports, sources = {reach.port for reach in arriving}, {reach.source for reach in arriving}
    what = f"{counted(len(ports), 'port')}, from {counted(len(sources), 'host')}" if arriving else "it has no nodes"
    return Check(host=host, name=name, verdict=Verdict.PASS, what=what)


def _use(reach: Reach, needs: Mapping[str, HostNeeds]) -> str:
    unit = next((p for p in needs[reach.target].ports if p.port == reach.port and p.address == reach.address), None)
    bus = ", the cluster bus" if unit and unit.use == "bus" else ""
    return f"{reach.address}:{reach.port}" + (f" ({unit.unit}{bus})" if unit else "")


def _round_trips(reaches: Iterable[Reach], needs: Mapping[str, HostNeeds]) -> Iterator[Check]:
    """One check for each host: the slowest way to another zone (or host of its own zone, if there is one zone)."""
    quickest: dict[tuple[str, str], float] = {}
    for reach in reaches:
        if reach.rtt_s is not None:
            pair = reach.source, reach.target
            quickest[pair] = min(reach.rtt_s, quickest.get(pair, reach.rtt_s))
    ways: defaultdict[str, dict[str, float]] = defaultdict(dict)
    for (source, target), rtt_s in quickest.items():
        ways[source][target] = rtt_s
    for source, times in ways.items():
        others = {name: rtt for name, rtt in times.items() if needs[name].zone != needs[source].zone} or times
        slowest = max(others, key=lambda name: others[name])
        rtt_s, limit_s = others[slowest], needs[source].node_timeout_ms / 2000
        what = f"{readable_seconds(rtt_s)} to {slowest} (zone {needs[slowest].zone}), the farthest"
        if rtt_s >= limit_s:
            cure = f"raise node_timeout_ms: below {readable_seconds(limit_s)}, half of it, nodes take it for a failure"
            yield Check(host=source, name="round trip", verdict=Verdict.FAIL, what=what, cure=cure)
        elif rtt_s >= SLOW_RTT_S:
            cure = "bring the zones closer, or put an Envoy into each: every command through another zone waits for it"
            yield Check(host=source, name="round trip", verdict=Verdict.WARN, what=what, cure=cure)
        else:
            yield Check(host=source, name="round trip", verdict=Verdict.PASS, what=what)


def _clocks(samples: Mapping[str, ClockSample]) -> Iterator[Check]:
    """Each clock against the one that most agree with; with fewer than three, against the operator's."""
    offsets = {host: sample.offset_s for host, sample in samples.items()}
    common = statistics.median_low([*offsets.values(), 0.0]) if len(offsets) > 1 else 0.0
    for host, sample in samples.items():
        reference = "the others" if len(samples) > 1 else OPERATOR
        yield _clock(host, reference, sample.offset_s - common, sample.uncertainty_s)
    margin_s = max((sample.uncertainty_s for sample in samples.values()), default=0.0)
    operator = _clock(OPERATOR, "the others", -common, margin_s)
    if operator.verdict is not Verdict.PASS:
        yield operator


def _clock(host: str, reference: str, apart_s: float, uncertainty_s: float) -> Check:
    certain_s = abs(apart_s) - uncertainty_s
    side = "ahead of" if apart_s > 0 else "behind"
    margin = f"within {readable_seconds(uncertainty_s)}"
    if certain_s < SKEW_WARNING_S:
        what = f"{readable_seconds(abs(apart_s))} {side} {reference} ({margin})"
        return Check(host=host, name="clock", verdict=Verdict.PASS, what=what)
    return Check(
        host=host,
        name="clock",
        verdict=Verdict.FAIL if certain_s >= SKEW_LIMIT_S else Verdict.WARN,
        what=f"{readable_seconds(abs(apart_s))} {side} {reference} ({margin}): keys expire at another time there",
        cure="let it follow a time server: install chrony, or `timedatectl set-ntp true`",
    )


def _same_machines(asked: Iterable[HostFacts]) -> Iterator[Check]:
    machines: defaultdict[str, list[str]] = defaultdict(list)
    for facts in asked:
        if facts.machine:
            machines[facts.machine].append(facts.host)
    for hosts in machines.values():
        for host in hosts if len(hosts) > 1 else ():
            others = [other for other in hosts if other != host]
            yield Check(
                host=host,
                name="machine",
                verdict=Verdict.WARN,
                what=f"is the same machine as {_listed(others, ', ')}",
                cure="copies on both would be lost together: declare it once, or correct the addresses",
            )


def _listed(items: Iterable[str], between: str) -> str:
    given = list(items)
    more = f"{between}and {len(given) - SHOWN} more" if len(given) > SHOWN else ""
    return between.join(given[:SHOWN]) + more
