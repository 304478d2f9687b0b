"""Rules that concern more than one option, or the world outside the file. Each finding names its options."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator
from typing import TYPE_CHECKING

from redisforge.config.broken import BrokenRule
from redisforge.config.external_rules import broken_external_rules, external_notices
from redisforge.config.messages import nearest_of
from redisforge.config.problems import OptionPath
from redisforge.config.resolve import hosts_of, is_remote, user_names
from redisforge.config.values import is_loopback, version_numbers
from redisforge.config.zone_notices import zone_notices
from redisforge.model.words import counted
from redisforge.plan.placement import sharing_is_forced

if TYPE_CHECKING:
    from redisforge.config.schema import Declaration
    from redisforge.model.topology import Host

OLDEST_VERSION = {"redis": (7, 0), "valkey": (7, 2)}
"""CLUSTER ADDSLOTSRANGE, CLUSTER SHARDS and ACL rules for subcommands came with Redis 7.0; Valkey's first
release is 7.2."""
_LRM_VERSION = (8, 6)
"""The least-recently-modified policies came with Redis 8.6 (its release notes)."""


SSH_PORT = 22
_HOST_SSH_OPTIONS = ("ssh_address", "ssh_port", "ssh_user", "ssh_key", "ssh_jump", "folder")


def broken_rules(declaration: Declaration) -> list[BrokenRule]:
    """Every finding, in the order of the file."""
    return [
        *_engine(declaration),
        *_hosts(declaration),
        *_memory(declaration),
        *_directives(declaration),
        *_endpoints(declaration),
        *_users(declaration),
        *_certificates(declaration),
        *broken_external_rules(declaration),
    ]


def notable(declaration: Declaration) -> list[str]:
    """What is allowed but may surprise."""
    first: dict[str, Host] = {}
    notices: list[str] = []
    for host in hosts_of(declaration):
        other = first.setdefault(host.address, host)
        if other is not host:
            notices.append(f"hosts {other.name} and {host.name} have one address and count as one machine")
    notices.extend(external_notices(declaration))
    if not declaration.external.nodes:
        notices.extend(zone_notices(hosts_of(declaration), declaration.shards, declaration.replicas))
    if declaration.persistence.mode == "none":
        notices.append("persistence.mode is none: a shard whose nodes all stop loses its data")
    return notices


def shares_hosts(declaration: Declaration) -> bool:
    """Whether a replica may stand on its master's host: as declared, else only if no hosts are declared."""
    allowed = declaration.placement.allow_shared_hosts
    return "hosts" not in declaration.model_fields_set if allowed is None else allowed


def _engine(declaration: Declaration) -> Iterator[BrokenRule]:
    engine = declaration.engine
    oldest = OLDEST_VERSION[engine.kind]
    numbers = version_numbers(engine.version)
    is_harmless = engine.kind == "valkey" and engine.version.startswith(">=")  # no older valkey exists
    if numbers and numbers < oldest and not is_harmless:
        floor = ".".join(str(number) for number in oldest)
        what = f"{engine.kind} {engine.version} is older than {floor}, the oldest that RedisForge works with"
        yield BrokenRule((("engine", "version"),), what, f'Ask for ">={floor}" or "newest".')


def _hosts(declaration: Declaration) -> Iterator[BrokenRule]:
    seen: dict[str, int] = {}
    for index, host in enumerate(declaration.hosts):
        if host.name in seen:
            what = f"there are two hosts called {host.name} (also hosts[{seen[host.name]}])"
            yield BrokenRule((("hosts", index, "name"),), what, "Give every host a name of its own.")
        seen.setdefault(host.name, index)
    yield from _ways_to_hosts(declaration)
    hosts = hosts_of(declaration)
    if declaration.external.nodes:
        return  # where they stand is not ours to choose
    if sharing_is_forced(hosts, declaration.replicas) and not shares_hosts(declaration):
        have = len({host.address for host in hosts})
        wanted = declaration.replicas + 1
        yield BrokenRule(
            (("replicas",), ("hosts",), ("placement", "allow_shared_hosts")),
            f"a master and its {counted(declaration.replicas, 'replica')} need {wanted} hosts, and there are {have}",
            "Add hosts, ask for fewer replicas, or set placement.allow_shared_hosts: true "
            "(one lost host may then take a shard with it).",
        )


