"""scale and rebalance, cut anywhere, repeated, or taken back: they end where they should, and nobody notices.

What must never be done on the way is checked by the ChangingWorld for every phase and after every step.
"""

from __future__ import annotations

from changing import (
    ChangingWorld,
    assert_in_order,
    changing_world,
    disturb,
    shape_of,
    topologies,
    unevenly,
)
from hypothesis import HealthCheck, Phase, given, reject, settings
from hypothesis import strategies as st

from redisforge.errors import RefusedError
from redisforge.model.slots import SLOT_COUNT, count
from redisforge.model.topology import Role, Topology
from redisforge.runbooks.change import Verb
from redisforge.runbooks.scale import Options, rebalance_verb, remove_verb, scale_verb

many = settings(
    max_examples=40,
    deadline=None,
    phases=(Phase.generate,),
    suppress_health_check=[HealthCheck.too_slow],
)


def assert_shape(world: ChangingWorld, shards: int, replicas: int) -> None:
    """As many masters and replicas as asked for."""
    assert shape_of(world.facts) == {replicas: shards}
    assert (world.topology.shards, world.topology.replicas) == (shards, replicas)
    assert len(world.topology.nodes) == shards * (replicas + 1)


def shares(world: ChangingWorld) -> dict[str, int]:
    """Slots by master."""
    return {n.name: count(n.slots) for n in world.facts.reachable_nodes() if n.role is Role.MASTER}


@many
@given(topologies(), st.integers(3, 7), st.integers(0, 3), st.data())
def test_any_number_of_shards_and_replicas(topology: Topology, shards: int, replicas: int, data: st.DataObject) -> None:
    world = changing_world(topology)
    disturb(world, data, [node.name for node in topology.nodes])
    unevenly(world, data)
    verb = scale_verb(shards, replicas, Options())
    try:
        for _ in range(data.draw(st.integers(0, 3), label="cuts")):
            world.run_cut(verb, data)
            disturb(world, data, [node.name for node in world.topology.nodes])
        world.run(verb)
    except RefusedError as refusal:
        assert "one zone" in str(refusal)
        reject()
    assert_in_order(world)
    assert_shape(world, shards, replicas)
    assert world.ask(world.begin(verb)) is None
    if shards > topology.shards:
        assert max(shares(world).values()) - min(shares(world).values()) <= 1
