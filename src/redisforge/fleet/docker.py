"""Units as containers, through the docker CLI of their host: every command can be typed by hand.

A Unit's folder lies on the host as it does for processes, and is mounted at the same path. In RedisForge's own images
PID 1 of a node is its keeper, so the hand-off and the guard are those of every runtime; an Envoy is PID 1 itself, and
so is the server of anybody else's image: it is started again by Docker, but hands nothing over when it dies.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

import msgspec

from redisforge.errors import HostError
from redisforge.fleet import docker_scripts as scripts
from redisforge.fleet.docker_look import docker_problem
from redisforge.fleet.docker_reading import read_units
from redisforge.fleet.runtime import PERMIT, UNITS_FOLDER, UnitFolders
from redisforge.fleet.transport import CommandResult, Transport
from redisforge.model.facts import Stray, UnitFacts
from redisforge.model.images import DOCKER_FLOOR, is_pinned, own_version
from redisforge.model.layout import ClusterLayout
from redisforge.model.unit import Container, Unit, UnitFile
from redisforge.model.versions import version_of
from redisforge.render.container import ContainerIdentity, create_command

_ASK_LIMIT_S = 60.0
_START_LIMIT_S = 120.0
_PULL_LIMIT_S = 900.0
_STOP_LIMIT_S = 900.0
"""A node without AOF saves its whole data set while it stops; that may take minutes."""

_OWN_IMAGES = "`redisforge images build`, then `redisforge images push`, bring RedisForge's own there"
_IMAGES_OF_OTHERS = (
    "let the host pull it (docker.pull: true in redisforge.yaml), or `docker pull` it here, and "
    "`redisforge images push` brings it there"
)
_IMAGES_BY_DIGEST = (
    "let the host pull it (docker.pull: true in redisforge.yaml), or `docker pull` it there: only what is pulled has a "
    "name with a digest"
)


NOT_PULLED = "nothing is pulled"


def missing_images(names: Sequence[str], host: str, pulled: str) -> HostError:
    """Images that a host does not have; `pulled` says what became of pulling them."""
    cure = _OWN_IMAGES if all(map(own_version, names)) else _IMAGES_OF_OTHERS
    return HostError(
        f"an image is missing: {', '.join(names)}",
        where=host,
        why=f"docker has no image of that name there, and {pulled}",
        next_step=_IMAGES_BY_DIGEST if any(map(is_pinned, names)) else cure,
    )


class DockerHost(msgspec.Struct, frozen=True):
    """How a cluster's containers are called on a host, and whom files there belong to."""

    cluster: str
    prefix: str
    """Of the names of containers; the Unit's name follows."""


