"""`init-cluster`: formation alone, over nodes that somebody else started."""

from __future__ import annotations

import asyncio
import getpass
import os
import socket
import tempfile
import time
from pathlib import Path

import msgspec

from redisforge.errors import GateError, NodeError, RefusedError, UsageError
from redisforge.fleet.journal import Journal, command_line
from redisforge.fleet.runtime import NoRuntime
from redisforge.model.facts import Facts, NodeFacts
from redisforge.model.layout import ClusterLayout
from redisforge.model.steps import Plan
from redisforge.model.topology import (
    Credentials,
    Engine,
    EnvoySettings,
    Host,
    Persistence,
    RedisNode,
    RedisSettings,
    TlsSettings,
    Topology,
)
from redisforge.model.words import counted
from redisforge.plan.bring_up import next_phase
from redisforge.plan.placement import assign, sharing_is_forced
from redisforge.plan.predict import predict_plan
from redisforge.plan.refusals import master_count
from redisforge.plan.starting import Wishes
from redisforge.redis.connection import Login, ReplyError, speaks_plain_text
from redisforge.redis.observe import NodeAsker
from redisforge.runbooks.cluster import Cluster
from redisforge.runbooks.observe import Observer
from redisforge.runbooks.patience import Patience
from redisforge.runbooks.run import Account, Progress, Runner

LEAST_NODES = 6
LEAST_MASTERS = 3
_WAIT_PAUSE_S = 0.1
_PLAIN_TEXT_LIMIT_S = 1.0
_ROUND_LIMIT = 60
_BUS_OFFSET = 10_000


class Formation(msgspec.Struct, frozen=True, kw_only=True):
    """What to form: `nodes` as `host:port` or `host:port@zone`, how to log in, how long to wait for them."""

    nodes: tuple[str, ...]
    replicas: int
    login: Login
    wait_s: float


class Formed(msgspec.Struct, frozen=True, kw_only=True):
    """The result: the nodes as they were placed, the phases done (none: it was formed already)."""

    topology: Topology
    phases: tuple[str, ...]
    notices: tuple[str, ...]
    seconds: float


def init_cluster(wanted: Formation, progress: Progress) -> Formed:
    """Form a cluster over running, blank nodes, or finish a formation that was cut off.

    Raises:
        UsageError: the list of nodes cannot make a cluster.
        NodeError: a node does not answer, or is no cluster node.
        RefusedError: a node holds data or belongs to another cluster.
        GateError: the nodes did not come to agree.
    """
    return asyncio.run(_form(wanted, progress))


def plan_formation(wanted: Formation, progress: Progress) -> Plan:
    """`--dry-run`: the plan that `init_cluster` would carry out now. Raises as `init_cluster`."""

    async def plan() -> Plan:
        topology, facts = await _survey(wanted, progress)
        return predict_plan(topology, facts, Wishes())

    return asyncio.run(plan())


async def _form(wanted: Formation, progress: Progress) -> Formed:
    began = time.monotonic()
    topology, facts = await _survey(wanted, progress)
    cluster = _foreign_cluster(topology)
    done: list[str] = []
    with tempfile.TemporaryDirectory(prefix="redisforge-") as folder:
        journal = Journal(Path(folder, "journal.jsonl"), verb="init-cluster", user=getpass.getuser())
        async with Observer(cluster, login=wanted.login, with_listing=True) as observer:
            runner = Runner(cluster, observer, {}, Account(journal, progress, command_line("redisforge init-cluster")))
            while phase := next_phase(topology, facts, Wishes()):
                if len(done) >= _ROUND_LIMIT:
                    raise GateError(f"no end after {_ROUND_LIMIT} phases", why=f"the last one was: {done[-1]}")
                try:
                    facts = await runner.carry_out(phase, facts)
                except ReplyError as error:
                    error.next_step = (
                        "run the command again: it goes on from what is there. Perhaps somebody else formed the "
                        "same nodes at the same time"
                    )
                    raise
                done.append(phase.title)
    hosts = [Host(node.host, node.address, node.zone) for node in topology.nodes]
    notices = (
        ("masters and replicas share hosts: the loss of one host can lose a shard",)
        if sharing_is_forced(hosts, wanted.replicas)
        else ()
    )
    return Formed(topology=topology, phases=tuple(done), notices=notices, seconds=time.monotonic() - began)


async def _survey(wanted: Formation, progress: Progress) -> tuple[Topology, Facts]:
    """Ask all nodes what they are, waiting for those that do not listen yet; then place them."""
    seats = parse_nodes(wanted.nodes)
    shards = len(seats) // (wanted.replicas + 1)
    if len(seats) < LEAST_NODES or shards < LEAST_MASTERS:
        raise UsageError(
            f"{counted(len(seats), 'node')} with {counted(wanted.replicas, 'replica')} each "
            f"make {counted(shards, 'master')}",
            why=f"a cluster needs at least {LEAST_NODES} nodes and {LEAST_MASTERS} masters: with fewer no majority "
            "is left when one fails",
            next_step="name more nodes, or ask for fewer replicas with --replicas",
        )
    began = time.monotonic()
    patience = Patience(f"ask {len(seats)} nodes", began)
    async with NodeAsker(wanted.login, with_listing=True) as asker:
        while True:
            named = [(f"{host.address}:{port}", (host.address, port)) for host, port in seats]
            nodes = await asker.observe_all(named)
            silent = [node for node in nodes.values() if not node.reachable]
            if not silent:
                break
            now = time.monotonic()
            left_s = began + wanted.wait_s - now
            if left_s < 0 or not all(_may_come(node) for node in silent):
                raise await _unusable(silent, len(nodes), with_tls=bool(wanted.login.ca_path))
            reasons = [f"{node.name}: {node.problem}" for node in silent]
            if line := patience.line(now, left_s, reasons, Facts(observed_at_s=time.time())):
                progress(line)
            await asyncio.sleep(_WAIT_PAUSE_S)
    topology = _topology(seats, shards, wanted.replicas, nodes)
    facts = Facts(observed_at_s=time.time(), nodes=nodes)
    _refuse_other_shape(topology, facts)
    return topology, facts


