"""`deploy redis|envoy`: one node, or one Envoy, on the host itself, from the .env of the usual convention.

    .env → names resolved → certificates → passwords → programs → image → start → answer → what to do next

The host knows of the others what .env says; once the cluster is formed, it learns all members from it, and the verbs of
a whole cluster work here too. A Unit that runs as .env says is left alone, so the command can be run again.
"""

from __future__ import annotations

import asyncio
import base64
import getpass
import hashlib
import hmac
import os
import shutil
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec
from msgspec.structs import replace

from redisforge.config.deployment import Deployment, deployment_names, read_deployment
from redisforge.config.load import DOTENV_NAME, LoadedConfig, load, read_variables
from redisforge.config.problems import error_for
from redisforge.errors import CertificateError, ConfigError, NodeError, SecretError, UnitError
from redisforge.fleet.binaries import cache_folder, ensure_engine, ensure_envoy
from redisforge.fleet.journal import Journal
from redisforge.fleet.lock import cluster_lock
from redisforge.model.facts import Facts, UnitFacts, UnitState
from redisforge.model.images import DEFAULT_BASE, own_version
from redisforge.model.layout import ClusterLayout
from redisforge.model.secret import Secret
from redisforge.model.topology import HostRuntime, Topology, UserRole
from redisforge.model.unit import Unit
from redisforge.runbooks.cluster import Cluster, cluster_layout, make_cluster, record_topology
from redisforge.runbooks.deployed import Names, deployed_topology, resolve_names, with_members
from redisforge.runbooks.next_steps import next_steps
from redisforge.runbooks.observe import Observer
from redisforge.runbooks.preflight import (
    check_certificate_names,
    check_configuration,
    check_ports,
    check_space,
    was_raised,
)
from redisforge.runbooks.run import Progress, log_tail
from redisforge.runbooks.units import Programs, build_units, certificate_names

DeployRole = Literal["redis", "envoy"]
_PAUSE_S = 0.1
_CRASHES_TO_GIVE_UP = 3
_HANDOFF_LABEL = b"redisforge: password of the hand-off user"


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for: `folder` has the .env, `wait_s` is how long it may take to answer. One of RedisForge's images
    that is not here is built on the image `base`."""

    role: DeployRole
    folder: Path
    runtime: HostRuntime = "process"
    wait_s: float = 30.0
    base: str = DEFAULT_BASE


class DeployReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was done: the Unit, where it listens, and what to do next, a command or a sentence each."""

    cluster: str
    unit: str
    address: str
    port: int
    version: str
    done: Literal["started", "restarted", "runs already"]
    next_steps: tuple[str, ...]
    notices: tuple[str, ...]
    seconds: float


def deploy(wanted: Wanted, home: Path, environment: Mapping[str, str], progress: Progress) -> DeployReport:
    """Start the Unit, or see that it runs.

    Raises:
        ConfigError, SecretError: what .env lacks or has wrong, all of it.
        CertificateError: a file is missing, unreadable, or not for this address.
        UnitError: it does not stay up.
        NodeError: it does not answer in time.
    """
    deployment, loaded = _read(wanted, environment)
    names = resolve_names(deployment, is_envoy=wanted.role == "envoy")
    _need_files(deployment)
    layout = cluster_layout(home, deployment.name)
    existed = Path(layout.folder).exists()
    try:
        return _deploy(wanted, (deployment, loaded, names), layout, environment, progress)
    except BaseException:
        if not existed and not was_raised(layout):
            shutil.rmtree(layout.folder, ignore_errors=True)  # nothing was started: leave nothing
        raise


def _deploy(
    wanted: Wanted,
    read: tuple[Deployment, LoadedConfig, Names],
    layout: ClusterLayout,
    environment: Mapping[str, str],
    progress: Progress,
) -> DeployReport:
    deployment, loaded, names = read
    began = time.monotonic()
    with cluster_lock(Path(layout.lock), f"deploy {wanted.role}"):
        topology, name = deployed_topology(wanted.role, deployment, loaded.topology, names, layout)
        topology = _on_runtime(topology, wanted.runtime)
        cluster, units, programs = _prepare(topology, loaded, layout, environment, progress)
        _need_image(wanted, units[name], topology, environment, progress)
        journal = Journal(Path(layout.journal), verb="deploy", user=getpass.getuser())
        journal.write("begin", what=name)
        try:
            done, cluster, facts = asyncio.run(_start(cluster, units[name], wanted))
        except BaseException as error:
            journal.write_end(error, what=name, seconds=time.monotonic() - began)
            raise
        journal.write_end(what=name, seconds=time.monotonic() - began)
    address, port = _where(cluster.topology, name)
    return DeployReport(
        cluster=deployment.name, unit=name, address=address, port=port,
        version=programs.envoy.version if wanted.role == "envoy" else programs.engine.version,
        done=done, next_steps=next_steps(cluster, facts, name), notices=loaded.notices,
        seconds=round(time.monotonic() - began, 3),
    )  # fmt: skip


