"""The guard's decision: a node without its data waits until nobody expects slots of it (see fleet/keeper.py).

The other nodes are fake_peer.FakePeer. The keeper around the decision: test_guarded_unit.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fake_peer import PASSWORD, USER, FakePeer, closed_port, deaf_port, node_line, running
from guard_case import (
    EXPECTING,
    MASTER_OF_SLOTS,
    MY_ID,
    NEW_ID,
    OTHER,
    OTHER_ID,
    PORT,
    REPLICA,
    TAKEN_OVER,
    UNKNOWN,
    WHOLE_AOF,
    issue_tls,
    make_guard,
    remember,
    write_data,
)

from redisforge.fleet import keeper
from redisforge.model.unit import DataGuard
from redisforge.security.certificates import ensure_issued

FINE = ""
LOST = "no other node of the cluster can be asked"
MakeGuard = Callable[..., DataGuard]


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return issue_tls(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def peer(tls: Path) -> Iterator[FakePeer]:
    with running(FakePeer(tls)) as serving:
        yield serving


@pytest.fixture
def second(tls: Path) -> Iterator[FakePeer]:
    with running(FakePeer(tls)) as serving:
        yield serving


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


@pytest.fixture
def guard(tls: Path, data: Path) -> MakeGuard:
    def make(*peers: tuple[str, int], **changes: Any) -> DataGuard:
        return make_guard(tls, data, *peers, **changes)

    return make


def verdict(guard: DataGuard) -> str:
    """why_not_start, of the guard as the keeper reads it from unit.json."""
    return keeper.why_not_start(msgspec.json.decode(msgspec.json.encode(guard)))


# --- without nodes.conf: the others are asked by address -----------------------------------------------------


@pytest.mark.parametrize(
    ("view", "slots"),
    [
        pytest.param(EXPECTING, "0-5460", id="failed master"),
        pytest.param((OTHER, node_line(NEW_ID, PORT, "master", "7")), "7", id="one slot"),
        pytest.param((OTHER, node_line(MY_ID, PORT, "master", "0 2 4 6 8 10")), "0 2 4 6 …", id="many ranges"),
        pytest.param((OTHER, node_line(MY_ID, PORT, "master", "[9->-x] 0-5460")), "0-5460", id="a slot on the move"),
        pytest.param((OTHER.replace(":7002@", ":7001@"), REPLICA), "5461-10922", id="the peer is at our address"),
    ],
)
def test_a_lost_node_is_held_while_a_peer_expects_its_slots(
    peer: FakePeer, guard: MakeGuard, data: Path, view: tuple[str, ...], slots: str
) -> None:
    peer.view = view
    host, port = peer.address
    assert verdict(guard(peer.address)) == (
        f"its data is missing from {data}, and {host}:{port} still expects slots {slots} of it; "
        "it starts once a replica took over"
    )


def test_behind_address_translation_the_others_know_the_node_by_another_address(
    peer: FakePeer, guard: MakeGuard, data: Path
) -> None:
    peer.view = (OTHER, node_line(NEW_ID, PORT, "master", "0-5460", address="203.0.113.7"))
    assert verdict(guard(peer.address)) == FINE
    assert "still expects slots 0-5460 of it" in verdict(guard(peer.address, known_as="203.0.113.7"))


@pytest.mark.parametrize(
    "view",
    [
        pytest.param(UNKNOWN, id="unknown"),
        pytest.param(TAKEN_OVER, id="taken over"),
        pytest.param((OTHER, node_line(MY_ID, PORT, "slave,fail")), id="replica"),
        pytest.param((OTHER, node_line(MY_ID, PORT, "master", "[93-<-x] [94->-y]")), id="only open slots"),
        pytest.param((OTHER, node_line(MY_ID, PORT + 1, "master", "0-5460")), id="another port"),
        pytest.param((OTHER, node_line(MY_ID, 17001, "master", "0-5460")), id="a port that ends like ours"),
        pytest.param((OTHER, node_line(MY_ID, PORT, "master", "0", address="127.0.0.11")), id="another address"),
    ],
)
def test_a_lost_node_starts_when_nobody_expects_slots_of_it(
    peer: FakePeer, guard: MakeGuard, view: tuple[str, ...]
) -> None:
    peer.view = view
    assert verdict(guard(peer.address)) == FINE


@pytest.mark.parametrize("first", [UNKNOWN, TAKEN_OVER, (OTHER,)])
def test_one_peer_that_expects_slots_is_enough(
    peer: FakePeer, second: FakePeer, guard: MakeGuard, first: tuple[str, ...]
) -> None:
    peer.view, second.view = first, EXPECTING
    assert "still expects slots 0-5460" in verdict(guard(peer.address, second.address))
    assert "still expects slots 0-5460" in verdict(guard(second.address, peer.address))


@pytest.mark.parametrize(("view", "expected"), [(EXPECTING, "still expects slots"), (UNKNOWN, FINE)])
def test_a_peer_that_is_gone_is_passed_over(
    peer: FakePeer, guard: MakeGuard, view: tuple[str, ...], expected: str
) -> None:
    peer.view = view
    answer = verdict(guard(closed_port(), peer.address))
    assert expected in answer
    assert bool(answer) == bool(expected)


def test_a_peer_that_knows_nobody_has_nothing_to_say(peer: FakePeer, second: FakePeer, guard: MakeGuard) -> None:
    """It is blank itself: all were lost together, and each must not be the other's permission."""
    peer.view = second.view = (node_line(OTHER_ID, 7002, "myself,master"),)
    assert verdict(guard(peer.address, second.address)).endswith(LOST)


