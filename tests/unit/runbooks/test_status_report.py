"""The report of `status`, from facts alone: also of a cluster that is half there."""

from __future__ import annotations

import msgspec
import pytest
from msgspec.structs import replace

from redisforge.model.facts import EndpointFacts, EnvoyFacts, Facts, NodeFacts, PeerView, UnitFacts, UnitState
from redisforge.model.report import StatusReport
from redisforge.model.slots import SlotRange
from redisforge.model.topology import (
    Endpoint,
    EndpointKind,
    Engine,
    EnvoyInstance,
    EnvoySettings,
    Host,
    Listener,
    Persistence,
    RedisNode,
    RedisSettings,
    Role,
    TlsSettings,
    Topology,
    User,
    UserRole,
)
from redisforge.runbooks.status import report

HOST = Host("local", "127.0.0.1", "a")
SLOTS = (SlotRange(0, 5460), SlotRange(5461, 10921), SlotRange(10922, 16383))
ENVOY = EnvoyInstance("envoy-1", "local", "127.0.0.1", "a", 9901)
TOPOLOGY = Topology(
    name="main",
    engine=Engine(),
    shards=3,
    replicas=1,
    hosts=(HOST,),
    nodes=tuple(
        RedisNode(
            f"redis-{number}",
            "local",
            "127.0.0.1",
            "a",
            7000 + number,
            17000 + number,
            (number - 1) % 3,
            Role.MASTER if number <= 3 else Role.REPLICA,
        )
        for number in range(1, 7)
    ),
    envoys=(ENVOY,),
    endpoints=(
        Endpoint(
            "primary", EndpointKind.COMMANDS, "RESP2", "app_user", False, (Listener("envoy-1", "127.0.0.1", 6380),)
        ),
    ),
    users=(User("app_user", UserRole.APPLICATION),),
    redis=RedisSettings(2**28, "noeviction", Persistence("aof"), 5000, 10000, 511, 1, "notice"),
    envoy=EnvoySettings("", "", 1, 1, 1.0, 1, 1),
    tls=TlsSettings("", "", "", 825, (), require_client_certificates=False),
)


def peer(node: RedisNode, *flags: str) -> PeerView:
    """How the others see the node as it is declared."""
    is_master = node.intended_role is Role.MASTER
    return PeerView(
        id=f"id-{node.name}",
        address=node.address,
        port=node.port,
        flags=(*flags, "master" if is_master else "slave"),
        master_id="" if is_master else f"id-redis-{node.shard + 1}",
        slots=(SLOTS[node.shard],) if is_master else (),
    )


def healthy(node: RedisNode) -> NodeFacts:
    """The node as it is declared, with a hundred keys."""
    return NodeFacts(
        name=node.name,
        address=node.address,
        port=node.port,
        id=f"id-{node.name}",
        version="8.6.3",
        peers=tuple(peer(other, *(("myself",) if other is node else ())) for other in TOPOLOGY.nodes),
        keys=100,
        used_memory_bytes=1000,
        max_memory_bytes=2**28,
        cluster_state="ok",
        replication_offset=500,
        master_link_up=node.intended_role is Role.REPLICA,
        pid=1,
    )


ALONE = PeerView(id="id-redis-4", address="127.0.0.1", port=7004, flags=("myself", "master"))
UNITS = (*(node.name for node in TOPOLOGY.nodes), "envoy-1")
FACTS = Facts(
    observed_at_s=1.0,
    units={name: UnitFacts(name=name, state=UnitState.RUNNING, pid=40 + n) for n, name in enumerate(UNITS, 1)},
    nodes={node.name: healthy(node) for node in TOPOLOGY.nodes},
    envoys={
        "envoy-1": EnvoyFacts(
            name="envoy-1", version="1.40.0", hosts=tuple((node.address, node.port) for node in TOPOLOGY.nodes)
        )
    },
    endpoints=(
        EndpointFacts(
            name="primary", envoy="envoy-1", address="127.0.0.1", port=6380, protocol="RESP2", user="app_user"
        ),
    ),
)


