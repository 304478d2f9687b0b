"""redisforge test-cluster: use the cluster as a client would."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from redisforge.cli.options import ClusterOption, JsonOption, the_cluster
from redisforge.model.words import counted

if TYPE_CHECKING:
    from redisforge.model.report import SmokeReport


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("test-cluster")(test_cluster)


def test_cluster(
    host: Annotated[str | None, typer.Argument(metavar="[HOST]", help="An address; default: the cluster.")] = None,
    port: Annotated[int | None, typer.Argument(metavar="[PORT]", min=1, max=65535, help="Its port.")] = None,
    ca_file: Annotated[
        Path | None,
        typer.Option("--ca-file", envvar="REDIS_CA_FILE", help="The CA to trust; without it: no TLS."),
    ] = None,
    cluster: ClusterOption = None,
    as_json: JsonOption = False,
) -> None:
    """Test every endpoint: PING, SET/GET, MSET, pipeline, transaction, pub/sub, reader, CLUSTER INFO, version.

    For an address that is no endpoint of a cluster here, the user and password come from REDIS_ACL_USER and
    REDIS_ACL_PASS. Exits with status 13 if a check fails.
    """
    from redisforge.cli.output import print_json
    from redisforge.errors import UnhealthyError, UsageError
    from redisforge.runbooks.cluster import home_folder
    from redisforge.runbooks.test_cluster import Target, smoke_test_address, smoke_test_cluster

    if host is None:
        report = smoke_test_cluster(the_cluster(cluster))
    elif port is None:
        raise UsageError("HOST needs a PORT", next_step="redisforge test-cluster HOST PORT")
    else:
        target = Target(address=host, port=port, ca_path=str(ca_file or ""))
        report = smoke_test_address(target, home_folder(os.environ), os.environ)
    if as_json:
        print_json(report)
    else:
        _show(report)
    if not report.passed:
        failed = [check.name for check in report.checks if not check.passed]
        raise UnhealthyError(f"{counted(len(failed), 'check')} failed: {', '.join(failed)}", where=report.target)


def _show(report: SmokeReport) -> None:
    from redisforge.cli.output import table_text

    rows = [
        [
            "skip" if check.skipped else "pass" if check.passed else "FAIL",
            check.name,
            f"{check.seconds:.3f} s",
            check.detail,
        ]
        for check in report.checks
    ]
    typer.echo(table_text(("", report.target, "TIME", ""), rows))
    for check in report.checks:
        if check.likely_cause:
            typer.echo(f"{check.name}: likely cause: {check.likely_cause}")
