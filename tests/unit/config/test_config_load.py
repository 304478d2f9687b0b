"""redisforge.yaml, .env and the environment: precedence, placement, ports, and every kind of mistake."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from redisforge.config.load import LoadedConfig, load
from redisforge.config.problems import printable
from redisforge.errors import ConfigError, RedisForgeError, SecretError
from redisforge.model.hosts import SshAccess
from redisforge.model.topology import EndpointKind, Role, UserRole
from redisforge.runbooks.units import certificate_names

STRONG = "kX9-vuT3_qLm7Wz2"


def loaded(folder: Path, text: str | None = None, dotenv: str | None = None, **environment: str) -> LoadedConfig:
    if text is not None:
        (folder / "redisforge.yaml").write_text(text)
    if dotenv is not None:
        (folder / ".env").write_text(dotenv)
        (folder / ".env").chmod(0o600)
    return load(None, environment, folder)


def problems(folder: Path, text: str | None = None, dotenv: str | None = None, **environment: str) -> list[str]:
    with pytest.raises(RedisForgeError) as caught:
        loaded(folder, text, dotenv, **environment)
    return caught.value.why.splitlines()


# ---- what is built in ------------------------------------------------------------------------------------


def test_without_a_file_the_built_in_topology_is_used(tmp_path: Path) -> None:
    topology = loaded(tmp_path).topology
    assert (topology.name, topology.shards, topology.replicas, topology.source) == ("main", 3, 1, "")
    assert [node.name for node in topology.nodes] == [f"redis-{number}" for number in range(1, 7)]
    assert [node.port for node in topology.nodes] == list(range(7001, 7007))
    assert [node.bus_port for node in topology.nodes] == list(range(17001, 17007))
    assert [node.intended_role for node in topology.nodes].count(Role.MASTER) == 3
    assert {node.address for node in topology.nodes} == {"127.0.0.1"}
    listeners = {endpoint.name: endpoint.listeners[0].port for endpoint in topology.endpoints}
    assert listeners == {"primary": 6380, "primary-resp3": 6381, "reader": 6382, "pubsub": 6383}
    assert topology.user(UserRole.APPLICATION).name == "app_user"
    assert topology.redis.max_memory_bytes == 256 * 1024 * 1024


def test_endpoints_get_the_user_of_their_role(tmp_path: Path) -> None:
    text = "users: {readonly: {name: looker}}\nendpoints: {pubsub: {port: 7}, mine: {port: 9, protocol: RESP3}}\n"
    topology = loaded(tmp_path, text).topology
    users = {endpoint.name: endpoint.user for endpoint in topology.endpoints}
    assert users == {
        "primary": "app_user",
        "primary-resp3": "app_user",
        "reader": "looker",
        "pubsub": "app_user",
        "mine": "app_user",
    }
    pubsub, mine = topology.endpoint("pubsub"), topology.endpoint("mine")
    assert pubsub is not None
    assert mine is not None
    assert (pubsub.kind, pubsub.listeners[0].port, mine.protocol) == (EndpointKind.PUBSUB, 7, "RESP3")


def test_a_default_endpoint_can_be_switched_off(tmp_path: Path) -> None:
    topology = loaded(tmp_path, "endpoints: {primary-resp3: null, reader: ~}\n").topology
    assert [endpoint.name for endpoint in topology.endpoints] == ["primary", "pubsub"]


def test_sections_without_content_keep_their_defaults(tmp_path: Path) -> None:
    text = "memory:\nenvoy:\nendpoints:\nusers:\nredis_conf:\ntls:\nports:\n"
    assert loaded(tmp_path, text).topology.nodes == load(None, {}, tmp_path / "elsewhere").topology.nodes


def test_words_are_read_as_they_are_written(tmp_path: Path) -> None:
    text = "engine: {version: 8.0}\npersistence: {fsync: no}\nhosts: [{name: 1, address: localhost, zone: no}]\n"
    topology = loaded(tmp_path, text + "placement: {allow_shared_hosts: true}\n").topology
    assert topology.engine.version == "8.0"
    assert topology.redis.persistence.fsync == "no"
    assert (topology.hosts[0].name, topology.hosts[0].address, topology.hosts[0].zone) == ("1", "127.0.0.1", "no")


def test_directives_keep_their_spelling_and_order(tmp_path: Path) -> None:
    text = """\
redis_conf:
  Maxmemory-Samples: 10
  active-expire-effort: 1
  notify-keyspace-events: ""
  lazyfree-lazy-expire: true
  client-output-buffer-limit: ["normal 0 0 0", "pubsub 32mb 8mb 60"]
