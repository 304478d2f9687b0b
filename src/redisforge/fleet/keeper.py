"""The keeper: starts one Unit, keeps it running, and never starts an empty master over its replicas.

A small program of the standard library alone, so that it can be read in one sitting, carried to any host with
a python3, and later be PID 1 of a container. It is run as a script, never imported by RedisForge:

    python3 -I keeper.py start UNIT_FOLDER…    a keeper in the background for each folder; prints JSON
    python3 -I keeper.py stop UNIT_FOLDER…     end the Units and their keepers; returns when they are gone
    python3 -I keeper.py state UNITS_FOLDER    the state of every Unit below the folder, as JSON
    python3 -I keeper.py keep UNIT_FOLDER      keep one Unit in the foreground
    python3 -I keeper.py foreground UNIT_FOLDER   the same as PID 1 of a container: another keeper is an error

A Unit's folder holds unit.json (argv, guard, …; written by RedisForge), state.json (written here), `log`, and
`keeper.lock`, which a living keeper holds with flock(2): the kernel drops it with the process, so it cannot go
stale. A child outlives a killed keeper, and the next keeper adopts it by pid, start time and boot id.

The guard. A Redis node that restarts without its data under its old address is a catastrophe: replicas find
their master by address, ask for a full copy, and get the emptiness (facts of the trade: an empty master wipes
its replicas). So a node whose data is not there, or that has no nodes.conf at all, is *held* until the other
nodes say that nobody expects slots of it any more, which is so as soon as a replica has taken over. A file
`permit-blank` lets it start once; `up` writes it for a new cluster, an operator after having accepted the loss.

When all data folders are gone at once (a disk that is not mounted), nobody is left to say what is expected. So
state.json, which is outside of them, keeps `was_member`: the node has known others. `up` then forms nothing new.

The hand-off. A master that is stopped, or that died, first gives its slots to a replica: handoff.py, beside this
file. Without that file, or without handoff.json in the Unit's folder, the keeper does the rest of its work.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import json
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

Document = dict[str, Any]
"""unit.json or state.json as it was read."""

BACKOFF_FIRST_S = 0.1
BACKOFF_LAST_S = 5.0
STABLE_AFTER_S = 10.0
GUARD_INTERVAL_S = 0.5
MEMBER_INTERVAL_S = 0.25
FIRST_SAMPLE_S = 3.0
"""A node's first seconds are busy with forming the cluster, and a new master serves nothing for two (Redis's
CLUSTER_WRITABLE_DELAY)."""
SAMPLE_INTERVAL_S = 1.0
KILL_TIMEOUT_S = 10.0
START_TIMEOUT_S = 20.0


def read_json(path: Path) -> Document:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):  # TypeError: JSON, but not an object
        return {}


def write_json(path: Path, document: Document) -> None:
    beside = Path(f"{path}.{os.getpid()}.new")
    beside.write_text(json.dumps(document, indent=1))
    beside.replace(path)


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def start_ticks(pid: int) -> int:
    """Start time of a process in clock ticks since boot, 0 if it is gone: tells a reused pid from the old one."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    fields = stat.rpartition(")")[2].split()
    return 0 if fields[0] in "ZX" else int(fields[19])


def is_alive(state: Document) -> bool:
    pid = state.get("pid", 0)
    return bool(pid) and state.get("boot_id") == boot_id() and start_ticks(pid) == state.get("start_ticks")


def lock_holder(folder: str) -> int:
    """The pid of the keeper that holds the folder, or 0. Looks by sharing the lock for a moment."""
    try:
        descriptor = os.open(Path(folder, "keeper.lock"), os.O_RDWR)
    except OSError:
        return 0
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return int(os.read(descriptor, 32) or b"0")
    else:
        return 0
    finally:
        os.close(descriptor)


def take_lock(descriptor: int) -> bool:
    """Make the folder this keeper's; False when another keeper has it. Those who only look are waited for."""
    while True:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return False
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        time.sleep(0.001)


