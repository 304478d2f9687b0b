"""What is: the running system as it was observed at one moment."""

from __future__ import annotations

from enum import StrEnum
from functools import cached_property

import msgspec

from redisforge.model.slots import SlotRange, merge
from redisforge.model.topology import Protocol, Role


class UnitState(StrEnum):
    """A Unit as its keeper sees it."""

    ABSENT = "absent"
    """Nothing of it is on the host."""
    STOPPED = "stopped"
    """Stopped on request, or dead with its keeper."""
    RUNNING = "running"
    BACKOFF = "backoff"
    """Died; the keeper starts it again after a delay."""
    HELD = "held"
    """Not started, because starting it could destroy data (see `reason`)."""
    ORPHANED = "orphaned"
    """Runs without a keeper: nothing would restart it."""
    UNKNOWN = "unknown"
    """Its host cannot be reached (see `reason`)."""


CHANGED_BY_HAND = "changed"
"""In place of a configuration's hash: the container is not as it was made, or as it would be made now."""


class UnitFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A Unit's state on its host. Times in seconds since the epoch."""

    name: str
    state: UnitState
    pid: int = 0
    keeper_pid: int = 0
    restart_count: int = 0
    last_exit: str = ""
    reason: str = ""
    cure: str = ""
    """Why nobody knows how it is, or why it does not run; and what helps, if that is known."""
    started_at_s: float = 0.0
    elected_at_s: float = 0.0
    """When its keeper last saw the node become a master by election; 0 if never."""
    replaced_at_s: float = 0.0
    """When its keeper last saw another node of the shard become the master; 0 if never."""
    config_hash: str = ""
    """Of the configuration that the running process goes by: it was started with that, or told since."""
    applied_at_s: float = 0.0
    """When the running process was last told of a configuration; 0 if it goes by what it was started with."""
    placed_hash: str = ""
    """Of the files that lie there for it (Unit.placed_hash)."""
    has_cluster_config: bool = False
    """Its data folder holds a nodes.conf: it has been a member of a cluster."""
    node_id: str = ""
    """The id of the node, by the nodes.conf in its data folder; empty without one. It outlives a change of address."""
    was_member: bool = False
    """Its keeper has seen it know other nodes. Unlike the nodes.conf, this survives the loss of the data folder."""


class Stray(msgspec.Struct, frozen=True, kw_only=True):
    """A Unit of the cluster that runs where the cluster has none of that name: a host that was lost may bring it back.

    `stop_command` is for the operator, on `host` (in words).
    """

    unit: UnitFacts
    host: str
    stop_command: tuple[str, ...]


class PeerView(msgspec.Struct, frozen=True, kw_only=True):
    """One line of CLUSTER NODES: how a node sees another, or itself."""

    id: str
    address: str
    port: int
    flags: tuple[str, ...]
    bus_port: int = 0
    master_id: str = ""
    config_epoch: int = 0
    link_up: bool = True
    slots: tuple[SlotRange, ...] = ()
    migrating: tuple[tuple[int, str], ...] = ()
    """(slot, destination id) of each slot left open for export."""
    importing: tuple[tuple[int, str], ...] = ()
    """(slot, source id) of each slot left open for import."""

    @property
    def role(self) -> Role:
        """master or replica, from the flags."""
        return Role.REPLICA if "slave" in self.flags else Role.MASTER

    @property
    def is_failed(self) -> bool:
        """Flagged `fail` (agreed by a majority), not merely `fail?`."""
        return "fail" in self.flags

    @property
    def in_handshake(self) -> bool:
        """Still being introduced; such an entry's id is provisional."""
        return "handshake" in self.flags


