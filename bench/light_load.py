"""A light load through the nodes themselves, as a program of its own, so that nothing else in it delays an answer.

A cluster client in the fewest lines: it keeps the owner of every slot, follows MOVED and ASK, and has a connection to
every node from the start. (redis-py reads the topology again after some redirections; that would be measured too.)

Standard input: one line of JSON with nodes, user, password, ca and keys; then any line ends it. Standard output: a line
once every worker has begun, then JSON with the samples (seconds since the epoch, seconds) and the errors.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time

import hiredis

from redisforge.model.secret import Secret
from redisforge.model.slots import key_slot
from redisforge.redis.connection import Connection, Login
from redisforge.redis.parse import parse_cluster_nodes

WORKERS = 4
PAUSE_S = 0.004
Address = tuple[str, int]


class Client:
    """One worker's connections."""

    def __init__(self, connections: dict[Address, Connection]) -> None:
        self._connections = connections
        self._owners: dict[int, Address] = {}

    async def learn(self) -> None:
        """Ask who owns which slot."""
        first = next(iter(self._connections.values()))
        for peer in parse_cluster_nodes(str(await first.call("CLUSTER", "NODES"))):
            for current in peer.slots:
                self._owners |= dict.fromkeys(range(current.first, current.last + 1), (peer.address, peer.port))

    async def call(self, slot: int, *command: str) -> None:
        """Send a command, to wherever it has to go. Raises ReplyError of hiredis."""
        address = self._owners[slot]
        asking: list[tuple[str, ...]] = []
        for _ in range(10):
            reply = (await self._connections[address].pipeline([*asking, command]))[-1]
            if not isinstance(reply, hiredis.ReplyError):
                return
            kind, _, rest = str(reply).partition(" ")
            if kind not in ("MOVED", "ASK"):
                raise reply
            host, _, port = rest.split()[1].rpartition(":")
            address = (host, int(port))
            asking = [("ASKING",)] if kind == "ASK" else []
            if kind == "MOVED":
                self._owners[slot] = address
        raise hiredis.ReplyError("too many redirections")


async def main() -> None:
    """Run until told to stop."""
    settings = json.loads(sys.stdin.readline())
    login = Login(ca_path=settings["ca"], user=settings["user"], password=Secret(settings["password"]))
    stop = asyncio.Event()
    samples: list[tuple[float, float]] = []
    errors: list[str] = []

    async def work(client: Client, number: int) -> None:
        chosen = random.Random(number)
        while not stop.is_set():
            key = f"key:{chosen.randrange(settings['keys'])}"
            command = ("GET", key) if chosen.random() < 0.5 else ("SET", key, "y" * 100)
            at, began = time.time(), time.perf_counter()
            try:
                await client.call(key_slot(key), *command)
                samples.append((at, time.perf_counter() - began))
            except hiredis.ReplyError as error:
                errors.append(str(error))
            await asyncio.sleep(PAUSE_S)

    addresses = [(host, port) for host, port in settings["nodes"]]
    clients = [
        Client({address: await Connection.open(address, login, timeout_s=10) for address in addresses})
        for _ in range(WORKERS)
    ]
    for client in clients:
        await client.learn()
    workers = [asyncio.create_task(work(client, number)) for number, client in enumerate(clients)]
    print("begun", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    stop.set()
    await asyncio.gather(*workers)
    print(json.dumps({"samples": samples, "errors": len(errors), "first_errors": errors[:3]}), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
