"""A cluster in containers on hosts of the test bed, with images that are built here and pushed there."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

from bed_cluster import names_put_back
from cluster_tool import Cluster

from testbed.hosts import DATA_FOLDER, Bed, BedHost


class DockerFleet:
    """Three hosts of the bed, one in each zone, and a cluster that is declared on them."""

    def __init__(self, bed: Bed, folder: Path, **options: Any) -> None:
        self.bed = bed
        self.hosts = {host.name: host for host in bed.hosts[:3]}
        home = folder / "home"
        home.mkdir(parents=True)
        (home / "known_hosts").write_text(bed.known_hosts_path.read_text())
        declared = [host for host in bed.declared(runtime="docker") if host["name"] in self.hosts]
        self.cluster = Cluster(folder, home=home, hosts=declared, **options)

    def containers(self, host: BedHost) -> dict[str, str]:
        """Ids of the containers that run on a host, by the name of their Unit."""
        shown = host.run("docker", "ps", "--no-trunc", "--format", '{{.Label "io.redisforge.unit"}} {{.ID}}')
        return dict(line.split() for line in shown.splitlines())

    def all_containers(self) -> dict[str, str]:
        """Those of all hosts."""
        return {name: found for host in self.hosts.values() for name, found in self.containers(host).items()}

    def inspect(self, host: BedHost, container: str) -> dict[str, Any]:
        """What its engine says of a container."""
        return json.loads(host.run("docker", "inspect", container))[0]

    def host_of(self, unit: str) -> BedHost:
        """Where a Unit is declared to run."""
        return self.hosts[self.cluster.declared(unit)["host"]]

    def left_over(self) -> list[str]:
        """What is still on the hosts: containers, and folders of clusters."""
        found: list[str] = []
        for host in self.hosts.values():
            shown = host.run("docker", "ps", "--all", "--format", "{{.Names}}")
            folders = host.run("sh", "-c", f"ls {DATA_FOLDER}/clusters 2>/dev/null || true")
            found += [f"{host.name}: {name}" for name in (*shown.split(), *folders.split())]
        return found

    def close(self) -> None:
        """Take the cluster down, and see that nothing of it is left on the hosts."""
        self.cluster.close()
        left = self.left_over()
        for host in self.hosts.values():  # for the tests that follow, should this have failed
            host.run("sh", "-c", f"docker ps -aq | xargs -r docker rm -f -v; rm -rf {DATA_FOLDER}/clusters")
        assert not left, f"left on the hosts: {left}"


@contextlib.contextmanager
def pushed_images(bed: Bed, fleet: DockerFleet, *redis_versions: str) -> Generator[None]:
    """Build images with these versions of the engine here and bring them to the fleet's hosts."""
    base = bed.docker.base_image()
    with names_put_back(bed.docker) as built:
        for words in (("envoy",), *(("redis", "--version", version) for version in redis_versions)):
            done = fleet.cluster.run("images", "build", *words, "--base", base, "--json")
            assert done.status == 0, str(done)
            built += [image["name"] for image in done.json()["images"]]
        done = fleet.cluster.run("images", "push", *built, "--json")
        assert done.status == 0, str(done)
        yield
