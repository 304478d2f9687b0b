"""`redisforge export`: what it writes is started as its commands say, without RedisForge, and formed into a cluster."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster_tool import Cluster
from exported import HOSTS, Exported

from waiting import until

pytestmark = pytest.mark.integration


@pytest.fixture
def exported(tmp_path: Path) -> Iterator[Exported]:
    made = Exported(tmp_path)
    yield made
    made.close()


def listens(address: str, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((address, port)) == 0


def health_of(exported: Exported, service: dict[str, Any]) -> int:
    """Run a service's health check on this machine, as Docker would in the container."""
    command = [word.replace("$$", "$") for word in service["healthcheck"]["test"][1:]]
    path = f"{Path(exported.engine.cli_path).parent}:{os.environ['PATH']}"
    return subprocess.run(command, env={**os.environ, "PATH": path}, capture_output=True, check=False).returncode


def test_what_is_exported_is_started_formed_and_used(exported: Exported) -> None:
    assert exported.export("systemd").status == 0
    done = exported.export("compose", "--force")
    assert done.status == 0, str(done)
    assert not (exported.folder / "home").exists()
    composed = {host: yaml.safe_load((exported.out / "hosts" / host / "compose.yaml").read_text()) for host in HOSTS}
    services = {name: service for document in composed.values() for name, service in document["services"].items()}
    assert {name for name in services if name.startswith("redis-")} == {f"redis-{n}" for n in range(1, 7)}
    assert all(len([n for n in d["services"] if n.startswith("redis-")]) == 2 for d in composed.values())
    assert health_of(exported, services["redis-1"]) != 0  # nothing runs yet

    exported.place()
    exported.start()
    nodes = [(HOSTS[host], exported.ports.first + number) for host in HOSTS for number in (0, 1)]
    until(lambda: all(listens(*node) for node in nodes), "all nodes listen")
    tls = exported.out / "operator" / "tls"
    client = ("--cert-file", str(tls / "operator.crt"), "--key-file", str(tls / "operator.key"))
    readme = (exported.out / "README.md").read_text()
    named = next(line.split("init-cluster ")[1].rstrip(" \\") for line in readme.splitlines() if "init-cluster" in line)
    secrets = exported.secrets()
    formed = exported.run(
        "init-cluster", named, "--user", "operator_user", "--ca-file", str(tls / "ca.crt"), *client,
        REDIS_REQUIREPASS=secrets["REDIS_REQUIREPASS"],
    )  # fmt: skip
    assert formed.status == 0, str(formed)

    until(lambda: exported.serves("127.0.0.11"), "the primary endpoint serves every shard")
    assert {name: health_of(exported, service) for name, service in services.items()} == dict.fromkeys(services, 0)
    adopted = exported.run(
        "adopt", f"127.0.0.11:{exported.ports.first}", "--user", "operator_user", "--ca", str(tls / "ca.crt"),
        "--cert", str(tls / "operator.crt"), "--key", str(tls / "operator.key"), "--out", "adopted.yaml",
        REDIS_REQUIREPASS=secrets["REDIS_REQUIREPASS"],
    )  # fmt: skip
    assert adopted.status == 0, str(adopted)
    report = exported.run("status", "--json", "--cluster", "adopted").json()
    assert (report["cluster"]["state"], len(report["nodes"])) == ("ok", 6)


def test_the_readme_forms_the_cluster_with_the_engines_own_client(exported: Exported) -> None:
    """Its commands, at a shell; redis-cli shows what it would do and asks."""
    assert exported.export("systemd").status == 0
    exported.place()
    exported.start()
    nodes = [(HOSTS[host], exported.ports.first + number) for host in HOSTS for number in (0, 1)]
    until(lambda: all(listens(*node) for node in nodes), "all nodes listen")
    blocks = re.findall(r"(?:^ {4}.*\n)+", (exported.out / "README.md").read_text(), re.MULTILINE)
    typed = next(block for block in blocks if "redis-cli" in block)
    path = f"{Path(exported.engine.cli_path).parent}:{os.environ['PATH']}"
    formed = subprocess.run(
        ("sh", "-e", "-c", typed), cwd=exported.out, env={**os.environ, "PATH": path}, input="yes\n",
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    said = formed.stdout + formed.stderr
    assert not any(secret in said for secret in exported.secrets().values())
    assert formed.returncode == 0, said
    assert "All 16384 slots covered" in said
    until(lambda: exported.serves("127.0.0.11"), "the primary endpoint serves every shard")


def test_secrets_are_closed_and_kept(exported: Exported) -> None:
    assert exported.export("systemd").status == 0
    first = exported.secrets()
    for path in exported.out.rglob("*"):
        text = path.read_bytes() if path.is_file() else b""
        secret = any(value.encode() in text for value in first.values()) or b"PRIVATE KEY" in text
        assert not secret or path.stat().st_mode & 0o077 == 0, path
    assert exported.out.stat().st_mode & 0o077 == 0
    assert not list(exported.out.glob("hosts/*/files/**/ca.key"))
    own = [path.stem for path in exported.out.glob("hosts/a/files/tls/*.key")]
    assert len(own) == 3  # its two nodes and the Envoy: no key of another host
    refused = exported.export("systemd")
    assert refused.status == 9, str(refused)
    assert exported.export("systemd", "--force").status == 0
    assert exported.secrets() == first
    (exported.folder / "full").mkdir()
    (exported.folder / "full" / "mine").write_text("mine")
    other = exported.run("export", "compose", str(exported.folder / "full"), "--force")
    assert other.status == 9, str(other)
    assert [path.name for path in (exported.folder / "full").iterdir()] == ["mine"]
    assert exported.run("export", "compose", "new", "--root", "relative").status == 2


def test_a_raised_cluster_keeps_its_passwords_and_its_ca(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path / "raised")
    try:
        cluster.up()
        done = cluster.run("export", "systemd", "out")
        assert done.status == 0, str(done)
        out = cluster.folder / "out"
        kept = (out / "operator" / "secrets.env").read_text()
        assert all(password in kept for password in cluster.passwords().values())
        for name in ("ca.crt", "redis-1.crt"):
            assert (out / "hosts/local/files/tls" / name).read_text() == (cluster.path / "tls" / name).read_text()
        assert cluster.is_healthy()
    finally:
        cluster.close()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze")
def test_systemd_takes_the_units(exported: Exported) -> None:
    assert exported.export("systemd").status == 0
    exported.place()
    units = sorted(map(str, exported.out.glob("hosts/*/systemd/*.service")))
    assert len(units) == 7
    checked = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    assert not [line for line in checked.stderr.splitlines() if "redisforge" in line], checked.stderr
    rated = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--threshold=30", units[0]],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert rated.returncode == 0, rated.stdout[-400:]
