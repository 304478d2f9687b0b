"""`images list` and `images push`: which images the hosts have, and bringing them those that they lack.

An image is saved once, into a file; every host gets a stream of what it lacks of it (fleet/image_archive.py), all at
the same time, over the connection that there is to it, packed where that is slow (fleet/squeezed.py). Nothing is kept
on the way in memory or on the hosts, and a registry is not needed.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from redisforge.errors import HostError, NotFoundError
from redisforge.fleet.binaries.ensure import engine_rule, envoy_rule
from redisforge.fleet.binaries.versions import parse_version
from redisforge.fleet.docker_look import MAKE_ROOM, docker_problem, is_full, look_at_docker
from redisforge.fleet.image_archive import ImageArchive
from redisforge.fleet.squeezed import SqueezedStream
from redisforge.fleet.ssh_pool import over_hosts
from redisforge.fleet.transport import CommandResult, LocalTransport, Transport
from redisforge.model.image_report import DockerFacts, HostImages, ImageList, PushedImage, PushReport
from redisforge.model.images import NAMESPACE, VERSION_LABEL, ImageFacts
from redisforge.model.topology import Topology
from redisforge.plan.images import Chain, PushStep, chains_of, next_push, room_problem
from redisforge.runbooks.hosts import Fleet

AT_ONCE = 8
"""Hosts that are sent to at the same time: they share the operator's line."""
_SLOWEST_BYTES_S = 100_000
_LOAD_LIMIT_S = 300.0
"""On top of the time that the slowest line needs: for unpacking."""
_SAVE_LIMIT_S = 900.0
_TELL_EVERY_S = 1.0

Wanted = tuple[tuple[str, ImageFacts], ...]


def list_images(fleet: Fleet) -> ImageList:
    """The images of RedisForge's here and on every host; one that cannot be asked says why."""

    async def look_at_all() -> tuple[HostImages, ...]:
        hosts = docker_hosts(fleet)
        looks = await over_hosts(look_at_docker, [LocalTransport(), *map(fleet.transport_of, hosts)])
        names = ["", *hosts]
        return tuple(_listed(name, look) for name, look in zip(names, looks, strict=True))

    return ImageList(hosts=asyncio.run(look_at_all()))


def docker_hosts(fleet: Fleet) -> list[str]:
    """The hosts with an engine of their own that runs containers for the cluster."""
    return [host.name for host in fleet.hosts if host.ssh is not None and host.runtime == "docker"]


def _listed(host: str, look: DockerFacts | HostError) -> HostImages:
    if isinstance(look, HostError):
        return HostImages(host=host, problem=_one_line(look))
    images = tuple(image for image in look.images if any(_is_ours(name) for name in (*image.names, *image.digests)))
    return HostImages(host=host, images=images, platform=look.platform)


def push_images(fleet: Fleet, names: Sequence[str], on_progress: Callable[[str], None]) -> PushReport:
    """Bring images to the hosts: the named ones, or those that the declaration asks for.

    Raises:
        NotFoundError: an image is not here.
        HostError: this machine's Docker does not answer, or cannot save.
    """
    return asyncio.run(_Push(fleet, on_progress).run(names))


def wanted_images(here: DockerFacts, names: Sequence[str], topology: Topology) -> Wanted:
    """The named images, or the newest ones that the declaration allows. Raises NotFoundError, BinaryError."""
    if names:
        return tuple((name, _named(here, name)) for name in names)
    engine, envoy = topology.engine, topology.envoy
    chosen = {engine.kind: topology.docker.redis_image, "envoy": topology.docker.envoy_image}
    rules = {engine.kind: engine_rule(engine)} | ({"envoy": envoy_rule(envoy.version)} if topology.envoys else {})
    found: list[tuple[str, ImageFacts]] = []
    for program, rule in rules.items():
        if name := chosen[program]:
            found.append((name, _named(here, name)))
            continue
        versions = {
            name: parse_version(version)
            for image in here.images
            for name in image.names
            if name.startswith(f"{NAMESPACE}/{program}:") and (version := image.labels.get(VERSION_LABEL))
        }
        fitting = [name for name, version in versions.items() if rule.matches(version)]
        if not fitting:
            raise NotFoundError(
                f"there is no image of {program} {rule} here",
                where="this machine",
                why=f"there are: {', '.join(sorted(versions)) or 'none'}",
                next_step=f"redisforge images build {program}",
            )
        best = max(fitting, key=lambda name: versions[name])
        found.append((best, _named(here, best)))
    return tuple(found)


