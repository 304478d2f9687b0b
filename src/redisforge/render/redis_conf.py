r"""redis.conf of one node: closed to everything but TLS, and each setting with its reason.

The syntax of the file is described in redis_words.py. Every directive is known to
Redis 7.0 to 8.6 and Valkey 9, except those that depend on the version here.
"""

from __future__ import annotations

import ipaddress
import re

import msgspec

from redisforge.model.secret import Secret
from redisforge.model.topology import EngineKind, RedisNode, RedisSettings
from redisforge.render.redis_words import quote_word, write_directive

_MIB = 1024 * 1024

CLUSTER_CONFIG_FILE = "nodes.conf"
"""In the data folder; Redis keeps its view of the cluster there."""

PING_INTERVALS_MS = ((30, 100), (100, 300))
"""(nodes at most, milliseconds): about 300 pings a second and node at the end of each; larger clusters keep the
engine's own rule."""
SHUTDOWN_TIMEOUT_S = 5
"""How long a master that is told to stop waits for lagging replicas; below a Unit's `stop_grace_s` of 10."""


EVERYWHERE = "0.0.0.0"  # noqa: S104 - in a container, whose ports are published at one address
"""Where a server listens that has a network of its own."""


class RedisConfContext(msgspec.Struct, frozen=True, kw_only=True):
    """What redis.conf depends on. All paths are absolute on the node's host.

    `engine_version` is the version that runs ("8.6.3"), not the rule that was asked for.
    """

    node: RedisNode
    node_count: int
    """All nodes of the cluster."""
    settings: RedisSettings
    engine_kind: EngineKind
    engine_version: str
    require_client_certificates: bool
    data_path: str
    ca_path: str
    certificate_path: str
    key_path: str
    acl_path: str
    replication_user: str
    replication_password: Secret
    bind_address: str = ""
    """Where it listens, if that is translated to the node's address: one of its host's, or 0.0.0.0 in a container."""


def render_redis_conf(context: RedisConfContext) -> Secret:
    """Render redis.conf. It is a Secret because it holds the replication password: write it with mode 0600.

    Raises:
        ConfigError: a value that the file cannot hold (NUL, or a line break in an extra directive).
        ValueError: `engine_version` is not a version.
    """
    sections = (
        f"# {context.node.name}: written by RedisForge. Changes made here are overwritten.\n",
        _network(context),
        _tls(context),
        _identity(context),
        _cluster(context),
        _replication(context.settings),
        _persistence(context),
        _memory(context.settings),
        _limits(context),
        _observability(context),
        _HARDENING,
        _extra_directives(context.settings.directives),
    )
    return Secret("".join(sections))


def _network(context: RedisConfContext) -> str:
    address = "127.0.0.1" if context.node.address == "localhost" else context.node.address
    bound = context.bind_address or address
    return f"""
# ==== Network: TLS only, on one address ====

bind {quote_word(bound)}
# No plain-text port.
port 0
tls-port {context.node.port}
{_own_address(bound, address)}
# Refuse strangers even if the users were lost and `default` came back.
protected-mode yes

# Connections that wait for accept(); net.core.somaxconn must be as large.
tcp-backlog {context.settings.tcp_backlog}

# Find dead peers within 300 s; idle clients stay connected.
tcp-keepalive 300
timeout 0
"""


def _own_address(bound: str, address: str) -> str:
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return ""  # a name can neither be announced nor be a source; Redis finds its address itself
    if bound != address:
        source = "" if bound == EVERYWHERE else f"bind-source-addr {bound}\n"
        return f"""
# The others reach it at another address, which is translated to its own.
{source}cluster-announce-ip {address}
replica-announce-ip {address}
"""
    return f"""
# Speak to other nodes from this address and announce it. On 127.0.0.x the kernel would choose 127.0.0.1,
# the others would learn that address, and the cluster would never form.
bind-source-addr {address}
cluster-announce-ip {address}
"""


