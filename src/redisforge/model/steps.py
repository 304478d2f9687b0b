"""A Plan is data: phases of Steps that can be printed, stored as JSON, cut anywhere and computed again."""

from __future__ import annotations

from typing import Literal

import msgspec

from redisforge.model.slots import SlotRange


class _Step(msgspec.Struct, frozen=True, kw_only=True, tag_field="step"):
    why: str


class StartUnit(_Step, frozen=True, kw_only=True, tag="start_unit"):
    """Place the Unit's files and start it. `permit_blank` lets a Redis node start without data (see DataGuard)."""

    unit: str
    permit_blank: bool = False

    def __str__(self) -> str:
        return f"start {self.unit}"


class RestartUnit(_Step, frozen=True, kw_only=True, tag="restart_unit"):
    """Stop the Unit, place its files and start it again."""

    unit: str

    def __str__(self) -> str:
        return f"restart {self.unit}"


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


Step = StartUnit | RestartUnit | StopUnit | SetConfigEpoch | AssignSlots | Meet | Replicate | Promote | Forget


class Gate(msgspec.Struct, frozen=True):
    """The condition that must hold after a phase: a name from plan/gates.py and its deadline in seconds.

    With `envoy` it asks about that Envoy alone: others may still run with an older configuration.
    """

    name: str
    deadline_s: float
    envoy: str = ""


class Phase(msgspec.Struct, frozen=True, kw_only=True):
    """Steps that do not depend on one another and run together, then the gate they must lead to."""

    title: str
    steps: tuple[Step, ...]
    gate: Gate


class Plan(msgspec.Struct, frozen=True):
    """Phases in order. Only the first is carried out; then the system is observed and planned again."""

    phases: tuple[Phase, ...] = ()

    @property
    def is_empty(self) -> bool:
        """True when the system already is what was declared."""
        return not self.phases

    def steps(self) -> tuple[Step, ...]:
        """All steps in order."""
        return tuple(step for phase in self.phases for step in phase.steps)
