"""A cluster that is stopped as a whole: no verb waits for it, and each says what starts it."""

from __future__ import annotations

import time

import msgspec
import pytest
from msgspec.structs import replace
from topologies import formed, make_topology

from redisforge.errors import NodeError
from redisforge.model.facts import Facts, NodeFacts
from redisforge.model.topology import Engine, Topology
from redisforge.plan.predict import predict
from redisforge.plan.starting import Wishes
from redisforge.runbooks.apply_external import external_settings_verb
from redisforge.runbooks.change import Verb
from redisforge.runbooks.failover import failover_verb, roles_verb
from redisforge.runbooks.restart import restart_verb
from redisforge.runbooks.scale import Options, rebalance_verb
from redisforge.runbooks.upgrade_external import external_upgrade_verb

TOPOLOGY = make_topology(3, 1)
NAMED = replace(TOPOLOGY, nodes=tuple(replace(node, service=f"systemd:{node.name}") for node in TOPOLOGY.nodes))


def stopped(topology: Topology) -> Facts:
    facts = formed(topology)
    nodes = {name: replace(node, id="", problem="Connection refused") for name, node in facts.nodes.items()}
    return replace(facts, nodes=nodes)


@pytest.mark.parametrize(
    "verb",
    [
        restart_verb(()),
        restart_verb(("redis-1",), force=True),
        failover_verb("redis-1"),
        failover_verb("redis-1", mode="force"),
        failover_verb("redis-1", mode="takeover"),
        roles_verb(),
        rebalance_verb(0.0, Options()),
        external_settings_verb(TOPOLOGY, TOPOLOGY),
        external_upgrade_verb(NAMED, Engine(version="8.6"), force=False),
    ],
    ids=lambda verb: f"{verb.name} {verb.what}",
)
def test_no_verb_waits_for_a_cluster_that_is_stopped(verb: Verb) -> None:
    with pytest.raises(NodeError) as error:
        verb.planner(TOPOLOGY, stopped(TOPOLOGY), Wishes())
    assert error.value.what == "no node of the cluster answers"
    assert "redis-1: Connection refused" in error.value.why
    assert error.value.next_step == "`redisforge up` starts what does not run"


def hung(topology: Topology, name: str) -> Facts:
    """The node's process runs and does not answer."""
    facts = formed(topology)
    silent = NodeFacts(name=name, address="127.0.0.1", port=facts.nodes[name].port, problem="no answer within 2 s")
    return replace(facts, nodes={**facts.nodes, name: silent})


@pytest.mark.parametrize(
    "verb",
    [
        restart_verb(("redis-2",)),
        restart_verb(("redis-1",)),
        restart_verb(("redis-4",)),
        restart_verb(()),
        failover_verb("redis-2"),
        failover_verb("redis-1"),
        roles_verb(),
        rebalance_verb(0.0, Options()),
    ],
    ids=lambda verb: f"{verb.name} {verb.what}",
)
def test_a_dry_run_names_the_replica_that_would_be_waited_for(verb: Verb) -> None:
    """It ends there, as the verb does if the replica goes on hanging."""
    facts = hung(TOPOLOGY, "redis-4")
    plan = predict(TOPOLOGY, facts, Wishes(), verb.planner(TOPOLOGY, facts, Wishes()))
    assert [phase.waits_for for phase in plan.phases] == [
        (f"redis-4 (127.0.0.1:{facts.nodes['redis-4'].port}): no answer within 2 s",)
    ]
    assert plan.phases[0].steps == ()
    assert plan.is_open


def test_a_dry_run_names_the_master_that_would_be_waited_for() -> None:
    facts = hung(TOPOLOGY, "redis-1")
    plan = predict(TOPOLOGY, facts, Wishes(), restart_verb(("redis-5",)).planner(TOPOLOGY, facts, Wishes()))
    assert [phase.title.partition(":")[0] for phase in plan.phases] == ["wait for redis-1"]
    assert plan.phases[0].waits_for == ("no reachable master owns slots 0-5460",)


def test_a_plan_of_a_whole_cluster_waits_for_nobody() -> None:
    facts = replace(formed(TOPOLOGY), observed_at_s=time.time() + 1)
    plan = predict(TOPOLOGY, facts, Wishes(), restart_verb(()).planner(TOPOLOGY, facts, Wishes()))
    assert plan.phases
    assert not plan.is_open
    assert b"waits_for" not in msgspec.json.encode(plan)


def test_one_node_that_answers_is_enough_to_be_asked() -> None:
    facts = stopped(TOPOLOGY)
    facts = replace(facts, nodes={**facts.nodes, "redis-1": formed(TOPOLOGY).nodes["redis-1"]})
    assert restart_verb(()).planner(TOPOLOGY, facts, Wishes())