def _tls(context: RedisConfContext) -> str:
    if context.require_client_certificates:
        clients = "# Clients need a certificate of this CA and a password.\ntls-auth-clients yes"
    else:
        clients = (
            "# Clients need a password; a certificate is checked if shown. The bus always demands one.\n"
            "tls-auth-clients optional"
        )
    return f"""
# ==== TLS on clients, replication and cluster bus ====

# A node uses its certificate as server and as client of other nodes.
tls-ca-cert-file {quote_word(context.ca_path)}
tls-cert-file {quote_word(context.certificate_path)}
tls-key-file {quote_word(context.key_path)}

{clients}
tls-cluster yes
tls-replication yes
tls-protocols "TLSv1.2 TLSv1.3"
"""


def _identity(context: RedisConfContext) -> str:
    return f"""
# ==== Who may come in ====

# All users and what they may do; `default` is off.
aclfile {quote_word(context.acl_path)}

# How this node logs in at its master.
masteruser {quote_word(context.replication_user)}
masterauth {quote_word(context.replication_password.reveal())}
"""


def _cluster(context: RedisConfContext) -> str:
    return f"""
# ==== Cluster ====

cluster-enabled yes
# A cluster has database 0 only.
databases 1
# The node's own view of the cluster, in its data folder. Redis writes it; never edit or copy it.
cluster-config-file {CLUSTER_CONFIG_FILE}
# Gossip between nodes.
cluster-port {context.node.bus_port}

# Milliseconds without an answer after which the others may declare this node failed.
cluster-node-timeout {context.settings.node_timeout_ms}
{_ping_interval(context)}
# A shard that is lost takes down its own keys only, not those of the other shards.
cluster-require-full-coverage no

# Cut off from the majority: answer nothing rather than something old.
cluster-allow-reads-when-down no

# A replica that was cut off for more than 10 node timeouts is too old to take over by itself.
cluster-replica-validity-factor 10

# Replicas stay where RedisForge placed them, apart from their master's zone.
cluster-allow-replica-migration no
"""


