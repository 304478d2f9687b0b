"""Every rule about one host: what passes, what is warned of, what fails, and what is offered as the cure."""

from __future__ import annotations

from typing import Any

import pytest
from host_world import FIRST, FOLDER, GIB, HERE, HOME, NEEDS, SYSCTLS, good_facts, judged, look_of
from msgspec.structs import replace

from redisforge.model.host_facts import DockerFacts, FleetLook, FolderFacts, HostLook, ListeningSocket
from redisforge.model.host_report import Verdict
from redisforge.model.versions import version_of
from redisforge.plan.host_checks import judge
from redisforge.plan.host_needs import HostNeeds

PASS, WARN, FAIL = Verdict.PASS, Verdict.WARN, Verdict.FAIL
NODE = NEEDS[FIRST].ports[0]
BUS = NEEDS[FIRST].ports[1]


def folder(**changes: Any) -> dict[str, FolderFacts]:
    return {"folder": replace(good_facts().folder, **changes)}


def sysctl(name: str, value: int) -> dict[str, dict[str, int]]:
    return {"sysctls": SYSCTLS | {name: value}}


def test_a_good_host_passes_everything() -> None:
    checks = judged(good_facts())
    assert {check.verdict for check in checks.values()} == {PASS}
    assert not any(check.cure or check.fix for check in checks.values())
    assert len(checks) == 20


