"""The files that `host prepare` and `host check --fix` put on a host: the kernel's settings, limits, huge pages."""

from __future__ import annotations

from collections.abc import Mapping

SYSCTL_PATH = "/etc/sysctl.d/60-redisforge.conf"
LIMITS_PATH = "/etc/security/limits.d/60-redisforge.conf"
SYSTEMD_LIMITS_PATH = "/etc/systemd/system.conf.d/60-redisforge.conf"
HUGE_PAGES_UNIT = "redisforge-huge-pages.service"
HUGE_PAGES_UNIT_PATH = f"/etc/systemd/system/{HUGE_PAGES_UNIT}"
HUGE_PAGES_SWITCH = "/sys/kernel/mm/transparent_hugepage/enabled"
OWN_PATHS = (SYSCTL_PATH, LIMITS_PATH, SYSTEMD_LIMITS_PATH, HUGE_PAGES_UNIT_PATH)
"""Every file of these; each is RedisForge's alone, so that taking it away takes back what it did."""

_REASONS = {
    "vm.overcommit_memory": "A fork for a snapshot or an AOF rewrite is not refused for memory that it will not use.",
    "vm.swappiness": "Data stays in memory while there is any.",
    "net.core.somaxconn": "Connections that may wait to be accepted.",
    "net.ipv4.tcp_max_syn_backlog": "Connections that may be in their handshake.",
}
_SYSTEMD_HARD_LIMIT = 524_288
"""systemd's own default of the hard limit, which must not become less (systemd-system.conf(5))."""
_SYSTEMD_SOFT_LIMIT = 1024
"""Its default of the soft one: programs with select(2) break above it, and the keeper raises it by itself."""


def sysctl_text(values: Mapping[str, int]) -> str:
    """sysctl.d(5): each parameter with what it is good for."""
    lines = ["# What Redis asks of the kernel. Written by redisforge host prepare."]
    for name, value in sorted(values.items()):
        lines += [f"# {_REASONS[name]}" if name in _REASONS else "#", f"{name} = {value}"]
    return "\n".join(lines) + "\n"


def limits_text(open_files: int) -> str:
    """limits.conf(5): the hard limit alone; who needs more than the soft one raises it himself."""
    return (
        "# Each client of a Redis node or an Envoy is an open file. Written by redisforge host prepare.\n"
        f"*    hard nofile {open_files}\n"
        f"root hard nofile {open_files}\n"
    )


def systemd_limits_text(open_files: int) -> str:
    """The same for services (systemd-system.conf(5)), which PAM's limits do not reach."""
    hard = max(open_files, _SYSTEMD_HARD_LIMIT)
    return (
        "# Each client of a Redis node or an Envoy is an open file. Written by redisforge host prepare.\n"
        "[Manager]\n"
        f"DefaultLimitNOFILE={_SYSTEMD_SOFT_LIMIT}:{hard}\n"
    )


def huge_pages_unit_text() -> str:
    """A service that sets transparent huge pages to `madvise` at each boot."""
    return (
        "# Written by redisforge host prepare.\n"
        "[Unit]\n"
        "Description=Transparent huge pages only for programs that ask for them, as Redis advises\n"
        f"ConditionPathExists={HUGE_PAGES_SWITCH}\n"
        "Before=docker.service\n"
        "\n"
        "[Service]\n"
        "Type=oneshot\n"
        "RemainAfterExit=yes\n"
        f"ExecStart=/bin/sh -c 'echo madvise > {HUGE_PAGES_SWITCH}'\n"
        "\n"
        "[Install]\n"
        "WantedBy=multi-user.target\n"
    )
