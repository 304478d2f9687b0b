"""A node that may have lost its data, for the tests of the keeper's guard: its guard, its files, its peers' views."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from fake_peer import PASSWORD, USER, node_line

from redisforge.model.unit import DataGuard
from redisforge.security.certificates import ensure_issued

PORT = 7001
MY_ID, OTHER_ID, REPLICA_ID, NEW_ID = "a" * 40, "b" * 40, "c" * 40, "d" * 40
OTHER = node_line(OTHER_ID, 7002, "myself,master", "5461-10922")
REPLICA = node_line(REPLICA_ID, 7003, "slave")
EXPECTING = (OTHER, node_line(MY_ID, PORT, "master,fail", "0-5460"), REPLICA)
"""The view of a peer for which the slots are still ours."""
TAKEN_OVER = (OTHER, node_line(MY_ID, PORT, "master,fail"), node_line(REPLICA_ID, 7003, "master", "0-5460"))
"""The view of a peer for which a replica has taken over."""
UNKNOWN = (OTHER, REPLICA)
"""The view of a peer that does not know us."""
MASTER_OF_SLOTS = node_line(MY_ID, PORT, "myself,master", "0-5460")
"""The node's own line of nodes.conf."""
WHOLE_AOF = {"appendonly.aof.1.base.rdb": "REDIS0012", "appendonly.aof.1.incr.aof": "", "appendonly.aof.manifest": "f"}


def issue_tls(folder: Path) -> Path:
    """A CA in `folder`, and certificates of the peer and of the node."""
    ensure_issued(folder, {"peer": (), "me": ()}, 10, datetime.now(UTC))
    return folder


def make_guard(tls: Path, data: Path, *peers: tuple[str, int], password: str = PASSWORD, **changes: Any) -> DataGuard:
    """The guard of the node 127.0.0.1:7001 with its data in `data`; the password's file is beside `data`."""
    data.mkdir(parents=True, exist_ok=True)
    password_path = data.parent / "operator.password"
    password_path.write_text(f"{password}\n")
    declared = DataGuard(
        address="127.0.0.1",
        port=PORT,
        data_path=str(data),
        persistence="aof",
        peers=peers,
        ca_path=str(tls / "ca.crt"),
        certificate_path=str(tls / "me.crt"),
        key_path=str(tls / "me.key"),
        user=USER,
        password_path=str(password_path),
    )
    return msgspec.structs.replace(declared, **changes)


def remember(data: Path, *lines: str) -> None:
    """Write nodes.conf."""
    text = "".join(f"{line}\n" for line in (*lines, "vars currentEpoch 6 lastVoteEpoch 0"))
    data.joinpath("nodes.conf").write_text(text)


def write_data(data: Path, *, aof: dict[str, str] | None = None, rdb: str | None = None) -> None:
    """Write the files of an AOF, or a dump."""
    if aof is not None:
        data.joinpath("appendonlydir").mkdir()
        for name, content in aof.items():
            data.joinpath("appendonlydir", name).write_text(content)
    if rdb is not None:
        data.joinpath("dump.rdb").write_text(rdb)
