"""Images of others, laid out as the official ones are: a cluster is raised, healed, changed and taken down with them.

The tests are one story about one cluster on this machine's Docker, in the order in which they stand here; each leaves
the cluster healthy.
"""

from __future__ import annotations

import json
import os
import signal
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster_tool import NODE_NAMES, Cluster

from docker_bed import TEST_LABEL, DockerBed
from official_images import ENVOY_IMAGE, REDIS_IMAGE, build_official, remove_official
from redisforge.render.container import FOLDER_LABEL, KEEPER_LABEL, UNIT_LABEL
from waiting import until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

HEAL_S = 60.0


@pytest.fixture(scope="module")
def version(docker: DockerBed) -> Iterator[str]:
    """The version of Redis in the images."""
    yield build_official(docker)
    remove_official(docker)


class Official:
    """A cluster in containers of these images, looked at through Docker."""

    def __init__(self, docker: DockerBed, folder: Path, version: str) -> None:
        self.docker = docker
        self.volumes_before = self.volumes()
        self.cluster = Cluster(
            folder, name="official", engine={"version": version}, placement={"allow_shared_hosts": True},
            hosts=[{"name": "here", "address": "127.0.0.1", "ssh": False, "runtime": "docker"}],
            docker={"redis_image": REDIS_IMAGE, "envoy_image": ENVOY_IMAGE},
        )  # fmt: skip

    def containers(self) -> dict[str, dict[str, Any]]:
        """All of them, as Docker describes them, by Unit."""
        ids = self.docker.docker("ps", "--all", "--quiet", "--filter", f"label={FOLDER_LABEL}={self.folder}").split()
        found: list[Any] = json.loads(self.docker.docker("inspect", *ids)) if ids else []
        return {made["Config"]["Labels"][UNIT_LABEL]: made for made in found}

    @property
    def folder(self) -> Path:
        """What containers see of the cluster's folder."""
        return self.cluster.path / "docker"

    def volumes(self) -> set[str]:
        return set(self.docker.docker("volume", "ls", "--quiet").split())

    def close(self) -> None:
        """Take it down; what is left of it then is removed, and is a failure."""
        try:
            self.cluster.close()
        finally:
            left = [made["Id"] for made in self.containers().values()]
            if left:
                self.docker.docker("rm", "--force", "--volumes", *left)
        assert not left, f"left in Docker: {left}"


@pytest.fixture(scope="module")
def official(docker: DockerBed, version: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Official]:
    made = Official(docker, tmp_path_factory.mktemp("official") / "operator", version)
    try:
        made.cluster.up()
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def keys(official: Official) -> dict[str, str]:
    """Keys that were acknowledged, and that every test must find again."""
    return official.cluster.write_keys()


@pytest.mark.parametrize(
    ("image", "words", "user", "command"),
    [
        (REDIS_IMAGE, ("--port", "0", "--unixsocket", "socket"), "999", "redis-server"),
        (ENVOY_IMAGE, (), "101", "envoy -c /etc/envoy/envoy.yaml"),
    ],
)
def test_the_stand_ins_behave_as_the_official_images_do(
    docker: DockerBed, version: str, image: str, words: tuple[str, ...], user: str, command: str
) -> None:
    assert version
    container = docker.docker(
        "run", "--detach", "--network", "none", "--label", f"{TEST_LABEL}=official", image, *words
    )
    try:
        pid = json.loads(docker.docker("inspect", container))[0]["State"]["Pid"]

        def as_run() -> tuple[str, bool]:
            words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
            uid = Path(f"/proc/{pid}/status").read_text().split("Uid:")[1].split()[0]
            return uid, command in " ".join(words)

        until(lambda: as_run() == (user, True), f"{image} has dropped root and runs {command}")
        look = "for name in python3 redis-cli redis-server envoy; do command -v $name; done; pwd"
        found = docker.docker("exec", container, "sh", "-c", look)
    finally:
        docker.docker("rm", "--force", "--volumes", container)
    programs = {"999": "redis-cli\n/usr/local/bin/redis-server\n/data", "101": "envoy\n/"}[user]
    assert found == f"/usr/local/bin/{programs}"


def test_a_cluster_runs_in_them(official: Official, keys: dict[str, str]) -> None:
    assert official.cluster.up() == [], "a second `up` has nothing to do"
    assert official.cluster.is_healthy()
    images = {unit: made["Config"]["Image"] for unit, made in official.containers().items()}
    assert images == {"envoy-1": ENVOY_IMAGE, **dict.fromkeys(NODE_NAMES, REDIS_IMAGE)}
    assert official.cluster.read_keys(keys) == keys


def test_containers_have_no_rights_and_nothing_to_write_on(official: Official) -> None:
    for unit, made in official.containers().items():
        settings = made["HostConfig"]
        status = dict(
            line.split(":\t", 1) for line in Path(f"/proc/{made['State']['Pid']}/status").read_text().splitlines()
        )
        assert (settings["ReadonlyRootfs"], settings["CapDrop"], settings["Privileged"]) == (True, ["ALL"], False), unit
        assert (int(status["CapBnd"], 16), status["NoNewPrivs"]) == (0, "1"), unit
        assert set(status["Uid"].split()) == {str(os.getuid() or 999)}, unit
        assert made["Config"]["Labels"][KEEPER_LABEL] == "no", unit
        assert made["Path"] in ("/usr/local/bin/redis-server", "/usr/local/bin/envoy"), unit
        mounts = {mount["Destination"]: mount["RW"] for mount in made["Mounts"]}
        own_volume = {} if unit == "envoy-1" else {"/data": True}
        assert mounts == {str(official.folder / "units" / unit): True, str(official.folder / "tls"): False} | own_volume
        tried = "touch /written; test -w /etc || test -w /usr/local/bin || echo refused"
        assert official.docker.docker("exec", made["Id"], "sh", "-c", tried) == "refused", unit
        closed = stat.S_IMODE((official.folder / "units" / unit).stat().st_mode) & 0o077 == 0
        assert closed, "the entrypoint's umask is not what hides a node's data from others of its host"


@pytest.mark.parametrize("unit", ["redis-1", "envoy-1"])
def test_a_process_that_dies_is_started_by_docker(official: Official, keys: dict[str, str], unit: str) -> None:
    before = official.containers()[unit]
    os.kill(before["State"]["Pid"], signal.SIGKILL)
    until(lambda: official.containers()[unit]["State"]["Pid"] not in (0, before["State"]["Pid"]), f"{unit} runs again")
    official.cluster.await_health(HEAL_S)
    after = official.containers()[unit]
    assert (after["Id"], after["RestartCount"]) == (before["Id"], 1)
    assert official.cluster.read_keys(keys) == keys


def test_a_node_is_restarted(official: Official, keys: dict[str, str]) -> None:
    before = official.containers()
    done = official.cluster.run("restart", "redis-2", "--json")
    assert done.status == 0, str(done)
    official.cluster.await_health(HEAL_S)
    after = official.containers()
    again = {unit for unit in after if after[unit]["State"]["StartedAt"] != before[unit]["State"]["StartedAt"]}
    assert again == {"redis-2"}
    assert official.cluster.read_keys(keys) == keys


def test_nothing_is_left_when_it_is_taken_down(official: Official) -> None:
    down = official.cluster.run("down", "--purge", "--yes")
    assert down.status == 0, str(down)
    assert official.containers() == {}
    assert official.volumes() == official.volumes_before, "nor the volumes that the image asks for"
