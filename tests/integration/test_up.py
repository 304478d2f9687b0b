"""`redisforge up` on a bare folder, and again: what it prints, what it leaves, what it keeps to itself."""

from __future__ import annotations

import json
import os
import random
import re
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
import redis
import yaml
from cluster_tool import (
    ADDRESS,
    AT_ONCE,
    COMMAND_LIMIT_S,
    NODE_NAMES,
    PASSWORD_NAMES,
    SLOT_COUNT,
    Cluster,
    environment,
    is_taken,
    run_command,
)

from conftest import MakeCluster

pytestmark = pytest.mark.integration

ENDPOINTS = ("primary", "primary-resp3", "reader", "pubsub")
SECRET_FILES = {"secrets.env", "redis.conf", "monitor.password"}
"""The files that have to hold a password; Envoy's are found by their mode alone."""
LISTEN = "0A"
"""The state of a listening socket in /proc/net/tcp (include/net/tcp_states.h)."""


def lines_of(file: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_the_first_up_ends_healthy_and_says_how_to_connect(shared: Cluster) -> None:
    printed = shared.transcript[0].stdout

    assert shared.is_healthy()
    assert "up in" in printed
    assert "checks passed" in printed
    assert str(shared.path / "tls" / "ca.crt") in printed
    for number, name in enumerate(ENDPOINTS):
        assert re.search(rf"{name} +rediss://\w+:PASSWORD@{ADDRESS}:{shared.ports.first + 100 + number}/", printed)
    assert "redis-cli" in printed
    assert "redis-py" in printed


def test_the_printed_command_lines_work_as_they_are(shared: Cluster, tmp_path: Path) -> None:
    program = tmp_path / "bin" / "redisforge"  # as pip would install it
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\nfrom redisforge.cli.main import main\nmain()\n")
    program.chmod(0o755)
    path = f"{program.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    variables = environment(shared.home, PATH=path)

    def run(line: str) -> str:
        shell = ("sh", "-c", f"cd {shared.folder} && {line}")
        ended = subprocess.run(shell, env=variables, text=True, capture_output=True, timeout=60, check=False)
        assert ended.returncode == 0, f"{line}\n{ended.stdout}{ended.stderr}"
        return ended.stdout

    lines = run("redisforge up").splitlines()
    redis_cli = next(line for line in lines if " cli --cluster" in line and "PASSWORD" not in line)
    redis_py = next(line for line in lines if "python3 -c" in line)
    status = next(line for line in lines if " status --cluster" in line).partition(":")[2].strip().partition("   ")[0]

    assert run(f"{redis_cli} PING").strip() == "PONG"
    assert run(redis_py).strip() == "True"
    assert "16384 of 16384" in run(status)


def test_every_gate_left_its_line_in_the_journal(shared: Cluster) -> None:
    lines = lines_of(shared.path / "journal.jsonl")

    assert [lines[0]["event"], lines[0]["verb"]] == ["begin", "up"]
    assert {line["result"] for line in lines if line["event"] in ("step", "phase", "end")} == {"ok"}
    steps = [line["what"] for line in lines if line["event"] == "step"]
    assert sum(step.startswith("start ") for step in steps) == len(NODE_NAMES) + 1
    assert sum("ADDSLOTSRANGE" in step for step in steps) == 3


def test_no_password_is_printed_or_in_any_process_or_file_that_others_read(shared: Cluster) -> None:
    """Nor by any command that another test gave; but for `url`, which is asked for it."""
    passwords = shared.passwords()
    assert set(passwords) == set(PASSWORD_NAMES)
    for command in ("up", "up --json", "status", "status --json", "logs", "config show", "cli PING", "url nowhere"):
        shared.run(*command.split())
    assert passwords["REDIS_ACL_PASS"] in shared.run("url").stdout, "a password that is printed is found"
    for result in shared.transcript:
        told = [name for name, password in passwords.items() if password in result.shown]
        assert not told, f"`redisforge {' '.join(result.arguments)}` shows {told}"
    processes = " ".join(shared.processes().values())
    assert processes
    assert not [name for name, password in passwords.items() if password in processes], "in a command line"
    for file in (path for path in shared.home.rglob("*") if path.is_file()):
        text = file.read_text(errors="replace")
        if file.name in SECRET_FILES or any(password in text for password in passwords.values()):
            assert file.stat().st_mode & 0o777 == 0o600, f"{file} can be read by others"
        if file.name in {"journal.jsonl", "topology.json", "unit.json", "state.json", "log", "users.acl"}:
            assert not [name for name, password in passwords.items() if password in text], f"a password is in {file}"


def test_private_keys_and_folders_are_closed_to_others(shared: Cluster) -> None:
    keys = list((shared.path / "tls").glob("*.key"))

    assert len(keys) == len(NODE_NAMES) + 3  # Envoy, the operator, the CA
    assert {key.stat().st_mode & 0o777 for key in keys} == {0o600}
    assert shared.path.stat().st_mode & 0o777 == 0o700


def test_every_port_speaks_tls_and_no_plain_text(shared: Cluster) -> None:
    first = shared.ports.first
    ports = [*range(first, first + 6), *range(first + 50, first + 56), *range(first + 100, first + 104)]
    context = ssl.create_default_context(cafile=str(shared.path / "tls" / "ca.crt"))

    for port in ports:
        with socket.create_connection((ADDRESS, port), 5) as plain:
            plain.sendall(b"PING\r\n")
            try:
                answer = plain.recv(64)
            except ConnectionResetError:
                answer = b""
        assert b"PONG" not in answer, f"port {port} answers plain text"
        assert not answer or answer[0] == 0x15, f"port {port} answers {answer!r}, which is no TLS alert"
        with (
            socket.create_connection((ADDRESS, port), 5) as plain,
            context.wrap_socket(plain, server_hostname=ADDRESS) as stream,
        ):
            assert (stream.version() or "") >= "TLSv1.2"


def test_nothing_listens_beyond_loopback(shared: Cluster) -> None:
    """Envoy's admin interface above all: it has no password."""
    own = {str(link.readlink()) for pid in shared.processes() for link in Path(f"/proc/{pid}/fd").iterdir()}
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    listening = [row[1] for row in rows if row[3] == LISTEN and f"socket:[{row[9]}]" in own]
    rows6 = [line.split() for line in Path("/proc/net/tcp6").read_text().splitlines()[1:]]

    assert {address.partition(":")[0] for address in listening} == {"0100007F"}  # 127.0.0.1 in the kernel's order
    assert f"0100007F:{shared.ports.first + 110:04X}" in listening
    assert not [row for row in rows6 if row[3] == LISTEN and f"socket:[{row[9]}]" in own]


def test_the_default_user_is_off_everywhere(shared: Cluster) -> None:
    ca = str(shared.path / "tls" / "ca.crt")
    for name in NODE_NAMES:
        with shared.node_client(name) as client:
            assert next(line for line in client.acl_list() if line.startswith("user default ")).split()[2] == "off"
    for port in (shared.ports.first, shared.ports.first + 100):
        client = redis.Redis(host=ADDRESS, port=port, ssl=True, ssl_ca_certs=ca, protocol=2, **AT_ONCE)
        with client as anonymous, pytest.raises(redis.RedisError, match=r"(?i)auth"):
            anonymous.ping()  # pyright: ignore[reportUnknownMemberType]


def test_an_up_whose_output_nobody_reads_comes_to_its_end(make_cluster: MakeCluster) -> None:
    """`redisforge up 2>&1 | head -1`"""
    cluster = make_cluster()
    with cluster.start("up") as raising:
        assert raising.stdout
        assert raising.stderr
        assert raising.stderr.readline()
        raising.stderr.close()
        raising.stdout.close()
        assert raising.wait(COMMAND_LIMIT_S) == 0
    assert cluster.is_healthy()
    assert cluster.up() == []


def test_a_second_up_changes_nothing_and_says_so(shared: Cluster) -> None:
    pids, ids = shared.pids(), {name: node["id"] for name, node in shared.nodes().items()}
    events = len(lines_of(shared.path / "journal.jsonl"))

    result = shared.run("up")

    assert result.status == 0, str(result)
    assert "already as declared, nothing changed" in result.stdout
    assert shared.pids() == pids
    assert {name: node["id"] for name, node in shared.nodes().items()} == ids
    assert [line["event"] for line in lines_of(shared.path / "journal.jsonl")[events:]] == ["begin", "end"]


def test_a_second_up_as_json_reports_no_phase(shared: Cluster) -> None:
    result = shared.run("up", "--json")

    assert result.status == 0, str(result)
    report = result.json()
    assert report["phases"] == []
    assert report["smoke"]["passed"] is True
    assert report["seconds"] > 0


def test_a_dry_run_before_prints_the_plan_and_creates_nothing(make_cluster: MakeCluster) -> None:
    cluster = make_cluster()

    text, document = cluster.run("up", "--dry-run"), cluster.run("up", "--dry-run", "--json")

    assert (text.status, document.status) == (0, 0), f"{text}{document}"
    assert "start redis-1" in text.stdout
    assert "CLUSTER ADDSLOTSRANGE" in text.stdout
    steps = [step for phase in document.json()["phases"] for step in phase["steps"]]
    assert sum(step["step"] == "start_unit" for step in steps) == len(NODE_NAMES) + 1
    assert sum(step["step"] == "replicate" for step in steps) == 3
    assert not cluster.home.exists()
    assert not any(is_taken(port) for port in range(cluster.ports.first, cluster.ports.first + 120))


def test_a_dry_run_after_finds_nothing_to_do(shared: Cluster) -> None:
    before = (shared.pids(), (shared.path / "journal.jsonl").read_text())

    result = shared.run("up", "--dry-run")

    assert result.status == 0, str(result)
    assert "Nothing to do" in result.stdout
    assert (shared.pids(), (shared.path / "journal.jsonl").read_text()) == before
    assert shared.run("up", "--dry-run", "--json").json() == {"phases": [], "records": False}


def first_port() -> int:
    """A port for `init --first-port` whose whole layout (defaults moved along) is free."""
    for first in random.sample(range(12000, 19000), 200):
        offsets = (*range(-621, -617), *range(6), 2900, *range(10000, 10006))
        if not any(is_taken(first + offset) for offset in offsets):
            return first
    raise AssertionError("no room for the default layout of ports")


def test_init_then_up_with_the_passwords_of_its_env_file(tmp_path: Path, make_cluster: MakeCluster) -> None:
    folder, home = tmp_path / "project", tmp_path / "project-home"
    variables = environment(home)
    made = run_command(
        "init", str(folder), "--name", "made", "--first-port", str(first_port()), folder=tmp_path, variables=variables
    )
    assert made.status == 0, str(made)
    cluster = make_cluster("made", home=home)  # for its clean-up; the declaration used is the one that init wrote
    declared = yaml.safe_load((folder / "redisforge.yaml").read_text())

    result = run_command("up", folder=folder, variables=variables)

    assert result.status == 0, str(result)
    assert declared["name"] == "made"
    given = dict(line.split("=", 1) for line in (folder / ".env").read_text().splitlines() if not line.startswith("#"))
    assert cluster.passwords() == given
    assert cluster.status()["cluster"] == {
        "name": "made", "state": "ok", "slots_ok": SLOT_COUNT, "engine": "redis 8.6.3",
        "envoy": cluster.status()["cluster"]["envoy"],
        "maintenance": [], "changed_by": "", "cut_off": "",
    }  # fmt: skip
    for password in given.values():
        assert password not in result.stdout + result.stderr