class _Push:
    """One run of `images push`."""

    def __init__(self, fleet: Fleet, on_progress: Callable[[str], None]) -> None:
        self._fleet = fleet
        self._on_progress = on_progress
        self._hosts = docker_hosts(fleet)
        self._sent = Sent()
        self._streams: list[SqueezedStream] = []
        self._archive: ImageArchive | None = None

    async def run(self, names: Sequence[str]) -> PushReport:
        began = time.monotonic()
        transports = [LocalTransport(), *map(self._fleet.transport_of, self._hosts)]
        here, *looks = await over_hosts(look_at_docker, transports)
        if isinstance(here, HostError):
            raise here
        wanted = wanted_images(here, names, self._fleet.topology)
        plans = {
            host: look if isinstance(look, HostError) else (look, next_push(look, wanted))
            for host, look in zip(self._hosts, looks, strict=True)
        }
        with tempfile.TemporaryDirectory(prefix="redisforge-push-") as folder:
            await self._save(Path(folder), plans)
            done = await self._push_all(plans, wanted)
        results = tuple(result for of_host in done for result in of_host)
        return PushReport(
            passed=all(result.verdict != "failed" for result in results),
            results=results,
            raw_bytes=sum(stream.raw_bytes for stream in self._streams),
            sent_bytes=sum(stream.sent_bytes for stream in self._streams),
            seconds=time.monotonic() - began,
        )

    async def _save(
        self, folder: Path, plans: Mapping[str, HostError | tuple[DockerFacts, Sequence[PushStep]]]
    ) -> None:
        """Save what some host lacks into one file."""
        steps = [step for plan in plans.values() if not isinstance(plan, HostError) for step in plan[1]]
        names = sorted({step.name for step in steps if step.action == "send"})
        if not names:
            return
        self._on_progress(f"saving {', '.join(names)}…")
        local, file = LocalTransport(), folder / "images.tar"
        argv = ("docker", "image", "save", "--output", str(file), *names)
        done = await local.run(argv, timeout_s=_SAVE_LIMIT_S, check=False)
        if done.exit_status:
            raise docker_problem(local.host, done.stderr, what="the images cannot be saved")
        self._archive = await asyncio.to_thread(ImageArchive, file)

    async def _push_all(
        self, plans: Mapping[str, HostError | tuple[DockerFacts, Sequence[PushStep]]], wanted: Wanted
    ) -> list[list[PushedImage]]:
        async def one(host: str) -> list[PushedImage]:
            plan = plans[host]
            if isinstance(plan, HostError):
                return [_failed(host, name, image, plan) for name, image in wanted]
            return await self._push(host, *plan)

        telling = asyncio.create_task(self._tell())
        try:
            done = await over_hosts(one, self._hosts, limit=AT_ONCE)
        finally:
            telling.cancel()
        return [
            [_failed(host, name, image, result) for name, image in wanted] if isinstance(result, HostError) else result
            for host, result in zip(self._hosts, done, strict=True)
        ]

    async def _push(self, host: str, docker: DockerFacts, steps: Sequence[PushStep]) -> list[PushedImage]:
        transport = self._fleet.transport_of(host)
        results = [_result(host, step) for step in steps if step.action in ("nothing", "refuse")]
        for step in steps:
            if step.action == "name":
                await _run(transport, "docker", "image", "tag", step.there_id, step.name)
                results.append(PushedImage(host=host, name=step.name, id=step.image.id, verdict="named"))
        if sending := [step for step in steps if step.action == "send"]:
            results += await self._send(transport, host, docker, sending)
        return sorted(results, key=lambda result: [step.name for step in steps].index(result.name))

    async def _send(
        self, transport: Transport, host: str, docker: DockerFacts, steps: Sequence[PushStep]
    ) -> list[PushedImage]:
        """Send what is missing; an engine that does not take it without what it has gets the whole."""
        there = chains_of(docker.images) if docker.takes_parts else frozenset[Chain]()
        ids = [step.image.id for step in steps]
        stream, done = await self._load(transport, docker, ids, there)
        if done.exit_status and there and not is_full(done.stderr):
            stream, done = await self._load(transport, docker, ids, frozenset())
        if done.exit_status:
            raise docker_problem(transport.host, done.stderr or done.stdout, what="the images were not taken")
        self._on_progress(f"{host} has {', '.join(step.name for step in steps)}")
        return [
            PushedImage(
                host=host,
                name=step.name,
                id=step.image.id,
                verdict="sent",
                raw_bytes=stream.raw_bytes,
                sent_bytes=stream.sent_bytes,
            )
            for step in steps
        ]

    async def _load(
        self, transport: Transport, docker: DockerFacts, ids: Sequence[str], there: frozenset[Chain]
    ) -> tuple[SqueezedStream, CommandResult]:
        """One `docker load`; returns what it was sent, and how it ended. Raises HostError."""
        assert self._archive is not None
        size_bytes = self._archive.size_of(ids, there)
        if why := room_problem(docker, size_bytes):
            raise HostError("there is no room for the images", where=transport.host, why=why, next_step=MAKE_ROOM)
        self._sent.total_bytes += size_bytes
        limit_s = _LOAD_LIMIT_S + size_bytes / _SLOWEST_BYTES_S
        pieces = self._archive.pieces(ids, there, self._sent.count)
        stream = SqueezedStream()
        self._streams.append(stream)
        argv = ("docker", "image", "load", "--quiet")
        return stream, await transport.feed(argv, stream.members(pieces), timeout_s=limit_s, check=False)

    async def _tell(self) -> None:
        """Every second: how far it is."""
        began = time.monotonic()
        while True:
            await asyncio.sleep(_TELL_EVERY_S)
            if line := self._sent.line(time.monotonic() - began):
                self._on_progress(line)


