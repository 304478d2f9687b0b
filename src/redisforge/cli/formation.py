"""redisforge init-cluster: form a cluster over nodes that somebody else started."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from redisforge.cli.options import DryRunOption, JsonOption


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("init-cluster")(init_cluster)


def init_cluster(
    nodes: Annotated[str, typer.Argument(metavar="HOST:PORT[@ZONE],…", help="At least 6 nodes.")],
    replicas: Annotated[int, typer.Option("--replicas", min=0, max=5, help="Replicas of each master.")] = 1,
    user: Annotated[str, typer.Option("--user", help="The ACL user; default: the default user.")] = "",
    ca_file: Annotated[
        Path | None,
        typer.Option("--ca-file", envvar="REDIS_CA_FILE", help="The nodes' CA; without it: no TLS."),
    ] = None,
    cert_file: Annotated[Path | None, typer.Option("--cert-file", help="A client certificate.")] = None,
    key_file: Annotated[Path | None, typer.Option("--key-file", help="Its key.")] = None,
    wait_s: Annotated[float, typer.Option("--wait", min=0, help="Seconds to wait for nodes to answer.")] = 30.0,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Form a cluster: place masters and replicas, give out the slots, introduce the nodes, attach the replicas.

    The password comes from REDIS_REQUIREPASS. A node with data or of another cluster is refused. Run again it
    finishes what was cut off, or changes nothing.
    """
    from redisforge.cli.output import finished_steps_only, print_json, print_plan
    from redisforge.errors import UsageError
    from redisforge.model.secret import Secret
    from redisforge.redis.connection import Login
    from redisforge.runbooks.init_cluster import Formation, plan_formation
    from redisforge.runbooks.init_cluster import init_cluster as form

    for path in (ca_file, cert_file, key_file):
        if path is not None and not path.is_file():
            raise UsageError("a TLS file cannot be read", where=str(path), next_step="give an existing PEM file")
    if (cert_file or key_file) and not (ca_file and cert_file):
        raise UsageError(
            "a client certificate needs --ca-file and --cert-file",
            why="without a CA to trust there is no TLS, and the password would be sent in plain text",
            next_step="give the nodes' CA with --ca-file too",
        )
    login = Login(
        ca_path=str(ca_file or ""),
        certificate_path=str(cert_file or ""),
        key_path=str(key_file or ""),
        user=user,
        password=Secret(os.environ.get("REDIS_REQUIREPASS", "")),
    )
    wanted = Formation(nodes=tuple(nodes.split(",")), replicas=replicas, login=login, wait_s=wait_s)
    if dry_run:
        print_plan(plan_formation(wanted, finished_steps_only), as_json=as_json)
        return
    formed = form(wanted, finished_steps_only)
    if as_json:
        print_json({"nodes": formed.topology.nodes, "phases": formed.phases, "seconds": round(formed.seconds, 3)})
        return
    for notice in formed.notices:
        typer.echo(f"note: {notice}", err=True)
    masters = formed.topology.shards
    done = f"formed in {formed.seconds:.2f} s" if formed.phases else "was formed already, nothing changed"
    typer.echo(f"cluster of {len(formed.topology.nodes)} nodes, {masters} masters: {done}")
