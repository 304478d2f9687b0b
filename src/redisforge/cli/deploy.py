"""redisforge deploy: one node, or one Envoy, on this host, from .env."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from redisforge.cli.options import DryRunOption, JsonOption
from redisforge.model.images import DEFAULT_BASE

if TYPE_CHECKING:
    from redisforge.model.deploy_report import DeployPlan, ImagePlan


class Role(StrEnum):
    """What is deployed."""

    REDIS = "redis"
    ENVOY = "envoy"


class RuntimeChoice(StrEnum):
    """How it runs."""

    PROCESS = "process"
    DOCKER = "docker"


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("deploy")(deploy)


def deploy(
    role: Annotated[Role, typer.Argument(help="A Redis node, or an Envoy.")],
    folder: Annotated[Path, typer.Option("--folder", help="Where .env lies.")] = Path(),
    runtime: Annotated[
        RuntimeChoice, typer.Option("--runtime", help="A process with a keeper, or a container.")
    ] = RuntimeChoice.PROCESS,
    wait_s: Annotated[float, typer.Option("--wait", min=0, help="Seconds to wait for an answer.")] = 30.0,
    base: Annotated[
        str, typer.Option("--base", metavar="IMAGE", help="For --runtime docker: what a missing image is built on.")
    ] = DEFAULT_BASE,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Start a Redis node or an Envoy on this host, as its .env says, and say what to do next.

    .env is of the usual convention (REDIS_CLUSTER_ANNOUNCE_IP, REDIS_MASTER_1_HOST, REDIS_REQUIREPASS …). What runs as
    it says is left alone. Passwords with CHANGE_ME in them are refused. --dry-run makes the same checks, and names
    who holds the lock.
    """
    from redisforge.cli.output import finished_steps_only, print_json
    from redisforge.runbooks.cluster import home_folder
    from redisforge.runbooks.deploy import deploy as run
    from redisforge.runbooks.deploy_input import Wanted
    from redisforge.runbooks.deploy_plan import plan_deploy

    wanted = Wanted(role=role.value, folder=folder.absolute(), runtime=runtime.value, wait_s=wait_s, base=base)
    if dry_run:
        plan = plan_deploy(wanted, home_folder(os.environ), os.environ)
        if as_json:
            print_json(plan)
        else:
            typer.echo(plan_text(plan))
        return
    report = run(wanted, home_folder(os.environ), os.environ, finished_steps_only)
    if as_json:
        print_json(report)
        return
    for notice in report.notices:
        typer.echo(f"note: {notice}", err=True)
    typer.echo(
        f"{report.unit} {report.done}: {role.value} {report.version} at {report.address}:{report.port}, "
        f"of cluster {report.cluster} ({report.seconds:.2f} s)\nNext:"
    )
    for step in report.next_steps:
        typer.echo(f"  {step}")


def plan_text(plan: DeployPlan) -> str:
    """What `deploy` would do, a numbered line for each part of it, in its order."""
    from redisforge.cli.output import phase_lines

    doings = [
        [f"fetch {program.program} {program.asked} into the cache  (it is not here)"]
        for program in plan.programs
        if program.action == "fetch"
    ]
    if plan.image is not None and plan.image.action != "nothing":
        doings.append([_image_line(plan.image)])
    doings += [phase_lines(phase) for phase in plan.phases]
    if plan.learns:
        doings.append([f"record the cluster's other members: {', '.join(plan.learns)}"])
    lines = [f"note: {notice}" for notice in plan.notices]
    lines.append(f"{plan.unit} of cluster {plan.cluster} at {plan.address}:{plan.port}")
    if not doings:
        lines.append("Nothing to do: it runs as .env says.")
    for number, (first, *rest) in enumerate(doings, 1):
        lines += [f"{number}. {first}", *rest]
    return "\n".join(lines)


def _image_line(image: ImagePlan) -> str:
    from redisforge.cli.output import human_bytes

    if image.action == "pull":
        return f"pull {image.name} to {image.host}  (it is not there; how large it is, its registry knows)"
    if image.about_bytes is not None:
        size = f"about {human_bytes(image.about_bytes)}"
    else:
        size = "how large is known when its parts are here"
    pulled = "" if image.is_base_here else ", which is pulled"
    return f"build {image.name} on {image.host}, on {image.base}{pulled}  ({size})"
