"""users.acl: who may do what on every node. One line per user, passwords as SHA-256.

An ACL rule in one paragraph: `~pattern` opens keys (`%R~` for reading only), `&pattern` opens channels,
`+command`, `+command|subcommand` and `+@category` allow, the same with `-` forbids, and the last rule that
speaks of a command wins. `#hash` is the SHA-256 of a password. Source: redis.io "ACL".

Two properties of the engines shape this module:
- A name that an engine does not know makes the whole file fail to load and the node exit, so the rules depend
  on kind and version. Categories are preferred to names where they say the same.
- An ACL file cannot hold comments, so the reasons for the rules stand here.

`CONFIG GET masterauth` returns the replication password in clear text, and with it the whole data set can be
copied by PSYNC. ACLs cannot restrict the arguments of a subcommand, so only the operator may CONFIG GET;
INFO reports the limits (maxmemory, maxclients) that a monitor needs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from redisforge.errors import ConfigError
from redisforge.model.topology import EngineKind, User, UserRole

_Version = tuple[int, ...]

_HASH = re.compile(r"[0-9a-f]{64}")
_USER_NAME = re.compile(r"[^\s\x00\"'\\]+")

_CLUSTER_VIEW = tuple(
    f"+cluster|{name}" for name in ("info", "nodes", "slots", "shards", "myid", "keyslot", "countkeysinslot")
)
"""What a client or an observer asks to find its way; none of it changes the cluster."""

_INTRODUCED: Mapping[str, Mapping[EngineKind, _Version]] = {
    "client|setinfo": {"redis": (7, 2), "valkey": (7, 2)},
    "cluster|myshardid": {"redis": (7, 2), "valkey": (7, 2)},
    "cluster|slot-stats": {"redis": (8, 2), "valkey": (8, 0)},
    "cluster|syncslots": {"redis": (8, 4), "valkey": (9, 0)},
    "cluster|getslotmigrations": {"valkey": (9, 0)},
    "commandlog|get": {"valkey": (8, 1)},
    "commandlog|len": {"valkey": (8, 1)},
}
"""Names younger than Redis 7.0, with the version that brought them (the `since` field of COMMAND DOCS)."""


def render_users_acl(
    users: Sequence[User],
    password_hashes: Mapping[str, str],
    engine_kind: EngineKind,
    engine_version: str,
) -> str:
    """Render users.acl for one engine. `default` is off: nobody gets in without a name and a password.

    Args:
        users: the users, in the order of their lines.
        password_hashes: SHA-256 of each user's password as 64 lower-case hex digits, by user name.
        engine_kind: redis or valkey.
        engine_version: the version that runs, such as "8.6.3".

    Raises:
        ConfigError: a user without a hash, or a name or hash that an ACL file cannot hold.
        ValueError: `engine_version` is not a version.
    """
    version = _parse_version(engine_version)
    lines = ["user default off resetpass resetkeys resetchannels -@all"]
    for user in users:
        password_hash = password_hashes.get(user.name, "")
        if user.name == "default" or not _USER_NAME.fullmatch(user.name):
            raise ConfigError(
                f"users: {user.role.value}: the name cannot be used for an ACL user",
                problems=(f"{user.name!r} is reserved or has spaces, quotes or control characters",),
                next_step="Choose a name of letters, digits, '_' and '-'.",
            )
        if not _HASH.fullmatch(password_hash):
            raise ConfigError(f"user {user.name} has no usable password hash", problems=("not a SHA-256",))
        rules = acl_rules(user.role, engine_kind, version)
        lines.append(" ".join(("user", user.name, "on", f"#{password_hash}", *rules)))
    return "\n".join(lines) + "\n"


def acl_rules(role: UserRole, kind: EngineKind, version: _Version) -> tuple[str, ...]:
    """The rules of `role`, without name and password, that this engine understands."""
    rules = _RULES[role]
    if role is UserRole.REPLICATION and kind == "valkey" and version >= (9, 0):
        rules = (*_VALKEY_SLOT_MIGRATION, *_REPLICATION_COMMANDS)
    return tuple(rule for rule in rules if _is_known(rule, kind, version))


def _is_known(rule: str, kind: EngineKind, version: _Version) -> bool:
    introduced = _INTRODUCED.get(rule[1:])
    if introduced is None:
        return True
    return kind in introduced and version >= introduced[kind]


def _parse_version(text: str) -> _Version:
    match = re.fullmatch(r"(\d+)\.(\d+)(?:\.(\d+))?.*", text)
    if match is None:
        raise ValueError(f"not an engine version: {text!r}")
    return tuple(int(part) for part in match.groups(default="0"))


_APPLICATION = (
    "~*",
    "&*",
    "+@all",
    "-@admin",
    "-@dangerous",
    "+info",
    "-acl",
    "+acl|whoami",
    "-function",
    "+function|list",
    "+function|stats",
    "-memory",
    "+memory|usage",
    "-script",
    "+script|load",
    "+script|exists",
)
"""Every data command of the engine and of its modules, scripts, transactions and pub/sub.