def _replication(settings: RedisSettings) -> str:
    backlog_bytes = min(max(settings.max_memory_bytes // 16, _MIB), 512 * _MIB)
    hard_bytes = max(settings.max_memory_bytes // 4, 256 * _MIB)
    return f"""
# ==== Replication ====

# A full sync streams from memory and starts at once.
repl-diskless-sync yes
repl-diskless-sync-delay 0

# Masters ping their replicas every second (default: 10): a dead link shows at once, and a new replica of an idle
# master is named in CLUSTER SLOTS after a second; without traffic it would stay hidden from proxies for ten.
repl-ping-replica-period 1

# A replica keeps its old data until the new has arrived whole.
repl-diskless-load disabled

# Bytes of writes kept for replicas that reconnect (1/16 of maxmemory, 1 MiB to 512 MiB): no full sync then.
repl-backlog-size {backlog_bytes}

# A replica with more bytes pending (or the second number for 60 s) is dropped and syncs again.
client-output-buffer-limit replica {hard_bytes} {hard_bytes // 4} 60

# Replicas take no writes from clients.
replica-read-only yes

# A replica whose disk is full goes on in memory: it serves, `redisforge status` names it, and it writes the rest once
# there is room. The default is to panic, and then to ask for one full sync after the other. It is not handed slots.
replica-ignore-disk-write-errors yes
"""


_NO_SNAPSHOTS = 'save ""'
SNAPSHOTS = "3600 1 300 100 60 10000"
"""When snapshots are taken: after so many seconds with so many changes."""

_PERSISTENCE = {
    "aof": f"# The append-only file holds the data; no timed snapshots.\nappendonly yes\n{_NO_SNAPSHOTS}",
    "rdb": f"# Snapshots: after 1 h with 1 change, 5 min with 100, 1 min with 10,000.\nappendonly no\nsave {SNAPSHOTS}",
    "none": "# Nothing is kept on disk: a node that restarts is empty until its master fills it.\n"
    f"appendonly no\n{_NO_SNAPSHOTS}",
}


def _persistence(context: RedisConfContext) -> str:
    persistence = context.settings.persistence
    return f"""
# ==== Persistence ====

dir {quote_word(context.data_path)}
dbfilename dump.rdb
appenddirname appendonlydir
appendfilename appendonly.aof

{_PERSISTENCE[persistence.mode]}

# When the append-only file reaches the disk. everysec: a power cut loses about 1 s of writes at most;
# always: none, but slower; no: the kernel decides.
appendfsync {persistence.fsync}
# The same while a rewrite runs.
no-appendfsync-on-rewrite no

# A rewrite begins with a compact RDB; it starts when the file has doubled.
aof-use-rdb-preamble yes
auto-aof-rewrite-percentage 100
auto-aof-rewrite-min-size 67108864

# A mark of about 16 bytes in each second with writes: redis-check-aof can cut the file at a point in time.
aof-timestamp-enabled yes

# At start a last command that a crash cut short is dropped; any other damage stops the start.
aof-load-truncated yes

# Refuse writes rather than promise what the disk does not take.
stop-writes-on-bgsave-error yes

# Seconds that a stopping master waits for its replicas to receive the last writes.
shutdown-timeout {SHUTDOWN_TIMEOUT_S}
"""


def _memory(settings: RedisSettings) -> str:
    return f"""
# ==== Memory ====

# Bytes for data; the process itself and the buffers of replicas come on top.
maxmemory {settings.max_memory_bytes}
maxmemory-policy {settings.max_memory_policy}

# Free large values in a thread of their own: no command waits for it.
lazyfree-lazy-eviction yes
lazyfree-lazy-expire yes
lazyfree-lazy-server-del yes
lazyfree-lazy-user-del yes
lazyfree-lazy-user-flush yes
replica-lazy-flush yes

# It costs latency; switch it on when mem_fragmentation_ratio asks for it.
activedefrag no
"""


def _limits(context: RedisConfContext) -> str:
    settings = context.settings
    threads = ""
    if settings.io_threads > 1:
        threads = f"\n# Threads for sockets and TLS, the main one included.\nio-threads {settings.io_threads}\n"
    return f"""
# ==== Limits and threads ====

# Connections; more are refused.
maxclients {settings.max_clients}
{threads}"""


def _observability(context: RedisConfContext) -> str:
    hidden = ""
    if _version(context) >= (8, 0):
        hidden = "# Keys and values stay out of the log, crash reports included.\nhide-user-data-from-log yes\n"
    return f"""
# ==== What an operator looks at ====

# To standard output; RedisForge keeps the log.
daemonize no
logfile ""
loglevel {context.settings.log_level}
{hidden}
# A crash is reported and then over: testing the memory takes seconds in which no replica can take over, and may hang.
crash-memcheck-enabled no

# Commands of 10 ms and more (the unit is microseconds): SLOWLOG GET.
slowlog-log-slower-than 10000
slowlog-max-len 1024

# Events of 100 ms and more: LATENCY LATEST, LATENCY DOCTOR.
latency-monitor-threshold 100
"""


_HARDENING = """
# ==== Doors that stay closed at run time, for the operator too ====

enable-protected-configs no
enable-debug-command no
enable-module-command no
"""


def _extra_directives(directives: tuple[tuple[str, str], ...]) -> str:
    if not directives:
        return ""
    lines = "".join(write_directive(name, value) + "\n" for name, value in directives)
    return f"\n# ==== From redisforge.yaml (redis_conf); the last line of a name wins ====\n\n{lines}"


def _ping_interval(context: RedisConfContext) -> str:
    """How long a node leaves a peer without a ping.

    Redis's own rule is half a node timeout, and only then does a peer's silence begin to count. The price of a
    shorter one is each node's pings to each other node, so it grows with the cluster.
    """
    since = (8, 0) if context.engine_kind == "redis" else (8, 1)
    wanted_ms = next((ms for count, ms in PING_INTERVALS_MS if context.node_count <= count), None)
    if wanted_ms is None or _version(context) < since:
        return ""
    return f"""
# Milliseconds after which a node pings another one again, so that silence is noticed early. By default it is half
# of the node timeout.
cluster-ping-interval {min(wanted_ms, context.settings.node_timeout_ms // 2)}
"""


def _version(context: RedisConfContext) -> tuple[int, int]:
    match = re.match(r"(\d+)\.(\d+)", context.engine_version)
    if match is None:
        raise ValueError(f"not an engine version: {context.engine_version!r}")
    return int(match[1]), int(match[2])
