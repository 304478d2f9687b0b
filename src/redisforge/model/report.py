"""The JSON documents that the CLI prints; `docs/reference/*.schema.json` are generated from them."""

from __future__ import annotations

from typing import Literal

import msgspec

from redisforge.model.words import counted

Severity = Literal["warning", "critical"]


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """Something that is wrong, in words: what, where, why, and what to do next."""

    severity: Severity
    where: str
    what: str
    next_step: str = ""


class ClusterReport(msgspec.Struct, frozen=True, kw_only=True):
    """`state` is ok, degraded (serves everything, less protected) or fail; `slots_ok` of 16384."""

    name: str
    state: Literal["ok", "degraded", "fail", "stopped"]
    slots_ok: int
    engine: str
    envoy: str
    maintenance: tuple[str, ...] = ()
    """Hosts in maintenance, by name."""
    changed_by: str = ""
    """Who, as `user@machine`, has changed the cluster since this machine last did. It is shown as it is now."""
    cut_off: str = ""
    """What was begun on this machine and did not come to its end, in words; the same command goes on with it."""


class NodeReport(msgspec.Struct, frozen=True, kw_only=True):
    """A node. `shard` counts from 1; `lag_bytes` is how far a replica is behind, null if unknown."""

    id: str
    name: str
    host: str
    address: str
    port: int
    zone: str
    role: Literal["master", "replica", "unknown"]
    shard: int
    slots: str
    slot_count: int
    pid: int | None
    version: str
    keys: int | None
    used_memory_bytes: int | None
    max_memory_bytes: int | None
    lag_bytes: int | None
    restart_count: int
    state: str


