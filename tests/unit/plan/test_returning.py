"""What is predicted of a node that is away: it comes back as the member that it was, as in a real cluster.

There a node that is started with its data knows the others and is known to them, and follows whoever has replaced its
master meanwhile. So nothing is left to introduce and nothing to attach (tests/integration/test_heal.py compares).
"""

from __future__ import annotations

import pytest
from changing import ChangingWorld, changing_world
from edits import every_line_with, gone
from msgspec.structs import replace
from topologies import formed, hosts_in_zones, make_topology, wishes_for

from redisforge.model.steps import Phase, StartUnit
from redisforge.model.topology import Role
from redisforge.plan.predict import apply, predict, predict_plan, settle
from redisforge.runbooks.change import Verb
from redisforge.runbooks.scale import Options, rebalance_verb, scale_verb

TOPOLOGY = make_topology(3, 1, hosts_in_zones(1, 1, 1))
COMES_BACK = "start nodes that have data"
CASES = ("a replica", "a master", "a replaced master", "a replica of a replaced master")


def world_without(which: str) -> tuple[ChangingWorld, str]:
    """A cluster one of whose nodes is dead with its keeper, and that node."""
    follows = which == "a replica of a replaced master"
    world = changing_world(make_topology(3, 2 if follows else 1, hosts_in_zones(1, 1, 1)))
    master = world.facts.nodes["redis-1"]
    copies = [node.name for node in world.facts.reachable_nodes() if node.master_id == master.id]
    dead = master.name if which in ("a master", "a replaced master") else copies[0]
    world.kill(dead)
    world.settle()
    place = (world.facts.nodes[dead].address, world.facts.nodes[dead].port)
    envoys = {name: replace(envoy, unhealthy=(place,)) for name, envoy in world.facts.envoys.items()}
    world.facts = replace(world.facts, envoys=envoys)
    if which == "a replaced master":
        world.fail_over(copies[0])
    elif follows:
        world.fail_over(copies[1])
    return world, dead


def predicted(world: ChangingWorld, verb: Verb) -> tuple[Phase, ...]:
    """What `--dry-run` of a verb says."""
    topology = verb.target(world.topology, world.facts)
    world.declare(topology)
    planner = verb.planner(topology, world.facts, world.wishes)
    return predict(topology, world.facts, world.wishes, planner).phases


@pytest.mark.parametrize("which", CASES)
def test_up_starts_what_is_away_and_nothing_follows(which: str) -> None:
    world, dead = world_without(which)
    phases = predict_plan(world.topology, world.facts, world.wishes).phases
    assert [(phase.title, [str(step) for step in phase.steps]) for phase in phases] == [(COMES_BACK, [f"start {dead}"])]


@pytest.mark.parametrize("which", CASES)
@pytest.mark.parametrize(
    ("shards", "more"),
    [(3, []), (4, ["start the nodes", "introduce the nodes", "attach the replicas", "move 4096 slots"])],
)
def test_scale_starts_it_first_and_then_does_what_is_asked(which: str, shards: int, more: list[str]) -> None:
    world, dead = world_without(which)
    phases = predicted(world, scale_verb(shards, world.topology.replicas, Options()))
    assert [phase.title for phase in phases] == [COMES_BACK, *more]
    assert [str(step) for step in phases[0].steps] == [f"start {dead}"]


@pytest.mark.parametrize("which", CASES)
def test_rebalance_starts_it_and_moves_nothing(which: str) -> None:
    world, _ = world_without(which)
    assert [phase.title for phase in predicted(world, rebalance_verb(0.0, Options()))] == [COMES_BACK]


def test_it_comes_back_under_its_own_id_and_follows_its_heir() -> None:
    world, dead = world_without("a replaced master")
    was = world.disks[dead].id
    step = StartUnit(unit=dead, permit_blank=False, why="it is away")
    facts = settle(world.topology, apply(world.topology, world.facts, (step,), world.wishes))
    node = facts.nodes[dead]
    heir = facts.node_by_id(node.master_id)
    assert (node.id, node.role) == (was, Role.REPLICA)
    assert heir
    assert heir.slots == formed(world.topology).nodes[dead].slots


def test_a_master_that_never_had_a_slot_is_attached_when_it_is_back() -> None:
    """It died in the formation, before it became a replica: nobody has replaced it."""
    replica = next(node for node in TOPOLOGY.nodes if node.intended_role is Role.REPLICA)
    facts = every_line_with(replica.name, flags=("master", "fail"), master_id="", link_up=False)(
        TOPOLOGY, formed(TOPOLOGY)
    )
    facts = gone(replica.name)(TOPOLOGY, facts)
    titles = [phase.title for phase in predict_plan(TOPOLOGY, facts, wishes_for(TOPOLOGY)).phases]
    assert titles == [COMES_BACK, "attach the replicas"]
