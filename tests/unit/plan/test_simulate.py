"""What would survive: compared with the rules one by one, and with a cluster in memory that loses the nodes."""

from __future__ import annotations

import json

import jsonschema
import msgspec
import pytest
from edits import Edit, all_of, envoy_with, every_line_with, gone, node_with
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from topologies import formed, hosts_in_zones, make_topology

from redisforge.cli.simulate import parse_losses, survival_text
from redisforge.cli.simulate import simulate as simulate_command
from redisforge.errors import NotFoundError, UnhealthyError, UsageError
from redisforge.model.facts import Facts
from redisforge.model.report import Survival
from redisforge.model.slots import SLOT_COUNT, count, describe, merge
from redisforge.model.topology import Role, Topology
from redisforge.plan.simulate import LossKind, simulate, units_lost

TOPOLOGY = make_topology(hosts=hosts_in_zones(1, 1, 1))
FORMED = formed(TOPOLOGY)
MASTERS = [node.name for node in TOPOLOGY.nodes if FORMED.nodes[node.name].role is Role.MASTER]
FIRST = MASTERS[0]
HEIR = next(node.name for node in TOPOLOGY.nodes if FORMED.nodes[node.name].master_id == FORMED.nodes[FIRST].id)
MIB = 1 << 20


def lose(*names: str, edit: Edit | None = None, topology: Topology = TOPOLOGY) -> Survival:
    facts = FORMED if topology is TOPOLOGY else formed(topology)
    return simulate(topology, edit(topology, facts) if edit else facts, frozenset(names))


def told(survival: Survival) -> str:
    return "\n".join(f"{finding.severity} {finding.where}: {finding.what}" for finding in survival.findings)


# --- one rule after another ------------------------------------------------------------------------------------


def test_nothing_lost_is_nothing_changed() -> None:
    survival = lose()
    assert survival.survives
    assert survival.findings == ()
    assert [shard.outcome for shard in survival.shards] == ["serves"] * 3
    assert [shard.replicas_left for shard in survival.shards] == [1, 1, 1]
    assert (survival.masters, survival.masters_left, survival.masters_needed) == (3, 3, 2)
    assert (survival.lost_slots, survival.unserved_slots) == ("-", "-")


def test_a_lost_master_is_replaced_by_its_replica() -> None:
    survival = lose(FIRST)
    shard = survival.shards[0]
    assert survival.survives
    assert (shard.outcome, shard.master, shard.master_after) == ("fails_over", FIRST, HEIR)
    assert shard.replicas_left == 0
    assert shard.lag_bytes == 0
    assert told(survival) == f"warning shard 1: {HEIR} would serve it alone, with no replica"


def test_a_lost_replica_leaves_a_shard_alone() -> None:
    survival = lose(HEIR)
    assert survival.survives
    assert (survival.shards[0].outcome, survival.shards[0].replicas_left) == ("serves", 0)
    assert f"{FIRST} would serve it alone" in told(survival)


def test_a_shard_without_a_copy_is_lost() -> None:
    survival = lose(FIRST, HEIR)
    assert not survival.survives
    assert survival.lost_slots == survival.unserved_slots == "0-5460"
    assert survival.lost_slot_count == survival.unserved_slot_count == 5461
    assert [shard.outcome for shard in survival.shards] == ["lost", "serves", "serves"]
    assert f"critical shard 1: slots 0-5460 would be lost: {FIRST} goes and no copy stays" in told(survival)


def test_without_a_majority_of_masters_nothing_is_served() -> None:
    """Every slot has a copy left, and none is served: no master can be elected, and the last one stops."""
    survival = lose(*MASTERS[:2])
    assert not survival.survives
    assert survival.lost_slot_count == 0
    assert survival.unserved_slot_count == SLOT_COUNT
    assert [shard.outcome for shard in survival.shards] == ["stops"] * 3
    assert "1 of 3 masters would be left, 2 are needed" in told(survival)


