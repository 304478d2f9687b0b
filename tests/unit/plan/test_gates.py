"""The gates: each holds in a cluster that is in order, and says in words what is missing otherwise."""

from __future__ import annotations

import pytest
from edits import (
    Edit,
    all_of,
    also_listing,
    blank,
    blank_node,
    envoy_with,
    every_line_with,
    gone,
    line_with,
    node_with,
    unit_with,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from topologies import formed, make_topology, nothing_runs
from world import World

from redisforge.errors import RefusedError
from redisforge.model.facts import Facts, PeerView, UnitState
from redisforge.model.slots import SlotRange
from redisforge.model.steps import Gate
from redisforge.model.topology import Topology
from redisforge.plan.gates import GATES, reasons_against, untold
from redisforge.plan.view import ALL_SLOTS

TOPOLOGY = make_topology(envoys=2)
FORMED = formed(TOPOLOGY)
HANDOVER_SEEN_BY_ALL = all_of(
    every_line_with("redis-4", slots=(SlotRange(0, 5460),), flags=("master",), master_id=""),
    line_with("redis-4", flags=("myself", "master")),
    every_line_with("redis-1", slots=(), flags=("slave",), master_id=FORMED.nodes["redis-4"].id),
    line_with("redis-1", flags=("myself", "slave")),
    node_with("redis-1", master_link_up=True, replication_offset=1),
)


def listing_all_but(name: str, *missing: str) -> Edit:
    """The node names everybody to proxies, but these."""

    def edit(topology: Topology, facts: Facts) -> Facts:
        listed = tuple(node.id for node in facts.nodes.values() if node.name not in missing)
        return node_with(name, listed=listed)(topology, facts)

    return edit


def endpoint_with(envoy: str, problem: str) -> Edit:
    """The endpoint at one Envoy, with this problem."""
    return lambda _, facts: replace(
        facts,
        endpoints=tuple(replace(e, problem=problem) if e.envoy == envoy else e for e in facts.endpoints),
    )


def unprobed(_: Topology, facts: Facts) -> Facts:
    """No endpoint was tried."""
    return replace(facts, endpoints=())


def without_units(_: Topology, facts: Facts) -> Facts:
    """Nodes that somebody else runs."""
    return replace(facts, units={})


@pytest.mark.parametrize("name", GATES)
def test_all_gates_hold_in_a_cluster_that_is_in_order(name: str) -> None:
    assert GATES[name](TOPOLOGY, FORMED) == ()


SILENT = "redis-2 (127.0.0.1:7002): refused: nothing listens"
CLOSED: tuple[tuple[str, str, Edit, str], ...] = (
    ("nodes_answer", "runs and is silent", gone("redis-2", UnitState.RUNNING), SILENT),
    ("nodes_answer", "keeps dying", gone("redis-2", UnitState.BACKOFF), SILENT),
    ("nodes_answer", "silent without a keeper", gone("redis-2", UnitState.ORPHANED), SILENT),
    ("nodes_answer", "somebody else's", all_of(gone("redis-2"), without_units), SILENT),
    ("nodes_answer", "Envoy is silent", envoy_with("envoy-2", problem="no answer"), "envoy-2: no answer"),
    (
        "slots_assigned",
        "a gap",
        every_line_with("redis-2", slots=(SlotRange(5461, 10000),)),
        "slots without an owner: 10001-10921",
    ),
    ("all_met", "a newcomer", blank("redis-6"), "redis-1 does not know redis-6 yet"),
    ("all_met", "a broken link", line_with("redis-3", "redis-1", link_up=False), "redis-3 does not know redis-1 yet"),
    (
        "all_met",
        "an introduction",
        line_with("redis-3", "redis-1", flags=("handshake",)),
        "redis-3 does not know redis-1 yet",
    ),
    (
        "slots_seen",
        "one does not know",
        line_with("redis-5", "redis-2", slots=()),
        "redis-5 sees no owner for slots 5461-10921",
    ),
    (
        "agreed",
        "one does not know",
        line_with("redis-5", "redis-2", slots=()),
        "redis-5 sees no owner for slots 5461-10921",
    ),
    (
        "agreed",
        "another owner",
        line_with("redis-5", "redis-2", slots=(SlotRange(5461, 10922),)),
        "redis-5 sees other slot owners",
    ),
    ("agreed", "still fail", node_with("redis-3", cluster_state="fail"), "redis-3 reports cluster_state:fail"),
    ("agreed", "open for export", line_with("redis-1", migrating=((7, "x"),)), "redis-1 has open slots: 7"),
    ("agreed", "open for import", line_with("redis-1", importing=((9, "x"), (3, "x"))), "redis-1 has open slots: 3, 9"),
    ("in_sync", "not agreed", node_with("redis-3", cluster_state="fail"), "redis-3 reports cluster_state:fail"),
    ("in_sync", "a silent one", gone("redis-2", UnitState.RUNNING), SILENT),
    (
        "in_sync",
        "an unattached node",
        line_with("redis-5", flags=("myself", "master"), master_id=""),
        "redis-5 is a master without slots",
    ),
    (
        "attached",
        "an unattached node",
        line_with("redis-5", flags=("myself", "master"), master_id=""),
        "redis-5 is a master without slots",
    ),
    ("in_sync", "no link", node_with("redis-5", master_link_up=False), "redis-5 has no link to its master"),
    ("attached", "no link", node_with("redis-5", master_link_up=False), "redis-5 has no link to its master"),
    (
        "in_sync",
        "first copy",
        node_with("redis-5", master_link_up=False, sync_in_progress=True),
        "redis-5 has no link to its master (first copy)",
    ),
    (
        "attached",
        "first copy",
        node_with("redis-5", master_link_up=False, sync_in_progress=True),
        "redis-5 has no link to its master (first copy)",
    ),
    (
        "in_sync",
        "nothing heard",
        node_with("redis-5", replication_offset=0),
        "redis-5 has not heard from its master yet",
    ),
    (
        "attached",
        "nothing heard",
        node_with("redis-5", replication_offset=0),
        "redis-5 has not heard from its master yet",
    ),
    ("promoted", "a master is gone", gone("redis-2"), "no reachable master owns slots 5461-10921"),
    (
        "promoted",
        "claimed by hearsay only",
        line_with("redis-2", slots=()),
        "no reachable master owns slots 5461-10921",
    ),
    (
        "told",
        "a replica is not named",
        listing_all_but("redis-2", "redis-5"),
        "redis-2 does not tell proxies of redis-5 yet",
    ),
    ("endpoints_serve", "an endpoint fails", endpoint_with("envoy-2", "NOAUTH"), "primary at 127.0.0.1:16281: NOAUTH"),
    ("endpoints_serve", "not tried", unprobed, "primary at 127.0.0.1:16280 was not probed"),
    (
        "endpoints_serve",
        "a stale view",
        envoy_with("envoy-1", hosts=(("127.0.0.1", 7001),)),
        "envoy-1 does not send to 127.0.0.1:7002, ",
    ),
    ("endpoints_serve", "a silent Envoy", envoy_with("envoy-1", problem="no answer"), "envoy-1: no answer"),
    (
        "endpoints_serve",
        "an Envoy that sends to a stranger",
        envoy_with("envoy-1", hosts=(*FORMED.envoys["envoy-1"].hosts, ("127.0.0.1", 9))),
        "envoy-1 still sends to 127.0.0.1:9",
    ),
    ("linked", "no link", node_with("redis-5", master_link_up=False), "redis-5 has no link to its master"),
    (
        "linked",
        "nothing heard",
        node_with("redis-5", replication_offset=0),
        "redis-5 has not heard from its master yet",
    ),
    ("settled", "no link", node_with("redis-5", master_link_up=False), "redis-5 has no link to its master"),
    ("settled", "not agreed", node_with("redis-3", cluster_state="fail"), "redis-3 reports cluster_state:fail"),
    (
        "forgotten",
        "a dead identity",
        line_with("redis-3", "redis-1", id="dead-and-gone"),
        "redis-3 still lists dead-and",
    ),
)


@pytest.mark.parametrize(
    ("name", "edit", "reason"),
    [(name, edit, reason) for name, _, edit, reason in CLOSED],
    ids=[f"{name}, {case}" for name, case, _, _ in CLOSED],
)
def test_a_gate_says_what_is_missing(name: str, edit: Edit, reason: str) -> None:
    reasons = GATES[name](TOPOLOGY, edit(TOPOLOGY, FORMED))
    assert any(found.startswith(reason) for found in reasons), reasons


def test_every_gate_has_a_case() -> None:
    assert {name for name, *_ in CLOSED} == set(GATES)


def test_reads_of_one_node_are_followed_at_every_envoy() -> None:
    host = ("127.0.0.1", 7005)
    drained = envoy_with("envoy-1", unhealthy=(host,))(TOPOLOGY, FORMED)
    unread, read_again = Gate("unread", 1.0, node="redis-5"), Gate("read_again", 1.0, node="redis-5")

    assert reasons_against(unread, TOPOLOGY, drained) == ("envoy-2 still sends reads to redis-5",)
    assert reasons_against(read_again, TOPOLOGY, drained) == ("envoy-1 does not send reads to redis-5 yet",)
    assert reasons_against(read_again, TOPOLOGY, FORMED) == ()
    both = envoy_with("envoy-2", unhealthy=(host,))(TOPOLOGY, drained)
    assert reasons_against(unread, TOPOLOGY, both) == ()


def test_nodes_that_leave_do_not_count() -> None:
    facts = gone("redis-2", UnitState.RUNNING)(
        TOPOLOGY, line_with("redis-5", flags=("myself", "master"))(TOPOLOGY, FORMED)
    )

    assert reasons_against(Gate("nodes_answer", 1.0), TOPOLOGY, facts)
    assert not reasons_against(Gate("nodes_answer", 1.0, without=("redis-2",)), TOPOLOGY, facts)


NEWCOMER = PeerView(id="new", address="127.0.0.1", port=7009, flags=("master",))
OPEN: tuple[tuple[str, str, Edit], ...] = (
    ("nodes_answer", "stopped", gone("redis-2", UnitState.STOPPED)),
    ("nodes_answer", "absent", gone("redis-2", UnitState.ABSENT)),
    ("nodes_answer", "held back", gone("redis-2", UnitState.HELD)),
    (
        "nodes_answer",
        "an Envoy that is stopped",
        all_of(envoy_with("envoy-2", problem="down"), unit_with("envoy-2", state=UnitState.STOPPED)),
    ),
    (
        "nodes_answer",
        "an Envoy that answers and is not ready",
        envoy_with("envoy-2", problem="warming", version="1.40.0"),
    ),
    ("slots_assigned", "the owner is dead", gone("redis-2")),
    ("slots_assigned", "known to one node only", line_with("redis-5", "redis-2", slots=())),
    ("all_met", "somebody is down", gone("redis-2")),
    ("agreed", "somebody is down", gone("redis-2")),
    ("agreed", "one knows somebody without slots", also_listing("redis-1", NEWCOMER)),
    ("in_sync", "a stopped replica", gone("redis-5")),
    ("in_sync", "roles have changed", HANDOVER_SEEN_BY_ALL),
    ("attached", "somebody is down", gone("redis-2")),
    ("attached", "roles have changed", HANDOVER_SEEN_BY_ALL),
    ("promoted", "a replica is gone", gone("redis-5")),
    ("promoted", "roles have changed", HANDOVER_SEEN_BY_ALL),
    ("told", "nobody was asked", node_with("redis-1", listed=None)),
    (
        "told",
        "a replica without a link is not named",
        all_of(listing_all_but("redis-2", "redis-5"), node_with("redis-5", master_link_up=False)),
    ),
    ("endpoints_serve", "an Envoy that still lists a node that is down", gone("redis-5")),
)


@pytest.mark.parametrize(
    ("name", "edit"), [(name, edit) for name, _, edit in OPEN], ids=[f"{name}, {case}" for name, case, _ in OPEN]
)
def test_a_gate_does_not_ask_for_more(name: str, edit: Edit) -> None:
    assert GATES[name](TOPOLOGY, edit(TOPOLOGY, FORMED)) == ()


def test_nobody_answers_on_a_bare_machine() -> None:
    """Without Units the nodes are somebody else's and must answer; blank ones do, and own nothing."""
    bare = nothing_runs(TOPOLOGY)
    assert len(GATES["nodes_answer"](TOPOLOGY, bare)) == len(TOPOLOGY.nodes)
    blanks = replace(bare, nodes={n.name: blank_node(TOPOLOGY, n.name) for n in TOPOLOGY.nodes})
    assert GATES["nodes_answer"](TOPOLOGY, blanks) == ()
    assert GATES["slots_assigned"](TOPOLOGY, blanks) == ("slots without an owner: 0-16383",)
    assert len(GATES["all_met"](TOPOLOGY, blanks)) == len(TOPOLOGY.nodes)


def test_who_is_not_told_of_whom() -> None:
    facts = listing_all_but("redis-2", "redis-1", "redis-5")(TOPOLOGY, FORMED)
    assert [(node.name, other.name) for node, other in untold(facts)] == [
        ("redis-2", "redis-1"),
        ("redis-2", "redis-5"),
    ]


def test_nobody_is_told_of_an_empty_master_or_its_replicas() -> None:
    """CLUSTER SLOTS has them once they have slots: after a scale that was cut they wait, and nobody waits for them."""
    hidden = listing_all_but("redis-2", "redis-1", "redis-4")(TOPOLOGY, FORMED)
    assert hidden.nodes["redis-4"].master_id == hidden.nodes["redis-1"].id
    emptied = line_with("redis-1", slots=())(TOPOLOGY, hidden)
    assert len(untold(hidden)) == 2
    assert untold(emptied) == ()


@pytest.mark.parametrize(
    "edit",
    [endpoint_with("envoy-2", "NOAUTH"), envoy_with("envoy-2", problem="down"), envoy_with("envoy-2", hosts=())],
)
def test_a_gate_about_one_envoy_is_about_no_other(edit: Edit) -> None:
    facts = edit(TOPOLOGY, FORMED)
    assert reasons_against(Gate("endpoints_serve", 1.0, envoy="envoy-1"), TOPOLOGY, facts) == ()
    assert reasons_against(Gate("endpoints_serve", 1.0, envoy="envoy-2"), TOPOLOGY, facts)
    assert reasons_against(Gate("endpoints_serve", 1.0), TOPOLOGY, facts)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(3, 5), st.integers(0, 2), st.sets(st.integers(0, 8)), st.sets(st.integers(0, 8)))
def test_every_phase_reaches_its_own_gate(shards: int, replicas: int, killed: set[int], blanked: set[int]) -> None:
    """So that the runner is not left waiting for what the phase does not do."""
    world = World(make_topology(shards, replicas))
    reach_every_gate(world)
    world.fill()
    nodes = [node.name for node in world.topology.nodes]
    for name in nodes[:9]:
        if nodes.index(name) in killed:
            world.kill(name)
        if nodes.index(name) in blanked:
            world.lose_disk(name)
    try:
        reach_every_gate(world)
    except RefusedError:
        assert world.surviving_slots() != ALL_SLOTS


def reach_every_gate(world: World) -> None:
    """Converge; the gate of each phase holds after it."""
    while phase := world.next_phase():
        world.carry_out(phase.steps)
        world.settle()
        assert reasons_against(phase.gate, world.topology, world.facts) == (), phase.title
