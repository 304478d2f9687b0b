"""What `deploy` reads of .env: this host, the others, and what is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from redisforge.config.deployment import Deployment, deployment_names, read_deployment
from redisforge.config.environment import PASSWORD_VARIABLES, Variable
from redisforge.config.problems import ConfigProblem
from redisforge.model.topology import Role

FOLDER = Path("/srv/shop")
CONVENTION = {
    "PROJECT_NAME": "redisforge",
    "REDIS_PORT": "6379",
    "REDIS_CLUSTER_BUS_PORT": "16379",
    "REDIS_CLUSTER_ANNOUNCE_IP": "10.0.1.10",
    "REDIS_CLUSTER_ANNOUNCE_PORT": "6379",
    "REDIS_CLUSTER_ANNOUNCE_BUS_PORT": "16379",
    "REDIS_MASTER_1_HOST": "10.0.1.10",
    "REDIS_MASTER_2_HOST": "10.0.2.11",
    "REDIS_MASTER_3_HOST": "10.0.3.12",
    **{name: "Xk29slQpW8zzAq" for name in PASSWORD_VARIABLES if name != "REDIS_HANDOFF_PASS"},
}


def read(*, is_envoy: bool = False, **changes: str | None) -> tuple[Deployment, tuple[ConfigProblem, ...]]:
    values = {name: value for name, value in (CONVENTION | changes).items() if value is not None}
    variables = {name: Variable(name, value, f".env:{n}") for n, (name, value) in enumerate(values.items(), 1)}
    assert set(variables) <= set(deployment_names())
    return read_deployment(variables, FOLDER, is_envoy=is_envoy)


def read_with(changes: dict[str, str | None], *, is_envoy: bool) -> Deployment:
    deployment, problems = read(is_envoy=is_envoy, **changes)  # pyright: ignore[reportArgumentType]
    assert not problems
    return deployment


@pytest.mark.parametrize("is_envoy", [False, True])
def test_a_file_of_the_convention_is_enough(is_envoy: bool) -> None:
    deployment, problems = read(is_envoy=is_envoy)
    assert not problems
    assert (deployment.name, deployment.announce, deployment.port, deployment.bus_port) == (
        "redisforge", "10.0.1.10", 6379, 16379,
    )  # fmt: skip
    assert [(place.host, place.port, place.role) for place in deployment.places] == [
        (host, 6379, Role.MASTER) for host in ("10.0.1.10", "10.0.2.11", "10.0.3.12")
    ]
    assert deployment.ca_path == "/srv/shop/config/tls/prod/ca.crt"
    assert deployment.certificate_path == "/srv/shop/config/tls/prod/server.crt"
    assert deployment.key_path == "/srv/shop/config/tls/prod/server.key"


def test_ports_and_replicas_may_be_named_one_by_one() -> None:
    deployment, problems = read(
        REDIS_MASTER_2_PORT="7002", REDIS_REPLICA_1_HOST="10.0.2.11", REDIS_REPLICA_1_PORT="7003",
        REDIS_MASTER_10_HOST="10.0.9.9", REDIS_CLUSTER_BUS_PORT=None, REDIS_CLUSTER_ANNOUNCE_BUS_PORT=None,
    )  # fmt: skip
    assert not problems
    assert deployment.bus_port == 16379
    assert [(place.host, place.port, place.role.value) for place in deployment.places] == [
        ("10.0.1.10", 6379, "master"), ("10.0.2.11", 7002, "master"), ("10.0.3.12", 6379, "master"),
        ("10.0.9.9", 6379, "master"), ("10.0.2.11", 7003, "replica"),
    ]  # fmt: skip


def test_envoy_may_have_certificates_of_its_own() -> None:
    own: dict[str, str | None] = {
        "ENVOY_TLS_CERT_PATH": "/etc/e.crt",
        "ENVOY_TLS_KEY_PATH": "e.key",
        "REDIS_TLS_CERT_PATH": "r.crt",
    }
    assert read_with(own, is_envoy=True).certificate_path == "/etc/e.crt"
    assert read_with(own, is_envoy=True).key_path == "/srv/shop/e.key"
    assert read_with(own, is_envoy=False).certificate_path == "/srv/shop/r.crt"


@pytest.mark.parametrize(
    ("changes", "is_envoy", "subject", "words"),
    [
        ({"REDIS_CLUSTER_ANNOUNCE_IP": None}, False, "REDIS_CLUSTER_ANNOUNCE_IP", "is missing"),
        ({"REDIS_CLUSTER_ANNOUNCE_IP": " "}, False, "REDIS_CLUSTER_ANNOUNCE_IP", "is missing"),
        ({"REDIS_MASTER_1_HOST": None}, True, "REDIS_MASTER_1_HOST", "is missing"),
        ({"REDIS_MONITOR_PASS": None}, False, "REDIS_MONITOR_PASS", "password of the monitor user"),
        ({"REDIS_PORT": "none"}, False, "REDIS_PORT", "must be a port"),
        ({"REDIS_MASTER_2_PORT": "70000"}, True, "REDIS_MASTER_2_PORT", "must be a port"),
        ({"REDIS_CLUSTER_ANNOUNCE_PORT": "6380"}, False, "REDIS_CLUSTER_ANNOUNCE_PORT", "not translated"),
        ({"PROJECT_NAME": "../up"}, False, "PROJECT_NAME", "lower-case letters"),
        ({"ENVOY_TLS_ENABLED": "false"}, True, "ENVOY_TLS_ENABLED", "cannot be off"),
        (
            {"REDIS_PORT": "60000", "REDIS_CLUSTER_BUS_PORT": None, "REDIS_CLUSTER_ANNOUNCE_PORT": None,
             "REDIS_CLUSTER_ANNOUNCE_BUS_PORT": None},
            False, "REDIS_CLUSTER_BUS_PORT", "must be a port",
        ),
    ],
)  # fmt: skip
def test_mistakes_are_named(changes: dict[str, str | None], is_envoy: bool, subject: str, words: str) -> None:
    _, problems = read(is_envoy=is_envoy, **changes)
    assert [problem.subject for problem in problems] == [subject]
    assert words in str(problems[0])


def test_all_problems_come_at_once_and_hold_no_password() -> None:
    _, problems = read(REDIS_CLUSTER_ANNOUNCE_IP=None, REDIS_PORT="x", REDIS_ACL_PASS=None)
    assert {problem.subject for problem in problems} >= {"REDIS_CLUSTER_ANNOUNCE_IP", "REDIS_PORT", "REDIS_ACL_PASS"}
    assert not any("Xk29slQpW8zzAq" in str(problem) for problem in problems)


def test_redis_does_not_need_what_is_envoys() -> None:
    assert not read(REDIS_MASTER_1_HOST=None, ENVOY_TLS_ENABLED="false")[1]
    assert not read(is_envoy=True, REDIS_CLUSTER_ANNOUNCE_IP=None)[1]
