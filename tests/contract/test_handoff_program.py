"""The hand-off's decisions, against nodes that lie, refuse and hang (fake_node.py). With Redis: tests/integration."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from fake_node import HISTORY, FakeNode, a_master, a_replica, bus_line, remember_masters
from fake_peer import PASSWORD, USER, closed_port, deaf_port, node_line, running
from guard_case import issue_tls

from redisforge.fleet import handoff, peers
from redisforge.fleet.handoff import Replica, Sample
from redisforge.model import unit

FORCED = [("CLUSTER", "FAILOVER", "FORCE")]
PLANNED = [("CLUSTER", "FAILOVER")]
MASTER_OF_SLOTS = node_line("a" * 40, 7001, "myself,master", "0-5460")


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return issue_tls(tmp_path_factory.mktemp("tls"))


class Scene(NamedTuple):
    """A Unit's hand-off, what it logs, and a way to run more nodes."""

    handoff: handoff.Handoff
    logged: list[str]
    run: Callable[..., Any]
    tls: Path
    folder: Path

    def declare(self, child: tuple[str, int], **changes: Any) -> None:
        """Write handoff.json."""
        declared = unit.Handoff(
            enabled=True, max_lag_bytes=1000, stop_limit_s=1.0, linger_s=0.25, election_pause_s=0.0,
            address=child[0], port=child[1],
            data_path=str(self.folder / "data"), ca_path=str(self.tls / "ca.crt"),
            certificate_path=str(self.tls / "me.crt"), key_path=str(self.tls / "me.key"),
            user=USER, password_path=str(self.folder / "handoff.password"),
        )  # fmt: skip
        path = self.folder / "handoff.json"
        path.write_bytes(msgspec.json.encode(msgspec.structs.replace(declared, **changes)))

    def replica(self, offset: int = 5000, **info: object) -> FakeNode:
        """A running replica of a dead master."""
        node: FakeNode = self.run(a_replica(self.tls, offset, **info))
        return node

    def master(self, *replicas: tuple[FakeNode, int], **more: Any) -> FakeNode:
        """A living master; the scene's child."""
        node: FakeNode = self.run(a_master(self.tls, *replicas, **more))
        self.declare(node.address)
        return node

    def dies(self, *replicas: FakeNode, keys: int = 3, offset: int = 5000, age_s: float = 0.0) -> None:
        """The child was last seen with these replicas, and its port is closed now."""
        self.declare(closed_port())
        self.remember(*replicas, keys=keys, offset=offset, age_s=age_s)
        self.handoff.after_death()

    def remember(self, *replicas: FakeNode, keys: int = 3, offset: int = 5000, age_s: float = 0.0) -> None:
        """What the last sample said."""
        known = tuple(Replica(*replica.address, offset, 0) for replica in replicas)
        owns_slots, voters = handoff.masters_in(str(self.folder / "data"))
        assert owns_slots
        self.handoff.seen = Sample(time.monotonic() - age_s, HISTORY, offset, keys, known, tuple(voters))


@pytest.fixture
def scene(tmp_path: Path, tls: Path) -> Iterator[Scene]:
    logged: list[str] = []
    with contextlib.ExitStack() as stack:

        def run(node: FakeNode) -> FakeNode:
            return stack.enter_context(running(node))  # pyright: ignore[reportReturnType]

        (tmp_path / "handoff.password").write_text(f"{PASSWORD}\n")
        made = Scene(handoff.Handoff(tmp_path, peers, logged.append), logged, run, tls, tmp_path)
        others = [run(FakeNode(tls, role="master")) for _ in range(2)]
        remember_masters(tmp_path / "data", MASTER_OF_SLOTS, *others)
        yield made
        made.handoff.hang_up()
        assert not [line for line in logged if PASSWORD in line]


# --- after a death -------------------------------------------------------------------------------------------


def test_the_replica_of_a_dead_master_takes_over(scene: Scene) -> None:
    replica = scene.replica()
    scene.dies(replica)
    assert replica.orders == FORCED
    assert scene.logged[-1].startswith(f"handed off to {replica.place} in ")


def test_of_several_the_one_with_the_largest_offset_does(scene: Scene) -> None:
    nodes = [scene.replica(offset) for offset in (5000, 5003, 5002)]
    scene.dies(*nodes)
    assert [node.orders for node in nodes] == [[], FORCED, []]


