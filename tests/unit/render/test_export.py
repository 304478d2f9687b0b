"""What `export` writes for systemd and Docker, read back as those read it."""

from __future__ import annotations

import configparser
import re
import shlex
import subprocess
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from redisforge.model.exported import ExportedCluster, ExportedHost, ExportedProcess
from redisforge.model.topology import RedisNode, Role
from redisforge.model.unit import Container
from redisforge.render.export_compose import compose_text
from redisforge.render.export_readme import readme_text
from redisforge.render.export_systemd import install_script, unit_name, unit_text

ROOT = "/var/lib/redisforge/clusters/main"


def process(**changes: Any) -> ExportedProcess:
    values: dict[str, Any] = {
        "name": "redis-1", "kind": "redis", "version": "8.6.3", "cluster": "main", "root": ROOT,
        "argv": ("/usr/bin/redis-server", f"{ROOT}/units/redis-1/redis.conf"), "folder": f"{ROOT}/units/redis-1",
        "data_path": f"{ROOT}/units/redis-1/data", "ping": ("10.0.0.1", 7001), "lowest_port": 7001,
        "stop_grace_s": 30.0, "open_files": 100_000, "monitor_user": "monitor_user",
        "container": Container("redisforge/redis:8.6.3", ()),
    }  # fmt: skip
    return ExportedProcess(**(values | changes))


def envoy(**changes: Any) -> ExportedProcess:
    own: dict[str, Any] = {
        "name": "envoy-1", "kind": "envoy", "version": "1.40.0", "folder": f"{ROOT}/units/envoy-1", "data_path": "",
        "argv": ("/usr/local/bin/envoy", "--config-path", f"{ROOT}/units/envoy-1/envoy.yaml"),
        "ping": ("127.0.0.1", 9901), "lowest_port": 6380, "stop_grace_s": 5.0, "monitor_user": "",
        "container": Container("redisforge/envoy:1.40.0", ()),
    }  # fmt: skip
    return process(**(own | changes))


def settings_of(unit: str) -> dict[str, str]:
    parser = configparser.RawConfigParser(strict=True, delimiters=("=",), comment_prefixes=("#",))
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(unit)
    return dict(parser["Service"])


def readme(*processes: ExportedProcess, can_init: bool = True) -> str:
    nodes = tuple(
        RedisNode(made.name, "a", made.ping[0], "z", made.ping[1], made.ping[1] + 10_000, number, Role.MASTER)
        for number, made in enumerate(processes)
        if made.data_path
    )
    cluster = ExportedCluster(
        name="main", engine="redis", engine_version="8.6.3", envoy_version="1.40.0", root=ROOT, nodes=nodes, replicas=0,
        can_init=can_init, operator="operator_user", endpoints=(), client_certificates=False,
        hosts=(ExportedHost("a", "10.0.0.1", processes),),
    )  # fmt: skip
    return readme_text(cluster, "compose")


def services(*processes: ExportedProcess) -> dict[str, Any]:
    return yaml.safe_load(compose_text(ExportedHost("a", "10.0.0.1", processes), "main"))["services"]


def as_systemd_splits(text: str) -> list[str]:
    """Words of a command line as systemd.syntax(7) and systemd.service(5) take them, for what is used here."""
    return [word.replace("%%", "%").replace("$$", "$") for word in shlex.split(text)]


@pytest.mark.parametrize("made", [process(), envoy()])
def test_a_unit_is_hardened_and_may_write_its_data_alone(made: ExportedProcess) -> None:
    service = settings_of(unit_text(made))
    assert service["User"] == "redisforge"
    assert (service["NoNewPrivileges"], service["ProtectSystem"], service["ProtectHome"]) == ("yes", "strict", "yes")
    assert (service["CapabilityBoundingSet"], service["AmbientCapabilities"]) == ("", "")
    assert service["LimitNOFILE"] == "100000"
    assert service.get("ReadWritePaths", "") == made.data_path
    assert service["TimeoutStopSec"] == f"{made.stop_grace_s:.0f}"
    assert as_systemd_splits(service["ExecStart"]) == list(made.argv)
    assert "+" not in service["ExecStart"][:1]


def test_a_low_port_needs_one_capability_and_no_more() -> None:
    service = settings_of(unit_text(envoy(lowest_port=443)))
    assert service["CapabilityBoundingSet"] == service["AmbientCapabilities"] == "CAP_NET_BIND_SERVICE"


