"""An engine of Docker for tests: the one that runs, or one that is started here, and a base image without a registry.

    with running() as docker:
        base = docker.base_image()

Everything that tests make carries TEST_LABEL and is removed by it. The base image stays, under its tag: making it takes
half a minute. Who may not start an engine, or has none, learns why from UnavailableError.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Generator, Sequence
from pathlib import Path

from redisforge.fleet.binaries import apt

TEST_LABEL = "io.redisforge.test"
BASE_SUITE = "trixie"
BASE_IMAGE = f"redisforge-test/base:{BASE_SUITE}"
START_LIMIT_S = 60.0
COMMAND_LIMIT_S = 120.0
_IN_USE = Path(tempfile.gettempdir(), f"redisforge-test-docker.{os.getuid()}.lock")
"""Held (shared) by every test run that uses an engine of ours: the last one stops it."""


class UnavailableError(Exception):
    """This machine has no engine of Docker for tests; says why."""


def run(argv: Sequence[str | Path], *, limit_s: float = COMMAND_LIMIT_S, check: bool = True, given: str = "") -> str:
    """A command's output. Raises AssertionError with what it said."""
    done = subprocess.run(
        [str(word) for word in argv], input=given, capture_output=True, text=True, timeout=limit_s, check=False
    )
    assert not (check and done.returncode), f"{argv} ended with {done.returncode}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


class DockerBed:
    """An engine that answers."""

    def docker(self, *words: str, limit_s: float = COMMAND_LIMIT_S, check: bool = True) -> str:
        """A command of the Docker client."""
        return run(("docker", *words), limit_s=limit_s, check=check)

    def has_image(self, name: str) -> bool:
        """Whether there is an image of that name."""
        return bool(self.docker("image", "ls", "--quiet", name))

    def base_image(self) -> str:
        """A small Debian with apt, made of the packages of this machine's own mirror. Raises UnavailableError."""
        with _locked("base"):
            if not self.has_image(BASE_IMAGE):
                _import_base()
        return BASE_IMAGE


@contextlib.contextmanager
def running() -> Generator[DockerBed]:
    """An engine of Docker on this machine. One that ran before is left alone. Raises UnavailableError."""
    if shutil.which("docker") is None:
        raise UnavailableError("there is no docker client on PATH")
    with _IN_USE.open("a") as in_use:
        with _locked("start"):
            fcntl.flock(in_use, fcntl.LOCK_SH)
            pid_file = _IN_USE.with_suffix(".pid")
            if why := _why_no_answer():
                pid_file.write_text(str(_start_engine(why)))
        yield DockerBed()
        with _locked("start"), contextlib.suppress(BlockingIOError):
            fcntl.flock(in_use, fcntl.LOCK_EX | fcntl.LOCK_NB)  # else another run works with it
            if pid_file.exists():
                _stop_engine(int(pid_file.read_text()))
                pid_file.unlink()


@contextlib.contextmanager
def _locked(name: str) -> Generator[None]:
    with Path(f"{_IN_USE}.{name}").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _why_no_answer() -> str:
    asked = subprocess.run(
        ("docker", "version", "--format", "{{.Server.Version}}"),
        capture_output=True, text=True, timeout=COMMAND_LIMIT_S, check=False,
    )  # fmt: skip
    return asked.stderr.strip() if asked.returncode else ""


def _start_engine(why: str) -> int:
    """Start dockerd with the machine's own settings; returns its pid."""
    program = shutil.which("dockerd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if os.getuid():
        raise UnavailableError(f"only root can start an engine of Docker, and none answers: {why}")
    if program is None:
        raise UnavailableError(f"there is no dockerd, and no engine answers: {why}")
    log = Path(tempfile.gettempdir(), "redisforge-test-dockerd.log")
    with log.open("w") as stream, Path(os.devnull).open() as nothing:
        # No Popen: the engine outlives this function, and a Popen that is forgotten before its process ends complains.
        engine = os.posix_spawn(
            program, (program,), os.environ, setsid=True,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, nothing.fileno(), 0),
                (os.POSIX_SPAWN_DUP2, stream.fileno(), 1),
                (os.POSIX_SPAWN_DUP2, stream.fileno(), 2),
            ],
        )  # fmt: skip
    deadline = time.monotonic() + START_LIMIT_S
    while _why_no_answer():
        ended = os.waitpid(engine, os.WNOHANG) != (0, 0)
        if ended or time.monotonic() > deadline:
            if not ended:
                os.kill(engine, signal.SIGKILL)
                os.waitpid(engine, 0)
            raise UnavailableError(f"dockerd does not start: {log.read_text()[-1000:]}")
        time.sleep(0.1)
    return engine


def _stop_engine(pid: int) -> None:
    """End the engine that `running` has started; it may be a child of this process or of an earlier one."""
    with contextlib.suppress(ProcessLookupError, OSError):
        descriptor = os.pidfd_open(pid)
        if "dockerd" not in Path(f"/proc/{pid}/comm").read_text():
            return  # the number is somebody else's now
        signal.pidfd_send_signal(descriptor, signal.SIGTERM)
        deadline = time.monotonic() + START_LIMIT_S
        while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
            time.sleep(0.05)


def _import_base() -> None:
    if shutil.which("mmdebstrap") is None:
        raise UnavailableError("there is no mmdebstrap to make a base image with")
    repositories = apt.machine_repositories(os.environ)
    mirror = next((known.uri for known in repositories if known.uri.rstrip("/").endswith("/debian")), None)
    if mirror is None:
        raise UnavailableError("this machine's apt knows no Debian mirror to make a base image from")
    with tempfile.TemporaryDirectory(prefix="redisforge-test-base-") as folder:
        archive = Path(folder, "base.tar")
        options = ("--mode=root", "--variant=apt", '--aptopt=Acquire::Check-Valid-Until "false"')
        run(("mmdebstrap", *options, BASE_SUITE, archive, mirror), limit_s=280)
        run(("docker", "import", "--change", f"LABEL {TEST_LABEL}=base", archive, BASE_IMAGE))
