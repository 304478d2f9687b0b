"""A Plan is data: phases of Steps that can be printed, stored as JSON, cut anywhere and computed again."""

from __future__ import annotations

from typing import Literal

import msgspec

from redisforge.model.slots import SlotRange, count, describe


class _Step(msgspec.Struct, frozen=True, kw_only=True, tag_field="step"):
    why: str


class StartUnit(_Step, frozen=True, kw_only=True, tag="start_unit"):
    """Place the Unit's files and start it. `permit_blank` lets a Redis node start without data (see DataGuard)."""

    unit: str
    permit_blank: bool = False

    def __str__(self) -> str:
        return f"start {self.unit}"


class RestartUnit(_Step, frozen=True, kw_only=True, tag="restart_unit"):
    """Stop the Unit, place its files and start it again.

    With `keep_identity` a node's nodes.conf is copied into its Unit's folder before: a newer version may write it so
    that an older cannot read it.
    """

    unit: str
    keep_identity: bool = False

    def __str__(self) -> str:
        return f"restart {self.unit}{' and keep a copy of its nodes.conf' if self.keep_identity else ''}"


class StopUnit(_Step, frozen=True, kw_only=True, tag="stop_unit"):
    """Stop the Unit and keep its data."""

    unit: str

    def __str__(self) -> str:
        return f"stop {self.unit}"


class SetConfigEpoch(_Step, frozen=True, kw_only=True, tag="set_config_epoch"):
    """CLUSTER SET-CONFIG-EPOCH: masters that are born with different epochs need not settle a collision."""

    node: str
    epoch: int

    def __str__(self) -> str:
        return f"{self.node}: CLUSTER SET-CONFIG-EPOCH {self.epoch}"


class AssignSlots(_Step, frozen=True, kw_only=True, tag="assign_slots"):
    """CLUSTER ADDSLOTSRANGE of slots that nobody owns."""

    node: str
    slots: tuple[SlotRange, ...]

    def __str__(self) -> str:
        return f"{self.node}: CLUSTER ADDSLOTSRANGE {' '.join(f'{r.first} {r.last}' for r in self.slots)}"


class Meet(_Step, frozen=True, kw_only=True, tag="meet"):
    """CLUSTER MEET: introduce `other` to `node`; gossip does the rest."""

    node: str
    other: str

    def __str__(self) -> str:
        return f"{self.node}: CLUSTER MEET {self.other}"


class Replicate(_Step, frozen=True, kw_only=True, tag="replicate"):
    """CLUSTER REPLICATE: an empty node becomes a replica of `master`."""

    node: str
    master: str

    def __str__(self) -> str:
        return f"{self.node}: CLUSTER REPLICATE {self.master}"


class Promote(_Step, frozen=True, kw_only=True, tag="promote"):
    """CLUSTER FAILOVER on a replica.

    `handover`: with its living master, no write is lost. `force`: the master is gone, the other masters vote.
    `takeover`: no majority of masters is left to vote.
    """

    node: str
    mode: Literal["handover", "force", "takeover"]

    def __str__(self) -> str:
        return f"{self.node}: CLUSTER FAILOVER{'' if self.mode == 'handover' else ' ' + self.mode.upper()}"


class Forget(_Step, frozen=True, kw_only=True, tag="forget"):
    """CLUSTER FORGET of a dead identity, on every node that still lists it."""

    node: str
    node_id: str

    def __str__(self) -> str:
        return f"{self.node}: CLUSTER FORGET {self.node_id}"


class Reset(_Step, frozen=True, kw_only=True, tag="reset"):
    """CLUSTER RESET HARD: a node that has left forgets the cluster, and its copy of the data."""

    node: str

    def __str__(self) -> str:
        return f"{self.node}: CLUSTER RESET HARD"


class MoveSlots(_Step, frozen=True, kw_only=True, tag="move_slots"):
    """Move slots with their keys from `source` to `target` while clients go on (redis/moving)."""

    source: str
    target: str
    slots: tuple[SlotRange, ...]

    def __str__(self) -> str:
        return f"{self.source} -> {self.target}: move {count(self.slots)} slots ({describe(self.slots)})"


class MendSlots(_Step, frozen=True, kw_only=True, tag="mend_slots"):
    """Finish or roll back the slots that an interrupted move left open, whichever loses nothing."""

    node: str

    def __str__(self) -> str:
        return f"{self.node}: close its open slots"