def node_changed(name: str, **changes: object) -> Facts:
    """The facts with one node changed."""
    return replace(FACTS, nodes={**FACTS.nodes, name: replace(FACTS.nodes[name], **changes)})


def dead(*names: str, state: UnitState = UnitState.STOPPED) -> Facts:
    """The facts with these Units not running."""
    silent = {
        node.name: NodeFacts(name=node.name, address=node.address, port=node.port, problem="refused")
        for node in TOPOLOGY.nodes
        if node.name in names
    }
    units = {name: UnitFacts(name=name, state=state) for name in names}
    return replace(FACTS, nodes={**FACTS.nodes, **silent}, units={**FACTS.units, **units})


def endpoint_failing() -> Facts:
    """The only endpoint does not answer."""
    return replace(FACTS, endpoints=(replace(FACTS.endpoints[0], problem="connection refused"),))


def brought_back(facts: Facts) -> Facts:
    """A node that is not declared runs, too."""
    return replace(facts, units={**facts.units, "redis-9": UnitFacts(name="redis-9", state=UnitState.RUNNING, pid=9)})


def after_failover() -> Facts:
    """redis-4 is the master of shard 1 now, and redis-1 its replica."""

    def changed(view: PeerView) -> PeerView:
        own = tuple(flag for flag in view.flags if flag == "myself")
        if view.id == "id-redis-1":
            return replace(view, flags=(*own, "slave"), slots=(), master_id="id-redis-4")
        if view.id == "id-redis-4":
            return replace(view, flags=(*own, "master"), slots=SLOTS[:1], master_id="")
        return view

    nodes = {
        name: replace(
            node,
            peers=tuple(changed(p) for p in node.peers),
            master_link_up=name not in ("redis-2", "redis-3", "redis-4"),
        )
        for name, node in FACTS.nodes.items()
    }
    return replace(FACTS, nodes=nodes)


def test_a_healthy_cluster() -> None:
    seen = report(TOPOLOGY, FACTS)
    cluster = seen.cluster
    assert (cluster.name, cluster.state, cluster.slots_ok) == ("main", "ok", 16384)
    assert (cluster.engine, cluster.envoy) == ("redis 8.6.3", "1.40.0")
    assert seen.problems == ()
    assert [(n.name, n.shard, n.role, n.slot_count) for n in seen.nodes] == [
        ("redis-1", 1, "master", 5461),
        ("redis-4", 1, "replica", 0),
        ("redis-2", 2, "master", 5461),
        ("redis-5", 2, "replica", 0),
        ("redis-3", 3, "master", 5462),
        ("redis-6", 3, "replica", 0),
    ]
    assert seen.nodes[0].slots == "0-5460"
    assert [node.pid for node in seen.nodes] == [41, 44, 42, 45, 43, 46], "of the Unit, not what the node says"
    assert {node.state for node in seen.nodes} == {"ok"}
    assert [(e.name, e.host, e.port, e.protocol, e.user, e.state) for e in seen.endpoints] == [
        ("primary", "127.0.0.1", 6380, "RESP2", "app_user", "ok")
    ]


@pytest.mark.parametrize(
    ("facts", "state", "slots_ok"),
    [
        (FACTS, "ok", 16384),
        (after_failover(), "ok", 16384),
        (dead("redis-4"), "degraded", 16384),
        (node_changed("redis-2", aof_ok=False), "degraded", 16384),
        (dead("redis-2"), "fail", 16384 - 5461),
        (endpoint_failing(), "fail", 16384),
        (node_changed("redis-3", cluster_state="fail"), "fail", 16384 - 5462),
        (dead(*UNITS), "stopped", 0),
        (brought_back(dead(*UNITS)), "stopped", 0),
        (dead(*UNITS, state=UnitState.ABSENT), "stopped", 0),
    ],
    ids=[
        "ok",
        "after a failover",
        "a replica is down",
        "cannot save",
        "a master is down",
        "no endpoint",
        "one says fail",
        "all stopped",
        "all stopped but for what is not declared",
        "never started",
    ],
)
def test_the_state_of_the_cluster(facts: Facts, state: str, slots_ok: int) -> None:
    seen = report(TOPOLOGY, facts)
    assert (seen.cluster.state, seen.cluster.slots_ok) == (state, slots_ok)
    assert bool(seen.problems) is (state != "ok")