"""
    assert loaded(tmp_path, text).topology.redis.directives == (
        ("maxmemory-samples", "10"),
        ("active-expire-effort", "1"),
        ("notify-keyspace-events", '""'),
        ("lazyfree-lazy-expire", "yes"),
        ("client-output-buffer-limit", "normal 0 0 0"),
        ("client-output-buffer-limit", "pubsub 32mb 8mb 60"),
    )


def test_relative_paths_start_at_the_folder_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    text = "engine: {server_path: bin/redis-server}\ntls: {ca_file: ca.crt, cert_file: /etc/c.crt, key_file: k}\n"
    (tmp_path / "sub" / "x.yaml").write_text(text)
    topology = load(Path("sub/x.yaml"), {}, tmp_path).topology
    assert topology.engine.server_path == str(tmp_path / "sub" / "bin" / "redis-server")
    assert topology.tls.ca_path == str(tmp_path / "sub" / "ca.crt")
    assert topology.tls.certificate_path == "/etc/c.crt"
    assert topology.source == str(tmp_path / "sub" / "x.yaml")


# ---- hosts, Envoys and ports -----------------------------------------------------------------------------

THREE_HOSTS = """\
hosts:
  - {name: a, address: 127.0.0.11, zone: z1}
  - {name: b, address: 127.0.0.12, zone: z2}
  - {name: c, address: 127.0.0.13, zone: z1}
