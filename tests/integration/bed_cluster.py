"""A cluster in containers on the hosts of the test bed, looked at past RedisForge: through each host's own Docker."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from pathlib import Path
from typing import Any

import msgspec
from cluster_tool import Cluster, environment, run_command

from docker_bed import DockerBed
from redisforge.render.container import UNIT_LABEL
from testbed.hosts import DATA_FOLDER, Bed, BedHost

NODE_TIMEOUT_MS = 5000
"""As by default: six hosts on a machine of two cores are often late."""

IMAGES_LIMIT_S = 280.0


class Seen(msgspec.Struct, frozen=True):
    """A container as its host's Docker shows it."""

    host: str
    unit: str
    id: str
    state: str
    began: str


@contextlib.contextmanager
def images_on_all_hosts(bed: Bed, folder: Path) -> Generator[tuple[str, ...]]:
    """Build RedisForge's images here and bring them to every host, by its own commands; gives their names."""
    with images_built(bed.docker, folder) as names:
        operator = BedCluster(bed, folder, "images")
        try:
            operator.trust()
            _images("push", *names, folder=operator.cluster.folder, home=operator.cluster.home)
        finally:
            operator.cluster.close()
        yield names


@contextlib.contextmanager
def images_built(engine: DockerBed, folder: Path) -> Generator[tuple[str, ...]]:
    """RedisForge's images in this machine's Docker, made by its own command; gives their names."""
    with names_put_back(engine) as built:
        made = _images("build", "--base", engine.base_image(), folder=folder, home=folder / "home")
        built += [image["name"] for image in made["images"]]
        yield tuple(built)


def _images(*words: str, folder: Path, home: Path) -> Any:
    """What `redisforge images …` answers."""
    variables = environment(home)
    result = run_command("images", *words, "--json", folder=folder, variables=variables, limit_s=IMAGES_LIMIT_S)
    assert result.status == 0, str(result)
    return result.json()


@contextlib.contextmanager
def names_put_back(engine: DockerBed) -> Generator[list[str]]:
    """Images whose names are appended to the list; at the end this machine has the names that it had before."""
    form = "{{.Repository}}:{{.Tag}} {{.ID}}"
    shown = engine.docker("image", "ls", "--no-trunc", "--format", form, "--filter", "reference=redisforge/*")
    before = dict(line.split() for line in shown.splitlines())
    built: list[str] = []
    try:
        yield built
    finally:
        for name in built:
            if name in before:
                engine.docker("tag", before[name], name)
            else:
                engine.docker("rmi", name, check=False)


class BedCluster:
    """Declared on all hosts of the bed, which nobody knows yet: `trust` first, then `cluster.up`."""

    def __init__(self, bed: Bed, folder: Path, name: str = "main", **options: Any) -> None:
        self.bed = bed
        self.cluster = Cluster(
            folder / "operator", name=name, home=folder / "home",
            **{"hosts": bed.declared(runtime="docker"), "node_timeout_ms": NODE_TIMEOUT_MS, **options},
        )  # fmt: skip

    @property
    def folder(self) -> str:
        """What RedisForge has on each host."""
        return f"{DATA_FOLDER}/clusters/{self.cluster.name}"

    def trust(self) -> None:
        """Make the hosts known, as an operator would: by the fingerprints that each tells on its console."""
        prints = self.bed.on_all(lambda host: host.run("ssh-keygen", "-lf", "/etc/ssh/ssh_host_ed25519_key.pub"))
        given = [word for line in prints for word in ("--fingerprint", line.split()[1])]
        result = self.cluster.run("host", "trust", *given)
        assert result.status == 0, str(result)

    def host(self, name: str) -> BedHost:
        """A host by its name."""
        return next(host for host in self.bed.hosts if host.name == name)

    def host_of(self, unit: str) -> BedHost:
        """Where a node stands."""
        return self.host(self.cluster.nodes()[unit]["host"])

    def container(self, unit: str) -> str:
        """The name of a Unit's container."""
        return f"redisforge-{self.cluster.name}-{unit}"

    def containers(self, *, but: str = "") -> dict[str, Seen]:
        """Every container of the cluster on every host but one, by its name: two of one name are an error."""
        found: dict[str, Seen] = {}
        for seen in self.bed.on_all(lambda host: {} if host.name == but else self._containers_on(host)):
            assert not found.keys() & seen.keys(), f"twice: {found.keys() & seen.keys()}"
            found |= seen
        return found

    def running(self, *, but: str = "") -> dict[str, Seen]:
        """Those that run, by Unit; not those on the host `but`."""
        return {seen.unit: seen for seen in self.containers(but=but).values() if seen.state == "running"}

    def master_elsewhere(self) -> str:
        """A master that does not stand beside the Envoy."""
        beside = self.running()["envoy-1"].host
        return next(name for name, node in self.cluster.masters().items() if node["host"] != beside)

    def replica_elsewhere(self) -> str:
        """A replica that does not stand beside the Envoy."""
        beside = self.running()["envoy-1"].host
        nodes = self.cluster.nodes().items()
        return next(name for name, node in nodes if node["role"] == "replica" and node["host"] != beside)

    def heal(self) -> list[str]:
        """`up`, until all is well again; what it did."""
        did = self.cluster.up()
        self.cluster.await_health()
        return did

    def left_on(self, host: BedHost) -> list[str]:
        """Containers, and folders of clusters, on a host. The lock's own folder outlives the cluster."""
        names = host.run("docker", "ps", "--all", "--format", "{{.Names}}").split()
        return names + host.run("find", f"{DATA_FOLDER}/clusters", "-mindepth", "1", check=False).split()

    def close(self) -> None:
        """Take it down; whatever is left then is removed, and is a failure."""
        try:
            self.cluster.close()
        finally:
            self.remove_rest()

    def remove_rest(self) -> None:
        """What a cluster that is down has left on the hosts is removed, and is a failure."""
        left = self.bed.on_all(self._remove_rest)
        assert not any(left), f"left on the hosts: {left}"

    def _containers_on(self, host: BedHost) -> dict[str, Seen]:
        shape = f'{{{{.Name}}}} {{{{index .Config.Labels "{UNIT_LABEL}"}}}} {{{{.Id}}}} {{{{.State.Status}}}}'
        script = 'docker ps --all --quiet --filter "name=^redisforge-" | xargs -r docker inspect --format "$1"'
        lines = host.run("sh", "-c", script, "sh", f"{shape} {{{{.State.StartedAt}}}}").splitlines()
        words = [line.split(" ") for line in lines]
        return {name.lstrip("/"): Seen(host.name, *rest) for name, *rest in words}

    def _remove_rest(self, host: BedHost) -> list[str]:
        left = self.left_on(host)
        host.run("sh", "-c", f"docker ps --all --quiet | xargs -r docker rm --force --volumes; rm -rf {DATA_FOLDER}/*")
        return left
