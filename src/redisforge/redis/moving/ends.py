"""Connections to the nodes of a move: one per node and purpose, opened when needed, closed together."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence

import hiredis

from redisforge.errors import NodeError
from redisforge.model.facts import NodeFacts, PeerView
from redisforge.redis.connection import Connection, Login, Reply, ReplyError
from redisforge.redis.parse import parse_cluster_nodes

ANSWER_TIMEOUT_S = 30.0
"""For one request. A node may be busy with the keys of a big slot for seconds; a dead one closes the connection."""


class Ends:
    """The connections of one task. Not shared between tasks: replies would mix."""

    def __init__(self, login: Login, *, timeout_s: float = ANSWER_TIMEOUT_S, tls: ssl.SSLContext | None = None) -> None:
        self.login = login
        self.tls = tls or login.ssl_context()
        """Shared among the tasks of one call: loading a CA costs milliseconds."""
        self._timeout_s = timeout_s
        self._open: dict[tuple[str, int], Connection] = {}

    def another(self) -> Ends:
        """Connections for another task."""
        return Ends(self.login, timeout_s=self._timeout_s, tls=self.tls)

    async def to(self, node: NodeFacts) -> Connection:
        """The connection to `node`. Raises NodeError."""
        address = (node.address, node.port)
        if address not in self._open:
            self._open[address] = await Connection.open(address, self.login, timeout_s=self._timeout_s, tls=self.tls)
        return self._open[address]

    async def call(self, node: NodeFacts, *command: str | int | bytes) -> Reply:
        """One command to one node. Raises ReplyError, NodeError."""
        return await (await self.to(node)).call(*command)

    async def pipeline(self, node: NodeFacts, commands: Sequence[Sequence[str | int | bytes]]) -> list[Reply]:
        """All commands at once; the first error reply is raised. Raises ReplyError, NodeError."""
        if not commands:
            return []
        connection = await self.to(node)
        replies = await connection.pipeline(commands)
        for command, reply in zip(commands, replies, strict=True):
            if isinstance(reply, hiredis.ReplyError):
                words = " ".join(str(word) for word in command[:4]) if command[0] == "CLUSTER" else str(command[0])
                raise ReplyError(f"{words} failed", where=f"{node.name} ({connection.where})", why=str(reply))
        return replies

    async def view(self, node: NodeFacts) -> tuple[PeerView, ...]:
        """CLUSTER NODES of one node, parsed. A connection that has broken since it was last used is opened again.

        Raises NodeError.
        """
        kept = (node.address, node.port) in self._open
        try:
            text = await self.call(node, "CLUSTER", "NODES")
        except ReplyError:
            raise
        except NodeError:
            self._open.pop((node.address, node.port), None)
            if not kept:
                raise
            text = await self.call(node, "CLUSTER", "NODES")
        return parse_cluster_nodes(str(text))

    async def close(self) -> None:
        """Close everything at once."""
        for connection in self._open.values():
            connection.abort()
        self._open.clear()
        await asyncio.sleep(0)  # lets the transports finish closing within this loop

    async def __aenter__(self) -> Ends:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
