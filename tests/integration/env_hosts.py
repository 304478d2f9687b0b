"""Hosts for `redisforge deploy`: each is an address of this machine with a .env and a home of its own."""

from __future__ import annotations

import shutil
from pathlib import Path

from cluster_tool import Ports, Result, environment, kill, processes_of, run_command

ADDRESSES = [f"127.0.0.{number}" for number in range(41, 48)]
PASSWORD = "Xk29slQpW8zzAq"  # pragma: allowlist secret
NAMES = ("REDIS_REQUIREPASS", "REDIS_ACL_PASS", "REDIS_READONLY_PASS", "REDIS_MONITOR_PASS", "REDIS_REPLICATION_PASS")


class Hosts:
    """Seven hosts; the seventh is not in .env of the others."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.ports = folder, Ports()
        self.port, self.door = self.ports.first, self.ports.first + 100
        for address in ADDRESSES:
            (folder / address).mkdir()
            self.write(address)

    def write(self, address: str, **changes: str | None) -> None:
        """Write a host's .env: that of the convention, but for `changes`."""
        values: dict[str, str | None] = {
            "ENVIRONMENT": "production", "PROJECT_NAME": "shop", "REDIS_VERSION": "8.2",
            "REDIS_PORT": str(self.port), "REDIS_CLUSTER_BUS_PORT": str(self.port + 50),
            "REDIS_CLUSTER_ANNOUNCE_IP": address, "REDIS_CLUSTER_ANNOUNCE_PORT": str(self.port),
            **{f"REDIS_MASTER_{n}_HOST": ADDRESSES[n - 1] for n in (1, 2, 3)},
            **{name: f"{PASSWORD}{n}" for n, name in enumerate(NAMES)},
            "REDIS_ACL_USER": "app_user", "REDIS_MAXMEMORY": "64mb", "REDIS_CLUSTER_NODE_TIMEOUT": "2000",
            "ENVOY_VERSION": "v1.32-latest", "ENVOY_LISTENER_PORT": str(self.door),
            "ENVOY_ADMIN_PORT": str(self.ports.first + 110), "ENVOY_RETRY_ATTEMPTS": "3",
        }  # fmt: skip
        lines = [f"{name}={value}\n" for name, value in (values | changes).items() if value is not None]
        file = self.folder / address / ".env"
        file.write_text("".join(lines))
        file.chmod(0o600)

    def home(self, address: str) -> Path:
        """REDISFORGE_HOME of a host."""
        return self.folder / address / "home"

    def run(self, address: str, *arguments: str, **variables: str) -> Result:
        """Run `redisforge` on a host; whatever it says, it is no traceback and no password."""
        result = run_command(
            *arguments, folder=self.folder / address, variables=environment(self.home(address), **variables)
        )
        assert "Traceback" not in result.stderr, str(result)
        assert "defect" not in result.stderr, str(result)
        assert PASSWORD not in str(result)
        return result

    def done(self, address: str, *arguments: str, **variables: str) -> Result:
        """Run it; it must succeed."""
        result = self.run(address, *arguments, **variables)
        assert result.status == 0, str(result)
        return result

    def certify(self) -> None:
        """Step 1 of docs/deploy.md."""
        first = self.folder / ADDRESSES[0] / "config"
        names = [word for address in ADDRESSES for word in ("--san", address)]
        self.done(ADDRESSES[0], "generate-certs", "config/tls/prod", *names)
        (first / "tls/prod/ca.key").rename(self.folder / "ca.key")
        for address in ADDRESSES[1:]:
            shutil.copytree(first, self.folder / address / "config")

    def close(self) -> None:
        """Stop all."""
        for address in ADDRESSES:
            if (self.home(address) / "clusters/shop/topology.json").exists():
                self.done(address, "down", "--purge", "--yes", "--cluster", "shop")
        left = processes_of(self.folder)
        kill(*left)
        self.ports.close()
        assert not left, left
