"""A folder of programs on its way to a host: as a tar archive, unpacked beside and renamed when it is whole.

The small scripts in `bin/` start the programs beside them by absolute paths (fleet/binaries/engine_fetch.py); on the
way the folder's own path in them becomes that on the host.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

_SCRIPT_LIMIT_BYTES = 16 * 1024
_BEING_CARRIED = ".carrying"


def beside(target: str) -> str:
    """Where an archive is unpacked before it is renamed to `target`. What a crash left there is deleted first."""
    return f"{target}{_BEING_CARRIED}"


def write_archive(source: str, target: str, stream: IO[bytes]) -> None:
    """Write the archive of the folder `source`, as it is to lie at `target`, to `stream`. Raises OSError."""
    with tarfile.open(fileobj=stream, mode="w|") as archive:
        for path in sorted(Path(source).rglob("*")):
            name = str(path.relative_to(source))
            entry = archive.gettarinfo(str(path), name)
            entry.uid = entry.gid = 0
            entry.uname = entry.gname = ""
            if not entry.isreg():
                archive.addfile(entry)
                continue
            script = _moved_script(path, source, target)
            if script is not None:
                entry.size = len(script)
                archive.addfile(entry, io.BytesIO(script))
            else:
                with path.open("rb") as content:
                    archive.addfile(entry, content)


def archive_chunks(source: str, target: str, chunk_bytes: int = 256 * 1024) -> Iterator[bytes]:
    """The same archive piece by piece; it is made in a temporary file, never as a whole in memory. Raises OSError."""
    import tempfile

    with tempfile.TemporaryFile() as file:
        write_archive(source, target, file)
        file.seek(0)
        while chunk := file.read(chunk_bytes):
            yield chunk


def _moved_script(path: Path, source: str, target: str) -> bytes | None:
    """The script with its new paths; None for anything else."""
    if path.stat().st_size > _SCRIPT_LIMIT_BYTES:
        return None
    content = path.read_bytes()
    return content.replace(source.encode(), target.encode()) if content.startswith(b"#!") else None
