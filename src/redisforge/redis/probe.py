"""Try an endpoint the way a client would: TLS, password, and one read in every shard."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Iterable, Sequence

import hiredis
import msgspec

from redisforge.errors import NodeError
from redisforge.model.facts import EndpointFacts
from redisforge.model.topology import Endpoint, EndpointKind, Listener
from redisforge.redis.connection import Connection, Login, Reply

PROBE_PREFIX = "redisforge:probe:"
_CONNECTIONS = 8
"""To one listener at the same time."""
_Ask = Callable[[Connection], Awaitable[list[Reply]]]


class Probe(msgspec.Struct, frozen=True):
    """A listener of an endpoint to try. `may_read` is False for a user that reaches no key: a denial is its answer."""

    endpoint: Endpoint
    listener: Listener
    login: Login
    may_read: bool = True


async def probe_endpoint(
    probe: Probe, keys: Sequence[str], timeout_s: float, tls: ssl.SSLContext | None = None
) -> EndpointFacts:
    """Connect to one listener and read `keys` (one per shard; they need not exist). Never raises for a failure:
    it becomes the `problem`.

    Where masters are read, each key is read in a transaction too: a proxy follows MOVED for a single command and so
    hides that it still takes a former master for the owner, but it cannot do that inside MULTI. A proxy connects to a
    node anew for each transaction, so they are shared out over several connections. `tls` as for Connection.open.
    """
    endpoint, listener = probe.endpoint, probe.listener
    if endpoint.kind is EndpointKind.PUBSUB:
        problems = [await _problem(probe, timeout_s, tls, _ping)]
    elif probe.may_read and not endpoint.prefer_replicas:
        parts = [keys[number::_CONNECTIONS] for number in range(max(1, min(_CONNECTIONS, len(keys))))]
        problems = await asyncio.gather(
            *(_problem(probe, timeout_s, tls, _reading(probe, part, in_transactions=True)) for part in parts)
        )
    else:
        problems = [await _problem(probe, timeout_s, tls, _reading(probe, keys))]
    problem = next(filter(None, problems), "")
    return EndpointFacts(
        name=endpoint.name,
        envoy=listener.envoy,
        address=listener.address,
        port=listener.port,
        protocol=endpoint.protocol,
        user=endpoint.user,
        problem=problem,
    )


async def _problem(probe: Probe, timeout_s: float, tls: ssl.SSLContext | None, ask: _Ask) -> str:
    """What is wrong with the answers over a connection of its own; empty if nothing is."""
    address = (probe.listener.address, probe.listener.port)
    protocol = 3 if probe.endpoint.protocol == "RESP3" else 2
    try:
        async with await Connection.open(
            address, probe.login, timeout_s=timeout_s, protocol=protocol, tls=tls
        ) as connection:
            errors = (reply for reply in await ask(connection) if isinstance(reply, hiredis.ReplyError))
            return next((str(error) for error in errors), "")
    except NodeError as error:
        return f"{error.what}: {error.why}"


async def _ping(connection: Connection) -> list[Reply]:
    return [await connection.call("PING")]


def _reading(probe: Probe, keys: Sequence[str], *, in_transactions: bool = False) -> _Ask:
    async def ask(connection: Connection) -> list[Reply]:
        reads = [("GET", key) for key in keys]
        transactions = [[("MULTI",), ("GET", key), ("EXEC",)] for key in (keys if in_transactions else ())]
        # One transaction at a time: Envoy takes the next MULTI for a nested one while EXEC is under way.
        replies = await connection.pipeline([*reads, *(transactions[0] if transactions else ())])
        for transaction in transactions[1:]:
            replies += await connection.pipeline(transaction)
        if probe.may_read:
            return replies
        # The denial comes from the node, so it shows the way there to be open.
        return [reply for reply in replies if not _is_denial(reply)]

    return ask


def _is_denial(reply: Reply) -> bool:
    """The node answered, and its ACL denies this user to read."""
    return isinstance(reply, hiredis.ReplyError) and str(reply).startswith("NOPERM")


async def probe_all(
    probes: Iterable[Probe], keys: Sequence[str], *, timeout_s: float = 2.0
) -> tuple[EndpointFacts, ...]:
    """Probe all listeners at the same time. Raises CertificateError."""
    contexts: dict[tuple[str | bool, ...], ssl.SSLContext | None] = {}
    tried: list[Awaitable[EndpointFacts]] = []
    for probe in probes:
        login = probe.login
        files = (login.ca_path, login.certificate_path, login.key_path, login.check_hostname)
        if files not in contexts:
            contexts[files] = login.ssl_context()
        tried.append(probe_endpoint(probe, keys, timeout_s, contexts[files]))
    return tuple(await asyncio.gather(*tried))