class EndpointReport(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint at one Envoy. `state` is ok or says what failed."""

    name: str
    envoy: str
    host: str
    port: int
    protocol: str
    user: str
    state: str


class StatusReport(msgspec.Struct, frozen=True, kw_only=True):
    """`redisforge status --json`."""

    cluster: ClusterReport
    nodes: tuple[NodeReport, ...]
    endpoints: tuple[EndpointReport, ...]
    problems: tuple[Problem, ...]


class CheckResult(msgspec.Struct, frozen=True, kw_only=True):
    """One check of `test-cluster`. `seconds` is its wall-clock time."""

    name: str
    passed: bool
    seconds: float
    detail: str = ""
    likely_cause: str = ""
    skipped: bool = False


class SmokeReport(msgspec.Struct, frozen=True, kw_only=True):
    """`redisforge test-cluster --json`."""

    target: str
    passed: bool
    seconds: float
    checks: tuple[CheckResult, ...]


class ProbeReport(msgspec.Struct, frozen=True, kw_only=True):
    """What clients noticed of a verb (`--probe`).

    A gap is the longest time between two successes of one client. `error_window_ms` is the time from the first to the
    last error. `lost`: acknowledged writes that are not there at the end. `first_errors` and `first_lost` are words.
    """

    longest_gap_ms: float
    errors: int
    error_window_ms: float
    writes: int
    reads: int
    lost: int
    seconds: float
    first_errors: tuple[str, ...] = ()
    first_lost: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()

    def then(self, later: ProbeReport) -> ProbeReport:
        """Both as one report of clients that were at work twice. `error_window_ms` is the longer one of the two."""
        return ProbeReport(
            longest_gap_ms=max(self.longest_gap_ms, later.longest_gap_ms),
            errors=self.errors + later.errors,
            error_window_ms=max(self.error_window_ms, later.error_window_ms),
            writes=self.writes + later.writes,
            reads=self.reads + later.reads,
            lost=self.lost + later.lost,
            seconds=self.seconds + later.seconds,
            first_errors=(*self.first_errors, *later.first_errors),
            first_lost=(*self.first_lost, *later.first_lost),
            notices=tuple(dict.fromkeys((*self.notices, *later.notices))),
        )

    def __str__(self) -> str:
        window = f" within {self.error_window_ms:.0f} ms" if self.errors > 1 else ""
        return (
            f"clients: longest gap {self.longest_gap_ms:.0f} ms, {counted(self.errors, 'error')}{window}, "
            f"{counted(self.lost, 'acknowledged write')} lost "
            f"({counted(self.writes, 'write')}, {counted(self.reads, 'read')})"
        )


class ChangeReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a verb did to a running cluster. `phases` are (title, seconds); without any, and with nothing `recorded`,
    nothing had to change.

    `probe` is what clients noticed, with `--probe` or `--abort-over`.
    """

    verb: str
    cluster: str
    what: str
    phases: tuple[tuple[str, float], ...]
    recorded: bool = False
    """The record of the cluster says something else than before: which nodes it has, say, or a host's maintenance."""
    seconds: float = 0.0
    notices: tuple[str, ...] = ()
    probe: ProbeReport | None = None


def running(verb: str, command: str) -> str:
    """What is being done, for a sentence: its command line, or the verb where that is all that is known."""
    return f"`{command or f'redisforge {verb}'}`"


def again(verb: str, command: str) -> str:
    """What goes on with it. A verb without the words that it had may do something else."""
    return f"`{command}`" if command else f"`redisforge {verb}` with the words that it had"


class LockReport(msgspec.Struct, frozen=True, kw_only=True):
    """`redisforge lock status --json`. Free: the other fields are empty, or those of a holder that died.

    `command`: the command line that goes on with what the holder does; empty if it is not known, or had a password.
    `alive`: the process that wrote the file still lives. `seconds`: for how long the lock has been held. `held_on`: the
    hosts that say so, for a cluster on other hosts; `unreachable`: those that could not be asked. `known` is false when
    these are more than half of the hosts: somebody may hold it there.
    """

    cluster: str
    held: bool
    known: bool = True
    user: str = ""
    host: str = ""
    pid: int | None = None
    verb: str = ""
    command: str = ""
    since: str = ""
    alive: bool = False
    seconds: float | None = None
    note: str = ""
    held_on: tuple[str, ...] = ()
    unreachable: tuple[str, ...] = ()


class AuditLine(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the journal. Lines of one run have the same `run`; `event` is begin, step, phase, probe or end."""

    at: str
    user: str = ""
    pid: int = 0
    run: str = ""
    verb: str = ""
    event: str = ""
    what: str = ""
    result: str = ""
    seconds: float | None = None
    arguments: tuple[str, ...] = ()


class AuditReport(msgspec.Struct, frozen=True, kw_only=True):
    """`redisforge audit --json`, oldest line first. `notices` say what could not be read."""

    cluster: str
    lines: tuple[AuditLine, ...]
    notices: tuple[str, ...] = ()


Outcome = Literal["serves", "fails_over", "stops", "lost"]
"""What becomes of a shard; see `ShardSurvival`."""


class ShardSurvival(msgspec.Struct, frozen=True, kw_only=True):
    """What a loss would do to one shard. `shard` counts from 1, as in `status`; `master` is today's.

    `outcome`: `serves`: its master stays. `fails_over`: Redis promotes `master_after` by itself. `stops`: copies stay,
    and nothing serves them until an operator acts or the nodes return. `lost`: no copy stays.
    """

    shard: int
    slots: str
    slot_count: int
    master: str
    outcome: Outcome
    master_after: str | None = None
    replicas_left: int = 0
    """Replicas with data that would be left beside the master."""
    lag_bytes: int | None = None
    """How far `master_after` is behind today's master: acknowledged writes that a sudden loss would lose. Null if the
    master stays, or is gone already and cannot be compared with."""
    headroom_bytes: int | None = None
    """What `master_after` may still take; null without a memory limit."""


class Survival(msgspec.Struct, frozen=True, kw_only=True):
    """`redisforge simulate --json`: what would be left after the loss of nodes and Envoys.

    `survives`: every slot would be served, and every endpoint has an Envoy left. Nodes and Envoys that do
    not answer now count as lost too (`already_lost`).
    """

    cluster: str
    lost: tuple[str, ...]
    already_lost: tuple[str, ...]
    survives: bool
    lost_slots: str
    lost_slot_count: int
    unserved_slots: str
    """Slots that nobody would serve, the lost ones included."""
    unserved_slot_count: int
    masters: int
    masters_left: int
    masters_needed: int
    """The majority that must agree on a failover; with fewer left, Redis serves nothing (Redis Cluster
    specification, "Availability")."""
    shards: tuple[ShardSurvival, ...]
    endpoints_lost: tuple[str, ...]
    findings: tuple[Problem, ...]
