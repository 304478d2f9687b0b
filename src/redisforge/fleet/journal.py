"""The audit trail: who did what, when, and how it went; one JSON line per event. Never read to decide anything.

All lines of one run of a verb have the same `run`. The first of them has the words of the command line, without
passwords. The file is closed to other users, and bounded: at 64 MiB it becomes journal.jsonl.1, and the one that
had that name is gone.
"""

from __future__ import annotations

import os
import re
import secrets
import shlex
import sys
from asyncio import CancelledError
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from redisforge.errors import RedisForgeError

LIMIT_BYTES = 64 * 1024 * 1024
HIDDEN = "***"
"""What stands for a password."""
_COMMAND_LIMIT = 4096
_SECRET_OPTION = re.compile(r"^(?!--max-key-size$)--?[a-z-]*(?:pass|secret|token|key|auth)[a-z-]*$", re.IGNORECASE)
_SECRET_IN_WORD = re.compile(r"((?:pass|secret|token|auth)[a-z_-]*[=:])\S+", re.IGNORECASE)
_URL_LOGIN = re.compile(r"(\w://[^/@\s:]*:)[^@\s]*@")


class Journal:
    """Appends to CLUSTER/journal.jsonl. A full disk must not stop an operation, so failures are dropped.

    `arguments` are the words after the program's name; by default those of this process.
    """

    def __init__(self, path: Path, *, verb: str, user: str, arguments: Sequence[str] | None = None) -> None:
        self._path = path
        self._verb = verb
        self._user = user
        self._run = secrets.token_hex(4)
        self._arguments: tuple[str, ...] | None = without_secrets(sys.argv[1:] if arguments is None else arguments)

    def write(self, event: str, *, what: str = "", result: str = "", seconds: float | None = None) -> None:
        """Add one event; `seconds` is how long it took."""
        line: dict[str, object] = {
            "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "user": self._user,
            "pid": os.getpid(),
            "run": self._run,
            "verb": self._verb,
            "event": event,
            "what": what,
            "result": result,
            "seconds": None if seconds is None else round(seconds, 3),
        }
        if self._arguments is not None:
            line["arguments"] = self._arguments
        with suppress(OSError):
            self._append(msgspec.json.encode(line) + b"\n")
            self._arguments = None

    def write_end(self, error: BaseException | None = None, *, what: str, seconds: float) -> None:
        """Add the last event of a run: `ok`, or what ended it."""
        result = "ok"
        if error is not None:
            kind = "interrupted" if isinstance(error, KeyboardInterrupt | CancelledError) else type(error).__name__
            result = f"{kind}: {error.what}" if isinstance(error, RedisForgeError) else kind
        self.write("end", what=what, result=result, seconds=seconds)

    def _append(self, line: bytes) -> None:
        descriptor = _opened(self._path)
        try:
            size = os.fstat(descriptor).st_size
            if size + len(line) > LIMIT_BYTES:
                self._path.replace(rotated(self._path))
                os.close(descriptor)
                descriptor = _opened(self._path)
            elif size and os.pread(descriptor, 1, size - 1) != b"\n":
                line = b"\n" + line  # a writer was killed in the middle of its line: that one is lost, not this one
            os.write(descriptor, line)
        finally:
            os.close(descriptor)


def rotated(path: Path) -> Path:
    """Where the lines are that were written before the file was full."""
    return path.with_name(f"{path.name}.1")


def without_secrets(words: Sequence[str]) -> tuple[str, ...]:
    """The words of a command line with `***` for whatever may be a password."""
    shown: list[str] = []
    hide_next = False
    for word in words:
        name, separator, _ = word.partition("=")
        is_secret = bool(_SECRET_OPTION.match(name))
        if hide_next and not word.startswith("-"):
            shown.append(HIDDEN)
        elif is_secret and separator:
            shown.append(f"{name}={HIDDEN}")
        else:
            shown.append(_SECRET_IN_WORD.sub(r"\1***", _URL_LOGIN.sub(r"\1***@", word)))
        hide_next = is_secret and not separator
    return tuple(shown)


def command_line(otherwise: str) -> str:
    """The command line of this process, for whoever is to repeat it; `otherwise` within a program of somebody else."""
    program = Path(sys.argv[0])
    is_ours = program.name == "redisforge" or program.parts[-2:] == ("redisforge", "__main__.py")
    return shlex.join(("redisforge", *without_secrets(sys.argv[1:]))) if is_ours else otherwise


def repeatable_command() -> str:
    """The command line of this process where it repeats the run as it stands; empty where it would not: with a password
    left out, in another program, or too long to be handed around and read."""
    command = command_line("")
    if HIDDEN in command or len(command) > _COMMAND_LIMIT or not command.isprintable():
        return ""
    return command


def _opened(path: Path) -> int:
    """The file, closed to others also if an earlier version made it readable."""
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    if os.fstat(descriptor).st_mode & 0o077:
        with suppress(OSError):
            os.fchmod(descriptor, 0o600)
    return descriptor
