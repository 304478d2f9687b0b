"""Whether a host can carry what is declared for it: facts and needs become Pass, Warn or Fail, with the cure.

Here is what concerns the machine itself; plan/host_kernel_checks.py has the kernel's settings, and
plan/host_fleet_checks.py what concerns several hosts: ports, the ways between them, and their clocks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from redisforge.model.host_facts import FleetLook, HostFacts
from redisforge.model.host_report import Check, FixKind, Verdict
from redisforge.model.images import DOCKER_FLOOR
from redisforge.model.versions import version_of
from redisforge.model.words import counted
from redisforge.plan.host_fleet_checks import check_fleet
from redisforge.plan.host_kernel_checks import check_kernel
from redisforge.plan.host_needs import HostNeeds
from redisforge.plan.host_words import readable_bytes

ARCHITECTURES = ("x86_64", "aarch64")
"""For which there are packages of Redis, Valkey and Envoy."""
PYTHON_FLOOR = (3, 9)
"""What the keeper needs (fleet/keeper.py)."""
GOOD_STORAGE_DRIVERS = ("overlay2", "overlayfs", "btrfs", "zfs")
"""Docker's storage drivers without a word of warning in its documentation."""
BYTES_TO_BEGIN = 16 * 1024 * 1024
"""Per node: logs, an empty AOF and its first rewrite. `up` refuses to start with less."""
SLOW_DISK_BYTES_PER_S = 50 * 2**20
"""Below that an AOF rewrite of a few GB takes minutes, and everysec falls behind under load."""
MEMORY_SHARE = 0.75
"""What data may take of the memory: buffers of clients and replicas and the copies of pages that a fork makes come on
top of it (Redis, "Memory optimization")."""


def judge(look: FleetLook, needs: Mapping[str, HostNeeds], operator_architecture: str) -> tuple[Check, ...]:
    """Every check of every host that was asked, host by host in the order of `look`.

    A host that could not be asked has one check, which failed. `operator_architecture` is that of the machine whose
    programs are brought to the hosts, as uname calls it.
    """
    found: list[Check] = []
    for host in look.hosts:
        if host.facts is None:
            found.append(
                Check(host=host.host, name="reachable", verdict=Verdict.FAIL, what=host.problem, cure=host.next_step)
            )
            continue
        needed = needs[host.host]
        found += check_machine(host.facts, needed, operator_architecture)
        found += check_kernel(host.facts, needed)
    found += check_fleet(look, needs)
    order = {host.host: number for number, host in enumerate(look.hosts)}
    return tuple(sorted(found, key=lambda check: order.get(check.host, len(order))))


def check_machine(facts: HostFacts, needs: HostNeeds, operator_architecture: str) -> Iterator[Check]:
    """System, programs, rights, room."""
    yield _system(facts)
    yield _architecture(facts, needs, operator_architecture)
    yield _docker(facts, needs)
    if needs.is_remote:
        yield _python(facts, needs)
        yield _tools(facts)
    yield _rights(facts)
    yield _folder(facts, needs)
    yield _disk_space(facts, needs)
    yield _disk_speed(facts, needs)
    yield _memory(facts, needs)
    yield _cores(facts, needs)


def _check(facts: HostFacts, name: str, verdict: Verdict, what: str, cure: str = "", fix: FixKind = "") -> Check:
    return Check(host=facts.host, name=name, verdict=verdict, what=what, cure=cure, fix=fix)


def _system(facts: HostFacts) -> Check:
    what = " ".join(part for part in (facts.distribution, facts.system, facts.kernel) if part)
    if facts.system == "Linux":
        return _check(facts, "system", Verdict.PASS, what)
    return _check(facts, "system", Verdict.FAIL, what, "use a host with Linux: RedisForge runs nothing elsewhere")


def _architecture(facts: HostFacts, needs: HostNeeds, operator: str) -> Check:
    name, what = "architecture", facts.architecture or "unknown"
    if needs.is_remote and needs.runtime == "process" and facts.architecture != operator:
        cure = f"run redisforge on a machine with {what}, or use hosts with {operator}: programs are brought from here"
        return _check(facts, name, Verdict.FAIL, f"{what}, and the programs here are for {operator}", cure)
    if facts.architecture in ARCHITECTURES:
        return _check(facts, name, Verdict.PASS, what)
    cure = "name your own programs (engine.server_path, envoy.path): none can be fetched for it"
    return _check(facts, name, Verdict.WARN, what, cure)


def _docker(facts: HostFacts, needs: HostNeeds) -> Check:
    docker, is_needed = facts.docker, needs.runtime == "docker"
    bad = Verdict.FAIL if is_needed else Verdict.PASS
    aside = "" if is_needed else " (not needed: Units are processes)"
    if not docker.client:
        return _check(facts, "docker", bad, f"not installed{aside}", "install Docker 20.10 or newer" * is_needed)
    if not docker.server:
        denied = "permission denied" in docker.problem.lower()
        cure = f"let {facts.user} use Docker: `sudo usermod -aG docker {facts.user}`, then log in anew (that makes "
        cure = f"{cure}{facts.user} as mighty as root)" if denied else "start it: `sudo systemctl enable --now docker`"
        what = f"{facts.user} may not use it" if denied else "the engine does not answer"
        return _check(facts, "docker", bad, f"{what}: {docker.problem}{aside}", cure * is_needed)
    what = f"{docker.server}, {docker.storage_driver or 'unknown storage driver'}{aside}"
    if version_of(docker.server) < DOCKER_FLOOR:
        return _check(facts, "docker", bad, what, "update it to 20.10 or newer" * is_needed)
    if docker.storage_driver not in GOOD_STORAGE_DRIVERS and is_needed:
        cure = 'set "storage-driver": "overlay2" in /etc/docker/daemon.json (images must be loaded again)'
        return _check(facts, "docker", Verdict.WARN, what, cure)
    return _check(facts, "docker", Verdict.PASS, what)


