"""A node that somebody else runs, made fit for a cluster (or unfit in one respect): what `scale add` takes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import redis
from cluster_tool import ADDRESS, AT_ONCE, Cluster

from redisforge.security.certificates import create_ca, ensure_issued
from waiting import until

_CERTIFICATE_DAYS = 30


class OutsideNode:
    """A redis-server with the configuration of the cluster's redis-1 on a port and in a folder of its own.

    `server` is another version's program: it gets what it understands of the configuration. With `own_ca` its
    certificate is of a CA that the cluster does not know; with `own_passwords` its users have passwords of their own.
    """

    def __init__(
        self,
        cluster: Cluster,
        folder: Path,
        port: int,
        *,
        server: str = "",
        own_ca: bool = False,
        own_passwords: bool = False,
    ) -> None:
        self._cluster = cluster
        self.folder, self.port, self.name = folder, port, f"{ADDRESS}:{port}"
        folder.mkdir(parents=True)
        (folder / "data").mkdir()
        self._certify(own_ca)
        unit = cluster.path / "units" / "redis-1"
        users = (unit / "users.acl").read_text()
        text = (unit / "redis.conf").read_text()
        if server:
            users = "".join(line for line in users.splitlines(keepends=True) if "operator_user" in line)
            text = re.sub(r"^(hide-user-data-from-log|cluster-ping-interval) .*\n", "", text, flags=re.MULTILINE)
        (folder / "users.acl").write_text(re.sub(r"#\w{64}", f"#{'0' * 64}", users) if own_passwords else users)
        (folder / "redis.conf").write_text(self._configuration(text))
        command = [server] if server else json.loads((unit / "unit.json").read_text())["argv"][:-1]
        with (folder / "log").open("wb") as log:
            self.process = subprocess.Popen([*command, str(folder / "redis.conf")], stdout=log, stderr=log)
        try:
            until(self._listens, f"{self.name} listens")
        except BaseException:
            self.close()
            raise

    def _certify(self, own_ca: bool) -> None:
        now = datetime.now(UTC)
        if own_ca:
            create_ca(self.folder, now)
        else:
            for file in ("ca.crt", "ca.key"):
                shutil.copy(self._cluster.path / "tls" / file, self.folder / file)
        ensure_issued(self.folder, {"node": (ADDRESS,)}, _CERTIFICATE_DAYS, now)

    def _configuration(self, text: str) -> str:
        changed = {
            "tls-port": self.port,
            "cluster-port": self.port + 1,
            "tls-ca-cert-file": self.folder / "ca.crt",
            "tls-cert-file": self.folder / "node.crt",
            "tls-key-file": self.folder / "node.key",
            "aclfile": self.folder / "users.acl",
            "dir": self.folder / "data",
        }
        for directive, value in changed.items():
            text, count = re.subn(rf"^{directive} .*$", f"{directive} {value}", text, flags=re.MULTILINE)
            assert count == 1, directive
        return text

    def _listens(self) -> bool:
        assert self.process.poll() is None, (self.folder / "log").read_text()
        return "Ready to accept connections" in (self.folder / "log").read_text()

    def client(self) -> Any:
        """redis-py to the node, as the cluster's operator."""
        return redis.Redis(
            host=ADDRESS, port=self.port, username="operator_user", decode_responses=True,
            password=self._cluster.passwords()["REDIS_REQUIREPASS"], ssl=True,
            ssl_ca_certs=str(self.folder / "ca.crt"), **AT_ONCE,
        )  # fmt: skip

    def ask(self, *command: str | int) -> Any:
        """What the node answers to a command."""
        with self.client() as client:
            return client.execute_command(*command)

    def is_blank(self) -> bool:
        """Whether the node knows nobody and holds nothing."""
        info = self.ask("CLUSTER INFO")
        return (info["cluster_known_nodes"], info["cluster_slots_assigned"], self.ask("DBSIZE")) == ("1", "0", 0)

    def close(self) -> None:
        """Stop it."""
        self.process.kill()
        self.process.wait()
