"""What may not leave a cluster: with the reason, and a way out."""

from __future__ import annotations

import pytest
from edits import Edit, all_of, gone, node_with, unchanged
from topologies import formed, hosts_in_zones, make_topology, run_by_others

from redisforge.errors import RefusedError
from redisforge.model.topology import Topology
from redisforge.plan.removal import refuse_removal


@pytest.mark.parametrize(
    ("topology", "leaving", "edit", "force", "words"),
    [
        (make_topology(3, 1), {"redis-1"}, unchanged, True, "2 masters"),
        (make_topology(4, 1), {"redis-1", "redis-2"}, unchanged, True, "2 masters"),
        (make_topology(4, 1), {"redis-5"}, unchanged, False, "last replica of redis-1"),
        (make_topology(4, 2), {"redis-5"}, node_with("redis-9", master_link_up=False), False, "last replica"),
        (make_topology(4, 1), {"redis-1"}, gone("redis-1"), True, "redis-5 take over"),
        (make_topology(4, 0), {"redis-1"}, gone("redis-1"), True, "--accept-data-loss"),
        (make_topology(4, 1), {"redis-1", "redis-5"}, gone("redis-1"), True, "--accept-data-loss"),
        (make_topology(4, 1), {"redis-1"}, all_of(gone("redis-1"), gone("redis-5")), True, "--accept-data-loss"),
    ],
)
def test_refused(topology: Topology, leaving: set[str], edit: Edit, *, force: bool, words: str) -> None:
    with pytest.raises(RefusedError) as refusal:
        refuse_removal(topology, edit(topology, formed(topology)), frozenset(leaving), force=force)
    assert words in str(refusal.value)


@pytest.mark.parametrize(
    ("topology", "leaving", "edit", "force"),
    [
        (make_topology(3, 1), set[str](), unchanged, False),
        (make_topology(4, 1), {"redis-1"}, unchanged, False),
        (make_topology(4, 1), {"redis-1", "redis-5"}, unchanged, False),
        (make_topology(4, 1), {"redis-5"}, unchanged, True),
        (make_topology(3, 2), {"redis-4"}, unchanged, False),
        (make_topology(3, 1), {"redis-4"}, gone("redis-4"), True),
        (make_topology(5, 1, hosts_in_zones(1, 1, 1)), {"redis-1"}, unchanged, False),
    ],
)
def test_allowed(topology: Topology, leaving: set[str], edit: Edit, *, force: bool) -> None:
    refuse_removal(topology, edit(topology, formed(topology)), frozenset(leaving), force=force)


def test_a_zone_may_not_hold_the_majority() -> None:
    """Seven masters, 3, 2 and 2 by zone: two of zone-3 leave, then zone-1 would hold three of five."""
    topology = make_topology(7, 1, hosts_in_zones(1, 1, 1))
    facts = formed(topology)
    masters = [node for node in topology.nodes if facts.nodes[node.name].slots]
    small = min({node.zone for node in masters}, key=lambda zone: sum(node.zone == zone for node in masters))
    leaving = frozenset(node.name for node in masters if node.zone == small)
    with pytest.raises(RefusedError, match="one zone"):
        refuse_removal(topology, facts, leaving, force=True)


def test_the_way_out_is_one_that_the_cluster_has() -> None:
    """`scale --replicas` starts processes of RedisForge's own, and is refused where somebody else runs the nodes."""
    topology = make_topology(4, 1)
    for declared, command in (
        (topology, "--replicas N"),
        (run_by_others(topology), "add HOST:PORT --replica-of redis-1"),
    ):
        with pytest.raises(RefusedError) as refusal:
            refuse_removal(declared, formed(topology), frozenset({"redis-5"}), force=False)
        assert f"`redisforge scale {command}`" in refusal.value.next_step
