"""`deploy --dry-run`: what `deploy` would do, looked at and not done.

The same checks in the same order, with the same errors; but a lock that somebody holds is only told of. Nothing is
written, fetched, built or locked, and no folder is made: nodes are asked with the files that .env names, not with
copies of them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from redisforge.config.deployment import Deployment
from redisforge.config.load import LoadedConfig
from redisforge.fleet.binaries import EngineBinary, EnvoyBinary, cache_folder, find_engine, find_envoy
from redisforge.fleet.docker import NOT_PULLED, missing_images
from redisforge.fleet.docker_look import look_at_docker
from redisforge.fleet.image_context import program_bytes
from redisforge.fleet.transport import LocalTransport
from redisforge.model.deploy_report import DeployPlan, ImagePlan, ProgramPlan
from redisforge.model.facts import Facts
from redisforge.model.image_report import DockerFacts
from redisforge.model.images import NAMESPACE, ImageProgram
from redisforge.model.layout import ClusterLayout
from redisforge.model.topology import Topology, UserRole
from redisforge.model.unit import Unit
from redisforge.plan.deploying import HERE, image_plan, outcome_of, phases_of, unknown_members
from redisforge.redis.connection import Login
from redisforge.redis.observe import NodeAsker
from redisforge.runbooks.cluster import Cluster, cluster_layout, make_cluster
from redisforge.runbooks.deploy_input import Wanted, need_files, on_runtime, read_input, refuse_other_passwords
from redisforge.runbooks.deployed import deployed_topology, resolve_names, where_of
from redisforge.runbooks.lock import lock_notices
from redisforge.runbooks.preflight import (
    check_certificate_names,
    check_configuration,
    check_folder_to_come,
    check_space,
)
from redisforge.runbooks.preflight_ports import OTHER_PORTS_IN_ENV, check_ports
from redisforge.runbooks.units import Programs, build_units


class _Here(msgspec.Struct, frozen=True):
    """The cluster as it would be, and the Unit; None while a program is still to be fetched."""

    cluster: Cluster
    name: str
    unit: Unit | None
    login: Login


def plan_deploy(wanted: Wanted, home: Path, environment: Mapping[str, str]) -> DeployPlan:
    """What `deploy` would do now.

    Raises:
        RedisForgeError: as `deploy`, for whatever would stop it before it starts anything.
    """
    deployment, loaded = read_input(wanted, environment)
    names = resolve_names(deployment, is_envoy=wanted.role == "envoy")
    need_files(deployment)
    layout = cluster_layout(home, deployment.name)
    check_folder_to_come(layout)
    topology, name = deployed_topology(wanted.role, deployment, loaded.topology, names, layout)
    topology = on_runtime(topology, wanted.runtime)
    engine, envoy = _programs(topology, loaded, layout, environment)
    here = _here(topology, name, (deployment, loaded), layout, (engine, envoy))
    image, facts = asyncio.run(_look(wanted, here, engine if wanted.role == "redis" else envoy))
    config_hash = here.unit.config_hash if here.unit else None
    address, port = where_of(topology, name)
    return DeployPlan(
        cluster=deployment.name, unit=name, address=address, port=port,
        outcome=outcome_of(facts.units.get(name), config_hash),
        programs=(
            _program(topology.engine.kind, topology.engine.version, engine),
            _program("envoy", topology.envoy.version, envoy),
        ),
        image=image, phases=phases_of(topology, facts, name, config_hash, wanted.wait_s),
        learns=unknown_members(topology, facts), notices=(*loaded.notices, *lock_notices(layout, "deploy")),
    )  # fmt: skip


def _programs(
    topology: Topology, loaded: LoadedConfig, layout: ClusterLayout, environment: Mapping[str, str]
) -> tuple[EngineBinary | None, EnvoyBinary | None]:
    """The programs that are here, after all that is checked before them."""
    from redisforge.security.certificates import check_provided

    check_certificate_names(topology)
    refuse_other_passwords(topology, loaded, layout)
    check_space(layout, topology)
    check_provided(Path(layout.tls), topology.tls, datetime.now(UTC))
    cache = cache_folder(environment)
    return (
        find_engine(topology.engine, cache, environment),
        find_envoy(topology.envoy.version, topology.envoy.path, cache, environment),
    )


def _here(
    topology: Topology,
    name: str,
    read: tuple[Deployment, LoadedConfig],
    layout: ClusterLayout,
    programs: tuple[EngineBinary | None, EnvoyBinary | None],
) -> _Here:
    """Raises ConfigError if the engine does not accept the configuration, as far as it is here to be asked."""
    from redisforge.security.secrets import resolve_credentials

    deployment, loaded = read
    credentials, _ = resolve_credentials(topology, loaded.passwords, layout, store=False)
    engine, envoy = programs
    units: dict[str, Unit] = {}
    if engine is not None and envoy is not None:
        units = build_units(topology, layout, credentials, Programs(engine, envoy), with_certificates=False)
        if topology.own_nodes:
            check_configuration(topology, engine, units)
    operator = topology.user(UserRole.OPERATOR).name
    login = Login(
        ca_path=deployment.ca_path, certificate_path=deployment.certificate_path, key_path=deployment.key_path,
        user=operator, password=credentials.password(operator),
    )  # fmt: skip
    return _Here(make_cluster(topology, layout, credentials), name, units.get(name), login)


async def _look(
    wanted: Wanted, here: _Here, program: EngineBinary | EnvoyBinary | None
) -> tuple[ImagePlan | None, Facts]:
    """The image, if there is to be a container, and what is known of the Units here and of all nodes.

    Raises HostError for ports that are not free, and for an image that cannot be had.
    """
    nodes = here.cluster.topology.nodes
    async with NodeAsker(here.login) as asker:
        units, seen = await asyncio.gather(
            here.cluster.runtime.observe(),
            asker.observe_all((node.name, (node.address, node.port)) for node in nodes),
        )
    facts = Facts(observed_at_s=time.time(), units=units, nodes=seen)
    units_to_come = {here.name: here.unit} if here.unit else None
    check_ports(here.cluster.topology, here.cluster.layout, facts, units_to_come, other_ports=OTHER_PORTS_IN_ENV)
    image = None
    if wanted.runtime == "docker":
        docker = await look_at_docker(LocalTransport())
        image = _image(wanted, here, program, docker)
        if image.action == "nothing" and here.unit is not None:
            await here.cluster.runtime.check([here.unit])  # it asks of the image too, which it would pull
    return image, facts


def _image(wanted: Wanted, here: _Here, program: EngineBinary | EnvoyBinary | None, docker: DockerFacts) -> ImagePlan:
    """Raises HostError for an image of somebody else's that is not here and may not be pulled."""
    topology = here.cluster.topology
    container = here.unit.container if here.unit else None
    if container is None or program is None:
        kind = "envoy" if wanted.role == "envoy" else topology.engine.kind
        chosen = topology.docker.envoy_image if wanted.role == "envoy" else topology.docker.redis_image
        name, is_known, may_pull = chosen or f"{NAMESPACE}/{kind}", bool(chosen), topology.docker.may_pull
    else:
        name, is_known, may_pull = container.image, True, container.may_pull
    size_bytes = program_bytes(program) if program is not None else None
    plan = image_plan(docker.images, name, wanted.base, size_bytes, is_known=is_known)
    if plan.action == "pull" and not may_pull:
        raise missing_images((name,), HERE, NOT_PULLED)
    return plan


def _program(kind: ImageProgram, asked: str, found: EngineBinary | EnvoyBinary | None) -> ProgramPlan:
    return ProgramPlan(
        program=kind, asked=asked, version=found.version if found else "", action="nothing" if found else "fetch"
    )