def test_the_most_advanced_replica_in_sync_takes_over() -> None:
    topology = make_topology(3, 2, hosts_in_zones(1, 1, 1))
    facts = formed(topology)
    first, second = (n.name for n in topology.nodes if facts.nodes[n.name].master_id == facts.nodes["redis-1"].id)
    ahead = all_of(
        node_with("redis-1", replication_offset=100 * MIB),
        node_with(first, replication_offset=20 * MIB, keys=1),
        node_with(second, replication_offset=90 * MIB, keys=1),
    )
    shard = simulate(topology, ahead(topology, facts), frozenset({"redis-1"})).shards[0]
    assert (shard.master_after, shard.lag_bytes, shard.replicas_left) == (second, 10 * MIB, 1)
    cut_off = all_of(ahead, node_with(second, master_link_up=False))
    survival = simulate(topology, cut_off(topology, facts), frozenset({"redis-1"}))
    assert (survival.shards[0].master_after, survival.shards[0].replicas_left) == (first, 1)
    assert f"{first} is 80 MB behind: these writes would be lost" in told(survival)


@pytest.mark.parametrize(
    "edit",
    [
        node_with(HEIR, master_link_up=False),
        node_with(HEIR, sync_in_progress=True),
        node_with(HEIR, loading=True),
    ],
    ids=["no link", "first copy", "loading"],
)
def test_a_replica_out_of_sync_does_not_take_over(edit: Edit) -> None:
    survival = lose(FIRST, edit=edit)
    assert not survival.survives
    assert (survival.shards[0].outcome, survival.shards[0].master_after) == ("stops", None)
    assert (survival.lost_slots, survival.unserved_slots) == ("-", "0-5460")
    assert "slots 0-5460 would not be served: no replica takes over by itself" in told(survival)


def test_a_replica_that_has_received_nothing_is_no_copy() -> None:
    survival = lose(FIRST, edit=node_with(HEIR, replication_offset=0, keys=0))
    assert survival.shards[0].outcome == "lost"


@pytest.mark.parametrize("directive", ["cluster-replica-no-failover", "cluster-slave-no-failover"])
def test_a_configuration_without_failover(directive: str) -> None:
    topology = replace(TOPOLOGY, redis=replace(TOPOLOGY.redis, directives=((directive, "yes"),)))
    assert lose(FIRST, topology=topology).shards[0].outcome == "stops"


def test_full_coverage_stops_all_with_one() -> None:
    directives = (("cluster-require-full-coverage", "yes"),)
    topology = replace(TOPOLOGY, redis=replace(TOPOLOGY.redis, directives=directives))
    survival = lose(FIRST, HEIR, topology=topology)
    assert [shard.outcome for shard in survival.shards] == ["lost", "stops", "stops"]
    assert survival.unserved_slot_count == SLOT_COUNT
    assert "cluster-require-full-coverage" in survival.findings[-1].next_step
    assert lose(FIRST, topology=topology).survives
    unowned = lose(topology=topology, edit=every_line_with(FIRST, slots=()))
    assert [shard.outcome for shard in unowned.shards] == ["stops", "stops"]


def test_what_is_gone_already_counts() -> None:
    """One of three masters does not answer, and its replica has not taken over yet: one more is too many."""
    second = MASTERS[1]
    survival = lose(FIRST, edit=gone(second))
    assert survival.already_lost == (second,)
    assert survival.masters_left == 1
    assert not survival.survives
    assert f"warning {second}: does not answer now, and counts as lost" in told(survival)
    alone = lose(edit=gone(second))
    assert alone.survives, "Redis will let its replica take over"
    assert [shard.outcome for shard in alone.shards] == ["serves", "fails_over", "serves"]
    assert alone.shards[1].lag_bytes is None, "nothing to compare with"


def test_slots_that_nobody_owns_are_named() -> None:
    survival = lose(edit=every_line_with(FIRST, slots=()))
    assert not survival.survives
    assert survival.unserved_slots == "0-5460"
    assert survival.lost_slots == "-"
    assert "slots 0-5460 have no owner even now" in told(survival)


