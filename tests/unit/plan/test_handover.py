"""A planned failover waits until the shard may hold an election, and prefers who may be elected at once."""

from __future__ import annotations

import pytest
from edits import Edit, all_of, node_with, unit_with
from msgspec.structs import replace
from topologies import formed, make_topology

from redisforge.errors import RefusedError
from redisforge.model.facts import Facts
from redisforge.model.steps import Gate, Phase, Promote
from redisforge.model.topology import Engine, Topology
from redisforge.plan.failover import Failover, failover_phase
from redisforge.plan.gates import reasons_against
from redisforge.plan.handover import best_replica, hand_over, pause_left_s
from redisforge.plan.predict import apply, predict, settle
from redisforge.plan.roles import is_in_sync
from redisforge.plan.starting import Wishes

TOPOLOGY = make_topology(3, 2)
NOW_S = 1_000_000.0
FORMED = replace(formed(TOPOLOGY), observed_at_s=NOW_S)
MASTER, FIRST, SECOND = "redis-1", "redis-4", "redis-7"
TIMEOUT_S = TOPOLOGY.redis.node_timeout_ms / 1000


def phase_of(facts: Facts, topology: Topology = TOPOLOGY) -> Phase:
    heir = best_replica(topology, facts, facts.nodes[MASTER].id)
    assert heir is not None
    return hand_over(topology, facts, facts.nodes[MASTER], heir, "a test")


def elected(name: str, ago_s: float, started_ago_s: float = 10_000.0) -> Edit:
    return unit_with(name, elected_at_s=NOW_S - ago_s, started_at_s=NOW_S - started_ago_s)


@pytest.mark.parametrize(
    ("edit", "left_s"),
    [
        (all_of(), 0.0),
        (elected(FIRST, 5.0), 4 * TIMEOUT_S - 5.0),
        (elected(FIRST, 4 * TIMEOUT_S + 1), 0.0),
        (elected(FIRST, 5.0, started_ago_s=1.0), 0.0),  # it has restarted since: its votes are forgotten
        (unit_with(MASTER, replaced_at_s=NOW_S - 3.0), 2 * TIMEOUT_S - 3.0),  # voters remember, whatever restarts
        (unit_with(MASTER, replaced_at_s=NOW_S - 2 * TIMEOUT_S - 1), 0.0),
        (all_of(elected(FIRST, 5.0), unit_with(MASTER, replaced_at_s=NOW_S - 1.0)), 4 * TIMEOUT_S - 5.0),
    ],
)
def test_how_long_a_shard_holds_no_election(edit: Edit, left_s: float) -> None:
    facts = edit(TOPOLOGY, FORMED)
    assert pause_left_s(TOPOLOGY, facts, facts.nodes[MASTER], facts.nodes[FIRST]) == pytest.approx(left_s)


def test_a_replica_that_may_be_elected_at_once_goes_before_one_that_is_ahead() -> None:
    ahead = node_with(FIRST, replication_offset=1_000_000)(TOPOLOGY, FORMED)
    assert best_replica(TOPOLOGY, ahead, ahead.nodes[MASTER].id) == ahead.nodes[FIRST]
    facts = elected(FIRST, 1.0)(TOPOLOGY, ahead)
    assert best_replica(TOPOLOGY, facts, facts.nodes[MASTER].id) == facts.nodes[SECOND]
    assert phase_of(facts).steps == (Promote(node=SECOND, mode="handover", why="a test"),)


def test_it_waits_behind_a_gate_that_opens_with_time() -> None:
    facts = all_of(elected(FIRST, 1.0), elected(SECOND, 2.0))(TOPOLOGY, FORMED)

    phase = phase_of(facts)

    assert phase.steps == ()
    assert phase.gate.name == "electable"
    assert phase.gate.node == SECOND
    assert reasons_against(phase.gate, TOPOLOGY, facts)
    later = replace(facts, observed_at_s=NOW_S + 4 * TIMEOUT_S)
    assert reasons_against(phase.gate, TOPOLOGY, later) == ()
    assert phase_of(later).steps


