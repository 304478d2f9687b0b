"""What `deploy` does with its one Unit, and whether a node may start without data."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from topologies import HASH, formed, make_topology, nothing_runs

from redisforge.model.facts import Facts, UnitFacts, UnitState
from redisforge.model.images import ImageFacts
from redisforge.model.steps import RestartUnit, StartUnit
from redisforge.model.topology import Topology
from redisforge.plan.deploying import image_plan, may_be_blank, outcome_of, phases_of, unknown_members
from redisforge.plan.gates import reasons_against

OWN = "redis-1"


def on_one_host() -> Topology:
    """Six nodes, of which only the first is this host's."""
    whole = make_topology()
    return replace(whole, nodes=tuple(replace(node, managed=node.name == OWN) for node in whole.nodes))


TOPOLOGY = on_one_host()


def seen(state: UnitState, config_hash: str = HASH) -> UnitFacts:
    return UnitFacts(name=OWN, state=state, config_hash=config_hash)


def with_own(facts: Facts, *units: UnitFacts) -> Facts:
    return replace(facts, units={unit.name: unit for unit in units})


@pytest.mark.parametrize(
    ("unit", "config_hash", "outcome"),
    [
        (None, HASH, "started"),
        (seen(UnitState.STOPPED), HASH, "started"),
        (seen(UnitState.BACKOFF, "older"), HASH, "started"),
        (seen(UnitState.RUNNING), HASH, "runs already"),
        (seen(UnitState.ORPHANED), HASH, "runs already"),
        (seen(UnitState.RUNNING, ""), HASH, "runs already"),
        (seen(UnitState.RUNNING, "older"), HASH, "restarted"),
        (seen(UnitState.RUNNING), None, "restarted"),
        (None, None, "started"),
    ],
)
def test_what_becomes_of_a_unit(unit: UnitFacts | None, config_hash: str | None, outcome: str) -> None:
    assert outcome_of(unit, config_hash) == outcome
    facts = with_own(nothing_runs(TOPOLOGY), *([unit] if unit else []))
    steps = [step for phase in phases_of(TOPOLOGY, facts, OWN, config_hash, 30) for step in phase.steps]
    kinds = {"started": [StartUnit], "restarted": [RestartUnit], "runs already": []}
    assert [type(step) for step in steps] == kinds[outcome]


def test_a_restart_says_whether_the_configuration_is_another_or_only_may_be() -> None:
    facts = with_own(nothing_runs(TOPOLOGY), seen(UnitState.RUNNING, "older"))
    (known,), (unknown,) = (phases_of(TOPOLOGY, facts, OWN, config_hash, 30)[0].steps for config_hash in (HASH, None))
    assert "runs with another configuration" in known.why
    assert "may be another version" in unknown.why


def test_a_node_of_which_nobody_knows_may_start_blank() -> None:
    facts = nothing_runs(TOPOLOGY)
    assert may_be_blank(TOPOLOGY, facts, OWN)
    (phase,) = phases_of(TOPOLOGY, facts, OWN, HASH, 12)
    (step,) = phase.steps
    assert step == StartUnit(unit=OWN, permit_blank=True, why="it does not run")
    assert phase.gate.deadline_s == 12
    assert reasons_against(phase.gate, TOPOLOGY, formed(make_topology())) == ()


@pytest.mark.parametrize(
    "unit",
    [
        replace(seen(UnitState.STOPPED), was_member=True),
        replace(seen(UnitState.STOPPED), has_cluster_config=True),
    ],
)
def test_a_node_that_was_a_member_starts_with_its_data_alone(unit: UnitFacts) -> None:
    facts = with_own(nothing_runs(TOPOLOGY), unit)
    (step,) = phases_of(TOPOLOGY, facts, OWN, HASH, 30)[0].steps
    assert isinstance(step, StartUnit)
    assert not step.permit_blank
    assert "it was a member" in step.why


def test_a_node_whose_slots_others_expect_is_said_to_be_held_back() -> None:
    facts = replace(formed(make_topology()), units={})
    (step,) = phases_of(TOPOLOGY, facts, OWN, HASH, 30)[0].steps
    assert isinstance(step, StartUnit)
    assert not step.permit_blank
    assert "held back" in step.why


def test_an_envoy_has_no_data_to_miss() -> None:
    (phase,) = phases_of(TOPOLOGY, nothing_runs(TOPOLOGY), "envoy-1", HASH, 30)
    (step,) = phase.steps
    assert step == StartUnit(unit="envoy-1", permit_blank=False, why="it does not run")
    assert phase.gate.envoy == "envoy-1"


def test_members_that_are_not_recorded_yet_are_named() -> None:
    known = replace(TOPOLOGY, nodes=TOPOLOGY.nodes[:4])
    facts = formed(make_topology())
    missing = [f"{node.address}:{node.port}" for node in TOPOLOGY.nodes[4:]]
    assert sorted(unknown_members(known, facts)) == sorted(missing)
    assert unknown_members(TOPOLOGY, facts) == ()
    assert unknown_members(known, nothing_runs(known)) == ()


PINNED = f"redis@sha256:{'a' * 64}"
PINNED_BASE = f"debian@sha256:{'b' * 64}"
OURS = "redisforge/redis:8.6.3"


def made(*names: str, digests: tuple[str, ...] = ()) -> ImageFacts:
    return ImageFacts(
        id=f"sha256:{names}", names=names, size_bytes=100, created_at="", architecture="amd64", digests=digests
    )


IMAGES = (made(OURS), made("redis:8.6"), made(digests=(PINNED,)), made("debian:trixie", digests=(PINNED_BASE,)))


@pytest.mark.parametrize(
    "name", [OURS, "redis:8.6", "docker.io/library/redis:8.6", PINNED, PINNED.replace("@", ":8.6@")]
)
def test_an_image_that_docker_finds_by_its_name_is_here(name: str) -> None:
    assert image_plan(IMAGES, name, "debian", 7).action == "nothing"


def test_what_is_not_here_is_pulled_unless_it_is_ours() -> None:
    for name in ("redis", PINNED.replace("a", "c"), f"redisforge/{PINNED}"):
        assert image_plan(IMAGES, name, "debian", 7).action == "pull", name
    for base in ("debian:trixie", PINNED_BASE):
        plan = image_plan(IMAGES, "redisforge/redis:8.6.4", base, 7)
        assert (plan.action, plan.base, plan.is_base_here, plan.about_bytes) == ("build", base, True, 107)
    plan = image_plan(IMAGES, "redisforge/redis:8.6.4", "debian", 7)
    assert (plan.action, plan.is_base_here, plan.about_bytes) == ("build", False, None)


def test_one_of_ours_whose_version_is_not_known_yet_counts_as_built() -> None:
    assert (
        image_plan((made("redisforge/redis:latest"),), "redisforge/redis", "b", None, is_known=False).action == "build"
    )
