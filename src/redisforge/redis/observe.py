"""Ask every node what it is and what it sees. One round trip per node, all nodes at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

import hiredis
import msgspec

from redisforge.errors import NodeError, RedisForgeError
from redisforge.model.facts import NodeFacts
from redisforge.redis import commands
from redisforge.redis.connection import Connection, Login, Reply, ReplyError
from redisforge.redis.parse import parse_cluster_nodes, parse_info, parse_key_count

_QUESTIONS = (("CLUSTER", "MYID"), ("CLUSTER", "NODES"), ("CLUSTER", "INFO"), ("INFO",))
_SLOTS_QUESTION = ("CLUSTER", "SLOTS")


class NodeAsker:
    """Keeps one connection per node between observations; opens it again when it broke.

    `with_listing` also asks what each node tells proxies (NodeFacts.listed), `settings` the values of these directives,
    `reading_users` whether these may PING (NodeFacts.refuses_reads).
    """

    def __init__(
        self,
        login: Login,
        *,
        timeout_s: float = 2.0,
        with_listing: bool = False,
        settings: Sequence[str] = (),
        reading_users: Sequence[str] = (),
    ) -> None:
        self._pings = tuple(("ACL", "DRYRUN", user, "PING") for user in reading_users)
        self._login = login
        self._questions = (*_QUESTIONS, _SLOTS_QUESTION) if with_listing else _QUESTIONS
        self._settings = tuple(settings)
        self._timeout_s = timeout_s
        self._tls = login.ssl_context()
        self._open: dict[tuple[str, int], Connection] = {}
        self._told: set[tuple[str, int]] = set()
        self._saved: dict[tuple[str, int], str] = {}

    async def connection(self, address: tuple[str, int]) -> Connection:
        """The connection to `address`. Raises NodeError."""
        if address not in self._open:
            self._open[address] = await Connection.open(address, self._login, timeout_s=self._timeout_s, tls=self._tls)
        return self._open[address]

    async def call(self, address: tuple[str, int], *command: str | int) -> Reply:
        """One command to one node.

        Raises:
            ReplyError: the node refused it.
            NodeError: the node cannot be reached.
        """
        try:
            return await (await self.connection(address)).call(*command)
        except ReplyError:
            raise
        except NodeError:
            self._drop(address)
            raise

    async def set_settings(self, address: tuple[str, int], settings: tuple[tuple[str, str], ...]) -> None:
        """CONFIG SET; it is noted that the node was told (NodeFacts.was_told). Raises as `call`."""
        await self.call(address, *commands.set_settings(settings))
        self._told.add(address)

    async def save_settings(self, address: tuple[str, int]) -> None:
        """CONFIG REWRITE; a refusal is noted (NodeFacts.saved). Raises NodeError where the node cannot be reached."""
        try:
            await self.call(address, *commands.save_settings())
        except ReplyError as error:
            self._saved[address] = error.why
        else:
            self._saved[address] = ""

    async def observe(self, name: str, address: tuple[str, int]) -> NodeFacts:
        """The facts of one node; a failure becomes its `problem`."""
        kept = address in self._open
        try:
            questions = (*self._questions, ("CONFIG", "GET", *self._settings)) if self._settings else self._questions
            replies = await (await self.connection(address)).pipeline((*questions, *self._pings))
        except RedisForgeError as error:
            self._drop(address)
            if kept:  # the node may have restarted since the last look: one fresh try
                return await self.observe(name, address)
            why = error.why or error.what
            return NodeFacts(name=name, address=address[0], port=address[1], problem=why)
        pings = [replies.pop() for _ in self._pings]
        failed = next((reply for reply in replies if isinstance(reply, hiredis.ReplyError)), None)
        if failed is not None:
            text = str(failed)
            loading = text.startswith("LOADING")  # alive, and reading its data from disk
            return NodeFacts(name=name, address=address[0], port=address[1], problem=text, loading=loading)
        settings = read_settings(replies.pop()) if self._settings else None
        return msgspec.structs.replace(
            read_facts(name, address, replies),
            settings=settings,
            was_told=address in self._told,
            saved=self._saved.get(address),
            refuses_reads=read_refusal(pings),
        )

    async def observe_all(self, nodes: Iterable[tuple[str, tuple[str, int]]]) -> dict[str, NodeFacts]:
        """The facts of all nodes, asked at the same time, by name and in the given order."""
        listed = list(nodes)
        facts = await asyncio.gather(*(self.observe(name, address) for name, address in listed))
        return {node.name: node for node in facts}

    def _drop(self, address: tuple[str, int]) -> None:
        connection = self._open.pop(address, None)
        if connection is not None:
            connection.abort()

    async def close(self) -> None:
        """Close every connection."""
        for connection in self._open.values():
            connection.abort()
        self._open.clear()
        await asyncio.sleep(0)  # lets the transports finish closing within this loop

    async def __aenter__(self) -> NodeAsker:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def read_facts(name: str, address: tuple[str, int], replies: list[Reply]) -> NodeFacts:
    """Turn the answers to CLUSTER MYID, CLUSTER NODES, CLUSTER INFO, INFO and perhaps CLUSTER SLOTS into facts."""
    node_id, nodes_text, cluster_text, info_text = (str(reply) for reply in replies[:4])
    cluster, info = parse_info(cluster_text), parse_info(info_text)
    is_replica = info.get("role") == "slave"
    offset = info.get("slave_repl_offset" if is_replica else "master_repl_offset", "0")
    return NodeFacts(
        name=name,
        address=address[0],
        port=address[1],
        id=node_id,
        version=info.get("valkey_version") or info.get("redis_version", ""),
        peers=parse_cluster_nodes(nodes_text),
        keys=parse_key_count(info),
        used_memory_bytes=int(info.get("used_memory", 0)),
        max_memory_bytes=int(info.get("maxmemory", 0)),
        cluster_state=cluster.get("cluster_state", ""),
        current_epoch=int(cluster.get("cluster_current_epoch", 0)),
        replication_offset=max(0, int(offset)),
        master_link_up=info.get("master_link_status") == "up",
        sync_in_progress=info.get("master_sync_in_progress") == "1",
        loading=info.get("loading") == "1",
        uptime_s=float(info.get("uptime_in_seconds", 0)),
        pid=int(info.get("process_id", 0)),
        config_file=info.get("config_file", ""),
        listed=read_listing(replies[4]) if len(replies) > len(_QUESTIONS) else None,
        aof_ok="err" not in (info.get("aof_last_write_status"), info.get("rdb_last_bgsave_status")),
    )


def read_refusal(pings: Sequence[Reply]) -> bool | None:
    """The answers to ACL DRYRUN USER PING. A node that somebody else set up need not have these users: None."""
    if not pings or any(isinstance(reply, hiredis.ReplyError) for reply in pings):
        return None
    return any(str(reply) != "OK" for reply in pings)


def read_settings(reply: Reply) -> dict[str, str]:
    """An answer to CONFIG GET: name, value, name, value, …"""
    words = [str(word) for word in reply]
    return dict(zip(words[::2], words[1::2], strict=True))


def read_listing(slots: Reply) -> tuple[str, ...]:
    """The ids named in an answer to CLUSTER SLOTS: [first, last, [endpoint, port, id, …], replica…] per range."""
    return tuple(sorted({str(node[2]) for entry in slots for node in entry[2:]}))
