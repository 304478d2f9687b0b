"""Small promises of the vocabulary: secrets stay hidden, hashes follow content, plans survive JSON."""

from __future__ import annotations

import copy

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from redisforge.model.facts import NodeFacts, PeerView
from redisforge.model.report import ProbeReport
from redisforge.model.secret import Secret
from redisforge.model.slots import SlotRange
from redisforge.model.steps import (
    AssignSlots,
    Forget,
    Gate,
    Meet,
    Phase,
    Plan,
    Promote,
    Replicate,
    RestartUnit,
    SetConfigEpoch,
    StartUnit,
    Step,
    StopUnit,
)
from redisforge.model.topology import Credentials, Role
from redisforge.model.unit import Unit, UnitFile
from redisforge.model.words import counted

STEPS: tuple[tuple[Step, str], ...] = (
    (StartUnit(unit="redis-1", permit_blank=True, why="w"), "start redis-1"),
    (RestartUnit(unit="redis-1", why="w"), "restart redis-1"),
    (StopUnit(unit="redis-1", why="w"), "stop redis-1"),
    (SetConfigEpoch(node="redis-1", epoch=3, why="w"), "redis-1: CLUSTER SET-CONFIG-EPOCH 3"),
    (
        AssignSlots(node="redis-1", slots=(SlotRange(0, 9), SlotRange(12, 12)), why="w"),
        "redis-1: CLUSTER ADDSLOTSRANGE 0 9 12 12",
    ),
    (Meet(node="redis-1", other="redis-2", why="w"), "redis-1: CLUSTER MEET redis-2"),
    (Replicate(node="redis-4", master="redis-1", why="w"), "redis-4: CLUSTER REPLICATE redis-1"),
    (Promote(node="redis-4", mode="handover", why="w"), "redis-4: CLUSTER FAILOVER"),
    (Promote(node="redis-4", mode="takeover", why="w"), "redis-4: CLUSTER FAILOVER TAKEOVER"),
    (Forget(node="redis-1", node_id="ab" * 20, why="w"), f"redis-1: CLUSTER FORGET {'ab' * 20}"),
)


@pytest.mark.parametrize(("step", "text"), STEPS, ids=lambda value: type(value).__name__)
def test_a_step_reads_as_what_it_does(step: Step, text: str) -> None:
    assert str(step) == text


def test_a_plan_survives_json() -> None:
    plan = Plan((Phase(title="all", steps=tuple(step for step, _ in STEPS), gate=Gate("in_sync", 1.5)),))
    assert msgspec.json.decode(msgspec.json.encode(plan), type=Plan) == plan
    assert plan.steps() == tuple(step for step, _ in STEPS)
    assert not plan.is_empty
    assert Plan().is_empty


def shown_of(secret: Secret) -> list[str]:
    """Every way in which a secret, or what holds one, may be printed by accident."""
    shown = [str(secret), repr(secret), f"{secret}", f"{secret!r:>10}", repr([secret]), repr({"a": secret})]
    return [*shown, repr(UnitFile("path", secret)), repr(Credentials({"user": secret}))]


@given(st.text(min_size=4).filter(lambda text: not any(text in shown for shown in shown_of(Secret("another")))))
def test_a_secret_never_shows(value: str) -> None:
    secret = Secret(value)
    shown = shown_of(secret)
    assert all(repr(value)[1:-1] not in text and value not in text for text in shown)
    assert secret.reveal() == value


def test_a_secret_cannot_become_json() -> None:
    with pytest.raises(TypeError):
        msgspec.json.encode({"password": Secret("hidden")})


def test_secrets_are_equal_by_value() -> None:
    assert Secret("a") == Secret("a")
    assert hash(Secret("a")) == hash(Secret("a"))
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert not Secret("")


UNIT = Unit(
    name="redis-1",
    kind="redis",
    host="local",
    folder="/srv/redis-1",
    argv=("redis-server", "redis.conf"),
    files=(UnitFile("redis.conf", "port 0\n"), UnitFile("users.acl", Secret("acl"), 0o600)),
    ports=(("127.0.0.1", 7001),),
)


@pytest.mark.parametrize(
    "changes",
    [
        {"argv": ("redis-server", "other.conf")},
        {"argv": ("redis-serverredis.conf",)},
        {"files": (UnitFile("redis.conf", "port 1\n"), UNIT.files[1])},
        {"files": (UnitFile("other.conf", "port 0\n"), UNIT.files[1])},
        {"files": (UnitFile("redis.conf", "port 0\n", 0o600), UNIT.files[1])},
        {"files": (UNIT.files[0], UnitFile("users.acl", Secret("changed"), 0o600))},
        {"files": UNIT.files[:1]},
    ],
    ids=["argument", "boundary", "content", "name", "mode", "secret", "one less"],
)
def test_the_configuration_hash_changes_with_what_runs(changes: dict[str, object]) -> None:
    assert msgspec.structs.replace(UNIT, **changes).config_hash != UNIT.config_hash


def test_the_configuration_hash_is_stable() -> None:
    assert copy.deepcopy(UNIT).config_hash == UNIT.config_hash
    assert len(UNIT.config_hash) == 16


def node(*peers: PeerView, keys: int = 0, problem: str = "") -> NodeFacts:
    return NodeFacts(name="redis-1", address="10.0.0.1", port=7001, id="a", peers=peers, keys=keys, problem=problem)


MYSELF = PeerView(id="a", address="10.0.0.1", port=7001, flags=("myself", "master"))
OTHER = PeerView(id="b", address="10.0.0.2", port=7001, flags=("master",), slots=(SlotRange(0, 1),))
OWNER = PeerView(id="a", address="", port=7001, flags=("myself", "master"), slots=(SlotRange(1, 1), SlotRange(0, 0)))
REPLICA = PeerView(id="a", address="10.0.0.1", port=7001, flags=("myself", "slave"), master_id="b")


@pytest.mark.parametrize(
    ("facts", "blank"),
    [
        (node(MYSELF), True),
        (node(MYSELF, OTHER), False),
        (node(OWNER), False),
        (node(MYSELF, keys=1), False),
        (node(problem="silent"), False),
    ],
    ids=["alone", "acquainted", "owner", "with keys", "silent"],
)
def test_a_blank_node_is_free_to_be_used(facts: NodeFacts, blank: bool) -> None:
    assert facts.is_blank is blank


def test_a_node_says_of_itself_what_its_own_line_says() -> None:
    assert node(OTHER, OWNER).slots == (SlotRange(0, 1),)
    assert node(OTHER, OWNER).role is Role.MASTER
    assert (node(OTHER, REPLICA).role, node(OTHER, REPLICA).master_id, node(OTHER, REPLICA).slots) == (
        Role.REPLICA,
        "b",
        (),
    )


@pytest.mark.parametrize(
    ("number", "words"), [(0, "0 errors, 0 acknowledged writes lost"), (1, "1 error, 1 acknowledged write lost")]
)
def test_what_clients_noticed_is_counted_as_one_speaks(number: int, words: str) -> None:
    report = ProbeReport(
        longest_gap_ms=3, errors=number, error_window_ms=0, writes=10, reads=number, lost=number, seconds=1
    )
    assert words in str(report)
    assert f"(10 writes, {counted(number, 'read')})" in str(report)


def test_numbers_in_sentences() -> None:
    assert counted(1, "node") == "1 node"
    assert counted(0, "node") == "0 nodes"
    assert counted(2, "copy", "copies") == "2 copies"
