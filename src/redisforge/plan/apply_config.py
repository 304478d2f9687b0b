"""Bring the settings of running nodes to what is declared: CONFIG SET where the engine allows it, a restart where not.

A node is told of everything that differs in one CONFIG SET, which takes all or nothing. Then it is recorded that its
process goes by the new file, and the file is placed: in this order, so that a run which was cut off in between is
seen by the next one, and a node that restarts meanwhile starts with what it had.

Where a directive can only be read at the start, the node restarts as in plan/restart.py; that brings the rest, too.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from redisforge.model.facts import Facts
from redisforge.model.steps import Gate, NoteApplied, Phase, RefreshUnit, SetSettings, Step
from redisforge.model.topology import Topology
from redisforge.plan.ready import left_unread, whole_first
from redisforge.plan.restart import Restart, restart_phase
from redisforge.render.settings import Difference, differences

_WHY = "it is declared so"


class Declared(msgspec.Struct, frozen=True):
    """What one node is to have. `settings` are all directives of its redis.conf, and the defaults of those that it no
    longer has; `restart_for` what only a restart brings, whatever the node says. The hashes are its Unit's."""

    settings: Mapping[str, str]
    config_hash: str
    placed_hash: str
    restart_for: tuple[str, ...] = ()


class ApplyConfig(msgspec.Struct, frozen=True, kw_only=True):
    """`nodes` by name; `settable` directives take CONFIG SET. A node counts as done when it is as declared, or was
    told, or started, at or after `since_s` (seconds since the epoch, by the host's clock)."""

    nodes: Mapping[str, Declared]
    settable: frozenset[str]
    since_s: float
    force: bool = False


class Need(msgspec.Struct, frozen=True):
    """What a node lacks: `told` can be set while it runs, `restart_for` cannot."""

    told: tuple[Difference, ...] = ()
    restart_for: tuple[str, ...] = ()
    is_other: bool = False
    """Nothing that a node could tell of differs, but its file does, or what it is known to go by."""

    @property
    def is_none(self) -> bool:
        """Whether the node is as declared."""
        return not (self.told or self.restart_for or self.is_other)


def need_of(facts: Facts, wanted: ApplyConfig, name: str) -> Need:
    """What node `name` lacks now."""
    declared, unit, node = wanted.nodes[name], facts.units[name], facts.nodes[name]
    if not node.reachable:
        return Need(restart_for=(f"a start of {name}, which does not answer",))
    found = differences(declared.settings, node.settings or {})
    fixed = [difference.name for difference in found if difference.name not in wanted.settable]
    known = unit.config_hash not in ("", declared.config_hash)
    if known and unit.config_hash.partition(".")[0] != declared.config_hash.partition(".")[0]:
        fixed.append("users, passwords or the command line")
    elif known and unit.placed_hash == declared.placed_hash:
        fixed.append("a file that was replaced while it ran")  # what it had that is gone now, nobody knows
    told = tuple(difference for difference in found if difference.name in wanted.settable)
    other = unit.config_hash != declared.config_hash or unit.placed_hash != declared.placed_hash
    return Need(told, (*declared.restart_for, *fixed), other)


def apply_phase(topology: Topology, facts: Facts, wanted: ApplyConfig) -> Phase | None:
    """The next phase, or None when every node is as declared.

    Raises:
        RefusedError: slots are not served, or a master that has to restart has no replica.
    """
    if phase := whole_first(topology, facts, starts=frozenset(wanted.nodes)):
        return phase
    needs = {name: need_of(facts, wanted, name) for name in wanted.nodes if not _is_done(facts, wanted, name)}
    restarting = {name: need for name, need in needs.items() if need.restart_for}
    for name in sorted(set(needs) - set(restarting)):
        return _told(facts, wanted, name, needs[name])
    if not restarting:
        return left_unread(topology, facts)
    reasons = dict.fromkeys(reason for need in restarting.values() for reason in need.restart_for)
    why = f"only a start brings: {', '.join(reasons)}"
    restart = Restart(names=frozenset(restarting), since_s=wanted.since_s, why=why, force=wanted.force)
    return restart_phase(topology, facts, restart)


def _told(facts: Facts, wanted: ApplyConfig, name: str, need: Need) -> Phase:
    """What is done already is not done again, or a run that is always killed after its first step would not get on."""
    settings = tuple((difference.name, difference.wanted) for difference in need.told)
    steps: list[Step] = [SetSettings(node=name, settings=settings, why=_WHY)] if settings else []
    if settings or facts.units[name].config_hash != wanted.nodes[name].config_hash:
        steps.append(NoteApplied(unit=name, why="nothing has to restart for it any more"))
    steps.append(RefreshUnit(unit=name, why="a later start keeps it"))
    return Phase(title=f"tell {name} its settings", steps=tuple(steps), gate=Gate("settled", 60.0))


def _is_done(facts: Facts, wanted: ApplyConfig, name: str) -> bool:
    unit, declared = facts.units[name], wanted.nodes[name]
    current = (unit.config_hash, unit.placed_hash) == (declared.config_hash, declared.placed_hash)
    is_new = max(unit.applied_at_s, unit.started_at_s) >= wanted.since_s  # whatever it says of its settings
    return current and (is_new or need_of(facts, wanted, name).is_none)


_VERBS = {
    "engine": "`redisforge upgrade`",
    "shards": "`redisforge scale`",
    "replicas": "`redisforge scale`",
    "hosts": "`redisforge scale`; nodes that run do not move",
    "first_port": "`redisforge up`; nodes that run do not move",
    "bus_offset": "`redisforge up`; nodes that run do not move",
    "envoys": "`redisforge up`",
    "endpoints": "`redisforge up`, which restarts Envoys",
    "envoy": "`redisforge up`, which restarts Envoys",
    "users": "`redisforge up`, which restarts nodes",
    "tls": "`redisforge up`",
    "handoff": "`redisforge up`",
}
_OPTIONS = {
    "first_port": "ports.redis",
    "bus_offset": "ports.bus_offset",
    "nodes": "external.nodes",
    "access": "external",
}


def left_alone(recorded: Topology, declared: Topology, verbs: Mapping[str, str] = _VERBS) -> tuple[str, ...]:
    """What else differs between the cluster and the file, and which of `verbs` (by field) sees to it."""
    return tuple(
        f"{_OPTIONS.get(field, field)} differs too and is left as it is: {verb}"
        for field, verb in verbs.items()
        if getattr(recorded, field, None) != getattr(declared, field, None)
    )