def beside(name: str) -> Any:
    """The program NAME.py of this file's folder, as a module. Only when it is needed: TLS triples the time of a start.

    Raises OSError if it is not there: a host may still have files of an older version.
    """
    known = f"redisforge_keeper_{name}"
    if known not in sys.modules:
        found = importlib.util.spec_from_file_location(known, Path(__file__).with_name(f"{name}.py"))
        if found is None or found.loader is None:
            raise OSError(f"{name}.py cannot be loaded")
        module = importlib.util.module_from_spec(found)
        sys.modules[known] = module
        try:
            found.loader.exec_module(module)
        except BaseException:
            del sys.modules[known]
            raise
    return sys.modules[known]


# --- the guard -----------------------------------------------------------------------------------------------


def known_nodes(data_path: str) -> list[list[str]]:
    """The lines of nodes.conf, which are those of CLUSTER NODES, split into fields; none without the file."""
    try:
        lines = Path(data_path, "nodes.conf").read_text(errors="replace").splitlines()
    except OSError:
        return []
    return [fields for fields in map(str.split, lines) if len(fields) >= 8]


def own_claim(data_path: str) -> tuple[str, bool]:
    """(node id, whether it is a master with slots) from nodes.conf; ("", False) without one."""
    for fields in known_nodes(data_path):
        if "myself" in fields[2].split(","):
            return fields[0], "master" in fields[2] and len(fields) > 8
    return "", False


def has_data(data_path: str, persistence: str) -> bool:
    if persistence == "aof":
        folder = Path(data_path, "appendonlydir")
        return any(folder.glob("*.manifest")) and any(
            part.stat().st_size for part in folder.iterdir() if part.suffix in (".aof", ".rdb")
        )
    return persistence == "rdb" and Path(data_path, "dump.rdb").exists()


def ask(guard: Document, address: str, port: int, *command: str) -> str:
    """One command to a peer over TLS; returns the reply as text."""
    with beside("peers").Line(guard, address, port) as line:
        reply: str = line.ask(*command)
        return reply


def why_not_start(guard: Document) -> str:
    """The reason to hold the node back, or "" when it may start. See the guard in the module's text."""
    node_id, claims_slots = own_claim(guard["data_path"])
    if node_id and (not claims_slots or has_data(guard["data_path"], guard["persistence"])):
        return ""
    me = f"{guard.get('known_as') or guard['address']}:{guard['port']}"
    informed = False
    for address, port in guard["peers"]:
        try:
            view = [line.split() for line in ask(guard, address, port, "CLUSTER", "NODES").splitlines()]
        except (OSError, ValueError):  # ValueError: it answers, but not as a node does
            continue
        view = [fields for fields in view if len(fields) >= 8]
        informed = informed or len(view) > 1
        for fields in view:
            mine = fields[0] == node_id or fields[1].partition("@")[0] == me
            slots = [field for field in fields[8:] if not field.startswith("[")]
            if mine and slots:
                return (
                    f"its data is missing from {guard['data_path']}, and {address}:{port} still expects slots "
                    f"{' '.join(slots[:4])}{' …' if len(slots) > 4 else ''} of it; it starts once a replica took over"
                )
    if informed:
        return ""
    missing = "its data" if node_id else "nodes.conf"
    return f"{missing} is missing from {guard['data_path']}, and no other node of the cluster can be asked"


# --- keeping one Unit ----------------------------------------------------------------------------------------


