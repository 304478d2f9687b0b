"""What `deploy` goes by: what is asked for, the .env of this host, and the files that it names."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec
from msgspec.structs import replace

from redisforge.config.deployment import Deployment, deployment_names, read_deployment
from redisforge.config.load import DOTENV_NAME, LoadedConfig, load, read_variables
from redisforge.config.problems import Advice
from redisforge.errors import CertificateError, ConfigError, SecretError
from redisforge.model.images import DEFAULT_BASE
from redisforge.model.layout import ClusterLayout
from redisforge.model.secret import Secret
from redisforge.model.topology import HostRuntime, Topology, UserRole

DeployRole = Literal["redis", "envoy"]
_HANDOFF_LABEL = b"redisforge: password of the hand-off user"


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for: `folder` has the .env, `wait_s` is how long it may take to answer. One of RedisForge's images
    that is not here is built on the image `base`."""

    role: DeployRole
    folder: Path
    runtime: HostRuntime = "process"
    wait_s: float = 30.0
    base: str = DEFAULT_BASE


def read_input(wanted: Wanted, environment: Mapping[str, str]) -> tuple[Deployment, LoadedConfig]:
    """.env, and what it says of options and passwords. Raises ConfigError, one for everything that is wrong."""
    file = wanted.folder / DOTENV_NAME
    variables, _, problems = read_variables(file, DOTENV_NAME, deployment_names(), environment)
    if not file.is_file() and not variables:
        raise ConfigError(
            f"there is no {DOTENV_NAME}",
            problems=(f"{file} does not exist",),
            next_step="write it (docs/reference/env.md has the names), or give its folder with --folder",
        )
    deployment, missing = read_deployment(variables, wanted.folder, is_envoy=wanted.role == "envoy")
    loaded = load(
        None, environment, wanted.folder, without=frozenset({"REDIS_PORT"}), found=(*problems, *missing),
        advice=Advice(
            "set strong passwords, the same on every host: nothing is generated, since no host knows another's",
            f"correct them and check again with: redisforge deploy {wanted.role} --dry-run",
        ),
    )  # fmt: skip
    handoff = loaded.topology.user(UserRole.HANDOFF).name
    if handoff not in loaded.passwords:
        loaded = replace(loaded, passwords={**loaded.passwords, handoff: _handoff_password(loaded)})
    return deployment, loaded


def _handoff_password(loaded: LoadedConfig) -> Secret:
    """The same on every host that has the same REDIS_REQUIREPASS, and not to be told from random without it."""
    operator = loaded.passwords[loaded.topology.user(UserRole.OPERATOR).name]
    digest = hmac.digest(operator.reveal().encode(), _HANDOFF_LABEL, hashlib.sha256)
    return Secret(base64.urlsafe_b64encode(digest).decode().rstrip("="))


def on_runtime(topology: Topology, runtime: HostRuntime) -> Topology:
    """The topology with all of its hosts running Units so."""
    return replace(topology, hosts=tuple(replace(host, runtime=runtime) for host in topology.hosts))


def need_files(deployment: Deployment) -> None:
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


def refuse_other_passwords(topology: Topology, loaded: LoadedConfig, layout: ClusterLayout) -> None:
    """The passwords of .env are those that are deployed here, if any are. Raises SecretError."""
    from redisforge.security.secrets import changed_users

    if Path(layout.topology).exists() and (changed := changed_users(topology, loaded.passwords, layout)):
        raise SecretError(
            "a password is not the one that is deployed here",
            where=", ".join(changed),
            why="changing the passwords of a running cluster is a rotation; `deploy` does not do that",
            next_step=f"give the password that is stored in {layout.secrets}",
        )
