"""`images list` and `images push` over real hosts, each with its own engine of Docker."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from image_craft import Crafted, write_archive
from testbed.hosts import Bed, BedHost
from waiting import until

pytestmark = pytest.mark.integration

NAME = "redisforge/redis:0.0.{}"
BIG, SMALL = os.urandom(8 << 20), os.urandom(1 << 20)
FIRST = Crafted(NAME.format(1), [BIG, b"first"])
SECOND = Crafted(NAME.format(2), [BIG, SMALL])
FOREIGN = Crafted(NAME.format(3), [b"foreign"], architecture="arm64")
TEXT = Crafted(NAME.format(4), [b"All happy clusters are alike. " * (1 << 20), b"fourth"])
ALL = (FIRST, SECOND, FOREIGN, TEXT)


class Said(NamedTuple):
    """How a command ended."""

    status: int
    stdout: str
    stderr: str

    @property
    def results(self) -> dict[str, dict[str, Any]]:
        """The results of `images push --json`, by host."""
        return {result["host"]: result for result in json.loads(self.stdout)["results"]}


class Operator:
    """Somebody with a redisforge.yaml that names the bed's hosts."""

    def __init__(self, bed: Bed, folder: Path) -> None:
        self.folder = folder
        home = folder / "home"
        home.mkdir()
        (home / "known_hosts").write_text(bed.known_hosts_path.read_text())
        (folder / "redisforge.yaml").write_text(yaml.safe_dump({"hosts": bed.declared(runtime="docker")}))
        self._environment = {**os.environ, "REDISFORGE_HOME": str(home)}

    def run(self, *words: str) -> Said:
        """A `redisforge images …` command."""
        argv = [sys.executable, "-m", "redisforge", "images", *words]
        done = subprocess.run(
            argv, cwd=self.folder, env=self._environment, capture_output=True, text=True, timeout=200, check=False
        )
        return Said(done.returncode, done.stdout, done.stderr)

    def start(self, *words: str) -> subprocess.Popen[str]:
        """The same, not waited for."""
        argv = [sys.executable, "-m", "redisforge", "images", *words]
        pipe = subprocess.PIPE
        return subprocess.Popen(argv, cwd=self.folder, env=self._environment, stdout=pipe, stderr=pipe, text=True)

    def push(self, image: Crafted, *hosts: BedHost) -> Said:
        """Push one image, to some hosts or all."""
        only = [word for host in hosts for word in ("--host", host.name)]
        return self.run("push", image.name, "--json", *only)


