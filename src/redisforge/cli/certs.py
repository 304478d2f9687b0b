"""redisforge generate-certs: a private CA and certificates, without a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

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
        import msgspec

        typer.echo(msgspec.json.format(msgspec.json.encode(report)).decode())
    else:
        _show(report)


def _show(report: CertificatesReport) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("file", "subject", "names", "expires", ""):
        table.add_column(title, overflow="fold")
    for entry in report.certificates:
        state = "written" if entry.written else "kept"
        table.add_row(Path(entry.file).name, entry.subject, "\n".join(entry.names), entry.expires_at[:10], state)
    Console().print(table)
    typer.echo(f"\nFolder: {report.folder}. Clients need ca.crt only; keep every .key file private.")
