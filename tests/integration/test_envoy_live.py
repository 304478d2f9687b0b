"""The rendered files on a real Envoy in front of a real TLS cluster: what clients see, also when nodes die."""

from __future__ import annotations

import asyncio
import json
import ssl
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio
import redis.asyncio
from cryptography import x509
from envoy_stack import ADDRESS, CREDENTIALS, Stack, binary, free_ports, until

from redisforge.envoy.admin import observe_envoy
from redisforge.errors import NodeError
from redisforge.model.secret import Secret
from redisforge.model.topology import EnvoyInstance, RedisNode
from redisforge.redis.connection import Connection, Login, ReplyError
from redisforge.render.connect import redis_url
from redisforge.render.envoy import EnvoyContext, envoy_argv, redis_cluster_names, render_envoy

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    async with Stack(tmp_path_factory.mktemp("envoy")) as started:
        yield started


def client(stack: Stack, endpoint: str) -> Any:  # redis-py's own annotations mix sync and async
    """redis-py with its default settings, opened from the printed URL as it is."""
    redis_class: Any = redis.asyncio.Redis
    return redis_class.from_url(redis_url(*stack.url_parts(endpoint)).reveal())


@pytest.mark.parametrize("endpoint", ["primary", "primary-resp3"])
async def test_redis_py_works_with_the_printed_url(stack: Stack, endpoint: str) -> None:
    async with client(stack, endpoint) as connected:
        keys = {f"{endpoint}:{index}": str(index).encode() for index in range(50)}
        assert await connected.mset(keys)
        assert await connected.mget(list(keys)) == list(keys.values())
        async with connected.pipeline(transaction=True) as transaction:
            transaction.set("{tx}:a", 1).incr("{tx}:a")
            assert await transaction.execute() == [True, 2]
        await connected.hset(f"{endpoint}:hash", mapping={"field": "1"})
        assert await connected.hgetall(f"{endpoint}:hash") == {b"field": b"1"}


async def test_the_reader_reads_from_replicas_and_refuses_writes(stack: Stack) -> None:
    await stack.endpoint_call("primary", "SET", "reader:key", "value")
    master, replica = await stack.master_of("reader:key")
    await stack.call(master, "WAIT", "1", "2000")
    await until(lambda: _reads_at(stack, replica, "reader:key"), "a GET arrives at the replica")

    with pytest.raises(ReplyError, match="SET failed") as refused:
        await stack.endpoint_call("reader", "SET", "reader:key", "other")

    assert refused.value.code == "NOPERM"


async def _reads_at(stack: Stack, node: RedisNode, key: str) -> bool:
    before = await _get_count(stack, node)
    assert await stack.endpoint_call("reader", "GET", key) == "value"
    return await _get_count(stack, node) == before + 1


async def _get_count(stack: Stack, node: RedisNode) -> int:
    statistics = await stack.call(node, "INFO", "commandstats")
    line = next((line for line in statistics.splitlines() if line.startswith("cmdstat_get:")), "calls=0,")
    return int(line.split("calls=")[1].split(",")[0])


async def test_a_subscriber_receives_what_primary_publishes(stack: Stack) -> None:
    async with await Connection.open(stack.address("pubsub"), stack.login("app_user"), timeout_s=5) as subscriber:
        assert await subscriber.call("SUBSCRIBE", "news") == ["subscribe", "news", 1]
        await stack.endpoint_call("primary", "PUBLISH", "news", "hello")
        assert await subscriber.next_message() == ["message", "news", "hello"]


async def test_subscribers_stay_when_nodes_come_and_go_and_new_ones_follow_the_file(stack: Stack) -> None:
    """The node of the open subscription leaves the file, so that only one that is kept open can still hear."""
    login = stack.login("app_user")
    try:
        async with await Connection.open(stack.address("pubsub"), login, timeout_s=5) as subscriber:
            first = await _reached(subscriber)
            await subscriber.call("SUBSCRIBE", "membership")
            for left in ([n for n in stack.topology.nodes if n.port != first], stack.topology.nodes[4:5]):
                await stack.place_envoy(tuple(left))
                await until(lambda left=left: _all_reach(stack, {node.port for node in left}), "the new nodes are used")
                await stack.endpoint_call("primary", "PUBLISH", "membership", f"{len(left)} nodes")
                assert await subscriber.next_message() == ["message", "membership", f"{len(left)} nodes"]
    finally:
        await stack.place_envoy(stack.topology.nodes)
    await until(lambda: _some_reach(stack, first), "a node that came back is used")


async def _reached(connection: Connection) -> int:
    """The port of the node at the other end."""
    text: str = await connection.call("INFO", "server")
    return int(next(line for line in text.splitlines() if line.startswith("tcp_port:")).partition(":")[2])


