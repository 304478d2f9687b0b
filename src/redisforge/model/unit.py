"""A Unit is anything that runs: a Redis node, an Envoy, later an exporter or an archiver."""

from __future__ import annotations

import hashlib
from typing import Literal

import msgspec

from redisforge.model.secret import Secret

UnitKind = Literal["redis", "envoy"]


class UnitFile(msgspec.Struct, frozen=True):
    """A file that a Unit needs; `path` is relative to the Unit's folder, `mode` is the permission bits.

    `restart_text` is what of its content a running process could only learn by a restart; None: all of it. The rest
    it reads again by itself, or needs at its start alone. `is_settings`: a running process can be told of the rest
    (CONFIG SET).
    """

    path: str
    content: str | Secret
    mode: int = 0o644
    restart_text: str | None = None
    is_settings: bool = False

    def text(self) -> str:
        """The content as it is written to disk."""
        return self.content.reveal() if isinstance(self.content, Secret) else self.content


class CarriedFolder(msgspec.Struct, frozen=True):
    """A folder of programs that must be on the host: `source` on the operator's machine, `target` there (absolute)."""

    source: str
    target: str


class DataGuard(msgspec.Struct, frozen=True):
    """What the keeper checks before it starts a Redis node, so that an empty master never wipes its replicas.

    `address` is its own, as it is asked where it runs; the others know it as `known_as`, if that is another one.
    `peers` are (address, port) of the other nodes; `persistence` says which files prove that the data is there.
    Paths are absolute on the Unit's host.
    """

    address: str
    port: int
    data_path: str
    persistence: Literal["aof", "rdb", "none"]
    peers: tuple[tuple[str, int], ...]
    ca_path: str
    certificate_path: str
    key_path: str
    user: str
    password_path: str
    known_as: str = ""


class Handoff(msgspec.Struct, frozen=True):
    """What the keeper of a Redis node needs to hand the node's slots over (fleet/handoff.py); placed as handoff.json.

    `address` and `port` are the node's own. The stop of a master waits at most `stop_limit_s` until a replica has
    taken over, and then `linger_s` so that proxies can learn of it. A replica first refuses PING of `drained_users`,
    the users of proxies' health checks; after `drain_s` none of them sends it reads. For `election_pause_s` after an
    election in its shard the engine would not hold another one properly (fleet/handoff.py). Paths are absolute on the
    Unit's host.
    """

    enabled: bool
    max_lag_bytes: int
    stop_limit_s: float
    linger_s: float
    election_pause_s: float
    address: str
    port: int
    data_path: str
    ca_path: str
    certificate_path: str
    key_path: str
    user: str
    password_path: str
    drained_users: tuple[str, ...] = ()
    drain_s: float = 0.0

    @property
    def longest_s(self) -> float:
        """How long the stop of a node may take before its process is told to end: as keeper.py's `stop` has it."""
        return 2 * self.stop_limit_s + self.linger_s + self.drain_s


class Container(msgspec.Struct, frozen=True):
    """What a Unit is run in, where its host runs containers. Limits of 0 are none.

    `read_folders` (absolute) are mounted for reading, each at its own path, as the Unit's folder is for writing.
    """

    image: str
    read_folders: tuple[str, ...]
    may_pull: bool = False
    memory_bytes: int = 0
    cpus: float = 0.0
    log_bytes: int = 0
    log_files: int = 1
    published: tuple[tuple[str, int], ...] = ()
    """(address, port) on the host that lead to the same port inside. Empty: it uses its host's network."""

    @property
    def hash(self) -> str:
        """Changes when the container would have to be made anew."""
        told = msgspec.to_builtins(self)
        if not self.published:
            del told["published"]  # as before there was this field: no container is made anew for it
        return hashlib.sha256(msgspec.json.encode(told)).hexdigest()[:16]


class Unit(msgspec.Struct, frozen=True):
    """A process with everything that it needs. `folder` is absolute on its host; `stop_grace_s` in seconds."""

    name: str
    kind: UnitKind
    host: str
    folder: str
    argv: tuple[str, ...]
    files: tuple[UnitFile, ...]
    ports: tuple[tuple[str, int], ...]
    """(address, port) of every socket that it listens on."""
    stop_grace_s: float = 10.0
    open_files: int = 100_000
    guard: DataGuard | None = None
    handoff: Handoff | None = None
    carried: tuple[CarriedFolder, ...] = ()
    """What must be brought to the host before it can start; empty where the programs are at hand."""
    beside: tuple[UnitFile, ...] = ()
    """Files relative to the cluster's folder on the host: its certificates, where they are not made. A running process
    is told of changed ones, or reads them again; so they are in neither hash."""
    container: Container | None = None
    """None: it runs as a process of the host's user."""

    @property
    def config_hash(self) -> str:
        """Changes when something changes for which the process would have to be restarted: the command line, the
        container around it, or what `UnitFile.restart_text` says of a file. The guard and the hand-off are the
        keeper's, which reads them when it needs them.

        After a dot follows what a running process can also be told of (`UnitFile.is_settings`), if it has such a file.
        """
        digest = hashlib.sha256()
        for part in self.argv:
            digest.update(part.encode() + b"\0")
        if self.container:
            digest.update(self.container.hash.encode())
        for file in self.files:
            text = file.text() if file.restart_text is None else file.restart_text
            digest.update(f"{file.path}\0{file.mode:o}\0".encode() + text.encode() + b"\0")
        settings = "".join(file.text() for file in self.files if file.is_settings)
        told = f".{hashlib.sha256(settings.encode()).hexdigest()[:16]}" if settings else ""
        return digest.hexdigest()[:16] + told

    @property
    def placed_hash(self) -> str:
        """Changes when anything changes that is placed for this Unit, whether it asks for a restart or not."""
        digest = hashlib.sha256(msgspec.json.encode((self.argv, self.stop_grace_s, self.open_files, self.guard)))
        for file in self.files:
            digest.update(f"{file.path}\0{file.mode:o}\0".encode() + file.text().encode() + b"\0")
        return digest.hexdigest()[:16]
