"""The runner: carries out one phase, waits for its gate, and hands back what it then sees."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

import msgspec

from redisforge.errors import GateError, NodeError, RedisForgeError, UnitError
from redisforge.fleet.journal import Journal
from redisforge.model.facts import Facts, UnitState
from redisforge.model.steps import (
    AssignSlots,
    Meet,
    MendSlots,
    MoveSlots,
    NodeStep,
    Phase,
    Promote,
    RestartUnit,
    StartUnit,
    Step,
    UnitStep,
    target_of,
)
from redisforge.model.topology import Role, Topology
from redisforge.model.unit import Unit
from redisforge.plan.diagnose import outages
from redisforge.plan.gates import reasons_against
from redisforge.plan.ready import left_unread
from redisforge.plan.view import hanging, in_container, newcomers
from redisforge.runbooks.cluster import Cluster
from redisforge.runbooks.moving import SlotMover
from redisforge.runbooks.observe import Observer
from redisforge.runbooks.patience import Patience
from redisforge.runbooks.work import Worker

Progress = Callable[[str], None]

_POLL_FIRST_S = 0.02
_POLL_LAST_S = 0.05
_POLL_GROWTH = 1.25
_LOADING_EXTENSION_S = 600.0
"""While a node reads its data set from disk a gate waits this much longer: large data sets take minutes."""
_FAILOVER_ATTEMPT_S = 5.5
"""Redis gives up a failover that was asked for after 5 s (cluster_legacy.c, CLUSTER_MF_TIMEOUT): then ask again."""
_CRASHES_TO_GIVE_UP = 3
_LOG_LIMIT_S = 15.0
_LOG_TAIL_LINES = 12


class Account(NamedTuple):
    """How a verb gives account of itself: to the audit trail, to the operator, and with the command that goes on."""

    journal: Journal
    progress: Progress
    again: str


class Runner:
    """Carries out phases on one cluster. `units` are the Units by name; empty when none are ours.

    `mover` moves slots, for verbs that do.
    """

    def __init__(
        self,
        cluster: Cluster,
        observer: Observer,
        units: Mapping[str, Unit],
        account: Account,
        mover: SlotMover | None = None,
    ) -> None:
        self._cluster = cluster
        self._observer = observer
        self._journal, self._progress, self._again = account
        self._mover = mover
        self._worker = Worker(cluster, observer.asker, units)
        self.started: set[str] = set()
        self._restarted: set[str] = set()
        self.gave_slots = False

    async def carry_out(self, phase: Phase, facts: Facts) -> Facts:
        """Do the steps of `phase`, wait for its gate and return the facts that satisfied it. Who waits for long hears
        what for.

        A node that its keeper releases meanwhile ends the waiting: it knows nobody yet, so that no gate could hold
        before a new plan has introduced it.

        Raises:
            GateError: the gate did not hold in time; says what was missing.
            UnitError: a Unit keeps dying.
            RedisForgeError: a step failed.
        """
        began = time.monotonic()
        self._progress(f"{phase.title} …")
        try:
            await self._steps(phase.steps, facts)
            seen = await self._wait(phase, facts)
            await self._note_elections(phase, facts)
        except RedisForgeError as error:
            error.next_step = error.next_step or f"`{self._again}` goes on from here"  # a node that has just died
            seconds = time.monotonic() - began
            self._journal.write(
                "phase", what=phase.title, result=f"{type(error).__name__}: {error.what}", seconds=seconds
            )
            raise
        seconds = time.monotonic() - began
        self._journal.write("phase", what=phase.title, result="ok", seconds=seconds)
        self._progress(f"{phase.title}: {seconds:.2f} s")
        return seen

    async def give_reads_back(self, facts: Facts) -> None:
        """Put back what was taken out of the reader endpoints for a phase that does not come, as well as can be."""
        known = Counter(peer.id for node in facts.reachable_nodes() for peer in node.peers)
        everybody = len(facts.reachable_nodes())  # who has been forgotten by some is on its way out
        but = frozenset(
            node.name for node in facts.reachable_nodes() if not node.refuses_reads or known[node.id] < everybody
        )
        with contextlib.suppress(RedisForgeError):
            if phase := left_unread(self._cluster.topology, facts, but=but):
                await self.carry_out(phase, facts)

    async def look_again(self) -> Facts:
        """The facts of this moment, after something was not as it had been seen."""
        return await self._observer.look(fresh_units=True, always_probe=True)

    async def _steps(self, steps: Sequence[Step], facts: Facts) -> None:
        """Steps of one target keep their order; different targets go at the same time; Units start together."""
        starts = [step for step in steps if isinstance(step, StartUnit)]
        if starts:
            await self._start(starts)
        moves = [step for step in steps if isinstance(step, MoveSlots)]
        if self._mover and moves:
            await self._mover.move(moves, facts)
        if self._mover and any(isinstance(step, MendSlots) for step in steps):
            await self._mover.mend(facts)
        others = [step for step in steps if not isinstance(step, StartUnit | MoveSlots | MendSlots)]
        by_target = groupby(sorted(others, key=target_of), key=target_of)
        sequences = [list(group) for _, group in by_target]
        ended = await asyncio.gather(*(self._sequence(each, facts) for each in sequences), return_exceptions=True)
        if failed := next((outcome for outcome in ended if outcome is not None), None):
            raise failed  # when all others are done, so that nothing goes on behind the next look

    async def _sequence(self, steps: Sequence[UnitStep | NodeStep], facts: Facts) -> None:
        for step in steps:
            began = time.monotonic()
            self.gave_slots = self.gave_slots or isinstance(step, AssignSlots)
            result = "interrupted"
            try:
                if isinstance(step, RestartUnit):
                    self._restarted.add(step.unit)
                await self._worker.do(step, facts)
                result = "ok"
            except RedisForgeError as error:
                result = f"{type(error).__name__}: {error.what}"
                raise
            finally:
                self._journal.write("step", what=str(step), result=result, seconds=time.monotonic() - began)

    async def _start(self, steps: Sequence[StartUnit]) -> None:
        began = time.monotonic()
        self.started.update(step.unit for step in steps)
        await self._worker.start(steps)
        seconds = time.monotonic() - began
        for step in steps:
            self._journal.write("step", what=str(step), result="ok", seconds=seconds)

    async def _wait(self, phase: Phase, before: Facts) -> Facts:
        gate, title, topology = phase.gate, phase.title, self._cluster.topology
        started = {step.unit for step in phase.steps if isinstance(step, StartUnit | RestartUnit)}
        deadline = time.monotonic() + gate.deadline_s
        patience = Patience(title, time.monotonic())
        pause_s = _POLL_FIRST_S
        asked_at = time.monotonic()
        probe = gate.name == "endpoints_serve"
        touched = any(isinstance(step, UnitStep) for step in phase.steps)
        facts = await self._observer.look(fresh_units=touched, always_probe=probe)
        while reasons := (*reasons_against(gate, topology, facts), *_not_promoted(phase, facts)):
            if not started.issuperset(newcomers(before, facts)):
                return facts
            loading = any(node.loading for node in facts.nodes.values())
            await self._fail_if_crashing(facts)
            left_s = deadline + (_LOADING_EXTENSION_S if loading else 0.0) - time.monotonic()
            if left_s < 0:
                raise GateError(
                    f"{title}: not reached within {gate.deadline_s:g} s",
                    where=topology.name,
                    why="\n".join((*reasons[:8], *outages(topology, facts))),
                    next_step=f"{_hanging(topology, facts)}`redisforge status` shows the state, `redisforge logs` what "
                    f"the processes say; `{self._again}` goes on from here",
                )
            if line := patience.line(time.monotonic(), left_s, reasons, facts):
                self._progress(line)
            if time.monotonic() > asked_at + _FAILOVER_ATTEMPT_S:
                asked_at = time.monotonic()
                await self._ask_again(phase, facts)
            await asyncio.sleep(pause_s)
            pause_s = min(_POLL_LAST_S, pause_s * _POLL_GROWTH)
            facts = await self._observer.look(always_probe=probe)
        return facts

    async def _note_elections(self, phase: Phase, before: Facts) -> None:
        """The keepers see elections when they next look, and may miss one that is soon followed by another."""
        ours = {node.name for node in self._cluster.topology.nodes if node.managed and node.name in before.units}
        for step in phase.steps:
            if isinstance(step, Promote):
                master = before.node_by_id(before.nodes[step.node].master_id)
                names = [name if name in ours else "" for name in (step.node, master.name if master else "")]
                await self._cluster.runtime.note_election(*names)
                self._observer.forget_units()

    async def _ask_again(self, phase: Phase, facts: Facts) -> None:
        """A vote can get lost while links come and go, and a node that was just forgotten cannot be met for a minute;
        Redis itself repeats neither."""
        for step in phase.steps:
            is_due = isinstance(step, Promote) and facts.nodes[step.node].role is not Role.MASTER
            if isinstance(step, Promote | Meet) and (is_due or isinstance(step, Meet)):
                with contextlib.suppress(NodeError):  # it may have become a master meanwhile
                    await self._worker.do(step, facts)

    async def _fail_if_crashing(self, facts: Facts) -> None:
        for unit in facts.units.values():
            crashing = unit.state is UnitState.BACKOFF or unit.restart_count >= _CRASHES_TO_GIVE_UP
            if unit.name in self.started | self._restarted and crashing and unit.restart_count >= _CRASHES_TO_GIVE_UP:
                tail = await log_tail(self._cluster, unit.name)
                raise UnitError(
                    f"{unit.name} does not stay up: {unit.last_exit}",
                    where=self._cluster.runtime.log_path(unit.name),
                    why=tail,
                    next_step=f"mend the cause and run `{self._again}` again",
                )


async def log_tail(cluster: Cluster, unit_name: str) -> str:
    """The last lines that a Unit wrote."""
    tail = f'"$@" 2>/dev/null | tail -n {_LOG_TAIL_LINES}'
    argv = ("sh", "-c", tail, "redisforge-logs", *cluster.runtime.log_command(unit_name))
    said = await cluster.site_of(unit_name).transport.run(argv, timeout_s=_LOG_LIMIT_S, check=False)
    return said.stdout.rstrip("\n") or "its log is empty"


def _hanging(topology: Topology, facts: Facts) -> str:
    """What to do about processes that run and do not answer: waiting for them again would not help."""
    where = {name: " in its container" if in_container(topology, name) else "" for name in hanging(facts)}
    named = ", ".join(f"{name} (process {facts.units[name].pid}{place})" for name, place in where.items())
    return f"{named}: if it hangs, kill -9 that process, and its keeper starts it again; " if named else ""


def _not_promoted(phase: Phase, facts: Facts) -> tuple[str, ...]:
    """CLUSTER FAILOVER only begins a failover: without this a gate could hold before anything has happened."""
    asked = [facts.nodes[step.node] for step in phase.steps if isinstance(step, Promote)]
    return tuple(f"{node.name} is no master yet" for node in asked if not (node.role is Role.MASTER and node.slots))


def phase_json(phase: Phase) -> str:
    """A phase as JSON, for --dry-run --json."""
    return msgspec.json.encode(phase).decode()