def test_a_dry_run_shows_what_follows_the_wait() -> None:
    facts = all_of(elected(FIRST, 1.0), elected(SECOND, 2.0))(TOPOLOGY, FORMED)

    plan = predict(TOPOLOGY, facts, Wishes(), lambda seen: failover_phase(TOPOLOGY, seen, Failover(node=MASTER)))

    assert [phase.gate.name for phase in plan.phases] == ["electable", "settled"]
    assert [step.node for phase in plan.phases for step in phase.steps if isinstance(step, Promote)] == [SECOND]


def test_valkey_needs_no_pause() -> None:
    topology = replace(TOPOLOGY, engine=Engine(kind="valkey"))
    facts = elected(FIRST, 1.0)(topology, FORMED)
    for version, waits in (("8.0.4", True), ("8.1.0", False), ("9.1.2", False)):
        nodes = {name: replace(node, version=version) for name, node in facts.nodes.items()}
        seen = replace(facts, nodes=nodes)
        left_s = pause_left_s(topology, seen, seen.nodes[MASTER], seen.nodes[FIRST])
        assert (left_s > 0) is waits, version


def test_a_replica_out_of_sync_is_no_heir() -> None:
    facts = all_of(node_with(FIRST, master_link_up=False), node_with(SECOND, replication_offset=0))(TOPOLOGY, FORMED)
    assert best_replica(TOPOLOGY, facts, facts.nodes[MASTER].id) is None


def test_a_replica_that_cannot_write_to_its_disk_is_no_heir() -> None:
    facts = node_with(FIRST, aof_ok=False)(TOPOLOGY, FORMED)
    assert best_replica(TOPOLOGY, facts, facts.nodes[MASTER].id) == facts.nodes[SECOND]
    with pytest.raises(RefusedError) as raised:
        failover_phase(TOPOLOGY, facts, Failover(node=MASTER, heir=FIRST))
    assert raised.value.why == "it cannot write to its disk, and would refuse all writes"
    assert raised.value.next_step == f"--to {SECOND}; without --to it is chosen"
    assert not is_in_sync(facts.nodes[MASTER], facts.nodes[FIRST])
    assert is_in_sync(facts.nodes[MASTER], facts.nodes[SECOND])


def test_failover_asked_again_does_nothing() -> None:
    wanted = Failover(node=FIRST)
    assert failover_phase(TOPOLOGY, FORMED, wanted) is None
    first = failover_phase(TOPOLOGY, FORMED, Failover(node=MASTER))
    assert first is not None
    assert [type(step) for step in first.steps] == [Promote]
    assert first.gate == Gate("settled", 60.0)


def test_a_takeover_does_not_wait_for_another_shard_that_is_down_too() -> None:
    """Of two dead masters at once: each is taken over by itself, in whatever order."""
    dead = {name: replace(FORMED.nodes[name], problem="does not run", peers=()) for name in (MASTER, "redis-2")}
    facts = replace(FORMED, nodes={**FORMED.nodes, **dead})
    phase = failover_phase(TOPOLOGY, facts, Failover(node=MASTER, mode="takeover"))
    assert phase is not None
    (promote,) = phase.steps
    assert isinstance(promote, Promote)
    assert reasons_against(phase.gate, TOPOLOGY, facts) == (f"{promote.node} has not taken over yet",)
    done = settle(TOPOLOGY, apply(TOPOLOGY, facts, phase.steps, Wishes()))
    assert reasons_against(phase.gate, TOPOLOGY, done) == ()
    assert reasons_against(Gate("promoted", 30.0), TOPOLOGY, done), "the other one's slots have no master yet"
    silent = replace(done, nodes={**done.nodes, promote.node: replace(done.nodes[promote.node], problem="is silent")})
    assert reasons_against(phase.gate, TOPOLOGY, silent) == (f"{promote.node}: is silent",)
