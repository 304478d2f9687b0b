"""What can be wrong with hosts over SSH: which host, what, the cure; and the others are left alone or looked after."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from ssh_fleet import Fleet

from ssh_server import SshServer, new_key

pytestmark = pytest.mark.integration

CONFIG = 3
HOST = 7
UNREACHABLE = 16
HOST_KEY = 17
UNHEALTHY = 13


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Hosts on which nothing runs: every test leaves them like that, but for programs."""
    made = Fleet(tmp_path_factory.mktemp("ssh-bad-input"))
    try:
        yield made
    finally:
        made.close()


def left_on(fleet: Fleet, *names: str) -> list[str]:
    """What is on the hosts, but for programs and locks."""
    folders = [fleet.folder_of(name) / "clusters" for name in names]
    return [str(path) for folder in folders for path in folder.rglob("*") if path.is_file()]


def refused(fleet: Fleet, *arguments: str) -> str:
    """What a first `up` says that cannot reach most hosts, or a host that it needs; nothing was started anywhere."""
    result = fleet.cluster.run(*(arguments or ("up",)))
    assert result.status in (UNREACHABLE, HOST_KEY, HOST), str(result)
    assert left_on(fleet, *fleet.servers) == []
    return result.stderr


def said_of(fleet: Fleet, host: str) -> str:
    """What `host check` says of one host; it looks at the others all the same."""
    result = fleet.cluster.run("host", "check", "--json")
    assert result.status == UNHEALTHY, str(result)
    report = result.json()
    assert sorted(name for name, facts in report["facts"].items() if facts) == sorted(set(fleet.servers) - {host})
    return next(f"{check['what']}\n{check['cure']}" for check in report["checks"] if check["host"] == host)


def test_ports_that_strangers_have_on_other_hosts_are_all_named_before_anything_starts(fleet: Fleet) -> None:
    port = fleet.cluster.ports.first
    with socket.create_server(("127.0.0.12", port)), socket.create_server(("127.0.0.13", port + 50)):
        results = [fleet.cluster.run("up", "--dry-run"), fleet.cluster.run("up")]
    for result in results:
        assert result.status == HOST, str(result)
        assert f"127.0.0.12:{port}: in use by process" in result.stderr
        assert f"127.0.0.13:{port + 50}: in use by process" in result.stderr
        assert "where: h2, h3" in result.stderr
    assert left_on(fleet, "h1", "h2", "h3") == []


def test_a_port_that_containers_may_not_have_is_named_before_anything_starts(fleet: Fleet) -> None:
    """Root, whom sshd lets in where root runs the tests, may listen on it; a container on its host's network never."""
    before = dict(fleet.cluster.options)
    hosts = [{**host, "runtime": "docker"} for host in before["hosts"]]
    try:
        fleet.cluster.declare(hosts=hosts, endpoints={"primary": {"port": 443}})
        denied = fleet.cluster.run("up", "--dry-run")
        checked = fleet.cluster.run("host", "check", "--json").json()
        fleet.cluster.declare(hosts=before["hosts"])
        processes = fleet.cluster.run("up", "--dry-run")
    finally:
        fleet.cluster.options = before
        fleet.cluster.declare()
    assert denied.status == HOST, str(denied)
    assert ":443: ports below 1024 are root's there" in denied.stderr
    assert "network: bridge" in denied.stderr
    low = [check["host"] for check in checked["checks"] if (check["name"], check["verdict"]) == ("low ports", "Fail")]
    assert f"where: {', '.join(low)}\n" in denied.stderr, low
    assert processes.status == (HOST if os.getuid() else 0), str(processes)
    assert left_on(fleet, "h1", "h2", "h3") == []


def test_a_host_that_is_down_is_named_and_nothing_is_half_raised(fleet: Fleet) -> None:
    fleet.servers["h2"].stop()
    try:
        assert "refuses the connection" in said_of(fleet, "h2")
        said = refused(fleet)
    finally:
        fleet.servers["h2"].start()
    assert "h2" in said
    assert "Does sshd run there" in said or "cannot be reached" in said


def test_a_key_that_the_host_does_not_accept(fleet: Fleet) -> None:
    accepted = fleet.servers["h2"].folder / "authorized_keys"
    before = accepted.read_bytes()
    accepted.write_bytes(new_key().export_public_key())
    try:
        assert "authorized_keys" in said_of(fleet, "h2")
        said = refused(fleet)
    finally:
        accepted.write_bytes(before)
    assert "refuses the login" in said
    assert "h2" in said


def test_a_host_with_another_key_than_the_known_one_is_never_spoken_to(fleet: Fleet) -> None:
    server = fleet.servers["h3"]
    old = server.host_key
    server.renew_host_key()
    new = server.host_key.get_fingerprint("sha256")
    try:
        assert f"redisforge host trust h3 --fingerprint {new}" in said_of(fleet, "h3")
        said = refused(fleet)
    finally:
        server.stop()
        server.host_key = old
        server.start()
    assert "is not the known one" in said
    assert new in said
    assert old.get_fingerprint("sha256") in said


def test_a_server_that_takes_passwords_only(fleet: Fleet, tmp_path: Path) -> None:
    """Nothing is typed there: what its sshd must allow is said."""
    server = SshServer(tmp_path / "passwords", "PubkeyAuthentication no", "PasswordAuthentication yes")
    known, hosts = fleet.cluster.home / "known_hosts", fleet.cluster.options["hosts"]
    trusted = known.read_text()
    known.write_text(trusted + server.known_hosts.read_text())
    fleet.cluster.declare(hosts=[hosts[0], hosts[1] | {"ssh_port": server.port}, hosts[2]])
    try:
        assert "PubkeyAuthentication yes" in said_of(fleet, "h2")
        assert "h2" in refused(fleet)
    finally:
        server.close()
        known.write_text(trusted)
        fleet.cluster.declare(hosts=hosts)


def test_two_hosts_that_are_one_machine_are_refused_by_the_declaration(fleet: Fleet) -> None:
    hosts = fleet.cluster.options["hosts"]
    way = {name: hosts[0][name] for name in ("ssh_address", "ssh_port", "folder")}
    fleet.cluster.declare(hosts=[hosts[0], hosts[1] | way, hosts[2] | {"address": hosts[0]["address"]}])
    result = fleet.cluster.run("up")
    fleet.cluster.declare(hosts=hosts)
    assert result.status == CONFIG, str(result)
    assert "h1 and h2 are reached at one SSH address" in result.stderr
    assert "h1 and h3 have one address" in result.stderr


@pytest.fixture
def small_disk(fleet: Fleet) -> Iterator[Path]:
    """What RedisForge has on h3, on a file system that the programs do not fit into."""
    folder = fleet.folder_of("h3")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    mount = ("mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder))
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a small file system")
    fleet.servers["h3"].stop()
    fleet.servers["h3"].start()  # a server sees the mounts that there were when it started
    yield folder
    fleet.servers["h3"].stop()
    subprocess.run(["umount", folder], check=True)
    fleet.servers["h3"].start()


def test_a_host_without_room_is_named_before_anything_starts(fleet: Fleet, small_disk: Path) -> None:
    said = refused(fleet)
    assert "where: h3" in said
    assert f"MB free in {small_disk}" in said
    assert "MB needed for" in said


def test_afterwards_the_same_hosts_take_the_cluster(fleet: Fleet) -> None:
    fleet.cluster.up()
    assert fleet.cluster.is_healthy()