@pytest.mark.parametrize(
    ("facts", "name", "state"),
    [
        (dead("redis-4"), "redis-4", "stopped"),
        (dead("redis-4", state=UnitState.ABSENT), "redis-4", "absent"),
        (dead("redis-4", state=UnitState.HELD), "redis-4", "held"),
        (dead("redis-4", state=UnitState.BACKOFF), "redis-4", "backoff"),
        (dead("redis-4", state=UnitState.RUNNING), "redis-4", "silent"),
        (node_changed("redis-4", problem="LOADING", loading=True), "redis-4", "loading"),
        (node_changed("redis-4", master_link_up=False), "redis-4", "no link"),
        (node_changed("redis-4", master_link_up=False, sync_in_progress=True), "redis-4", "syncing"),
        (node_changed("redis-4", cluster_state="fail"), "redis-4", "cluster fail"),
        (node_changed("redis-4", peers=(ALONE,)), "redis-4", "no slots"),
    ],
)
def test_the_state_of_a_node(facts: Facts, name: str, state: str) -> None:
    assert next(node.state for node in report(TOPOLOGY, facts).nodes if node.name == name) == state


def test_what_is_not_known_is_null() -> None:
    """Not zero: a node that cannot be asked may hold millions of keys."""
    seen = next(node for node in report(TOPOLOGY, dead("redis-2")).nodes if node.name == "redis-2")
    assert (seen.id, seen.role, seen.slots, seen.slot_count, seen.pid) == ("", "unknown", "", 0, None)
    assert (seen.keys, seen.used_memory_bytes, seen.max_memory_bytes, seen.lag_bytes) == (None, None, None, None)


def test_the_pid_of_a_node_of_others() -> None:
    """Without a Unit it is what the node itself says."""
    assert {node.pid for node in report(TOPOLOGY, replace(FACTS, units={})).nodes} == {1}


@pytest.mark.parametrize(("master", "replica", "lag"), [(500, 500, 0), (900, 500, 400), (500, 510, 0)])
def test_lag(master: int, replica: int, lag: int) -> None:
    """Two offsets that are read one after the other may cross: that is no negative lag."""
    facts = node_changed("redis-1", replication_offset=master)
    facts = replace(
        facts, nodes={**facts.nodes, "redis-4": replace(FACTS.nodes["redis-4"], replication_offset=replica)}
    )
    lags = {node.name: node.lag_bytes for node in report(TOPOLOGY, facts).nodes}
    assert (lags["redis-1"], lags["redis-4"]) == (None, lag)


def test_the_lag_behind_a_dead_master_is_unknown() -> None:
    lags = {node.name: node.lag_bytes for node in report(TOPOLOGY, dead("redis-1")).nodes}
    assert (lags["redis-4"], lags["redis-5"]) == (None, 0)


def test_roles_are_those_of_now() -> None:
    """After a failover the shard keeps its number, and its master comes first."""
    nodes = [(n.name, n.shard, n.role) for n in report(TOPOLOGY, after_failover()).nodes[:2]]
    assert nodes == [("redis-4", 1, "master"), ("redis-1", 1, "replica")]


@pytest.mark.parametrize("facts", [FACTS, dead(*UNITS), dead("redis-2"), endpoint_failing()])
def test_the_report_survives_json(facts: Facts) -> None:
    seen = report(TOPOLOGY, facts)
    assert msgspec.json.decode(msgspec.json.encode(seen), type=StatusReport) == seen