def test_of_equals_the_first_address_does(scene: Scene) -> None:
    nodes = [scene.replica() for _ in range(3)]
    scene.dies(*nodes)
    first = min(nodes, key=lambda node: node.address)
    assert [node.orders for node in nodes] == [FORCED if node is first else [] for node in nodes]


def test_a_replica_reads_the_rest_of_the_stream_before_it_is_judged(scene: Scene) -> None:
    """While its link is up it may still have unread data of its dead master, and another may look better."""
    late, early = scene.replica(4000, master_link_status="up"), scene.replica(4500)
    questions = 0

    def reply(command: tuple[str, ...]) -> bytes:
        nonlocal questions
        if command[0] == "INFO":
            questions += 1
            if questions == 3:
                late.info.update(slave_repl_offset=5000, master_link_status="down")
        return late.answer(command)

    late.reply = reply
    scene.dies(late, early)
    assert (late.orders, early.orders) == (FORCED, [])


@pytest.mark.parametrize(
    ("info", "reason"),
    [
        ({"slave_repl_offset": 3999}, "it is 1001 bytes behind, more than 1000"),
        ({"loading": 1}, "it loads its data from disk"),
        ({"master_sync_in_progress": 1}, "it is in the middle of a full sync"),
        ({"master_replid": "0" * 40}, "it does not hold its master's history"),
        ({"slave_repl_offset": 1}, "it has received nothing yet"),
        ({"slave_repl_offset": 0}, "it has received nothing yet"),
        ({"db0": ""}, "it is empty, and its master had 3 keys"),
        ({"aof_last_write_status": "err"}, "it cannot write to its disk, and would refuse all writes"),
    ],
)
def test_an_unfit_replica_never_takes_over(scene: Scene, info: dict[str, Any], reason: str) -> None:
    unfit = scene.replica(**info)
    scene.dies(unfit)
    assert unfit.orders == []
    assert scene.logged == [f"no hand-off to {unfit.place}: {reason}"]

    fit = scene.replica(4500)
    scene.dies(unfit, fit)
    assert (unfit.orders, fit.orders) == ([], FORCED)


def test_the_bound_itself_is_still_in_it(scene: Scene) -> None:
    replica = scene.replica(4000)
    scene.dies(replica)
    assert replica.orders == FORCED


def test_an_empty_replica_of_an_empty_master_takes_over(scene: Scene) -> None:
    replica = scene.replica(db0="")
    scene.dies(replica, keys=0)
    assert replica.orders == FORCED


def test_a_replica_that_hangs_or_is_gone_is_passed_over(scene: Scene) -> None:
    gone, fit = scene.replica(), scene.replica()
    with deaf_port() as deaf:
        scene.declare(closed_port())
        scene.remember(fit)
        assert scene.handoff.seen
        known = (Replica(*deaf, 5000, 0), Replica(*closed_port(), 5000, 0), *scene.handoff.seen.replicas)
        scene.handoff.seen = scene.handoff.seen._replace(replicas=known)
        scene.handoff.after_death()
    assert fit.orders == FORCED
    assert len([line for line in scene.logged if "it does not answer" in line]) == 2
    assert gone.commands == []


def test_nothing_is_done_when_a_replica_is_a_master_already(scene: Scene) -> None:
    """An operator's failover, or Redis's own, was quicker: a second one would only cost another vote."""
    winner, other = scene.replica(role="master"), scene.replica()
    scene.dies(winner, other)
    assert winner.orders == other.orders == []
    assert f"no hand-off: {winner.place} is a master already" in scene.logged


def test_a_node_that_still_answers_keeps_its_slots(scene: Scene) -> None:
    replica, child = scene.replica(), scene.run(FakeNode(scene.tls, role="master"))
    scene.declare(child.address)
    scene.remember(replica)
    scene.handoff.after_death()
    assert replica.orders == []
    assert scene.logged == ["no hand-off: its port still answers"]


def test_a_silent_port_counts_as_an_answer(scene: Scene) -> None:
    replica = scene.replica()
    with deaf_port() as deaf:
        scene.declare(deaf)
        scene.remember(replica)
        scene.handoff.after_death()
    assert replica.orders == []