class DockerRuntime(UnitFolders):
    """Units as containers of one host. See the module."""

    def __init__(self, transport: Transport, layout: ClusterLayout, host: DockerHost) -> None:
        super().__init__(transport, layout)
        self._host = host
        self._limits_files = True
        """Whether its Docker may give a container as many open files as it asks for: known when that has failed."""
        self._keepers: dict[str, bool] = {}
        """Of images that were looked at: whether they have the keeper."""

    async def check(self, units: Sequence[Unit]) -> None:
        """See Runtime.check. Images that may be pulled are pulled."""
        if units:
            looks = (self._look_at_images(units), self._refuse_strangers(units))
            for outcome in await asyncio.gather(*looks, return_exceptions=True):
                if isinstance(outcome, BaseException):
                    raise outcome

    async def start(self, units: Sequence[Unit], *, permit_blank: Iterable[str] = ()) -> None:
        """See Runtime.start. All containers start at once; each that can starts before an error is raised."""
        if not units:
            return
        permitted = frozenset(permit_blank)
        await self._look_at_images(units)
        granted = [file for unit in units if unit.name in permitted for file in self._below(unit.name, [PERMIT])]
        placed = [file for unit in units for file in (*unit.beside, *self._files(unit))]
        await self._put(list(dict.fromkeys((*placed, *granted))))
        outcomes = await asyncio.gather(*(self._start_one(unit, permitted) for unit in units), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    async def stop(self, names: Sequence[str]) -> None:
        """See Runtime.stop. The containers stay, for their logs, until the Units start again or are removed."""
        if names:
            containers = [self.container_name(name) for name in names]
            await self._sh(scripts.STOP, self._layout.folder, *containers, timeout_s=_STOP_LIMIT_S)

    async def observe(self) -> dict[str, UnitFacts]:
        """See Runtime.observe."""
        output = (await self._sh(scripts.OBSERVE, self._layout.folder)).stdout
        try:
            return read_units(output)
        except (ValueError, msgspec.DecodeError) as error:
            raise HostError(
                "what Docker says of the containers cannot be read", where=self._transport.host, why=str(error)
            ) from error

    async def remove(self, names: Sequence[str]) -> None:
        """See Runtime.remove."""
        if names:
            await self._sh(scripts.REMOVE, self._layout.folder, *(self.container_name(name) for name in names))
        await super().remove(names)

    def log_path(self, name: str) -> str:
        """See Runtime.log_path. The command that shows it."""
        return f"docker logs {self.container_name(name)}"

    def log_command(self, name: str) -> tuple[str, ...]:
        """See Runtime.log_command."""
        return ("sh", "-c", scripts.LOGS, "redisforge-logs", self.container_name(name))

    def as_stray(self, unit: UnitFacts) -> Stray:
        """See Runtime.as_stray. A container that was stopped so is not started again with its host."""
        return self._stray(unit, ("docker", "stop", self.container_name(unit.name)))

    def container_name(self, unit_name: str) -> str:
        """The name of a Unit's container."""
        return f"{self._host.prefix}{unit_name}"

    async def _start_one(self, unit: Unit, permitted: frozenset[str]) -> None:
        if unit.container is None:
            raise ValueError(f"{unit.name} has no container")
        identity = self._identity(unit.name)
        kept = self._keepers[unit.container.image] and unit.kind == "redis"
        is_guarded = unit.guard is not None and not kept and unit.name not in permitted
        data = unit.guard.data_path if unit.guard and is_guarded else ""
        permit = "yes" if unit.name in permitted else "no"
        arguments = (self._layout.folder, unit.folder, identity.name, data, permit)

        async def make(asked: Unit, container: Container) -> CommandResult:
            command = create_command(asked, container, identity, kept=kept)
            return await self._sh(scripts.START, *arguments, *command, timeout_s=_START_LIMIT_S, check=False)

        unlimited = msgspec.structs.replace(unit, open_files=0)
        result = await make(unit if self._limits_files else unlimited, unit.container)
        if "rlimit" in result.stderr:  # it may not give more open files than it has itself: as many, then
            self._limits_files = False
            result = await make(unlimited, unit.container)
        if result.exit_status:
            raise self._not_started(unit, identity, result)

    def _not_started(self, unit: Unit, identity: ContainerIdentity, result: CommandResult) -> HostError:
        where = self._transport.host
        if result.exit_status == scripts.STRANGER:
            return self._stranger(unit.name)
        if result.exit_status == scripts.HELD_BACK:
            return HostError(
                f"{unit.name} was not started: its data is missing",
                where=f"{where}: {unit.folder}/data",
                why="started empty under its old address it could wipe its replicas",
                next_step="wait until a replica has taken over, then run `redisforge up`",
            )
        return docker_problem(where, result.stderr, what=f"{unit.name} was not started")

    def _identity(self, unit_name: str) -> ContainerIdentity:
        return ContainerIdentity(self.container_name(unit_name), self._host.cluster, self._layout.folder)

    async def _refuse_strangers(self, units: Sequence[Unit]) -> None:
        """Raises HostError for a container that has a Unit's name and is not of this cluster."""
        told = (await self._sh(scripts.NAMES)).stdout.splitlines()
        folders = dict(line.split("\t") for line in told)
        for unit in units:
            if folders.get(self.container_name(unit.name), self._layout.folder) != self._layout.folder:
                raise self._stranger(unit.name)

    def _stranger(self, unit_name: str) -> HostError:
        identity = self._identity(unit_name)
        return HostError(
            f"{unit_name} was not started: there is a container {identity.name} that is not of this cluster",
            where=self._transport.host,
            why=f"it has not the label of {identity.cluster_folder}",
            next_step=f"look at it: `docker inspect {identity.name}`; remove or rename it, and run this again",
        )

    async def _look_at_images(self, units: Sequence[Unit]) -> None:
        """Know the images of these Units. Raises HostError for one that is missing or does not fit."""
        containers = [unit.container for unit in units if unit.container]
        images = sorted({container.image for container in containers} - self._keepers.keys())
        if not images:
            return
        may_pull = any(container.may_pull for container in containers)
        limit_s = _PULL_LIMIT_S if may_pull else _ASK_LIMIT_S
        result = await self._sh(scripts.IMAGES, "yes" if may_pull else "no", *images, timeout_s=limit_s)
        own, *told_of = result.stdout.splitlines()
        version, architecture = own.split()
        self._refuse_old(version)
        lines = [line.split("\t") for line in told_of]
        found = {name: told[0] for name, *told in lines}
        missing = [image for image in images if found.get(image, "-") == "-"]
        if missing:
            pulled = "it could not be pulled: " + _last_line(result.stderr) if may_pull else NOT_PULLED
            raise missing_images(missing, self._transport.host, pulled)
        foreign = [f"{name} is for {told[1]}" for name, *told in lines if told[1:] and told[1] != architecture]
        if foreign:
            raise HostError(
                "an image is for another architecture",
                where=self._transport.host,
                why=f"{', '.join(foreign)}, and the host is {architecture}",
                next_step=f"`redisforge images build` on a machine of {architecture}, then `redisforge images push`",
            )
        self._keepers |= {image: bool(label) and label != "<no value>" for image, label in found.items()}

    def _refuse_old(self, version: str) -> None:
        """Raises HostError for a Docker that lacks what is asked of it."""
        if (0, 0) < version_of(version) < DOCKER_FLOOR:
            floor = ".".join(map(str, DOCKER_FLOOR))
            raise HostError(
                "Docker is too old",
                where=self._transport.host,
                why=f"it is {version}, and {floor} or newer is needed",
                next_step="update Docker there, and run the same command again",
            )

    async def _put(self, files: Sequence[UnitFile]) -> tuple[str, ...]:
        changed = await super()._put(files)
        if changed:
            await self._sh(scripts.OWN, *dict.fromkeys(f"{self._layout.folder}/{_top(path)}" for path in changed))
        return changed

    async def _sh(
        self, script: str, *arguments: str, timeout_s: float = _ASK_LIMIT_S, check: bool = True
    ) -> CommandResult:
        argv = ("sh", "-c", script, "redisforge", *arguments)
        result = await self._transport.run(argv, timeout_s=timeout_s, check=False)
        if check and result.exit_status:
            raise docker_problem(self._transport.host, result.stderr)
        return result


def _top(path: str) -> str:
    """What belongs to one owner: a Unit's folder, or that of the certificates."""
    return "/".join(path.split("/")[: 2 if path.startswith(f"{UNITS_FOLDER}/") else 1])


def _last_line(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line and not line.startswith(("Run 'docker", "See 'docker"))]
    return lines[-1] if lines else "it said nothing"
