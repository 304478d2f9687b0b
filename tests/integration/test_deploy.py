"""`redisforge deploy`, host by host: each host is an address of this machine with a .env and a home of its own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster_tool import SLOT_COUNT, Ports, Result, environment, kill, processes_of, run_command, until

pytestmark = pytest.mark.integration

ADDRESSES = [f"127.0.0.{number}" for number in range(41, 48)]
PASSWORD = "Xk29slQpW8zzAq"
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


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    made = Hosts(tmp_path)
    yield made
    made.close()


def test_a_system_is_built_host_by_host(hosts: Hosts) -> None:
    hosts.certify()
    first, last = ADDRESSES[0], ADDRESSES[6]
    told = Result(1, "", "")
    for address in ADDRESSES[:6]:
        told = hosts.done(address, "deploy", "redis")
        assert f"redis-{hosts.port} started" in told.stdout
    again = hosts.done(first, "deploy", "redis")
    assert "runs already" in again.stdout

    line = next(line for line in told.stdout.splitlines() if "init-cluster" in line)  # as it was told on the sixth host
    words = line.split("init-cluster ")[1].split()
    named = ",".join(f"{address}:{hosts.port}" for address in ADDRESSES[:6])
    assert words[0].split(",")[:3] == named.split(",")[:3]
    formed = hosts.done(ADDRESSES[5], "init-cluster", named, *words[1:], REDIS_REQUIREPASS=f"{PASSWORD}0")
    assert "6 nodes, 3 masters" in formed.stdout

    member = hosts.done(first, "deploy", "redis", "--json").json()
    assert (member["done"], member["unit"]) == ("runs already", f"redis-{hosts.port}")
    report = hosts.done(first, "status", "--json").json()
    assert (report["cluster"]["state"], report["cluster"]["slots_ok"], len(report["nodes"])) == ("ok", SLOT_COUNT, 6)
    assert not report["problems"]

    envoy = hosts.done(first, "deploy", "envoy")
    assert f"at {first}:{hosts.door}" in envoy.stdout
    until(
        lambda: hosts.run(first, "test-cluster", first, str(hosts.door), REDIS_ACL_PASS=f"{PASSWORD}1").status == 0,
        "the endpoint passes its test",
    )

    blank = hosts.done(last, "deploy", "redis")
    assert f"redisforge scale add {last}:{hosts.port} --cluster shop" in blank.stdout
    hosts.done(first, "scale", "add", f"{last}:{hosts.port}", "--role", "master", "--cluster", "shop")
    report = hosts.done(first, "status", "--json").json()
    assert len([node for node in report["nodes"] if node["slot_count"] == 4096]) == 4
    hosts.done(first, "scale", "remove", f"{last}:{hosts.port}", "--yes", "--cluster", "shop")
    assert not hosts.done(first, "status", "--json").json()["problems"]

    hosts.done(first, "failover", f"redis-{hosts.port}", "--cluster", "shop")
    hosts.write(first, REDIS_IO_THREADS="2")
    changed = hosts.done(first, "deploy", "redis")
    assert f"redis-{hosts.port} restarted" in changed.stdout
    until(lambda: not hosts.done(first, "status", "--json").json()["problems"], "all is well again")


def test_bad_input_is_named_and_nothing_is_started(hosts: Hosts) -> None:
    here = ADDRESSES[0]
    file = hosts.folder / here / ".env"

    def refused(status: int, *words: str, role: str = "redis") -> None:
        result = hosts.run(here, "deploy", role)
        assert result.status == status, str(result)
        for word in words:
            assert word in result.stderr, str(result)
        assert not hosts.home(here).exists()

    refused(5, "config/tls/prod/server.crt is not there", f"--san {here}")
    hosts.certify()
    hosts.write(here, REDIS_ACL_PASS="CHANGE_ME_APP_PASSWORD_HERE")
    refused(4, "REDIS_ACL_PASS", "is a placeholder")
    hosts.write(here, REDIS_ACL_PASS=None, REDIS_MONITOR_PASS=None)
    refused(4, "REDIS_ACL_PASS", "REDIS_MONITOR_PASS", "is missing")
    hosts.write(here, REDIS_CLUSTER_ANNOUNCE_IP=None, REDIS_PORT="x")
    refused(3, "REDIS_CLUSTER_ANNOUNCE_IP", "REDIS_PORT")
    hosts.write(here, REDIS_CLUSTER_ANNOUNCE_IP="192.0.2.1")
    refused(3, "192.0.2.1 is not an address of this machine")
    hosts.write(here, REDIS_MASTER_2_HOST="no-such-host.invalid")
    refused(3, "REDIS_MASTER_2_HOST: no-such-host.invalid does not resolve", role="envoy")
    hosts.write(here, REDIS_MASTER_1_HOST=None)
    refused(3, "REDIS_MASTER_1_HOST", role="envoy")
    file.unlink()
    refused(3, "there is no .env")

    hosts.write(here, REDIS_CLUSTER_ANNOUNCE_IP="127.0.0.99")  # an address here, and not in the certificate
    other = hosts.run(here, "deploy", "redis")
    assert other.status == 5, str(other)
    assert "lack 127.0.0.99" in other.stderr
    hosts.write(here)
    certificate = hosts.folder / here / "config/tls/prod/server.crt"
    certificate.write_text("no certificate\n")
    garbled = hosts.run(here, "deploy", "redis")
    assert garbled.status == 5, str(garbled)
    assert "server.crt" in garbled.stderr
    assert not processes_of(hosts.folder)
    assert not list(hosts.home(here).glob("clusters/*"))
