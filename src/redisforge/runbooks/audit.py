"""`audit`: the journal as it was written, by whom, when, what and how it went."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from redisforge.errors import HostError, UsageError
from redisforge.fleet.journal import rotated
from redisforge.model.layout import ClusterLayout
from redisforge.model.report import AuditLine, AuditReport

_AGO = re.compile(r"(\d+)([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_LINE_LIMIT_BYTES = 1 << 20


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """Which runs are wanted: the last so many (0: all), of one verb (empty: any), which may go on with the first words
    of what it was asked to do (`host drain`), with a line at or after a time: a run that began before it and went on is
    shown whole."""

    last: int = 0
    verb: str = ""
    since: datetime | None = None


def audit(layout: ClusterLayout, wanted: Selection) -> AuditReport:
    """The lines of the wanted runs, oldest first. Lines that are torn or none of ours are passed over and counted.

    Raises:
        HostError: the journal is there and cannot be read.
    """
    runs: dict[str, list[AuditLine]] = {}  # by their beginnings; who is not within the period yet may go on into it
    within: set[str] = set()
    left_out: set[str] = set()
    verbs: set[str] = set()
    chosen: set[str] = set()
    passed_over = 0
    for line in _lines(Path(layout.journal)):
        entry = _decoded(line)
        if entry is None:
            passed_over += 1
            continue
        verbs.add(entry.verb)
        if entry.event == "begin" and entry.what.split(" ")[0] == wanted.verb:
            verbs.add(f"{entry.verb} {wanted.verb}")
        run = entry.run or f"{entry.verb}-{entry.pid}"
        if run in left_out:
            if entry.event == "end":
                left_out.discard(run)  # lines without a run are told apart by their pid, which is used again
            continue
        if entry.event == "begin":
            chosen.discard(run)  # without a run, a pid that is used again
            chosen.update([run] if _begins_with(f"{entry.verb} {entry.what}", wanted.verb) else [])
        if not (run in chosen or _begins_with(entry.verb, wanted.verb)):
            continue
        runs.setdefault(run, []).append(entry)
        if wanted.since is None or _time_of(entry) >= wanted.since:
            within.add(run)
            if wanted.last and len(within) > wanted.last:
                first = next(run for run in runs if run in within)
                within.discard(first)
                if runs.pop(first)[-1].event != "end":
                    left_out.add(first)
        elif entry.event == "end" and run not in within:
            runs.pop(run)
    runs = {run: entries for run, entries in runs.items() if run in within}
    notices = (f"{passed_over} lines of the journal cannot be read and are passed over",) if passed_over else ()
    if verbs and not runs:
        notices += (_nothing_matches(wanted, verbs),)
    lines = tuple(line for entries in runs.values() for line in entries)
    return AuditReport(cluster=Path(layout.folder).name, lines=lines, notices=notices)


def _begins_with(text: str, words: str) -> bool:
    """Whether a text begins with these words, whole ones; every text does with none."""
    return not words or f"{text} ".startswith(f"{' '.join(words.split())} ")


def _nothing_matches(wanted: Selection, verbs: set[str]) -> str:
    what = f"no run of {wanted.verb!r}" if wanted.verb else "no run"
    since = f" since {wanted.since.isoformat(timespec='seconds')}" if wanted.since else ""
    return f"{what}{since}; on record are runs of: {', '.join(sorted(verbs))}"


def has_worked(layout: ClusterLayout, verb: str, what: str) -> bool:
    """Whether an earlier run of a verb with these words has carried out a step, or come to a good end. Only for what is
    told to the operator: the journal may be lost. Raises HostError."""
    lines = audit(layout, Selection(verb=verb)).lines
    runs = {line.run for line in lines if line.event == "begin" and line.what == what}
    return any(line.run in runs and line.event in ("step", "end") and line.result == "ok" for line in lines)


def parse_time(text: str, now: datetime) -> datetime:
    """`2026-05-01`, `2026-05-01T10:30` (local time unless it has a zone), or how long ago: `90m`, `12h`, `7d`.

    Raises:
        UsageError: none of these.
    """
    try:
        if ago := _AGO.fullmatch(text.strip().lower()):
            return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        return datetime.fromisoformat(text.strip()).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise UsageError(
            f"not a time: {text!r}",
            next_step="write 2026-05-01, 2026-05-01T10:30, or how long ago: 90m, 12h, 7d",
        ) from error


def _time_of(entry: AuditLine) -> datetime:
    return datetime.fromisoformat(entry.at).astimezone(UTC)


def _decoded(line: bytes) -> AuditLine | None:
    try:
        entry = msgspec.json.decode(line, type=AuditLine)
        _time_of(entry)
    except (ValueError, OverflowError):  # msgspec's errors are ValueErrors too
        return None
    return entry


def _lines(path: Path) -> Iterator[bytes]:
    """Lines of the older file, then of the present one; a line without an end is bounded."""
    for file in (rotated(path), path):
        try:
            with file.open("rb") as stream:
                while line := stream.readline(_LINE_LIMIT_BYTES):
                    if line.strip():
                        yield line
        except FileNotFoundError:
            continue
        except OSError as error:
            raise HostError("the journal cannot be read", where=str(file), why=error.strerror or str(error)) from error