def test_memory_of_the_next_master() -> None:
    edit = node_with(HEIR, used_memory_bytes=95, max_memory_bytes=100)
    survival = lose(FIRST, edit=edit)
    assert survival.shards[0].headroom_bytes == 5
    assert f"{HEIR} would take over with 5 bytes to spare" in told(survival)
    assert lose(FIRST, edit=node_with(HEIR, used_memory_bytes=95, max_memory_bytes=0)).shards[0].headroom_bytes is None


def test_an_endpoint_needs_an_envoy() -> None:
    survival = lose("envoy-1")
    assert survival.endpoints_lost == ("primary",)
    assert not survival.survives
    assert survival.unserved_slot_count == 0
    two = make_topology(hosts=hosts_in_zones(1, 1, 1), envoys=2)
    assert lose("envoy-1", topology=two).survives
    survival = lose("envoy-1", topology=two, edit=envoy_with("envoy-2", problem="connection refused"))
    assert survival.already_lost == ("envoy-2",)
    assert "critical main: no Envoy would serve primary" in told(survival)


# --- against every loss ----------------------------------------------------------------------------------------


@settings(max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(3, 5), st.integers(0, 2), st.data())
def test_every_loss_keeps_the_rules(shards: int, replicas: int, data: st.DataObject) -> None:
    topology, facts = cached(shards, replicas)
    lost = frozenset(data.draw(st.sets(st.sampled_from([node.name for node in topology.nodes]))))
    survival = simulate(topology, facts, lost)
    masters = {n.name: n for n in facts.nodes.values() if n.role is Role.MASTER}
    left = [name for name in masters if name not in lost]
    can_elect = len(left) > shards // 2
    unserved: list[str] = []
    for shard in survival.shards:
        master = masters[shard.master]
        copies = [n.name for n in facts.nodes.values() if n.master_id == master.id and n.name not in lost]
        expected = (
            ("serves" if can_elect else "stops")
            if shard.master not in lost
            else "lost"
            if not copies
            else "fails_over"
            if can_elect
            else "stops"
        )
        assert shard.outcome == expected
        assert shard.slots == describe(master.slots)
        if expected == "fails_over":
            assert shard.master_after in copies
            assert shard.replicas_left == len(copies) - 1
        else:
            assert shard.replicas_left == len(copies)
        if expected in ("stops", "lost"):
            unserved.append(shard.master)
    assert survival.unserved_slots == describe(merge(r for name in unserved for r in masters[name].slots))
    assert survival.unserved_slot_count == sum(count(masters[name].slots) for name in unserved)
    assert survival.survives is not bool(unserved)
    assert any(f.severity == "critical" for f in survival.findings) is not survival.survives
    assert all(finding.next_step for finding in survival.findings)
    severities = [finding.severity for finding in survival.findings]
    assert severities == sorted(severities), "the critical ones come first"
    assert all(name in survival_text(survival) for name in lost)


_CACHE: dict[tuple[int, int], tuple[Topology, Facts]] = {}


def cached(shards: int, replicas: int) -> tuple[Topology, Facts]:
    if (shards, replicas) not in _CACHE:
        topology = make_topology(shards, replicas, hosts_in_zones(1, 2, 1))
        _CACHE[shards, replicas] = (topology, formed(topology))
    return _CACHE[shards, replicas]


def test_three_zones_survive_each_of_them() -> None:
    for host in TOPOLOGY.hosts:
        nodes = units_lost(TOPOLOGY, "zone", host.zone) - {"envoy-1"}
        assert lose(*nodes).survives
    both = units_lost(TOPOLOGY, "zone", "zone-1") | units_lost(TOPOLOGY, "zone", "zone-2")
    assert not lose(*both).survives