`+@all` minus the dangerous, rather than a list of data categories: the commands of modules (vector sets among
them) have no category at all. @admin and @dangerous take away KEYS, SORT, FLUSHALL, RESTORE, MIGRATE, CONFIG,
CLUSTER and CLIENT writes, and so on; of CLUSTER only the read-only subcommands are left, and of CLIENT those
that concern the caller's own connection. SORT stays closed: it reads keys that its arguments do not name;
a sorted set or the client sorts as well.

INFO is in @dangerous but open: Envoy aggregates it, and the ready check of clients such as ioredis calls it.
It shows no keys. An application calls functions; to load, delete or dump them is deployment. SCRIPT FLUSH and
KILL and MEMORY PURGE act on the server or on other applications.
"""

_READONLY = (
    "%R~*",
    "&*",
    "+@read",
    "+@connection",
    "+@transaction",
    "-@admin",
    "-@dangerous",
    "+info",
    "+time",
    *_CLUSTER_VIEW,
    "+cluster|myshardid",
    "+eval_ro",
    "+evalsha_ro",
    "+fcall_ro",
    "+script|exists",
    "+subscribe",
    "+psubscribe",
    "+ssubscribe",
    "+unsubscribe",
    "+punsubscribe",
    "+sunsubscribe",
)
"""Reads, and listens to channels (reading a message is reading; PUBLISH and SPUBLISH are closed).

`%R~*` closes writing a second time, by key: scripts too can only read. KEYS and SORT_RO fall with @dangerous;
SCAN is open. Vector-set reads are not: they carry no category, and naming them would keep a node that was
built without that module from starting.
"""

_MONITOR = (
    "resetkeys",
    "resetchannels",
    "-@all",
    "+ping",
    "+echo",
    "+info",
    "+time",
    "+role",
    "+dbsize",
    "+lastsave",
    "+command",
    *_CLUSTER_VIEW,
    "+cluster|myshardid",
    "+cluster|links",
    "+cluster|slot-stats",
    "+cluster|getslotmigrations",
    "+slowlog|get",
    "+slowlog|len",
    "+commandlog|get",
    "+commandlog|len",
    "+latency|latest",
    "+latency|history",
    "+latency|histogram",
    "+latency|doctor",
    "+memory|stats",
    "+memory|doctor",
    "+memory|malloc-stats",
    "+client|list",
    "+client|info",
    "+client|id",
    "+client|getname",
    "+client|setname",
    "+client|setinfo",
    "+acl|whoami",
)
"""Numbers about the server, no key and no channel; only what the named subcommands show.

CONFIG GET is closed because it reveals the replication password (see above): run redis_exporter with
`--config-command -`. SLOWLOG GET shows the first 128 bytes of the arguments of slow commands, so this user
sees a little data; the engine hides passwords there. CLUSTER MIGRATION (Redis >= 8.4) both reads and starts
migrations, so it is closed.
"""

_REPLICATION_COMMANDS = ("+ping", "+psync", "+replconf", "+cluster|syncslots")
"""What a replica sends to its master, and in an atomic slot migration one owner of a slot to the other."""

_REPLICATION = ("resetkeys", "resetchannels", "-@all", *_REPLICATION_COMMANDS)

_VALKEY_SLOT_MIGRATION = (
    "~*",
    "resetchannels",
    "-@all",
    "+@write",
    "+@transaction",
    "-@dangerous",
    "-@scripting",
    "+select",
    "+restore",
    "+sort",
)
"""Valkey 9's MIGRATESLOTS: the old owner logs in at the new one as this user and sends the slot's keys, and the
writes that arrive meanwhile, as ordinary commands. Redis applies them without a user and needs none of this.
"""

_HANDOFF = ("resetkeys", "resetchannels", "-@all", "+ping", "+info", "+cluster|failover", "+acl|dryrun", "+acl|load")
"""What a keeper asks before it hands a master's slots over, and the one command that does it (fleet/handoff.py).

ACLs cannot tell FORCE from TAKEOVER, so this user could make a replica its shard's master, by vote or without.
ACL LOAD reads the file that is there and no other; DRYRUN says who may do what, and changes nothing.
It sees no key and no channel. CLUSTER FAILOVER is open to no other user but the operator.
"""

_RULES: Mapping[UserRole, tuple[str, ...]] = {
    UserRole.OPERATOR: ("~*", "&*", "+@all"),
    UserRole.APPLICATION: _APPLICATION,
    UserRole.READONLY: _READONLY,
    UserRole.MONITOR: _MONITOR,
    UserRole.REPLICATION: _REPLICATION,
    UserRole.HANDOFF: _HANDOFF,
}