def _python(facts: HostFacts, needs: HostNeeds) -> Check:
    floor = ".".join(map(str, PYTHON_FLOOR))
    if facts.python and version_of(facts.python) >= PYTHON_FLOOR:
        return _check(facts, "python3", Verdict.PASS, facts.python)
    verdict = Verdict.FAIL if needs.runtime == "process" else Verdict.WARN
    what = f"{facts.python} is too old" if facts.python else "there is none"
    return _check(facts, "python3", verdict, what, f"install python3, {floor} or newer: it keeps the processes running")


def _tools(facts: HostFacts) -> Check:
    if not facts.missing_tools:
        return _check(facts, "tools", Verdict.PASS, "all there")
    missing = ", ".join(facts.missing_tools)
    return _check(facts, "tools", Verdict.FAIL, f"missing: {missing}", "install them (coreutils, tar): files need them")


def _rights(facts: HostFacts) -> Check:
    if facts.is_root:
        return _check(facts, "rights", Verdict.PASS, "root")
    if facts.can_sudo:
        return _check(facts, "rights", Verdict.PASS, f"{facts.user}, sudo without a password")
    cure = (
        f"for --fix and `host prepare`: a sudoers line for {facts.user} with NOPASSWD, or ssh_user: root for the time"
    )
    return _check(facts, "rights", Verdict.WARN, f"{facts.user}, no sudo without a password", cure)


def _folder(facts: HostFacts, needs: HostNeeds) -> Check:
    folder = facts.folder
    if folder.is_writable:
        return _check(facts, "folder", Verdict.PASS, needs.folder)
    what = f"{facts.user} may not write {folder.existing}, and {needs.folder} belongs there"
    if needs.is_remote:
        # One that is there may be somebody else's: its owner is not changed.
        is_there = f"{folder.existing}/".startswith(f"{needs.home}/")
        cure = f"let {facts.user} own {needs.home}{'' if is_there else ' (--fix does)'}, or declare another `folder`"
        return _check(facts, "folder", Verdict.FAIL, what, cure, "" if is_there else "folder")
    return _check(facts, "folder", Verdict.FAIL, what, "set REDISFORGE_HOME to a folder of yours, or mend its owner")


def _disk_space(facts: HostFacts, needs: HostNeeds) -> Check:
    free = facts.folder.free_bytes
    what = f"{readable_bytes(free)} free"
    least = needs.node_count * BYTES_TO_BEGIN
    if free < least:
        cure = f"make room, {readable_bytes(least)} at least, or declare a `folder` on another disk"
        return _check(facts, "disk space", Verdict.FAIL, what, cure)
    wanted = 2 * needs.memory_bytes if needs.is_persistent else 0
    if free < wanted:
        # an AOF rewrite or a snapshot is written beside the one that it replaces
        cure = f"{readable_bytes(wanted)} are needed when its nodes are full: twice their memory"
        return _check(facts, "disk space", Verdict.WARN, what, cure)
    return _check(facts, "disk space", Verdict.PASS, what)


def _disk_speed(facts: HostFacts, needs: HostNeeds) -> Check:
    speed = facts.folder.write_bytes_per_s
    if speed is None:
        cure = "mend the folder, or measure it by hand: dd if=/dev/zero of=FILE bs=1M count=256 conv=fsync"
        what = f"could not be tried: {facts.folder.write_problem}"
        return _check(facts, "disk speed", Verdict.WARN, what, cure)
    what = f"{readable_bytes(int(speed))}/s written and synced"
    if speed < SLOW_DISK_BYTES_PER_S and needs.is_persistent and needs.node_count:
        cure = f"use a faster disk: below {readable_bytes(SLOW_DISK_BYTES_PER_S)}/s the AOF falls behind under load"
        return _check(facts, "disk speed", Verdict.WARN, what, cure)
    return _check(facts, "disk speed", Verdict.PASS, what)


def _memory(facts: HostFacts, needs: HostNeeds) -> Check:
    total, wanted = facts.memory_bytes, needs.memory_bytes
    what = f"{readable_bytes(total)}, of which its nodes may take {readable_bytes(wanted)}"
    if wanted > total:
        return _check(facts, "memory", Verdict.FAIL, what, "lower memory.max, or put fewer nodes on this host")
    if wanted > total * MEMORY_SHARE:
        cure = f"leave {1 - MEMORY_SHARE:.0%} for buffers and forks: lower memory.max, or fewer nodes"
        return _check(facts, "memory", Verdict.WARN, what, cure)
    return _check(facts, "memory", Verdict.PASS, what)


def _cores(facts: HostFacts, needs: HostNeeds) -> Check:
    what = f"{facts.cores} for {counted(needs.unit_count, 'process', 'processes')}"
    if facts.cores < needs.unit_count:
        return _check(facts, "cores", Verdict.WARN, what, "a busy node or Envoy takes a core of its own: fewer of them")
    return _check(facts, "cores", Verdict.PASS, what)
