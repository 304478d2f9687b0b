"""redisforge host trust: the keys of hosts, shown first, then trusted."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from redisforge.cli.options import ConfigOption, JsonOption, YesOption
from redisforge.model.words import counted

if TYPE_CHECKING:
    from redisforge.model.host_report import TrustReport, TrustResult


def trust(
    hosts: Annotated[
        list[str] | None, typer.Argument(metavar="[HOST]...", help="Hosts by name; default: all that are declared.")
    ] = None,
    fingerprints: Annotated[
        list[str] | None,
        typer.Option(
            "--fingerprint", metavar="SHA256:...", help="Trust keys with this fingerprint, and no others; repeatable."
        ),
    ] = None,
    config: ConfigOption = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make the SSH keys of hosts known: shows their fingerprints, asks, and writes REDISFORGE_HOME/known_hosts.

    Compare them with what `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` says on the host itself. A jump host is
    asked about first. A key that is not the one that was known is an error; to trust it all the same, give its
    --fingerprint: neither an answer nor --yes does.
    """
    from redisforge.cli.output import print_json
    from redisforge.runbooks.host_trust import trust_hosts
    from redisforge.runbooks.hosts import declared_fleet

    def agree(open_ones: Iterable[TrustResult]) -> bool:
        typer.echo("\n".join(map(_host_text, open_ones)), err=True)
        return yes or typer.confirm("Are these the hosts' own fingerprints?", err=True)

    fleet = declared_fleet(config, hosts or (), os.environ, Path.cwd())
    report = trust_hosts(fleet, fingerprints or (), agree)
    if as_json:
        print_json(report)
    else:
        typer.echo(trust_text(report))
    _raise_problem(report)


def _raise_problem(report: TrustReport) -> None:
    """Raises HostKeyError, UnreachableError, or Abort where nobody said yes."""
    from redisforge.errors import HostKeyError, UnreachableError

    failed = [result for result in report.hosts if result.problem]
    if failed:
        kind = UnreachableError if all(result.state == "unreachable" for result in failed) else HostKeyError
        what = f"{counted(len(failed), 'host')} {'is' if len(failed) == 1 else 'are'} not trusted"
        raise kind(what, where=", ".join(result.host for result in failed), why="\n".join(r.problem for r in failed))
    if not report.passed:
        raise typer.Abort


def trust_text(report: TrustReport) -> str:
    """A line for each host, and the file."""
    if not report.hosts:
        return f"{report.cluster}: no host is reached over SSH; there is nothing to trust"
    width = max(len(result.host) for result in report.hosts)
    lines = [f"{result.host.ljust(width)}  {result.state}" for result in report.hosts]
    return "\n".join([*lines, *([f"written to {report.file}"] if any(_is_new(r) for r in report.hosts) else [])])


def _is_new(result: TrustResult) -> bool:
    return result.state == "trusted"


def _host_text(result: TrustResult) -> str:
    lines = [f"{result.host} ({result.known_as}) shows"]
    lines += [f"  {key.fingerprint}  {key.algorithm}" for key in result.shown]
    if result.known:
        lines += ["  instead of", *(f"  {key.fingerprint}  {key.algorithm}" for key in result.known)]
    return "\n".join(lines)
