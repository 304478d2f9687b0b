"""How each Step is done: a command to a node, or work for the runtime. The runner decides when (run.py)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence

from msgspec.structs import replace

from redisforge.errors import NodeError
from redisforge.model.facts import Facts
from redisforge.model.steps import (
    AllowReads,
    AssignSlots,
    Forget,
    Meet,
    NodeStep,
    NoteApplied,
    Promote,
    RefreshUnit,
    RefuseReads,
    RemoveUnit,
    Replicate,
    Reset,
    RestartUnit,
    SaveSettings,
    SetConfigEpoch,
    SetSettings,
    StartUnit,
    UnitStep,
)
from redisforge.model.topology import RedisNode, Topology
from redisforge.model.unit import Unit, UnitFile
from redisforge.redis import commands
from redisforge.redis.connection import ReplyError
from redisforge.redis.observe import NodeAsker
from redisforge.render.redis_conf import CLUSTER_CONFIG_FILE
from redisforge.runbooks.cluster import Cluster

_ANSWER_LIMIT_S = 5.0
_ANSWER_PAUSE_S = 0.01

KEPT_IDENTITY = "nodes.conf.kept"
"""In a Unit's folder: its nodes.conf as the last version before an upgrade wrote it."""


class Worker:
    """Does single steps on one cluster. `units` are the Units by name; empty when none are ours."""

    def __init__(self, cluster: Cluster, asker: NodeAsker, units: Mapping[str, Unit]) -> None:
        self._cluster = cluster
        self._asker = asker
        self._units = units

    async def start(self, steps: Sequence[StartUnit]) -> None:
        """Start Units together. Raises HostError."""
        permitted = [step.unit for step in steps if step.permit_blank]
        await self._cluster.runtime.start([self._units[step.unit] for step in steps], permit_blank=permitted)

    async def do(self, step: UnitStep | NodeStep, facts: Facts) -> None:
        """Do one step.

        Raises:
            HostError: the runtime could not do it.
            NodeError: the node cannot be reached, or refused (ReplyError).
        """
        if isinstance(step, UnitStep):
            await self._on_unit(step, facts)
            return
        node = self._cluster.topology.node(step.node)
        if isinstance(step, SetSettings):
            await self._set_settings(node, step)
            return
        if isinstance(step, SaveSettings):
            await self._asker.save_settings((node.address, node.port))
            return
        try:
            for command in node_commands(self._cluster.topology, step, facts):
                await self._asker.call((node.address, node.port), *command)
        except ReplyError:
            if not (isinstance(step, Promote) and await self._is_master(node)):
                raise

    async def _is_master(self, node: RedisNode) -> bool:
        """An election, or the keeper of a dead master, may have promoted a node since it was last looked at. Then it
        refuses CLUSTER FAILOVER, and what was wanted is there; the gate finds out whether it has the slots."""
        role = await self._asker.call((node.address, node.port), "ROLE")
        return isinstance(role, list) and role[:1] == ["master"]

    async def _set_settings(self, node: RedisNode, step: SetSettings) -> None:
        try:
            await self._asker.set_settings((node.address, node.port), step.settings)
        except ReplyError as error:
            error.what = f"{node.name} does not take its settings"
            error.next_step = (
                "correct them in redisforge.yaml and run the same command again; this node has none of them"
            )
            raise

    async def _on_unit(self, step: UnitStep, facts: Facts) -> None:
        runtime = self._cluster.runtime
        if isinstance(step, NoteApplied):
            await runtime.note_applied(self._units[step.unit], facts.units[step.unit])
            return
        if isinstance(step, RefreshUnit):
            await runtime.place([self._units[step.unit]])
            return
        if isinstance(step, StartUnit):
            await self.start([step])
            return
        if isinstance(step, RestartUnit) and step.keep_identity:
            await keep_identity(self._cluster, step.unit)
        await runtime.stop([step.unit])
        if isinstance(step, RestartUnit):
            await runtime.start([self._units[step.unit]])
            await self._keep_reads_away(step.unit)
        elif isinstance(step, RemoveUnit):
            await runtime.remove([step.unit])

    async def _keep_reads_away(self, name: str) -> None:
        """A replica that restarted answers, then loads its master's data, and refuses reads meanwhile: let Envoy
        find it healthy only when it is in sync (AllowReads). A node accepts ACL SETUSER even while it loads."""
        topology = self._cluster.topology
        node = next((node for node in topology.nodes if node.name == name), None)
        users = topology.reading_users if node else ()
        deadline = time.monotonic() + _ANSWER_LIMIT_S
        while node and users and time.monotonic() < deadline:
            try:
                for user in users:
                    await self._asker.call((node.address, node.port), *commands.reads(user, allowed=False))
            except NodeError:
                await asyncio.sleep(_ANSWER_PAUSE_S)
            else:
                return


async def keep_identity(cluster: Cluster, unit_name: str) -> None:
    """Copy a node's nodes.conf beside its data. Raises HostError."""
    folder, transport = cluster.unit_folder(unit_name), cluster.site_of(unit_name).transport
    content = await transport.read(f"{folder}/data/{CLUSTER_CONFIG_FILE}")
    if content is not None:
        await transport.place(folder, [UnitFile(KEPT_IDENTITY, content)])


def node_commands(topology: Topology, step: NodeStep, facts: Facts) -> tuple[tuple[str, ...], ...]:
    """The commands that a step sends to its node."""
    if isinstance(step, RefuseReads | AllowReads):
        allowed = isinstance(step, AllowReads)
        return tuple(commands.reads(user, allowed=allowed) for user in topology.reading_users)
    return (_COMMANDS[type(step)](topology, step, facts),)


def _set_config_epoch(_: Topology, step: SetConfigEpoch, __: Facts) -> tuple[str, ...]:
    return commands.set_config_epoch(step.epoch)


def _assign_slots(_: Topology, step: AssignSlots, __: Facts) -> tuple[str, ...]:
    return commands.add_slots(step.slots)


def _meet(topology: Topology, step: Meet, facts: Facts) -> tuple[str, ...]:
    """The bus port of a node that somebody else runs is known from itself alone."""
    other, myself = topology.node(step.other), facts.nodes[step.other].myself
    return commands.meet(replace(other, bus_port=myself.bus_port) if myself and myself.bus_port else other)


def _replicate(_: Topology, step: Replicate, facts: Facts) -> tuple[str, ...]:
    return commands.replicate(facts.nodes[step.master].id)


def _promote(_: Topology, step: Promote, __: Facts) -> tuple[str, ...]:
    return commands.failover(step.mode)


def _forget(_: Topology, step: Forget, __: Facts) -> tuple[str, ...]:
    return commands.forget(step.node_id)


def _reset(_: Topology, __: Reset, ___: Facts) -> tuple[str, ...]:
    return commands.reset()


_COMMANDS: Mapping[type, Callable[..., tuple[str, ...]]] = {
    SetConfigEpoch: _set_config_epoch,
    AssignSlots: _assign_slots,
    Meet: _meet,
    Replicate: _replicate,
    Promote: _promote,
    Forget: _forget,
    Reset: _reset,
}