class NodeFacts(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """A Redis node as it described itself. With `problem` set, it could not be asked and the rest is empty.

    What follows from its fields is worked out once: planners ask for it millions of times.
    """

    name: str
    address: str
    port: int
    problem: str = ""
    id: str = ""
    version: str = ""
    peers: tuple[PeerView, ...] = ()
    """Its whole CLUSTER NODES, itself included."""
    keys: int = 0
    used_memory_bytes: int = 0
    max_memory_bytes: int = 0
    cluster_state: str = ""
    current_epoch: int = 0
    replication_offset: int = 0
    """master_repl_offset of a master; slave_repl_offset of a replica."""
    master_link_up: bool = False
    sync_in_progress: bool = False
    loading: bool = False
    uptime_s: float = 0.0
    """Seconds since its process started."""
    pid: int = 0
    listed: tuple[str, ...] | None = None
    """The id of every node that it names in CLUSTER SLOTS, which is what proxies and clients go by; None if it was
    not asked. A replica appears there once it has received something from its master."""
    settings: dict[str, str] | None = None
    """What CONFIG GET says of the directives that were asked for; None if none were."""
    config_file: str = ""
    """The file that its process was started with, on its own host; empty without one."""
    was_told: bool = False
    """It has taken a CONFIG SET of this run; what it shows since is what it makes of the value."""
    saved: str | None = None
    """What became of the last CONFIG REWRITE of this run: empty if the node wrote its file, else why not; None if it
    was not asked."""
    refuses_reads: bool | None = None
    """Whether the users of the reader endpoints may not PING here, so that every Envoy takes the node out of them as
    soon as it looks; None if it was not asked. Envoy's own view (EnvoyFacts.unhealthy) is behind by up to a second."""
    aof_ok: bool = True
    """False when the last AOF write or rewrite, or the last RDB save, failed."""

    @property
    def reachable(self) -> bool:
        """Whether the node answered."""
        return not self.problem

    @cached_property
    def myself(self) -> PeerView | None:
        """The node's own line of CLUSTER NODES."""
        return next((peer for peer in self.peers if "myself" in peer.flags), None)

    @cached_property
    def role(self) -> Role:
        """Its own role; a node that could not be asked counts as a replica of nobody."""
        return self.myself.role if self.myself else Role.REPLICA

    @cached_property
    def slots(self) -> tuple[SlotRange, ...]:
        """The slots it says it owns."""
        return merge(self.myself.slots) if self.myself else ()

    @property
    def master_id(self) -> str:
        """The id of the master it replicates; empty for a master."""
        return self.myself.master_id if self.myself else ""

    @property
    def is_blank(self) -> bool:
        """Knows nobody, owns nothing, holds nothing: free to be used."""
        return self.reachable and len(self.peers) <= 1 and not self.slots and not self.keys


class EndpointFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One listener of an endpoint, tried with a real connection."""

    name: str
    envoy: str
    address: str
    port: int
    protocol: Protocol
    user: str
    problem: str = ""


class EnvoyFacts(msgspec.Struct, frozen=True, kw_only=True):
    """An Envoy as its admin port describes it. `hosts` are the (address, port) it sends commands to; it sends no reads
    to those in `unhealthy`, which do not pass its health checks."""

    name: str
    problem: str = ""
    version: str = ""
    state: str = ""
    hosts: tuple[tuple[str, int], ...] = ()
    unhealthy: tuple[tuple[str, int], ...] = ()


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """Everything observed, at `observed_at_s` (seconds since the epoch)."""

    observed_at_s: float
    units: dict[str, UnitFacts] = {}
    nodes: dict[str, NodeFacts] = {}
    envoys: dict[str, EnvoyFacts] = {}
    endpoints: tuple[EndpointFacts, ...] = ()
    strays: tuple[Stray, ...] = ()
    """Those among the Units that run and are not declared."""

    def reachable_nodes(self) -> tuple[NodeFacts, ...]:
        """The nodes that answered, in the order of their names."""
        return tuple([node for node in self.nodes.values() if not node.problem])

    def node_by_id(self, node_id: str) -> NodeFacts | None:
        """The reachable node with this id, or None."""
        return next((node for node in self.nodes.values() if node.id == node_id and not node.problem), None)