@pytest.mark.parametrize(
    ("changes", "name", "verdict", "word"),
    [
        ({"system": "FreeBSD"}, "system", FAIL, "FreeBSD"),
        ({"architecture": "aarch64"}, "architecture", FAIL, "programs here are for x86_64"),
        ({"architecture": ""}, "architecture", FAIL, "unknown"),
        ({"python": ""}, "python3", FAIL, "there is none"),
        ({"python": "3.8.10"}, "python3", FAIL, "3.8.10 is too old"),
        ({"python": "3.9.2"}, "python3", PASS, "3.9.2"),
        ({"missing_tools": ("tar", "stat")}, "tools", FAIL, "tar, stat"),
        ({"can_sudo": False}, "rights", WARN, "no sudo without a password"),
        ({"can_sudo": False, "is_root": True, "user": "root"}, "rights", PASS, "root"),
        (folder(is_writable=False, existing="/srv"), "folder", FAIL, "may not write /srv"),
        (folder(free_bytes=30 * 2**20), "disk space", FAIL, "30.0 MB free"),
        (folder(free_bytes=GIB // 2), "disk space", WARN, "512 MB free"),
        (folder(free_bytes=GIB), "disk space", PASS, "1.0 GB free"),
        (folder(write_bytes_per_s=30.0 * 2**20), "disk speed", WARN, "30.0 MB/s"),
        (folder(write_bytes_per_s=None, write_problem="no room"), "disk speed", WARN, "could not be tried: no room"),
        ({"memory_bytes": 400 * 2**20}, "memory", FAIL, "400 MB"),
        ({"memory_bytes": 600 * 2**20}, "memory", WARN, "600 MB"),
        ({"memory_bytes": GIB}, "memory", PASS, "1.0 GB"),
        ({"cores": 2}, "cores", WARN, "2 for 3 processes"),
        ({"cores": 3}, "cores", PASS, "3 for 3"),
        (sysctl("vm.overcommit_memory", 0), "vm.overcommit_memory", WARN, "0: a fork may be refused"),
        (sysctl("vm.overcommit_memory", 2), "vm.overcommit_memory", WARN, "2: a fork"),
        ({"sysctls": {}}, "vm.overcommit_memory", PASS, "not shown"),
        ({"sysctls": {}}, "net.core.somaxconn", PASS, "not shown"),
        (sysctl("net.core.somaxconn", 510), "net.core.somaxconn", WARN, "tcp_backlog is 511"),
        (sysctl("net.core.somaxconn", 511), "net.core.somaxconn", PASS, "511"),
        (sysctl("net.ipv4.tcp_max_syn_backlog", 128), "net.ipv4.tcp_max_syn_backlog", WARN, "128"),
        ({"huge_pages": "always"}, "huge pages", WARN, "always"),
        ({"huge_pages": "never"}, "huge pages", PASS, "never"),
        ({"huge_pages": ""}, "huge pages", PASS, "none"),
        ({"swap_bytes": GIB}, "swap", WARN, "vm.swappiness 60"),
        ({"swap_bytes": GIB, **sysctl("vm.swappiness", 10)}, "swap", PASS, "1.0 GB"),
        ({"open_files": 1024}, "open files", FAIL, "max_clients 10000 needs 10032"),
        ({"open_files": 10_032}, "open files", WARN, "10032"),
        ({"open_files": 100_000}, "open files", PASS, "100000"),
    ],
)
def test_each_rule(changes: dict[str, Any], name: str, verdict: Verdict, word: str) -> None:
    facts = replace(good_facts(), **changes)
    checks = judged(facts)
    assert (checks[name].verdict, word in checks[name].what) == (verdict, True), checks[name]
    assert bool(checks[name].cure) == (verdict is not PASS)
    others = {check.verdict for check in checks.values() if check.name != name}
    assert others <= {PASS}, "one fault, one complaint"


def test_a_port_that_is_roots_fails_before_a_unit_does() -> None:
    low = replace(NEEDS[FIRST], ports=(replace(NODE, port=443), replace(BUS, port=80)))
    facts = replace(good_facts(), **sysctl("net.ipv4.ip_unprivileged_port_start", 100))
    check = judged(facts, low)["low ports"]
    assert (check.verdict, check.what) == (FAIL, f"{BUS.unit} needs 80: ports below 100 are root's there "
        "(net.ipv4.ip_unprivileged_port_start), and its process will not have CAP_NET_BIND_SERVICE")  # fmt: skip
    assert "declare ports from 100 on" in check.cure
    assert judged(good_facts(), low)["low ports"].what.startswith(f"{NODE.unit} needs 443, {BUS.unit} needs 80: ")
    assert judged(replace(facts, is_root=True, user="root"), low)["low ports"].verdict is FAIL, "without the capability"
    privileged = replace(facts, is_privileged=True)
    assert judged(privileged, low)["low ports"].verdict is PASS, "whoever the user is"
    contained = replace(low, ports=tuple(replace(port, listener="container") for port in low.ports))
    assert judged(privileged, contained)["low ports"].verdict is FAIL


DENIED = "permission denied while trying to connect to the Docker daemon socket"
CANNOT = "Cannot connect to the Docker daemon"


@pytest.mark.parametrize(
    ("docker", "verdict", "word"),
    [
        (DockerFacts(), FAIL, "not installed"),
        (DockerFacts("27.1.0", "", "", CANNOT), FAIL, "the engine does not answer"),
        (DockerFacts("27.1.0", "", "", DENIED), FAIL, "deploy may not use it"),
        (DockerFacts("19.03.1", "19.03.1", "overlay2"), FAIL, "19.03.1"),
        (DockerFacts("20.10.24", "20.10.24", "overlay2"), PASS, "20.10.24"),
        (DockerFacts("28.0.1", "28.0.1", "overlayfs"), PASS, "28.0.1"),
        (DockerFacts("27.1.0", "27.1.0", "vfs"), WARN, "vfs"),
    ],
)
def test_docker_matters_where_units_are_containers(docker: DockerFacts, verdict: Verdict, word: str) -> None:
    facts = replace(good_facts(), docker=docker)
    with_docker = judged(facts, replace(NEEDS[FIRST], runtime="docker"))["docker"]
    assert (with_docker.verdict, word in with_docker.what) == (verdict, True), with_docker
    assert bool(with_docker.cure) == (verdict is not PASS)
    with_processes = judged(facts)["docker"]
    assert with_processes.verdict is PASS
    assert not with_processes.cure


def test_containers_need_neither_python_nor_this_machines_architecture() -> None:
    facts = replace(good_facts(), architecture="aarch64", python="")
    checks = judged(facts, replace(NEEDS[FIRST], runtime="docker"))
    assert checks["architecture"].verdict is PASS
    assert checks["python3"].verdict is WARN


def test_this_machine_needs_no_tools_of_a_remote_one() -> None:
    facts = replace(good_facts(), python="", missing_tools=("tar",), architecture="riscv64")
    checks = judged(facts, replace(NEEDS[FIRST], is_remote=False))
    assert not {"python3", "tools"} & set(checks)
    assert checks["architecture"].verdict is WARN


@pytest.mark.parametrize(
    ("existing", "fix"), [("/", "folder"), ("/srv", "folder"), (HOME, ""), (f"{HOME}/clusters", ""), (FOLDER, "")]
)
def test_only_a_folder_that_is_not_there_yet_is_made(existing: str, fix: str) -> None:
    facts = replace(good_facts(), **folder(is_writable=False, existing=existing))
    check = judged(facts)["folder"]
    assert (check.verdict, check.fix) == (FAIL, fix)
    assert ("--fix does" in check.cure) == bool(fix)


def test_without_persistence_a_slow_or_small_disk_is_good_enough() -> None:
    facts = replace(good_facts(), **folder(free_bytes=GIB // 8, write_bytes_per_s=2.0**20))
    checks = judged(facts, replace(NEEDS[FIRST], is_persistent=False))
    assert (checks["disk space"].verdict, checks["disk speed"].verdict) == (PASS, PASS)


def test_a_host_without_nodes_may_have_few_open_files() -> None:
    needs: HostNeeds = replace(NEEDS[FIRST], node_count=0, memory_bytes=0)
    assert judged(replace(good_facts(), open_files=1024), needs)["open files"].verdict is WARN


@pytest.mark.parametrize(
    ("socket", "verdict", "word"),
    [
        (ListeningSocket(NODE.address, NODE.port, 42, "/home/x", "nginx -g"), FAIL, "process 42 (nginx -g)"),
        (ListeningSocket("0.0.0.0", BUS.port), FAIL, "a process of another user"),
        (ListeningSocket("::", NODE.port, 42, "", ""), FAIL, "process 42 (?)"),
        (ListeningSocket("10.99.0.1", NODE.port, 42, "/", "nginx"), PASS, "free"),
        (ListeningSocket("127.0.0.1", 9901, 42, "/", "nginx"), FAIL, "envoy-1 needs 9901"),
        (ListeningSocket(NODE.address, NODE.port, 42, f"{FOLDER}/units/redis-1/data", "redis-server"), PASS, "1 used"),
        (ListeningSocket(NODE.address, NODE.port, 42, f"{FOLDER}-2/units", "redis-server"), FAIL, "redis-server"),
        (ListeningSocket("127.0.0.1", 9901, 42, "/", f"envoy -c {FOLDER}/units/envoy-1/envoy.yaml"), PASS, "1 used"),
    ],
)
def test_who_has_a_port(socket: ListeningSocket, verdict: Verdict, word: str) -> None:
    check = judged(replace(good_facts(), listeners=(socket,)))["ports"]
    assert (check.verdict, word in check.what) == (verdict, True), check


def test_many_taken_ports_are_counted() -> None:
    sockets = tuple(ListeningSocket("0.0.0.0", port.port, 7, "/", "x") for port in NEEDS[FIRST].ports)
    check = judged(replace(good_facts(), listeners=sockets))["ports"]
    assert f"and {len(sockets) - 3} more" in check.what


def test_a_host_that_cannot_be_asked_is_one_line_and_the_others_are_judged() -> None:
    second = list(NEEDS)[1]
    look = FleetLook(
        (HostLook(FIRST, None, "the host does not answer", "Is it up?"), *look_of(good_facts(second)).hosts)
    )
    checks = judge(look, NEEDS, HERE)
    assert next((c.host, c.name, c.verdict, c.cure) for c in checks) == (FIRST, "reachable", FAIL, "Is it up?")
    assert {check.host for check in checks[1:]} == {second}
    assert len(checks) > 15


def test_versions() -> None:
    texts = ("20.10.24+dfsg1", "27.1", "9", "", "x.y")
    assert [version_of(text) for text in texts] == [(20, 10), (27, 1), (9, 0), (0, 0), (0, 0)]
