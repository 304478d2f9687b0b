"""Try an endpoint the way a client would: TLS, password, and one read in every shard."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

import hiredis
import msgspec

from redisforge.errors import NodeError
from redisforge.model.facts import EndpointFacts
from redisforge.model.topology import Endpoint, EndpointKind, Listener
from redisforge.redis.connection import Connection, Login, Reply

PROBE_PREFIX = "redisforge:probe:"


class Probe(msgspec.Struct, frozen=True):
    """A listener of an endpoint to try. `may_read` is False for a user that reaches no key: a denial is its answer."""

    endpoint: Endpoint
    listener: Listener
    login: Login
    may_read: bool = True


async def probe_endpoint(probe: Probe, keys: Sequence[str], timeout_s: float) -> EndpointFacts:
    """Connect to one listener and read `keys` (one per shard; they need not exist). Never raises for a failure:
    it becomes the `problem`.

    Where masters are read, each key is read in a transaction too: a proxy follows MOVED for a single command and so
    hides that it still takes a former master for the owner, but it cannot do that inside MULTI.
    """
    endpoint, listener = probe.endpoint, probe.listener
    protocol = 3 if endpoint.protocol == "RESP3" else 2
    problem = ""
    try:
        address = (listener.address, listener.port)
        async with await Connection.open(address, probe.login, timeout_s=timeout_s, protocol=protocol) as connection:
            if endpoint.kind is EndpointKind.PUBSUB:
                await connection.call("PING")
            else:
                replies = await connection.pipeline([("GET", key) for key in keys])
                if not probe.may_read:  # the denial comes from the node, so it shows the way there to be open
                    replies = [reply for reply in replies if not _is_denial(reply)]
                elif not endpoint.prefer_replicas:
                    for key in keys:  # one by one: Envoy takes the next MULTI for a nested one while EXEC is under way
                        replies += await connection.pipeline([("MULTI",), ("GET", key), ("EXEC",)])
                errors = (reply for reply in replies if isinstance(reply, hiredis.ReplyError))
                problem = next((str(error) for error in errors), "")
    except NodeError as error:
        problem = f"{error.what}: {error.why}"
    return EndpointFacts(
        name=endpoint.name,
        envoy=listener.envoy,
        address=listener.address,
        port=listener.port,
        protocol=endpoint.protocol,
        user=endpoint.user,
        problem=problem,
    )


def _is_denial(reply: Reply) -> bool:
    """The node answered, and its ACL denies this user to read."""
    return isinstance(reply, hiredis.ReplyError) and str(reply).startswith("NOPERM")


async def probe_all(
    probes: Iterable[Probe], keys: Sequence[str], *, timeout_s: float = 2.0
) -> tuple[EndpointFacts, ...]:
    """Probe all listeners at the same time."""
    return tuple(await asyncio.gather(*(probe_endpoint(probe, keys, timeout_s) for probe in probes)))