# --- nobody can be asked -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("remembered", "missing"), [((), "nodes.conf"), ((MASTER_OF_SLOTS,), "its data")])
def test_with_nobody_to_ask_a_lost_node_is_held(
    guard: MakeGuard, data: Path, remembered: tuple[str, ...], missing: str
) -> None:
    if remembered:
        remember(data, *remembered)
    expected = f"{missing} is missing from {data}, and {LOST}"
    assert verdict(guard()) == expected
    assert verdict(guard(closed_port(), closed_port())) == expected


def test_a_peer_that_never_answers_is_nobody_to_ask(guard: MakeGuard) -> None:
    with deaf_port() as address:
        assert verdict(guard(address)).endswith(LOST)


def test_a_peer_that_refuses_the_password_is_nobody_to_ask(peer: FakePeer, guard: MakeGuard) -> None:
    peer.view = UNKNOWN
    reason = verdict(guard(peer.address, password="another-secret"))
    assert reason.endswith(LOST)
    assert "another-secret" not in reason
    assert peer.commands[0] == ("AUTH", USER, "another-secret")


def test_without_the_password_file_nobody_can_be_asked(peer: FakePeer, guard: MakeGuard, tmp_path: Path) -> None:
    peer.view = UNKNOWN
    assert verdict(guard(peer.address, password_path=str(tmp_path / "none"))).endswith(LOST)
    assert peer.commands == []


@pytest.mark.parametrize(
    "reply",
    [b"-LOADING Redis is loading the dataset in memory\r\n", b"+OK\r\n", b"", b"$-1\r\n", b"$many\r\n", b"*1\r\n"],
)
def test_a_peer_that_answers_otherwise_is_nobody_to_ask(peer: FakePeer, guard: MakeGuard, reply: bytes) -> None:
    def answer(command: tuple[str, ...]) -> bytes:
        if command[0] == "AUTH":
            return peer.answer(command)
        if not reply:
            raise OSError("hangs up")
        return reply

    peer.reply = answer
    assert verdict(guard(peer.address)).endswith(LOST)


def test_a_view_that_is_no_text_is_nobody_to_ask(peer: FakePeer, guard: MakeGuard) -> None:
    peer.reply = lambda command: peer.answer(command) if command[0] == "AUTH" else b"$2\r\n\xff\xfe\r\n"
    assert verdict(guard(peer.address)).endswith(LOST)


def test_a_peer_of_another_authority_is_nobody_to_ask(guard: MakeGuard, tmp_path: Path) -> None:
    """It gets no password either: the connection ends before."""
    foreign = tmp_path / "foreign"
    ensure_issued(foreign, {"peer": ()}, 10, datetime.now(UTC))
    with running(FakePeer(foreign)) as stranger:
        stranger.view = UNKNOWN
        assert verdict(guard(stranger.address)).endswith(LOST)
        assert stranger.commands == []


