"""The written forms of option values: sizes, versions, names, addresses. Pure.

A ValueError says what is wrong; its text continues the option's name: "memory.max: must be at least 16mb"."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable

NAME_PATTERN = r"^[a-z0-9][a-z0-9-]{0,30}$"
"""Names of clusters and endpoints: they become folder names and parts of URLs and metric names."""
HOST_NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"
"""Names of hosts and zones; 63 characters is the longest DNS label (RFC 1035, section 2.3.4)."""
LABEL_PATTERN = r"^[^\x00-\x1f\x7f]{1,200}$"
"""What a label of a host says: one line."""
SSH_WORD_PATTERN = r"^[A-Za-z0-9_\[][A-Za-z0-9._:@%+\[\]-]{0,254}$"
"""Users, addresses and jump hosts of SSH; none begins with a hyphen, which would be an option."""
USER_NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"
"""Names of ACL users. Narrower than Redis allows, so that they need no quoting in any file or URL."""
VERSION_PATTERN = r"^(newest|(>=)?[0-9]{1,3}(\.[0-9]{1,4}){1,2})$"
SIZE_PATTERN = r"^[0-9]{1,12}(b|k|kb|m|mb|g|gb)?$"
DIRECTIVE_PATTERN = r"^[A-Za-z][A-Za-z0-9._-]{0,126}$"

MIN_MEMORY_BYTES = 16 * 1024 * 1024
"""An empty cluster node uses about 4 MB and its replication backlog several more."""

_SIZE_FACTORS = {
    "": 1,
    "b": 1,
    "k": 1000,
    "kb": 1024,
    "m": 1000**2,
    "mb": 1024**2,
    "g": 1000**3,
    "gb": 1024**3,
}
"""Redis's own units: `k` is 1000 bytes and `kb` 1024 (redis.conf, "Note on units")."""

_ARGUMENT = r"""[^\s"']*(?:"(?:\\.|[^"\\])*"|'(?:\\'|[^'\\]|\\(?!'))*')?"""
_ARGUMENTS = re.compile(rf"(?:{_ARGUMENT}\s)*{_ARGUMENT}")
"""Arguments as Redis splits them (sdssplitargs): after a closing quote comes white space or the end."""


class WrittenFloat(float):
    """A number that remembers how it was written, so that the version 8.10 does not become 8.1."""

    text: str

    def __new__(cls, text: str) -> WrittenFloat:
        """Read `text`; raises ValueError."""
        made = super().__new__(cls, text)
        made.text = text
        return made


def as_written(value: object) -> object:
    """A number as the text it was written as; anything else unchanged."""
    if isinstance(value, WrittenFloat):
        return value.text
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return value


def matching(pattern: str, words: str) -> Callable[[str], str]:
    """A check that a text matches `pattern`; `words` completes the sentence "must be ..."."""
    compiled = re.compile(pattern.removesuffix("$") + r"\Z")

    def check(value: str) -> str:
        if not compiled.match(value):
            raise ValueError(f"must be {words}")
        return value

    return check


IMAGE_PATTERN = r"^([A-Za-z0-9][A-Za-z0-9._:/@-]{0,254})?$"
"""The name of a container image, perhaps with its registry, tag and digest; empty: none given."""


def size_bytes(text: str) -> int:
    """`"256mb"` in bytes, by Redis's units.

    Raises:
        ValueError: not a size.
    """
    match = re.match(r"([0-9]{1,12})([a-z]*)\Z", text.lower())
    if not match or match[2] not in _SIZE_FACTORS:
        raise ValueError('must be a size such as "256mb" or "4gb"')
    return int(match[1]) * _SIZE_FACTORS[match[2]]


def check_memory(text: str) -> str:
    """Accept a size of at least 16mb. Raises ValueError."""
    if size_bytes(text) < MIN_MEMORY_BYTES:
        raise ValueError("must be at least 16mb")
    return text


def check_size(text: str) -> str:
    """Accept any size, 0 included. Raises ValueError."""
    size_bytes(text)
    return text


def version_numbers(version: str) -> tuple[int, ...]:
    """`"8.6"` or `">=8.6"` as (8, 6); empty for `"newest"`."""
    return tuple(int(part) for part in re.findall(r"[0-9]+", version))


def host_address(text: str) -> str:
    """The address of a host in its canonical form; `localhost` is 127.0.0.1.

    Nodes tell each other and their clients these addresses, so a name would not do.

    Raises:
        ValueError: not an address, or not the address of one machine.
    """
    if text.lower() == "localhost":
        return "127.0.0.1"
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise ValueError("must be an IP address: nodes and clients go by addresses, not by names") from None
    mapped = isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None
    reserved = address.is_unspecified or address.is_multicast or address.is_link_local or address.is_reserved
    if mapped or (reserved and not address.is_loopback):
        raise ValueError("must be the address of one machine, at which the other hosts and the clients reach it")
    return str(address)


def is_loopback(address: str) -> bool:
    """Whether a canonical address reaches nothing but the machine itself."""
    return ipaddress.ip_address(address).is_loopback


def check_host_folder(text: str) -> str:
    """Accept the absolute path of a folder that is not the root.

    Scripts on the host name it, so it has no character that a shell would take for something else.

    Raises:
        ValueError: anything else.
    """
    path = text.rstrip("/")
    if not re.fullmatch(r"(/[A-Za-z0-9._+-]+)+", path) or {".", ".."} & set(path.split("/")):
        raise ValueError("must be a folder below /, by an absolute path of letters, digits and any of . _ + - /")
    return path


def check_certificate_name(text: str) -> str:
    """Accept a DNS name (a leading `*.` included) or an IP address. Raises ValueError."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        labels = text.removeprefix("*.").rstrip(".").split(".")
        label = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\Z")
        if len(text) > 253 or not all(label.match(part) for part in labels):
            raise ValueError("must be a DNS name or an IP address") from None
    return text


def check_path(text: str) -> str:
    """Accept a file path without control characters. Raises ValueError."""
    if not text.isprintable() or len(text) > 4096:
        raise ValueError("must be a file path without control characters")
    return text


def directive_value(value: object) -> str:
    """One value of a redis.conf directive as it stands in the file; true and false are yes and no.

    Raises:
        ValueError: not a plain value, a line break in it, or quotes that Redis cannot read.
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = as_written(value)
    if not isinstance(text, str):
        raise ValueError("must be text, a number, true or false, or a list of those")  # noqa: TRY004
    if len(text) > 4096 or not text.isprintable():
        raise ValueError("must be one line without control characters, at most 4096 characters")
    if not _ARGUMENTS.fullmatch(text):
        raise ValueError("has a quote that is not closed, or text right after a closing quote")
    return text.strip() or '""'


def directive_values(value: object) -> tuple[str, ...]:
    """The lines of a directive: one for a plain value, one for each item of a list. Raises ValueError."""
    if isinstance(value, list | tuple):
        items: list[object] = list(value)  # pyright: ignore[reportUnknownArgumentType,reportUnknownVariableType]
        if not items:
            raise ValueError("must have at least one value")
        return tuple(directive_value(item) for item in items)
    return (directive_value(value),)