class Keeper:
    """Starts, watches and ends the one child of a Unit's folder."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.state: Document = {}
        self.pidfd = -1
        self.stopping = False
        self.adopted = False
        self.is_node = False
        self.handoff: Any = None
        self.sample_due_s = 0.0
        self.wake_read, self.wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def unit(self) -> Document:
        return read_json(self.folder / "unit.json")

    def log(self, text: str) -> None:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())
        with contextlib.suppress(OSError):  # a full disk must not end the keeper
            print(f"{stamp}Z keeper: {text}", flush=True)

    def save(self, **changes: object) -> None:
        self.state.update(changes)
        try:
            write_json(self.folder / "state.json", self.state)
        except OSError as error:
            self.log(f"cannot write state.json: {error.strerror}")

    def run(self) -> bool:
        """Keep the Unit until told to stop; False when another keeper has it."""
        descriptor = os.open(self.folder / "keeper.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        if not take_lock(descriptor):
            return False
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        with contextlib.suppress(OSError):  # whatever umask its files are made with, they are for nobody else
            self.folder.chmod(0o700)
        signal.set_wakeup_fd(self.wake_write, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.on_stop)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self.keep()
        return True

    def on_stop(self, _number: int, _frame: FrameType | None) -> None:
        self.stopping = True

    def keep(self) -> None:
        self.adopt()
        failures = 0
        while not self.stopping:
            settled = self.note_membership()
            if self.pidfd < 0 and not self.start():
                self.wait(GUARD_INTERVAL_S)
                continue
            if self.wait(self.interval_s(settled)):
                self.sample()
                continue  # woken by a signal, or to look again: the loop's condition decides
            failures = 0 if time.time() - self.state["started_at"] > STABLE_AFTER_S else failures + 1
            exit_text = self.reap()
            restarts = self.state.get("restarts", 0) + 1
            self.save(state="backoff", pid=0, last_exit=exit_text, restarts=restarts)
            if self.handoff:
                self.handoff.after_death()
            delay = min(BACKOFF_LAST_S, BACKOFF_FIRST_S * 2 ** max(0, failures - 1))
            self.log(f"{exit_text}; starting again in {delay:g} s")
            self.wait(delay)
        if self.pidfd >= 0 and self.load_handoff():
            self.handoff.before_stop(self.child_ended)
        self.end_child()
        self.save(state="stopped", pid=0)

    def adopt(self) -> None:
        self.state = read_json(self.folder / "state.json")
        self.state.setdefault("restarts", 0)
        self.is_node = bool(self.unit().get("guard"))
        if is_alive(self.state):
            with contextlib.suppress(OSError):
                self.pidfd = os.pidfd_open(self.state["pid"])
                self.adopted = True
                self.save(state="running", reason="")
                self.log(f"adopted process {self.state['pid']}")
                return
        kept = {name: self.state[name] for name in ("last_exit", "was_member") if name in self.state}
        self.state = {"restarts": 0, **kept}

    def note_membership(self) -> bool:
        """Keep in state.json that the node knows others; False while that may still come."""
        guard = self.unit().get("guard")
        if guard and not self.state.get("was_member") and len(known_nodes(guard["data_path"])) > 1:
            self.save(was_member=True)
        return not guard or bool(self.state.get("was_member"))

    def load_handoff(self) -> bool:
        """Whether there is a hand-off for this Unit: handoff.json in its folder, and the program for it."""
        if not (self.folder / "handoff.json").exists():
            self.handoff = None
        elif self.handoff is None:
            try:
                program = beside("handoff")
                self.handoff = program.Handoff(self.folder, beside("peers"), self.log)
            except OSError as error:
                self.log(f"no hand-off: {error}")
        return self.handoff is not None

    def interval_s(self, settled: bool) -> float | None:
        """How long to wait for the child's end before the next look; None for what is no Redis node."""
        if not settled:
            return MEMBER_INTERVAL_S
        return SAMPLE_INTERVAL_S if self.is_node else None

    def sample(self) -> None:
        bury_strangers(self.state.get("pid", 0))
        if self.is_node and not self.stopping and time.monotonic() >= self.sample_due_s and self.load_handoff():
            self.handoff.sample()
            self.sample_due_s = time.monotonic() + SAMPLE_INTERVAL_S / 2

    def start(self) -> bool:
        """Start the child; False when the guard holds it back."""
        unit = self.unit()
        self.is_node = bool(unit.get("guard"))
        permit = self.folder / "permit-blank"
        if unit.get("guard") and permit.exists():
            self.save(was_member=len(known_nodes(unit["guard"]["data_path"])) > 1)  # else its past is given up
        elif unit.get("guard"):
            reason = why_not_start(unit["guard"])
            if reason:
                if self.state.get("reason") != reason:
                    self.log(f"held: {reason}")
                    self.save(state="held", reason=reason, pid=0)
                return False
        permit.unlink(missing_ok=True)
        if (self.folder / "users.acl.kept").exists() and self.load_handoff():
            self.handoff.put_back_acl()
        pid = os.fork()
        if pid == 0:
            self.become(unit)
        self.adopted = False
        self.pidfd = os.pidfd_open(pid)
        self.sample_due_s = time.monotonic() + FIRST_SAMPLE_S
        self.save(
            state="running", reason="", pid=pid, start_ticks=start_ticks(pid), boot_id=boot_id(),
            started_at=time.time(), config_hash=unit.get("config_hash", ""),
        )  # fmt: skip
        return True

    def become(self, unit: Document) -> NoReturn:
        """In the child: turn into the Unit's program. Never returns."""
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            os.setsid()
            os.chdir(self.folder)
            _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            wanted = unit.get("open_files", 0)
            limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
            os.execv(unit["argv"][0], unit["argv"])
        except BaseException as error:
            print(f"keeper: cannot run {unit.get('argv', ['?'])[0]}: {error}", flush=True)
        os._exit(127)

    def wait(self, timeout_s: float | None) -> bool:
        """Wait for the child's end, a signal, or the time limit. True if it was not the child's end."""
        poller = select.poll()
        poller.register(self.wake_read, select.POLLIN)
        if self.pidfd >= 0:
            poller.register(self.pidfd, select.POLLIN)
        ready = [descriptor for descriptor, _ in poller.poll(None if timeout_s is None else timeout_s * 1000)]
        if self.wake_read in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self.wake_read, 512)
        return self.pidfd not in ready

    def child_ended(self, limit_s: float) -> bool:
        return not self.wait(limit_s)

    def reap(self) -> str:
        """Collect the ended child; returns how it ended, in words."""
        os.close(self.pidfd)
        self.pidfd = -1
        if self.adopted:
            return "ended (how is not known: it was adopted)"
        with contextlib.suppress(OSError):  # a fork that saves would hold the connections of its dead parent open
            os.killpg(self.state["pid"], signal.SIGKILL)
        _, status = os.waitpid(self.state["pid"], 0)
        code = os.waitstatus_to_exitcode(status)
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exited with status {code}"

    def end_child(self) -> None:
        if self.pidfd < 0:
            return
        grace_s = self.unit().get("stop_grace_s", 10.0)
        for number, limit_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, KILL_TIMEOUT_S)):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, number)
            deadline = time.monotonic() + limit_s
            while (left := deadline - time.monotonic()) > 0:
                if not self.wait(left):
                    self.save(last_exit=self.reap())
                    return
            self.log(f"did not end within {limit_s:g} s of {number.name}")