"""


def test_ports_count_up_on_each_address(tmp_path: Path) -> None:
    nodes = loaded(tmp_path, THREE_HOSTS + "replicas: 1\n").topology.nodes
    by_address: dict[str, list[int]] = {}
    for node in nodes:
        by_address.setdefault(node.address, []).append(node.port)
    assert sorted(by_address) == ["127.0.0.11", "127.0.0.12", "127.0.0.13"]
    assert all(ports == list(range(7001, 7001 + len(ports))) for ports in by_address.values())


def test_envoys_go_to_the_zones_in_turn(tmp_path: Path) -> None:
    topology = loaded(tmp_path, THREE_HOSTS + "envoy: {instances: 5}\n").topology
    assert [envoy.host for envoy in topology.envoys] == ["a", "b", "c", "b", "a"]
    primary = topology.endpoint("primary")
    assert primary is not None
    assert [listener.port for listener in primary.listeners] == [6380, 6380, 6380, 6480, 6480]
    admin_ports = [envoy.admin_port for envoy in topology.envoys]
    assert admin_ports == [9901, 10001, 10101, 10201, 10301], "all admin interfaces share 127.0.0.1"


def test_hosts_of_one_address_are_one_machine_and_that_is_said(tmp_path: Path) -> None:
    text = "hosts: [{name: a, address: 127.0.0.1}, {name: b, address: localhost}]\nreplicas: 0\n"
    found = loaded(tmp_path, text)
    assert found.notices == ("hosts a and b have one address and count as one machine",)


# ---- mistakes: the exact line, the option, what is wrong -------------------------------------------------

MISTAKES = {
    "unknown key": ("name: x\nshard: 3\n", ["redisforge.yaml:2: shard: is not an option. Did you mean shards?"]),
    "unknown key in a section": (
        "memory:\n  max: 1gb\n  polcy: noeviction\n",
        ["redisforge.yaml:3: memory.polcy: is not an option. Did you mean policy?"],
    ),
    "unknown key of a host": (
        "hosts:\n  - name: a\n    address: 127.0.0.1\n    zon: x\nreplicas: 0\n",
        ["redisforge.yaml:4: hosts[0].zon: is not an option. Did you mean zone?"],
    ),
    "a password in the file": (
        "users:\n  application:\n    name: app\n    password: hunter2hunter2\n",
        [
            "redisforge.yaml:4: users.application.password: is not an option. Passwords do not belong into this "
            "file: put them into .env, for example REDIS_ACL_PASS=... (docs/reference/env.md has the names)."
        ],
    ),
    "fewer than three masters": (
        "# two\nshards: 2\n",
        [
            "redisforge.yaml:2: shards: must be at least 3 (got 2). A failover needs the votes of a majority of "
            "masters, so a cluster needs three of them."
        ],
    ),
    "text for a number": (
        'replicas: "1"\n',
        ['redisforge.yaml:1: replicas: must be a whole number (got "1"). The default is 1.'],
    ),
    "a number for text": ("name: 3\n", ['redisforge.yaml:1: name: must be text (got 3). The default is "main".']),
    "a fraction for a whole number": (
        "max_clients: 100.5\n",
        ["redisforge.yaml:1: max_clients: must be a whole number (got 100.5). The default is 10000."],
    ),
    "yes for true": (
        "tls:\n  require_client_certificates: yes\n",
        [
            'redisforge.yaml:2: tls.require_client_certificates: must be true or false (got "yes"). '
            "The default is false."
        ],
    ),
    "a list for a section": ("memory: [1]\n", ["redisforge.yaml:1: memory: must be a section with keys (got a list)"]),
    "a section for a list": (
        "replicas: 0\nhosts: {}\n",
        [
            "redisforge.yaml:2: hosts: must be a list (got a section). "
            "List hosts as `- {name: a, address: 127.0.0.1}`, or remove it to use this machine."
        ],
    ),
    "no hosts": (
        "hosts: []\n",
        [
            "redisforge.yaml:1: hosts: must have at least 1 entries (got 0). "
            "List hosts as `- {name: a, address: 127.0.0.1}`, or remove it to use this machine."
        ],
    ),
    "a word that is none of the choices": (
        "memory:\n  policy: all-keys-lru\n",
        [
            "redisforge.yaml:2: memory.policy: must be one of noeviction, allkeys-lru, allkeys-lfu, allkeys-lrm, "
            "allkeys-random, volatile-lru, volatile-lfu, volatile-lrm, volatile-random, volatile-ttl "
            '(got "all-keys-lru"). Did you mean allkeys-lru?'
        ],
    ),
    "too little memory": ("memory: {max: 8mb}\n", ['redisforge.yaml:1: memory.max: must be at least 16mb (got "8mb")']),
    "a host by its name": (
        "replicas: 0\nhosts:\n  - name: a\n    address: db1.example.com\n",
        [
            "redisforge.yaml:4: hosts[0].address: must be an IP address: nodes and clients go by addresses, not by "
            'names (got "db1.example.com")'
        ],
    ),
    "a loopback address among others": (
        "replicas: 0\nhosts:\n  - {name: a, address: 127.0.0.1}\n  - {name: b, address: 10.0.0.2}\n",
        [
            "redisforge.yaml:2: hosts: the other hosts cannot reach a at a loopback address. "
            "Give every host an address at which the others reach it."
        ],
    ),
    "two remote hosts with one address": (
        "replicas: 0\nhosts:\n  - {name: a, address: 10.0.0.2}\n  - {name: b, address: 10.0.0.2}\n",
        [
            "redisforge.yaml:4: hosts[1].address: a and b have one address, so one of them would be taken for the "
            "other. Give each its own; one machine is one host."
        ],
    ),
    "two hosts at one SSH address": (
        "replicas: 0\nhosts:\n  - {name: a, address: 10.0.0.2}\n"
        "  - {name: b, address: 10.0.0.3, ssh_address: 10.0.0.2, ssh_port: 22}\n",
        [
            "redisforge.yaml:4: hosts[1].ssh_address: a and b are reached at one SSH address, so both would be the "
            "same machine. Give each its own, or, if that is meant, each a folder of its own."
        ],
    ),
    "a way to this machine": (
        "replicas: 0\nhosts:\n  - {name: a, address: 127.0.0.1, ssh_user: deploy}\n",
        [
            "redisforge.yaml:3: hosts[0].ssh_user: a is this machine, which is not reached over SSH and has no folder "
            "of its own. Leave that out, or set ssh: true."
        ],
    ),
    "an option in the place of a jump host": (
        "replicas: 0\nhosts:\n  - {name: a, address: 10.0.0.1, ssh_jump: -oProxyCommand=x}\n",
        [
            "redisforge.yaml:3: hosts[0].ssh_jump: must be letters, digits and any of . _ : @ % + [ ] - "
            '(got "-oProxyCommand=x")'
        ],
    ),
    "two hosts of one name": (
        "hosts:\n  - {name: a, address: 127.0.0.1}\n  - {name: a, address: 127.0.0.2}\n",
        [
            "redisforge.yaml:3: hosts[1].name: there are two hosts called a (also hosts[0]). "
            "Give every host a name of its own."
        ],
    ),
    "replicas without hosts for them": (
        "hosts: [{name: a, address: 127.0.0.1}, {name: b, address: 127.0.0.2}]\nreplicas: 2\n",
        [
            "redisforge.yaml:2: replicas: a master and its 2 replicas need 3 hosts, and there are 2. Add hosts, "
            "ask for fewer replicas, or set placement.allow_shared_hosts: true (one lost host may then take a "
            "shard with it)."
        ],
    ),
    "sharing forbidden on one machine": (
        "placement: {allow_shared_hosts: false}\n",
        [
            "redisforge.yaml:1: placement.allow_shared_hosts: a master and its 1 replica need 2 hosts, and there "
            "are 1. Add hosts, ask for fewer replicas, or set placement.allow_shared_hosts: true (one lost host "
            "may then take a shard with it)."
        ],
    ),
    "a node's port is an endpoint's": (
        "name: x\nports: {redis: 6378}\n",
        [
            "redisforge.yaml:2: ports.redis: port 6380 on 127.0.0.1 is wanted twice: by node redis-3 and by "
            "endpoint primary of envoy-1. Move one of them to a free port.",
            "redisforge.yaml:2: ports.redis: port 6381 on 127.0.0.1 is wanted twice: by node redis-4 and by "
            "endpoint primary-resp3 of envoy-1. Move one of them to a free port.",
            "redisforge.yaml:2: ports.redis: port 6382 on 127.0.0.1 is wanted twice: by node redis-5 and by "
            "endpoint reader of envoy-1. Move one of them to a free port.",
            "redisforge.yaml:2: ports.redis: port 6383 on 127.0.0.1 is wanted twice: by node redis-6 and by "
            "endpoint pubsub of envoy-1. Move one of them to a free port.",
        ],
    ),
    "a bus port is a node's": (
        "ports:\n  bus_offset: 5\n",
        [
            "redisforge.yaml:2: ports.bus_offset: port 7006 on 127.0.0.1 is wanted twice: by node redis-6 and by "
            "the bus of node redis-1. Move one of them to a free port."
        ],
    ),
    "two endpoints of one port": (
        "endpoints:\n  reader: {port: 6380}\n",
        [
            "redisforge.yaml:2: endpoints.reader.port: port 6380 on 127.0.0.1 is wanted twice: by endpoint primary "
            "of envoy-1 and by endpoint reader of envoy-1. Move one of them to a free port."
        ],
    ),
    "the admin port is an endpoint's": (
        "envoy:\n  admin_port: 6383\n",
        [
            "redisforge.yaml:2: envoy.admin_port: port 6383 on 127.0.0.1 is wanted twice: by endpoint pubsub of "
            "envoy-1 and by the admin interface of envoy-1. Move one of them to a free port."
        ],
    ),
    "a bus port above 65535": (
        "ports:\n  redis: 60000\n",
        [
            "redisforge.yaml:2: ports.redis: the bus of node redis-6 would get port 70005, above 65535. "
            "Start lower, or lower ports.bus_offset."
        ],
    ),
    "a port out of range": (
        "endpoints: {primary: {port: 70000}}\n",
        ["redisforge.yaml:1: endpoints.primary.port: must be at most 65535 (got 70000)"],
    ),
    "an endpoint without a port": (
        "endpoints:\n  mine: {protocol: RESP3}\n",
        ["redisforge.yaml:2: endpoints.mine.port: is missing. Add it."],
    ),
    "no primary": (
        "endpoints: {primary: null}\n",
        [
            "redisforge.yaml:1: endpoints.primary: must be a section with keys (got nothing). It cannot be switched "
            "off: it is the endpoint that every client can use."
        ],
    ),
    "a bad endpoint name": (
        "endpoints: {Über: {port: 1}}\n",
        ['redisforge.yaml:1: endpoints.Über: must be at most 31 lower-case letters, digits and hyphens (got "Über")'],
    ),
    "an unknown directive": (
        "redis_conf:\n  maxmemory-sample: 5\n",
        [
            "redisforge.yaml:2: redis_conf.maxmemory-sample: is not a directive of redis newest. "
            "Did you mean maxmemory-samples?"
        ],
    ),
    "a directive of a newer engine": (
        'engine: {version: "7.0"}\nredis_conf:\n  cluster-slot-stats-enabled: yes\n',
        ["redisforge.yaml:3: redis_conf.cluster-slot-stats-enabled: is not a directive of redis 7.0. Remove it."],
    ),
    "a directive that RedisForge writes": (
        "redis_conf:\n  PORT: 1\n  tls-ciphers: x\n",
        [
            "redisforge.yaml:2: redis_conf.PORT: is written by RedisForge itself. Use ports.redis instead.",
            "redisforge.yaml:3: redis_conf.tls-ciphers: is written by RedisForge itself. Use tls instead.",
        ],
    ),
    "a directive in two spellings": (
        "redis_conf:\n  hz: 10\n  HZ: 20\n",
        ["redisforge.yaml:3: redis_conf.HZ: is there twice, in different spellings. Keep one of the two."],
    ),
    "a line break in a directive": (
        'redis_conf:\n  hz: "10\\nport 1"\n',
        [
            "redisforge.yaml:2: redis_conf.hz: must be one line without control characters, at most 4096 characters "
            '(got "10\\nport 1")'
        ],
    ),
    "an open quote in a directive": (
        "redis_conf:\n  hz: '\"10'\n",
        [
            "redisforge.yaml:2: redis_conf.hz: has a quote that is not closed, or text right after a closing quote "
            '(got ""10")'
        ],
    ),
    "an engine that is too old": (
        'engine: {version: "6.2"}\n',
        [
            "redisforge.yaml:1: engine.version: redis 6.2 is older than 7.0, the oldest that RedisForge works with. "
            'Ask for ">=7.0" or "newest".'
        ],
    ),
    "a policy of a newer engine": (
        "engine: {version: '8.0'}\nmemory: {policy: allkeys-lrm}\n",
        [
            "redisforge.yaml:2: memory.policy: allkeys-lrm needs Redis 8.6, and engine asks for redis 8.0. "
            "Use allkeys-lru, or a newer engine."
        ],
    ),
    "half of the certificate files": (
        "tls:\n  cert_file: c\n  key_file: k\n",
        ["redisforge.yaml:2: tls.cert_file: ca_file must be given too. Give all three files, or none."],
    ),
    "one user for two roles": (
        "users:\n  monitor: {name: app_user}\n",
        [
            "redisforge.yaml:2: users.monitor.name: app_user is also the application user. "
            "Every role needs a user of its own."
        ],
    ),
    "the user default": (
        "users: {application: {name: default}}\n",
        [
            "redisforge.yaml:1: users.application.name: the user default is switched off in every node. "
            "Choose another name."
        ],
    ),
    "replicas preferred for pubsub": (
        "endpoints: {pubsub: {prefer_replicas: true}}\n",
        [
            "redisforge.yaml:1: endpoints.pubsub.prefer_replicas: has no effect on an endpoint of kind pubsub. "
            "Remove it."
        ],
    ),
    "a key twice": (
        "shards: 3\nshards: 4\n",
        ["redisforge.yaml:2: the key shards is there twice (first on line 1). Keep one of the two."],
    ),
    "not YAML": (
        "name: x\nshards: [3\nreplicas: 1\n",
        [
            "redisforge.yaml:3: is not YAML: while parsing a flow sequence, expected ',' or ']', but got ':'. "
            "Check the indentation, the colons and the quotes of this line and the one before it."
        ],
    ),
    "a tab": (
        "memory:\n\tmax: 1gb\n",
        [
            "redisforge.yaml:2: is not YAML: while scanning for the next token, found character '\\t' that cannot "
            "start any token. Indent with spaces, not tabs."
        ],
    ),
    "a list": (
        "- a\n- b\n",
        [
            "redisforge.yaml:1: must hold options, one `key: value` on a line. Write a commented example with: "
            "redisforge init. Without the file the built-in topology is used."
        ],
    ),
    "only comments": (
        "# nothing\n",
        [
            "redisforge.yaml: is empty: it declares nothing. Write a commented example with: redisforge init. "
            "Without the file the built-in topology is used."
        ],
    ),
    "empty": (
        "",
        [
            "redisforge.yaml: is empty: it declares nothing. Write a commented example with: redisforge init. "
            "Without the file the built-in topology is used."
        ],
    ),
    "two documents": (
        "name: a\n---\nname: b\n",
        ["redisforge.yaml:2: holds more than one document. Keep one, without a '---' after it."],
    ),
    "a tag": (
        "name: !!python/object:os.system x\n",
        ["redisforge.yaml:1: YAML tags (!...) are not supported. Put text with a '!' in quotes."],
    ),
}


@pytest.mark.parametrize(("text", "expected"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_named_with_its_line(tmp_path: Path, text: str, expected: list[str]) -> None:
    assert problems(tmp_path, text) == expected


def test_all_mistakes_are_shown_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = "shards: 2\nreplica: 1\nports: {redis: 60000}\nmemory: {policy: lru}\nusers: {monitor: {name: app_user}}\n"
    found = problems(tmp_path, text, "REDIS_IO_THREADS=many\n", REDIS_ACL_PASS="short")
    starts = [problem.split(": ")[0:2] for problem in found]
    assert starts == [
        [".env:1", "REDIS_IO_THREADS"],
        ["environment", "REDIS_ACL_PASS"],
        ["redisforge.yaml:1", "shards"],
        ["redisforge.yaml:2", "replica"],
        ["redisforge.yaml:3", "ports.redis"],
        ["redisforge.yaml:4", "memory.policy"],
        ["redisforge.yaml:5", "users.monitor.name"],
    ]


def test_a_file_of_nothing_but_mistakes_is_cut_short(tmp_path: Path) -> None:
    found = problems(tmp_path, "".join(f"key{number}: 1\n" for number in range(3000)))
    assert len(found) == 41
    assert found[-1].startswith("... and at least ")


@pytest.mark.parametrize("content", [b"\xff\xfea\x00", b"name: \x80x", bytes(range(256)), b"a: \x00"])
def test_what_is_not_text_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "redisforge.yaml").write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load(None, {}, tmp_path)
    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].startswith("redisforge.yaml:")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "huge").write_bytes(b"#" * 1_000_000)
    (tmp_path / "loop").symlink_to("loop")
    endings = {
        "nope": "does not exist. Write a commented example with: redisforge init. Without the file the "
        "built-in topology is used.",
        "folder": "is a folder, not a file",
        "pipe": "is not a regular file",
        "huge": "is larger than 256 KiB. Is it really a redisforge.yaml?",
        "loop": "cannot be read: Too many levels of symbolic links",
        "\0": "cannot be read: embedded null byte",
    }
    for name, ending in endings.items():
        with pytest.raises(ConfigError) as caught:
            load(Path(name), {}, tmp_path)
        assert caught.value.problems == (f"{printable(name)}: {ending}",)


def test_a_folder_called_redisforge_yaml_is_no_declaration(tmp_path: Path) -> None:
    (tmp_path / "redisforge.yaml").mkdir()
    assert problems(tmp_path) == ["redisforge.yaml: is a folder, not a file"]


def test_the_hand_off_is_on_and_can_be_switched_off(tmp_path: Path) -> None:
    assert loaded(tmp_path).topology.handoff.enabled is True
    handoff = loaded(tmp_path, "handoff: false\nhandoff_max_lag_bytes: 0\n").topology.handoff
    assert (handoff.enabled, handoff.max_lag_bytes) == (False, 0)
    found = problems(tmp_path, "handoff: maybe\nhandoff_max_lag_bytes: -1\n")
    assert len(found) == 2
    assert "handoff" in found[0]
    assert "handoff_max_lag_bytes" in found[1]


# ---- .env and the environment ----------------------------------------------------------------------------

CONVENTION = f"""\
# Redis
REDIS_VERSION=8.2
REDIS_PORT=6379
REDIS_REQUIREPASS={STRONG}a
REDIS_ACL_USER=app_user
REDIS_ACL_PASS={STRONG}b
REDIS_READONLY_USER=readonly_user
REDIS_READONLY_PASS={STRONG}c
REDIS_MONITOR_USER=monitor_user
REDIS_MONITOR_PASS={STRONG}d
REDIS_REPLICATION_USER=replication_user
REDIS_REPLICATION_PASS={STRONG}e
REDIS_AOF_ENABLED=yes
REDIS_APPEND_FSYNC=everysec
REDIS_MAXMEMORY=2gb
REDIS_MAXMEMORY_POLICY=allkeys-lru
REDIS_LOGLEVEL=notice
REPLICAS_PER_MASTER=1
REDIS_IO_THREADS=4
REDIS_TCP_BACKLOG=511
REDIS_MAX_CLIENTS=10000
REDIS_CLUSTER_NODE_TIMEOUT=15000
REDIS_CLUSTER_ANNOUNCE_IP=
REDIS_MASTER_1_HOST=10.0.0.1
REDIS_EXPORTER_PORT=9121
BACKUP_RETENTION_DAYS=7
LOG_LEVEL=info
# Envoy
ENVOY_VERSION=v1.32-latest
ENVOY_ADMIN_PORT=9901
ENVOY_LISTENER_PORT=6379
ENVOY_CLUSTER_REFRESH_SECONDS=5
ENVOY_MAX_CONNECTIONS=20000
ENVOY_MAX_PENDING_REQUESTS=5000
ENVOY_RETRY_ATTEMPTS=3
"""


def test_a_file_of_the_convention_works_unchanged(tmp_path: Path) -> None:
    found = loaded(tmp_path, dotenv=CONVENTION)
    topology = found.topology
    primary = topology.endpoint("primary")
    assert primary is not None
    assert primary.listeners[0].port == 6379, "the endpoint keeps its port"
    assert topology.nodes[0].port == 7001, "the nodes fall back to theirs"
    assert [notice for notice in found.notices if "REDIS_PORT=6379 is not used" in notice]
    assert "REDIS_PORT" not in {used.name for used in found.used_environment}
    assert (topology.engine.version, topology.envoy.version) == (">=8.2", ">=1.32")
    assert topology.redis.max_memory_bytes == 2 * 1024**3
    assert (topology.redis.io_threads, topology.redis.node_timeout_ms) == (4, 15000)
    assert (topology.envoy.refresh_s, topology.envoy.max_connections) == (5.0, 20000)
    assert {name: secret.reveal()[-1] for name, secret in found.passwords.items()} == {
        "operator_user": "a",
        "app_user": "b",
        "readonly_user": "c",
        "monitor_user": "d",
        "replication_user": "e",
    }
    assert STRONG not in repr(found)


def test_the_environment_wins_over_dotenv_and_that_over_the_file(tmp_path: Path) -> None:
    text, dotenv = "replicas: 0\nio_threads: 2\ntcp_backlog: 3\n", "REDIS_IO_THREADS=4\nREDIS_TCP_BACKLOG=5\n"
    found = loaded(tmp_path, text, dotenv, REDIS_TCP_BACKLOG="6")
    redis = found.topology.redis
    assert (found.topology.replicas, redis.io_threads, redis.tcp_backlog) == (0, 4, 6)
    used = {(variable.name, variable.where, variable.sets) for variable in found.used_environment}
    assert used == {
        ("REDIS_IO_THREADS", ".env:1", "io_threads"),
        ("REDIS_TCP_BACKLOG", "environment", "tcp_backlog"),
    }


def test_dotenv_lies_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "x.yaml").write_text("name: x\n")
    (tmp_path / "sub" / ".env").write_text("REDIS_IO_THREADS=4\n")
    (tmp_path / ".env").write_text("REDIS_IO_THREADS=5\n")
    assert load(Path("sub/x.yaml"), {}, tmp_path).topology.redis.io_threads == 4
    assert load(None, {}, tmp_path).topology.redis.io_threads == 5


def test_a_renamed_user_gets_its_password(tmp_path: Path) -> None:
    found = loaded(tmp_path, dotenv=f"REDIS_ACL_USER=shop\nREDIS_ACL_PASS={STRONG}\n")
    assert {name: secret.reveal() for name, secret in found.passwords.items()} == {"shop": STRONG}


def test_redis_port_alone_is_used_where_it_fits(tmp_path: Path) -> None:
    assert loaded(tmp_path, REDIS_PORT="7100").topology.nodes[-1].port == 7105


def test_redis_port_gives_way_to_the_ports_of_the_file(tmp_path: Path) -> None:
    found = loaded(tmp_path, "ports: {redis: 7200}\n", "REDIS_PORT=6379\nENVOY_LISTENER_PORT=6379\n")
    assert found.topology.nodes[0].port == 7200


def test_the_listener_port_pushes_a_default_endpoint_aside(tmp_path: Path) -> None:
    found = loaded(tmp_path, ENVOY_LISTENER_PORT="6382")
    ports = {endpoint.name: endpoint.listeners[0].port for endpoint in found.topology.endpoints}
    assert ports == {"primary": 6382, "primary-resp3": 6381, "reader": 6380, "pubsub": 6383}
    assert len(found.notices) == 1


def test_append_only_off_does_not_switch_snapshots_on(tmp_path: Path) -> None:
    assert loaded(tmp_path, REDIS_AOF_ENABLED="no").topology.redis.persistence.mode == "rdb"
    text = "persistence: {mode: none}\n"
    assert loaded(tmp_path, text, REDIS_AOF_ENABLED="no").topology.redis.persistence.mode == "none"
    assert loaded(tmp_path, text, REDIS_AOF_ENABLED="yes").topology.redis.persistence.mode == "aof"


BAD_VARIABLES = {
    "a container platform": (
        {"REDIS_PORT": "tcp://10.0.0.1:6379"},
        'environment: REDIS_PORT: must be a whole number (got "tcp://10.0.0.1:6379"). A container platform sets it '
        "for a service of this name: unset REDIS_PORT.",
    ),
    "out of bounds": (
        {"REDIS_PORT": "99999"},
        "environment: REDIS_PORT (ports.redis): must be at most 65535 (got 99999). The default is 7001.",
    ),
    "not a number": (
        {"ENVOY_CLUSTER_REFRESH_SECONDS": "1s"},
        'environment: ENVOY_CLUSTER_REFRESH_SECONDS: must be a number (got "1s"). Correct it or unset '
        "ENVOY_CLUSTER_REFRESH_SECONDS.",
    ),
    "not yes or no": (
        {"REDIS_AOF_ENABLED": "perhaps"},
        'environment: REDIS_AOF_ENABLED: must be yes or no (got "perhaps"). Correct it or unset REDIS_AOF_ENABLED.',
    ),
    "a bus port too high": (
        {"REDIS_PORT": "60000"},
        "environment: REDIS_PORT (ports.redis): the bus of node redis-6 would get port 70005, above 65535. "
        "Start lower, or lower ports.bus_offset.",
    ),
    "a version": (
        {"REDIS_VERSION": "eight"},
        'environment: REDIS_VERSION: must be a version such as "8.2" or "v1.32-latest" (got "eight"). '
        "Correct it or unset REDIS_VERSION.",
    ),
}


@pytest.mark.parametrize(("environment", "expected"), BAD_VARIABLES.values(), ids=BAD_VARIABLES.keys())
def test_a_bad_variable_is_named_with_its_origin(tmp_path: Path, environment: dict[str, str], expected: str) -> None:
    assert problems(tmp_path, **environment) == [expected]


def test_a_bad_line_of_dotenv_is_named(tmp_path: Path) -> None:
    found = problems(tmp_path, dotenv="# x\nwhat is this\nREDIS_IO_THREADS=0\nA='open\n")
    assert found == [
        ".env:2: is not NAME=value",
        ".env:4: A: the quote is not closed",
        ".env:3: REDIS_IO_THREADS (io_threads): must be at least 1 (got 0). The default is 1.",
    ]


@pytest.mark.parametrize(
    ("password", "reason"),
    [
        ("", "is empty"),
        ("CHANGE_ME_please_now_9", "is a placeholder"),
        ("short1!", "has 7 characters, fewer than 12"),
        ("abababababababab", "has fewer than 6 different characters"),
        ("Redis-Password-123", "is made of common words"),
        ("${FROM_VAULT}", "is a reference to another variable, and those are not expanded here"),
    ],
)
def test_weak_passwords_are_an_error_of_their_own(tmp_path: Path, password: str, reason: str) -> None:
    (tmp_path / ".env").write_text(f"\nREDIS_ACL_PASS='{password}'\n")
    with pytest.raises(SecretError) as caught:
        load(None, {}, tmp_path)
    assert caught.value.why == f".env:2: REDIS_ACL_PASS: {reason}. Give a longer, random one."
    assert not password or password not in str(caught.value)


def test_a_weak_password_beside_another_mistake_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "redisforge.yaml").write_text("shards: 1\n")
    with pytest.raises(ConfigError) as caught:
        load(None, {"REDIS_ACL_PASS": "x"}, tmp_path)
    assert len(caught.value.problems) == 2


def test_a_dotenv_that_others_can_read_is_noticed(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"REDIS_ACL_PASS={STRONG}\n")
    (tmp_path / ".env").chmod(0o644)
    assert load(None, {}, tmp_path).notices == (
        ".env holds passwords and others can read it (mode 0644): chmod 600 .env",
    )


def test_a_host_listens_on_its_address_and_is_known_by_the_one_that_it_announces(tmp_path: Path) -> None:
    text = """
