"""Bad input: a clear error with its exit status, and nothing started or left behind."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cluster_tool import ADDRESS, Cluster, Result, environment, processes_of, run_command

from conftest import MakeCluster
from redisforge.fleet.binaries import EngineBinary, cache_folder, ensure_engine
from redisforge.model.topology import Engine
from redisforge.security.certificates import ensure_issued

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def engine() -> EngineBinary:
    return ensure_engine(Engine(), cache_folder(os.environ), print, os.environ)


@pytest.fixture
def cluster(make_cluster: MakeCluster) -> Iterator[Cluster]:
    """A declared cluster; whatever `up` said of it, it must leave neither process nor folder."""
    declared = make_cluster()
    yield declared
    assert not processes_of(declared.home)
    assert not declared.path.exists()


def refused(cluster: Cluster, status: int, *words: str, **variables: str) -> Result:
    """Run `up`, which must end with `status` and say all of `words`, in errors' own form and without a traceback."""
    result = cluster.run("up", **variables)
    assert result.status == status, str(result)
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    for word in words:
        assert word in result.stderr, f"{word!r} is not in:\n{result.stderr}"
    return result


def program(path: Path, script: str) -> Path:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


# --- ports ---


@pytest.mark.parametrize("offset", [2, 53, 101, 110], ids=["node", "bus", "endpoint", "admin"])
def test_a_port_in_use_by_a_stranger_is_named_with_it(cluster: Cluster, offset: int) -> None:
    port = cluster.ports.first + offset
    with socket.create_server((ADDRESS, port)):
        refused(cluster, 7, f"{ADDRESS}:{port}: in use by process {os.getpid()}", "next:")


# --- passwords ---


@pytest.mark.parametrize(
    ("password", "why"), [("Password-123", "is made of common words"), ("short", "fewer than 12"), ("", "is empty")]
)
def test_a_weak_password_is_refused_with_its_line_and_never_shown(cluster: Cluster, password: str, why: str) -> None:
    (cluster.folder / ".env").write_text(f"# passwords\nREDIS_ACL_PASS={password}\n")
    (cluster.folder / ".env").chmod(0o600)

    from_file = refused(cluster, 4, ".env:2", "REDIS_ACL_PASS", why)
    (cluster.folder / ".env").unlink()
    from_environment = refused(cluster, 4, "environment", "REDIS_MONITOR_PASS", why, REDIS_MONITOR_PASS=password)

    if password:
        assert password not in from_file.stderr + from_environment.stderr


def test_a_changed_password_of_a_running_cluster_is_refused_and_changes_nothing(shared: Cluster) -> None:
    pids = shared.pids()

    result = shared.run("up", REDIS_ACL_PASS="An0ther-g00d-one-Zx81")

    assert result.status == 4, str(result)
    assert "app_user" in result.stderr
    assert "rotation" in result.stderr
    assert "Zx81" not in result.stderr
    assert shared.pids() == pids


# --- certificates ---


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """A CA and certificates: `good`, `other`, and in folder `old` what expired more than a year ago."""
    folder, now = tmp_path / "certificates", datetime.now(UTC)
    ensure_issued(folder, {"good": (ADDRESS,), "other": (ADDRESS,)}, 30, now)
    ensure_issued(folder / "old", {"good": (ADDRESS,)}, 30, now - timedelta(days=400))
    (folder / "garbage.key").write_text("no key\n")
    (folder / "folder.key").mkdir()
    return folder


@pytest.mark.parametrize(
    ("ca", "certificate", "key", "words"),
    [
        ("old/ca.crt", "old/good.crt", "old/good.key", ("expired", "old/good.crt")),
        ("ca.crt", "good.crt", "other.key", ("the key does not belong to the certificate", "other.key")),
        ("ca.crt", "good.crt", "garbage.key", ("private key cannot be used", "garbage.key")),
        ("ca.crt", "good.crt", "folder.key", ("private key cannot be read", "folder.key")),
        ("ca.crt", "missing.crt", "good.key", ("certificate cannot be read", "missing.crt")),
        ("old/ca.crt", "good.crt", "good.key", ("not signed by the CA", "good.crt")),
    ],
)
def test_unusable_certificates_are_refused(
    cluster: Cluster, certificates: Path, ca: str, certificate: str, key: str, words: tuple[str, ...]
) -> None:
    paths = {"ca_file": ca, "cert_file": certificate, "key_file": key}
    cluster.declare(tls={name: str(certificates / path) for name, path in paths.items()})

    refused(cluster, 5, *words)


