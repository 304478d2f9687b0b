"""A node as the hand-off meets it: INFO, CLUSTER FAILOVER; it can lie about its offset, refuse, or hang on demand."""

from __future__ import annotations

from pathlib import Path

from fake_peer import FakePeer, bulk

HISTORY = "e" * 40


class FakeNode(FakePeer):
    """Answers INFO from `info` and becomes a master when it is asked for a failover, if it `wins`.

    `before_failover` runs first: a test changes the rest of the cluster there.
    """

    def __init__(self, tls_folder: Path, **info: object) -> None:
        super().__init__(tls_folder)
        self.info: dict[str, object] = {"loading": 0, "db0": "keys=3,expires=0", "master_replid": HISTORY, **info}
        self.wins = True
        self.error = ""
        self.masters: list[FakeNode] = []

    @property
    def place(self) -> str:
        """address:port."""
        return f"{self.address[0]}:{self.address[1]}"

    @property
    def orders(self) -> list[tuple[str, ...]]:
        """The failovers that it was asked for."""
        return [command for command in self.commands if command[:2] == ("CLUSTER", "FAILOVER")]

    def answer(self, command: tuple[str, ...]) -> bytes:
        """What a node says."""
        if command[0] == "INFO":
            return bulk("# Section\r\n" + "".join(f"{name}:{value}\r\n" for name, value in self.info.items()))
        if command[0] == "PING":
            return b"+PONG\r\n"
        if command[:2] == ("CLUSTER", "FAILOVER"):
            if self.error:
                return f"-ERR {self.error}\r\n".encode()
            if self.wins:
                self.info["role"] = "master"
                for master in self.masters:
                    master.info["role"] = "slave"
            return b"+OK\r\n"
        return super().answer(command)


def a_master(tls: Path, *replicas: tuple[FakeNode, int], offset: int = 5000, state: str = "online") -> FakeNode:
    """A master that names `replicas`, each with the offset that it acknowledged last."""
    master = FakeNode(tls, role="master", master_repl_offset=offset)
    for number, (replica, acknowledged) in enumerate(replicas):
        address, port = replica.address
        master.info[f"slave{number}"] = (
            f"ip={address},port={port},state={state},offset={acknowledged},lag=0,type=replica"
        )
        replica.masters.append(master)
    return master


def a_replica(tls: Path, offset: int = 5000, **info: object) -> FakeNode:
    """A replica whose master has just died."""
    told = {"role": "slave", "master_link_status": "down", "master_sync_in_progress": 0, "slave_repl_offset": offset}
    return FakeNode(tls, **{**told, **info})


def bus_line(bus_port: int, slots: str) -> str:
    """A master's line of nodes.conf as engines since Redis 7.2 write it: the port is 0 where only TLS is served."""
    return f"{'f' * 40} 127.0.0.1:0@{bus_port},,tls-port=1,shard-id={'5' * 40} master - 0 1 3 connected {slots}"


def remember_masters(data: Path, mine: str, *others: FakeNode) -> None:
    """Write nodes.conf: our own line, and those of other masters with slots."""
    lines = [mine]
    lines += [bus_line(node.address[1], str(slot)) for slot, node in enumerate(others, 1)]
    data.mkdir(parents=True, exist_ok=True)
    data.joinpath("nodes.conf").write_text("".join(f"{line}\n" for line in (*lines, "vars currentEpoch 6")))
