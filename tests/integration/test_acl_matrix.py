"""What each user may and may not do, on real engines with the rendered users.acl and redis.conf.

ACL DRYRUN answers for users × commands; the protocols (replication, atomic slot migration, discovery) are really
run, and ACL LOG must stay empty.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Iterator

import pytest
from acl_stack import ENGINES, PASSWORDS, USERS, Trio, run_trio, until, words

from redisforge.errors import NodeError
from redisforge.model.secret import Secret
from redisforge.model.topology import UserRole
from redisforge.redis.connection import Connection, Login, ReplyError

pytestmark = pytest.mark.integration

NEW = "redis 8.6, valkey 9.1"

# Letters: a application, r readonly, m monitor, p replication, h hand-off; the operator may everything. The third
# column names the engines that know the command (empty: all).
MATRIX: tuple[tuple[str, str, str], ...] = (
    # data
    ("GET k", "ar", ""),
    ("MGET k k2", "ar", ""),
    ("HGETALL k", "ar", ""),
    ("SCAN 0", "ar", ""),
    ("TTL k", "ar", ""),
    ("OBJECT ENCODING k", "ar", ""),
    ("MEMORY USAGE k", "ar", ""),
    ("XREAD COUNT 1 STREAMS k 0", "ar", ""),
    ("DBSIZE", "arm", ""),
    ("SET k v", "a", ""),
    ("DEL k", "a", ""),
    ("GETDEL k", "a", ""),
    ("GETEX k EX 5", "a", ""),
    ("EXPIRE k 5", "a", ""),
    ("XADD k * f v", "a", ""),
    ("BLPOP k 1", "a", ""),
    ("ZADD k 1 m", "a", ""),
    ("PFCOUNT k", "ar", ""),
    ("DELEX k", "a", "redis 8.6"),
    ("VADD k VALUES 1 1 e", "a", "redis 8.0, redis 8.6"),
    ("VCARD k", "a", "redis 8.0, redis 8.6"),
    # transactions, scripts, pub/sub
    ("MULTI", "ar", ""),
    ("EXEC", "ar", ""),
    ("WATCH k", "ar", ""),
    ("EVAL return 0", "a", ""),
    ("EVAL_RO return 0", "ar", ""),
    ("FCALL f 0", "a", ""),
    ("FCALL_RO f 0", "ar", ""),
    ("SCRIPT LOAD return", "a", ""),
    ("SCRIPT FLUSH", "", ""),
    ("SCRIPT KILL", "", ""),
    ("FUNCTION LIST", "a", ""),
    ("FUNCTION LOAD code", "", ""),
    ("FUNCTION FLUSH", "", ""),
    ("FUNCTION DUMP", "", ""),
    ("PUBLISH c m", "a", ""),
    ("SPUBLISH c m", "a", ""),
    ("SUBSCRIBE c", "ar", ""),
    ("SSUBSCRIBE c", "ar", ""),
    ("PSUBSCRIBE c*", "ar", ""),
    # connection and discovery
    ("PING", "armph", ""),
    ("ECHO x", "arm", ""),
    ("READONLY", "ar", ""),
    ("READWRITE", "ar", ""),
    ("ASKING", "ar", ""),
    ("COMMAND", "arm", ""),
    ("INFO", "armh", ""),
    ("TIME", "arm", ""),
    ("CLIENT SETNAME x", "arm", ""),
    ("CLIENT ID", "arm", ""),
    ("CLIENT SETINFO LIB-NAME x", "arm", "redis 8.0, redis 8.6, valkey 9.1"),
    ("CLUSTER SLOTS", "arm", ""),
    ("CLUSTER SHARDS", "arm", ""),
    ("CLUSTER NODES", "arm", ""),
    ("CLUSTER INFO", "arm", ""),
    ("CLUSTER KEYSLOT k", "arm", ""),
    ("CLUSTER MYID", "arm", ""),
    ("CLUSTER COUNTKEYSINSLOT 0", "arm", ""),
    ("CLUSTER LINKS", "am", ""),
    ("ACL WHOAMI", "am", ""),
    # looking at the server
    ("SLOWLOG GET", "m", ""),
    ("SLOWLOG LEN", "m", ""),
    ("LATENCY LATEST", "m", ""),
    ("LATENCY HISTOGRAM", "m", ""),
    ("MEMORY STATS", "m", ""),
    ("MEMORY DOCTOR", "m", ""),
    ("CLIENT LIST", "m", ""),
    ("ROLE", "m", ""),
    ("LASTSAVE", "m", ""),
    ("CLUSTER SLOT-STATS SLOTSRANGE 0 1", "am", NEW),
    ("COMMANDLOG LEN slow", "m", "valkey 9.1"),
    ("CLUSTER GETSLOTMIGRATIONS", "m", "valkey 9.1"),
    # replication and slot migration
    ("PSYNC ? -1", "p", ""),
    ("REPLCONF capa eof", "p", ""),
    ("CLUSTER SYNCSLOTS CONF x y", "p", NEW),
    # closed to all but the operator
    ("KEYS *", "", ""),
    ("SORT k", "", "redis 7.0, redis 8.0, redis 8.6"),
    ("FLUSHALL", "", ""),
    ("FLUSHDB", "", ""),
    ("SWAPDB 0 1", "", ""),
    ("SAVE", "", ""),
    ("BGSAVE", "", ""),
    ("BGREWRITEAOF", "", ""),
    ("SHUTDOWN", "", ""),
    ("MONITOR", "", ""),
    ("SYNC", "", ""),
    ("DEBUG SLEEP 0", "", ""),
    ("CONFIG GET masterauth", "", ""),
    ("CONFIG SET maxmemory 1", "", ""),
    ("CONFIG REWRITE", "", ""),
    ("CONFIG RESETSTAT", "", ""),
    ("SLOWLOG RESET", "", ""),
    ("LATENCY RESET", "", ""),
    ("MEMORY PURGE", "", ""),
    ("CLIENT KILL ID 1", "", ""),
    ("CLIENT PAUSE 1", "", ""),
    ("CLIENT NO-EVICT on", "", ""),
    ("ACL LIST", "", ""),
    ("ACL SETUSER x", "", ""),
    ("ACL LOG", "", ""),
    ("ACL SAVE", "", ""),
    ("ACL LOAD", "h", ""),
    ("ACL DRYRUN x PING", "h", ""),
    ("REPLICAOF NO ONE", "", ""),
    ("FAILOVER", "", ""),
    ("MODULE LIST", "", ""),
    ("MODULE LOAD x", "", ""),
    ("MIGRATE h 1 k 0 1", "", ""),
    ("CLUSTER MEET 127.0.0.1 1", "", ""),
    ("CLUSTER FORGET id", "", ""),
    ("CLUSTER RESET", "", ""),
    ("CLUSTER FAILOVER", "h", ""),
    ("CLUSTER FAILOVER FORCE", "h", ""),
    ("CLUSTER REPLICATE id", "", ""),
    ("CLUSTER ADDSLOTS 1", "", ""),
    ("CLUSTER DELSLOTS 1", "", ""),
    ("CLUSTER SETSLOT 1 STABLE", "", ""),
    ("CLUSTER FLUSHSLOTS", "", ""),
    ("CLUSTER SAVECONFIG", "", ""),
    ("CLUSTER MIGRATION STATUS ALL", "", "redis 8.6"),
    ("CLUSTER MIGRATESLOTS SLOTSRANGE 0 0 NODE id", "", "valkey 9.1"),
    ("RESTORE k 0 x", "", "redis 7.0, redis 8.0, redis 8.6"),
)
VALKEY_REPLICATION = {"GET k": False, "SET k v": True, "RESTORE k 0 x": True, "SORT k STORE k2": True}
"""MIGRATESLOTS sends keys and writes as this user; it still cannot read, and FLUSHALL stays closed (MATRIX)."""
LETTERS = {
    UserRole.APPLICATION: "a",
    UserRole.READONLY: "r",
    UserRole.MONITOR: "m",
    UserRole.REPLICATION: "p",
    UserRole.HANDOFF: "h",
}
VALKEY_TRANSACTION = frozenset({"MULTI", "EXEC", "WATCH k"})
VALKEY_DATA_WRITES = frozenset({"SET", "DEL", "GETDEL", "GETEX", "EXPIRE", "XADD", "BLPOP", "ZADD"})
"""What MIGRATESLOTS sends besides the commands of VALKEY_REPLICATION."""


@pytest.fixture(scope="module", params=ENGINES, ids=lambda param: f"{param[0]}-{param[1]}")
def trio(request: pytest.FixtureRequest) -> Iterator[Trio]:
    with run_trio(*request.param) as running:
        yield running


def expected(trio: Trio, role: UserRole) -> dict[str, bool]:
    known = [(command, who) for command, who, engines in MATRIX if not engines or trio.series in engines]
    if role is UserRole.OPERATOR:
        return dict.fromkeys((command for command, _ in known), True)
    table = {command: LETTERS[role] in who for command, who in known}
    if role is UserRole.REPLICATION and trio.engine.kind == "valkey":
        data = {command for command, who in known if who == "a" and command.split()[0] in VALKEY_DATA_WRITES}
        table |= dict.fromkeys(data | VALKEY_TRANSACTION, True) | VALKEY_REPLICATION
    return table


@pytest.mark.parametrize("role", UserRole)
async def test_users_and_commands(trio: Trio, role: UserRole) -> None:
    table = expected(trio, role)
    async with trio.open(0) as operator:
        replies = {command: await dry_run(operator, USERS[role].name, command) for command in table}
    assert len(table) >= 100
    wrong = {command: replies[command] for command in table if (replies[command] == "OK") is not table[command]}
    assert wrong == {}


async def dry_run(operator: Connection, user: str, command: str) -> str:
    return words(await operator.call("ACL", "DRYRUN", user, *command.split(" ")))


async def test_keys_and_channels(trio: Trio) -> None:
    """The monitor reaches no key by any command; the reader's scripts cannot write."""
    async with trio.open(0, UserRole.MONITOR) as monitor, trio.open(0, UserRole.READONLY) as reader:
        for command in (("GET", "k"), ("SUBSCRIBE", "c"), ("OBJECT", "ENCODING", "k"), ("EVAL_RO", "return 1", 0)):
            with pytest.raises(ReplyError, match="NOPERM"):
                await monitor.call(*command)
        key = await key_of_first_master(trio)
        assert await reader.call("EVAL_RO", "return redis.call('exists', KEYS[1])", 1, key) == 0
        with pytest.raises(ReplyError):
            await reader.call("EVAL_RO", "return redis.call('set', KEYS[1], 'x')", 1, key)