replicas: 0
hosts:
  - {name: a, address: 10.0.0.1, announce_address: 203.0.113.1, labels: {rack: 7, provider: "north east"}}
  - {name: b, address: 10.0.0.1, announce_address: 203.0.113.2}
  - {name: c, address: 10.0.0.3}
"""
    topology = loaded(tmp_path, text).topology
    first, second, third = topology.hosts
    assert (first.address, first.bind_address) == ("203.0.113.1", "10.0.0.1")
    assert (second.address, second.bind_address) == ("203.0.113.2", "10.0.0.1")
    assert (third.address, third.bind_address) == ("10.0.0.3", "")
    assert first.labels == (("provider", "north east"), ("rack", "7"))
    assert {node.address for node in topology.nodes} == {"203.0.113.1", "203.0.113.2", "10.0.0.3"}
    assert {topology.listens_on(node) for node in topology.nodes} == {"10.0.0.1", "10.0.0.3"}


def test_in_a_network_of_its_own_a_node_is_asked_on_loopback(tmp_path: Path) -> None:
    text = """
replicas: 0
docker: {network: bridge}
hosts:
  - {name: a, address: 10.0.0.1, runtime: docker}
  - {name: b, address: 10.0.0.2, announce_address: 203.0.113.2, runtime: docker}
  - {name: c, address: 10.0.0.3, announce_address: 203.0.113.3}
