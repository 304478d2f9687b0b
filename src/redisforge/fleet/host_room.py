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

_LIMIT_S = 30.0


class Room(msgspec.Struct, frozen=True):
    """What a host has. `problems`: for each socket that was asked about, why it cannot be listened on, else empty.
    `missing`: those of the paths at which nothing is."""

    free_bytes: int
    problems: tuple[str, ...]
    missing: tuple[str, ...]


async def look_for_room(
    transport: Transport, folder: str, sockets: Sequence[tuple[str, int]], paths: Sequence[str]
) -> Room | None:
    """Ask a host; None if it has no python3, or one that cannot look. `folder` need not be there.

    Raises:
        HostError: the host cannot be reached.
    """
    request = json.dumps({"folder": folder, "sockets": sockets, "paths": paths})
    try:
        result = await transport.run(("python3", "-I", "-c", _program(), request), timeout_s=_LIMIT_S)
    except HostError as error:
        if type(error) is HostError:
            return None
        raise
    return msgspec.json.decode(result.stdout, type=Room)


@cache
def _program() -> str:
    return Path(ports.__file__).read_text(encoding="utf-8")