async def key_of_first_master(trio: Trio, number: int = 0) -> str:
    async with trio.open(0) as operator:
        for candidate in range(1000):
            key = f"key-{number}-{candidate}"
            if await operator.call("CLUSTER", "KEYSLOT", key) < 8192:
                return key
    raise AssertionError("no key in the lower half of the slots")


async def test_loading_the_users_again_closes_no_connection_but_on_the_oldest_engine(trio: Trio) -> None:
    """What a keeper does before a stop (fleet/handoff.py), where the engine permits."""
    async with trio.open(0, UserRole.APPLICATION) as application, trio.open(0, UserRole.HANDOFF) as keeper:
        number = await application.call("CLIENT", "ID")
        with contextlib.suppress(NodeError):  # 7.0 closes this connection too
            await keeper.call("ACL", "LOAD")
        if trio.series == "redis 7.0":
            with pytest.raises(NodeError):
                await application.call("CLIENT", "ID")
        else:
            assert await application.call("CLIENT", "ID") == number
            assert await keeper.call("PING") == "PONG"


async def test_the_application_works_and_finds_its_way(trio: Trio) -> None:
    key = await key_of_first_master(trio, 1)
    async with trio.open(0, UserRole.APPLICATION) as application:
        slots = await application.call("CLUSTER", "SLOTS")
        masters = {(entry[2][0], entry[2][1]) for entry in slots}
        assert masters == {(one.node.address, one.node.port) for one in trio.nodes[:2]}
        assert "cluster_enabled:1" in words(await application.call("INFO"))
        assert await application.call("SET", key, "v") == "OK"
        await application.call("MULTI")
        await application.call("APPEND", key, "w")
        assert await application.call("EXEC") == [2]
        assert await application.call("EVAL", "return redis.call('get', KEYS[1])", 1, key) == "vw"
        assert await application.call("PUBLISH", "channel", "message") == 0
        with pytest.raises(ReplyError, match="NOPERM"):
            await application.call("KEYS", "*")
        assert await application.call("DEL", key) == 1


