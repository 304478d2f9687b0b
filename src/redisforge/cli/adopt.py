"""redisforge adopt: describe a running cluster that somebody else built."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from redisforge.cli.options import DryRunOption, JsonOption

if TYPE_CHECKING:
    from redisforge.redis.connection import Login

CaOption = Annotated[
    Path | None, typer.Option("--ca", envvar="REDIS_CA_FILE", help="The nodes' CA; without it: no TLS.")
]


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("adopt")(adopt)


def adopt(
    seed: Annotated[str, typer.Argument(metavar="HOST:PORT", help="Any node of the cluster.")],
    user: Annotated[str, typer.Option("--user", help="The ACL user; default: the default user.")] = "",
    password_file: Annotated[
        Path | None, typer.Option("--password-file", help="A file with the password; default: REDIS_REQUIREPASS.")
    ] = None,
    ca: CaOption = None,
    cert: Annotated[Path | None, typer.Option("--cert", help="A client certificate.")] = None,
    key: Annotated[Path | None, typer.Option("--key", help="Its key.")] = None,
    check_hostname: Annotated[bool, typer.Option(help="Whether a certificate must be for its node's address.")] = True,
    name: Annotated[str, typer.Option("--name", help="What the cluster is called here.")] = "adopted",
    out: Annotated[Path, typer.Option("--out", help="The file to write.")] = Path("redisforge.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Replace the file, and what was adopted before.")] = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Read a running cluster that somebody else built and write the redisforge.yaml that describes it.

    Nothing is changed there. From then on `status`, `rebalance`, `failover`, `scale add` and `scale remove` work on it;
    its processes stay their owner's.
    """
    from redisforge.cli.output import print_json
    from redisforge.runbooks.adopt import Adoption
    from redisforge.runbooks.adopt import adopt as run
    from redisforge.runbooks.cluster import cluster_layout, home_folder
    from redisforge.runbooks.seed import seed_address

    asked = Adoption(
        seed=seed_address(seed),
        login=_login(user, password_file, (ca, cert, key), check_hostname=check_hostname),
        name=name,
        path=out.absolute(),
        force=force,
    )
    report = run(asked, cluster_layout(home_folder(os.environ), name), dry_run=dry_run)
    if as_json:
        print_json(report)
        return
    if dry_run:
        typer.echo(report.text, nl=False)
    for notice in report.notices:
        typer.echo(f"note: {notice}", err=True)
    if not dry_run:
        typer.echo(
            f"{name}: {len(report.nodes)} nodes, {report.shards} shards, written to {report.file}\n"
            f"  See it: redisforge status --cluster {name}"
        )


def _login(
    user: str, password_file: Path | None, files: tuple[Path | None, Path | None, Path | None], *, check_hostname: bool
) -> Login:
    """How to log in. Raises UsageError, SecretError."""
    from redisforge.errors import UsageError
    from redisforge.redis.connection import Login
    from redisforge.runbooks.seed import read_password

    ca, cert, key = (path.absolute() if path else None for path in files)
    for path in (ca, cert, key):
        if path is not None and not path.is_file():
            raise UsageError("a TLS file cannot be read", where=str(path), next_step="give an existing PEM file")
    if (cert or key) and not (ca and cert and key):
        raise UsageError(
            "a client certificate needs --ca, --cert and --key",
            why="without a CA to trust there is no TLS",
            next_step="give all three",
        )
    password = read_password(password_file, os.environ)
    if user and not password:
        raise UsageError(
            "a user logs in with a password", next_step="give it with --password-file or in REDIS_REQUIREPASS"
        )
    return Login(
        ca_path=str(ca or ""),
        certificate_path=str(cert or ""),
        key_path=str(key or ""),
        user=user,
        password=password,
        check_hostname=check_hostname,
    )
