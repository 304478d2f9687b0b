"""Every error that a user can meet, on one page.

    RedisForgeError            1   anything not named below
    ├── UsageError             2   the command line is wrong
    ├── ConfigError            3   redisforge.yaml, .env or the environment (all problems at once)
    ├── SecretError            4   a password is weak, empty, missing or not the running cluster's
    ├── CertificateError       5   unreadable, expired, or not matching its key or CA
    ├── BinaryError            6   an engine or Envoy is missing, too old or not executable
    ├── HostError              7   a host cannot take the work: port in use, no space, no permission
    │   └── UnreachableError 16   a host cannot be reached over SSH, or refuses the login
    │       └── HostKeyError 17   a host's SSH key is unknown, or is not the known one
    ├── LockedError            8   another operation holds the cluster's lock
    ├── RefusedError           9   carrying on would risk data: foreign node, data where none may be
    ├── GateError             10   a condition that must hold did not, before its deadline
    ├── UnitError             11   a process did not start or keeps dying
    ├── NodeError             12   a Redis node or an Envoy cannot be reached or answered with an error
    ├── UnhealthyError        13   the verb ran and found problems (status --check, test-cluster)
    ├── NotFoundError         14   no such cluster, unit, endpoint or node
    └── AbortedError          15   stopped at a safe point: clients noticed more than --abort-over allows

Each error says what failed, where, why, and what to do next. The number is the exit status of the
command; 130 is an interruption (Ctrl-C). `docs/reference/exit-codes.md` is generated from this module.
"""

from __future__ import annotations

from typing import ClassVar


class RedisForgeError(Exception):
    """An error meant for a user.

    Args:
        what: what failed, one sentence without a final stop.
        where: host, node, file and line, or URL. Empty when `what` says it.
        why: the cause (exit status, the end of stderr, the answer received).
        next_step: what the user can do now.
    """

    exit_status: ClassVar[int] = 1
    summary: ClassVar[str] = "any other error"

    def __init__(self, what: str, *, where: str = "", why: str = "", next_step: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.why = why
        self.next_step = next_step

    def __str__(self) -> str:
        lines = [self.what]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.why:
            lines.append("  why:   " + self.why.strip().replace("\n", "\n         "))
        if self.next_step:
            lines.append("  next:  " + self.next_step.replace("\n", "\n         "))
        return "\n".join(lines)


class UsageError(RedisForgeError):
    """The command line asks for something that does not exist or does not fit together."""

    exit_status = 2
    summary = "the command line is wrong"


class ConfigError(RedisForgeError):
    """The declared topology is not valid.

    `problems` holds every problem found, each already with its path and line, so that one run shows all.
    """

    exit_status = 3
    summary = "redisforge.yaml, .env or the environment is not valid"

    def __init__(self, what: str, *, problems: tuple[str, ...] = (), next_step: str = "") -> None:
        super().__init__(what, why="\n".join(problems), next_step=next_step)
        self.problems = problems


class SecretError(RedisForgeError):
    """A password is weak, empty, missing, or not the one that the running cluster uses."""

    exit_status = 4
    summary = "a password is weak, empty, missing or not the running cluster's"


class CertificateError(RedisForgeError):
    """A certificate or key is unreadable, expired, or does not match its partner."""

    exit_status = 5
    summary = "a certificate is unreadable, expired, or does not match its key or CA"


class BinaryError(RedisForgeError):
    """A program is missing, of the wrong version, or cannot be executed."""

    exit_status = 6
    summary = "an engine or Envoy is missing, of the wrong version, or not executable"


class HostError(RedisForgeError):
    """A host cannot take the work: a port in use, no space, no permission."""

    exit_status = 7
    summary = "a host cannot take the work: port in use, no space, no permission"


class UnreachableError(HostError):
    """A host cannot be reached over SSH, refuses the login, or the connection to it was lost."""

    exit_status = 16
    summary = "a host cannot be reached over SSH, or refuses the login"


class HostKeyError(UnreachableError):
    """A host shows a key that is not known yet, or another one than the known one."""

    exit_status = 17
    summary = "a host's SSH key is unknown, or is not the known one"


class LockedError(RedisForgeError):
    """Another operation on the same cluster is running."""

    exit_status = 8
    summary = "another operation on this cluster is running"


class RefusedError(RedisForgeError):
    """Going on would risk data, so nothing was done."""

    exit_status = 9
    summary = "refused: going on would risk data"


class GateError(RedisForgeError):
    """A condition that has to hold before the next step did not, within its deadline."""

    exit_status = 10
    summary = "a condition that must hold did not hold in time"


class UnitError(RedisForgeError):
    """A Unit did not start, or keeps dying."""

    exit_status = 11
    summary = "a process did not start or keeps dying"


class NodeError(RedisForgeError):
    """A Redis node or an Envoy could not be reached, or answered with an error."""

    exit_status = 12
    summary = "a Redis node or an Envoy cannot be reached or answered with an error"


class UnhealthyError(RedisForgeError):
    """The verb did its work and found the cluster not healthy."""

    exit_status = 13
    summary = "a check ran and found problems"


class NotFoundError(RedisForgeError):
    """No cluster, unit, endpoint or node of that name."""

    exit_status = 14
    summary = "no such cluster, unit, endpoint or node"


class AbortedError(RedisForgeError):
    """The verb stopped at a safe point because clients noticed more of it than was allowed."""

    exit_status = 15
    summary = "stopped at a safe point: the client-visible budget was exceeded"


INTERRUPTED_EXIT_STATUS = 130
"""The shell's convention for SIGINT (128 + 2)."""