@pytest.mark.parametrize(
    ("user", "password"),
    [
        (USERS[UserRole.APPLICATION].name, "wrong"),
        (USERS[UserRole.APPLICATION].name, PASSWORDS[UserRole.OPERATOR].reveal()),
        ("nobody", PASSWORDS[UserRole.OPERATOR].reveal()),
        ("default", PASSWORDS[UserRole.OPERATOR].reveal()),
        ("default", ""),
    ],
)
async def test_nobody_else_comes_in(trio: Trio, user: str, password: str) -> None:
    node = trio.nodes[0].node
    login = Login(ca_path=str(trio.folder / "tls" / "ca.crt"), user=user, password=Secret(password))
    with pytest.raises(ReplyError, match="WRONGPASS"):
        await Connection.open((node.address, node.port), login, timeout_s=5.0)


async def test_without_a_login_there_is_nothing(trio: Trio) -> None:
    node = trio.nodes[0].node
    anonymous = Login(ca_path=str(trio.folder / "tls" / "ca.crt"))
    async with await Connection.open((node.address, node.port), anonymous, timeout_s=5.0) as connection:
        for command in (("PING",), ("INFO",), ("CLUSTER", "SLOTS")):
            with pytest.raises(ReplyError, match="NOAUTH"):
                await connection.call(*command)


