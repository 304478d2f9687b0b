"""A machine that cannot take the work: no room, no permission. A clear error, and nothing is left behind.

File systems are real ones, which only the command's own mount namespace has.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from cluster_tool import COMMAND, Cluster, Result, environment, kill, processes_of

from conftest import MakeCluster

pytestmark = pytest.mark.integration

LIMIT_S = 90
POWERLESS = ("setpriv", "--bounding-set=-all", "--inh-caps=-all") if os.geteuid() == 0 else ()
"""Root without its capabilities obeys the modes of its files, as everybody else does anyway."""


class Disk(NamedTuple):
    """A small file system: options of tmpfs, whether it is filled to its end, and what `up` says of it."""

    options: str
    words: str
    filled: bool = False


DISKS = {
    "less than the 96 MB that six nodes begin with": Disk("size=20m", "96 MB needed for 6 nodes"),
    "not a byte free": Disk("size=20m", "not enough space to start", filled=True),
    "no room for a first file": Disk("size=200m,nr_inodes=3", "No space left on device"),
    "files run out among the certificates": Disk("size=200m,nr_inodes=20", "No space left on device"),
    "files run out among the nodes": Disk("size=200m,nr_inodes=60", "No space left on device"),
    "read-only": Disk("size=200m,ro", "Read-only file system"),
}


def run_with(prefix: tuple[str, ...], cluster: Cluster, *arguments: str) -> Result:
    ended = subprocess.run(
        (*prefix, *arguments), cwd=cluster.folder, env=environment(cluster.home), text=True, capture_output=True,
        stdin=subprocess.DEVNULL, timeout=LIMIT_S, check=False,
    )  # fmt: skip
    return Result(ended.returncode, ended.stdout, ended.stderr)


@pytest.fixture(scope="module")
def alone() -> tuple[str, ...]:
    """What runs a shell script in a mount namespace of its own."""
    if (tool := shutil.which("unshare")) is None:
        pytest.skip("there is no unshare")
    prefix = (tool, "--mount", "--map-root-user", "sh", "-c")
    script = "mount -t tmpfs none /mnt"
    tried = subprocess.run((*prefix, script), capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"this machine allows no mount of its own: {tried.stderr}")
    return prefix


@pytest.fixture
def cluster(make_cluster: MakeCluster) -> Iterator[Cluster]:
    """A declared cluster with an empty home; no process may be left of it."""
    declared = make_cluster()
    declared.home.mkdir()
    yield declared
    left = processes_of(declared.home)
    kill(*left)
    assert not left


def on_disk(cluster: Cluster, disk: Disk, *script: str) -> str:
    """A shell script that mounts `disk` as the home and then runs `script`."""
    fill = f"(head -c 1G /dev/zero > {cluster.home}/filling) 2>/dev/null" if disk.filled else ":"
    mount = f"mount -t tmpfs -o {disk.options} none {cluster.home} || exit 99"
    return "\n".join((mount, fill, *script))


@pytest.mark.parametrize("disk", DISKS.values(), ids=DISKS.keys())
def test_a_disk_without_room_is_told_and_left_empty(cluster: Cluster, alone: tuple[str, ...], disk: Disk) -> None:
    script = on_disk(
        cluster, disk, f"{' '.join(COMMAND)} up", "status=$?", f"find {cluster.home} -mindepth 1", "exit $status"
    )

    result = run_with(alone, cluster, script)

    assert result.status == 7, str(result)
    assert disk.words in result.stderr
    assert "next:" in result.stderr
    left = {Path(line).relative_to(cluster.home).as_posix() for line in result.stdout.splitlines()}
    assert left <= {"clusters", "filling"}


def test_a_cluster_whose_disk_ran_full_can_be_looked_at_and_taken_down(
    cluster: Cluster, alone: tuple[str, ...]
) -> None:
    command = " ".join(COMMAND)
    script = on_disk(
        cluster,
        Disk("size=200m", ""),
        f"{command} up >&2 || exit 98",
        f"(head -c 1G /dev/zero > {cluster.home}/filling) 2>/dev/null",
        f"{command} status > /dev/null || exit 97",
        f"{command} down --purge --yes >&2 || exit 96",
        f"find {cluster.home} -mindepth 1",
    )

    result = run_with(alone, cluster, script)

    assert result.status == 0, str(result)
    assert {Path(line).name for line in result.stdout.splitlines()} == {"clusters", "filling"}


def test_a_disk_that_is_nearly_full_is_no_reason_not_to_heal(cluster: Cluster, alone: tuple[str, ...]) -> None:
    """Room for six new nodes is asked for when there are six new nodes; two more ask for theirs."""
    command = " ".join(COMMAND)
    script = on_disk(
        cluster,
        Disk("size=300m", ""),
        f"{command} up >&2 || exit 98",
        f"(head -c 1G /dev/zero > {cluster.home}/filling) 2>/dev/null",
        f"truncate -s -20M {cluster.home}/filling",
        f"{command} up > up.txt || exit 97",
        f"kill -9 $(cat {cluster.path}/units/redis-6/keeper.lock)",
        f"{command} up --json > healed.json || exit 96",
        "sed 's/^name:/replicas: 2\\n&/' redisforge.yaml > more.yaml",
        f"{command} up -f more.yaml 2> more.txt && exit 95",
        f"{command} down --purge --yes >&2 || exit 94",
    )

    result = run_with(alone, cluster, script)

    assert result.status == 0, str(result)
    assert "nothing changed" in (cluster.folder / "up.txt").read_text()
    assert json.loads((cluster.folder / "healed.json").read_text())["phases"]
    assert "48 MB needed for 3 nodes" in (cluster.folder / "more.txt").read_text()


def test_a_home_below_a_file_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "a-file").write_text("in the way\n")

    result = cluster.run("up", REDISFORGE_HOME=str(tmp_path / "a-file" / "home"))

    assert result.status == 7, str(result)
    assert str(tmp_path / "a-file" / "home") in result.stderr


@pytest.mark.parametrize(("mode", "status_of_status"), [(0o500, 14), (0o000, 7)], ids=["read-only", "closed"])
def test_a_home_of_somebody_else_is_refused(cluster: Cluster, mode: int, status_of_status: int) -> None:
    cluster.home.chmod(mode)

    raised = run_with((*POWERLESS, *COMMAND), cluster, "up")
    seen = run_with((*POWERLESS, *COMMAND), cluster, "status")

    cluster.home.chmod(0o700)
    assert (raised.status, seen.status) == (7, status_of_status), f"{raised}{seen}"
    assert "Permission denied" in raised.stderr
    assert str(cluster.home) in raised.stderr
    assert "REDISFORGE_HOME" in raised.stderr
    assert not list(cluster.home.iterdir())


def test_a_port_that_is_roots_is_said_before_a_process_dies_of_it(cluster: Cluster) -> None:
    cluster.declare(endpoints={"primary": {"port": 443}})

    results = [run_with((*POWERLESS, *COMMAND), cluster, *words) for words in (("up", "--dry-run"), ("up",))]

    for result in results:
        assert result.status == 7, str(result)
        assert "ports are kept for root" in result.stderr
        assert ":443: ports below 1024 are root's there" in result.stderr
        assert "declare ports from 1024 on" in result.stderr
    assert not cluster.path.exists()


@pytest.mark.parametrize(
    ("file", "status"), [("redisforge.yaml", 3), (".env", 3), ("tls.pem", 5), ("engine/redis-server", 6)]
)
def test_a_file_that_may_not_be_read_is_named(cluster: Cluster, file: str, status: int) -> None:
    path = cluster.folder / file
    if status == 5:
        cluster.declare(tls=dict.fromkeys(("ca_file", "cert_file", "key_file"), str(path)))
    if status == 6:
        path.parent.mkdir()
        cluster.declare(engine={"server_path": str(path)})
    path.touch(mode=0o700)
    path.chmod(0o000)
    if status == 6:
        path.parent.chmod(0o000)

    result = run_with((*POWERLESS, *COMMAND), cluster, "up")

    path.parent.chmod(0o700)
    assert result.status == status, str(result)
    assert file in result.stderr
    assert "Permission denied" in result.stderr
    assert not cluster.path.exists()
