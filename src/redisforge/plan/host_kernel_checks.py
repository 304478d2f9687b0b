"""The kernel's settings that Redis asks for, and whether a host has them.

Sources: the warnings of redis-server at its start (src/syscheck.c, src/server.c), its "Redis administration" page, and
Documentation/admin-guide/sysctl of the kernel.
"""

from __future__ import annotations

from collections.abc import Iterator

from redisforge.model.host_facts import HostFacts
from redisforge.model.host_report import Check, Verdict
from redisforge.plan.host_needs import OPEN_FILES, HostNeeds
from redisforge.plan.host_words import readable_bytes
from redisforge.plan.low_ports import LIMIT_SETTING, USUAL_LIMIT, cure, kept_for_root

RESERVED_FILES = 32
"""What redis-server keeps for itself beside its clients (CONFIG_MIN_RESERVED_FDS)."""
GOOD_BACKLOG = 4096
"""The kernel's own default of net.core.somaxconn since 5.4."""
OVERCOMMIT, SWAPPINESS = "vm.overcommit_memory", "vm.swappiness"
ACCEPT_QUEUE, HANDSHAKE_QUEUE = "net.core.somaxconn", "net.ipv4.tcp_max_syn_backlog"
MOST_SWAPPINESS = 10
GOOD_SWAPPINESS = 1


def check_kernel(facts: HostFacts, needs: HostNeeds) -> Iterator[Check]:
    """Memory, queues, limits."""
    yield _overcommit(facts)
    yield _huge_pages(facts)
    yield _swap(facts)
    yield _queue(facts, ACCEPT_QUEUE, needs.tcp_backlog)
    yield _queue(facts, HANDSHAKE_QUEUE, needs.tcp_backlog)
    yield _open_files(facts, needs)
    yield _low_ports(facts, needs)


def wanted_sysctls(facts: HostFacts, needs: HostNeeds) -> dict[str, int]:
    """The kernel parameters to make lasting on this host. Queues that are longer already stay as they are."""
    wanted = {OVERCOMMIT: 1}
    if facts.swap_bytes:
        wanted[SWAPPINESS] = min(GOOD_SWAPPINESS, facts.sysctls.get(SWAPPINESS, GOOD_SWAPPINESS))
    for name in (ACCEPT_QUEUE, HANDSHAKE_QUEUE):
        wanted[name] = max(facts.sysctls.get(name, 0), needs.tcp_backlog, GOOD_BACKLOG)
    return {name: value for name, value in wanted.items() if name in facts.sysctls}


def least_open_files(needs: HostNeeds) -> int:
    """Without so many, redis-server lowers maxclients."""
    return needs.max_clients + RESERVED_FILES


def good_open_files(needs: HostNeeds) -> int:
    """What a Unit asks for."""
    return max(OPEN_FILES, least_open_files(needs))


def _check(facts: HostFacts, name: str, what: str) -> Check:
    return Check(host=facts.host, name=name, verdict=Verdict.PASS, what=what)


def _overcommit(facts: HostFacts) -> Check:
    value = facts.sysctls.get(OVERCOMMIT)
    if value in (None, 1):
        return _check(facts, OVERCOMMIT, "not shown by this kernel" if value is None else "1")
    return Check(
        host=facts.host,
        name=OVERCOMMIT,
        verdict=Verdict.WARN,
        what=f"{value}: a fork may be refused, and with it snapshots, rewrites and first syncs",
        cure=f"sysctl {OVERCOMMIT}=1 (--fix makes it last)",
        fix="sysctl",
    )


def _huge_pages(facts: HostFacts) -> Check:
    if facts.huge_pages != "always":
        return _check(facts, "huge pages", facts.huge_pages or "none in this kernel")
    return Check(
        host=facts.host,
        name="huge pages",
        verdict=Verdict.WARN,
        what="always: after each fork a write copies 2 MB instead of 4 KB, which costs latency and memory",
        cure="transparent huge pages only on request, `madvise` (--fix makes it last)",
        fix="huge_pages",
    )


def _swap(facts: HostFacts) -> Check:
    swappiness = facts.sysctls.get(SWAPPINESS)
    if not facts.swap_bytes:
        return _check(facts, "swap", "none")
    what = f"{readable_bytes(facts.swap_bytes)}, {SWAPPINESS} {'unknown' if swappiness is None else swappiness}"
    if swappiness is None or swappiness <= MOST_SWAPPINESS:
        return _check(facts, "swap", what)
    return Check(
        host=facts.host,
        name="swap",
        verdict=Verdict.WARN,
        what=f"{what}: data may be swapped out, and be read from disk when it is asked for",
        cure=f"sysctl {SWAPPINESS}={GOOD_SWAPPINESS} (--fix makes it last)",
        fix="sysctl",
    )


def _queue(facts: HostFacts, name: str, wanted: int) -> Check:
    value = facts.sysctls.get(name)
    if value is None or value >= wanted:
        return _check(facts, name, "not shown by this kernel" if value is None else str(value))
    return Check(
        host=facts.host,
        name=name,
        verdict=Verdict.WARN,
        what=f"{value}, and tcp_backlog is {wanted}: many connections at once would be dropped",
        cure=f"sysctl {name}={max(wanted, GOOD_BACKLOG)} (--fix makes it last)",
        fix="sysctl",
    )


def _low_ports(facts: HostFacts, needs: HostNeeds) -> Check:
    """Ports that the kernel keeps for root. Whoever may not have one ends at its start with "permission denied"."""
    limit = facts.sysctls.get(LIMIT_SETTING, USUAL_LIMIT)
    refused = [
        (port, why)
        for port in needs.ports
        if (why := kept_for_root(port.listener, port.port, limit, is_privileged=facts.is_privileged))
    ]
    if not refused:
        return _check(facts, "low ports", f"everybody's from {limit} on")
    first, why = refused[0]
    asked = ", ".join(dict.fromkeys(f"{port.unit} needs {port.port}" for port, _ in refused))
    return Check(
        host=facts.host,
        name="low ports",
        verdict=Verdict.FAIL,
        what=f"{asked}: {why}",
        cure=cure(first.listener, limit),
    )


def _open_files(facts: HostFacts, needs: HostNeeds) -> Check:
    limit, least, good = facts.open_files, least_open_files(needs), good_open_files(needs)
    if limit >= good:
        return _check(facts, "open files", f"{limit}" if limit < 1 << 60 else "unlimited")
    too_few = limit < least and needs.node_count > 0
    what = f"{limit}, and max_clients {needs.max_clients} needs {least}" if too_few else f"{limit}"
    return Check(
        host=facts.host,
        name="open files",
        verdict=Verdict.FAIL if too_few else Verdict.WARN,
        what=what,
        cure=f"a hard limit of {good} for open files (--fix makes it last); it holds from the next login on",
        fix="limits",
    )