"""
    topology = loaded(tmp_path, text).topology
    seen = [(node.address, topology.listens_on(node), topology.asked_at(node)) for node in topology.nodes]
    assert seen == [
        ("10.0.0.1", "10.0.0.1", "127.0.0.1"),
        ("203.0.113.2", "10.0.0.2", "127.0.0.1"),
        ("203.0.113.3", "10.0.0.3", "10.0.0.3"),
    ]
    assert certificate_names(topology)["redis-2"] == ("203.0.113.2", "127.0.0.1", "b")
    assert certificate_names(topology)["redis-3"] == ("203.0.113.3", "10.0.0.3", "c")


def test_a_bridge_cannot_be_used_on_a_loopback_address(tmp_path: Path) -> None:
    text = """
replicas: 0
docker: {network: bridge}
hosts:
  - {name: a, address: 127.0.0.2, runtime: docker}
"""
    found = problems(tmp_path, text)
    assert len(found) == 1
    assert "cannot reach a at a loopback address. Give the host an address of a network" in found[0]


def test_hosts_are_reached_over_ssh_unless_they_are_this_machine(tmp_path: Path) -> None:
    text = """
replicas: 0
hosts:
  - {name: a, address: 10.0.0.1}
  - {name: b, address: 10.0.0.2, ssh: false}
  - {name: c, address: 10.0.0.3, ssh_port: 2222, ssh_user: deploy, ssh_key: keys/id, ssh_jump: "me@gate:22",
     folder: /srv/rf}
"""
    a, b, c = loaded(tmp_path, text).topology.hosts
    assert (a.ssh, a.folder) == (SshAccess(), "/var/lib/redisforge")
    assert (b.ssh, b.folder) == (None, "")
    assert c.folder == "/srv/rf"
    assert c.ssh == SshAccess(port=2222, user="deploy", key_path=str(tmp_path / "keys/id"), jump="me@gate:22")