class RefuseReads(_Step, frozen=True, kw_only=True, tag="refuse_reads"):
    """ACL SETUSER USER -ping: Envoy's health check fails and sends the node no more reads, while all else works.

    For this run of the node only: its users are read again when it starts.
    """

    node: str

    def __str__(self) -> str:
        return f"{self.node}: take it out of the reader endpoints (ACL SETUSER … -ping)"


class AllowReads(_Step, frozen=True, kw_only=True, tag="allow_reads"):
    """ACL SETUSER USER +ping: takes a RefuseReads back."""

    node: str

    def __str__(self) -> str:
        return f"{self.node}: let it serve reads again (ACL SETUSER … +ping)"


class RemoveUnit(_Step, frozen=True, kw_only=True, tag="remove_unit"):
    """Stop the Unit and delete its folder: it is no part of the cluster any more."""

    unit: str

    def __str__(self) -> str:
        return f"stop and delete {self.unit}"


class RefreshUnit(_Step, frozen=True, kw_only=True, tag="refresh_unit"):
    """Place the Unit's files without a restart: what changed in them counts from its next start on."""

    unit: str

    def __str__(self) -> str:
        return f"place the files of {self.unit}"


class SetSettings(_Step, frozen=True, kw_only=True, tag="set_settings"):
    """CONFIG SET of all that differs, (directive, value): together or, if one is refused, not at all."""

    node: str
    settings: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        return f"{self.node}: CONFIG SET {' '.join(f'{name} {value or chr(34) * 2}' for name, value in self.settings)}"


class SaveSettings(_Step, frozen=True, kw_only=True, tag="save_settings"):
    """CONFIG REWRITE: the node writes what it runs with into its own file. Where it cannot, that is no failure, but
    what the node was told lasts until it restarts."""

    node: str

    def __str__(self) -> str:
        return f"{self.node}: CONFIG REWRITE"


class NoteApplied(_Step, frozen=True, kw_only=True, tag="note_applied"):
    """Record that the Unit's running process goes by the declared configuration now, so that nothing restarts it."""

    unit: str

    def __str__(self) -> str:
        return f"record that {self.unit} has its settings"


UnitStep = StartUnit | RestartUnit | StopUnit | RemoveUnit | RefreshUnit | NoteApplied
NodeStep = (
    SetConfigEpoch
    | AssignSlots
    | Meet
    | Replicate
    | Promote
    | Forget
    | Reset
    | MendSlots
    | RefuseReads
    | AllowReads
    | SetSettings
    | SaveSettings
)
Step = UnitStep | NodeStep | MoveSlots


def target_of(step: Step) -> str:
    """The Unit or node that a step is sent to. Steps of one target keep their order."""
    if isinstance(step, MoveSlots):
        return step.target
    return step.unit if isinstance(step, UnitStep) else step.node


class Gate(msgspec.Struct, frozen=True):
    """The condition that must hold after a phase: a name from plan/gates.py and its deadline in seconds.

    With `envoy` it asks about that Envoy alone: others may still run with an older configuration. `without` are
    nodes that do not count: they are about to leave. `node` is the one that a gate about one node asks about.
    """

    name: str
    deadline_s: float
    envoy: str = ""
    without: tuple[str, ...] = ()
    node: str = ""


class Phase(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Steps that do not depend on one another and run together, then the gate they must lead to.

    `waits_for`, in what a dry run shows: why the gate does not hold now, where nobody can say whether it will. Such a
    phase is the last one shown: what comes next depends on it.
    """

    title: str
    steps: tuple[Step, ...]
    gate: Gate
    waits_for: tuple[str, ...] = ()


class Plan(msgspec.Struct, frozen=True):
    """Phases in order. Only the first is carried out; then the system is observed and planned again.

    `records`: what is on record of the cluster (its nodes and hosts, a host's maintenance) changes, too.
    """

    phases: tuple[Phase, ...] = ()
    records: bool = False

    @property
    def is_open(self) -> bool:
        """True when what comes after the last phase depends on whether its gate will hold."""
        return bool(self.phases) and bool(self.phases[-1].waits_for)

    @property
    def is_empty(self) -> bool:
        """True when the system already is what was declared."""
        return not (self.phases or self.records)

    def steps(self) -> tuple[Step, ...]:
        """All steps in order."""
        return tuple(step for phase in self.phases for step in phase.steps)
