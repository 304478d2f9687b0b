"""A cluster that somebody else built: plain servers, joined by `redis-cli --cluster create`. What `adopt` works on."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

from cluster_tool import ADDRESS, SLOT_COUNT, Result, environment, run_command
from foreign_nodes import Nodes

from redisforge.fleet.binaries import EngineBinary
from waiting import until

READ_ONLY = frozenset(
    {"auth", "hello", "client|setinfo", "info", "config|get", "cluster|myid", "cluster|nodes", "cluster|info",
     "cluster|slots", "replconf", "ping", "psync", "config|resetstat"}
)  # fmt: skip
"""What nodes may have served while somebody reads the cluster: PING, PSYNC and REPLCONF are the replicas'."""


class ForeignCluster:
    """Three masters with a replica each, on seven servers; the seventh is blank and belongs to nobody.

    `folder` is where the operator works: redisforge.yaml is written there, and `home` is REDISFORGE_HOME.
    """

    def __init__(self, folder: Path, engine: EngineBinary, **options: Any) -> None:
        self.folder, self._engine = folder, engine
        self.home = folder / "home"
        self.nodes = Nodes(folder / "servers", engine.server_path, count=7, **options)
        self.members, self.spare = self.nodes.ports[:6], self.nodes.ports[6]
        try:
            self._create()
        except BaseException:
            self.close()
            raise

    def _create(self) -> None:
        nodes = self.nodes
        command = [self._engine.cli_path, *self.cli_options()]
        command += ["--cluster", "create", *nodes.names[:6], "--cluster-replicas", "1", "--cluster-yes"]
        made = subprocess.run(command, env=self._variables(), capture_output=True, text=True, check=False)
        assert made.returncode == 0, made.stdout + made.stderr
        until(self.is_settled, "the foreign cluster has settled")

    def cli_options(self) -> list[str]:
        """What redis-cli needs to speak to the nodes."""
        if self.nodes.tls is None:
            return []
        tls = self.nodes.tls
        files = {"--cacert": "ca.crt", "--cert": "client.crt", "--key": "client.key"}
        return ["--tls", *(word for option, name in files.items() for word in (option, str(tls / name)))]

    def is_settled(self, members: int = 6) -> bool:
        """Every member knows all, sees all slots, and every replica is in sync."""
        for port in self.members:
            info = self.nodes.ask(port, "CLUSTER INFO")
            if (info["cluster_state"], info["cluster_known_nodes"]) != ("ok", str(members)):
                return False
            if len(self.nodes.ask(port, "CLUSTER NODES")) != members:
                return False
            with self.nodes.client(port) as client:
                replication = client.info("replication")
            if replication["role"] == "slave" and replication["master_link_status"] != "up":
                return False
        return [self.nodes.roles()[port] for port in self.members].count("slave") == 3

    def run(self, *arguments: str, password: str | None = None, answer: str = "", **variables: str) -> Result:
        """Run `redisforge`; whatever it says, it is no traceback and not the password."""
        if password:
            variables["REDIS_REQUIREPASS"] = password
        result = run_command(
            *arguments, folder=self.folder, variables=environment(self.home, **variables), answer=answer
        )
        assert "Traceback" not in result.stderr, str(result)
        assert "defect" not in result.stderr, str(result)
        secret = password or self.nodes.password
        assert not secret or secret not in str(result)
        return result

    def done(self, *arguments: str, **variables: str) -> Result:
        """Run it; it must succeed."""
        result = self.run(*arguments, **variables)
        assert result.status == 0, str(result)
        return result

    def status(self) -> dict[str, Any]:
        """`status --json`."""
        return self.done("status", "--json").json()

    def cli(self, commands: str) -> list[str]:
        """What redis-cli prints for the commands, one a line; it follows redirections."""
        command = [self._engine.cli_path, "-c", "-p", str(self.members[0]), *self.cli_options()]
        ended = subprocess.run(
            command, input=commands, env=self._variables(), capture_output=True, text=True, check=True
        )
        return [line for line in ended.stdout.splitlines() if not line.startswith("-> Redirected")]

    def _variables(self) -> dict[str, str]:
        password = {"REDISCLI_AUTH": self.nodes.password} if self.nodes.password else {}
        return {**os.environ, **password}

    def name(self, port: int) -> str:
        """What a node is called."""
        return f"{ADDRESS}:{port}"

    def owned(self) -> dict[int, int]:
        """How many slots each master owns, by its port, as the first member says."""
        nodes = self.nodes.ask(self.members[0], "CLUSTER NODES")
        owned = {int(address.split("@")[0].rsplit(":", 1)[1]): node["slots"] for address, node in nodes.items()}
        counts = {port: sum(int(r[-1]) - int(r[0]) + 1 for r in slots) for port, slots in owned.items() if slots}
        assert sum(counts.values()) == SLOT_COUNT
        return counts

    def commands(self) -> set[str]:
        """Every command that was served by any server since the last reset (INFO commandstats)."""
        found: set[str] = set()
        for port in self.nodes.ports:
            with self.nodes.client(port) as client:
                found |= {name.removeprefix("cmdstat_") for name in client.info("commandstats")}
        return found

    def forget_commands(self) -> None:
        """Begin to count anew."""
        for port in self.nodes.ports:
            assert self.nodes.ask(port, "CONFIG RESETSTAT")

    def configuration(self) -> dict[int, Any]:
        """What every server has set, and its view of the cluster without what changes by itself."""
        return {
            port: (
                self.nodes.ask(port, "CONFIG GET", "*"),
                sorted((a, n["node_id"], n["flags"], str(n["slots"])) for a, n in self._nodes_of(port).items()),
            )
            for port in self.nodes.ports
        }

    def _nodes_of(self, port: int) -> dict[str, Any]:
        return self.nodes.ask(port, "CLUSTER NODES")

    def close(self) -> None:
        """Stop all."""
        self.nodes.close()
