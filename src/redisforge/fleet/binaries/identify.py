"""What a program on disk is: asked of the program itself, never guessed from its name.

Redis and Valkey print `Redis server v=8.6.3 …` or `Valkey server v=9.1.2 …` for --version (server.c,
version()); Valkey installs links named redis-* too, so the name of a file says nothing. Envoy prints `envoy
version: COMMIT/1.40.0/Clean/RELEASE/BoringSSL`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from redisforge.fleet.binaries.command import run
from redisforge.fleet.binaries.versions import parse_envoy_banner, parse_server_banner

ANSWER_LIMIT_S = 10.0
"""For --version. It takes 0.03 s; ten seconds are a cold disk on a loaded machine."""

_TLS_QUESTION = "port 0\ntls-port not-a-number\n"
_TLS_UNDERSTOOD = "argument couldn't be parsed into an integer"


class Identity(msgspec.Struct, frozen=True):
    """What a program says that it is; or, with `problem`, why it could not say it."""

    kind: str = ""
    version: str = ""
    problem: str = ""


def _refuse(path: Path) -> str:
    """Why `path` cannot be a program; empty when it can."""
    try:
        if path.is_dir():
            return "is a directory"
        if not path.exists():
            return "does not exist"
        if not os.access(path, os.X_OK):
            return "is not executable"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return ""


def _ask_version(path: Path, environment: Mapping[str, str], limit_s: float) -> tuple[str, str]:
    """(output, problem)"""
    if problem := _refuse(path):
        return "", problem
    outcome = run((str(path), "--version"), environment, timeout_s=limit_s)
    if not outcome.succeeded:
        return "", f"--version: {outcome.why()}"
    return outcome.output, ""


def _unknown(output: str) -> Identity:
    said = " ".join(output.split())[:80]
    return Identity(problem=f"--version prints no version that is known here: {said or 'nothing'}")


def identify_engine(path: Path, environment: Mapping[str, str], limit_s: float = ANSWER_LIMIT_S) -> Identity:
    """Ask `path` for --version, and whether it was built with TLS, which RedisForge uses on every link."""
    output, problem = _ask_version(path, environment, limit_s)
    if problem:
        return Identity(problem=problem)
    banner = parse_server_banner(output)
    if banner is None:
        return _unknown(output)
    kind, version = banner
    # With TLS the value of tls-port is refused; without, the directive itself. Either way the server ends
    # before it opens anything: both are errors in its configuration, and port 0 is no port.
    answer = run((str(path), "-"), environment, timeout_s=limit_s, standard_input=_TLS_QUESTION)
    if _TLS_UNDERSTOOD not in answer.output:
        return Identity(kind, version, "was built without TLS")
    return Identity(kind, version)


def identify_envoy(path: Path, environment: Mapping[str, str], limit_s: float = ANSWER_LIMIT_S) -> Identity:
    """Ask `path` for --version."""
    output, problem = _ask_version(path, environment, limit_s)
    if problem:
        return Identity(problem=problem)
    version = parse_envoy_banner(output)
    return Identity("envoy", version) if version else _unknown(output)