def test_a_certificate_that_does_not_cover_the_nodes_addresses_is_refused(cluster: Cluster, certificates: Path) -> None:
    """Nodes would start with it and then be refused by everybody who connects."""
    paths = {"ca_file": "ca.crt", "cert_file": "good.crt", "key_file": "good.key"}
    hosts = [{"name": f"host-{number}", "address": f"127.0.0.{number}"} for number in (21, 22, 23)]
    cluster.declare(hosts=hosts, tls={name: str(certificates / path) for name, path in paths.items()})

    refused(cluster, 5, str(certificates / "good.crt"), "lack 127.0.0.21, 127.0.0.22, 127.0.0.23")


def test_own_certificates_that_fit_are_used(make_cluster: MakeCluster, certificates: Path) -> None:
    cluster = make_cluster()
    paths = {"ca_file": "ca.crt", "cert_file": "good.crt", "key_file": "good.key"}
    cluster.declare(tls={name: str(certificates / path) for name, path in paths.items()})

    cluster.up()

    assert (cluster.path / "tls" / "ca.crt").read_bytes() == (certificates / "ca.crt").read_bytes()
    assert cluster.is_healthy()


# --- programs ---


def test_an_engine_that_is_missing_not_executable_or_of_a_wrong_version_is_refused(
    cluster: Cluster, tmp_path: Path
) -> None:
    flat = tmp_path / "flat-redis-server"
    flat.write_text("not a program\n")
    version = 'echo "Redis server v=6.2.14 sha=00000000:0 malloc=libc bits=64"'
    answer = """echo "argument couldn't be parsed into an integer"; exit 1"""  # to the question whether it has TLS
    old = program(tmp_path / "old-redis-server", f'case "$1" in -) {answer};; *) {version};; esac')
    silent = program(tmp_path / "silent-redis-server", "exit 3")

    for path, why in (
        (tmp_path / "nowhere", "does not exist"),
        (flat, "is not executable"),
        (silent, "--version"),
        (old, "is redis 6.2.14, and >=8.2 is asked for"),
    ):
        cluster.declare(engine={"version": ">=8.2", "server_path": str(path)})
        refused(cluster, 6, str(path), why)


def test_an_envoy_that_is_none_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    cluster.declare(envoy={"path": str(program(tmp_path / "envoy", "echo I am no proxy"))})

    refused(cluster, 6, str(tmp_path / "envoy"), "I am no proxy")


def test_an_engine_that_dies_at_its_start_is_shown_with_its_last_words_and_taken_back(
    cluster: Cluster, engine: EngineBinary, tmp_path: Path
) -> None:
    """It passes every check before; what was started is stopped and deleted again."""
    script = f'case "$1" in */units/*) echo "no luck today"; exit 3;; esac; exec {engine.server_path} "$@"'
    cluster.declare(engine={"server_path": str(program(tmp_path / "redis-server", script))})

    refused(cluster, 11, "does not stay up: exited with status 3", "no luck today")


# --- redisforge.yaml ---


@pytest.mark.parametrize("by_path", [False, True])
def test_a_directive_that_only_a_newer_engine_knows_is_refused(cluster: Cluster, by_path: bool) -> None:
    """By the table of the version that is asked for; a version that is left open, by the engine itself."""
    old = ensure_engine(Engine(version="7.0"), cache_folder(os.environ), print, os.environ)
    by_itself = {"version": ">=7.0", "server_path": old.server_path}
    cluster.declare(engine=by_itself if by_path else {"version": "7.0"}, redis_conf={"lookahead": 16})

    refused(cluster, 3, "lookahead", "Bad directive" if by_path else "is not a directive of redis 7.0")


def test_an_unknown_directive_is_refused_with_its_line(cluster: Cluster) -> None:
    cluster.declare(redis_conf={"hz": 20, "hash-max-listpack-entriez": 12})
    lines = (cluster.folder / "redisforge.yaml").read_text().splitlines()
    number = next(number for number, line in enumerate(lines, 1) if "entriez" in line)

    refused(cluster, 3, f"redisforge.yaml:{number}", "hash-max-listpack-entriez")


