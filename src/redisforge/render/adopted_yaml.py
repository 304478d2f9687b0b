"""redisforge.yaml of a cluster that somebody else built: `adopt` writes it. Pure."""

from __future__ import annotations

import fnmatch
import json
from collections import Counter
from collections.abc import Iterator, Mapping

import msgspec

from redisforge.model.adopted import AdoptedNode, AdoptedShape
from redisforge.model.topology import ExternalAccess
from redisforge.render.commented_yaml import quote
from redisforge.render.settings import SECRET_DIRECTIVES

Settings = Mapping[str, Mapping[str, str]]
"""By node (ADDRESS:PORT): what CONFIG GET said."""

_MIB = 1024 * 1024
_LEAST_MEMORY = 16 * _MIB
_WIDTH_OF_VALUES = 200
_OF_ONE_NODE = (
    "bind", "bind-source-addr", "port", "tls-*", "dir", "logfile", "pidfile", "unixsocket*", "cluster-announce-*",
    "cluster-port", "cluster-config-file", "replicaof", "slaveof", "aclfile", "syslog-ident", "oom-score-adj-values",
    "replica-announce-*", "slave-announce-*", "cluster-enabled", "daemonize", "supervised", "*_cpulist", "*-cpulist",
)  # fmt: skip
"""What says where or how a process runs, and so nothing of the cluster."""
_POLICIES = frozenset(
    {"noeviction"} | {f"{which}-{how}" for which in ("allkeys", "volatile") for how in ("lru", "lfu", "lrm", "random")}
) | {"volatile-ttl"}


class Adopted(msgspec.Struct, frozen=True, kw_only=True):
    """What was found. `settings` by node, without secrets; `defaults` are the engine's own. Paths are absolute."""

    name: str
    seed: str
    kind: str
    series: str
    shape: AdoptedShape
    access: ExternalAccess
    ca_path: str = ""
    certificate_path: str = ""
    key_path: str = ""
    settings: Settings = {}
    defaults: Mapping[str, str] = {}


def adopted_yaml(found: Adopted) -> str:
    """The file's text: loading it gives the topology that was found."""
    common, differing = _common(found.settings)
    known, said = _known(common)
    lines = [
        f"# A cluster that somebody else built, as {found.seed} described it to `redisforge adopt`.",
        "# RedisForge connects to these nodes and changes the cluster; their processes are their owner's.",
        "# The password does not stand here: RedisForge keeps it in its own folder (0600), and takes another one from",
        "# REDIS_REQUIREPASS.",
        "",
        f"name: {quote(found.name)}",
        f"engine: {{kind: {found.kind}, version: {quote(found.series)}}}",
        "# Zones are unknown: write `zone: NAME` at a node, or list `hosts` with their zones, so that masters and",
        "# replicas are kept apart.",
        f"shards: {found.shape.shards}",
        f"replicas: {found.shape.replicas}",
        "external:",
        *_access(found.access),
        "  nodes:",
        *(f"    - {node_text(node)}" for node in found.shape.nodes),
        *_tls(found),
        *(["# Settings of the nodes, as CONFIG GET has them:", *known] if known else []),
        *_rest({name: value for name, value in common.items() if name not in said}, differing, found.defaults),
    ]
    return "\n".join(lines) + "\n"


def node_text(node: AdoptedNode) -> str:
    """A node as one line of `external.nodes`."""
    said = {"host": node.host, "zone": node.zone, "service": node.service}
    more = "".join(f", {name}: {quote(value)}" for name, value in said.items() if value)
    return (
        f"{{address: {quote(node.address)}, port: {node.port}, bus_port: {node.bus_port}{more}, shard: {node.shard}, "
        f"role: {node.role.value}}}"
    )


def _access(access: ExternalAccess) -> Iterator[str]:
    if not access.tls:
        yield "  # Not protected: the password and all data cross the network in plain text."
    yield f"  tls: {json.dumps(access.tls)}"
    if access.tls and not access.check_hostname:
        yield "  # Whoever has any certificate of the CA can pose as a node."
        yield "  check_hostname: false"
    if access.user:
        yield f"  user: {quote(access.user)}"
    if not access.password:
        yield "  # Not protected: whoever reaches the nodes may do everything."
    yield f"  password: {json.dumps(access.password)}"


def _tls(found: Adopted) -> Iterator[str]:
    files = {"ca_file": found.ca_path, "cert_file": found.certificate_path, "key_file": found.key_path}
    given = {name: path for name, path in files.items() if path}
    if given:
        yield "tls:"
        yield from (f"  {name}: {quote(path)}" for name, path in given.items())