async def _reach(stack: Stack) -> int:
    login = stack.login("app_user")
    async with await Connection.open(stack.address("pubsub"), login, timeout_s=5) as connection:
        return await _reached(connection)


async def _all_reach(stack: Stack, ports: set[int]) -> bool:
    return {await _reach(stack) for _ in range(20)} <= ports


async def _some_reach(stack: Stack, port: int) -> bool:
    return port in {await _reach(stack) for _ in range(20)}


@pytest.mark.parametrize(
    ("user", "password"), [("app_user", "wrong"), ("readonly_user", "readonly-secret-Xy7"), ("default", "")]
)
@pytest.mark.parametrize("endpoint", ["primary", "primary-resp3"])
async def test_only_the_endpoints_user_gets_in(stack: Stack, endpoint: str, user: str, password: str) -> None:
    login = Login(ca_path=stack.ca_path, user=user, password=Secret(password))
    with pytest.raises(NodeError, match="failed"):
        await Connection.open(stack.address(endpoint), login, timeout_s=3, protocol=3 if "resp3" in endpoint else 2)


async def test_without_a_login_nothing_is_answered(stack: Stack) -> None:
    async with await Connection.open(stack.address("primary"), Login(ca_path=stack.ca_path), timeout_s=3) as stranger:
        with pytest.raises(ReplyError) as refused:
            await stranger.call("GET", "x")
    assert refused.value.code == "NOAUTH"


@pytest.mark.parametrize("endpoint", ["primary", "primary-resp3", "reader", "pubsub"])
async def test_plain_text_is_refused(stack: Stack, endpoint: str) -> None:
    reader, writer = await asyncio.open_connection(*stack.address(endpoint))
    writer.write(b"PING\r\n")
    try:
        async with asyncio.timeout(5):
            answer = await reader.read()
    except ConnectionResetError:
        answer = b""
    finally:
        writer.transport.abort()
    assert b"PONG" not in answer
    assert b"NOAUTH" not in answer


async def test_the_admin_port_listens_on_loopback_only(stack: Stack) -> None:
    port = f":{stack.envoy.admin_port:04X}"

    listening = [address for address in _listening_sockets() if address.endswith(port)]

    assert listening == [f"0100007F{port}"]  # 127.0.0.1 in the kernel's byte order


def _listening_sockets() -> list[str]:
    """Local addresses of every listening TCP socket, in the hexadecimal of proc(5); state 0A is LISTEN."""
    lines = [line.split() for name in ("tcp", "tcp6") for line in _proc_net(name)]
    return [fields[1] for fields in lines if fields[3] == "0A"]


def _proc_net(name: str) -> list[str]:
    return Path("/proc/net", name).read_text().splitlines()


async def test_statistics_count_each_command(stack: Stack) -> None:
    before = _upstream_gets(stack)
    await stack.endpoint_call("primary", "GET", "statistics:key")
    await until(lambda: _is_more(stack, before), "the GET is counted")


def _upstream_gets(stack: Stack) -> int:
    url = f"http://127.0.0.1:{stack.envoy.admin_port}/stats?format=json&filter=upstream_commands.get.total"
    with urllib.request.urlopen(url, timeout=5) as answer:
        stats = json.load(answer)["stats"]
    return sum(stat["value"] for stat in stats if stat.get("name", "").startswith("cluster.redis_app_user."))


async def _is_more(stack: Stack, before: int) -> bool:
    return _upstream_gets(stack) == before + 1


async def test_observe_envoy_reports_version_state_and_every_node(stack: Stack) -> None:
    clusters = redis_cluster_names(stack.topology, stack.envoy.name)
    expected = sorted((node.address, node.port) for node in stack.topology.nodes)

    async def sees_all() -> bool:
        return sorted((await observe_envoy(stack.envoy, clusters)).hosts) == expected

    await until(sees_all, "Envoy knows every node")
    facts = await observe_envoy(stack.envoy, clusters)
    assert clusters == ("redis_app_user", "redis_readonly_user_replicas")
    assert (facts.problem, facts.state) == ("", "LIVE")
    assert facts.version.count(".") == 2


async def test_observe_envoy_says_what_is_wrong() -> None:
    port = free_ports(1)[0]
    envoy = EnvoyInstance(name="e", host="h", address=ADDRESS, zone="z", admin_port=port)
    facts = await observe_envoy(envoy, ("redis_app_user",))
    assert facts.problem == f"admin port 127.0.0.1:{port}: connection refused, it does not run"

    async def never_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async def speak_something_else(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"-ERR what\r\n\r\n")
        writer.close()

    for behaviour, reason in ((never_answer, "no answer within 0.2 s"), (speak_something_else, "answered")):
        server = await asyncio.start_server(behaviour, ADDRESS, port)
        async with server:
            facts = await observe_envoy(envoy, (), timeout_s=0.2)
        assert reason in facts.problem


