"""Free ports and free space of another host, in one exchange. The program there is fleet/ports.py."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import msgspec

from redisforge.errors import HostError
from redisforge.fleet import ports
from redisforge.fleet.transport import Transport
from redisforge.plan.low_ports import may_bind_all

_LIMIT_S = 30.0
_NO_PYTHON = 127
_LOOK = r"""
# PROGRAM REQUEST : what fleet/ports.py says; without python3, from which port on everybody may listen, and CapEff.
if command -v python3 >/dev/null; then exec python3 -I -c "$1" "$2"; fi
cat /proc/sys/net/ipv4/ip_unprivileged_port_start 2>/dev/null || echo 1024
awk '$1 == "CapEff:" { print $2 }' /proc/self/status
exit 127
"""


class Room(msgspec.Struct, frozen=True):
    """What a host has. `problems`: for each socket that was asked about, why it cannot be listened on, else empty.
    `missing`: those of the paths at which nothing is. Everybody may listen on ports from `unprivileged_from` on, and on
    lower ones who `is_privileged`. A host without python3 tells of these two alone."""

    unprivileged_from: int
    is_privileged: bool
    free_bytes: int
    problems: tuple[str, ...]
    missing: tuple[str, ...]


async def look_for_room(
    transport: Transport, folder: str, sockets: Sequence[tuple[str, int]], paths: Sequence[str]
) -> Room | None:
    """Ask a host; None if its python3 cannot look. `folder` need not be there.

    Raises:
        HostError: the host cannot be reached.
    """
    request = json.dumps({"folder": folder, "sockets": sockets, "paths": paths})
    argv = ("sh", "-c", _LOOK, "redisforge-look", _program(), request)
    try:
        result = await transport.run(argv, timeout_s=_LIMIT_S, check=False)
    except HostError as error:
        if type(error) is HostError:
            return None
        raise
    if result.exit_status == _NO_PYTHON:
        limit, effective = (*result.stdout.split(), "")[:2]
        return Room(int(limit), may_bind_all(effective), free_bytes=0, problems=("",) * len(sockets), missing=())
    if result.exit_status:
        return None
    return msgspec.json.decode(result.stdout, type=Room)


@cache
def _program() -> str:
    return Path(ports.__file__).read_text(encoding="utf-8")
