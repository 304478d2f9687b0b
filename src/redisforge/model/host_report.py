"""What `redisforge host …` prints: hosts, checks with their cure, and changes. The schemas follow them."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Literal

import msgspec

from redisforge.model.host_facts import HostFacts


class Verdict(StrEnum):
    """Pass; Warn: it runs, but slower or less safely; Fail: it would not run, or data would be at risk."""

    PASS = "Pass"  # noqa: S105 - no password
    WARN = "Warn"
    FAIL = "Fail"


FixKind = Literal["", "sysctl", "limits", "huge_pages", "folder"]
"""Which change of the host would make a check pass (plan/host_fixes.py); empty: none that RedisForge makes."""


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One rule, applied to one host. `cure` is empty where nothing is to be cured."""

    host: str
    name: str
    verdict: Verdict
    what: str
    cure: str = ""
    fix: FixKind = ""


class FileChange(msgspec.Struct, frozen=True, kw_only=True):
    """A file of root's that is written; `before` is its text now, null if it is not there. `path` is absolute."""

    path: str
    before: str | None
    after: str


class HostChange(msgspec.Struct, frozen=True, kw_only=True):
    """Something that is made right on a host, for good: first the files, then the commands, as root."""

    host: str
    why: str
    files: tuple[FileChange, ...] = ()
    commands: tuple[tuple[str, ...], ...] = ()
    note: str = ""
    """What the operator must know of it: when it takes effect, or what it does not cover."""


class ChangeResult(msgspec.Struct, frozen=True, kw_only=True):
    """How a change ended. `problem` is empty if it was made."""

    host: str
    why: str
    problem: str = ""


class HostsReport(msgspec.Struct, frozen=True, kw_only=True):
    """`redisforge host check --json` and `redisforge host prepare --json`.

    `changes` are those that were proposed, `results` those that were made. `facts` are the hosts' own words; null for
    a host that could not be asked. `seconds` is wall-clock time.
    """

    cluster: str
    passed: bool
    """No check failed, and no change."""
    checks: tuple[Check, ...]
    changes: tuple[HostChange, ...] = ()
    results: tuple[ChangeResult, ...] = ()
    facts: dict[str, HostFacts | None] = {}
    seconds: float = 0.0


class ListedHost(msgspec.Struct, frozen=True, kw_only=True):
    """A declared host. `way`: `this machine` or how SSH gets there; `folder`: where RedisForge keeps what it has;
    `bind_address`: where Units listen that others reach at `address`."""

    name: str
    address: str
    bind_address: str
    zone: str
    labels: Mapping[str, str]
    way: str
    folder: str
    units: tuple[str, ...]


class HostList(msgspec.Struct, frozen=True, kw_only=True):
    """`redisforge host list --json`."""

    cluster: str
    hosts: tuple[ListedHost, ...]


class ShownKey(msgspec.Struct, frozen=True, kw_only=True):
    """A public key of a host's; `fingerprint` as `ssh-keygen -l` prints it."""

    algorithm: str
    fingerprint: str


TrustState = Literal["known", "trusted", "not trusted", "changed", "no match", "unreachable"]
"""known: one of its keys was trusted before; trusted: it is now; not trusted: nobody said yes; changed: it shows other
keys than the known ones; no match: none of its keys has a fingerprint that was given."""


class TrustResult(msgspec.Struct, frozen=True, kw_only=True):
    """`host` is the declared name, or a jump host's address. `problem` is the whole error, empty if there is none."""

    host: str
    known_as: str
    """Its name in known_hosts files."""
    state: TrustState
    shown: tuple[ShownKey, ...] = ()
    known: tuple[ShownKey, ...] = ()
    """The keys that were trusted before."""
    problem: str = ""


class TrustReport(msgspec.Struct, frozen=True, kw_only=True):
    """`redisforge host trust --json`. Hosts that are this machine are not in it."""

    cluster: str
    file: str
    """Where trusted keys are written."""
    passed: bool
    """All hosts of the report are trusted."""
    hosts: tuple[TrustResult, ...]
