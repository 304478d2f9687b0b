"""Runs one program to its end, within a time limit. Synchronous: callers run in a thread."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec


class Outcome(msgspec.Struct, frozen=True):
    """How a program ended. `output` is stdout and stderr; `problem` says why it did not run to its end."""

    status: int
    output: str
    problem: str = ""

    @property
    def succeeded(self) -> bool:
        """It ran, ended within its time limit, and with status 0."""
        return not self.problem and self.status == 0

    def why(self) -> str:
        """The end of the output, or why there is none; for an error's `why`."""
        tail = "\n".join(self.output.strip().splitlines()[-8:])
        reason = self.problem or f"exit status {self.status}"
        return f"{reason}\n{tail}" if tail else reason


def run(
    argv: Sequence[str],
    environment: Mapping[str, str],
    *,
    timeout_s: float,
    folder: Path | None = None,
    standard_input: str = "",
) -> Outcome:
    """Run `argv`; at the time limit it and everything that it started are killed.

    Output goes through a file, so that a child which keeps the pipe open cannot hold the caller.
    """
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as given:
        given.write(standard_input.encode())
        given.seek(0)
        try:
            process = subprocess.Popen(
                argv,
                env=dict(environment),
                cwd=folder,
                stdin=given,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            return Outcome(-1, "", f"cannot be executed: {error.strerror or error}")
        problem = _wait(process, timeout_s)
        output.seek(0)
        return Outcome(process.returncode, output.read().decode(errors="replace"), problem)


def _wait(process: subprocess.Popen[bytes], timeout_s: float) -> str:
    try:
        process.wait(timeout_s)
    except BaseException as error:
        # The group's leader is not reaped yet, so its id cannot belong to anybody else.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if isinstance(error, subprocess.TimeoutExpired):
            return f"did not end within {timeout_s:g} s"
        raise
    return ""
