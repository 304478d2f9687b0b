"""Reading the files of a declaration, which may be anything: absent, a folder, a pipe, a disk image."""

from __future__ import annotations

import os
import stat
from pathlib import Path


class UnreadableFileError(Exception):
    """The file cannot be read; the text completes "FILE ..."."""


def read_bounded(path: Path, max_bytes: int) -> tuple[bytes, int]:
    """The content of a regular file and its permission bits. One byte over `max_bytes` at most is read.

    Raises:
        UnreadableFileError: no such file, not a regular file, no permission, or an I/O error.
    """
    try:
        # O_NONBLOCK: opening a pipe that nobody writes to must not hang
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            mode = os.fstat(descriptor).st_mode
            if stat.S_ISDIR(mode):
                raise UnreadableFileError("is a folder, not a file")
            if not stat.S_ISREG(mode):
                raise UnreadableFileError("is not a regular file")
            return file.read(max_bytes + 1), stat.S_IMODE(mode)
    except FileNotFoundError:
        raise UnreadableFileError("does not exist") from None
    except IsADirectoryError:
        raise UnreadableFileError("is a folder, not a file") from None
    except OSError as error:
        raise UnreadableFileError(f"cannot be read: {error.strerror}") from None
    except ValueError as error:  # a NUL in the name
        raise UnreadableFileError(f"cannot be read: {error}") from None
