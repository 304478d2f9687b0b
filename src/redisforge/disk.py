"""Files on this machine: written whole or not at all, and secret ones closed to others from their first moment."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from redisforge.errors import HostError

PRIVATE_MODE = 0o600
PUBLIC_MODE = 0o644


def write_file(path: Path, content: bytes, mode: int, *, replace: bool = True) -> bool:
    """Write `content` beside `path` with `mode` from the start, fsync, and put it in place in one step.

    With `replace` false an existing file is kept, also when somebody else creates it at the same moment.
    Returns whether the file is now this content's.

    Raises:
        HostError: no permission, no space, or the folder cannot be made.
    """
    beside = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            _write_synced(beside, content, mode)
            if replace:
                beside.replace(path)
            else:
                path.hardlink_to(beside)
        except FileExistsError:
            return False
        finally:
            beside.unlink(missing_ok=True)
        sync_folder(path.parent)
    except OSError as error:
        raise HostError(
            "cannot write a file",
            where=str(path),
            why="a file is where the folder should be" if _is_in_the_way(error) else error.strerror or str(error),
            next_step="Check the path, its permissions and the free space.",
        ) from error
    return True


def _is_in_the_way(error: OSError) -> bool:
    return isinstance(error, FileExistsError | NotADirectoryError)


def _write_synced(path: Path, content: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as stream:
        os.fchmod(stream.fileno(), mode)  # whatever the umask took away
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def sync_folder(folder: Path) -> None:
    """Make the names in a folder as lasting as the files are. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def tighten(path: Path) -> bool:
    """Take a secret file away from group and others; returns whether they could use it until now.

    Raises:
        HostError: the mode cannot be changed (the file belongs to somebody else).
    """
    try:
        mode = path.stat().st_mode
        if not mode & 0o077:
            return False
        path.chmod(PRIVATE_MODE)
    except OSError as error:
        raise HostError(
            "a file with secrets can be read by others and cannot be closed",
            where=str(path),
            why=error.strerror or str(error),
            next_step=f"As its owner run: chmod 600 '{path}'",
        ) from error
    return True