def test_a_low_port_of_a_container_is_for_its_host_to_allow() -> None:
    """Docker gives no capability to a user that is not root: the kernel has to leave the port to everybody."""
    host = ExportedHost("a", "10.0.0.1", (process(), envoy(lowest_port=443)))
    need = "sysctl -w net.ipv4.ip_unprivileged_port_start=443"
    assert need in compose_text(host, "main")
    assert "cap_add" not in compose_text(host, "main")
    assert need in readme(*host.processes)
    assert "sysctl" not in readme(process(), envoy())


def test_the_images_and_limits_are_the_declared_ones() -> None:
    declared = Container("redis:8.6", (), False, 1000, 1.5, 2000, 4)
    made = services(process(container=declared), envoy())
    assert made["redis-1"]["image"] == "redis:8.6"
    assert (made["redis-1"]["mem_limit"], made["redis-1"]["memswap_limit"], made["redis-1"]["cpus"]) == (
        1000,
        1000,
        1.5,
    )
    assert made["redis-1"]["logging"]["options"] == {"max-size": "2000", "max-file": "4"}
    assert not {"mem_limit", "memswap_limit", "cpus", "logging"} & made["envoy-1"].keys()
    assert "\n    redis:8.6\n    redisforge/envoy:1.40.0\n" in readme(process(container=declared), envoy())


def test_the_readme_has_no_command_that_refuses_the_cluster() -> None:
    assert "redisforge init-cluster 10.0.0.1:7001@z" in readme(process())
    assert "init-cluster" not in readme(process(), can_init=False)
    assert "In this folder, with redis-cli" in readme(process(), can_init=False)


def test_a_root_below_the_home_of_root_can_be_reached_by_a_container() -> None:
    assert len(services(process(root="/root/op/main"))["redis-1"]["tmpfs"]) == 2
    assert len(services(process())["redis-1"]["tmpfs"]) == 1


def test_a_root_below_a_home_stays_visible() -> None:
    assert "ProtectHome" not in settings_of(unit_text(process(root="/root/op/main")))


@given(st.lists(st.text("ab /$%;'\"\\#{}", min_size=1, max_size=12), min_size=1, max_size=4))
def test_every_argument_reaches_the_process_as_it_is(words: list[str]) -> None:
    argv = ("/usr/bin/redis-server", *words)
    line = settings_of(unit_text(process(argv=argv)))["ExecStart"]
    assert as_systemd_splits(line) == list(argv)
    service = services(process(argv=argv))["redis-1"]
    assert [word.replace("$$", "$") for word in (*service["entrypoint"], *service["command"])] == list(argv)


def test_a_container_is_closed_and_sees_only_its_own_files() -> None:
    second = f"{ROOT}/units/redis-2"
    made = services(process(), process(name="redis-2", folder=second, data_path=f"{second}/data"))
    for name, service in made.items():
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["network_mode"] == "host"
        assert service["user"] == "999:999"
        assert service["image"] == "redisforge/redis:8.6.3"
        assert service["ulimits"]["nofile"] == {"soft": 100_000, "hard": 100_000}
        assert service["labels"] == {"io.redisforge.export.cluster": "main", "io.redisforge.export.unit": name}
        other = {"redis-1": "redis-2", "redis-2": "redis-1"}[name]
        assert not any(other in volume or "ca.key" in volume for volume in service["volumes"])
        writable = [volume for volume in service["volumes"] if not volume.endswith(":ro")]
        assert writable == [f"./data/{name}:{ROOT}/units/{name}/data"]


def test_health_checks_ask_the_process_itself_and_hold_no_password() -> None:
    made = services(process(), envoy())
    redis_check = made["redis-1"]["healthcheck"]["test"]
    assert redis_check[:3] == ["CMD", "sh", "-c"]
    assert "-h 10.0.0.1 -p 7001" in redis_check[3]
    assert "$$(cat " in redis_check[3]
    assert "-e LOADING" in redis_check[3], "a node that loads its data is not ill"
    assert re.search(r"/dev/tcp/127\.0\.0\.1/9901", made["envoy-1"]["healthcheck"]["test"][3])


def test_the_script_is_one_for_a_shell_and_starts_every_unit() -> None:
    host = ExportedHost("a", "10.0.0.1", (process(), envoy()))
    script = install_script(host, "main", "/srv/a b")
    assert subprocess.run(["sh", "-n"], input=script, text=True, check=False).returncode == 0
    assert "root='/srv/a b'" in script
    assert f"systemctl enable --now {unit_name(process())} {unit_name(envoy())}" in script


def test_paths_with_blanks_are_written_as_each_setting_takes_them() -> None:
    service = settings_of(unit_text(process(data_path="/srv/a b/100%", folder="/srv/a b")))
    assert service["WorkingDirectory"] == "/srv/a b/100%%"  # one path, as it is
    assert service["ReadWritePaths"] == '"/srv/a b/100%%"'  # a list of paths
