"""What is predicted of a node that is away: it comes back as the member that it was, as in a real cluster.

There a node that is started with its data knows the others and is known to them, and follows whoever has replaced its
master meanwhile. So nothing is left to introduce and nothing to attach (tests/integration/test_heal.py compares).
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from changing import ChangingWorld, assert_in_order, changing_world, shape_of
from edits import every_line_with, gone
from msgspec.structs import replace
from topologies import formed, hosts_in_zones, make_topology, wishes_for

from redisforge.errors import UsageError
from redisforge.model.slots import SlotRange
from redisforge.model.steps import MoveSlots, Phase, Plan, Replicate, StartUnit
from redisforge.model.topology import Role
from redisforge.plan.predict import apply, foresee, predict, predict_plan, settle
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
    before = Plan()
    if gathering := verb.gather(world.topology, world.facts):
        before, world.facts = foresee(world.topology, world.facts, world.wishes, gathering)
    topology = verb.target(world.topology, world.facts)
    world.declare(topology)
    planner = verb.planner(topology, world.facts, world.wishes)
    return (*before.phases, *predict(topology, world.facts, world.wishes, planner).phases)


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
    phases = predicted(world, scale_verb(shards, world.topology.replicas, Options(force=True)))
    assert [phase.title for phase in phases] == [COMES_BACK, *more]
    assert [str(step) for step in phases[0].steps] == [f"start {dead}"]


@pytest.mark.parametrize("which", CASES)
def test_rebalance_starts_it_and_moves_nothing(which: str) -> None:
    world, _ = world_without(which)
    assert [phase.title for phase in predicted(world, rebalance_verb(0.0, Options(force=True)))] == [COMES_BACK]


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


def other_order(world: ChangingWorld) -> None:
    """The shards of redis-2 and redis-3 exchange their slots, so their numbers are others than those on record."""
    for source, target, slots in (
        ("redis-3", "redis-2", SlotRange(10922, 16383)),
        ("redis-2", "redis-3", SlotRange(5461, 10921)),
    ):
        world.carry_out([MoveSlots(source=source, target=target, slots=(slots,), why="by weight")])
        world.settle()


def other_mates(world: ChangingWorld) -> None:
    """The replicas of redis-1 and redis-2 have changed places since they were recorded, by hand, or as Redis moves
    replicas to masters that have none."""
    first, second = (copy_of(world, name) for name in ("redis-1", "redis-2"))
    world.carry_out(
        [
            Replicate(node=first, master="redis-2", why="by hand"),
            Replicate(node=second, master="redis-1", why="by hand"),
        ]
    )
    world.settle()


def copy_of(world: ChangingWorld, master: str) -> str:
    """The replica of a master, by name."""
    node_id = world.facts.nodes[master].id
    return next(node.name for node in world.facts.reachable_nodes() if node.master_id == node_id)


@pytest.mark.parametrize("changed", [other_order, other_mates])
@pytest.mark.parametrize("replicas", [1, 2, 0])
def test_scale_counts_a_replaced_master_in_the_shard_that_it_serves(
    changed: Callable[[ChangingWorld], None], replicas: int
) -> None:
    """It is away, and the others list it as a master of nothing."""
    world = changing_world(make_topology(3, 1, hosts_in_zones(1, 1, 1)))
    names = {node.name for node in world.topology.nodes}
    changed(world)
    heir = "redis-2"
    dead = copy_of(world, heir)
    world.fail_over(dead)
    world.kill(dead)
    world.settle()
    world.fail_over(heir)
    verb = scale_verb(3, replicas, Options(force=True))

    world.run(verb)

    assert_in_order(world)
    assert shape_of(world.facts) == {replicas: 3}
    assert {node.name for node in world.topology.nodes} == names or replicas != 1
    assert len(world.topology.nodes) == 3 * (replicas + 1)
    assert world.ask(world.begin(verb)) is None


def test_what_cannot_be_used_is_refused_before_a_node_is_brought_back() -> None:
    world, dead = world_without("a replaced master")
    with pytest.raises(UsageError, match="would own no slot"):
        world.begin(scale_verb(3, 1, Options(weights={"redis-2": 0})))
    assert not world.facts.nodes[dead].reachable