@pytest.fixture(scope="module")
def images_here(bed: Bed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The images, in this machine's engine."""
    archive = tmp_path_factory.mktemp("images") / "images.tar"
    write_archive(archive, ALL)
    bed.docker.docker("load", "--input", str(archive))
    yield
    bed.docker.docker("rmi", "--force", *(image.name for image in ALL))


@pytest.fixture
def operator(bed: Bed, images_here: None, tmp_path: Path) -> Iterator[Operator]:
    yield Operator(bed, tmp_path)
    bed.on_all(lambda host: host.run("sh", "-c", "docker image ls -aq | xargs -r docker rmi -f", check=False))


def has(host: BedHost, image: Crafted) -> bool:
    return host.run("docker", "image", "ls", "--no-trunc", "--quiet", image.name) == image.id


def test_every_host_gets_an_image_once(bed: Bed, operator: Operator) -> None:
    first = operator.push(FIRST)
    assert first.status == 0, first.stderr
    assert [result["verdict"] for result in first.results.values()] == ["sent"] * len(bed.hosts)
    assert all(has(host, FIRST) for host in bed.hosts)
    again = operator.push(FIRST)
    assert [result["verdict"] for result in again.results.values()] == ["there"] * len(bed.hosts)
    assert json.loads(again.stdout)["sent_bytes"] == 0


def test_only_what_a_host_lacks_travels(bed: Bed, operator: Operator) -> None:
    host = bed.hosts[0]
    assert operator.push(FIRST, host).results[host.name]["sent_bytes"] > len(BIG)
    second = operator.push(SECOND, host).results[host.name]
    assert second["verdict"] == "sent"
    assert len(SMALL) < second["sent_bytes"] < len(BIG) / 2
    assert has(host, SECOND)
    checked = host.run("sh", "-c", f"docker save {SECOND.name} | tar -xO --wildcards '*/layer.tar' '*' | wc -c")
    assert int(checked) > len(BIG) + len(SMALL)


def test_a_slow_line_is_sent_less(bed: Bed, operator: Operator) -> None:
    host = bed.hosts[1]
    host.slow_down(200)
    try:
        said = operator.push(TEXT, host)
    finally:
        host.speed_up()
    result = said.results[host.name]
    assert result["verdict"] == "sent"
    assert has(host, TEXT)
    assert result["raw_bytes"] > len(TEXT.layers[0])
    assert result["sent_bytes"] < result["raw_bytes"] / 2
    report = json.loads(said.stdout)
    assert (report["raw_bytes"], report["sent_bytes"]) == (result["raw_bytes"], result["sent_bytes"])


def test_an_image_that_lost_its_name_is_named_again(bed: Bed, operator: Operator) -> None:
    host = bed.hosts[1]
    operator.push(FIRST, host)
    host.run("docker", "tag", FIRST.id, "other:name")
    host.run("docker", "rmi", FIRST.name)
    result = operator.push(FIRST, host).results[host.name]
    assert (result["verdict"], result["sent_bytes"]) == ("named", 0)
    assert has(host, FIRST)


def test_a_host_without_power_and_one_without_docker_do_not_stop_the_rest(bed: Bed, operator: Operator) -> None:
    dead, stopped, *others = bed.hosts
    dead.power_off()
    try:
        stopped.stop_engine()
        said = operator.push(FIRST)
        listed = json.loads(operator.run("list", "--json").stdout)
    finally:
        dead.power_on()
        stopped.start_engine()
    assert said.status == 13
    assert f"where: {dead.name}, {stopped.name}" in said.stderr
    verdicts = {name: result["verdict"] for name, result in said.results.items()}
    assert verdicts == {dead.name: "failed", stopped.name: "failed", **{host.name: "sent" for host in others}}
    assert "Docker is not running" in said.results[stopped.name]["problem"]
    assert "systemctl start docker" in said.results[stopped.name]["next_step"]
    problems = {machine["host"]: machine["problem"] for machine in listed["hosts"]}
    assert problems[dead.name]
    assert "Docker is not running" in problems[stopped.name]
    assert not any(problems[host.name] for host in others)
    healed = operator.push(FIRST)
    assert healed.status == 0
    assert {name for name, result in healed.results.items() if result["verdict"] == "sent"} == {dead.name, stopped.name}


def test_another_architecture_is_refused(bed: Bed, operator: Operator) -> None:
    host = bed.hosts[2]
    said = operator.push(FOREIGN, host)
    assert said.status == 13
    assert "the image is for linux/arm64, and this host runs linux/amd64" in said.stderr
    assert host.images() == []


def test_a_full_disk_is_said_before_anything_is_sent(bed: Bed, operator: Operator) -> None:
    host = bed.hosts[3]
    host.stop_engine()
    host.small_disk("/var/lib/docker", 10)
    try:
        host.start_engine()
        said = operator.push(FIRST, host)
    finally:
        host.reboot()
    assert said.status == 13
    assert "no room for the images" in said.results[host.name]["problem"]
    assert json.loads(said.stdout)["sent_bytes"] == 0


def test_a_disk_that_fills_up_in_the_middle_keeps_nothing(bed: Bed, operator: Operator) -> None:
    host = bed.hosts[4]
    host.small_disk("/var/lib/docker/tmp", 4)  # where an engine puts what arrives
    try:
        said = operator.push(FIRST, host)
        left = host.run("sh", "-c", "ls -A /var/lib/docker/tmp")
    finally:
        host.reboot()
    assert said.status == 13
    assert "no space left on device" in said.results[host.name]["problem"]
    assert "make room" in said.results[host.name]["next_step"]
    assert left == ""
    assert host.images() == []
    assert operator.push(FIRST, host).status == 0


SLOW_CLIENT = """#!/bin/sh
case "$*" in
  "image load"*) { head -c 4000000; touch /tmp/half; sleep 100; } | /usr/bin/docker "$@" ;;
  *) exec /usr/bin/docker "$@" ;;
esac
"""


def test_a_push_that_is_interrupted_in_the_middle_keeps_nothing(bed: Bed, operator: Operator) -> None:
    host = bed.hosts[1]
    host.run(
        "sh",
        "-c",
        'rm -f /tmp/half; printf %s "$0" >/usr/local/bin/docker; chmod 755 /usr/local/bin/docker',
        SLOW_CLIENT,
    )
    try:
        pushing = operator.start("push", FIRST.name, "--host", host.name)
        until(lambda: host.run("sh", "-c", "ls /tmp/half 2>/dev/null || true"), "half of it is there")
        pushing.send_signal(signal.SIGINT)
        _, said = pushing.communicate(timeout=60)
    finally:
        host.run("rm", "-f", "/usr/local/bin/docker")
    assert pushing.returncode == 130, said
    until(lambda: "image load" not in host.run("ps", "-eo", "args"), "nobody loads any more")
    until(lambda: host.run("sh", "-c", "ls -A /var/lib/docker/tmp") == "", "what had arrived is gone")
    assert host.images() == []
    assert operator.push(FIRST, host).status == 0


def test_a_user_who_may_not_use_docker_is_told_how(bed: Bed, operator: Operator) -> None:
    host = bed.hosts[5]
    host.run("gpasswd", "--delete", "deploy", "docker")
    try:
        said = operator.push(FIRST, host)
    finally:
        host.run("usermod", "--append", "--groups", "docker", "deploy")
    assert said.status == 13
    assert "the user may not use Docker" in said.stderr
    assert "usermod -aG docker" in said.stderr


def test_what_a_host_has_is_listed(bed: Bed, operator: Operator) -> None:
    operator.push(FIRST, bed.hosts[0])
    listed = {machine["host"]: machine for machine in json.loads(operator.run("list", "--json").stdout)["hosts"]}
    assert [image["id"] for image in listed["h1"]["images"]] == [FIRST.id]
    assert listed["h1"]["platform"] == "linux/amd64"
    assert listed["h2"]["images"] == []
    assert {FIRST.id, SECOND.id} <= {image["id"] for image in listed[""]["images"]}
    table = operator.run("list").stdout
    assert FIRST.name in table
    assert FIRST.id.removeprefix("sha256:")[:12] in table


def test_an_image_that_is_not_here_is_not_found(operator: Operator) -> None:
    said = operator.run("push", "redisforge/redis:9.9.9")
    assert said.status == 14
    assert "no image called redisforge/redis:9.9.9 here" in said.stderr