def _read(wanted: Wanted, environment: Mapping[str, str]) -> tuple[Deployment, LoadedConfig]:
    """.env, and what it says of options and passwords; one error for everything that is wrong."""
    file = wanted.folder / DOTENV_NAME
    variables, _, problems = read_variables(file, DOTENV_NAME, deployment_names(), environment)
    if not file.is_file() and not variables:
        raise ConfigError(
            f"there is no {DOTENV_NAME}",
            problems=(f"{file} does not exist",),
            next_step="write it (docs/reference/env.md has the names), or give its folder with --folder",
        )
    deployment, missing = read_deployment(variables, wanted.folder, is_envoy=wanted.role == "envoy")
    if problems or missing:
        raise error_for([*problems, *missing], DOTENV_NAME)
    loaded = load(None, environment, wanted.folder, without=frozenset({"REDIS_PORT"}))
    handoff = loaded.topology.user(UserRole.HANDOFF).name
    if handoff not in loaded.passwords:
        loaded = replace(loaded, passwords={**loaded.passwords, handoff: _handoff_password(loaded)})
    return deployment, loaded


def _handoff_password(loaded: LoadedConfig) -> Secret:
    """The same on every host that has the same REDIS_REQUIREPASS, and not to be told from random without it."""
    operator = loaded.passwords[loaded.topology.user(UserRole.OPERATOR).name]
    digest = hmac.digest(operator.reveal().encode(), _HANDOFF_LABEL, hashlib.sha256)
    return Secret(base64.urlsafe_b64encode(digest).decode().rstrip("="))


def _on_runtime(topology: Topology, runtime: HostRuntime) -> Topology:
    return replace(topology, hosts=tuple(replace(host, runtime=runtime) for host in topology.hosts))


def _prepare(
    topology: Topology,
    loaded: LoadedConfig,
    layout: ClusterLayout,
    environment: Mapping[str, str],
    progress: Progress,
) -> tuple[Cluster, dict[str, Unit], Programs]:
    """Everything before the first process. Raises as `deploy`."""
    from redisforge.security.certificates import ensure_certificates
    from redisforge.security.secrets import changed_users, resolve_credentials

    check_certificate_names(topology)
    if Path(layout.topology).exists() and (changed := changed_users(topology, loaded.passwords, layout)):
        raise SecretError(
            "a password is not the one that is deployed here",
            where=", ".join(changed),
            why="changing the passwords of a running cluster is a rotation; `deploy` does not do that",
            next_step=f"give the password that is stored in {layout.secrets}",
        )
    check_space(layout, topology)
    cache = cache_folder(environment)
    programs = Programs(
        ensure_engine(topology.engine, cache, progress, environment),
        ensure_envoy(topology.envoy.version, topology.envoy.path, cache, progress, environment),
    )
    credentials, _ = resolve_credentials(topology, loaded.passwords, layout, on_notice=progress)
    ensure_certificates(layout, certificate_names(topology), topology.tls, datetime.now(UTC))
    units = build_units(topology, layout, credentials, programs)
    if topology.own_nodes:
        check_configuration(topology, programs.engine, units)
    return make_cluster(topology, layout, credentials), units, programs


def _need_image(
    wanted: Wanted, unit: Unit, topology: Topology, environment: Mapping[str, str], progress: Progress
) -> None:
    """Build the Unit's image if it is one of RedisForge's own and not here. Raises HostError, BinaryError.

    What somebody else calls his, nobody can build here: the start says that it is missing, or pulls it.
    """
    image = unit.container.image if unit.container else ""
    if not own_version(image):
        return
    from redisforge.fleet.docker_look import look_at_docker
    from redisforge.fleet.transport import LocalTransport
    from redisforge.runbooks.images_build import BuildOrder, build_images

    here = asyncio.run(look_at_docker(LocalTransport()))
    if any(image in known.names for known in here.images):
        return
    program = "envoy" if unit.kind == "envoy" else topology.engine.kind
    order = BuildOrder(program=program, version=own_version(image), base=wanted.base)
    build_images((order,), environment, progress)