# --- with nodes.conf: what the node itself remembers ---------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(node_line(MY_ID, PORT, "myself,slave"), id="replica"),
        pytest.param(node_line(MY_ID, PORT, "myself,slave,fail"), id="failed replica"),
        pytest.param(node_line(MY_ID, PORT, "myself,master"), id="master without slots"),
    ],
)
def test_a_node_that_owned_no_slots_starts_without_asking(
    peer: FakePeer, guard: MakeGuard, data: Path, line: str
) -> None:
    peer.view = EXPECTING
    remember(data, OTHER.replace("myself,", ""), line)
    assert verdict(guard(peer.address)) == FINE
    assert peer.commands == []


@pytest.mark.parametrize(
    ("persistence", "present", "starts"),
    [
        pytest.param("aof", {"aof": WHOLE_AOF}, True, id="whole AOF"),
        pytest.param("aof", {"aof": {**WHOLE_AOF, "appendonly.aof.1.base.rdb": ""}}, False, id="AOF of empty files"),
        pytest.param("aof", {"aof": {"appendonly.aof.manifest": "file"}}, False, id="manifest alone"),
        pytest.param("aof", {"aof": {"appendonly.aof.1.base.rdb": "REDIS0012"}}, False, id="AOF without manifest"),
        pytest.param("aof", {"aof": {}}, False, id="empty appendonlydir"),
        pytest.param("aof", {}, False, id="no AOF"),
        pytest.param("aof", {"rdb": "REDIS0012"}, False, id="a dump, which is not loaded with AOF on"),
        pytest.param("rdb", {"rdb": "REDIS0012"}, True, id="dump"),
        pytest.param("rdb", {}, False, id="no dump"),
        pytest.param("rdb", {"aof": WHOLE_AOF}, False, id="an AOF, which is not loaded with AOF off"),
        pytest.param("none", {"aof": WHOLE_AOF, "rdb": "REDIS0012"}, False, id="nothing is loaded"),
    ],
)
def test_a_master_starts_without_asking_only_with_the_data_that_it_loads(
    peer: FakePeer, guard: MakeGuard, data: Path, persistence: str, present: dict[str, Any], starts: bool
) -> None:
    peer.view = EXPECTING
    remember(data, MASTER_OF_SLOTS, OTHER.replace("myself,", ""))
    write_data(data, **present)
    reason = verdict(guard(peer.address, persistence=persistence))
    assert bool(reason) != starts
    assert bool(peer.commands) != starts


@pytest.mark.parametrize(
    ("view", "held"),
    [
        pytest.param(EXPECTING, True, id="expected"),
        pytest.param(TAKEN_OVER, False, id="taken over"),
        pytest.param(UNKNOWN, False, id="forgotten"),
        pytest.param((OTHER, node_line(MY_ID, 7009, "master", "0-5460")), True, id="expected under another address"),
        pytest.param((OTHER, node_line(NEW_ID, PORT, "master", "0-5460")), True, id="expected under another id"),
    ],
)
def test_a_master_without_its_data_asks_by_id_and_by_address(
    peer: FakePeer, guard: MakeGuard, data: Path, view: tuple[str, ...], held: bool
) -> None:
    remember(data, MASTER_OF_SLOTS)
    peer.view = view
    assert ("still expects slots 0-5460" in verdict(guard(peer.address))) == held


@pytest.mark.parametrize("text", ["", "\0\0\0", "vars currentEpoch 6\n", f"{MY_ID} torn", OTHER.replace("myself,", "")])
def test_a_nodes_conf_without_a_line_of_its_own_counts_as_none(
    peer: FakePeer, guard: MakeGuard, data: Path, text: str
) -> None:
    data.joinpath("nodes.conf").write_text(text)
    write_data(data, aof=WHOLE_AOF)
    peer.view = EXPECTING
    assert "still expects slots" in verdict(guard(peer.address))


def test_the_peer_is_asked_as_the_operator_over_tls_with_a_certificate(peer: FakePeer, guard: MakeGuard) -> None:
    """The fake peer refuses whoever has no certificate of the cluster's authority."""
    peer.view = UNKNOWN
    assert verdict(guard(peer.address)) == FINE
    assert peer.commands == [("AUTH", USER, PASSWORD), ("CLUSTER", "NODES")]