# --- names -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "name", "hosts"),
    [
        ("host", "host-2-1", {"host-2-1"}),
        ("host", "10.2.0.1", {"host-2-1"}),
        ("zone", "zone-2", {"host-2-1", "host-2-2"}),
    ],
)
def test_what_goes_with_a_host_or_a_zone(kind: LossKind, name: str, hosts: set[str]) -> None:
    topology = make_topology(3, 1, hosts_in_zones(1, 2), envoys=2)
    units = {unit.name: unit.host for unit in (*topology.nodes, *topology.envoys)}
    assert units_lost(topology, kind, name) == {unit for unit, host in units.items() if host in hosts}


def test_envoys_go_with_their_host() -> None:
    assert "envoy-1" in units_lost(TOPOLOGY, "host", TOPOLOGY.envoys[0].host)
    assert units_lost(TOPOLOGY, "node", "redis-2") == {"redis-2"}


def test_two_names_of_a_machine_are_one_machine() -> None:
    hosts = (*TOPOLOGY.hosts, replace(TOPOLOGY.hosts[0], name="alias"))
    topology = replace(TOPOLOGY, hosts=hosts)
    assert units_lost(topology, "host", "alias") == units_lost(topology, "host", TOPOLOGY.hosts[0].name)


@pytest.mark.parametrize(
    ("kind", "known"),
    [("host", "host-1-1, host-2-1, host-3-1"), ("zone", "zone-1, zone-2, zone-3"), ("node", "redis-1")],
)
def test_an_unknown_name_lists_the_known_ones(kind: LossKind, known: str) -> None:
    with pytest.raises(NotFoundError) as raised:
        units_lost(TOPOLOGY, kind, "elsewhere")
    assert known in raised.value.why
    assert raised.value.next_step


@pytest.mark.parametrize(
    ("lose_options", "names", "expected"),
    [
        (["host"], ["a"], [("host", "a")]),
        (["host:a"], [], [("host", "a")]),
        (["host", "zone"], ["a", "b"], [("host", "a"), ("zone", "b")]),
        (["host:::1", "node"], ["redis-1"], [("host", "::1"), ("node", "redis-1")]),
    ],
)
def test_losses_are_spelled_in_two_ways(lose_options: list[str], names: list[str], expected: object) -> None:
    assert parse_losses(lose_options, names) == expected


@pytest.mark.parametrize(
    ("lose_options", "names"),
    [(["rack"], ["a"]), (["host"], []), (["host:"], []), (["host:a"], ["b"]), (["host"], ["a", "b"])],
)
def test_losses_that_do_not_fit_together_are_refused(lose_options: list[str], names: list[str]) -> None:
    with pytest.raises(UsageError) as raised:
        parse_losses(lose_options, names)
    assert "--lose host NAME" in raised.value.next_step


def test_the_document_fits_its_schema() -> None:
    document = json.loads(msgspec.json.encode(lose(FIRST, HEIR)))
    jsonschema.validate(document, msgspec.json.schema(Survival))


def test_the_text_says_what_matters() -> None:
    text = survival_text(lose(FIRST))
    assert text.startswith(f"main would go on serving all slots without {FIRST}")
    assert "masters left: 2 of 3 (2 needed)" in text
    assert "fails over" in text
    assert "would not survive" in survival_text(lose(FIRST, HEIR))


def test_the_error_has_a_line_for_each_finding_and_a_next_step(monkeypatch: pytest.MonkeyPatch) -> None:
    survival = lose(FIRST, HEIR)

    def answer(*_: object) -> Survival:
        return survival

    monkeypatch.setattr("redisforge.cli.simulate.the_cluster", answer)
    monkeypatch.setattr("redisforge.runbooks.simulate.simulate", answer)
    with pytest.raises(UnhealthyError) as raised:
        simulate_command(lose=["node", "node"], names=[FIRST, HEIR])
    critical = [finding for finding in survival.findings if finding.severity == "critical"]
    assert raised.value.why.splitlines() == [f"{finding.where}: {finding.what}" for finding in critical]
    assert raised.value.next_step.splitlines() == list(dict.fromkeys(finding.next_step for finding in critical))
