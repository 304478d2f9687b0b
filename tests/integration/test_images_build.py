"""`images build` on a real engine of Docker: what is in the images, and what they do with no right at all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster_tool import Result, environment, run_command

from docker_bed import TEST_LABEL, DockerBed
from image_craft import Crafted, write_archive
from redisforge.model.images import LABEL, engine_image
from waiting import until

pytestmark = pytest.mark.integration

SERIES = "8.0"
RIGHTLESS = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--network", "none")
SOMEBODY = "4321:4321"


def build(folder: Path, *words: str) -> Result:
    return run_command("images", "build", *words, folder=folder, variables=environment(folder / "home"))


@pytest.fixture(scope="module")
def image(docker: DockerBed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An image of the second newest series: nobody else's tests use its name."""
    done = build(
        tmp_path_factory.mktemp("build"), "redis", "--version", SERIES, "--base", docker.base_image(), "--json"
    )
    assert done.status == 0, str(done)
    (built,) = done.json()["images"]
    yield built["name"]
    docker.docker("rmi", built["name"])


def test_the_name_and_the_labels_say_what_is_inside(docker: DockerBed, image: str) -> None:
    facts = json.loads(docker.docker("image", "inspect", image))[0]
    labels = facts["Config"]["Labels"]
    said = docker.docker("run", "--rm", "--entrypoint", "redis-server", image, "--version")
    assert image == engine_image("redis", labels["io.redisforge.version"])
    assert f"v={labels['io.redisforge.version']}" in said
    assert labels[LABEL] == "engine"
    assert labels["io.redisforge.program"] == "redis"
    assert labels["org.opencontainers.image.base.name"] == docker.base_image()
    assert facts["Config"]["User"] == "999:999"


def test_no_layer_holds_documentation_or_package_lists(docker: DockerBed, image: str) -> None:
    looked = ("sh", "-c", "find /var/lib/apt/lists /usr/lib/redisforge/engine/root/usr/share -type f 2>/dev/null")
    assert docker.docker("run", "--rm", "--entrypoint", looked[0], image, *looked[1:], check=False) == ""


def test_the_keeper_runs_a_server_as_anybody_with_no_right(docker: DockerBed, image: str, tmp_path: Path) -> None:
    """PID 1 is the keeper; it starts the server, is healthy, starts it again, and ends it in order."""
    unit = tmp_path / "unit"
    unit.mkdir()
    arguments = ["redis-server", "--port", "0", "--unixsocket", f"{unit}/socket", "--dir", str(unit), "--save", ""]
    argv = ["/usr/local/bin/redis-server", *arguments[1:]]
    (unit / "unit.json").write_text(
        json.dumps({"argv": argv, "stop_grace_s": 10.0, "open_files": 1000, "config_hash": "x"})
    )
    for path in (*tmp_path.parents, tmp_path):
        if path.stat().st_mode & 0o777 == 0o700 and path.is_relative_to("/tmp/pytest-of-root"):
            path.chmod(0o711)
    docker.docker(
        "run", "--rm", "--user", "0", "--volume", f"{unit}:{unit}", "--entrypoint", "chown", image, SOMEBODY, str(unit)
    )
    mounts = ("--volume", f"{unit}:{unit}", "--label", f"{TEST_LABEL}=build")
    container = docker.docker("run", "--detach", "--user", SOMEBODY, *RIGHTLESS, *mounts, image, str(unit))
    try:

        def ask(*words: str) -> str:
            return docker.docker("exec", container, "redis-cli", "-s", f"{unit}/socket", *words, check=False)

        def state() -> dict[str, object]:
            path = unit / "state.json"
            return json.loads(path.read_text()) if path.exists() else {}

        until(lambda: ask("PING") == "PONG", "the server answers")
        assert docker.docker("exec", container, "id", "-u") == "4321"
        health = ("exec", container, "python3", "-I", "-S", "/usr/lib/redisforge/health.py")
        assert docker.docker(*health) == "healthy"
        first = state()["pid"]
        docker.docker("exec", container, "sh", "-c", f"kill -9 {first}")
        until(lambda: state()["pid"] not in (0, first) and ask("PING") == "PONG", "it is started again")
        docker.docker("stop", "--time", "20", container)
        ended = json.loads(docker.docker("inspect", container))[0]["State"]
        assert (ended["ExitCode"], state()["state"]) == (0, "stopped")
        assert state()["last_exit"] == "exited with status 0"
    finally:
        docker.docker("rm", "--force", container)


def test_an_unhealthy_unit_says_why(docker: DockerBed, image: str, tmp_path: Path) -> None:
    unit = tmp_path / "unit"
    unit.mkdir()
    (unit / "unit.json").write_text("{}")
    health = ("run", "--rm", "--user", "0", "--volume", f"{unit}:{unit}:ro", "--entrypoint", "python3", image)
    words = ("-I", "-S", "/usr/lib/redisforge/health.py", str(unit))
    assert "FileNotFoundError" in docker.docker(*health, *words, check=False)
    (unit / "state.json").write_text(json.dumps({"state": "held", "reason": "its data is missing"}))
    assert docker.docker(*health, *words, check=False) == "held: its data is missing"


def test_a_base_that_has_the_engine_keeps_its_own(docker: DockerBed, image: str, tmp_path: Path) -> None:
    docker.docker("tag", image, "redisforge-test/has-redis:1")
    before = docker.docker("image", "inspect", "--format", "{{.Id}}", image)
    try:
        done = build(tmp_path, "redis", "--from-base", "--base", "redisforge-test/has-redis:1", "--json")
        assert done.status == 0, str(done)
        (built,) = done.json()["images"]
        assert built["name"] == image
        assert built["id"] != before
    finally:
        docker.docker("tag", before, image)
        docker.docker("rmi", "redisforge-test/has-redis:1")


def test_a_base_without_the_engine_is_refused(docker: DockerBed, tmp_path: Path) -> None:
    done = build(tmp_path, "redis", "--from-base", "--base", docker.base_image())
    assert done.status == 6, str(done)
    assert "the base image has no redis" in done.stderr


def test_a_base_that_is_not_here_is_named(docker: DockerBed, tmp_path: Path) -> None:
    done = build(tmp_path, "redis", "--version", SERIES, "--base", "redisforge-test/no-such-base:1")
    assert done.status == 7, str(done)
    assert "the base image redisforge-test/no-such-base:1 is not here, and cannot be pulled" in done.stderr


def test_a_build_that_fails_leaves_no_container(docker: DockerBed, tmp_path: Path) -> None:
    before = docker.docker("ps", "--all", "--quiet")
    bare = Crafted("redisforge-test/bare:1", [b"no shell"])
    write_archive(tmp_path / "bare.tar", [bare])
    docker.docker("load", "--input", str(tmp_path / "bare.tar"))
    try:
        done = build(tmp_path, "envoy", "--base", bare.name)
    finally:
        docker.docker("rmi", "--force", bare.name)
    assert done.status == 7, str(done)
    assert "cannot be built" in done.stderr
    assert docker.docker("ps", "--all", "--quiet") == before


def test_one_version_is_for_one_program(tmp_path: Path) -> None:
    done = build(tmp_path, "redis", "envoy", "--version", SERIES)
    assert done.status == 2
    assert "need one program" in done.stderr