def _ways_to_hosts(declaration: Declaration) -> Iterator[BrokenRule]:
    closed = [host.name for host in declaration.hosts if is_loopback(host.known_at)]
    if closed and len(closed) < len(declaration.hosts):
        yield BrokenRule(
            (("hosts",),),
            f"the other hosts cannot reach {', '.join(closed)} at a loopback address",
            "Give every host an address at which the others reach it.",
        )
    for index, host in enumerate(declaration.hosts):
        if declaration.docker.network == "bridge" and host.runtime == "docker" and is_loopback(host.address):
            yield BrokenRule(
                (("docker", "network"), ("hosts", index, "address")),
                f"containers with a network of their own cannot reach {host.name} at a loopback address",
                "Give the host an address of a network, or set docker.network: host.",
            )
    first: dict[str, str] = {}
    reached: dict[tuple[object, ...], str] = {}
    for index, host in enumerate(declaration.hosts):
        other = first.setdefault(host.known_at, host.name)
        place = (host.ssh_address or host.known_at, host.ssh_port or SSH_PORT, host.ssh_jump, host.folder)
        same = reached.setdefault(place, host.name) if is_remote(host) else host.name
        if same not in (host.name, other):
            yield BrokenRule(
                (("hosts", index, "ssh_address"),),
                f"{same} and {host.name} are reached at one SSH address, so both would be the same machine",
                "Give each its own, or, if that is meant, each a folder of its own.",
            )
        if other != host.name and is_remote(host):
            yield BrokenRule(
                (("hosts", index, "address"),),
                f"{other} and {host.name} have one address, so one of them would be taken for the other",
                "Give each its own; one machine is one host.",
            )
        ways = {name: getattr(host, name) for name in _HOST_SSH_OPTIONS}
        given = [name for name, value in ways.items() if value is not None]
        if given and not is_remote(host):
            yield BrokenRule(
                tuple(("hosts", index, name) for name in given),
                f"{host.name} is this machine, which is not reached over SSH and has no folder of its own",
                "Leave that out, or set ssh: true.",
            )


def _memory(declaration: Declaration) -> Iterator[BrokenRule]:
    engine = declaration.engine
    if not declaration.memory.policy.endswith("-lrm"):
        return
    numbers = version_numbers(engine.version)
    is_older = bool(numbers) and not engine.version.startswith(">=") and numbers[:2] < _LRM_VERSION
    if engine.kind != "redis" or is_older:
        what = f"{declaration.memory.policy} needs Redis 8.6, and engine asks for {engine.kind} {engine.version}"
        nearest = declaration.memory.policy.replace("-lrm", "-lru")
        yield BrokenRule((("memory", "policy"), ("engine", "version")), what, f"Use {nearest}, or a newer engine.")


def _directives(declaration: Declaration) -> Iterator[BrokenRule]:
    if not declaration.redis_conf:
        return
    from redisforge.render.directives import MANAGED, known_directives

    engine = declaration.engine
    known = known_directives(engine.kind, engine.version)
    seen: set[str] = set()
    for written in declaration.redis_conf:
        name = written.lower()
        path: OptionPath = ("redis_conf", written)
        if name in seen:
            yield BrokenRule((path,), "is there twice, in different spellings", "Keep one of the two.")
        seen.add(name)
        managed = next((pattern for pattern in MANAGED if fnmatch.fnmatchcase(name, pattern)), None)
        if managed is not None:
            instead = MANAGED[managed]
            step = f"Use {instead} instead." if instead else "Remove it."
            yield BrokenRule((path,), "is written by RedisForge itself", step)
        elif known is not None and name not in known:
            what = f"is not a directive of {engine.kind} {engine.version}"
            yield BrokenRule((path,), what, nearest_of(name, known) or "Remove it.")


def _endpoints(declaration: Declaration) -> Iterator[BrokenRule]:
    for name, endpoint in declaration.endpoints.items():
        if endpoint.kind == "pubsub" and endpoint.prefer_replicas:
            what = "has no effect on an endpoint of kind pubsub"
            yield BrokenRule((("endpoints", name, "prefer_replicas"),), what, "Remove it.")
        if name == "primary" and (endpoint.kind != "commands" or endpoint.prefer_replicas):
            what = "must be of kind commands and read from the masters: it is the endpoint for every client"
            paths: tuple[OptionPath, ...] = (
                ("endpoints", name, "kind" if endpoint.kind != "commands" else "prefer_replicas"),
            )
            yield BrokenRule(paths, what, "Add an endpoint of another name for it.")


def _users(declaration: Declaration) -> Iterator[BrokenRule]:
    seen: dict[str, str] = {}
    for role, name in user_names(declaration).items():
        path: OptionPath = ("users", role.value, "name")
        if name == "default":
            yield BrokenRule((path,), "the user default is switched off in every node", "Choose another name.")
        elif name in seen:
            what = f"{name} is also the {seen[name]} user"
            yield BrokenRule((path, ("users", seen[name], "name")), what, "Every role needs a user of its own.")
        seen.setdefault(name, role.value)


def _certificates(declaration: Declaration) -> Iterator[BrokenRule]:
    if declaration.external.nodes:
        return  # a CA alone is enough there
    files = {name: getattr(declaration.tls, name) for name in ("ca_file", "cert_file", "key_file")}
    missing = [name for name, path in files.items() if not path]
    if missing and len(missing) < len(files):
        given: tuple[OptionPath, ...] = tuple(("tls", name) for name, path in files.items() if path)
        yield BrokenRule(given, f"{' and '.join(missing)} must be given too", "Give all three files, or none.")
