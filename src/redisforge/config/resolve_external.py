"""The part of the Topology that follows from `external`: nodes that somebody else runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from redisforge.config.values import size_bytes
from redisforge.model.topology import DEFAULT_USER, ExternalAccess, Host, RedisNode, Role, User, UserRole

if TYPE_CHECKING:
    from redisforge.config.schema import Declaration


def external_nodes(declaration: Declaration, hosts: tuple[Host, ...]) -> tuple[RedisNode, ...]:
    """The nodes as they are listed; `hosts` are those of `external_hosts`."""
    by_address = {host.address: host for host in reversed(hosts)}
    by_name = {host.name: host for host in hosts}
    nodes: list[RedisNode] = []
    for node in declaration.external.nodes:
        host = by_name.get(node.host or "") or by_address[node.address]
        nodes.append(
            RedisNode(
                name=external_name(node.address, node.port),
                host=host.name,
                address=node.address,
                zone=node.zone or host.zone,
                port=node.port,
                bus_port=node.bus_port or node.port + declaration.ports.bus_offset,
                shard=node.shard - 1,
                intended_role=Role(node.role),
                managed=False,
                service=node.service or "",
            )
        )
    return tuple(nodes)


def external_name(address: str, port: int) -> str:
    """What a node is called that somebody else runs."""
    return f"{address}:{port}"


def external_hosts(declaration: Declaration, declared: tuple[Host, ...]) -> tuple[Host, ...]:
    """The hosts that are declared, and one more for every address or name that only a node has."""
    hosts = list(declared) if "hosts" in declaration.model_fields_set else []
    for node in declaration.external.nodes:
        known = {host.name for host in hosts} if node.host else {host.address for host in hosts}
        if (node.host or node.address) not in known:
            name = node.host or node.address
            hosts.append(Host(name=name, address=node.address, zone=name))
    return tuple(hosts)


def external_users(declaration: Declaration) -> tuple[User, ...]:
    """Whom RedisForge logs in as; nobody where no password is asked for."""
    external = declaration.external
    return (User(external.user or DEFAULT_USER, UserRole.OPERATOR),) if external.password else ()


def external_settings(declaration: Declaration) -> tuple[tuple[str, str], ...]:
    """The directives that the file (or the environment) names itself, as CONFIG SET takes them. What it leaves out is
    not RedisForge's to choose there.

    `persistence.mode` says nothing of when snapshots are taken, but for `none`: never. Of `rdb` the schedule counts
    only where a node has none (plan/apply_external.py).
    """
    from redisforge.render.redis_conf import SNAPSHOTS
    from redisforge.render.redis_words import write_directive
    from redisforge.render.settings import read_conf

    memory, persistence, given = declaration.memory, declaration.persistence, declaration.model_fields_set
    found: dict[str, str] = {}
    if "max" in memory.model_fields_set:
        found["maxmemory"] = str(size_bytes(memory.max))
    if "policy" in memory.model_fields_set:
        found["maxmemory-policy"] = memory.policy
    if "mode" in persistence.model_fields_set:
        found["appendonly"] = "yes" if persistence.mode == "aof" else "no"
        if persistence.mode != "aof":
            found["save"] = SNAPSHOTS if persistence.mode == "rdb" else ""
    if "fsync" in persistence.model_fields_set:
        found["appendfsync"] = persistence.fsync
    found |= {name: str(getattr(declaration, option)) for option, name in _DIRECTIVES.items() if option in given}
    lines = [write_directive(name, value) for name, values in declaration.redis_conf.items() for value in values]
    return tuple((found | read_conf("\n".join(lines))).items())


_DIRECTIVES = {
    "node_timeout_ms": "cluster-node-timeout",
    "max_clients": "maxclients",
    "tcp_backlog": "tcp-backlog",
    "io_threads": "io-threads",
    "log_level": "loglevel",
}


def external_access(declaration: Declaration) -> ExternalAccess:
    """How the nodes are reached."""
    external = declaration.external
    return ExternalAccess(
        tls=external.tls, check_hostname=external.check_hostname, user=external.user, password=external.password
    )
