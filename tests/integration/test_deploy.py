"""`redisforge deploy`, host by host: each host is an address of this machine with a .env and a home of its own."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster_tool import SLOT_COUNT, Result, processes_of
from env_hosts import ADDRESSES, PASSWORD, Hosts

from redisforge.errors import LockedError
from redisforge.fleet.lock import cluster_lock
from waiting import until

pytestmark = pytest.mark.integration


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


def state_of(folder: Path) -> tuple[dict[str, tuple[int, int]], set[int]]:
    """Every file and folder with its size and the time of its last change (ns), and the processes that run there."""
    files = {str(path): (path.lstat().st_size, path.lstat().st_mtime_ns) for path in folder.rglob("*")}
    growing = ("log", "state.json", "data")  # what keepers and nodes write by themselves
    still = {path: told for path, told in files.items() if not any(part in growing for part in Path(path).parts)}
    return still, set(processes_of(folder))


def test_a_dry_run_changes_nothing_and_names_what_deploy_then_does(hosts: Hosts) -> None:
    hosts.certify()
    here, unit = ADDRESSES[0], f"redis-{hosts.port}"

    def planned(*words: str) -> dict[str, Any]:
        before = state_of(hosts.folder)
        plan = hosts.done(here, "deploy", *words, "--dry-run", "--json").json()
        assert state_of(hosts.folder) == before
        done = hosts.done(here, "deploy", *words, "--json").json()
        assert (done["done"], done["unit"]) == (plan["outcome"], plan["unit"])
        assert (done["address"], done["port"]) == (plan["address"], plan["port"])
        assert done["version"] in [program["version"] for program in plan["programs"]]
        return plan

    first = planned("redis")
    assert [step["step"] for phase in first["phases"] for step in phase["steps"]] == ["start_unit"]
    assert planned("redis")["phases"] == []
    hosts.write(here, REDIS_IO_THREADS="2")
    assert [phase["title"] for phase in planned("redis")["phases"]] == [f"restart {unit}"]
    assert [phase["title"] for phase in planned("envoy")["phases"]] == ["start envoy-1"]
    assert "Nothing to do" in hosts.done(here, "deploy", "envoy", "--dry-run").stdout
    other = hosts.run(here, "deploy", "redis", "--dry-run", REDIS_ACL_PASS="qV7tRm2xLw9Zk4")  # pragma: allowlist secret
    assert other.status == 4, str(other)
    assert "a rotation" in other.stderr


def test_a_dry_run_names_who_holds_the_lock(hosts: Hosts) -> None:
    hosts.certify()
    here = ADDRESSES[0]
    with cluster_lock(hosts.home(here) / "clusters/shop/lock", "rebalance") as holder:
        planned = hosts.done(here, "deploy", "redis", "--dry-run")
        real = hosts.run(here, "deploy", "redis")
    assert f"note: {holder} holds the cluster's lock; until it has ended, `deploy` is refused" in planned.stdout
    assert (real.status, str(holder) in real.stderr) == (LockedError.exit_status, True), str(real)
    assert "holds the cluster's lock" not in hosts.done(here, "deploy", "redis", "--dry-run").stdout


def test_a_dry_run_ends_as_deploy_would_where_the_port_is_taken(hosts: Hosts) -> None:
    hosts.certify()
    here = ADDRESSES[0]
    with socket.create_server((ADDRESSES[1], hosts.port)), socket.create_server((here, hosts.port)):
        planned = hosts.run(here, "deploy", "redis", "--dry-run")
        assert not hosts.home(here).exists()
        done = hosts.run(here, "deploy", "redis")
    assert planned.status == done.status == 7
    assert planned.stderr == done.stderr
    assert f"redis-{hosts.port} needs {here}:{hosts.port}: in use by process {os.getpid()} " in planned.stderr
    assert "REDIS_PORT" in planned.stderr.partition("next")[2]
    assert "redisforge.yaml" not in planned.stderr


def test_bad_input_is_named_and_nothing_is_started(hosts: Hosts) -> None:
    here = ADDRESSES[0]
    file = hosts.folder / here / ".env"

    def refused(status: int, *words: str, role: str = "redis") -> None:
        home = hosts.home(here)
        existed = home.exists()
        planned = hosts.run(here, "deploy", role, "--dry-run")
        assert home.exists() == existed
        for result in (planned, hosts.run(here, "deploy", role)):
            assert result.status == status, str(result)
            for word in words:
                assert word in result.stderr, str(result)
            assert not list(home.glob("clusters/*"))

    refused(5, "config/tls/prod/server.crt is not there", f"--san {here}")
    hosts.certify()
    hosts.write(here, REDIS_ACL_PASS="CHANGE_ME_APP_PASSWORD_HERE")
    refused(4, "REDIS_ACL_PASS", "is a placeholder")
    hosts.write(here, REDIS_ACL_PASS=None, REDIS_MONITOR_PASS=None)
    refused(4, "REDIS_ACL_PASS", "REDIS_MONITOR_PASS", "is missing")
    hosts.write(here, REDIS_ACL_PASS=None, REDIS_MONITOR_PASS="CHANGE_ME", REDIS_READONLY_PASS="short")
    refused(
        4, "3 passwords", "ACL_PASS: is missing", "MONITOR_PASS: is a placeholder", "READONLY_PASS: has 5 characters"
    )
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
    refused(5, "lack 127.0.0.99")
    hosts.write(here)
    certificate = hosts.folder / here / "config/tls/prod/server.crt"
    certificate.write_text("no certificate\n")
    refused(5, "server.crt")
    assert not processes_of(hosts.folder)
    assert not list(hosts.home(here).glob("clusters/*"))
