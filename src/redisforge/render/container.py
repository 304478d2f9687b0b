"""The command line that makes a Unit's container. Pure; every part of it can be typed by hand.

A container uses its host's network, so that nodes have the addresses that they tell each other; or Docker's bridge,
with its ports published at its host's address, which nodes announce then. Its root file system is read-only and it has
no capability; what it may write is its Unit's folder, mounted at the path that it has on the host, and /tmp, in memory.
It runs as the owner of that folder.
"""

from __future__ import annotations

import msgspec

from redisforge.model.images import KEEPER_PATH
from redisforge.model.unit import Container, Unit

FOLDER_LABEL = "io.redisforge.folder"
"""The cluster's folder on the host: whose container it is."""
UNIT_LABEL = "io.redisforge.unit"
CLUSTER_LABEL = "io.redisforge.cluster"
CONFIG_LABEL = "io.redisforge.config"
"""Unit.config_hash of what it was made with."""
CONTAINER_LABEL = "io.redisforge.container"
"""Container.hash of what it was made by."""
KEEPER_LABEL = "io.redisforge.keeper"
"""`yes` where PID 1 is the keeper: how the Unit fares is then in its folder's state.json."""
RESTART_POLICY = "unless-stopped"
SHAPE_FORMAT = "{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}} {{.HostConfig.RestartPolicy.Name}}"
"""What `docker update` can change of a container by hand."""
_STOP_MORE_S = 15
"""On top of what the keeper takes at the longest: for the keeper itself."""
TMPFS = "/tmp:rw,noexec,nosuid,size=16m"  # noqa: S108 - inside of the container
"""All that a process may write beside its own folder: in memory."""

OPEN_HOME = "/root:rw,noexec,nosuid,size=1m,mode=0711"
"""Images have a /root that nobody else may pass, and a folder mounted below it would be out of reach."""


class ContainerIdentity(msgspec.Struct, frozen=True):
    """Whose container it is."""

    name: str
    cluster: str
    cluster_folder: str


def create_command(unit: Unit, container: Container, identity: ContainerIdentity, *, kept: bool) -> tuple[str, ...]:
    """`docker run …` for a Unit; only the host knows the user to add (`--user UID:GID`).

    `kept`: the image has the keeper, which becomes PID 1 and starts the Unit's program. The image is never pulled by
    this: whether it is there is asked before.
    """
    labels = {
        CLUSTER_LABEL: identity.cluster,
        FOLDER_LABEL: identity.cluster_folder,
        UNIT_LABEL: unit.name,
        CONFIG_LABEL: unit.config_hash,
        CONTAINER_LABEL: container.hash,
        KEEPER_LABEL: "yes" if kept else "no",
    }
    if kept:
        program, arguments = "python3", ("-I", "-S", KEEPER_PATH, "foreground", unit.folder)
    else:
        program, *arguments = unit.argv
    return (
        "docker", "run", "--detach", "--pull", "never", "--name", identity.name,
        *(word for label, value in labels.items() for word in ("--label", f"{label}={value}")),
        *_network(container), "--restart", RESTART_POLICY, "--stop-timeout", str(stop_limit_s(unit)),
        "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges",
        "--tmpfs", TMPFS, *(("--tmpfs", OPEN_HOME) if unit.folder.startswith("/root/") else ()),
        *_limits(unit, container),
        "--volume", f"{unit.folder}:{unit.folder}",
        *(word for folder in container.read_folders for word in ("--volume", f"{folder}:{folder}:ro")),
        "--workdir", unit.folder, "--entrypoint", program, container.image, *arguments,
    )  # fmt: skip


def once_command(image: str, folder: str, user: str, program: str) -> tuple[str, ...]:
    """`docker run …` for a program of an image that ends by itself and works in `folder`; its arguments follow."""
    return (
        "docker", "run", "--rm", "--pull", "never", "--network", "none", "--user", user, "--read-only",
        "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--tmpfs", TMPFS,
        *(("--tmpfs", OPEN_HOME) if folder.startswith("/root/") else ()),
        "--volume", f"{folder}:{folder}", "--entrypoint", program, image,
    )  # fmt: skip


def _network(container: Container) -> tuple[str, ...]:
    if not container.published:
        return ("--network", "host")
    doors = (f"[{address}]" if ":" in address else address for address, _ in container.published)
    ports = (f"{door}:{port}:{port}" for door, (_, port) in zip(doors, container.published, strict=True))
    return ("--network", "bridge", *(word for port in ports for word in ("--publish", port)))


def _limits(unit: Unit, container: Container) -> tuple[str, ...]:
    """Memory without swap on top: a node that swaps is slower than one that is started again."""
    words = ["--ulimit", f"nofile={unit.open_files}:{unit.open_files}"] if unit.open_files else []
    if container.memory_bytes:
        words += ["--memory", str(container.memory_bytes), "--memory-swap", str(container.memory_bytes)]
    if container.cpus:
        words += ["--cpus", f"{container.cpus:g}"]
    if container.log_bytes:
        words += ["--log-driver", "json-file", "--log-opt", f"max-size={container.log_bytes}"]
        words += ["--log-opt", f"max-file={container.log_files}"]
    return tuple(words)


def stop_limit_s(unit: Unit) -> int:
    """How long a stop may take before Docker kills everything: the hand-off's time and the node's own, in seconds."""
    handoff = unit.handoff
    handing_over_s = handoff.longest_s if handoff else 0.0
    return round(handing_over_s + unit.stop_grace_s + _STOP_MORE_S)
