"""Plain redis-servers that the test itself started, as somebody else would have: what `init-cluster` works on."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any, Literal

import redis
from cluster_tool import ADDRESS, AT_ONCE, COMMAND, SLOT_COUNT, Ports, Result, environment, run_command

from waiting import until

PASSWORD = "Formed-by-somebody-else-42"
CONFIGURATION = """\
bind {address}
port {plain_port}
tls-port {tls_port}
cluster-enabled yes
cluster-config-file nodes.conf
cluster-node-timeout 2000
cluster-port {bus_port}
repl-diskless-sync-delay 0
repl-ping-replica-period 1
dir {folder}
logfile {folder}/log
save ""
"""
TLS = """\
tls-cert-file {tls}/server.crt
tls-key-file {tls}/server.key
tls-ca-cert-file {tls}/ca.crt
tls-auth-clients {auth_clients}
tls-cluster yes
tls-replication yes
"""


class Nodes:
    """Servers of one version on ports of their own; with `tls`, a folder of certificates, they speak nothing else."""

    def __init__(
        self,
        folder: Path,
        server: str,
        *,
        count: int = 6,
        tls: Path | None = None,
        auth_clients: Literal["yes", "optional"] = "optional",
        password: str = PASSWORD,
        cluster: bool = True,
    ) -> None:
        self.folder, self.tls, self.password, self._cluster = folder, tls, password, cluster
        self._server, self._auth_clients = server, auth_clients
        self._ports = Ports()
        self.ports = [self._ports.first + number for number in range(count)]
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        try:
            for port in self.ports:
                self.start(port)
            until(lambda: all(self.answers(port) for port in self.ports), "the servers answer")
        except BaseException:
            self.close()
            raise

    @property
    def names(self) -> list[str]:
        """The nodes as `init-cluster` takes them."""
        return [f"{ADDRESS}:{port}" for port in self.ports]

    # --- the servers ---

    def start(self, port: int, *options: str) -> None:
        """Start one; `options` prevail over its configuration."""
        folder = self.folder / str(port)
        folder.mkdir(parents=True, exist_ok=True)
        text = CONFIGURATION.format(
            address=ADDRESS, plain_port=0 if self.tls else port, tls_port=port if self.tls else 0,
            bus_port=port + 50, folder=folder,
        )  # fmt: skip
        if not self._cluster:
            text = "\n".join(line for line in text.splitlines() if not line.startswith("cluster-")) + "\n"
        if self.password:
            text += f"requirepass {self.password}\nmasterauth {self.password}\n"
        if self.tls:
            text += TLS.format(tls=self.tls, auth_clients=self._auth_clients)
        (folder / "redis.conf").write_text(text)
        command = (self._server, str(folder / "redis.conf"), *options)
        self._processes[port] = subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def file(self, port: int) -> Path:
        """The configuration that one was started with."""
        return self.folder / str(port) / "redis.conf"

    def stop(self, port: int) -> None:
        """kill -9 of one."""
        process = self._processes.pop(port)
        process.kill()
        process.wait()

    def pid(self, port: int) -> int:
        """The process of one that was started here."""
        return self._processes[port].pid

    def client(self, port: int) -> Any:
        """redis-py to one node."""
        tls: dict[str, Any] = {}
        if self.tls:
            names = {"ssl_ca_certs": "ca.crt", "ssl_certfile": "client.crt", "ssl_keyfile": "client.key"}
            tls = {"ssl": True, **{option: str(self.tls / name) for option, name in names.items()}}
        return redis.Redis(
            host=ADDRESS, port=port, password=self.password or None, decode_responses=True, **AT_ONCE, **tls
        )

    def answers(self, port: int) -> bool:
        """Whether the node answers PING."""
        try:
            with self.client(port) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    def ask(self, port: int, *command: str) -> Any:
        """What one node answers to a command."""
        with self.client(port) as client:
            return client.execute_command(*command)

    def ids(self) -> list[str]:
        """The nodes' ids, in the order of their ports."""
        return [self.ask(port, "CLUSTER MYID") for port in self.ports]

    def roles(self) -> dict[int, str]:
        """`master` or `slave` by port."""
        return {port: self.ask(port, "ROLE")[0] for port in self.ports}

    # --- the command ---

    def arguments(self, *options: str, nodes: list[str] | None = None) -> tuple[str, ...]:
        """`init-cluster` of all nodes, or of `nodes`."""
        ca = ("--ca-file", str(self.tls / "ca.crt")) if self.tls else ()
        return ("init-cluster", ",".join(nodes or self.names), *ca, *options)

    def form(self, *options: str, nodes: list[str] | None = None, password: str = PASSWORD) -> Result:
        """Run it to its end; whatever it says, it is no traceback and not the password."""
        arguments = self.arguments(*options, nodes=nodes)
        result = run_command(*arguments, folder=self.folder, variables=self._variables(password))
        assert "Traceback" not in result.stderr, str(result)
        assert "defect" not in result.stderr, str(result)
        assert not password or password not in str(result)
        return result

    def start_forming(self, *options: str) -> subprocess.Popen[str]:
        """Start it and do not wait for it."""
        return subprocess.Popen(
            (*COMMAND, *self.arguments(*options)), cwd=self.folder, env=self._variables(PASSWORD), text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def _variables(self, password: str) -> dict[str, str]:
        return environment(self.folder / "home", REDIS_REQUIREPASS=password)

    # --- what must hold ---

    def assert_formed(self, masters: int = 3) -> None:
        """Every node sees the same cluster: all slots, `masters` owners, everybody else a replica in sync."""
        views: set[frozenset[str]] = set()
        for port in self.ports:
            info = self.ask(port, "CLUSTER INFO")
            assert (info["cluster_state"], info["cluster_slots_ok"], info["cluster_size"]) == (
                "ok", str(SLOT_COUNT), str(masters),
            ), f"{port}: {info}"  # fmt: skip
            views.add(frozenset(node["node_id"] for node in self.ask(port, "CLUSTER NODES").values()))
            with self.client(port) as client:
                replication = client.info("replication")
            if replication["role"] == "slave":
                assert replication["master_link_status"] == "up"
        assert len(views) == 1
        assert len(next(iter(views))) == len(self.ports)

    def assert_untouched(self) -> None:
        """No node that runs was introduced to another, and none got a slot."""
        for port in self._processes:
            info = self.ask(port, "CLUSTER INFO")
            assert (info["cluster_known_nodes"], info["cluster_slots_assigned"]) == ("1", "0"), f"{port}: {info}"

    def close(self) -> None:
        """Stop all."""
        for port in list(self._processes):
            self.stop(port)
        self._ports.close()
