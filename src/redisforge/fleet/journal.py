"""The audit trail: who did what, when, and how it went; one JSON line per event. Never read to decide anything."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import msgspec


class Journal:
    """Appends to CLUSTER/journal.jsonl. A full disk must not stop an operation, so failures are dropped."""

    def __init__(self, path: Path, *, verb: str, user: str) -> None:
        self._path = path
        self._verb = verb
        self._user = user

    def write(self, event: str, *, what: str = "", result: str = "", seconds: float | None = None) -> None:
        """Add one event; `seconds` is how long it took."""
        line = {
            "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "user": self._user,
            "pid": os.getpid(),
            "verb": self._verb,
            "event": event,
            "what": what,
            "result": result,
            "seconds": None if seconds is None else round(seconds, 3),
        }
        try:
            with self._path.open("ab") as stream:
                stream.write(msgspec.json.encode(line) + b"\n")
        except OSError:
            return
