"""A cluster in memory that can be hurt: plan/predict.py plays Redis, and this adds disks, crashes and the keeper.

A node's disk keeps its identity (nodes.conf) and its keys (if anything is persisted). A node that starts goes through
the same guard as in fleet/keeper.py. Every phase is checked, before it is carried out, against what must never be
done, whatever the planner believes.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from topologies import HASH, nothing_runs, silent, wishes_for

from redisforge.model.facts import EnvoyFacts, NodeFacts, PeerView, UnitFacts, UnitState
from redisforge.model.slots import SlotRange, merge, subtract
from redisforge.model.steps import (
    AssignSlots,
    Phase,
    Promote,
    RefuseReads,
    Replicate,
    RestartUnit,
    SetConfigEpoch,
    StartUnit,
    Step,
)
from redisforge.model.topology import RedisNode, Role, Topology
from redisforge.plan.bring_up import next_phase
from redisforge.plan.predict import apply, settle
from redisforge.plan.starting import Wishes
from redisforge.plan.view import ALL_SLOTS, claimed_slots, key_total, owned_slots, unclaimed_slots

KEYS = 10
_replace = msgspec.structs.replace


class World:
    """A cluster, its disks and its keepers.

    `disks` are those of nodes that do not run; the ones of `damaged` nodes have a nodes.conf and no data. `born`
    counts identities, so that none is given twice.
    """

    def __init__(self, topology: Topology, wishes: Wishes | None = None) -> None:
        self.topology = topology
        self.wishes = wishes or wishes_for(topology)
        self.facts = nothing_runs(topology)
        self.disks: dict[str, NodeFacts] = {}
        self.damaged: set[str] = set()
        self.born = 0
        self.phases: list[Phase] = []

    # --- what the planner does -----------------------------------------------------------------------------

    def next_phase(self) -> Phase | None:
        """The phase that the planner wants now; it has been checked."""
        phase = next_phase(self.topology, self.facts, self.wishes)
        if phase:
            self._check(phase)
            self.phases.append(phase)
        return phase

    def converge(self, limit: int = 60) -> None:
        """Plan and carry out until nothing is left; fails after `limit` phases. Raises RefusedError."""
        began = len(self.phases)
        while phase := self.next_phase():
            assert len(self.phases) - began <= limit, f"no end: {[phase.title for phase in self.phases[-6:]]}"
            before = owned_slots(self.facts)
            self.carry_out(phase.steps)
            self.settle()
            lost = subtract(before, owned_slots(self.facts))
            assert not lost, f"{phase.title}: slots {lost} are served no more"

    def carry_out(self, steps: Iterable[Step]) -> None:
        """Do steps, without letting gossip spread."""
        for step in steps:
            if isinstance(step, StartUnit):
                self._start(step.unit, permit_blank=step.permit_blank)
            elif isinstance(step, RestartUnit):
                self.kill(step.unit)
                self._start(step.unit, permit_blank=False)
                self._keep_reads_away(step.unit)
            else:
                self.facts = apply(self.topology, self.facts, (step,), self.wishes)

    def _keep_reads_away(self, name: str) -> None:
        """As runbooks/work.py does until the node is in sync."""
        if self.topology.reading_users and name in self.facts.nodes and self.facts.nodes[name].reachable:
            step = RefuseReads(node=name, why="it has just restarted")
            self.facts = apply(self.topology, self.facts, (step,), self.wishes)

    def settle(self) -> None:
        """Let gossip spread, keys be copied to replicas, and keepers look again whether a held node may start."""
        self.facts = settle(self.topology, self.facts)
        for node in self.facts.reachable_nodes():
            master = self.facts.node_by_id(node.master_id) if node.role is Role.REPLICA else None
            if master:
                self._put(_replace(node, keys=master.keys))
            if len(node.peers) > 1 and (unit := self.facts.units.get(node.name)):
                self._put_unit(_replace(unit, was_member=True))
        for name in [name for name, unit in self.facts.units.items() if unit.state is UnitState.HELD]:
            if self._may_start(name):
                self._start(name, permit_blank=False)
                self.settle()
                return

    # --- what happens to a cluster -------------------------------------------------------------------------

    def fill(self) -> None:
        """Store keys in every shard."""
        for node in self.facts.reachable_nodes():
            if node.role is Role.MASTER and node.slots:
                self._put(_replace(node, keys=KEYS))
        self.settle()

    def kill(self, name: str) -> None:
        """The Unit and its keeper die; its disk stays."""
        unit = self.facts.units.get(name)
        if unit is None:
            return
        self._put_unit(_replace(unit, state=UnitState.STOPPED, config_hash=""))
        if name not in self.facts.nodes:
            self.facts = _replace(self.facts, envoys={**self.facts.envoys, name: EnvoyFacts(name=name, problem="down")})
            return
        node = self.facts.nodes[name]
        if node.reachable:
            kept = node.keys if self.topology.redis.persistence.mode != "none" else 0
            self.disks[name] = _replace(node, keys=kept)
            self._put(silent(self.topology.node(name)))

    def orphan(self, name: str) -> None:
        """The keeper dies, its Unit runs on."""
        unit = self.facts.units.get(name)
        if unit and unit.state is UnitState.RUNNING:
            self._put_unit(_replace(unit, state=UnitState.ORPHANED))

    def lose_disk(self, name: str) -> None:
        """The node dies and nothing of its data folder is left; its keeper is gone too, its Unit's state is not."""
        self.kill(name)
        self.disks.pop(name, None)
        if unit := self.facts.units.get(name):
            self._put_unit(_replace(unit, has_cluster_config=False))

    def lose_data(self, name: str) -> None:
        """The node dies and its data is gone, its nodes.conf is not."""
        self.kill(name)
        if disk := self.disks.get(name):
            self.disks[name] = _replace(disk, keys=0)
            self.damaged.add(name)

    def reborn(self, name: str) -> None:
        """Somebody empties the node and starts it in its place, whatever a guard would say."""
        self.lose_disk(name)
        self._start(name, permit_blank=True)
        self.settle()

    def fail_over(self, name: str) -> None:
        """Redis itself promotes this replica, its master living or dead."""
        node = self.facts.nodes[name]
        if node.reachable and node.role is Role.REPLICA:
            self.carry_out([Promote(node=name, mode="takeover", why="Redis did it")])
            self.settle()

    def reconfigure(self, names: Iterable[str]) -> None:
        """Declare another configuration for these Units than they run with."""
        hashes = {name: "changed" if name in set(names) else HASH for name in self.wishes.config_hashes}
        self.wishes = _replace(self.wishes, config_hashes=hashes)

    # --- what is true --------------------------------------------------------------------------------------

    def surviving_slots(self) -> tuple[SlotRange, ...]:
        """Slots whose keys still exist somewhere: on a node that runs or on a disk."""
        copies = [node for node in (*self.facts.reachable_nodes(), *self.disks.values()) if node.keys]
        found: list[SlotRange] = []
        for node in copies:
            of_master = [peer for peer in node.peers if peer.id == node.master_id]
            found += node.slots or tuple(r for peer in of_master for r in peer.slots)
        return merge(found)

    def is_remembered(self) -> bool:
        """Whether a node, a disk or a keeper is left that knows of the cluster: else it is as at the first start.

        Keepers forget only of nodes that were started as blank ones.
        """
        nodes = (*self.facts.reachable_nodes(), *self.disks.values())
        return any(peer.slots for node in nodes for peer in node.peers) or any(
            unit.was_member and not unit.has_cluster_config for unit in self.facts.units.values()
        )

    # --- inside --------------------------------------------------------------------------------------------

    def _check(self, phase: Phase) -> None:
        facts, accepted = self.facts, self.wishes.accepted_losses
        holds_keys = key_total(facts) > 0
        was_whole = not unclaimed_slots(facts)
        for step in phase.steps:
            if isinstance(step, SetConfigEpoch | AssignSlots) and not accepted:
                assert not holds_keys, f"{step} in a cluster with keys"
                assert not was_whole, f"{step} in a cluster that is whole"
            if isinstance(step, AssignSlots) and not accepted:
                assert subtract(step.slots, claimed_slots(facts)) == merge(step.slots), f"{step}: they have an owner"
            if isinstance(step, AssignSlots):
                assert subtract(step.slots, owned_slots(facts)) == merge(step.slots), f"{step}: a living owner"
            if isinstance(step, Replicate):
                node = facts.nodes[step.node]
                assert not node.keys, f"{step}: it has keys"
                assert not node.slots, f"{step}: it has slots"
            if isinstance(step, StartUnit) and step.permit_blank:
                self._check_permission(step.unit)
            if isinstance(step, RestartUnit):
                self._check_restart(phase, step)

    def _check_permission(self, name: str) -> None:
        """A node may be told to start blank only if nobody expects slots of it, or nothing can be lost."""
        node = self.topology.node(name)
        expected = self._expected_of(node, "")
        nothing_kept = self.topology.redis.persistence.mode == "none"
        copies = [n for n in self.facts.reachable_nodes() if n.master_id in {peer.id for peer in expected} and n.keys]
        assert not expected or name in self.wishes.accepted_losses or (nothing_kept and not copies), (
            f"{name} would start blank although slots are expected of it"
        )
        unit = self.facts.units.get(name)
        nobody_knows = bool(unclaimed_slots(self.facts)) and name not in self.disks
        assert not (unit and unit.was_member and nobody_knows) or name in self.wishes.accepted_losses or nothing_kept, (
            f"{name} would start blank although it was a member and nobody can say what is expected of it"
        )

    def _check_restart(self, phase: Phase, step: RestartUnit) -> None:
        assert phase.steps == (step,), "one Unit at a time"
        hashes = self.wishes.config_hashes
        drifted = {name for name, unit in self.facts.units.items() if unit.config_hash not in ("", hashes[name])}
        assert step.unit in drifted
        nodes = {name: self.facts.nodes[name] for name in drifted if name in self.facts.nodes}
        if step.unit not in nodes:
            assert not nodes, "Envoys come last"
        elif nodes[step.unit].role is Role.MASTER:
            assert all(node.role is Role.MASTER for node in nodes.values()), "replicas come first"
            own_id = nodes[step.unit].id
            assert not any(n.master_id == own_id for n in self.facts.reachable_nodes()), "it could have handed over"

    def _expected_of(self, node: RedisNode, node_id: str) -> list[PeerView]:
        return [
            peer
            for other in self.facts.reachable_nodes()
            for peer in other.peers
            if peer.slots and other.name != node.name
            if peer.id == node_id or (peer.address, peer.port) == (node.address, node.port)
        ]

    def _may_start(self, name: str) -> bool:
        """The guard of fleet/keeper.py."""
        disk = self.disks.get(name)
        claims = disk is not None and disk.role is Role.MASTER and bool(disk.slots)
        has_data = name not in self.damaged and self.topology.redis.persistence.mode != "none"
        if disk and (has_data or not claims):
            return True
        if self._expected_of(self.topology.node(name), disk.id if disk else ""):
            return False
        return any(len(node.peers) > 1 for node in self.facts.reachable_nodes())

    def _start(self, name: str, *, permit_blank: bool) -> None:
        unit = self.facts.units.get(name, UnitFacts(name=name, state=UnitState.ABSENT))
        running = _replace(unit, state=UnitState.RUNNING, config_hash=self.wishes.config_hashes[name])
        if name not in self.facts.nodes:
            hosts = tuple((node.address, node.port) for node in self.topology.nodes)
            self.facts = _replace(self.facts, envoys={**self.facts.envoys, name: EnvoyFacts(name=name, hosts=hosts)})
            self._put_unit(running)
        elif self.facts.nodes[name].reachable:  # an orphan gets a keeper again
            self._put_unit(_replace(running, config_hash=unit.config_hash))
        elif permit_blank or self._may_start(name):
            if name not in self.disks:
                running = _replace(running, was_member=False)
            node = self.disks.pop(name, None) or self._blank(name)
            self._put(_replace(node, replication_offset=0, master_link_up=False, cluster_state="fail"))
            self.damaged.discard(name)
            self._put_unit(_replace(running, has_cluster_config=True))
        else:
            self._put_unit(_replace(unit, state=UnitState.HELD, reason="its data is missing"))

    def _blank(self, name: str) -> NodeFacts:
        self.born += 1
        node, own_id = self.topology.node(name), f"{name}-{self.born}"
        myself = PeerView(id=own_id, address=node.address, port=node.port, flags=("myself", "master"))
        return NodeFacts(
            name=name, address=node.address, port=node.port, id=own_id, peers=(myself,), cluster_state="fail"
        )

    def _put(self, node: NodeFacts) -> None:
        self.facts = _replace(self.facts, nodes={**self.facts.nodes, node.name: node})

    def _put_unit(self, unit: UnitFacts) -> None:
        self.facts = _replace(self.facts, units={**self.facts.units, unit.name: unit})


def formed_world(topology: Topology, wishes: Wishes | None = None) -> World:
    """A cluster that is up and holds keys in every shard."""
    world = World(topology, wishes)
    world.converge()
    world.fill()
    assert not subtract(ALL_SLOTS, world.surviving_slots())
    return world
