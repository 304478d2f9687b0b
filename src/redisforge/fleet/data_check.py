"""Does this engine read that data? Asked of the engine itself, on the host of a node, with a copy of the node's files.

That is dearer than redis-check-rdb and redis-check-aof, which look at the form of the files alone: a server also has to
understand every type and every command in them, which is what a new version may get wrong. What is done on the host:
fleet/data_trial.py.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path, PurePosixPath

import msgspec

from redisforge.errors import HostError, RefusedError
from redisforge.fleet import data_trial
from redisforge.fleet.transport import Transport
from redisforge.render.container import once_command

_LIMIT_S = 3600.0
"""Above what the host gives the copy and the server."""
_ASK_LIMIT_S = 60.0
_NO_SUCH_PROGRAM = 127
"""Of docker run. Source: docs.docker.com, docker container run, exit status."""


class DataCheck(msgspec.Struct, frozen=True):
    """What came of it: the keys that were read; or why nothing was read, which is no failure."""

    keys: int = 0
    skipped: str = ""


class Trial(msgspec.Struct, frozen=True):
    """What is to be tried: `engine` is its name for messages, `server_path` and `data_path` lie on the host, and the
    node uses `memory_bytes`. `python` runs the program of the trial; with an `image` both are the image's."""

    engine: str
    server_path: str
    data_path: str
    memory_bytes: int
    python: str
    image: str = ""


class _Answer(msgspec.Struct, frozen=True):
    keys: int = 0
    skipped: str = ""
    no_room: tuple[int, int] | None = None
    changing: bool = False
    refused: str | None = None


async def check_data(transport: Transport, trial: Trial) -> DataCheck:
    """Let the engine load a copy of the files in `data_path`, whose node may go on writing.

    Raises:
        RefusedError: it cannot read them; says what the engine said.
        HostError: there is no room for the copy, or the host cannot be reached.
    """
    request = json.dumps({"server": trial.server_path, "data": trial.data_path, "memory_bytes": trial.memory_bytes})
    argv = (*await _python(transport, trial), "-I", "-c", _program(), request)
    done = await transport.run(argv, timeout_s=_LIMIT_S, check=not trial.image)
    if done.exit_status == _NO_SUCH_PROGRAM:
        return DataCheck(skipped=f"{trial.image} has no {trial.python}")
    if done.exit_status:
        raise HostError(
            f"{trial.engine} cannot be tried with a copy of the data",
            where=transport.host,
            why=done.stderr.strip()[-2000:],
            next_step=f"see that {trial.image} is there: redisforge images list, redisforge images push",
        )
    answer = msgspec.json.decode(done.stdout, type=_Answer)
    where = f"{transport.host}: {trial.data_path}"
    if answer.no_room:
        free, needed = answer.no_room
        raise HostError(
            "not enough space to try the data with the new version",
            where=where,
            why=f"{free >> 20} MB free, {needed >> 20} MB needed for a copy",
            next_step="make room and run the command again",
        )
    if answer.changing:
        raise HostError("the append-only files change too fast to be copied", where=where)
    if answer.refused is not None:
        raise RefusedError(
            f"{trial.engine} cannot read the data of this cluster",
            where=where,
            why=answer.refused,
            next_step="nothing was changed; stay with the version that runs, or choose another one",
        )
    return DataCheck(keys=answer.keys, skipped=answer.skipped)


async def _python(transport: Transport, trial: Trial) -> tuple[str, ...]:
    """What runs the program. In a container it is the owner of the files. Raises HostError."""
    if not trial.image:
        return (trial.python,)
    folder = str(PurePosixPath(trial.data_path).parent)
    owner = (await transport.run(("stat", "-c", "%u:%g", trial.data_path), timeout_s=_ASK_LIMIT_S)).stdout.strip()
    return once_command(trial.image, folder, owner, trial.python)


@cache
def _program() -> str:
    return Path(data_trial.__file__).read_text(encoding="utf-8")
