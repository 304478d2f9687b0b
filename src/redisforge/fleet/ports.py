"""Is a port free, and if not, who has it? Reads /proc; asks nobody.

Of the standard library alone: on another host it is run as `python3 -I -c PROGRAM REQUEST` (fleet/host_room.py), and
answers in one line of JSON.
"""

from __future__ import annotations

import errno
import ipaddress
import json
import shutil
import socket
import sys
from pathlib import Path

DENIED = "this user may not"
"""What bind_problem says where the kernel keeps the port for root (plan/low_ports.py says more)."""
_LIMIT = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
_USUAL_LIMIT = 1024
_NET_BIND_SERVICE = 10
"""The number of the capability to listen on every port (linux/capability.h)."""


def bind_problem(address: str, port: int) -> str:
    """Why (address, port) cannot be listened on; empty if it can."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # TIME_WAIT is no occupant
        try:
            probe.bind((address, port))
            probe.listen(1)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return f"in use by {occupant(address, port)}"
            if error.errno == errno.EACCES:
                return DENIED
            return error.strerror or str(error)
    return ""


def unprivileged_from() -> int:
    """The lowest port on which everybody may listen."""
    try:
        return int(_LIMIT.read_text())
    except (OSError, ValueError):
        return _USUAL_LIMIT


def is_privileged() -> bool:
    """Whether this process, and those that it starts, may listen on lower ports too: root's may, unless its
    capabilities were taken."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return False
    capabilities = next((line.split()[1] for line in status.splitlines() if line.startswith("CapEff:")), "0")
    return bool(int(capabilities, 16) >> _NET_BIND_SERVICE & 1)


def occupant(address: str, port: int) -> str:
    """The process that listens in the way of it, in words; other users' processes may be hidden from us."""
    inodes = _listening_inodes(address, port)
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and _has_socket(process, inodes):
            try:
                words = process.joinpath("cmdline").read_bytes().split(b"\0")
            except OSError:
                words = []
            command = b" ".join(words[:3]).decode(errors="replace")[:80]
            return f"process {process.name} ({command.strip() or '?'})"
    return "another process"


def _listening_inodes(address: str, port: int) -> set[str]:
    """Who listens on that very address, or on all of them: others on this port are not in the way."""
    inodes: set[str] = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            listens_on, _, its_port = fields[1].rpartition(":")
            if fields[3] != "0A" or int(its_port, 16) != port:  # 0A: LISTEN
                continue
            if is_in_the_way(listens_on, address):
                inodes.add(f"socket:[{fields[9]}]")
    return inodes


def is_in_the_way(listens_on: str, address: str) -> bool:
    """Whether one that listens on the former keeps another from listening on `address`, on the same port.

    `listens_on` as /proc/net/tcp has it: words of 32 bits, each in the byte order of the machine.
    """
    words = (int(listens_on[start : start + 8], 16) for start in range(0, len(listens_on), 8))
    found, asked = _plain(b"".join(word.to_bytes(4, sys.byteorder) for word in words)), _plain(address)
    return found == asked or found.is_unspecified or asked.is_unspecified


def _plain(address: str | bytes) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The address; one of IPv4 in the clothes of IPv6 as what it is."""
    found = ipaddress.ip_address(address)
    return getattr(found, "ipv4_mapped", None) or found


def _has_socket(process: Path, inodes: set[str]) -> bool:
    try:
        return any(str(link.readlink()) in inodes for link in process.joinpath("fd").iterdir())
    except OSError:
        return False


def main(request: str) -> None:
    """The answer to a request of fleet/host_room.py: {"folder": …, "sockets": [[address, port]…], "paths": […]}."""
    asked = json.loads(request)
    existing = Path(asked["folder"])
    while not existing.exists():
        existing = existing.parent
    answer = {
        "free_bytes": shutil.disk_usage(existing).free,
        "problems": [bind_problem(address, port) for address, port in asked["sockets"]],
        "unprivileged_from": unprivileged_from(),
        "is_privileged": is_privileged(),
        "missing": [path for path in asked["paths"] if not Path(path).exists()],
    }
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
