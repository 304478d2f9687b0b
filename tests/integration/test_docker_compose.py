"""`redisforge export compose`, carried out as its README says: started, formed, used, restarted, taken down.

The commands are those of the README, run by a shell. Only a node's restart is not written there.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from bed_cluster import images_built
from cluster_tool import NODE_NAMES, SOURCE
from exported import Exported

from docker_bed import DockerBed
from waiting import until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

ADDRESS = "127.0.0.21"
LIMIT_S = 120.0


@pytest.fixture(scope="module")
def images(docker: DockerBed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, ...]]:
    with images_built(docker, tmp_path_factory.mktemp("images")) as names:
        yield names


class Composition:
    """An exported cluster of one host, which `up` would run in containers."""

    def __init__(self, docker: DockerBed, folder: Path) -> None:
        self.docker = docker
        host = {"name": "a", "address": ADDRESS, "ssh": False, "runtime": "docker"}
        self.exported = Exported(folder, hosts=[host], placement={"allow_shared_hosts": True})
        done = self.exported.export("compose")
        assert done.status == 0, str(done)
        self.folder = self.exported.out / "hosts" / "a"
        self.readme = (self.exported.out / "README.md").read_text()
        self.compose = self._compose()
        self._lower_limits()
        commands = folder / "bin"
        commands.mkdir()
        (commands / "redisforge").write_text(f'#!/bin/sh\nexec {sys.executable} -m redisforge "$@"\n')
        (commands / "redisforge").chmod(0o755)
        self.variables = {
            **os.environ, "PYTHONPATH": str(SOURCE), "REDISFORGE_HOME": str(folder / "home"),
            "PATH": f"{commands}:{os.environ['PATH']}",
        }  # fmt: skip

    def _compose(self) -> str:
        """The plugin, as the README has it; or the older program, in the way that the README tells."""
        if not subprocess.run(("docker", "compose", "version"), capture_output=True, check=False).returncode:
            return "docker compose"
        if shutil.which("docker-compose") is None:
            pytest.skip("there is no docker compose, neither as a plugin nor as docker-compose")
        told = re.search(r"docker-compose -p [\w-]+", self.readme)
        assert told
        file = self.folder / "compose.yaml"
        text = file.read_text()
        assert text.count("name: redisforge-shipped\n") == 1
        file.write_text(text.replace("name: redisforge-shipped\n", ""))
        return told.group()

    def _lower_limits(self) -> None:
        """As the README tells where Docker may not open so many files itself."""
        image = self.exported.engine.version
        asked = ("run", "--rm", "--network", "none", "--entrypoint", "sh", f"redisforge/redis:{image}")
        most = self.docker.docker(*asked, "-c", "ulimit -Hn")
        if most.isdigit() and int(most) < 100_000:
            file = self.folder / "compose.yaml"
            file.write_text(file.read_text().replace(": 100000\n", f": {most}\n"))

    def type(self, commands: str, folder: Path) -> str:
        """Commands of the README at a shell."""
        typed = commands.replace("docker compose", self.compose)
        done = subprocess.run(
            ("sh", "-e", "-c", typed), cwd=folder, env=self.variables, capture_output=True, text=True, timeout=LIMIT_S,
            check=False,
        )  # fmt: skip
        said = done.stdout + done.stderr
        assert not any(secret in said for secret in self.exported.secrets().values())
        assert done.returncode == 0, f"{typed}\n{said}"
        return said

    def block(self, word: str) -> str:
        """The first indented block of the README that has the word in it."""
        blocks = re.findall(r"(?:^ {4}.*\n)+", self.readme, re.MULTILINE)
        return next(block for block in blocks if word in block)

    def containers(self) -> dict[str, dict[str, Any]]:
        """All of this cluster, as Docker describes them, by their process's name."""
        mark = "label=io.redisforge.export.cluster=shipped"
        ids = self.docker.docker("ps", "--all", "--quiet", "--filter", mark).split()
        found: list[Any] = json.loads(self.docker.docker("inspect", *ids)) if ids else []
        return {made["Config"]["Labels"]["io.redisforge.export.unit"]: made for made in found}

    def healths(self) -> dict[str, str]:
        return {name: made["State"].get("Health", {}).get("Status", "") for name, made in self.containers().items()}

    def close(self) -> None:
        """Remove what is left of it; on the way out of a test that failed, too."""
        left = [made["Id"] for made in self.containers().values()]
        if left:
            self.docker.docker("rm", "--force", "--volumes", *left)
        self.exported.close()


@pytest.fixture
def composed(docker: DockerBed, images: tuple[str, ...], tmp_path: Path) -> Iterator[Composition]:
    assert images
    made = Composition(docker, tmp_path)
    try:
        yield made
    finally:
        made.close()


def test_an_exported_composition_is_started_formed_used_restarted_and_taken_down(composed: Composition) -> None:
    exported = composed.exported
    names = ["envoy-1", *NODE_NAMES]
    composed.type(composed.block("docker compose up"), composed.folder)
    assert sorted(composed.containers()) == names
    composed.type(composed.block("redisforge init-cluster"), exported.out)
    until(lambda: exported.serves(ADDRESS), "the primary endpoint serves every shard")
    for name, made in composed.containers().items():
        settings, pid = made["HostConfig"], made["State"]["Pid"]
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        assert (settings["ReadonlyRootfs"], settings["CapDrop"]) == (True, ["ALL"]), name
        assert (set(status["Uid"].split()), int(status["CapBnd"], 16)) == ({"999"}, 0), name
        assert (settings["Memory"] > 0) is name.startswith("redis-"), name

    before = composed.containers()
    composed.type("docker compose restart redis-1", composed.folder)
    after = composed.containers()
    began = {name: made["State"]["StartedAt"] != before[name]["State"]["StartedAt"] for name, made in after.items()}
    assert began == {name: name == "redis-1" for name in names}
    until(lambda: read(exported) == 40, "every key is there after the restart")
    until(lambda: set(composed.healths().values()) == {"healthy"}, "every container is healthy", 60.0)

    composed.type("docker compose down", composed.folder)
    assert composed.containers() == {}
    data = composed.folder / "data"
    assert len(list(data.glob("redis-*/nodes.conf"))) == len(NODE_NAMES)
    open_to_others = [path for path in (data, *data.iterdir()) if path.stat().st_mode & 0o077]
    assert open_to_others == [], "others cannot read the data"
    composed.type("docker compose up -d", composed.folder)
    until(lambda: read(exported) == 40, "every key is there after down and up")


def read(exported: Exported) -> int:
    """How many of the keys that `serves` writes are there."""
    try:
        with exported.door(ADDRESS) as door:
            return sum(door.get(f"key:{n}") == str(n).encode() for n in range(40))
    except redis.RedisError:
        return 0
