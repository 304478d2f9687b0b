"""How things are shown: JSON, calm tables, progress lines."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import msgspec
import typer

from redisforge.errors import GateError
from redisforge.model.steps import Phase, Plan

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from redisforge.model.layout import ClusterLayout
    from redisforge.model.topology import Topology


class _Unheard(io.FileIO):
    """A file that takes what nobody reads any more."""

    def write(self, data: Buffer, /) -> int | None:
        """Write, or, with the reader gone, seem to."""
        try:
            return super().write(data)
        except BrokenPipeError:
            return memoryview(data).nbytes


def outlive_reader_of_stderr() -> None:
    """From here on standard error goes quiet when its reader is gone (`up 2>&1 | head -5`): a verb is not to end in the
    middle because nobody follows its progress, and its exit status stays its own."""
    before = sys.stderr
    if not before:  # closed by whoever started this
        return
    raw = _Unheard(before.fileno(), "w", closefd=False)
    sys.stderr = io.TextIOWrapper(
        io.BufferedWriter(raw), encoding=before.encoding, errors=before.errors, line_buffering=True
    )


def print_json(document: object) -> None:
    """One JSON document, indented, to standard output."""
    typer.echo(msgspec.json.format(msgspec.json.encode(document), indent=2).decode())


def progress_to_stderr(line: str) -> None:
    """Progress goes to standard error, so that standard output stays what was asked for."""
    typer.echo(f"  {line}", err=True)


def finished_steps_only(line: str) -> None:
    """Progress without the announcements: one line per finished step."""
    if not line.endswith("…"):
        progress_to_stderr(line)


def print_table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table without lines: columns as wide as their content, numbers to the right."""
    cells = [[("-" if cell is None or cell == "" else str(cell)) for cell in row] for row in rows]
    typer.echo(table_text(headings, cells))


def table_text(headings: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """The table as text."""
    columns = list(zip(headings, *cells, strict=True))
    widths = [max(map(len, column)) for column in columns]
    numeric = [bool(cells) and all(_is_number(cell) for cell in column[1:]) for column in columns]

    def line(row: Sequence[str]) -> str:
        padded = (
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        )
        return "  ".join(padded).rstrip()

    return "\n".join([line(headings), *(line(row) for row in cells)])


def print_plan(plan: Plan, *, as_json: bool) -> None:
    """A plan: phases, their steps with the reason, and the gate that each leads to."""
    if as_json:
        print_json(plan)
        return
    if plan.is_empty:
        typer.echo("Nothing to do: what runs is what is declared.")
    if plan.records and not plan.phases:
        typer.echo("Nothing to do on the nodes: only what is on record of the cluster changes.")
    for number, phase in enumerate(plan.phases, 1):
        first, *rest = phase_lines(phase)
        typer.echo("\n".join([f"{number}. {first}", *rest]))
    if plan.is_open:
        typer.echo(
            f"What comes next depends on that; if it does not hold in time, the run ends with exit status "
            f"{GateError.exit_status}."
        )


def print_lock_notices(layout: ClusterLayout, verb: str, topology: Topology | None) -> None:
    """Before a plan, to standard error: who holds the lock now, so that `verb` would be refused."""
    from redisforge.runbooks.lock import lock_notices

    for notice in lock_notices(layout, verb, topology):
        typer.echo(f"note: {notice}", err=True)


def phase_lines(phase: Phase) -> list[str]:
    """A phase with the gate that it leads to, then a line for each step with the reason, or for what is waited for."""
    head = f"{phase.title}  [then: {phase.gate.name}, within {phase.gate.deadline_s:g} s]"
    waits = (f"     waits for: {reason}" for reason in phase.waits_for)
    return [head, *(f"     {step}  ({step.why})" for step in phase.steps), *waits]


def human_bytes(size_bytes: int | None) -> str:
    """1536 -> `1.5K`; `-` for unknown."""
    if size_bytes is None:
        return "-"
    size = float(size_bytes)
    for unit in ("B", "K", "M", "G", "T"):
        if size < 1024 or unit == "T":
            return f"{size:.0f}{unit}" if unit == "B" or size >= 100 else f"{size:.1f}{unit}"
        size /= 1024
    return ""


def on_terminal() -> bool:
    """Whether a person reads standard output: then secrets that were asked for may be shown."""
    return sys.stdout.isatty()


def _is_number(cell: str) -> bool:
    return cell == "-" or cell[:1].isdigit()