@pytest.mark.parametrize(("living", "orders"), [(0, []), (2, []), (3, FORCED), (4, FORCED)])
def test_without_a_majority_of_masters_nobody_is_asked(scene: Scene, living: int, orders: list[object]) -> None:
    """Of five masters, of whom ours has died, three have to be there."""
    ports = [scene.run(FakeNode(scene.tls)).address[1] for _ in range(living)]
    ports += [closed_port()[1] for _ in range(4 - living)]
    lines = [bus_line(port, "7") for port in ports]
    path = scene.folder / "data" / "nodes.conf"
    path.write_text("\n".join((MASTER_OF_SLOTS, *lines, "vars currentEpoch 6\n")))
    replica = scene.replica()
    scene.dies(replica)
    assert replica.orders == orders
    assert bool(orders) or scene.logged == ["no hand-off: there is no majority of masters to vote for it"]


def test_a_replica_that_is_not_elected_does_not_hold_the_child_back_for_long(scene: Scene) -> None:
    replica = scene.replica()
    replica.wins = False
    scene.dies(replica)
    assert replica.orders == FORCED
    assert scene.logged[-1] == f"{replica.place} was not elected within 3 s; is a majority of the masters there?"


def test_a_refusal_is_said(scene: Scene) -> None:
    replica = scene.replica()
    replica.error = "You should send CLUSTER FAILOVER to a replica"
    scene.dies(replica)
    assert scene.logged == ["no hand-off: ERR You should send CLUSTER FAILOVER to a replica"]


def test_an_old_sample_says_nothing(scene: Scene) -> None:
    replica = scene.replica()
    scene.dies(replica, age_s=6.0)
    assert replica.commands == []
    assert scene.logged == ["no hand-off: the last look at it was 6 s before its end"]


def test_without_a_sample_nobody_is_asked(scene: Scene) -> None:
    scene.declare(closed_port())
    scene.handoff.after_death()
    assert scene.logged == ["no hand-off: it was not seen as a master yet"]


def test_a_sample_serves_one_death_only(scene: Scene) -> None:
    replica = scene.replica()
    scene.dies(replica)
    replica.info["role"] = "slave"
    scene.handoff.after_death()
    assert replica.orders == FORCED


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(node_line("a" * 40, 7001, "myself,slave"), id="replica"),
        pytest.param(node_line("a" * 40, 7001, "myself,master"), id="without slots"),
        pytest.param("", id="blank"),
        pytest.param(None, id="no file"),
    ],
)
def test_what_owns_no_slots_has_nothing_to_hand_off(scene: Scene, line: str | None) -> None:
    replica = scene.replica()
    scene.master((replica, 5000))
    remember_masters(scene.folder / "data", line or "")
    if line is None:
        (scene.folder / "data" / "nodes.conf").unlink()
    scene.handoff.sample()
    assert scene.handoff.seen is None
    scene.handoff.before_stop(Waits())
    scene.declare(closed_port())
    scene.handoff.after_death()
    assert (replica.commands, scene.logged) == ([], [])


def test_a_node_that_lost_its_files_with_its_life_is_handed_off_too(scene: Scene) -> None:
    replica = scene.replica()
    scene.declare(closed_port())
    scene.remember(replica)
    (scene.folder / "data" / "nodes.conf").unlink()
    scene.handoff.after_death()
    assert replica.orders == FORCED


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"enabled": false}', "{}"])
def test_switched_off_or_unreadable_nothing_is_done(scene: Scene, content: str | None) -> None:
    replica = scene.replica()
    scene.remember(replica)
    path = scene.folder / "handoff.json"
    if content is not None:
        path.write_text(content)
    scene.handoff.after_death()
    scene.remember(replica)
    scene.handoff.before_stop(lambda _: False)
    assert replica.commands == []
    scene.handoff.sample()
    assert scene.handoff.seen is None


def test_a_half_written_setting_is_said_and_does_no_harm(scene: Scene) -> None:
    replica = scene.replica()
    scene.declare(closed_port())
    scene.remember(replica)
    settings = json.loads((scene.folder / "handoff.json").read_text())
    del settings["max_lag_bytes"]
    (scene.folder / "handoff.json").write_text(json.dumps(settings))
    scene.handoff.after_death()
    assert replica.orders == []
    assert "max_lag_bytes" in scene.logged[-1]


# --- elections need their time (Redis up to 8.6) -------------------------------------------------------------


def test_soon_after_an_election_none_is_asked_for(scene: Scene) -> None:
    replica = scene.replica()
    scene.declare(closed_port(), election_pause_s=20.0)
    scene.remember(replica)
    scene.handoff.note_election()
    scene.handoff.after_death()
    assert replica.orders == []
    assert scene.logged == ["no hand-off: an election was held in the shard; the next can be in 20 s"]


