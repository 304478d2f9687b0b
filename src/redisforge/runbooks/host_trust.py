"""`host trust`: look at the keys of hosts, have a person say yes to them, write them down.

    jump hosts: look → ask → write     then the hosts behind them, and all others, in the same way

A key is only looked at before it is trusted (fleet/host_keys.py). A key that takes the place of a known one is never
trusted by a mere yes: its fingerprint has to be given, so that somebody has read it elsewhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec

from redisforge.errors import HostError, HostKeyError
from redisforge.fleet import ssh_errors
from redisforge.fleet.host_keys import HostKey, known_hosts_name, known_keys, read_known_hosts, trust
from redisforge.fleet.ssh import SshTransport
from redisforge.fleet.ssh_connection import SshConnection
from redisforge.fleet.ssh_errors import Shown
from redisforge.fleet.ssh_pool import over_hosts
from redisforge.model.host_report import ShownKey, TrustReport, TrustResult, TrustState
from redisforge.runbooks.hosts import Fleet

Agree = Callable[[Sequence[TrustResult]], bool]
"""Shows hosts that are not trusted yet to a person; whether that person says yes to all of them."""


class _Seen(msgspec.Struct, frozen=True):
    """What a host showed, and what is known of it; `problem` if it could not be asked."""

    connection: SshConnection
    shown: tuple[HostKey, ...] = ()
    known: tuple[HostKey, ...] = ()
    problem: HostError | None = None


def trust_hosts(fleet: Fleet, fingerprints: Iterable[str], agree: Agree) -> TrustReport:
    """Trust the hosts of `fleet` and the jump hosts before them: those whose keys have one of `fingerprints`, or, if
    none is given, those that `agree` says yes to.

    A host that cannot be asked, or shows a changed key, is in the report; the others are trusted all the same.

    Raises:
        HostError: a file of known hosts cannot be read or written.
    """
    wanted = frozenset(fingerprints)
    ways = [site.transport for host in fleet.hosts if host.ssh for site in [fleet.sites[host.name]]]
    direct = [way.connection for way in ways if isinstance(way, SshTransport)]
    jumps = list({id(jump): jump for connection in direct if (jump := connection.jump)}.values())
    results: list[TrustResult] = []
    for connections in (jumps, direct):
        if connections:
            results += _one_round(connections, wanted, agree)
    return TrustReport(
        cluster=fleet.topology.name,
        file=str(fleet.known_hosts),
        passed=all(result.state in ("known", "trusted") for result in results),
        hosts=tuple(results),
    )


def _one_round(connections: Sequence[SshConnection], wanted: frozenset[str], agree: Agree) -> list[TrustResult]:
    seen = asyncio.run(_look(connections))
    judged = {each.connection.target: judge_keys(each, wanted) for each in seen}
    open_ones = [result for result in judged.values() if result.state == "not trusted"]
    agreed = bool(open_ones) and (bool(wanted) or agree(open_ones))
    results: list[TrustResult] = []
    for each in seen:
        result = judged[each.connection.target]
        if result.state == "not trusted" and agreed:
            keys = [key for key in each.shown if not wanted or key.fingerprint in wanted]
            trust(Path(each.connection.known_hosts_paths[0]), result.known_as, keys)
            result = msgspec.structs.replace(result, state="trusted")
        results.append(result)
    return results


async def _look(connections: Sequence[SshConnection]) -> list[_Seen]:
    async def look(connection: SshConnection) -> _Seen:
        known = known_keys(read_known_hosts(connection.known_hosts_paths), *connection.known_name())
        try:
            return _Seen(connection, await connection.host_keys(), known)
        except HostError as error:
            return _Seen(connection, known=known, problem=error)

    try:
        found = await over_hosts(look, connections)
    finally:
        everybody = {id(each): each for connection in connections for each in (connection, connection.jump) if each}
        await asyncio.gather(*(connection.close() for connection in everybody.values()))
    for outcome in found:
        if isinstance(outcome, HostError):
            raise outcome
    return [outcome for outcome in found if isinstance(outcome, _Seen)]


def judge_keys(seen: _Seen, wanted: frozenset[str]) -> TrustResult:
    """What is to be done about one host. With `wanted`, only a key with such a fingerprint may become trusted."""
    lines = {key.line for key in seen.known}
    fitting = [key for key in seen.shown if key.fingerprint in wanted]
    if seen.problem:
        return _result(seen, "unreachable", str(seen.problem))
    if any(key.line in lines for key in seen.shown):
        return _result(seen, "known")
    if wanted and not fitting:
        return _result(seen, "no match", str(_no_match(seen, wanted)))
    if seen.known and not fitting:
        shown = Shown(key=seen.shown[0], known=seen.known)
        return _result(seen, "changed", str(ssh_errors.wrong_key(seen.connection.target, shown, "")))
    return _result(seen, "not trusted")


def _no_match(seen: _Seen, wanted: frozenset[str]) -> HostKeyError:
    shown = "\n         ".join(f"{key.algorithm} {key.fingerprint}" for key in seen.shown)
    return HostKeyError(
        "the host shows no key with the given fingerprint",
        where=seen.connection.target.where,
        why=f"it shows {shown}\ngiven is {', '.join(sorted(wanted))}",
        next_step="Read the fingerprint on the host itself: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub\n"
        "If that is the given one, somebody stands in between: do not connect.",
    )


def _result(seen: _Seen, state: TrustState, problem: str = "") -> TrustResult:
    return TrustResult(
        host=seen.connection.target.name,
        known_as=known_hosts_name(*seen.connection.known_name()),
        state=state,
        shown=tuple(ShownKey(algorithm=key.algorithm, fingerprint=key.fingerprint) for key in seen.shown),
        known=tuple(ShownKey(algorithm=key.algorithm, fingerprint=key.fingerprint) for key in seen.known),
        problem=problem,
    )
