"""`upgrade` on real engines under load: to a newer version, back never, out of trouble, and on after a crash.

The tests share a cluster of the old version; the last but one upgrades it for good. From an engine that is older still,
killed after each step: test_verbs_chained.py.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster_tool import NODE_NAMES, Cluster, raised
from load import Load

from conftest import MakeCluster
from redisforge.fleet.binaries import cache_folder, ensure_engine
from redisforge.model.topology import Engine

pytestmark = pytest.mark.integration

OLD = "8.0"
NEW = "8.6"
OLD_VALKEY, NEW_VALKEY = "8.1", "9.1"


def server(version: str) -> str:
    """The server of a version, from the cache (fetched if need be)."""
    return ensure_engine(Engine(version=version), cache_folder(os.environ), print, os.environ).server_path


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with raised(tmp_path_factory.mktemp("upgrade"), engine={"version": OLD}) as made:
        yield made


def versions(cluster: Cluster) -> set[str]:
    """The series that nodes report."""
    found: set[str] = set()
    for name in NODE_NAMES:
        with cluster.node_client(name) as client:
            said = client.info("server")
            found.add(".".join(said.get("valkey_version", said["redis_version"]).split(".")[:2]))
    return found


def impostor(folder: Path, pattern: str, ruin: str = "") -> Path:
    """A newer Redis that does `ruin` and ends, whenever its arguments fit `pattern` (of sh)."""
    folder.mkdir()
    program = folder / "redis-server"
    program.write_text(
        "#!/bin/sh\n"
        'case "$*" in\n'
        "--version) echo 'Redis server v=8.6.99 sha=0:0 malloc=x bits=64 build=0'; exit;;\n"
        f"{pattern}) {ruin} echo 'out of luck'; exit 1;;\n"
        "esac\n"
        f'exec {server(NEW)} "$@"\n'
    )
    program.chmod(0o755)
    return folder


def test_a_version_that_cannot_read_the_data_touches_no_node(cluster: Cluster) -> None:
    cluster.write_keys()
    pids = cluster.pids()
    path = impostor(cluster.folder / "unreading", "*--unixsocket*")
    result = cluster.run("upgrade", "--redis", "8.6.99", "--yes", PATH=f"{path}:{os.environ['PATH']}")

    assert result.status == 9, str(result)
    assert "cannot read the data" in result.stderr
    assert cluster.pids() == pids
    assert not list(cluster.path.glob("units/*/upgrade-check"))


def test_a_version_that_does_not_start_is_put_back(cluster: Cluster) -> None:
    keys = cluster.write_keys()
    path = impostor(cluster.folder / "stillborn", "*/units/*/redis.conf")
    with Load(cluster.url("primary"), reader_url=cluster.url("reader")) as load:
        result = cluster.run("upgrade", "--redis", "8.6.99", "--yes", PATH=f"{path}:{os.environ['PATH']}")
    load.stop().check()

    assert result.status == 11, str(result)
    assert "redis-4 did not come up with 8.6.99; it runs the old version again" in result.stderr
    assert "out of luck" in result.stderr
    assert versions(cluster) == {OLD}
    assert cluster.read_keys(keys) == keys
    assert cluster.is_healthy(), cluster.problems()
    assert cluster.finds_nothing_to_do()


def test_data_that_the_old_version_cannot_read_any_more_is_synced_anew(cluster: Cluster) -> None:
    """The new version runs for a while, rewrites the files, and then dies for good."""
    keys = cluster.write_keys()
    data = cluster.path / "units" / "redis-4" / "data"
    ruin = (
        f"for file in {data}/appendonlydir/*.base.rdb; do printf REDIS9999 > $file; done; echo ? > {data}/nodes.conf;"
    )
    path = impostor(cluster.folder / "short-lived", "*/redis-4/redis.conf", ruin)
    result = cluster.run("upgrade", "--redis", "8.6.99", "--yes", PATH=f"{path}:{os.environ['PATH']}")

    assert result.status == 11, str(result)
    assert "with a new copy of its master's data" in result.stderr
    assert versions(cluster) == {OLD}
    assert cluster.read_keys(keys) == keys
    assert cluster.is_healthy(), cluster.problems()


def assert_upgraded_unnoticed(cluster: Cluster, kind: str, new: str) -> None:
    """Upgrade under load: no client notices, and it goes as its dry run says."""
    wanted = ("upgrade", f"--{kind}", new)
    keys = cluster.write_keys()
    planned = cluster.run(*wanted, "--dry-run")
    with Load(cluster.url("primary"), reader_url=cluster.url("reader")) as load:
        result = cluster.run(*wanted, "--json", "--yes")
        assert result.status == 0, str(result)
    load.stop().check()

    assert versions(cluster) == {new}
    assert cluster.read_keys(keys) == keys
    report = result.json()
    assert planned.stdout.count("restart redis-") == 6
    titles = [title for title, _ in report["phases"] if title.startswith(("upgrade", "hand over"))]
    assert titles == re.findall(r"^\d+\. ((?:upgrade|hand over).*)  \[then", planned.stdout, re.MULTILINE)
    assert re.search(r"read a copy of redis-\d's data: [1-9]\d* keys", str(report["notices"]))
    assert [title.split()[0] for title in titles] == ["upgrade"] * 3 + ["hand", "upgrade"] * 3
    assert f'version: "{new}"' in (cluster.folder / "redisforge.yaml").read_text()
    assert json.loads((cluster.path / "topology.json").read_text())["engine"]["version"] == new
    assert cluster.is_healthy(), cluster.problems()
    assert cluster.up() == []
    assert cluster.run(*wanted, "--json", "--yes").json()["phases"] == []


def test_an_upgrade_under_load_is_not_noticed(cluster: Cluster) -> None:
    assert_upgraded_unnoticed(cluster, "redis", NEW)


def test_an_upgrade_of_valkey_under_load_is_not_noticed(make_cluster: MakeCluster) -> None:
    valkey = make_cluster(engine={"kind": "valkey", "version": OLD_VALKEY})
    valkey.up()
    assert_upgraded_unnoticed(valkey, "valkey", NEW_VALKEY)


def test_an_older_version_is_refused_and_so_is_another_engine(cluster: Cluster) -> None:
    pids = cluster.pids()
    older = cluster.run("upgrade", "--redis", OLD, answer="y\n")
    other = cluster.run("upgrade", "--valkey", "9.1", "--yes")
    cluster.declare(engine={"version": OLD})
    up = cluster.run("up")

    assert (older.status, other.status, up.status) == (9, 9, 9)
    assert "RDB version" in older.stderr
    assert "There is no way back" not in older.stdout + older.stderr, "nobody is asked for what is refused anyway"
    assert "runs redis, not valkey" in other.stderr
    assert "is older" in up.stderr
    assert cluster.pids() == pids