def test_after_the_pause_it_is(scene: Scene) -> None:
    replica = scene.replica()
    scene.declare(closed_port(), election_pause_s=20.0)
    scene.remember(replica)
    scene.handoff.note_election()
    an_election_ago = time.time() - 21
    os.utime(scene.folder / "last-election", (an_election_ago, an_election_ago))
    scene.handoff.after_death()
    assert replica.orders == FORCED


def test_an_own_hand_off_is_an_election_and_the_next_keeper_knows_it(scene: Scene) -> None:
    replica = scene.replica()
    scene.declare(closed_port(), election_pause_s=20.0)
    scene.remember(replica)
    scene.handoff.after_death()
    assert replica.orders == FORCED
    replica.info["role"] = "slave"
    after = scene._replace(handoff=handoff.Handoff(scene.folder, peers, scene.logged.append))
    after.remember(replica)
    after.handoff.after_death()
    assert replica.orders == FORCED


def test_a_new_master_of_the_child_is_an_election_too(scene: Scene) -> None:
    """By an operator, or by Redis: the replica that was elected cannot be elected again so soon."""
    child = scene.master()
    path = scene.folder / "last-election"
    scene.handoff.sample()
    assert not path.exists()
    child.info.update(role="slave", master_host="127.0.0.1", master_port=7004)
    scene.handoff.sample()
    assert path.exists()
    path.unlink()
    scene.handoff.sample()
    assert not path.exists(), "it is the same master as before"
    child.info["master_port"] = 7005
    scene.handoff.sample()
    assert path.exists()


def test_a_stop_waits_for_the_next_election_if_that_is_soon(scene: Scene) -> None:
    replica = scene.replica()
    master = scene.master((replica, 5000))
    scene.declare(master.address, election_pause_s=20.0)
    nearly = time.time() - 19.5
    scene.handoff.note_election()
    os.utime(scene.folder / "last-election", (nearly, nearly))

    def waits(limit_s: float) -> bool:
        time.sleep(limit_s)
        return False

    scene.handoff.before_stop(waits)
    assert replica.orders == PLANNED
    assert scene.logged[-1].startswith(f"handed off to {replica.place} in ")


def test_a_stop_does_not_wait_long_for_the_next_election(scene: Scene) -> None:
    replica = scene.replica()
    master = scene.master((replica, 5000))
    scene.declare(master.address, election_pause_s=20.0)
    scene.handoff.note_election()
    scene.handoff.before_stop(Waits())
    assert replica.orders == []
    assert scene.logged == ["stops without a hand-off: the next election in the shard can be in 20 s"]


# --- samples -------------------------------------------------------------------------------------------------


def test_a_sample_has_what_is_needed_after_the_death(scene: Scene) -> None:
    replica = a_replica(scene.tls)
    scene.run(replica)
    scene.master((replica, 4990))
    scene.handoff.sample()
    seen = scene.handoff.seen
    assert seen is not None
    assert (seen.history, seen.offset, seen.keys) == (HISTORY, 5000, 3)
    assert seen.replicas == (Replica(*replica.address, 4990, 0),)


def test_all_samples_use_one_connection(scene: Scene) -> None:
    master = scene.master()
    for _ in range(3):
        scene.handoff.sample()
    assert [command[0] for command in master.commands] == ["AUTH", "INFO", "INFO", "INFO"]


@pytest.mark.parametrize("info", [{"role": "slave"}, {"loading": 1}])
def test_what_is_no_master_with_data_leaves_no_sample(scene: Scene, info: dict[str, object]) -> None:
    scene.master().info.update(info)
    scene.remember()
    scene.handoff.sample()
    assert scene.handoff.seen is None


def test_a_replica_without_its_link_is_not_in_a_sample(scene: Scene) -> None:
    scene.master((scene.replica(), 4000), state="wait_bgsave")
    scene.handoff.sample()
    assert scene.handoff.seen
    assert scene.handoff.seen.replicas == ()


def test_a_child_that_does_not_answer_keeps_its_last_sample_and_is_asked_anew(scene: Scene) -> None:
    master = scene.master()
    scene.handoff.sample()
    seen = scene.handoff.seen
    with deaf_port() as deaf:
        scene.declare(deaf)
        scene.handoff.hang_up()
        scene.handoff.sample()
    assert scene.handoff.seen is seen
    scene.declare(master.address)
    scene.handoff.sample()
    assert scene.handoff.seen is not seen


