"""`scale`: nodes join and leave, and the slots follow; `rebalance`: slots, or masters, go to where they should be.

Each function makes a Verb (runbooks/change.py). What is asked for is looked up and refused here, in the first facts;
plan/scale.py then says what comes next.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Literal

import msgspec
from msgspec.structs import replace

from redisforge.errors import NodeError, NotFoundError, RefusedError, UsageError
from redisforge.model.facts import Facts, NodeFacts
from redisforge.model.slots import count, describe, subtract
from redisforge.model.topology import DEFAULT_USER, RedisNode, Role, Topology
from redisforge.plan.bring_back import astray, bring_back
from redisforge.plan.named import named_node
from redisforge.plan.predict import Planner
from redisforge.plan.ready import refuse_silent, silent_nodes
from redisforge.plan.removal import LEAST_MASTERS, refuse_removal, refuse_single_copies
from redisforge.plan.resize import as_it_is, grow, leaving_nodes, numbered_as_it_is, without
from redisforge.plan.scale import Scale, scale_phase, slot_moves
from redisforge.plan.starting import Wishes, refuse_unreachable_newcomers
from redisforge.plan.view import ALL_SLOTS, actual_shards, newest_owners, owned_slots
from redisforge.runbooks.change import Verb
from redisforge.runbooks.external import refuse_without_units
from redisforge.runbooks.moving import MoveLimits

_ONE_BY_ONE = """\
for a shard more, start a blank node by what runs the others, then `redisforge scale add HOST:PORT --role master`
for a replica more, likewise: `redisforge scale add HOST:PORT`, or with `--replica-of NODE`
for a node less, `redisforge scale remove NODE`, then stop it by what runs it"""
"""How a cluster that somebody else runs gets its size: `scale add` alone makes a replica, and no shard."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What the verbs of this file have in common. `weights` by node as the operator wrote it; `force`: go on where that
    leaves a shard less protected."""

    weights: Mapping[str, float] = {}
    force: bool = False
    limits: MoveLimits = MoveLimits()


def scale_verb(shards: int, replicas: int, options: Options) -> Verb:
    """As many shards and replicas as asked for, of nodes that RedisForge runs."""
    if shards < LEAST_MASTERS:
        raise UsageError(
            f"a cluster of {shards} masters cannot fail over",
            why="with fewer than three, no majority is left when one fails",
            next_step="ask for at least 3 shards",
        )

    def gather(topology: Topology, facts: Facts) -> Planner | None:
        if topology.access or not astray(topology, facts):
            return None
        refuse_broken(topology, facts)
        _weights(topology, facts, options)
        return lambda seen: bring_back(topology, seen)

    def target(topology: Topology, facts: Facts) -> Topology:
        refuse_without_units(topology, "`scale` with a number of shards or replicas", _ONE_BY_ONE)
        known = numbered_as_it_is(topology, facts)  # a node's declared shard says nothing after slots have moved
        grown = grow(known, shards, replicas, {node.name: node.shard for node in known.nodes})
        return replace(grown, shards=shards, replicas=replicas)

    decided: set[str] = set()

    def planner(topology: Topology, facts: Facts, wishes: Wishes) -> Planner:
        leaving = leaving_nodes(topology, facts, shards, replicas)
        decided.clear()
        decided.update(leaving)
        refuse_removal(topology, facts, leaving, force=True)  # of more replicas, those in sync stay: that is waited for
        if not replicas and not options.force:
            refuse_single_copies(topology, facts, leaving)
        refuse_unreachable_newcomers(topology, facts)  # before they are recorded and declared
        weights = _weights(topology, facts, options)
        wanted = Scale(leaving=leaving, weights=weights, even_replicas=True, wishes=wishes)
        return _planner(topology, facts, wanted)

    def result(topology: Topology, facts: Facts) -> Topology:
        return _left(topology, facts, frozenset(decided))  # nobody else has been stopped

    return Verb(
        name="scale",
        what=f"--shards {shards} --replicas {replicas}",
        planner=planner,
        needs_units=True,
        gather=gather,
        target=target,
        result=result,
        declares=lambda topology: {("shards",): str(topology.shards), ("replicas",): str(topology.replicas)},
        limits=options.limits,
    )


class Newcomer(msgspec.Struct, frozen=True, kw_only=True):
    """A node that somebody else runs, to be added. `master`: the one that a replica is to replicate; "" for the one
    that it protects most."""

    address: str
    port: int
    role: Literal["master", "replica"]
    master: str = ""
    zone: str = ""


def add_verb(newcomer: Newcomer, options: Options) -> Verb:
    """Add a running, empty node to the cluster."""
    here = f"{newcomer.address}:{newcomer.port}"

    def target(topology: Topology, facts: Facts) -> Topology:
        if any((node.address, node.port) == (newcomer.address, newcomer.port) for node in topology.nodes):
            return topology  # an earlier run has recorded it: go on from there
        return _with_newcomer(topology, facts, newcomer)

    def planner(topology: Topology, facts: Facts, wishes: Wishes) -> Planner:
        node = named_node(topology, facts, here)
        _refuse_unfit(topology, facts, node)
        named = {node.name: named_node(topology, facts, newcomer.master).name} if newcomer.master else {}
        _refuse_chain(facts, named)
        wanted = Scale(replica_of=named, weights=_weights(topology, facts, options), wishes=wishes)
        return _planner(topology, facts, wanted)

    role = f" --role {newcomer.role}" + (f" --replica-of {newcomer.master}" if newcomer.master else "")
    return Verb(
        name="scale", what=f"add {here}{role}", planner=planner, needs_units=True, target=target, limits=options.limits,
        declares=lambda topology: {("shards",): str(topology.shards)},
    )  # fmt: skip


def _never() -> bool:
    return False


def remove_verb(name: str, options: Options, *, removed_before: Callable[[], bool] = _never) -> Verb:
    """Take a node out of the cluster: its slots go to the others first.

    `removed_before`: whether the same command has worked on this cluster before. A node that is not there any more is
    then no slip: that run was cut off after it had recorded what is left, and there is little to do.
    """
    notices: list[str] = []

    def leaving_node(topology: Topology, facts: Facts) -> RedisNode | None:
        try:
            return named_node(topology, facts, name)
        except NotFoundError:
            if not removed_before():
                raise
            return None

    def target(topology: Topology, facts: Facts) -> Topology:
        node = leaving_node(topology, facts)
        if node is None:
            return topology
        leaving = node.name
        staying = [node for node in newest_owners(facts) if node.name != leaving]
        return replace(topology, shards=min(topology.shards, len(staying))) if staying else topology

    def planner(topology: Topology, facts: Facts, wishes: Wishes) -> Planner:
        node = leaving_node(topology, facts)
        if node is None:
            notices[:] = [f"{name} is already gone: an earlier run has taken it out"]
            return lambda _: None
        leaving = frozenset({node.name})
        refuse_removal(topology, facts, leaving, force=options.force)
        wanted = Scale(leaving=leaving, weights=_weights(topology, facts, options), wishes=wishes)
        return _planner(topology, facts, wanted)

    def result(topology: Topology, facts: Facts) -> Topology:
        node = leaving_node(topology, facts)
        return _left(topology, facts, frozenset({node.name})) if node else topology

    return Verb(
        name="scale", what=f"remove {name}", planner=planner, needs_units=True, target=target, result=result,
        limits=options.limits, notices=notices, declares=lambda topology: {("shards",): str(topology.shards)},
    )  # fmt: skip


def rebalance_verb(threshold_percent: float, options: Options) -> Verb:
    """Move the fewest slots so that every master has its share by weight."""

    def planner(topology: Topology, facts: Facts, wishes: Wishes) -> Planner:
        weights = _weights(topology, facts, options)
        wanted = Scale(weights=weights, threshold_percent=threshold_percent, wishes=wishes)
        return _planner(topology, facts, wanted)

    words = [f"--weight {name}={weight:g}" for name, weight in options.weights.items()]
    words += [f"--threshold {threshold_percent:g}"] if threshold_percent else []
    return Verb(name="rebalance", what=" ".join(words), planner=planner, limits=options.limits)


def _planner(topology: Topology, facts: Facts, wanted: Scale) -> Planner:
    refuse_broken(topology, facts)
    slot_moves(topology, facts, wanted)  # bad weights and missing room are told before anything is started
    return lambda seen: scale_phase(topology, seen, wanted)


def _left(topology: Topology, facts: Facts, leaving: frozenset[str]) -> Topology:
    """What is left: the leaving nodes are gone, and everything else is recorded as it is now."""
    return as_it_is(without(topology, leaving), facts)


def _weights(topology: Topology, facts: Facts, options: Options) -> dict[str, float]:
    weights = {named_node(topology, facts, name).name: weight for name, weight in options.weights.items()}
    for name, weight in weights.items():
        if not (math.isfinite(weight) and weight >= 0):
            raise UsageError(
                f"the weight of {name} is {weight:g} and must be above 0",
                next_step="1 is the share of every master that is given none, 2 is twice as much",
            )
        if facts.nodes[name].role is not Role.MASTER and facts.nodes[name].reachable:
            raise UsageError(
                f"{name} is a replica now, and a weight is for masters",
                next_step="give the weight to its master; `redisforge status` shows who that is",
            )
    if empty := [name for name, weight in weights.items() if weight == 0]:
        raise UsageError(
            f"{', '.join(empty)} would own no slot with a weight of 0",
            why="a master without slots serves nothing, and the others might be too few for a majority",
            next_step="`redisforge scale remove NODE` takes a node out; else give a weight above 0",
        )
    return weights


def refuse_broken(topology: Topology, facts: Facts) -> None:
    """A cluster that is down as a whole is not changed. Raises NodeError, RefusedError."""
    states = {node.cluster_state for node in facts.reachable_nodes() if node.slots}
    refuse_silent(topology, facts)
    silent = silent_nodes(topology, facts)
    if states == {"fail"} and silent:
        missing = subtract(ALL_SLOTS, owned_slots(facts))
        raise RefusedError(
            "the cluster is in the state fail",
            where=f"{topology.name}: no master answers for {count(missing)} slots: {describe(missing)}",
            why="; ".join(f"{node.name}: {facts.nodes[node.name].problem}" for node in silent[:4]),
            next_step="`redisforge status` says which slots are not served; `redisforge up` starts what does not "
            "run, `redisforge failover NODE --force` lets a replica take over",
        )


def _with_newcomer(topology: Topology, facts: Facts, newcomer: Newcomer) -> Topology:
    shards = actual_shards(topology, facts)
    is_master = newcomer.role == "master"
    shard = topology.shards
    if newcomer.master:
        shard = shards[named_node(topology, facts, newcomer.master).name]
    elif not is_master:
        sizes = {number: list(shards.values()).count(number) for number in range(topology.shards)}
        shard = min(sizes, key=lambda number: (sizes[number], number))
    node = RedisNode(
        name=f"{newcomer.address}:{newcomer.port}",
        host=newcomer.address,
        address=newcomer.address,
        zone=newcomer.zone or newcomer.address,
        port=newcomer.port,
        bus_port=newcomer.port + 10000,
        shard=shard,
        intended_role=Role.MASTER if is_master else Role.REPLICA,
        managed=False,
    )
    return replace(topology, nodes=(*topology.nodes, node), shards=topology.shards + is_master)


def _refuse_unfit(topology: Topology, facts: Facts, node: RedisNode) -> None:
    """The new node answers, is empty, and of the cluster's engine and series. Raises NodeError, RefusedError."""
    seen = facts.nodes[node.name]
    if not seen.reachable:
        access = topology.access
        tls = "TLS, a certificate of this cluster's CA, " if access is None or access.tls else ""
        login = "the cluster's ACL users (users.acl of any node)"
        if access is not None:
            login = f"the user and password of the others ({access.user or DEFAULT_USER})"
        users = f", and {login}" if access is None or access.password else ""
        raise NodeError(
            "the new node cannot be used",
            where=node.name,
            why=seen.problem,
            next_step=f"it must listen there with {tls}cluster-enabled yes{users}",
        )
    others = [other for other in facts.reachable_nodes() if other.name != node.name]
    known = {peer.id for other in others for peer in other.peers}
    if seen.id in known:
        return  # a member already: an earlier run has introduced it
    _refuse_full(seen)
    series = {_series(other.version) for other in others}
    if series and _series(seen.version) not in series:
        raise RefusedError(
            "the new node runs another version",
            where=node.name,
            why=f"it runs {seen.version}, the cluster {', '.join(sorted({other.version for other in others}))}; "
            "replicas cannot read the data format of a newer master",
            next_step="start it with the cluster's version, or upgrade the cluster first (`redisforge upgrade`)",
        )


def _refuse_full(seen: NodeFacts) -> None:
    if seen.is_blank:
        return
    why = f"it stores {seen.keys} keys" if seen.keys else f"it knows {len(seen.peers) - 1} other nodes"
    if seen.slots:
        why = f"it owns {count(seen.slots)} slots ({describe(seen.slots)})"
    raise RefusedError(
        "the new node is not empty, or belongs to another cluster",
        where=seen.name,
        why=why,
        next_step="empty it (FLUSHALL, then CLUSTER RESET HARD), or give another node",
    )


def _series(version: str) -> str:
    return ".".join(version.split(".")[:2])


def _refuse_chain(facts: Facts, named: Mapping[str, str]) -> None:
    for master in named.values():
        if facts.nodes[master].role is not Role.MASTER or not facts.nodes[master].slots:
            raise UsageError(
                f"{master} is no master with slots",
                why="a replica of a replica is not possible in a cluster",
                next_step="name a master; `redisforge status` shows them",
            )
