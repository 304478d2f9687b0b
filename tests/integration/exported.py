"""An export of a declared topology, and what a test needs to run it without RedisForge."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
from collections.abc import Generator
from pathlib import Path
from typing import Any

import redis
import yaml
from cluster_tool import AT_ONCE, Ports, Result, environment, merged, run_command

from redisforge.fleet.binaries import cache_folder, ensure_engine, ensure_envoy
from redisforge.model.topology import Engine

HOSTS = {"a": "127.0.0.11", "b": "127.0.0.12", "c": "127.0.0.13"}
PASSWORDS = ("REDIS_REQUIREPASS", "REDIS_ACL_PASS", "REDIS_READONLY_PASS", "REDIS_MONITOR_PASS")


class Exported:
    """A declared topology, exported: on three hosts (addresses of this machine), unless told otherwise."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.folder, self.ports = folder, Ports()
        self.out, self.root = folder / "out", folder / "root of it"
        first = self.ports.first
        declaration = {
            "name": "shipped",
            "hosts": [{"name": n, "address": a, "zone": f"z{n}", "ssh": False} for n, a in HOSTS.items()],
            "ports": {"redis": first, "bus_offset": 50},
            "endpoints": {
                "primary": {"port": first + 100}, "primary-resp3": None, "reader": {"port": first + 101},
                "pubsub": {"port": first + 102},
            },
            "envoy": {"admin_port": first + 110},
            "memory": {"max": "64mb"},
            "node_timeout_ms": 1500,
        }  # fmt: skip
        (folder / "redisforge.yaml").write_text(yaml.safe_dump(merged(declaration, options)))
        cache = cache_folder(os.environ)
        self.engine = ensure_engine(Engine(), cache, print, os.environ)
        self.envoy = ensure_envoy(">=1.32", "", cache, print, os.environ)
        self.processes: list[subprocess.Popen[bytes]] = []

    def run(self, *arguments: str, **variables: str) -> Result:
        """Run `redisforge`; no secret of the export is ever shown."""
        result = run_command(*arguments, folder=self.folder, variables=environment(self.folder / "home", **variables))
        assert "Traceback" not in result.stderr, str(result)
        assert not any(secret in str(result) for secret in self.secrets().values())
        return result

    def export(self, kind: str, *options: str) -> Result:
        """`export` with the root and the programs of this test."""
        paths = ("--server-path", self.engine.server_path, "--envoy-path", self.envoy.path)
        return self.run("export", kind, str(self.out), "--root", str(self.root), *paths, *options)

    def secrets(self) -> dict[str, str]:
        """The passwords in operator/secrets.env by name."""
        file = self.out / "operator" / "secrets.env"
        if not file.exists():
            return {}
        pairs = (line.split("=", 1) for line in file.read_text().splitlines() if not line.startswith("#"))
        return {name: value.strip("'") for name, value in pairs if name in PASSWORDS}

    def place(self) -> None:
        """What install.sh does with the files; all three hosts are this machine."""
        for host in HOSTS:
            shutil.copytree(self.out / "hosts" / host / "files", self.root, dirs_exist_ok=True)

    @contextlib.contextmanager
    def door(self, address: str) -> Generator[redis.Redis]:
        """The primary endpoint over TLS, as the application's user."""
        with redis.Redis(
            host=address, port=self.ports.first + 100, username="app_user", password=self.secrets()["REDIS_ACL_PASS"],
            ssl=True, ssl_ca_certs=str(self.out / "operator" / "tls" / "ca.crt"), protocol=2, **AT_ONCE,
        ) as client:  # fmt: skip
            yield client

    def serves(self, address: str) -> bool:
        """Whether keys can be written and read through the primary endpoint, in every shard."""
        try:
            with self.door(address) as door:
                return all(door.set(f"key:{n}", n) and door.get(f"key:{n}") == str(n).encode() for n in range(40))
        except redis.RedisError:
            return False

    def start(self) -> None:
        """Start every ExecStart line in its WorkingDirectory."""
        for unit in sorted(self.out.glob("hosts/*/systemd/*.service")):
            lines = dict(line.split("=", 1) for line in unit.read_text().splitlines() if "=" in line)
            argv = [word.replace("%%", "%").replace("$$", "$") for word in shlex.split(lines["ExecStart"])]
            folder = lines["WorkingDirectory"].replace("%%", "%")
            with (self.folder / f"{unit.stem}.log").open("wb") as log:
                self.processes.append(subprocess.Popen(argv, cwd=folder, stdout=log, stderr=log))

    def close(self) -> None:
        """Stop all."""
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait(20)
        self.ports.close()