def test_renewed_certificates_are_read_again(scene: Scene) -> None:
    scene.master()
    scene.handoff.sample()
    first = scene.handoff.tls
    scene.handoff.hang_up()
    scene.handoff.sample()
    assert scene.handoff.tls is first
    renewed = scene.tls / "me.crt"
    renewed.touch()
    scene.handoff.hang_up()
    scene.handoff.sample()
    assert scene.handoff.tls is not first


# --- before a stop -------------------------------------------------------------------------------------------


class Waits:
    """Stands for the child's end; remembers how long was waited for it."""

    def __init__(self, *, ends: bool = False) -> None:
        self.ends = ends
        self.limits_s: list[float] = []

    def __call__(self, limit_s: float) -> bool:
        self.limits_s.append(limit_s)
        return self.ends


def test_a_master_that_is_to_stop_hands_over_and_lets_proxies_learn_of_it(scene: Scene) -> None:
    behind, best = scene.replica(4900), scene.replica(4999)
    scene.master((behind, 4000), (best, 14))
    waits = Waits()
    scene.handoff.before_stop(waits)
    assert (behind.orders, best.orders) == ([], PLANNED)
    assert waits.limits_s[-1] == 0.25
    assert scene.logged[-1].startswith(f"handed off to {best.place} in ")


def test_when_the_best_refuses_the_next_is_asked(scene: Scene) -> None:
    best, second = scene.replica(), scene.replica(4900)
    best.error = "Master is down or failed"
    scene.master((second, 4000), (best, 4000))
    scene.handoff.before_stop(Waits())
    assert (best.orders, second.orders) == (PLANNED, PLANNED)
    assert any(line.startswith(f"handed off to {second.place}") for line in scene.logged)


def test_before_a_stop_too_a_replica_must_be_in_sync(scene: Scene) -> None:
    """Redis would pause the master's writes until such a one has everything, for up to 5 s."""
    replica = scene.replica(3999)
    scene.master((replica, 5000))
    waits = Waits()
    scene.handoff.before_stop(waits)
    assert (replica.orders, waits.limits_s) == ([], [])
    assert scene.logged == [
        f"no hand-off to {replica.place}: it is 1001 bytes behind, more than 1000",
        "stops without a hand-off: it has no replica in sync",
    ]


def test_a_replica_that_has_been_silent_is_not_asked(scene: Scene) -> None:
    replica = scene.replica()
    master = scene.master((replica, 5000))
    master.info["slave0"] = str(master.info["slave0"]).replace("lag=0", "lag=3")
    scene.handoff.before_stop(Waits())
    assert replica.commands == []
    assert scene.logged == ["stops without a hand-off: it has no replica in sync"]


def test_it_stops_anyway_when_nobody_takes_over_in_time(scene: Scene) -> None:
    replica = scene.replica()
    replica.wins = False
    scene.master((replica, 5000))
    scene.handoff.before_stop(Waits())
    assert scene.logged[0] == f"no hand-off to {replica.place}: it was not elected in time"
    assert scene.logged[1].startswith("stops without a hand-off: ")
    assert len(scene.logged) == 2
    assert replica.orders == PLANNED


def test_a_child_that_ends_meanwhile_ends_the_waiting(scene: Scene) -> None:
    replica = scene.replica()
    replica.wins = False
    master = scene.master((replica, 5000))
    waits = Waits(ends=True)

    def hang_up(_: tuple[str, ...]) -> bytes:
        raise ConnectionAbortedError

    def ended(limit_s: float) -> bool:
        master.reply = hang_up
        return waits(limit_s)

    scene.handoff.before_stop(ended)
    assert len(waits.limits_s) == 1
    assert scene.logged[-1].startswith("stops without a hand-off: ")


def test_a_replica_stops_at_once(scene: Scene) -> None:
    master = scene.master()
    master.info["role"] = "slave"
    waits = Waits()
    scene.handoff.before_stop(waits)
    assert (waits.limits_s, scene.logged) == ([], [])


ACL = "user default reset off\nuser app_user on +@all\nuser readonly_user on #00 +@read +ping\n"


