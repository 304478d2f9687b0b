"""Which running clusters can be described, and as what."""

from __future__ import annotations

import msgspec
import pytest
from topologies import make_topology
from world import formed_world

from redisforge.errors import NodeError, RefusedError
from redisforge.model.adopted import AdoptedShape
from redisforge.model.facts import Facts, NodeFacts, PeerView
from redisforge.model.topology import Role
from redisforge.plan.adopting import adopted_shape, members_of

_replace = msgspec.structs.replace


def foreign(shards: int = 3, replicas: int = 1) -> Facts:
    """The facts of a formed cluster, under the names that `adopt` gives: ADDRESS:PORT."""
    facts = formed_world(make_topology(shards, replicas, envoys=0)).facts
    nodes = [_replace(node, name=f"{node.address}:{node.port}") for node in facts.nodes.values()]
    return Facts(observed_at_s=facts.observed_at_s, nodes={node.name: node for node in nodes})


def shape_of(facts: Facts, members: tuple[PeerView, ...] | None = None) -> AdoptedShape:
    seed = next(iter(facts.nodes.values()))
    return adopted_shape(make_topology(), facts, members or members_of(seed))


def changed(facts: Facts, name: str, node: NodeFacts) -> Facts:
    return _replace(facts, nodes={**facts.nodes, name: node})


def seen_by_all(facts: Facts, node_id: str, **changes: object) -> Facts:
    """Everybody's view of one node, changed."""

    def view(peer: PeerView) -> PeerView:
        return _replace(peer, **changes) if peer.id == node_id else peer

    return _replace(
        facts, nodes={n: _replace(node, peers=tuple(map(view, node.peers))) for n, node in facts.nodes.items()}
    )


@pytest.mark.parametrize(("shards", "replicas"), [(3, 1), (3, 0), (4, 2)])
def test_a_whole_cluster_is_described_shard_by_shard(shards: int, replicas: int) -> None:
    facts = foreign(shards, replicas)
    shape = shape_of(facts)
    assert (shape.shards, shape.replicas, shape.notices) == (shards, replicas, ())
    assert [node.shard for node in shape.nodes] == [n for n in range(1, shards + 1) for _ in range(replicas + 1)]
    for node in shape.nodes:
        seen = facts.nodes[f"{node.address}:{node.port}"]
        assert node.role is seen.role
        owner = facts.node_by_id(seen.master_id) or seen
        masters = sorted((n for n in facts.nodes.values() if n.slots), key=lambda n: n.slots[0])
        assert masters[node.shard - 1].id == owner.id


def test_the_usual_number_of_replicas_is_declared() -> None:
    facts = foreign(4, 1)
    extra = next(name for name, node in facts.nodes.items() if node.role is Role.REPLICA)
    gone = facts.nodes[extra]
    nodes = {
        name: _replace(node, peers=tuple(peer for peer in node.peers if peer.id != gone.id))
        for name, node in facts.nodes.items()
        if name != extra
    }
    assert shape_of(_replace(facts, nodes=nodes)).replicas == 1


def test_two_masters_are_too_few() -> None:
    with pytest.raises(RefusedError, match="2 masters"):
        shape_of(foreign(2, 1))


def test_slots_without_an_owner_are_named() -> None:
    facts = foreign()
    owner = next(node for node in facts.nodes.values() if node.slots)
    with pytest.raises(RefusedError) as caught:
        shape_of(seen_by_all(facts, owner.id, slots=()))
    assert "slots without an owner" in caught.value.why


def test_nodes_that_do_not_know_each_other_are_named() -> None:
    facts = foreign()
    name, other = list(facts.nodes)[1:3]
    node = facts.nodes[name]
    known = tuple(peer for peer in node.peers if peer.id != facts.nodes[other].id)
    with pytest.raises(RefusedError) as caught:
        shape_of(changed(facts, name, _replace(node, peers=known)))
    assert f"{name} does not know {other}" in caught.value.why


def test_a_member_that_cannot_be_asked_is_an_error_and_a_dead_replica_is_not() -> None:
    facts = foreign()
    name = next(n for n, node in facts.nodes.items() if node.role is Role.REPLICA)
    dead = facts.nodes[name]
    silent = NodeFacts(name=name, address=dead.address, port=dead.port, problem="connection refused")
    quiet = changed(facts, name, silent)
    with pytest.raises(NodeError, match="1 of 6 nodes"):
        shape_of(quiet)

    shape = shape_of(seen_by_all(quiet, dead.id, flags=("slave", "fail"), link_up=False))

    assert any("does not answer" in notice for notice in shape.notices)
    assert name in {f"{node.address}:{node.port}" for node in shape.nodes}


def test_replicas_without_a_link_are_told_and_described() -> None:
    facts = foreign()
    lost, copying, _ = (node for node in facts.nodes.values() if node.role is Role.REPLICA)
    facts = changed(facts, lost.name, _replace(lost, master_link_up=False))
    facts = changed(facts, copying.name, _replace(copying, master_link_up=False, sync_in_progress=True))
    shape = shape_of(facts)
    master = facts.node_by_id(lost.master_id)
    assert master
    assert shape.notices == (
        f"{lost.name} has no link to its master {master.name}: its shard is less protected; its log says why",
        next(notice for notice in shape.notices if notice.startswith(f"{copying.name} is still copying the data of ")),
    )
    assert (len(shape.nodes), shape.replicas) == (6, 1)


def test_a_master_without_slots_is_told_and_open_slots_are() -> None:
    facts = foreign()
    replica = next(node for node in facts.nodes.values() if node.role is Role.REPLICA)
    flags = ("master",)
    idle = seen_by_all(facts, replica.id, flags=flags, master_id="")
    own = _replace(
        idle.nodes[replica.name],
        peers=tuple(
            _replace(peer, flags=("myself", "master")) if peer.id == replica.id else peer
            for peer in idle.nodes[replica.name].peers
        ),
    )
    shape = shape_of(changed(idle, replica.name, own))
    assert any("master without slots" in notice for notice in shape.notices)
    assert all(node.role is Role.REPLICA for node in shape.nodes if f"{node.address}:{node.port}" == replica.name)

    owner = next(node for node in facts.nodes.values() if node.slots)
    opened = tuple(
        _replace(peer, migrating=((peer.slots[0].first, replica.id),)) if "myself" in peer.flags else peer
        for peer in owner.peers
    )
    shape = shape_of(changed(facts, owner.name, _replace(owner, peers=opened)))
    assert any("open slots" in notice for notice in shape.notices)


def test_the_seed_need_not_know_its_own_address_and_the_unknown_are_left_out() -> None:
    views = (
        PeerView(id="a" * 40, address="", port=7001, flags=("myself", "master")),
        PeerView(id="b" * 40, address="10.0.0.2", port=7002, flags=("slave",)),
        PeerView(id="c" * 40, address="10.0.0.3", port=7003, flags=("handshake",)),
        PeerView(id="d" * 40, address="", port=0, flags=("slave", "noaddr")),
    )
    seed = NodeFacts(name="seed", address="10.0.0.1", port=7001, id="a" * 40, peers=views)
    assert [(peer.address, peer.port) for peer in members_of(seed)] == [("10.0.0.1", 7001), ("10.0.0.2", 7002)]
