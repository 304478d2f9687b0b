"""Reads what host_probe.sh and host_reach.py have printed. Pure: texts to facts."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

import msgspec

from redisforge.errors import HostError
from redisforge.model.host_facts import (
    ClockSample,
    DockerFacts,
    FolderFacts,
    HostFacts,
    ListeningSocket,
    Reach,
)
from redisforge.plan.low_ports import may_bind_all

UNLIMITED = 1 << 62
"""Stands for `unlimited`."""
_PUBLISHED = re.compile(r"([\d.]+|\[[\da-f:]+\]):(\d+)(?:-(\d+))?->")
"""As `docker ps` shows them, neighbours as one: 10.0.0.1:7001-7002->7001-7002/tcp."""
_VERSION = re.compile(r"\d+(?:\.\d+)+")


class Travel(msgspec.Struct, frozen=True):
    """When a command was sent and when its answer was there, by the operator's clock (seconds since 1970)."""

    sent_s: float
    answered_s: float


class ReachAnswer(msgspec.Struct, frozen=True):
    """What a host said of its attempts. `deaf` are the ports of its own at which it could not listen."""

    reaches: tuple[Reach, ...]
    deaf: frozenset[int]
    clock: ClockSample | None


def read_probe(host: str, folder: str, stdout: str, travel: Travel) -> HostFacts:
    """The facts from host_probe.sh's output.

    Raises:
        HostError: the program did not come to its end.
    """
    pairs = [(key, value) for key, found, value in (line.partition("=") for line in stdout.splitlines()) if found]
    said = dict(pairs)
    if "ended" not in said or "system" not in said:
        raise HostError("the host did not finish describing itself", where=host, why=stdout[-500:] or "it said nothing")
    open_files = said.get("open_files", "")
    return HostFacts(
        host=host,
        system=said["system"],
        distribution=said.get("distribution", ""),
        kernel=said.get("kernel", ""),
        architecture=said.get("architecture", ""),
        machine=said.get("machine", ""),
        user=said.get("user", ""),
        is_root=said.get("uid") == "0",
        is_privileged=may_bind_all(said.get("capabilities", "")),
        can_sudo=said.get("sudo") == "yes",
        init=said.get("init", ""),
        python=said.get("python", ""),
        missing_tools=tuple(value for key, value in pairs if key == "missing"),
        docker=_docker(said),
        folder=_folder(folder, said),
        cores=_number(said.get("cores")),
        memory_bytes=_number(said.get("memory_kib")) * 1024,
        swap_bytes=_number(said.get("swap_kib")) * 1024,
        huge_pages=said.get("huge_pages", ""),
        open_files=UNLIMITED if open_files == "unlimited" else _number(open_files),
        sysctls={key.partition(".")[2]: _number(value) for key, value in pairs if key.startswith("sysctl.")},
        listeners=tuple(_listener(value) for key, value in pairs if key == "listener"),
        files=_files(pairs),
        clock=clock_sample(said.get("began", ""), said["ended"], travel),
    )


def clock_sample(began: str, ended: str, travel: Travel) -> ClockSample | None:
    """The host's clock against the operator's, from the four times of an exchange (RFC 5905, section 8).

    Busybox's `date` may not know %N: then there are whole seconds only, and a second more of uncertainty.
    """
    try:
        first_s, last_s = (float(text if text[-1:].isdigit() else text.partition(".")[0]) for text in (began, ended))
    except ValueError:
        return None
    offset_s = ((first_s - travel.sent_s) + (last_s - travel.answered_s)) / 2
    under_way_s = max(0.0, (travel.answered_s - travel.sent_s) - (last_s - first_s))
    return ClockSample(offset_s, under_way_s / 2 + (0.0 if "." in began and began[-1:].isdigit() else 1.0))


def read_reaches(host: str, stdout: str, travel: Travel) -> ReachAnswer:
    """What host_reach.py (or .sh) said on `host`.

    Raises:
        HostError: the program did not come to its end.
    """
    reaches: list[Reach] = []
    deaf: set[int] = set()
    times: dict[str, str] = {}
    for line in stdout.splitlines():
        kind, *words = line.split("\t")
        if kind == "reach" and len(words) == 5:
            target, address, port, took, problem = words
            reaches.append(Reach(host, target, address, int(port), problem, float(took) if took else None))
        elif kind == "deaf" and len(words) >= 2:
            deaf.add(int(words[1]))
        elif kind in {"began", "ended"} and words:
            times[kind] = words[0]
    if "ended" not in times:
        raise HostError("the host did not finish trying the others", where=host, why=stdout[-500:] or "it said nothing")
    return ReachAnswer(tuple(reaches), frozenset(deaf), clock_sample(times.get("began", ""), times["ended"], travel))


def _docker(said: dict[str, str]) -> DockerFacts:
    client = _VERSION.search(said.get("docker.client", ""))
    return DockerFacts(
        client=client[0] if client else said.get("docker.client", ""),
        server=said.get("docker.server", ""),
        storage_driver=said.get("docker.driver", ""),
        problem=said.get("docker.problem", "").strip(" |"),
        published=tuple(
            (found[1].strip("[]"), port)
            for found in _PUBLISHED.finditer(said.get("docker.published", ""))
            for port in range(int(found[2]), int(found[3] or found[2]) + 1)
        ),
    )


def _folder(path: str, said: dict[str, str]) -> FolderFacts:
    speed: float | None = None
    if "folder.written_mib" in said:
        try:
            took_s = float(said["folder.write_ended"]) - float(said["folder.write_began"])
        except (KeyError, ValueError):  # a clock without fractions: too coarse for this
            took_s = 0.0
        speed = _number(said["folder.written_mib"]) * 2**20 / took_s if took_s > 0 else None
    problem = said.get("folder.write_problem", "")
    if speed is None and not problem:
        problem = "it was not measured"
    return FolderFacts(
        path=path,
        existing=said.get("folder.existing", ""),
        is_writable=said.get("folder.writable") == "yes",
        free_bytes=_number(said.get("folder.free_kib")) * 1024,
        write_bytes_per_s=speed,
        write_problem=problem,
    )


def _listener(text: str) -> ListeningSocket:
    place, pid, folder, command = (*text.split("\t"), "", "", "")[:4]
    address, _, port = place.partition(":")
    return ListeningSocket(_address(address), int(port, 16), _number(pid), folder, command.strip())


def _address(hexadecimal: str) -> str:
    """An address as /proc/net/tcp has it: words of 32 bits, each in the order of a little-endian machine."""
    raw = bytes.fromhex(hexadecimal)
    in_order = b"".join(raw[at : at + 4][::-1] for at in range(0, len(raw), 4))
    address = ipaddress.ip_address(in_order)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def _files(pairs: list[tuple[str, str]]) -> dict[str, str]:
    texts: dict[str, list[str]] = {}
    path = ""
    for key, value in pairs:
        if key == "file":
            path = value
            texts[path] = []
        elif key == "line" and path:
            texts[path].append(value)
    return {name: "".join(f"{line}\n" for line in lines) for name, lines in texts.items()}


def _number(text: str | None) -> int:
    digits = "".join(_leading_digits(text or ""))
    return int(digits) if digits else 0


def _leading_digits(text: str) -> Iterator[str]:
    for character in text.strip():
        if not character.isascii() or not character.isdigit():
            return
        yield character
