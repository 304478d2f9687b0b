"""redisforge images: container images with the engines and Envoy, made here and brought to the hosts."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from redisforge.cli.options import ConfigOption, JsonOption
from redisforge.model.images import DEFAULT_BASE
from redisforge.model.words import counted

if TYPE_CHECKING:
    from redisforge.model.image_report import ImageList, PushReport
    from redisforge.model.images import ImageProgram
    from redisforge.runbooks.images_build import BuildOrder

ID_LENGTH = 12


class Program(StrEnum):
    """What an image is for."""

    REDIS = "redis"
    VALKEY = "valkey"
    ENVOY = "envoy"


HostOption = Annotated[
    list[str] | None, typer.Option("--host", metavar="HOST", help="Only this host; repeatable. Default: all declared.")
]


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    images = typer.Typer(help="Container images: made here, and brought to the hosts.", no_args_is_help=True)
    images.command("build")(build)
    images.command("list")(list_)
    images.command("push")(push)
    app.add_typer(images, name="images")


def build(
    programs: Annotated[
        list[Program] | None, typer.Argument(metavar="[redis|valkey|envoy]...", help="Default: what is declared.")
    ] = None,
    version: Annotated[
        str,
        typer.Option("--version", metavar="V", help='"newest", a series such as 8.6, or a floor. One program only.'),
    ] = "",
    base: Annotated[
        str, typer.Option("--base", metavar="IMAGE", help="The base image; name@sha256:… pins it.")
    ] = DEFAULT_BASE,
    from_base: Annotated[
        bool, typer.Option("--from-base", help="The program is the base's own, as in the official images.")
    ] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Build images with this machine's Docker: redisforge/redis:VERSION, redisforge/envoy:VERSION.

    The programs are those that `redisforge binaries` has or fetches, so that no registry is needed; Docker pulls the
    base if it is not here. Each image is tried without any right before it gets its name.
    """
    from redisforge.cli.output import human_bytes, print_json, progress_to_stderr
    from redisforge.runbooks.images_build import build_images

    orders = _orders(programs or [], version, base, config, from_base=from_base)
    report = build_images(orders, os.environ, progress_to_stderr)
    if as_json:
        print_json(report)
        return
    for image in report.images:
        size = human_bytes(image.size_bytes)
        typer.echo(f"{image.name}  {_short(image.id)}  {size}  {image.platform}  on {image.base}")


def list_(host: HostOption = None, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List RedisForge's images here and on the hosts that run containers. A host that cannot be asked says why."""
    from redisforge.cli.output import print_json
    from redisforge.runbooks.hosts import declared_fleet
    from redisforge.runbooks.images import list_images

    listed = list_images(declared_fleet(config, host or (), os.environ, Path.cwd()))
    if as_json:
        print_json(listed)
    else:
        typer.echo(list_text(listed))


def push(
    images: Annotated[
        list[str] | None, typer.Argument(metavar="[IMAGE]...", help="Default: the newest that the declaration allows.")
    ] = None,
    host: HostOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Bring images from this machine's Docker to the hosts that run containers, over SSH: only what a host lacks.

    A host that fails does not keep the others waiting; run again, it sends what is still missing. Exits with status 13
    if an image is not where it should be.
    """
    from redisforge.cli.output import print_json, progress_to_stderr
    from redisforge.errors import UnhealthyError
    from redisforge.runbooks.hosts import declared_fleet
    from redisforge.runbooks.images import push_images

    report = push_images(declared_fleet(config, host or (), os.environ, Path.cwd()), images or (), progress_to_stderr)
    if as_json:
        print_json(report)
    else:
        typer.echo(push_text(report))
    failed = [result for result in report.results if result.verdict == "failed"]
    if failed:
        hosts = sorted({result.host for result in failed})
        raise UnhealthyError(
            f"{counted(len(hosts), 'host')} {'does' if len(hosts) == 1 else 'do'} not have all images",
            where=", ".join(hosts),
            why=failed[0].problem,
            next_step=failed[0].next_step or "mend what it says, and run the same command again",
        )


def list_text(listed: ImageList) -> str:
    """A row for each image and host."""
    from redisforge.cli.output import human_bytes, table_text

    rows: list[list[str]] = []
    for machine in listed.hosts:
        where = machine.host or "(here)"
        if machine.problem or not machine.images:
            rows.append([where, "-", "-", "-", "-", "-", machine.problem or "no image of RedisForge's"])
        for image in machine.images:
            age, size = _age(image.created_at), human_bytes(image.size_bytes)
            names = sorted(image.names or image.digests)  # a digest is long, and says less than a tag
            rows += [[where, name, _short(image.id), size, age, image.architecture, ""] for name in names]
    return table_text(("HOST", "IMAGE", "ID", "SIZE", "CREATED", "ARCH", "PROBLEM"), rows)


def push_text(report: PushReport) -> str:
    """A row for each image and host, and the sum."""
    from redisforge.cli.output import table_text

    rows = [[result.host, result.name, _short(result.id), result.verdict, result.problem] for result in report.results]
    text = (
        table_text(("HOST", "IMAGE", "ID", "RESULT", "PROBLEM"), rows)
        if rows
        else "No declared host has a Docker of its own."
    )
    sent, raw = (f"{size / 1e6:.0f} MB" for size in (report.sent_bytes, report.raw_bytes))
    return f"{text}\n{raw}, sent as {sent}, in {report.seconds:.1f} s"


def _orders(
    programs: list[Program], version: str, base: str, config: Path | None, *, from_base: bool
) -> tuple[BuildOrder, ...]:
    """What is to be built. Raises UsageError, ConfigError."""
    from redisforge.config.load import load
    from redisforge.errors import UsageError
    from redisforge.runbooks.images_build import BuildOrder

    topology = load(config, os.environ, Path.cwd()).topology
    declared: dict[ImageProgram, str] = {topology.engine.kind: topology.engine.version}
    declared["envoy"] = topology.envoy.version
    wanted: list[ImageProgram] = [program.value for program in programs] or list(declared)
    if len(wanted) != 1 and (version or from_base):
        raise UsageError(
            "--version and --from-base need one program", next_step="redisforge images build redis --version V"
        )
    return tuple(
        BuildOrder(program=name, version=version or declared.get(name, "newest"), base=base, from_base=from_base)
        for name in wanted
    )


def _short(image_id: str) -> str:
    return image_id.removeprefix("sha256:")[:ID_LENGTH]


def _age(created_at: str) -> str:
    """How long ago, in words; "-" if it is not known."""
    import datetime

    try:
        created = datetime.datetime.fromisoformat(created_at)
    except ValueError:
        return "-"
    seconds = (datetime.datetime.now(datetime.UTC) - created).total_seconds()
    for unit, length_s in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length_s:
            return f"{seconds / length_s:.0f}{unit} ago"
    return f"{max(0.0, seconds):.0f}s ago"
