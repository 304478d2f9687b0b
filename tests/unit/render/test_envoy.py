"""What envoy.yaml says, read back through a YAML parser, and what it must never say."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from redisforge.errors import BinaryError
from redisforge.model.secret import Secret
from redisforge.model.topology import (
    Credentials,
    Endpoint,
    EndpointKind,
    Engine,
    EnvoyInstance,
    EnvoySettings,
    Listener,
    Persistence,
    RedisNode,
    RedisSettings,
    Role,
    TlsSettings,
    Topology,
)
from redisforge.model.unit import Unit, UnitFile
from redisforge.render.commented_yaml import Noted, quote, to_yaml
from redisforge.render.envoy import EnvoyContext, envoy_argv, redis_cluster_names, render_envoy

PASSWORDS = {"app_user": Secret("app-password-1"), "readonly_user": Secret("readonly-password-2")}


def endpoint(name: str, port: int, **changes: Any) -> Endpoint:
    values: dict[str, Any] = {
        "name": name,
        "kind": EndpointKind.COMMANDS,
        "protocol": "RESP2",
        "user": "app_user",
        "prefer_replicas": False,
        "listeners": (
            Listener(envoy="envoy-1", address="127.0.0.1", port=port),
            Listener(envoy="envoy-2", address="127.0.0.1", port=port + 100),
        ),
    }
    return Endpoint(**{**values, **changes})


def topology(**changes: Any) -> Topology:
    nodes = tuple(
        RedisNode(
            name=f"redis-{index + 1}",
            host="local",
            address="127.0.0.1",
            zone="local",
            port=7001 + index,
            bus_port=17001 + index,
            shard=index % 3,
            intended_role=Role.MASTER if index < 3 else Role.REPLICA,
        )
        for index in range(6)
    )
    base = Topology(
        name="main",
        engine=Engine(),
        shards=3,
        replicas=1,
        hosts=(),
        nodes=nodes,
        envoys=tuple(
            EnvoyInstance(
                name=f"envoy-{index + 1}",
                host="local",
                address="127.0.0.1",
                zone="zone-a",
                admin_port=9901 + index * 100,
            )
            for index in range(2)
        ),
        endpoints=(
            endpoint("primary", 6380),
            endpoint("primary-resp3", 6381, protocol="RESP3"),
            endpoint("reader", 6382, user="readonly_user", prefer_replicas=True),
            endpoint("pubsub", 6383, kind=EndpointKind.PUBSUB),
        ),
        users=(),
        redis=RedisSettings(
            max_memory_bytes=1 << 30,
            max_memory_policy="noeviction",
            persistence=Persistence(),
            node_timeout_ms=5000,
            max_clients=10000,
            tcp_backlog=511,
            io_threads=1,
            log_level="notice",
        ),
        envoy=EnvoySettings(
            version="",
            path="",
            max_connections=1234,
            max_pending_requests=567,
            refresh_s=1.5,
            operation_timeout_ms=2500,
            connect_timeout_ms=1500,
        ),
        tls=TlsSettings(
            ca_path="",
            certificate_path="",
            key_path="",
            validity_days=825,
            extra_names=(),
            require_client_certificates=False,
        ),
    )
    return msgspec.structs.replace(base, **changes)


def context(declared: Topology | None = None, **changes: Any) -> EnvoyContext:
    values: dict[str, Any] = {
        "topology": declared or topology(),
        "envoy": (declared or topology()).envoys[0],
        "folder": "/state/units/envoy-1",
        "ca_path": "/state/tls/ca.crt",
        "certificate_path": "/state/tls/envoy-1.crt",
        "key_path": "/state/tls/envoy-1.key",
        "credentials": Credentials(PASSWORDS),
    }
    return EnvoyContext(**{**values, **changes})


def rendered(ctx: EnvoyContext) -> dict[str, UnitFile]:
    return {file.path: file for file in render_envoy(ctx)}


def config(ctx: EnvoyContext) -> Any:
    return yaml.safe_load(rendered(ctx)["envoy.yaml"].text())


def listeners(ctx: EnvoyContext) -> dict[str, Any]:
    return {entry["name"]: entry for entry in config(ctx)["static_resources"]["listeners"]}


def clusters(ctx: EnvoyContext) -> dict[str, Any]:
    return {entry["name"]: entry for entry in config(ctx)["static_resources"]["clusters"]}


def filter_of(listener: Any) -> Any:
    return listener["filter_chains"][0]["filters"][0]["typed_config"]


def test_files_and_their_modes() -> None:
    files = rendered(context())
    assert {path: file.mode for path, file in files.items()} == {
        "envoy.yaml": 0o644,
        "sds/certificate.yaml": 0o644,
        "sds/ca.yaml": 0o644,
        "endpoints/pubsub_app_user.yaml": 0o644,
        "passwords/app_user.password": 0o600,
        "passwords/readonly_user.password": 0o600,
    }
    assert files["passwords/app_user.password"].text() == "app-password-1"


def test_no_password_outside_the_password_files() -> None:
    files = rendered(context())
    open_texts = [file.text() for file in files.values() if file.mode != 0o600]
    assert not [text for text in open_texts for secret in PASSWORDS.values() if secret.reveal() in text]
    assert "password-1" not in repr(render_envoy(context()))


def test_admin_is_on_loopback_whatever_the_instance_listens_on() -> None:
    far = msgspec.structs.replace(topology().envoys[0], address="10.1.2.3")
    admin = config(context(envoy=far))["admin"]
    assert admin == {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 9901}}}


def test_each_envoy_gets_its_own_listeners_and_all_nodes_as_seeds() -> None:
    second = context(envoy=topology().envoys[1])
    ports = {name: entry["address"]["socket_address"]["port_value"] for name, entry in listeners(second).items()}
    assert ports == {"primary": 6480, "primary-resp3": 6481, "reader": 6482, "pubsub": 6483}
    assert config(second)["node"] == {"id": "envoy-2", "cluster": "main", "locality": {"zone": "zone-a"}}
    for cluster in clusters(second).values():
        if cluster.get("type") == "EDS":
            continue
        seeds = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
        seen = [seed["endpoint"]["address"]["socket_address"]["port_value"] for seed in seeds]
        assert seen == [7001, 7002, 7003, 7004, 7005, 7006]


def test_one_upstream_cluster_per_user_and_read_policy() -> None:
    assert set(clusters(context())) == {"redis_app_user", "redis_readonly_user_replicas", "pubsub_app_user"}
    assert redis_cluster_names(topology(), "envoy-1") == ("redis_app_user", "redis_readonly_user_replicas")
    assert redis_cluster_names(topology(), "nobody") == ()


@pytest.mark.parametrize(
    ("name", "user", "policy", "protocol"),
    [
        ("primary", "app_user", "MASTER", None),
        ("primary-resp3", "app_user", "MASTER", "RESP3"),
        ("reader", "readonly_user", "PREFER_REPLICA", None),
    ],
)
def test_redis_proxy_of_each_endpoint(name: str, user: str, policy: str, protocol: str | None) -> None:
    proxy = filter_of(listeners(context())[name])
    assert proxy["downstream_auth_username"] == {"inline_string": user}
    path = f"/state/units/envoy-1/passwords/{user}.password"
    assert proxy["downstream_auth_passwords"] == [{"filename": path}]
    assert proxy["settings"]["read_policy"] == policy
    assert proxy["settings"]["op_timeout"] == "2.5s"
    assert proxy["settings"]["enable_redirection"] is True
    assert proxy["settings"]["enable_command_stats"] is True
    assert proxy.get("protocol_version") == protocol
    upstream = clusters(context())[proxy["prefix_routes"]["catch_all_route"]["cluster"]]
    login = upstream["typed_extension_protocol_options"]["envoy.filters.network.redis_proxy"]
    assert (login["auth_username"], login["auth_password"]) == ({"inline_string": user}, {"filename": path})


def test_topology_is_followed_fast() -> None:
    cluster = clusters(context())["redis_app_user"]
    discovery = cluster["cluster_type"]["typed_config"]
    assert discovery["cluster_refresh_rate"] == "1.5s"
    assert discovery["redirect_refresh_interval"] == "0.05s"
    thresholds = ("redirect_refresh_threshold", "failure_refresh_threshold", "host_degraded_refresh_threshold")
    assert [discovery[name] for name in thresholds] == [1, 1, 1]
    assert cluster["connect_timeout"] == "1.5s"
    assert cluster["wait_for_warm_on_init"] is False


def test_limits_come_from_the_settings() -> None:
    monitor = config(context())["overload_manager"]["resource_monitors"][0]["typed_config"]
    assert monitor["max_active_downstream_connections"] == 1234
    threshold = clusters(context())["pubsub_app_user"]["circuit_breakers"]["thresholds"][0]
    assert threshold == {"max_connections": 1234, "max_pending_requests": 567}


def test_one_answer_of_a_node_that_was_down_is_not_enough_for_reads() -> None:
    """It gives the first before a verb has told it to refuse reads; the second counts, a quarter of a second later."""
    (check,) = clusters(context())["redis_readonly_user_replicas"]["health_checks"]
    assert (check["healthy_threshold"], check["unhealthy_threshold"]) == (2, 1)
    assert check["healthy_edge_interval"] == check["unhealthy_interval"] == "0.25s"


def test_pubsub_hands_connections_to_healthy_nodes_only() -> None:
    proxy = filter_of(listeners(context())["pubsub"])
    assert proxy["@type"].endswith("TcpProxy")
    assert proxy["idle_timeout"] == "0s"
    cluster = clusters(context())[proxy["cluster"]]
    assert cluster["health_checks"][0]["custom_health_check"]["name"] == "envoy.health_checkers.redis"
    assert cluster["common_lb_config"]["healthy_panic_threshold"] == {"value": 0}


def test_the_nodes_for_subscribers_are_in_a_file_that_is_watched() -> None:
    cluster = clusters(context())["pubsub_app_user"]
    assert cluster["type"] == "EDS"
    assert "load_assignment" not in cluster
    source = cluster["eds_cluster_config"]["eds_config"]["path_config_source"]
    assert source["watched_directory"]["path"] == "/state/units/envoy-1/endpoints"
    path = source["path"].removeprefix("/state/units/envoy-1/")

    resource = yaml.safe_load(rendered(context())[path].text())["resources"][0]

    assert resource["cluster_name"] == "pubsub_app_user"
    hosts = [entry["endpoint"]["address"]["socket_address"] for entry in resource["endpoints"][0]["lb_endpoints"]]
    assert hosts == [{"address": "127.0.0.1", "port_value": 7001 + index} for index in range(6)]


def restart_hash(declared: Topology) -> str:
    unit = Unit("envoy-1", "envoy", "local", "/state/units/envoy-1", ("envoy",), render_envoy(context(declared)), ())
    return unit.config_hash


def test_nodes_that_come_and_go_do_not_restart_an_envoy() -> None:
    fewer = topology(nodes=topology().nodes[:3])

    assert restart_hash(fewer) == restart_hash(topology())
    assert rendered(context(fewer)) != rendered(context())
    other_limit = msgspec.structs.replace(topology().envoy, max_connections=1)
    assert restart_hash(topology(envoy=other_limit)) != restart_hash(topology())


def test_names_instead_of_numbers_are_resolved() -> None:
    """A file of endpoints cannot hold them: then the nodes of subscribers do need a restart."""
    nodes = tuple(msgspec.structs.replace(node, address="redis.example") for node in topology().nodes)
    named = topology(nodes=nodes)
    cluster = clusters(context(named))["pubsub_app_user"]
    assert cluster["type"] == "STRICT_DNS"
    assert len(cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]) == 6
    assert not any(path.startswith("endpoints/") for path in rendered(context(named)))
    assert restart_hash(topology(nodes=nodes[:3])) != restart_hash(named)


@pytest.mark.parametrize("required", [False, True])
def test_tls_on_every_link(required: bool) -> None:
    tls = msgspec.structs.replace(topology().tls, require_client_certificates=required)
    ctx = context(topology(tls=tls))
    for listener in listeners(ctx).values():
        socket = listener["filter_chains"][0]["transport_socket"]["typed_config"]
        assert socket["@type"].endswith("DownstreamTlsContext")
        assert socket.get("require_client_certificate", False) is required
        assert ("validation_context_sds_secret_config" in socket["common_tls_context"]) is required
    for cluster in clusters(ctx).values():
        common = cluster["transport_socket"]["typed_config"]["common_tls_context"]
        assert common["tls_params"]["tls_minimum_protocol_version"] == "TLSv1_2"
        assert common["validation_context_sds_secret_config"]["name"] == "ca"


def test_certificates_are_watched() -> None:
    files = rendered(context())
    certificate = yaml.safe_load(files["sds/certificate.yaml"].text())["resources"][0]
    assert certificate["tls_certificate"] == {
        "certificate_chain": {"filename": "/state/tls/envoy-1.crt"},
        "private_key": {"filename": "/state/tls/envoy-1.key"},
        "watched_directory": {"path": "/state/tls"},
    }
    authority = yaml.safe_load(files["sds/ca.yaml"].text())["resources"][0]
    assert authority["validation_context"]["trusted_ca"] == {"filename": "/state/tls/ca.crt"}


@pytest.mark.parametrize(
    ("version", "resp3", "custom"),
    [
        ("", True, True),
        ("1.40.0", True, True),
        ("2.0.1", True, True),
        ("1.39.3", False, True),
        ("1.34.0", False, True),
        ("1.32.1", False, False),
    ],
)
def test_what_an_older_envoy_does_not_know_is_refused_or_left_out(version: str, resp3: bool, custom: bool) -> None:
    if not resp3:
        with pytest.raises(BinaryError, match="primary-resp3: protocol RESP3 needs Envoy"):
            render_envoy(context(version=version))
    kept = tuple(e for e in topology().endpoints if resp3 or e.protocol != "RESP3")
    ctx = context(topology(endpoints=kept), version=version)
    assert ("custom_commands" in filter_of(listeners(ctx)["primary"])) is custom


def test_a_user_without_password_is_an_error() -> None:
    with pytest.raises(KeyError):
        render_envoy(context(credentials=Credentials({})))


@settings(deadline=None, max_examples=30)  # each example parses a whole envoy.yaml
@given(user=st.text(min_size=1).filter(lambda name: "\0" not in name))
def test_any_user_name_stays_inside_the_passwords_folder(user: str) -> None:
    endpoints = (endpoint("primary", 6380, user=user),)
    ctx = context(topology(endpoints=endpoints), credentials=Credentials({user: Secret("secret")}))
    (path,) = [path for path in rendered(ctx) if path.startswith("passwords/")]
    assert path.count("/") == 1
    proxy = filter_of(listeners(ctx)["primary"])
    assert proxy["downstream_auth_username"] == {"inline_string": user}
    assert proxy["downstream_auth_passwords"] == [{"filename": f"/state/units/envoy-1/{path}"}]


def test_argv_names_the_configuration_and_joins_no_other_envoy() -> None:
    argv = envoy_argv("/opt/envoy", "/state/units/envoy-1", worker_count=3)
    assert argv[:3] == ("/opt/envoy", "--config-path", "/state/units/envoy-1/envoy.yaml")
    assert "--disable-hot-restart" in argv
    assert argv[argv.index("--concurrency") + 1] == "3"


# Everything that the renderer prints: no surrogates, which no UTF-8 file can hold.
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
SCALARS = st.one_of(st.integers(), st.booleans(), TEXT)
DOCUMENTS = st.dictionaries(
    TEXT,
    st.recursive(
        SCALARS,
        lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXT, inner, max_size=4)),
        max_leaves=20,
    ),
    min_size=1,
    max_size=5,
)


@settings(deadline=None)
@given(DOCUMENTS)
def test_yaml_reads_back_as_it_was(document: dict[str, Any]) -> None:
    assert yaml.safe_load(to_yaml(document)) == document


@settings(deadline=None)
@given(TEXT)
def test_any_string_reads_back_as_itself(text: str) -> None:
    assert yaml.safe_load(quote(text)) == text


def test_notes_become_comments_above_what_they_explain() -> None:
    document: dict[str, Any] = {
        "first": Noted({"list": [{"key": Noted(1, "about key"), "other": True}, "item"]}, "about\nfirst"),
        "empty": {},
    }
    assert to_yaml(document, header="head") == (
        "# head\n# about\n# first\nfirst:\n  list:\n    # about key\n    - key: 1\n      other: true\n"
        "    - item\nempty: {}\n"
    )
