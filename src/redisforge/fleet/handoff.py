"""The hand-off: a master that stops, or that died, gives its slots to its best replica at once.

Of the standard library alone, like keeper.py, which loads it from its own folder. Redis itself would notice a dead
master after cluster-node-timeout and more; who started the process sees its end in the same millisecond.

Told to stop: the replica that is most in sync is asked for CLUSTER FAILOVER. Redis pauses the master's writes until
the replica has everything, so clients see no error. The child is stopped when it has become a replica.

Then, for a replica as for a master that has become one: PING is taken from the users as whom proxies read, by a changed
ACL file that is loaded and put back at once (ACL LOAD: the right to do that is worth nothing to a thief). The proxies'
health checks fail, and when they have had time for that nobody's read is under way to the child.

Died: everything that takes time is prepared while the child lives (`sample`, about once a second, over one kept
connection): who its replicas are, how far they are, which history and how many keys the child had. After its death
the best replica is told to take over without its master (CLUSTER FAILOVER FORCE: the other masters vote). The child is
started again when that is done, and comes back as a replica.

What it never does:
- act for a node that still answers: the process has ended, and its port refuses connections;
- promote a replica that is more than `max_lag_bytes` behind the last sample, that had no link then, that loads, that
  syncs, that holds another history than the master's, or that is empty while the master was not: then the child
  starts again with its data, or Redis's own detection decides;
- ask for a vote that cannot be won: a majority of the masters must accept connections. When all died at once, they
  start again at once;
- ask for a vote soon after another one in the shard (`election_pause_s`): Redis up to 8.6 then lets the order lapse, or
  has the replica count its votes of the last time and be a master for a moment that nobody agrees with;
- promote two: only the one keeper of the dead master does this, it asks one replica, and it does nothing when one of
  them is a master already. Should an operator ask another at the same moment, the vote decides: the masters refuse
  who claims slots with an older epoch than their owner's.

Everything is in handoff.json in the Unit's folder, read anew each time: `enabled: false` there switches it off.
Source of the orders: redis.io CLUSTER FAILOVER, INFO, ACL LOAD, ACL DRYRUN.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from redisforge.fleet.peers import Line

Document = dict[str, Any]
"""handoff.json as it was read."""

SAMPLE_VALID_S = 5.0
"""An older sample says too little about how far a replica is behind."""
TAKEOVER_LIMIT_S = 3.0
"""How long a dead child is not started again while a replica is to take over. A vote takes 0.1 s; the order lapses
after 5 s (cluster_legacy.c, CLUSTER_MF_TIMEOUT), and a master that starts accepts nothing for 2 s
(CLUSTER_WRITABLE_DELAY): so a late election cannot take slots from a child that has begun to serve them."""
DRAIN_LIMIT_S = 0.3
"""How long a replica may take to read what its dead master sent last."""
REPLICA_TIMEOUT_S = 0.5
"""A replica that needs longer for an answer is passed over."""
ACKNOWLEDGED_WITHIN_S = 2
"""Replicas acknowledge every second; one that has been silent for longer hangs."""
ATTEMPT_LIMIT_S = 5.5
"""Redis gives up a planned failover after 5 s (cluster_legacy.c, CLUSTER_MF_TIMEOUT): then another is asked."""
POLL_S = 0.005
QUESTION = ("INFO", "replication", "keyspace", "persistence")


class Replica(NamedTuple):
    """A replica as its master sees it. `silent_s`: since its last acknowledgement."""

    address: str
    port: int
    offset: int
    silent_s: int


class Sample(NamedTuple):
    """What a living master said of itself. `history` is its replication id; `replicas` are those with a link;
    `voters` the other masters with slots (masters_in): after the death nodes.conf may be lost with the data."""

    taken_at_s: float
    history: str
    offset: int
    keys: int
    replicas: tuple[Replica, ...]
    voters: tuple[tuple[str, int], ...]


# --- reading INFO --------------------------------------------------------------------------------------------


def parse_info(text: str) -> dict[str, str]:
    pairs = (line.partition(":") for line in text.splitlines() if not line.startswith("#"))
    return {name: value.strip() for name, _, value in pairs if name}


def fields_of(value: str) -> dict[str, str]:
    """`ip=127.0.0.1,port=7004` as a dictionary."""
    pairs = (field.partition("=") for field in value.split(","))
    return {name: text for name, _, text in pairs}


def key_count(info: dict[str, str]) -> int:
    return int(fields_of(info.get("db0", "")).get("keys", 0))


def replicas_in(info: dict[str, str]) -> Iterator[Replica]:
    """The replicas of a master that have their link and are past their first sync."""
    for name, value in info.items():
        if name.startswith("slave") and name[5:].isdigit():
            fields = fields_of(value)
            if fields["state"] == "online":
                yield Replica(fields["ip"], int(fields["port"]), int(fields["offset"]), int(fields["lag"]))


def sample_of(info: dict[str, str], data_path: str, now_s: float) -> Sample | None:
    """None unless it is a master with slots that has its data."""
    if info["role"] != "master" or info.get("loading") != "0":
        return None
    owns_slots, voters = masters_in(data_path)
    if not owns_slots:
        return None
    return Sample(
        taken_at_s=now_s,
        history=info["master_replid"],
        offset=int(info["master_repl_offset"]),
        keys=key_count(info),
        replicas=tuple(replicas_in(info)),
        voters=tuple(voters),
    )


def why_unfit(info: dict[str, str], seen: Sample, max_lag_bytes: int) -> str:
    """Why this replica of a dead master must not take over; "" when it may."""
    if info.get("loading") != "0":
        return "it loads its data from disk"
    if info.get("master_sync_in_progress") != "0":
        return "it is in the middle of a full sync"
    if info.get("master_replid") != seen.history:
        return "it does not hold its master's history"
    offset = int(info["slave_repl_offset"])
    if offset <= 1:
        return "it has received nothing yet"
    if seen.keys and not key_count(info):
        return f"it is empty, and its master had {seen.keys} keys"
    if info.get("aof_last_write_status") == "err":
        return "it cannot write to its disk, and would refuse all writes"
    behind = seen.offset - offset
    return f"it is {behind} bytes behind, more than {max_lag_bytes}" if behind > max_lag_bytes else ""


def masters_in(data_path: str) -> tuple[bool, list[tuple[str, int]]]:
    """Of nodes.conf: whether the child is a master with slots, and the bus addresses of the other masters with slots.

    Its lines are those of CLUSTER NODES (redis.io): id, address:port@bus port, flags, …, from the ninth on slots. Votes
    go over the bus; and the port before it is 0 in the files of newer engines, which keep the TLS port elsewhere.
    """
    mine, others = False, list[tuple[str, int]]()
    try:
        lines = Path(data_path, "nodes.conf").read_text().splitlines()
    except FileNotFoundError:
        return False, []
    for line in lines:
        fields = line.split()
        if len(fields) > 8 and "master" in fields[2]:
            place, _, bus = fields[1].partition("@")
            if "myself" in fields[2]:
                mine = True
            else:
                others.append((place.rpartition(":")[0], int(bus.partition(",")[0])))
    return mine, others


def without_ping(acl: str, users: list[str]) -> str:
    """The ACL file with PING taken from `users`. A line is `user NAME rules…` (redis.io, ACL)."""
    lines = acl.splitlines()
    return "".join(f"{line} -ping\n" if line.split()[1] in users else f"{line}\n" for line in lines if line.strip())


def close_all(lines: dict[Replica, Line]) -> None:
    for line in lines.values():
        line.close()


# --- one child's hand-off ------------------------------------------------------------------------------------


class Handoff:
    """The hand-off for the child of one Unit's folder.

    `peers` is the module peers.py; `log` takes a line of text.
    """

    def __init__(self, folder: Path, peers: Any, log: Callable[[str], None]) -> None:
        self.path = folder / "handoff.json"
        self.election_path = folder / "last-election"
        self.elected_path = folder / "elected"
        self.acl_path = folder / "users.acl"
        self.acl_kept_path = folder / "users.acl.kept"
        self.peers = peers
        self.log = log
        self.seen: Sample | None = None
        self.line: Line | None = None
        self.master = ""
        self.tls: Any = None
        self.tls_read_at = 0.0

    def settings(self) -> Document:
        """handoff.json when the hand-off is on, else an empty dictionary."""
        try:
            settings = dict(json.loads(self.path.read_text()))
        except (OSError, ValueError, TypeError):
            return {}
        return settings if settings.get("enabled") else {}

    def prepare_tls(self, settings: Document) -> None:
        """Read the certificates, again when they were renewed."""
        changed_at = Path(settings["certificate_path"]).stat().st_mtime
        if changed_at != self.tls_read_at:
            self.tls, self.tls_read_at = self.peers.tls_context(settings), changed_at

    def connect(self, settings: Document, address: str, port: int) -> Line:
        self.prepare_tls(settings)
        line: Line = self.peers.Line(settings, address, port, REPLICA_TIMEOUT_S, self.tls)
        return line

    def hang_up(self) -> None:
        if self.line is not None:
            self.line.close()
            self.line = None

    def sample(self) -> None:
        """Ask the living child how it and its replicas are. A child that does not answer keeps its last sample."""
        settings = self.settings()
        if not settings:
            self.seen = None
            self.hang_up()
            return
        try:
            info = self.ask_child(settings)
            self.seen = sample_of(info, settings["data_path"], time.monotonic())
        except (OSError, ValueError, KeyError):
            return
        master = f"{info.get('master_host')}:{info.get('master_port')}" if info["role"] == "slave" else ""
        if master and master != self.master:
            self.note_election()
        elif self.master and not master:
            self.note_election(self.elected_path)
        self.master = master

    def note_election(self, path: Path | None = None) -> None:
        """Another node of the shard, or this one, has been elected. In a file: the next keeper has to know it, and
        so have those who plan failovers."""
        try:
            (path or self.election_path).touch()
        except OSError as error:
            self.log(f"cannot note the election: {error}")

    def pause_left_s(self, settings: Document) -> float:
        """How long no election may be asked for in this shard."""
        try:
            age_s = time.time() - self.election_path.stat().st_mtime
        except FileNotFoundError:
            return 0.0
        left_s: float = settings["election_pause_s"] - max(0.0, age_s)
        return max(0.0, left_s)

    def ask_child(self, settings: Document) -> dict[str, str]:
        try:
            self.line = self.line or self.connect(settings, settings["address"], settings["port"])
            return parse_info(self.line.ask(*QUESTION))
        except (OSError, ValueError):
            self.hang_up()  # a late reply must not be taken for that to the next question
            raise

    # --- after a death ---

    def after_death(self) -> None:
        """The child has ended by itself: have its best replica take over. Returns when that is done, or cannot be."""
        seen, self.seen = self.seen, None
        self.hang_up()
        settings = self.settings()
        began = time.monotonic()
        lines: dict[Replica, Line] = {}
        try:
            if not settings:
                return
            if seen is None:
                if masters_in(settings["data_path"])[0]:
                    self.log("no hand-off: it was not seen as a master yet")
                return
            if reason := self.why_not_now(settings, seen):
                self.log(f"no hand-off: {reason}")
                return
            best = self.choose(settings, seen, lines, self.drained)
            if best is None:
                return
            if not self.peers.refuses(settings["address"], settings["port"]):
                self.log("no hand-off: its port still answers")
                return
            lines[best].ask("CLUSTER", "FAILOVER", "FORCE")
            self.note_election()
            self.await_takeover(best, lines[best], began)
        except (OSError, ValueError, KeyError) as error:
            self.log(f"no hand-off: {error}")
        finally:
            close_all(lines)

    def why_not_now(self, settings: Document, seen: Sample) -> str:
        """Why no replica of a dead master can be asked, whoever it is; "" when one can be."""
        age_s = time.monotonic() - seen.taken_at_s
        if age_s > SAMPLE_VALID_S:
            return f"the last look at it was {age_s:.0f} s before its end"
        if not seen.replicas:
            return "it had no replica in sync"
        if left_s := self.pause_left_s(settings):
            return f"an election was held in the shard; the next can be in {left_s:.0f} s"
        if not self.peers.do_answer(seen.voters, (len(seen.voters) + 1) // 2 + 1):
            return "there is no majority of masters to vote for it"
        return ""

    def choose(
        self, settings: Document, seen: Sample, lines: dict[Replica, Line], read: Callable[[Line], dict[str, str]]
    ) -> Replica | None:
        """The fittest replica: the largest offset, then the first address. None, and a line in the log, without one.

        `read` gives a replica's INFO; `lines` receives the connections that were made.
        """
        offsets: dict[Replica, int] = {}
        for replica in sorted(seen.replicas):
            name = f"{replica.address}:{replica.port}"
            try:
                lines[replica] = self.connect(settings, replica.address, replica.port)
                info = read(lines[replica])
                if info["role"] == "master":
                    self.log(f"no hand-off: {name} is a master already")
                    return None
                reason = why_unfit(info, seen, settings["max_lag_bytes"])
                offsets[replica] = int(info["slave_repl_offset"])
            except (OSError, ValueError, KeyError) as error:
                reason = f"it does not answer ({error})"
            if reason:
                offsets.pop(replica, None)
                self.log(f"no hand-off to {name}: {reason}")
        return min(offsets, key=lambda replica: (-offsets[replica], replica), default=None)

    def drained(self, line: Line) -> dict[str, str]:
        """INFO of a replica that has read all that its dead master sent: the closed link is the last it reads."""
        deadline = time.monotonic() + DRAIN_LIMIT_S
        while True:
            info = parse_info(line.ask(*QUESTION))
            if info["role"] == "master" or info["master_link_status"] != "up" or time.monotonic() > deadline:
                return info
            time.sleep(POLL_S / 5)

    def await_takeover(self, replica: Replica, line: Line, began: float) -> None:
        name = f"{replica.address}:{replica.port}"
        while time.monotonic() < began + TAKEOVER_LIMIT_S:
            if parse_info(line.ask("INFO", "replication"))["role"] == "master":
                self.log(f"handed off to {name} in {time.monotonic() - began:.3f} s")
                return
            time.sleep(POLL_S)
        self.log(f"{name} was not elected within {TAKEOVER_LIMIT_S:g} s; is a majority of the masters there?")

    # --- before a stop ---

    def before_stop(self, child_ended: Callable[[float], bool]) -> None:
        """The child is to stop: have a replica take over first, if it is a master with slots and has one in sync; then
        have proxies read elsewhere.

        `child_ended` waits some seconds for the child's end. Returns when the child is a replica and proxies have had
        time to learn of it, or when it cannot become one.
        """
        settings = self.settings()
        if settings:
            lingers_s = settings["linger_s"] if self.hand_over(settings, child_ended) else 0.0
            drains_s = settings.get("drain_s", 0.0) if self.refuse_reads(settings) else 0.0
            if lingers_s or drains_s:
                child_ended(max(lingers_s, drains_s))

    def hand_over(self, settings: Document, child_ended: Callable[[float], bool]) -> bool:
        """Whether a replica has taken the slots of the child, which was their master."""
        began = time.monotonic()
        deadline = began + settings["stop_limit_s"]
        refused: set[tuple[str, int]] = set()
        try:
            while time.monotonic() < deadline and masters_in(settings["data_path"])[0]:
                seen = sample_of(self.ask_child(settings), settings["data_path"], time.monotonic())
                if seen is None:  # it is a replica now, or has nothing to give
                    return False
                fit = [r for r in seen.replicas if r.silent_s <= ACKNOWLEDGED_WITHIN_S and r[:2] not in refused]
                if not fit:
                    self.log("stops without a hand-off: it has no replica in sync")
                    return False
                if (left_s := self.pause_left_s(settings)) > deadline - time.monotonic():
                    self.log(f"stops without a hand-off: the next election in the shard can be in {left_s:.0f} s")
                    return False
                if left_s:
                    child_ended(left_s)
                    deadline += left_s
                    continue
                taker = self.planned(settings, seen._replace(replicas=tuple(fit)), refused, child_ended)
                if taker:
                    self.note_election()
                    self.log(f"handed off to {taker} in {time.monotonic() - began:.3f} s")
                    return True
            if time.monotonic() >= deadline:
                self.log(f"stops without a hand-off: no replica took over within {settings['stop_limit_s']:g} s")
        except (OSError, ValueError, KeyError) as error:
            self.log(f"stops without a hand-off: {error}")
        finally:
            self.hang_up()
        return False

    def refuse_reads(self, settings: Document) -> bool:
        """Whether the child, a replica by now, refuses PING of who reads since this moment: then proxies have to learn
        of it."""
        users = settings.get("drained_users", [])
        try:
            if not users or (info := self.ask_child(settings))["role"] == "master" or self.line is None:
                return False
            clients = int(parse_info(self.line.ask("INFO", "clients"))["connected_clients"])
            if clients <= 1 + (info.get("master_link_status") == "up"):
                return False  # this line and the master's: no proxy is there any more, as when all is taken down
            if all(self.line.ask("ACL", "DRYRUN", user, "PING") != "OK" for user in users):
                return False  # whoever stops it has seen to that
            self.load_acl(without_ping(self.acl_path.read_text(), users))
        except (OSError, ValueError, KeyError) as error:
            self.log(f"stops while proxies may send it reads: {error}")
            return False
        finally:
            self.hang_up()
        return True

    def load_acl(self, text: str) -> None:
        """Load `text` in place of users.acl, which afterwards is as before; after a crash put_back_acl sees to that."""
        changed = self.acl_path.with_suffix(".drained")
        try:
            changed.touch(0o600)
            changed.write_text(text)
            os.link(self.acl_path, self.acl_kept_path)
            changed.replace(self.acl_path)
            assert self.line
            self.line.ask("ACL", "LOAD")
        finally:
            changed.unlink(missing_ok=True)
            self.put_back_acl()

    def put_back_acl(self) -> None:
        """users.acl as it was, if it is what load_acl made of it: somebody may have placed another one since."""
        with contextlib.suppress(FileNotFoundError):
            kept = self.acl_kept_path.read_text()
            if self.acl_path.read_text().replace(" -ping\n", "\n") == kept:
                self.acl_kept_path.replace(self.acl_path)
            self.acl_kept_path.unlink(missing_ok=True)

    def planned(
        self, settings: Document, seen: Sample, refused: set[tuple[str, int]], child_ended: Callable[[float], bool]
    ) -> str:
        """CLUSTER FAILOVER on the best of the replicas in `seen`; who it is once the child is a replica, else "".

        Otherwise nobody of them, or the one that was asked, is worth another try: they are added to `refused`.
        """
        lines: dict[Replica, Line] = {}
        try:
            best = self.choose(settings, seen, lines, lambda line: parse_info(line.ask(*QUESTION)))
            refused.update(replica[:2] for replica in seen.replicas if best is None)
            if best is None:
                return ""
            name = f"{best.address}:{best.port}"
            deadline = time.monotonic() + min(ATTEMPT_LIMIT_S, settings["stop_limit_s"])
            try:
                lines[best].ask("CLUSTER", "FAILOVER")
                while time.monotonic() < deadline and not child_ended(POLL_S):
                    lines[best].ask("PING")  # a replica that goes away ends the waiting
                    if self.is_replica(settings):
                        return name
                reason = "it was not elected in time"
            except OSError as error:
                reason = str(error)
            refused.add(best[:2])
            self.log(f"no hand-off to {name}: {reason}")
            return ""
        finally:
            close_all(lines)

    def is_replica(self, settings: Document) -> bool:
        return self.ask_child(settings)["role"] != "master"