async def test_plain_text_and_a_bus_without_certificate_are_refused(trio: Trio) -> None:
    node = trio.nodes[0].node
    assert b"PONG" not in await answer(node.address, node.port, b"PING\r\n", None)
    context = trio.login(UserRole.OPERATOR).ssl_context()
    assert await answer(node.address, node.bus_port, b"RCmb" + bytes(100), context) == b""
    async with trio.open(0) as operator:
        assert "cluster_state:ok" in words(await operator.call("CLUSTER", "INFO"))


async def answer(address: str, port: int, request: bytes, context: ssl.SSLContext | None) -> bytes:
    """Everything that the server says before it hangs up; a refused handshake is an empty answer."""
    with contextlib.suppress(OSError):
        reader, writer = await asyncio.open_connection(address, port, ssl=context)
        writer.write(request)
        received = await asyncio.wait_for(reader.read(), 10)
        writer.close()
        return received
    return b""


async def test_replication_uses_its_own_user_and_needs_no_more(trio: Trio) -> None:
    key = await key_of_first_master(trio, 2)
    async with trio.open(0) as master, trio.open(2) as replica:
        await master.call("SET", key, "replicated")
        assert await master.call("WAIT", 1, 10_000) == 1
        await replica.call("READONLY")
        assert await replica.call("GET", key) == "replicated"
        clients = words(await master.call("CLIENT", "LIST", "TYPE", "replica"))
        assert f"user={USERS[UserRole.REPLICATION].name}" in clients
        assert await denied(master) == await denied(replica) == set()


async def denied(operator: Connection) -> set[str]:
    """Commands that ACL LOG says were denied to the replication user."""
    log = [dict(zip(entry[::2], entry[1::2], strict=True)) for entry in await operator.call("ACL", "LOG")]
    name = USERS[UserRole.REPLICATION].name
    return {str(entry["object"]) for entry in log if entry["username"] == name}


async def test_a_slot_moves_with_the_replication_user(trio: Trio) -> None:
    """Atomic slot migration, with keys of every type and writes going on, and back again."""
    if trio.series in ("redis 7.0", "redis 8.0"):
        async with trio.open(0) as operator:
            assert "syncslots" not in words(await operator.call("COMMAND", "LIST")).lower()
        return
    key = await key_of_first_master(trio, 3)
    async with trio.open(0) as first, trio.open(1) as second:
        slot = await first.call("CLUSTER", "KEYSLOT", key)
        await fill(first, "{" + key + "}")
        before = await first.call("CLUSTER", "COUNTKEYSINSLOT", slot)
        assert before >= 500
        await move_slot(trio, first, second, slot)
        assert await second.call("CLUSTER", "COUNTKEYSINSLOT", slot) == before
        await move_slot(trio, second, first, slot)
        assert await first.call("CLUSTER", "COUNTKEYSINSLOT", slot) == before
        assert await denied(first) == await denied(second) == set()