def _common(settings: Settings) -> tuple[dict[str, str], dict[str, Mapping[str, str]]]:
    """What all nodes have, and what they differ in: (value by name, values by node by name)."""
    names = sorted({name for values in settings.values() for name in values})
    own = {name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in _OF_ONE_NODE)}
    old = {name for name in names if _newer_name(name) != name and _newer_name(name) in names}
    shown = [name for name in names if name not in SECRET_DIRECTIVES | own | old]
    common: dict[str, str] = {}
    differing: dict[str, Mapping[str, str]] = {}
    for name in shown:
        by_node = {node: values[name] for node, values in settings.items() if name in values}
        if len(set(by_node.values())) == 1:
            common[name] = next(iter(by_node.values()))
        else:
            differing[name] = by_node
    return common, differing


def _newer_name(name: str) -> str:
    """CONFIG GET lists some directives under their older name too."""
    return name.replace("slave", "replica").replace("ziplist", "listpack")


def _known(common: Mapping[str, str]) -> tuple[list[str], frozenset[str]]:
    """The options of redisforge.yaml that say what the nodes have, and the directives that are said by them."""
    lines: list[str] = []
    said: set[str] = set()
    memory: list[str] = []
    if (size := _number(common.get("maxmemory", ""))) and size >= _LEAST_MEMORY:
        memory.append(f"max: {_size(size)}")
        said.add("maxmemory")
    if (policy := common.get("maxmemory-policy", "")) in _POLICIES:
        memory.append(f"policy: {policy}")
        said.add("maxmemory-policy")
    lines += [f"memory: {{{', '.join(memory)}}}"] * bool(memory)
    kept: list[str] = []
    if (mode := _mode(common)) is not None:
        kept.append(f"mode: {mode}")
        said |= {"appendonly"} | ({"save"} if mode == "none" else set())
    if (fsync := common.get("appendfsync")) in ("everysec", "always", "no"):
        kept.append(f"fsync: {quote(fsync)}")
        said.add("appendfsync")
    lines += [f"persistence: {{{', '.join(kept)}}}"] * bool(kept)
    for directive, (option, least, most) in _NUMBERS.items():
        number = _number(common.get(directive, ""))
        if number is not None and least <= number <= most:
            lines.append(f"{option}: {number}")
            said.add(directive)
    if (level := common.get("loglevel")) in ("debug", "verbose", "notice", "warning"):
        lines.append(f"log_level: {level}")
        said.add("loglevel")
    return lines, frozenset(said)


def _mode(common: Mapping[str, str]) -> str | None:
    """`persistence.mode`, where it is the same on all nodes: `apply-config` would make it so."""
    if common.get("appendonly") == "yes":
        return "aof"
    if common.get("appendonly") == "no" and "save" in common:
        return "rdb" if common["save"] else "none"
    return None


_NUMBERS = {
    "cluster-node-timeout": ("node_timeout_ms", 500, 60_000),
    "maxclients": ("max_clients", 100, 1_000_000),
    "tcp-backlog": ("tcp_backlog", 1, 65535),
    "io-threads": ("io_threads", 1, 128),
}
"""Directive: option of redisforge.yaml, with the bounds that it has there (config/schema.py)."""


def _rest(
    common: Mapping[str, str], differing: Mapping[str, Mapping[str, str]], defaults: Mapping[str, str]
) -> Iterator[str]:
    unusual = {name: value for name, value in common.items() if name in defaults and value != defaults[name]}
    if unusual:
        yield "# Also set, other than the engine's default, and left as it is:"
        yield from (
            f"#   {name} {_shown(value)}   (default: {_shown(defaults[name])})" for name, value in unusual.items()
        )
    if differing:
        yield "# Not the same on all nodes:"
    for name, by_node in differing.items():
        for value, times in Counter(by_node.values()).most_common():
            nodes = [node for node, given in by_node.items() if given == value]
            who = ", ".join(nodes[:6]) + (f" and {times - 6} more" if times > 6 else "")
            yield f"#   {name} {_shown(value)}   ({who})"


def _shown(value: str) -> str:
    """A value on one line; what could not be read back from it is escaped."""
    plain = value if value.isprintable() and value else json.dumps(value)
    return plain if len(plain) <= _WIDTH_OF_VALUES else plain[:_WIDTH_OF_VALUES] + " …"


def _number(text: str) -> int | None:
    return int(text) if text.isdigit() else None


def _size(size_bytes: int) -> str:
    return f"{size_bytes // _MIB}mb" if size_bytes % _MIB == 0 else str(size_bytes)