class Sent:
    """What the hosts were sent of what they are to get, so far."""

    def __init__(self) -> None:
        self.total_bytes = 0
        self._done_bytes = 0
        self._told_of_bytes = 0

    def count(self, size_bytes: int) -> None:
        """So much more was sent."""
        self._done_bytes += size_bytes

    def line(self, seconds: float) -> str:
        """How far it is after so many seconds, how fast, and how long it will take; once, that all is sent. Empty if
        there is nothing to say: the hosts take their time to load what they have."""
        done, total = self._done_bytes, self.total_bytes
        if not done or done == total == self._told_of_bytes:
            return ""
        if done >= total:
            self._told_of_bytes = total
            return f"sent {total / 1e6:.0f} MB; the hosts load the images…"
        rate = done / seconds
        progress = f"sent {done / 1e6:.0f} of {total / 1e6:.0f} MB, {rate / 1e6:.1f} MB/s"
        return f"{progress}, {(total - done) / rate:.0f} s left"


async def _run(transport: Transport, *argv: str) -> None:
    done = await transport.run(argv, timeout_s=60.0, check=False)
    if done.exit_status:
        raise docker_problem(transport.host, done.stderr)


def _named(here: DockerFacts, name: str) -> ImageFacts:
    for image in here.images:
        if image.is_called(name):
            return image
    raise NotFoundError(
        f"there is no image called {name} here",
        where="this machine",
        next_step="redisforge images list shows those of RedisForge's, docker image ls all of them",
    )


def _is_ours(name: str) -> bool:
    return name.startswith(f"{NAMESPACE}/")


def _result(host: str, step: PushStep) -> PushedImage:
    return PushedImage(
        host=host, name=step.name, id=step.image.id, verdict="failed" if step.why else "there", problem=step.why,
        next_step=step.next_step,
    )  # fmt: skip


def _failed(host: str, name: str, image: ImageFacts, error: HostError) -> PushedImage:
    return PushedImage(
        host=host, name=name, id=image.id, verdict="failed", problem=_one_line(error), next_step=error.next_step
    )


def _one_line(error: HostError) -> str:
    return ": ".join(filter(None, (error.what, " ".join(error.why.split()))))