async def test_certificates_rotate_by_rename_and_open_connections_live_on(stack: Stack) -> None:
    async with await Connection.open(stack.address("primary"), stack.login("app_user"), timeout_s=5) as before:
        new = stack.certificates.issue(stack.envoy.name)

        async def serves_the_new_one() -> bool:
            return await _served_serial(stack, "primary") == new.serial_number

        await until(serves_the_new_one, "new connections get the new certificate")
        assert await _served_serial(stack, "pubsub") == new.serial_number
        assert await before.call("PING") == "PONG"


async def _served_serial(stack: Stack, endpoint: str) -> int:
    context = stack.login().ssl_context()
    host, port = stack.address(endpoint)
    _, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname=host)
    tls = writer.get_extra_info("ssl_object")
    assert isinstance(tls, ssl.SSLObject)
    certificate = tls.getpeercert(binary_form=True)
    writer.transport.abort()
    assert certificate is not None
    return x509.load_der_x509_certificate(certificate).serial_number


async def test_the_port_is_not_shared_with_a_second_envoy(stack: Stack, tmp_path: Path) -> None:
    folder = stack.folder / stack.envoy.name
    process = await asyncio.create_subprocess_exec(
        *envoy_argv(binary("envoy"), str(folder)),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        cwd=tmp_path,
    )
    _, errors = await process.communicate()
    assert process.returncode != 0
    assert b"Address already in use" in errors


async def test_envoy_is_live_at_once_without_any_redis(tmp_path: Path) -> None:
    stack = Stack(tmp_path)
    await stack.start_envoy()
    try:
        await until(lambda: _is_live(stack), "Envoy is live")
        facts = await observe_envoy(stack.envoy, redis_cluster_names(stack.topology, "envoy-1"))
        assert facts.problem == "knows no Redis node yet: no node has told it the topology"
    finally:
        await stack.stop()


async def _is_live(stack: Stack) -> bool:
    return (await observe_envoy(stack.envoy, ())).state == "LIVE"


async def test_connections_beyond_the_limit_are_closed_and_admin_still_answers(tmp_path: Path) -> None:
    stack = Stack(tmp_path, max_connections=3)
    await stack.start_envoy()
    held: list[Connection] = []
    try:
        await until(lambda: _is_live(stack), "Envoy is live")
        for _ in range(3):
            held.append(await Connection.open(stack.address("primary"), stack.login("app_user"), timeout_s=3))
        with pytest.raises(NodeError):
            await Connection.open(stack.address("reader"), stack.login("readonly_user"), timeout_s=3)
        assert await _is_live(stack)
        held.pop().abort()
        await until(lambda: _opens(stack), "a place is free again")
    finally:
        for connection in held:
            connection.abort()
        await stack.stop()


async def _opens(stack: Stack) -> bool:
    (await Connection.open(stack.address("primary"), stack.login("app_user"), timeout_s=3)).abort()
    return True


async def test_envoy_accepts_what_is_rendered_for_it(tmp_path: Path) -> None:
    """`envoy --mode validate` of every variation that the renderer has."""
    stack = Stack(tmp_path)
    topology = stack.topology
    stack.certificates.issue("envoy-1")
    variations = (
        topology,
        msgspec.structs.replace(topology, tls=msgspec.structs.replace(topology.tls, require_client_certificates=True)),
        msgspec.structs.replace(
            topology, nodes=tuple(msgspec.structs.replace(node, address="localhost") for node in topology.nodes)
        ),
        msgspec.structs.replace(
            topology, nodes=tuple(msgspec.structs.replace(node, address="node.test") for node in topology.nodes)
        ),
    )
    for index, variation in enumerate(variations):
        folder = tmp_path / f"unit '{index}' é"
        context = EnvoyContext(
            topology=variation,
            envoy=stack.envoy,
            folder=str(folder),
            ca_path=stack.ca_path,
            certificate_path=str(stack.certificates.folder / "envoy-1.crt"),
            key_path=str(stack.certificates.folder / "envoy-1.key"),
            credentials=CREDENTIALS,
        )
        for file in render_envoy(context):
            path = folder / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(file.text())
        argv = (*envoy_argv(binary("envoy"), str(folder)), "--mode", "validate")
        process = await asyncio.create_subprocess_exec(*argv, stderr=asyncio.subprocess.PIPE)
        _, errors = await process.communicate()
        assert process.returncode == 0, errors.decode()