class ReadBy:
    """What a node does that proxies read from as `users`: it knows what its ACL file said when it loaded it."""

    def __init__(self, scene: Scene, node: FakeNode, *, refuses: bool = False, error: str = "") -> None:
        self.path, self.refuses, self.error = scene.folder / "users.acl", refuses, error
        self.path.write_text(ACL)
        self.loaded: list[str] = []
        scene.declare(node.address, drained_users=("readonly_user",), drain_s=1.5)
        node.info["connected_clients"] = 3
        self._others, node.reply = node.answer, self

    def __call__(self, command: tuple[str, ...]) -> bytes:
        if command == ("ACL", "DRYRUN", "readonly_user", "PING"):
            refusal = "User readonly_user has no permissions to run the 'ping' command"
            return b"$%d\r\n%s\r\n" % (len(refusal), refusal.encode()) if self.refuses else b"+OK\r\n"
        if command == ("ACL", "LOAD"):
            self.loaded.append(self.path.read_text())
            return f"-{self.error}\r\n".encode() if self.error else b"+OK\r\n"
        return self._others(command)


def acl_files(scene: Scene) -> dict[str, str]:
    return {path.name: path.read_text() for path in scene.folder.glob("users.acl*")}


def test_before_a_stop_proxies_learn_that_they_read_elsewhere(scene: Scene) -> None:
    node, waits = scene.replica(), Waits()
    read_by = ReadBy(scene, node)
    scene.handoff.before_stop(waits)
    assert read_by.loaded == [ACL.replace("+ping\n", "+ping -ping\n")]
    assert (waits.limits_s, scene.logged) == ([1.5], [])
    assert acl_files(scene) == {"users.acl": ACL}


def test_a_master_that_has_handed_over_does_so_too(scene: Scene) -> None:
    replica, waits = scene.replica(), Waits()
    master = scene.master((replica, 5000))
    read_by = ReadBy(scene, master)
    scene.handoff.before_stop(waits)
    assert replica.orders == PLANNED
    assert len(read_by.loaded) == 1
    assert waits.limits_s[-1] == 1.5, "longer than proxies need to learn of the new master"


def test_a_master_that_nobody_replaces_serves_until_its_end(scene: Scene) -> None:
    read_by, waits = ReadBy(scene, scene.master()), Waits()
    scene.handoff.before_stop(waits)
    assert (read_by.loaded, waits.limits_s) == ([], [])


@pytest.mark.parametrize(("link", "clients"), [("down", 1), ("up", 2)])
def test_a_node_that_no_proxy_is_connected_to_stops_at_once(scene: Scene, link: str, clients: int) -> None:
    """As in `down`, which stops the Envoys first. A replica counts its master among its clients."""
    node, waits = scene.replica(), Waits()
    read_by = ReadBy(scene, node)
    node.info |= {"master_link_status": link, "connected_clients": clients}
    scene.handoff.before_stop(waits)
    assert (read_by.loaded, waits.limits_s, scene.logged) == ([], [], [])


def test_whoever_has_reads_refused_already_is_not_kept_waiting(scene: Scene) -> None:
    read_by, waits = ReadBy(scene, scene.replica(), refuses=True), Waits()
    scene.handoff.before_stop(waits)
    assert (read_by.loaded, waits.limits_s, scene.logged) == ([], [], [])


def test_a_node_that_does_not_load_its_users_is_stopped_all_the_same(scene: Scene) -> None:
    """As one that is older than this right of its user."""
    ReadBy(scene, scene.replica(), error="NOPERM this user has no permissions to run the 'acl|load' command")
    waits = Waits()
    scene.handoff.before_stop(waits)
    assert waits.limits_s == []
    assert scene.logged[0].startswith("stops while proxies may send it reads: NOPERM")
    assert acl_files(scene) == {"users.acl": ACL}


def test_after_a_crash_the_users_are_as_they_were(scene: Scene) -> None:
    ReadBy(scene, scene.replica())
    changed = handoff.without_ping(ACL, ["readonly_user"])
    scene.folder.joinpath("users.acl").write_text(changed)
    scene.folder.joinpath("users.acl.kept").write_text(ACL)
    scene.handoff.put_back_acl()
    assert acl_files(scene) == {"users.acl": ACL}


def test_users_that_were_placed_after_a_crash_stay(scene: Scene) -> None:
    placed = ACL.replace("#00", "#11")
    scene.folder.joinpath("users.acl").write_text(placed)
    scene.folder.joinpath("users.acl.kept").write_text(ACL)
    scene.handoff.put_back_acl()
    assert acl_files(scene) == {"users.acl": placed}


def test_a_child_that_hangs_is_stopped_without_a_hand_off(scene: Scene) -> None:
    with deaf_port() as deaf:
        scene.declare(deaf)
        scene.handoff.before_stop(Waits())
    assert "timed out" in scene.logged[0]