async def fill(connection: Connection, tag: str) -> None:
    await connection.pipeline([("SET", f"{tag}{number}", "x" * 50) for number in range(500)])
    for command in (
        ("RPUSH", tag + "list", *map(str, range(300))),
        ("SADD", tag + "set", *map(str, range(300))),
        ("ZADD", tag + "sorted", *(str(number) for number in range(300))),
        ("HSET", tag + "hash", *map(str, range(300))),
        ("XADD", tag + "stream", "*", "f", "v"),
        ("XGROUP", "CREATE", tag + "stream", "group", "0"),
        ("XREADGROUP", "GROUP", "group", "me", "STREAMS", tag + "stream", ">"),
        ("SETBIT", tag + "bits", "999", "1"),
        ("PFADD", tag + "hyperloglog", "a"),
        ("EXPIRE", tag + "1", "1000"),
        ("SORT", tag + "list", "STORE", tag + "list2"),
    ):
        await connection.call(*command)


async def move_slot(trio: Trio, source: Connection, target: Connection, slot: int) -> None:
    """CLUSTER MIGRATION IMPORT (Redis >= 8.4, sent to the target) or MIGRATESLOTS (Valkey >= 9, to the source)."""
    if trio.engine.kind == "redis":
        task = words(await target.call("CLUSTER", "MIGRATION", "IMPORT", slot, slot))
        status, asked = ("CLUSTER", "MIGRATION", "STATUS", "ID", task), target
    else:
        node_id = words(await target.call("CLUSTER", "MYID"))
        await source.call("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", node_id)
        status, asked = ("CLUSTER", "GETSLOTMIGRATIONS"), source

    async def finished() -> bool:
        report = words((await asked.call(*status))[0])
        assert "'failed'" not in report, report
        return "'completed'" in report or "'success'" in report

    await until("the slot has moved", finished)

    async def all_agree() -> bool:
        owner = words(await target.call("CLUSTER", "MYID"))
        views = [(await one.call("CLUSTER", "SLOTS")) for one in (source, target)]
        return all(entry[2][2] == owner for view in views for entry in view if entry[0] <= slot <= entry[1])

    await until("both agree on the owner", all_agree)


async def test_the_engine_reads_redis_conf_as_it_was_meant(trio: Trio) -> None:
    node = trio.nodes[0].node
    home = trio.folder / "node 1"
    wanted = {
        "masterauth": PASSWORDS[UserRole.REPLICATION].reveal(),
        "masteruser": USERS[UserRole.REPLICATION].name,
        "dir": str(home / "data"),
        "aclfile": str(home / "users.acl"),
        "tls-ca-cert-file": str(trio.folder / "tls" / "ca.crt"),
        "tls-protocols": "TLSv1.2 TLSv1.3",
        "tls-auth-clients": "optional",
        "port": "0",
        "bind": node.address,
        "cluster-announce-ip": node.address,
        "protected-mode": "yes",
        "save": "",
        "appendonly": "yes",
        "repl-backlog-size": str(4 * 1024 * 1024),
        "repl-diskless-sync-delay": "0",
        "cluster-require-full-coverage": "no",
        "cluster-allow-replica-migration": "no",
        "enable-debug-command": "no",
        "shutdown-timeout": "5",
        "slowlog-max-len": "77",
        "latency-tracking-info-percentiles": "50 99",
    }
    async with trio.open(0) as operator:
        for name, value in wanted.items():
            assert await operator.call("CONFIG", "GET", name) == [name, value]
        with pytest.raises(ReplyError):
            await operator.call("DEBUG", "SLEEP", "0")
        with pytest.raises(ReplyError):
            await operator.call("CONFIG", "SET", "dbfilename", "x.rdb")
