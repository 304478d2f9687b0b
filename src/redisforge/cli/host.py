"""redisforge host: the machines that carry the cluster, and whether they can."""

from __future__ import annotations

import difflib
import os
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from redisforge.cli import host_change
from redisforge.cli.host_trust import trust
from redisforge.cli.options import ConfigOption, DryRunOption, JsonOption, YesOption
from redisforge.model.words import counted

if TYPE_CHECKING:
    from redisforge.model.host_report import HostChange, HostList, HostsReport, ListedHost
    from redisforge.runbooks.hosts import Fleet

HostsArgument = Annotated[
    list[str] | None, typer.Argument(metavar="[HOST]...", help="Hosts by name; default: all that are declared.")
]


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    host = typer.Typer(help="The machines that carry the cluster, and whether they can.", no_args_is_help=True)
    host.command("list")(list_)
    host.command("check")(check)
    host.command("prepare")(prepare)
    host.command("trust")(trust)
    host_change.register(host)
    app.add_typer(host, name="host")


def list_(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List the declared hosts: address, zone, the way there, and what runs on each. No host is asked."""
    from redisforge.cli.output import print_json
    from redisforge.runbooks.hosts import list_hosts

    listed = list_hosts(_fleet(config, None))
    if as_json:
        print_json(listed)
    else:
        typer.echo(list_text(listed))


def check(
    hosts: HostsArgument = None,
    fix: Annotated[
        bool, typer.Option("--fix", help="Make right what can be, for good; each change is shown first.")
    ] = False,
    config: ConfigOption = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Check whether hosts can carry the cluster: Pass, Warn or Fail, with the cure.

    Writes 16 MB into the data folder to see how fast the disk is, and removes them. Where nothing listens yet, hosts
    listen on the cluster's ports for some seconds, to see whether they reach each other. Exits with status 13 if a
    check failed.
    """
    from redisforge.runbooks.hosts import check_hosts

    fleet = _fleet(config, hosts)
    _announce(fleet)
    report = check_hosts(fleet)
    if fix:
        report = _change(fleet, report, yes=yes, lasting=False)
    _end(report, as_json=as_json)


def prepare(
    hosts: HostsArgument = None,
    config: ConfigOption = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make new hosts fit for the cluster, for good: what `check --fix` does, and what is right only until a reboot.

    Each change is shown first. Needs root, or sudo without a password. Run again, it finds nothing to do.
    """
    from redisforge.cli.output import print_json
    from redisforge.runbooks.hosts import check_hosts

    fleet = _fleet(config, hosts)
    _announce(fleet)
    report = check_hosts(fleet, lasting=True, reach=not dry_run)
    if not dry_run:
        _end(_change(fleet, report, yes=yes, lasting=True), as_json=as_json)
    elif as_json:
        print_json(report)
    else:
        typer.echo(changes_text(report.changes))


def _fleet(config: Path | None, hosts: Iterable[str] | None) -> Fleet:
    from redisforge.runbooks.hosts import declared_fleet

    return declared_fleet(config, hosts or (), os.environ, Path.cwd())


def _announce(fleet: Fleet) -> None:
    from redisforge.cli.output import progress_to_stderr

    progress_to_stderr(f"asking {counted(len(fleet.hosts), 'host')}…")


def _change(fleet: Fleet, report: HostsReport, *, yes: bool, lasting: bool) -> HostsReport:
    """Show the changes, ask, make them; returns the report after them."""
    from redisforge.runbooks.hosts import change_hosts

    typer.echo(changes_text(report.changes), err=True)
    if not report.changes:
        return report
    if not yes:
        typer.confirm("Make these changes?", abort=True, err=True)
    return change_hosts(fleet, report, lasting=lasting)


def _end(report: HostsReport, *, as_json: bool) -> None:
    """Show the report; raises UnhealthyError if something failed."""
    from redisforge.cli.output import print_json
    from redisforge.errors import UnhealthyError

    if as_json:
        print_json(report)
    else:
        typer.echo(report_text(report))
    if not report.passed:
        failed = [f"{check.host}: {check.name}: {check.what}" for check in report.checks if check.verdict == "Fail"]
        failed += [f"{result.host}: {result.why}: {result.problem}" for result in report.results if result.problem]
        raise UnhealthyError(f"{counted(len(failed), 'check')} failed", where=report.cluster, why=failed[0])


def list_text(listed: HostList) -> str:
    """The hosts as a table."""
    from redisforge.cli.output import table_text

    rows = [[h.name, _address(h), h.zone, h.way, h.folder, " ".join(h.units) or "-", _labels(h)] for h in listed.hosts]
    columns = ("HOST", "ADDRESS", "ZONE", "REACHED", "FOLDER", "UNITS", "LABELS")
    shown = len(columns) if any(h.labels for h in listed.hosts) else len(columns) - 1
    return table_text(columns[:shown], [row[:shown] for row in rows])


def _address(host: ListedHost) -> str:
    return host.address if host.address == host.bind_address else f"{host.address} (on {host.bind_address})"


def _labels(host: ListedHost) -> str:
    return " ".join(f"{name}={value}" for name, value in host.labels.items()) or "-"


def report_text(report: HostsReport) -> str:
    """A table for each host, the cure below what did not pass; then what was changed, and the count."""
    by_host: dict[str, list[str]] = {}
    width = max((len(check.name) for check in report.checks), default=0)
    for check in report.checks:
        lines = by_host.setdefault(check.host, [])
        lines.append(f"  {check.verdict}  {check.name.ljust(width)}  {_indented(check.what, width + 10)}")
        if check.cure:
            lines.append(f"        {''.ljust(width)}  -> {_indented(check.cure, width + 13)}")
    text = [line for host, lines in by_host.items() for line in (host, *lines, "")]
    for result in report.results:
        text.append(f"{result.host}: {'not done' if result.problem else 'done'}: {result.why}")
        text += [f"  {result.problem}"] if result.problem else []
    verdicts = [check.verdict.value for check in report.checks]
    counts = ", ".join(f"{verdicts.count(kind)} {kind}" for kind in ("Pass", "Warn", "Fail"))
    return "\n".join([*text, f"{counted(len(report.facts), 'host')}: {counts} ({report.seconds:.1f} s)"])


def changes_text(changes: Iterable[HostChange]) -> str:
    """Each change as the difference of its files, and its commands."""
    lines: list[str] = []
    for change in changes:
        lines += [f"{change.host}: {change.why}"]
        for file in change.files:
            old = "/dev/null" if file.before is None else file.path
            before, after = (file.before or "").splitlines(), file.after.splitlines()
            lines += [f"    {line}" for line in difflib.unified_diff(before, after, old, file.path, lineterm="")]
        lines += [f"    # {shlex.join(command)}" for command in change.commands]
        lines += [f"    note: {change.note}"] if change.note else []
    return "\n".join(lines) or "Nothing to do: nothing that RedisForge can make right is missing."


def _indented(text: str, columns: int) -> str:
    """Further lines of a text below its first one."""
    return text.replace("\n", "\n" + " " * columns)
