"""What the scripts of the Docker runtime print, read: lines become UnitFacts. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime

import msgspec

from redisforge.model.facts import CHANGED_BY_HAND, UnitFacts, UnitState
from redisforge.render.container import CONFIG_LABEL, CONTAINER_LABEL, KEEPER_LABEL

_NOTED_LATE_S = 2.0
"""Docker notes the start of a container only after its process has begun; the keeper may have started its child."""


class _ContainerState(msgspec.Struct):
    """`docker inspect`, .State."""

    status: str = msgspec.field(name="Status", default="")
    pid: int = msgspec.field(name="Pid", default=0)
    exit_code: int = msgspec.field(name="ExitCode", default=0)
    error: str = msgspec.field(name="Error", default="")
    out_of_memory: bool = msgspec.field(name="OOMKilled", default=False)
    started_at: str = msgspec.field(name="StartedAt", default="")


class _Found(msgspec.Struct):
    """The container of a Unit. `shape` is docker_scripts.SHAPE_FORMAT filled in."""

    state: _ContainerState
    labels: dict[str, str]
    restart_count: int
    shape: str


class _Placed(msgspec.Struct):
    """unit.json, as far as it matters here."""

    placed_hash: str = ""
    container_hash: str = ""


class _Kept(msgspec.Struct):
    """state.json: what the keeper, PID 1 of a container, says of its child."""

    state: str = "stopped"
    pid: int = 0
    restarts: int = 0
    last_exit: str = ""
    reason: str = ""
    started_at: float = 0.0
    config_hash: str = ""
    was_member: bool = False


class _Told(msgspec.Struct):
    """applied.json: what a process was told of while it ran."""

    pid: int = 0
    started_at: float = 0.0
    config_hash: str = ""
    applied_at: float = 0.0


def read_units(output: str) -> dict[str, UnitFacts]:
    """The facts of every Unit that has a folder or a container.

    Raises:
        ValueError: this is not what docker_scripts.OBSERVE prints.
    """
    found: dict[str, _Found] = {}
    notes: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for line in output.splitlines():
        kind, name, *fields = line.split("\t")
        if kind == "container":
            state, labels, restarts, shape = fields
            found[name] = _Found(
                msgspec.json.decode(state, type=_ContainerState),
                msgspec.json.decode(labels, type=dict[str, str]),
                int(restarts),
                shape,
            )
        else:
            notes[name][kind] = fields[0]
    return {name: _facts(name, found.get(name), notes[name]) for name in sorted({*found, *notes})}


def _facts(name: str, found: _Found | None, notes: Mapping[str, str]) -> UnitFacts:
    kept = msgspec.json.decode(notes.get("state", "{}"), type=_Kept)
    own_lines, known_lines, *ids = notes.get("nodes", "0 0").split()
    facts = UnitFacts(
        name=name,
        state=UnitState.STOPPED,
        placed_hash=msgspec.json.decode(notes.get("unit", "{}"), type=_Placed).placed_hash,
        has_cluster_config=int(own_lines) > 0,
        node_id=ids[0] if ids else "",
        was_member=kept.was_member or int(known_lines) > 1,
        elected_at_s=float(notes.get("elected", 0)),
        replaced_at_s=float(notes.get("last-election", 0)),
        last_exit=kept.last_exit,
        restart_count=kept.restarts,
    )
    if found is None:
        return facts
    state = found.state
    if state.status == "restarting":
        return msgspec.structs.replace(
            facts, state=UnitState.BACKOFF, last_exit=_exit(state), restart_count=found.restart_count
        )
    if state.status not in {"running", "paused"}:
        return msgspec.structs.replace(facts, last_exit=kept.last_exit or _exit(state))
    alive = _kept_process(facts, found, kept) if found.labels.get(KEEPER_LABEL) == "yes" else _process(facts, found)
    return _goes_by(alive, found, notes) if alive.state is UnitState.RUNNING else alive


def _process(facts: UnitFacts, found: _Found) -> UnitFacts:
    """PID 1 is the Unit's program itself."""
    return msgspec.structs.replace(
        facts,
        state=UnitState.RUNNING,
        pid=found.state.pid,
        keeper_pid=found.state.pid,
        restart_count=found.restart_count,
        started_at_s=_seconds(found.state.started_at),
        config_hash=found.labels.get(CONFIG_LABEL, ""),
    )


def _kept_process(facts: UnitFacts, found: _Found, kept: _Kept) -> UnitFacts:
    """PID 1 is the keeper. What it wrote before this start of the container is not about its present child."""
    facts = msgspec.structs.replace(
        facts, keeper_pid=found.state.pid, restart_count=kept.restarts + found.restart_count
    )
    if kept.state == "held":
        return msgspec.structs.replace(facts, state=UnitState.HELD, reason=kept.reason)
    if kept.state != "running" or kept.started_at < _seconds(found.state.started_at) - _NOTED_LATE_S:
        return msgspec.structs.replace(facts, state=UnitState.BACKOFF)
    return msgspec.structs.replace(
        facts,
        state=UnitState.RUNNING,
        pid=kept.pid,
        started_at_s=kept.started_at,
        config_hash=kept.config_hash,
    )


def _goes_by(facts: UnitFacts, found: _Found, notes: Mapping[str, str]) -> UnitFacts:
    """With what the process was told of since, unless its container is another one than would be made now."""
    placed = msgspec.json.decode(notes.get("unit", "{}"), type=_Placed)
    as_made = notes.get("shape", found.shape)
    if found.labels.get(CONTAINER_LABEL) != placed.container_hash or found.shape != as_made:
        return msgspec.structs.replace(facts, config_hash=CHANGED_BY_HAND)
    told = msgspec.json.decode(notes.get("applied", "{}"), type=_Told)
    if told.config_hash and (told.pid, told.started_at) == (facts.pid, facts.started_at_s):
        return msgspec.structs.replace(facts, config_hash=told.config_hash, applied_at_s=told.applied_at)
    return facts


def _exit(state: _ContainerState) -> str:
    """How a container ended, in words."""
    if state.error:
        return state.error
    if state.out_of_memory:
        return "killed: its memory limit was reached"
    if not state.started_at.startswith("0001"):
        return f"exited with status {state.exit_code}"
    return ""


def _seconds(stamp: str) -> float:
    """Docker's time (RFC 3339 with nanoseconds, UTC) in seconds since the epoch; 0 for none."""
    if not stamp or stamp.startswith("0001"):
        return 0.0
    whole, _, rest = stamp.rstrip("Z").partition(".")
    return datetime.fromisoformat(f"{whole}+00:00").timestamp() + float(f"0.{rest or 0}")
