"""redisforge generate-certs: a private CA and certificates, without a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from redisforge.cli.output import print_json, print_table

if TYPE_CHECKING:
    from redisforge.runbooks.generate_certs import CertificatesReport


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("generate-certs")(generate_certs)


def generate_certs(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder for the files; created if missing.")],
    name: Annotated[
        list[str] | None,
        typer.Option("--name", help="Certificate to issue (repeatable). Default: server, client."),
    ] = None,
    san: Annotated[
        list[str] | None,
        typer.Option("--san", help="DNS name or IP address that all certificates cover (repeatable)."),
    ] = None,
    days: Annotated[int, typer.Option("--days", help="Validity of new certificates, 1 to 3650 days.")] = 825,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Make a private CA and certificates in DIR; keep what is there and valid.

    Every certificate covers its own name, localhost, 127.0.0.1 and ::1, and serves for servers and clients.
    """
    from datetime import UTC, datetime

    from redisforge.runbooks.generate_certs import generate_certs as run

    report = run(folder, name or (), san or (), days, datetime.now(UTC))
    if as_json:
        print_json(report)
    else:
        _show(report)


def _show(report: CertificatesReport) -> None:
    rows = [
        (
            Path(entry.file).name,
            entry.subject,
            " ".join(entry.names),
            entry.expires_at[:10],
            "written" if entry.written else "kept",
        )
        for entry in report.certificates
    ]
    print_table(("file", "subject", "names", "expires", "state"), rows)
    typer.echo(f"\nFolder: {report.folder}. Clients need ca.crt only; keep every .key file private.")