def _need_files(deployment: Deployment) -> None:
    """The three files are there and readable. Raises CertificateError naming those that are not."""
    problems: list[str] = []
    for path in (deployment.ca_path, deployment.certificate_path, deployment.key_path):
        if not Path(path).is_file():
            problems.append(f"{path} is not there")
        elif not os.access(path, os.R_OK):
            problems.append(f"{path} cannot be read: no permission")
    if problems:
        folder = Path(deployment.certificate_path).parent
        addresses = " ".join(f"--san {host}" for host in dict.fromkeys(_all_hosts(deployment)))
        raise CertificateError(
            "the certificates of this host cannot be used",
            why="\n".join(problems),
            next_step=f"make them once, on one machine: redisforge generate-certs {folder} {addresses}\n"
            "then copy that folder to every host, without ca.key; or name your own files in .env (REDIS_TLS_CA_PATH, "
            "REDIS_TLS_CERT_PATH, REDIS_TLS_KEY_PATH)",
        )


def _all_hosts(deployment: Deployment) -> list[str]:
    return [host for host in (deployment.announce, *(place.host for place in deployment.places)) if host]


async def _start(
    cluster: Cluster, unit: Unit, wanted: Wanted
) -> tuple[Literal["started", "restarted", "runs already"], Cluster, Facts]:
    """Start the Unit if it does not run as it should, wait until it answers, and record what the cluster is now."""
    async with Observer(cluster, with_listing=True) as observer:
        facts = await observer.look(fresh_units=True)
        seen = facts.units.get(unit.name)
        runs = seen is not None and seen.state in (UnitState.RUNNING, UnitState.ORPHANED)
        outdated = runs and seen is not None and seen.config_hash not in ("", unit.config_hash)
        record_topology(cluster)  # before anything starts: `status`, `logs` and `down` must find it
        if outdated:
            await cluster.runtime.stop([unit.name])  # its keeper hands its slots over
        else:
            check_ports(cluster.topology, cluster.layout, facts)
        permitted = [unit.name] if _may_be_blank(cluster, facts, unit.name, seen) else []
        await cluster.runtime.start([unit], permit_blank=permitted)
        facts = await _answered(cluster, observer, unit, wanted.wait_s)
    full, facts = await with_members(cluster, facts)
    record_topology(full)
    return ("restarted" if outdated else "runs already" if runs else "started"), full, facts


def _may_be_blank(cluster: Cluster, facts: Facts, name: str, seen: UnitFacts | None) -> bool:
    """Whether a node may start without data: it has never been a member, and nobody expects slots at its address."""
    node = next((node for node in cluster.topology.own_nodes if node.name == name), None)
    if node is None or (seen is not None and (seen.was_member or seen.has_cluster_config)):
        return False
    here = (node.address, node.port)
    return not any((p.address, p.port) == here and p.slots for n in facts.reachable_nodes() for p in n.peers)


async def _answered(cluster: Cluster, observer: Observer, unit: Unit, wait_s: float) -> Facts:
    """Wait until the node answers, or the Envoy is live. Raises UnitError, NodeError."""
    deadline = time.monotonic() + wait_s
    while True:
        facts = await observer.look(fresh_units=True)
        seen = facts.units.get(unit.name)
        problem = _silence(facts, unit)
        if not problem:
            return facts
        held = seen is not None and seen.state is UnitState.HELD
        if seen is not None and (held or seen.restart_count >= _CRASHES_TO_GIVE_UP):
            raise UnitError(
                f"{unit.name} is held back" if held else f"{unit.name} does not stay up: {seen.last_exit}",
                where=cluster.runtime.log_path(unit.name),
                why=seen.reason if held else await log_tail(cluster, unit.name),
                next_step="it starts by itself once nobody expects slots of it any more"
                if held
                else "mend the cause and run the command again",
            )
        if time.monotonic() > deadline:
            raise NodeError(
                f"{unit.name} does not answer within {wait_s:g} s",
                where=", ".join(f"{address}:{port}" for address, port in unit.ports[:1]),
                why=problem,
                next_step=f"`redisforge logs {unit.name}` says what it does",
            )
        await asyncio.sleep(_PAUSE_S)


def _silence(facts: Facts, unit: Unit) -> str:
    if unit.kind == "redis":
        return facts.nodes[unit.name].problem
    envoy = facts.envoys.get(unit.name)
    return "" if envoy and envoy.version else (envoy.problem if envoy else "") or "no answer yet"


def _where(topology: Topology, name: str) -> tuple[str, int]:
    node = next((node for node in topology.own_nodes if node.name == name), None)
    if node is not None:
        return node.address, node.port
    door = next(door for endpoint in topology.endpoints for door in endpoint.listeners if door.envoy == name)
    return door.address, door.port
