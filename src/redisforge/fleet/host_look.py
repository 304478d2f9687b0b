"""Asks hosts what they are like: two rounds over all of them at once, one command for each host in each round.

Round one is host_probe.sh. Round two is host_reach.py, which listens where nothing does yet and tries the ports of all
other hosts at the same time (host_reach.sh where there is no python3, which can only try).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path

import msgspec

from redisforge.errors import HostError
from redisforge.fleet.host_reading import ReachAnswer, Travel, read_probe, read_reaches
from redisforge.fleet.ssh_pool import over_hosts
from redisforge.fleet.transport import Transport
from redisforge.model.host_facts import ClockSample, FleetLook, HostFacts, HostLook, Reach
from redisforge.plan.host_fleet_checks import takes

Clock = Callable[[], float]
"""The operator's clock: seconds since 1970."""
PROBE_LIMIT_S = 60.0
TRIAL_MEGABYTES = 16
"""Enough to be more than a disk's cache of commands, and gone in a third of a second on a slow disk."""
WINDOW_S = 6.0
"""How long hosts listen for each other, and try; the commands do not begin everywhere at the same moment."""
WINDOW_PER_HOST_S = 0.02
REACH_SLACK_S = 30.0


class Place(msgspec.Struct, frozen=True):
    """A host to ask. `folder` is where its data goes; `ports` are (address, port) that the cluster will listen on,
    `inner_ports` those among them that the other hosts must reach. `known_at` is the address at which they try, if it
    is translated to those of `inner_ports`."""

    name: str
    transport: Transport
    folder: str
    ports: tuple[tuple[str, int], ...]
    inner_ports: tuple[tuple[str, int], ...]
    known_at: str = ""


async def look_at(places: Sequence[Place], paths: Sequence[str], clock: Clock, *, reach: bool = True) -> FleetLook:
    """What all these hosts are like, and (`reach`) whether they reach each other. `paths` are files to read there.

    A host that cannot be asked is an answer like any other.
    """

    async def probe(place: Place) -> HostFacts:
        ports = ",".join(str(port) for _, port in place.ports)
        argv = ("sh", "-c", _program("host_probe.sh"), "sh", place.folder, str(TRIAL_MEGABYTES), ports, *paths)
        sent_s = clock()
        result = await place.transport.run(argv, timeout_s=PROBE_LIMIT_S, check=False)
        return read_probe(place.name, place.folder, result.stdout, Travel(sent_s, clock()))

    answers = await over_hosts(probe, places)
    looks = tuple(_looked(place.name, answer) for place, answer in zip(places, answers, strict=True))
    asked = {look.host: look.facts for look in looks if look.facts is not None}
    if not reach or len(asked) < 2:
        return FleetLook(looks)
    return await _reached(looks, [place for place in places if place.name in asked], clock)


def _looked(name: str, answer: HostFacts | HostError) -> HostLook:
    if isinstance(answer, HostFacts):
        return HostLook(name, answer)
    problem = ": ".join(part for part in (answer.what, answer.why.strip()) if part)
    return HostLook(name, None, problem, answer.next_step)


async def _reached(looks: tuple[HostLook, ...], places: Sequence[Place], clock: Clock) -> FleetLook:
    """The second round, among the hosts that answered the first."""
    facts = {look.host: look.facts for look in looks if look.facts is not None}
    free = {place.name: _free(place, facts[place.name]) for place in places}
    untried = {(place.name, port) for place in places if not facts[place.name].python for _, port in free[place.name]}
    window_s = WINDOW_S + WINDOW_PER_HOST_S * len(places)

    async def ask(place: Place) -> ReachAnswer:
        others = [other for other in places if other.name != place.name]
        targets = [(o.name, o.known_at or a, p) for o in others for a, p in o.inner_ports if (o.name, p) not in untried]
        if not targets and not free[place.name]:
            return ReachAnswer((), frozenset(), None)
        if facts[place.name].python:
            argv = _python_argv(free[place.name], len(others), window_s, targets)
        else:
            argv = _bash_argv(window_s, targets)
        sent_s = clock()
        result = await place.transport.run(argv, timeout_s=window_s + REACH_SLACK_S, check=False)
        if not result.stdout:
            raise HostError("could not try the others", where=place.name, why=result.stderr[-500:])
        return read_reaches(place.name, result.stdout, Travel(sent_s, clock()))

    answers = await over_hosts(ask, places, limit=len(places))  # all at once: they listen for each other
    reaches: list[Reach] = []
    problems: dict[str, str] = {}
    for place, answer in zip(places, answers, strict=True):
        if isinstance(answer, HostError):
            problems[place.name] = answer.why.strip() or answer.what
            untried |= {(place.name, port) for _, port in free[place.name]}
            continue
        reaches += answer.reaches
        untried |= {(place.name, port) for port in answer.deaf}
        looks = tuple(_better_clock(look, answer.clock) if look.host == place.name else look for look in looks)
    tried = tuple(reach for reach in reaches if (reach.target, reach.port) not in untried)
    return FleetLook(looks, tried, frozenset(untried), problems)


def _free(place: Place, facts: HostFacts) -> tuple[tuple[str, int], ...]:
    """The ports that others must reach and at which nothing listens yet."""
    return tuple(
        (address, port)
        for address, port in place.inner_ports
        if not any(takes(socket, address, port) for socket in facts.listeners)
    )


def _python_argv(
    listen: Sequence[tuple[str, int]], expected: int, window_s: float, targets: Sequence[tuple[str, str, int]]
) -> tuple[str, ...]:
    by_address: dict[tuple[str, str], list[int]] = {}
    for host, address, port in targets:
        by_address.setdefault((host, address), []).append(port)
    asked: Mapping[str, object] = {
        "listen": listen,
        "expected": expected,
        "window_s": window_s,
        "targets": [(host, address, ports) for (host, address), ports in by_address.items()],
    }
    return ("python3", "-I", "-c", _program("host_reach.py"), json.dumps(asked))


def _bash_argv(window_s: float, targets: Sequence[tuple[str, str, int]]) -> tuple[str, ...]:
    words = (str(word) for target in targets for word in target)
    return ("bash", "-c", _program("host_reach.sh"), "bash", str(int(window_s)), *words)


def _better_clock(look: HostLook, sample: ClockSample | None) -> HostLook:
    """The sample of the exchange that was sooner over; the first one may have had to connect."""
    if look.facts is None or sample is None:
        return look
    known = look.facts.clock
    if known is not None and known.uncertainty_s <= sample.uncertainty_s:
        return look
    return msgspec.structs.replace(look, facts=msgspec.structs.replace(look.facts, clock=sample))


@cache
def _program(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")