def test_a_bad_value_of_a_directive_is_refused_in_the_engines_own_words(cluster: Cluster) -> None:
    cluster.declare(redis_conf={"hash-max-listpack-entries": "many"})

    refused(cluster, 3, "hash-max-listpack-entries many", "argument")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"shardz": 3}, ("shardz", "shards")),
        ({"shards": "three"}, ("shards", "three")),
        ({"shards": 2}, ("shards",)),
        ({"node_timeout_ms": 10}, ("node_timeout_ms",)),
        ({"ports": {"redis": 60000, "bus_offset": 10000}}, ("above 65535", "bus_offset")),
        ({"hosts": [{"name": "one", "address": "127.0.0.1"}]}, ("need 2 hosts, and there are 1", "allow_shared_hosts")),
        ({"redis_conf": {"port": 7}}, ("port", "written by RedisForge itself")),
        ({"engine": {"version": "6.0"}}, ("older than 7.0",)),
    ],
)
def test_a_mistake_in_the_file_is_refused_with_its_line(
    cluster: Cluster, options: Mapping[str, Any], words: tuple[str, ...]
) -> None:
    cluster.declare(**options)

    refused(cluster, 3, "redisforge.yaml:", *words)


def test_ports_that_clash_with_each_other_are_refused(cluster: Cluster) -> None:
    cluster.declare(envoy={"admin_port": cluster.ports.first + 3})

    refused(cluster, 3, f"port {cluster.ports.first + 3} on {ADDRESS} is wanted twice", "redis-4", "admin interface")


def test_several_mistakes_are_shown_at_once(cluster: Cluster) -> None:
    cluster.declare(shardz=3, replicas="one", memory={"max": "2mb"}, log_level="loud")

    result = refused(cluster, 3, "shardz", "replicas", "memory.max", "log_level")

    assert result.stderr.count("redisforge.yaml:") >= 4
    assert cluster.run("up", "--dry-run")[::2] == result[::2]


@pytest.mark.parametrize(
    ("content", "word"), [(b"{shards: [", "redisforge.yaml:"), (b"", "is empty"), (b"\xff\xfe\x00", "redisforge.yaml")]
)
def test_a_file_that_is_no_yaml_is_refused(cluster: Cluster, content: bytes, word: str) -> None:
    (cluster.folder / "redisforge.yaml").write_bytes(content)

    refused(cluster, 3, word)


def test_a_folder_or_nothing_instead_of_the_file_is_refused(cluster: Cluster) -> None:
    (cluster.folder / "redisforge.yaml").unlink()
    (cluster.folder / "redisforge.yaml").mkdir()

    refused(cluster, 3, "redisforge.yaml", "not a file")
    (cluster.folder / "redisforge.yaml").rmdir()
    os.mkfifo(cluster.folder / "redisforge.yaml")
    refused(cluster, 3, "redisforge.yaml", "is not a regular file")  # and does not wait for somebody to write
    missing = cluster.run("up", "--config", "elsewhere.yaml")
    assert missing.status == 3, str(missing)
    assert "elsewhere.yaml" in missing.stderr
    assert "does not exist" in missing.stderr


def test_an_unknown_option_or_command_is_a_usage_error(cluster: Cluster) -> None:
    assert cluster.run("up", "--fast").status == 2
    assert cluster.run("upp").status == 2
    assert cluster.run("down", "--cluster", "none").status == 14


@pytest.mark.parametrize("text", ["{name: other}", "name : other", "name:\n  other", "name: other_one", "name: Other"])
def test_a_file_that_names_another_cluster_never_selects_the_only_one(
    shared: Cluster, tmp_path: Path, text: str
) -> None:
    """Whatever the spelling: the next command could have been `down --purge --yes`."""
    (tmp_path / "redisforge.yaml").write_text(text)

    result = run_command("status", folder=tmp_path, variables=environment(shared.home))

    assert result.status == 14, str(result)
    assert "no cluster called" in result.stderr


def test_a_cluster_of_another_name_than_the_files_is_a_usage_error(cluster: Cluster) -> None:
    result = cluster.run("up", "--cluster", "other")

    assert result.status == 2, str(result)
    assert "'main', not 'other'" in result.stderr
