"""`images build`: images with the programs that RedisForge has, or that a base image has, on this machine's Docker.

Nothing is asked of a registry, unless the base is not here: then Docker pulls it.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from redisforge.errors import BinaryError, HostError
from redisforge.fleet.binaries import EngineBinary, EnvoyBinary, cache_folder, ensure_engine, ensure_envoy
from redisforge.fleet.binaries.versions import parse_envoy_banner, parse_server_banner
from redisforge.fleet.docker_look import docker_problem, look_at_docker
from redisforge.fleet.image_context import write_engine_context, write_envoy_context
from redisforge.fleet.transport import LocalTransport, Transport
from redisforge.model.image_report import BuildReport, BuiltImage
from redisforge.model.images import DEFAULT_BASE, ENVOY_PATH, LABEL, ImageProgram, image_name, server_path
from redisforge.model.topology import Engine

BUILD_LIMIT_S = 1200.0
"""A base may have to be pulled, and packages fetched, over a slow line."""
_RUN_LIMIT_S = 60.0
_STAGE_LIFE = "1h"
"""What an earlier build needed on its way and nobody names goes after this long; until then it spares work."""
_HARDENED = (
    "--rm", "--network", "none", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges",
)  # fmt: skip
_NOBODY = ("--user", "65534:65534")


class BuildOrder(msgspec.Struct, frozen=True, kw_only=True):
    """One image. `version` is a rule as in redisforge.yaml; with `from_base` the program is the base's own."""

    program: ImageProgram
    version: str = "newest"
    base: str = DEFAULT_BASE
    from_base: bool = False


def build_images(
    orders: tuple[BuildOrder, ...], environment: Mapping[str, str], on_progress: Callable[[str], None]
) -> BuildReport:
    """Build one image after the other.

    Raises:
        BinaryError: a program cannot be had, or the base has none.
        HostError: Docker is missing, does not run, or the build failed.
    """

    async def build_all() -> tuple[BuiltImage, ...]:
        docker = LocalTransport()
        await look_at_docker(docker)  # before anything is fetched
        return tuple([await _build(docker, order, environment, on_progress) for order in orders])

    return BuildReport(images=asyncio.run(build_all()))


async def _build(
    docker: Transport, order: BuildOrder, environment: Mapping[str, str], on_progress: Callable[[str], None]
) -> BuiltImage:
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="redisforge-build-") as name:
        context = Path(name, "context")
        if order.from_base:
            await asyncio.to_thread(_write_context, context, order, None)
            version = await _version_in(docker, order)
        else:
            found = await asyncio.to_thread(_program, order, environment, on_progress)
            await asyncio.to_thread(_write_context, context, order, found)
            version = found.version
        tag = image_name(order.program, version)
        on_progress(f"building {tag} on {order.base}…")
        image_id = await _docker_build(docker, order, version, context)
    await _try(docker, order, image_id)
    await _docker(docker, "tag", image_id, tag)
    stage = ("--filter", f"label={LABEL}=stage", "--filter", f"until={_STAGE_LIFE}")
    await _docker(docker, "image", "prune", "--force", *stage)
    facts = next(image for image in (await look_at_docker(docker)).images if image.id == image_id)
    seconds = time.monotonic() - began
    on_progress(f"built {tag} in {seconds:.1f} s")
    return BuiltImage(
        name=tag, id=image_id, size_bytes=facts.size_bytes, platform=f"linux/{facts.architecture}", base=order.base,
        seconds=seconds,
    )  # fmt: skip


def _program(
    order: BuildOrder, environment: Mapping[str, str], on_progress: Callable[[str], None]
) -> EngineBinary | EnvoyBinary:
    """The program as `redisforge binaries` has it, or fetches it. Raises BinaryError, HostError."""
    cache = cache_folder(environment)
    if order.program == "envoy":
        return ensure_envoy(order.version, "", cache, on_progress, environment)
    return ensure_engine(Engine(order.program, order.version), cache, on_progress, environment)


def _write_context(folder: Path, order: BuildOrder, found: EngineBinary | EnvoyBinary | None) -> None:
    folder.mkdir()
    if order.program == "envoy":
        write_envoy_context(folder, found if isinstance(found, EnvoyBinary) else None)
    else:
        write_engine_context(folder, found if isinstance(found, EngineBinary) else None)


async def _docker_build(docker: Transport, order: BuildOrder, version: str, context: Path) -> str:
    """Build, without a name yet; returns the image's id."""
    id_file = context.parent / "id"
    arguments = {"BASE": order.base, "VERSION": version}
    if order.program != "envoy":
        arguments["KIND"] = order.program
    given = [word for name, value in arguments.items() for word in ("--build-arg", f"{name}={value}")]
    argv = ("docker", "build", "--force-rm", *given, "--iidfile", str(id_file), str(context))
    done = await docker.run(argv, timeout_s=BUILD_LIMIT_S, check=False)
    if done.exit_status:
        said = done.stdout[-1500:] + done.stderr[-1500:]  # the older builder says there what went wrong, the newer here
        known = await docker.run(("docker", "image", "inspect", order.base), timeout_s=_RUN_LIMIT_S, check=False)
        if known.exit_status:
            raise HostError(
                f"the base image {order.base} is not here, and cannot be pulled",
                where=docker.host,
                why=done.stderr.strip()[-1000:],
                next_step="name one that is here with --base (docker image ls), or log in to the registry that has it",
            )
        raise docker_problem(docker.host, said, what=f"the image with {order.program} {version} cannot be built")
    return id_file.read_text().strip()


async def _version_in(docker: Transport, order: BuildOrder) -> str:
    """The version of the base's own program. Raises BinaryError if it has none."""
    program = "envoy" if order.program == "envoy" else f"{order.program}-server"
    said = await _ask_version(docker, order.base, program)
    if order.program == "envoy":
        version = parse_envoy_banner(said)
    else:
        banner = parse_server_banner(said)
        version = banner[1] if banner and banner[0] == order.program else None
    if version is None:
        raise BinaryError(
            f"the base image has no {order.program}",
            where=order.base,
            why=said[-500:],
            next_step="name a base that has it, or leave --from-base out: then RedisForge puts its own in",
        )
    return version


async def _try(docker: Transport, order: BuildOrder, image_id: str) -> None:
    """See that the program starts as it will have to: with nothing that it may write, and no right at all."""
    program = ENVOY_PATH if order.program == "envoy" else server_path(order.program)
    said = await _ask_version(docker, image_id, program, *_NOBODY)
    if "version" not in said and "v=" not in said:
        raise BinaryError(
            f"{order.program} does not start in the image that was built",
            where=order.base,
            why=said[-1000:],
            next_step="its libraries may be missing there: try another base",
        )


async def _ask_version(docker: Transport, image: str, program: str, *more: str) -> str:
    argv = ("docker", "run", *_HARDENED, *more, "--entrypoint", program, image, "--version")
    done = await docker.run(argv, timeout_s=_RUN_LIMIT_S, check=False)
    return done.stdout if not done.exit_status else done.stderr


async def _docker(docker: Transport, *words: str) -> None:
    done = await docker.run(("docker", *words), timeout_s=_RUN_LIMIT_S, check=False)
    if done.exit_status:
        raise docker_problem(docker.host, done.stderr)
