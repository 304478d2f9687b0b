"""Open slots: single states as a table, and whole stories of crashes in a model of the protocol."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redisforge.model.facts import NodeFacts, PeerView
from redisforge.model.slots import SlotRange
from redisforge.plan.open_slots import Blocked, Mending, OpenSlot, current_master, decide, find_open

SLOT = 7
REST = SlotRange(8, 16383)
OTHERS = SlotRange(0, 6)


def node(
    name: str,
    *,
    owns: bool = False,
    epoch: int = 1,
    migrating: str = "",
    importing: str = "",
    flags: tuple[str, ...] = ("myself", "master"),
    others: tuple[PeerView, ...] = (),
    problem: str = "",
) -> NodeFacts:
    """A node as it sees itself; U owns all slots but one, so that the cluster is a formed one."""
    slots = (SlotRange(SLOT, SLOT),) if owns else ()
    myself = PeerView(
        id=name,
        address="10.0.0.1",
        port=6379,
        flags=flags,
        config_epoch=epoch,
        slots=(*slots, *((OTHERS, REST) if name == "U" else ())),
        migrating=((SLOT, migrating),) if migrating else (),
        importing=((SLOT, importing),) if importing else (),
    )
    return NodeFacts(
        name=f"redis-{name}", address="10.0.0.1", port=6379, id=name, peers=(myself, *others), problem=problem
    )


def seen(name: str, *, flags: tuple[str, ...] = ("master",), master_id: str = "", owns: bool = False) -> PeerView:
    """A node as another one sees it."""
    slots = (SlotRange(SLOT, SLOT),) if owns else ()
    return PeerView(id=name, address="10.0.0.9", port=6379, flags=flags, master_id=master_id, slots=slots)


def decided(*nodes: NodeFacts, **keys: int) -> Mending | Blocked | None:
    found = find_open(nodes)
    assert [slot.slot for slot in found] == [SLOT]
    return decide(found[0], nodes, keys)


STABLE = (node("S", owns=True), node("T"), node("U"))


def test_a_cluster_without_open_slots_has_none() -> None:
    assert find_open(STABLE) == ()


def test_a_cluster_that_is_not_formed_has_none() -> None:
    assert find_open((node("S"), node("T"))) == ()


CASES: tuple[tuple[str, tuple[NodeFacts, ...], dict[str, int], tuple[str, str, tuple[str, ...]]], ...] = (
    # what, nodes, keys, (owner afterwards, giver, strays)
    ("opened, nothing moved", (node("S", owns=True, migrating="T"), node("T", importing="S")), {"S": 5}, ("S", "", ())),
    ("opened, both empty", (node("S", owns=True, migrating="T"), node("T", importing="S")), {}, ("S", "", ())),
    ("half moved", (node("S", owns=True, migrating="T"), node("T", importing="S")), {"S": 5, "T": 1}, ("T", "S", ())),
    ("all moved", (node("S", owns=True, migrating="T"), node("T", importing="S")), {"T": 5}, ("T", "S", ())),
    ("target forgot, nothing there", (node("S", owns=True, migrating="T"), node("T")), {"S": 5}, ("S", "", ())),
    ("target forgot, keys there", (node("S", owns=True, migrating="T"), node("T")), {"S": 5, "T": 1}, ("T", "S", ())),
    ("source forgot, nothing there", (node("S", owns=True), node("T", importing="S")), {"S": 5}, ("S", "", ())),
    ("source forgot, few there", (node("S", owns=True), node("T", importing="S")), {"S": 5, "T": 2}, ("S", "", ("T",))),
    ("source forgot, most there", (node("S", owns=True), node("T", importing="S")), {"S": 2, "T": 5}, ("T", "S", ())),
    ("owner still imports", (node("S"), node("T", owns=True, importing="S")), {"T": 5}, ("T", "", ())),
    ("former owner migrates", (node("S", migrating="T"), node("T", owns=True)), {"S": 1, "T": 5}, ("T", "", ("S",))),
    ("third node imports", (node("S", owns=True), node("T", importing="X")), {"S": 1, "T": 5}, ("S", "", ("T",))),
    ("destination is gone", (node("S", owns=True, migrating="X"), node("T")), {"S": 1, "T": 5}, ("S", "", ())),
    ("nobody owns it", (node("S", migrating="T"), node("T", importing="S")), {"S": 9, "T": 1}, ("T", "", ("S",))),
    ("nobody owns it nor knows it", (node("S"), node("T")), {"S": 9}, ("S", "", ())),
    ("two owners", (node("S", owns=True), node("T", owns=True, epoch=2)), {"S": 9, "T": 1}, ("T", "", ("S",))),
    ("two, same epoch", (node("S", owns=True), node("T", owns=True)), {"S": 9, "T": 1}, ("S", "", ("T",))),
    (
        "migrating to one that claims it with a lower epoch",
        (node("S", owns=True, epoch=2, migrating="T"), node("T", owns=True)),
        {"S": 9, "T": 1},
        ("S", "", ("T",)),
    ),
)  # fmt: skip


@pytest.mark.parametrize(("nodes", "keys", "outcome"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_states(nodes: tuple[NodeFacts, ...], keys: dict[str, int], outcome: tuple[str, str, tuple[str, ...]]) -> None:
    mending = decided(*nodes, node("U"), **keys)
    assert isinstance(mending, Mending)
    assert (mending.owner, mending.giver, mending.strays) == outcome


def test_a_slot_of_nobody_without_a_key_is_left_to_whoever_assigns_slots() -> None:
    assert decided(node("S"), node("T"), node("U")) is None


def test_keys_that_an_unmarked_node_still_has_are_left_alone() -> None:
    """An engine with atomic migration removes them in the background."""
    nodes = (node("S", owns=True, migrating="T"), node("T", importing="S"), node("U"))
    mending = decided(*nodes, S=1, U=1000)
    assert isinstance(mending, Mending)
    assert mending.strays == ()


def test_a_destination_that_does_not_answer_blocks() -> None:
    away = seen("T", flags=("master", "fail"))
    source = node("S", owns=True, migrating="T", others=(away,))
    blocked = decided(source, node("T", problem="no answer"), node("U"), S=5)
    assert isinstance(blocked, Blocked)
    assert blocked.node_id == "T"


def test_a_destination_that_was_failed_over_counts_as_its_new_master() -> None:
    former = seen("T", flags=("slave",), master_id="N")
    source = node("S", owns=True, migrating="T", others=(former,))
    mending = decided(source, node("N"), node("U"), S=5, N=2)
    assert isinstance(mending, Mending)
    assert (mending.owner, mending.giver) == ("N", "S")


def test_a_dead_destination_is_followed_by_the_one_that_took_over_its_keys() -> None:
    away = seen("T", flags=("master", "fail"))
    source = node("S", owns=True, migrating="T", others=(away,))
    mending = decided(source, node("N"), node("U"), S=5, N=2)
    assert isinstance(mending, Mending)
    assert (mending.owner, mending.giver) == ("N", "S")
    assert isinstance(decided(source, node("N"), node("U"), S=5, N=2, U=1), Blocked)


def test_a_dead_destination_that_was_not_failed_over_blocks_whoever_has_keys() -> None:
    away = PeerView(id="T", address="10.0.0.9", port=6379, flags=("master", "fail"), slots=(OTHERS,))
    source = node("S", owns=True, migrating="T", others=(away,))
    assert isinstance(decided(source, node("N"), node("V"), node("U"), S=5, N=2), Blocked)


def test_an_owner_that_does_not_answer_blocks_only_if_others_have_keys() -> None:
    view = seen("S", flags=("master", "fail"), owns=True)
    target = node("T", importing="S", others=(view,))
    assert isinstance(decided(target, node("U"), T=1), Blocked)
    mending = decided(target, node("U"))
    assert isinstance(mending, Mending)
    assert (mending.owner, mending.marked) == ("S", ("T",))


def test_current_master_of_a_stranger_is_nobody() -> None:
    assert current_master("X", STABLE) == ""


# --- the protocol as a model ---


class World:
    """One slot at three nodes, as Redis treats it; `truth` is what clients were told is written."""

    def __init__(self) -> None:
        self.claims = {"S"}
        self.migrating: dict[str, str] = {}
        self.importing: dict[str, str] = {}
        self.data: dict[str, dict[str, int]] = {"S": {}, "T": {}, "U": {}}
        self.truth: dict[str, int] = {}
        self.version = 0

    def facts(self) -> tuple[NodeFacts, ...]:
        return tuple(
            node(
                name,
                owns=name in self.claims,
                epoch=2 if name == "T" else 1,
                migrating=self.migrating.get(name, ""),
                importing=self.importing.get(name, ""),
            )
            for name in ("S", "T", "U")
        )

    def write(self, key: str) -> None:
        """A client writes; it follows ASK, and is not acknowledged where nobody serves the key."""
        if len(self.claims) != 1:
            return
        owner = next(iter(self.claims))
        self.version += 1
        if key in self.data[owner] or owner not in self.migrating:
            self._store(owner, key)
        elif self.importing.get(self.migrating[owner]):
            self._store(self.migrating[owner], key)

    def _store(self, name: str, key: str) -> None:
        self.data[name][key] = self.truth[key] = self.version

    def take(self, name: str) -> None:
        """SETSLOT NODE at the new owner, and its broadcast."""
        self.claims = {name}
        self.importing.pop(name, None)

    def move_key(self, key: str, source: str, target: str, *, source_wins: bool, whole: bool = True) -> None:
        """MIGRATE of a key; not `whole`: interrupted before the source has heard that it arrived."""
        if key in self.data[source]:
            if source_wins or key not in self.data[target]:
                self.data[target][key] = self.data[source][key]
            if whole:
                del self.data[source][key]

    def forget(self, name: str) -> None:
        """A failover: the replica that takes over does not know that the slot was open."""
        self.migrating.pop(name, None)
        self.importing.pop(name, None)

    def is_last_to_know(self, name: str) -> bool:
        """Whether this is a target with keys whose other end a roll back has closed: nobody else knows of them."""
        is_alone = not self.migrating and set(self.importing) == {name}
        return is_alone and name not in self.claims and bool(self.data[name])

    def classic_move(self) -> Iterator[None]:
        """S to T, step by step."""
        self.importing["T"] = "S"
        yield
        self.migrating["S"] = "T"
        yield
        while self.data["S"]:
            key = min(self.data["S"])
            self.move_key(key, "S", "T", source_wins=True, whole=False)
            yield
            self.move_key(key, "S", "T", source_wins=True)
            yield
        self.take("T")
        yield
        self.migrating.pop("S", None)

    def mend(self, slot: OpenSlot, mending: Mending) -> Iterator[None]:
        """What redis/moving/open_slots.py does, step by step."""
        owner, giver = mending.owner, mending.giver
        if mending.is_assignment:
            self.take(owner)
        elif giver:
            self.importing[owner] = giver
            yield
            self.migrating[giver] = owner
            yield
            yield from self._drain(giver, owner, source_wins=True)
        elif owner in mending.marked:
            self.forget(owner)
        yield
        for stray in mending.strays:
            if stray not in slot.claimants:
                self.importing[stray] = owner
            yield from self._drain(stray, owner, source_wins=False)
        if giver:
            self.take(owner)
            yield
            self.migrating.pop(giver, None)
            yield
        for marked in mending.marked:
            if marked not in (owner, giver):
                if marked not in slot.claimants and self.data[marked]:
                    continue  # a client was sent there meanwhile: for the next round
                self.claims.discard(marked)
                self.forget(marked)
                yield

    def _drain(self, source: str, target: str, *, source_wins: bool) -> Iterator[None]:
        while self.data[source]:
            key = min(self.data[source])
            self.move_key(key, source, target, source_wins=source_wins, whole=False)
            yield
            self.move_key(key, source, target, source_wins=source_wins)
            yield


def run_some(steps: Iterator[None], number: int, world: World, writes: list[str]) -> bool:
    """Do `number` steps with a client's write before each; whether that was all of them."""
    for _ in range(number):
        if writes:
            world.write(writes.pop())
        if next(steps, "end") == "end":
            return True
    return False


@settings(max_examples=1000, deadline=None)
@given(st.data())
def test_whatever_happened_mending_loses_nothing_and_ends(data: st.DataObject) -> None:
    keys = st.lists(st.sampled_from("abcdef"), max_size=8)
    world = World()
    for key in data.draw(keys, label="before"):
        world.write(key)
    run_some(world.classic_move(), data.draw(st.integers(0, 30), label="steps"), world, data.draw(keys, label="during"))
    victim = data.draw(st.sampled_from(["S", "T"]), label="who is failed over")  # with both it could not be known
    crashes = data.draw(st.lists(st.tuples(st.sampled_from(["", victim]), st.integers(1, 12), keys), max_size=4))
    for forgetful, steps, writes in [*crashes, ("", 10_000, [])]:
        if not world.is_last_to_know(forgetful):
            world.forget(forgetful)
        for key in writes[:3]:
            world.write(key)
        for slot in find_open(world.facts()):
            mending = decide(slot, world.facts(), {name: len(held) for name, held in world.data.items()})
            assert isinstance(mending, Mending)
            run_some(world.mend(slot, mending), steps, world, writes[3:])
    assert find_open(world.facts()) == ()
    (owner,) = world.claims
    assert world.data[owner] == world.truth