def bury_strangers(own_child: int) -> None:
    """As PID 1, collect what was left by dead parents; the Unit's own child is collected by who waits for it."""
    if os.getpid() != 1:
        return
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) and ended.si_pid != own_child:
            os.waitpid(ended.si_pid, 0)


# --- the commands --------------------------------------------------------------------------------------------


def spawn(folder: str) -> None:
    """Run a keeper for `folder` in the background, away from this session and its descriptors."""
    if lock_holder(folder):  # a second keeper would leave, but while on its way it could outlive a stop
        if is_alive(read_json(Path(folder, "state.json"))):
            Path(folder, "permit-blank").unlink(missing_ok=True)  # it runs: the permit is not for its next start
        return
    log = os.open(Path(folder, "log"), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
    if os.fork():
        os.close(log)
        os.wait()
        deadline = time.monotonic() + START_TIMEOUT_S
        while not lock_holder(folder):
            if time.monotonic() > deadline:
                raise OSError(f"its keeper did not start within {START_TIMEOUT_S:g} s: see {folder}/log")
            time.sleep(0.002)  # whoever asked to start it shall find it when it looks
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    try:
        null = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((null, 0), (log, 1), (log, 2)):
            os.dup2(source, target)
        os.closerange(3, 256)
        os.chdir("/")
        script = os.path.abspath(__file__)  # noqa: PTH100 - before chdir it would have to be resolved twice
        os.execv(sys.executable, [sys.executable, "-I", "-S", script, "keep", folder])
    finally:
        os._exit(127)


def stop(folder: str) -> None:
    """End the keeper of `folder` and its child; an orphaned child is ended too."""
    state = read_json(Path(folder, "state.json"))
    unit = read_json(Path(folder, "unit.json"))
    handoff = read_json(Path(folder, "handoff.json"))
    limit_s = unit.get("stop_grace_s", 10.0) + KILL_TIMEOUT_S
    keeper = lock_holder(folder)
    if keeper:
        handoff_limit_s = 2 * handoff.get("stop_limit_s", 0.0) + handoff.get("linger_s", 0.0)
        handoff_limit_s += handoff.get("drain_s", 0.0)
        with contextlib.suppress(ProcessLookupError):
            descriptor = os.pidfd_open(keeper)
            signal.pidfd_send_signal(descriptor, signal.SIGTERM)
            select.select([descriptor], [], [], handoff_limit_s + limit_s + 2)
        state = read_json(Path(folder, "state.json"))
    if is_alive(state):
        descriptor = os.pidfd_open(state["pid"])
        for number, wait_s in ((signal.SIGTERM, limit_s - KILL_TIMEOUT_S), (signal.SIGKILL, KILL_TIMEOUT_S)):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, number)
            if select.select([descriptor], [], [], wait_s)[0]:
                break
        write_json(Path(folder, "state.json"), {**state, "state": "stopped", "pid": 0})
    Path(folder, "permit-blank").unlink(missing_ok=True)  # it was for a start that never came