async def _unusable(silent: list[NodeFacts], total: int, *, with_tls: bool) -> NodeError:
    """The error that names the nodes that did not answer, and those among them that speak no TLS."""
    plain = await asyncio.gather(
        *(speaks_plain_text((node.address, node.port), _PLAIN_TEXT_LIMIT_S) for node in silent if with_tls)
    )
    names = {node.name for node, is_plain in zip(silent, plain or [False] * len(silent), strict=True) if is_plain}
    hint = " (this port speaks plain Redis, without TLS)"
    next_step = (
        "give the nodes' tls-port; or, if the password may cross this network in plain text, leave out --ca-file"
        if names
        else "start them with cluster-enabled yes, check the password (REDIS_REQUIREPASS, --user) and the TLS options"
    )
    return NodeError(
        f"{len(silent)} of {total} nodes cannot be used",
        where=", ".join(node.name for node in silent),
        why="\n".join(f"{node.name}: {node.problem}{hint * (node.name in names)}" for node in silent),
        next_step=next_step,
    )


def _refuse_other_shape(topology: Topology, facts: Facts) -> None:
    """The nodes are a cluster already, with another number of masters. Raises RefusedError."""
    masters, total = master_count(topology, facts), len(topology.nodes)
    if not masters or masters == topology.shards:
        return
    replicas = total // masters - 1
    fits = replicas >= 0 and total // (replicas + 1) == masters
    raise RefusedError(
        f"these nodes are a cluster already, with {masters} masters",
        where=", ".join(node.name for node in topology.nodes),
        why=f"{total} nodes with --replicas {topology.replicas} would make {topology.shards} masters, and another "
        "number of masters means moving slots, which is not part of forming a cluster",
        next_step="nothing has to be formed here"
        + (f"; with --replicas {replicas} the command checks that it is complete" if fits else ""),
    )


def _may_come(node: NodeFacts) -> bool:
    return node.loading or "refused: nothing listens" in node.problem


def parse_nodes(texts: tuple[str, ...]) -> list[tuple[Host, int]]:
    """Read `host:port[@zone]` into (host, port), names resolved: CLUSTER MEET takes addresses only.

    Raises:
        UsageError: not of that form, twice the same, or a name that does not resolve.
    """
    seats: list[tuple[Host, int]] = []
    for text in texts:
        place, _, zone = text.strip().partition("@")
        name, separator, port = place.rpartition(":")
        if not separator or not port.isdigit() or not 0 < int(port) < 65536 or not name:
            raise UsageError(f"not a node: {text!r}", next_step="write host:port or host:port@zone")
        try:
            address = socket.getaddrinfo(name.strip("[]"), int(port), type=socket.SOCK_STREAM)[0][4][0]
        except OSError as error:
            raise UsageError(f"{name!r} does not resolve", why=str(error), next_step="give its address") from error
        seats.append((Host(str(address), str(address), zone or str(address)), int(port)))
    if len({(host.address, port) for host, port in seats}) < len(seats):
        raise UsageError("a node is named twice", where=", ".join(texts), next_step="name each node once")
    return seats


def _topology(seats: list[tuple[Host, int]], shards: int, replicas: int, nodes: dict[str, NodeFacts]) -> Topology:
    waiting: dict[Host, list[int]] = {}
    for host, port in seats:
        waiting.setdefault(host, []).append(port)
    placed: list[RedisNode] = []
    for seat in assign([host for host, _ in seats], shards):
        port = waiting[seat.host].pop(0)
        name = f"{seat.host.address}:{port}"
        myself = nodes[name].myself
        placed.append(
            RedisNode(
                name=name, host=seat.host.name, address=seat.host.address, zone=seat.host.zone, port=port,
                bus_port=(myself.bus_port if myself else 0) or port + _BUS_OFFSET,
                shard=seat.shard, intended_role=seat.role,
            )
        )  # fmt: skip
    hosts = tuple(dict.fromkeys(host for host, _ in seats))
    return bare_topology(tuple(placed), hosts, shards, replicas)


def bare_topology(nodes: tuple[RedisNode, ...], hosts: tuple[Host, ...], shards: int, replicas: int) -> Topology:
    """A Topology of nodes alone; how they are configured is their owner's business."""
    return Topology(
        name="init-cluster",
        engine=Engine(),
        shards=shards,
        replicas=replicas,
        hosts=hosts,
        nodes=nodes,
        envoys=(),
        endpoints=(),
        users=(),
        redis=RedisSettings(0, "", Persistence(), 0, 0, 0, 0, ""),
        envoy=EnvoySettings("", "", 0, 0, 0.0, 0, 0),
        tls=TlsSettings("", "", "", 0, (), require_client_certificates=False),
    )


def _foreign_cluster(topology: Topology) -> Cluster:
    layout = ClusterLayout(os.devnull)
    return Cluster(topology, layout, Credentials({}), {}, NoRuntime())