def describe(folder: str) -> Document:
    state = read_json(Path(folder, "state.json"))
    unit = read_json(Path(folder, "unit.json"))
    guard: Document = unit.get("guard") or {}
    keeper, alive = lock_holder(folder), is_alive(state)
    told = read_json(Path(folder, "applied.json"))  # of a configuration that the process was told of while it ran
    if any(told.get(name) != state.get(name) for name in ("pid", "started_at")):
        told = {}
    node_id = own_claim(guard["data_path"])[0] if guard else ""
    name = state.get("state", "stopped")
    if not keeper:
        name = "orphaned" if alive else "stopped"
    elif name == "running" and not alive:
        name = "backoff"
    return {
        "name": Path(folder).name,
        "state": name,
        "pid": state.get("pid", 0) if alive else 0,
        "keeper_pid": keeper,
        "restart_count": state.get("restarts", 0),
        "last_exit": state.get("last_exit", ""),
        "reason": state.get("reason", "") if name == "held" else "",
        "started_at_s": state.get("started_at", 0.0),
        "config_hash": {**state, **told}.get("config_hash", "") if alive else "",
        "applied_at_s": told.get("applied_at", 0.0),
        "placed_hash": unit.get("placed_hash", ""),
        "has_cluster_config": bool(node_id),
        "node_id": node_id,
        "was_member": state.get("was_member", False),
        "elected_at_s": modified_at(folder, "elected"),
        "replaced_at_s": modified_at(folder, "last-election"),
    }


def modified_at(folder: str, name: str) -> float:
    """When a file of the Unit was written last, in seconds since the epoch; 0 without it."""
    try:
        return Path(folder, name).stat().st_mtime
    except OSError:
        return 0.0


def in_parallel(action: Callable[[str], None], folders: list[str]) -> None:
    """Run `action` for every folder in a process of its own, and wait for all; exits with 1 if one failed."""
    children: list[int] = []
    for folder in folders:
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                action(folder)
                status = 0
            except OSError as error:
                print(f"{folder}: {error}", file=sys.stderr, flush=True)
            finally:
                os._exit(status)
        children.append(pid)
    statuses = [os.waitpid(pid, 0)[1] for pid in children]
    if any(statuses):
        sys.exit(1)


def main(arguments: list[str]) -> None:
    command, *folders = arguments
    sys.dont_write_bytecode = True
    if command == "keep":
        Keeper(folders[0]).run()  # another keeper has it: nothing to do
    elif command == "foreground":
        if not Keeper(folders[0]).run():
            sys.exit(f"another keeper has {folders[0]}: is the Unit run outside of this container, too?")
    elif command == "start":
        in_parallel(spawn, folders)
    elif command == "stop":
        in_parallel(stop, folders)
    elif command == "state":
        units = Path(folders[0])
        found = sorted(path for path in units.iterdir() if path.is_dir()) if units.is_dir() else []
        print(json.dumps([describe(str(path)) for path in found]))
    else:
        sys.exit(f"unknown command {command!r}")


if __name__ == "__main__":
    main(sys.argv[1:])
