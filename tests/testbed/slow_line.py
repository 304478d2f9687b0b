"""Delays and loses packets that arrive at this host, in user space: for kernels without netem.

    python3 slow_line.py DELAY_MS LOST_PERCENT [first]      until it is killed; prints `ready`

With `first`, the first packet of every new connection of TCP is lost, so that it is sent again after a second.
What iptables sends to queue QUEUE_NUMBER is held until its time has come, in order. The rule belongs into INPUT: what
is held in OUTPUT counts against the sender's small queues, and a connection crawls. Of the standard library alone.

The kernel's side, nfnetlink_queue: requests and packets are netlink messages of subsystem 3 with attributes.
Source: linux/netfilter/nfnetlink_queue.h, netlink(7).
"""

from __future__ import annotations

import itertools
import random
import select
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Iterator

QUEUE_NUMBER = 7
_NETLINK_NETFILTER = 12
_SUBSYSTEM = 3 << 8
_PACKET, _VERDICT, _CONFIG = 0, 1, 2
_REQUEST, _REQUEST_ACK = 1, 5
_SOL_NETLINK, _NO_ENOBUFS = 270, 5
_DROP, _ACCEPT = 0, 1
_HEADER_BYTES = 16
_FAMILY_BYTES = 4
_COPIED_BYTES = 80
"""Of each packet: its headers of IP (at most 60 bytes) and TCP as far as the flags."""

_PACKET_HEADER, _PAYLOAD = 1, 10
_TCP, _SYN, _ACK = 6, 0x02, 0x10


def attribute(kind: int, content: bytes) -> bytes:
    """A netlink attribute, padded to four bytes."""
    return struct.pack("=HH", len(content) + 4, kind) + content + b"\0" * (-len(content) % 4)


def message(kind: int, flags: int, body: bytes) -> bytes:
    """A netlink message to our queue."""
    family = struct.pack("!BBH", socket.AF_UNSPEC, 0, QUEUE_NUMBER)
    return (
        struct.pack("=IHHII", _HEADER_BYTES + len(family) + len(body), _SUBSYSTEM | kind, flags, 0, 0) + family + body
    )


def verdict(packet_id: int, what: int) -> bytes:
    """What shall become of a packet."""
    return message(_VERDICT, _REQUEST, attribute(2, struct.pack("!II", what, packet_id)))


def open_queue(*, with_headers: bool) -> socket.socket:
    """The queue, bound. Without the packets' headers each costs less. Raises OSError."""
    queue = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
    queue.bind((0, 0))
    queue.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    queue.setsockopt(_SOL_NETLINK, _NO_ENOBUFS, 1)
    bind_it = attribute(1, struct.pack("!BBH", 1, 0, 0))
    copy_mode = attribute(2, struct.pack("!IB", _COPIED_BYTES, 2 if with_headers else 1))
    length = attribute(3, struct.pack("!I", 65536))
    when_full_accept = attribute(4, struct.pack("!I", 5)) + attribute(5, struct.pack("!I", 5))
    for settings in (bind_it, copy_mode, length, when_full_accept):
        queue.send(message(_CONFIG, _REQUEST_ACK, settings))
        problem = -struct.unpack_from("=i", queue.recv(4096), _HEADER_BYTES)[0]
        if problem:
            raise OSError(problem, "the queue cannot be set up")
    return queue


def packets(received: bytes, *, with_headers: bool) -> Iterator[tuple[int, bytes]]:
    """The packets that a read from the queue brought: their ids, and first bytes if these are wanted."""
    start = 0
    while start + _HEADER_BYTES <= len(received):
        size, kind = struct.unpack_from("=IH", received, start)
        if kind == _SUBSYSTEM | _PACKET:
            attributes = _attributes(received, start + _HEADER_BYTES + _FAMILY_BYTES, start + size)
            found = dict(attributes if with_headers else itertools.islice(attributes, 1))  # the id comes first
            yield struct.unpack_from("!I", found[_PACKET_HEADER])[0], found.get(_PAYLOAD, b"")
        start += (size + 3) & ~3


def _attributes(received: bytes, place: int, end: int) -> Iterator[tuple[int, bytes]]:
    while place + 4 <= end:
        length, name = struct.unpack_from("=HH", received, place)
        yield name & 0x3FFF, received[place + 4 : place + length]
        place += (length + 3) & ~3


def opens_connection(packet: bytes) -> bytes:
    """If this is the first packet of a connection of TCP over IPv4: from where to where; else nothing."""
    header = (packet[0] & 0x0F) * 4 if packet else 0
    if len(packet) < header + 14 or packet[0] >> 4 != 4 or packet[9] != _TCP:
        return b""
    return packet[12:20] + packet[header : header + 4] if packet[header + 13] & (_SYN | _ACK) == _SYN else b""


def main(delay_s: float, lost: float, lose_first: bool) -> None:
    """Hold every packet for `delay_s`; let the share `lost` of them vanish, and the first of connections."""
    queue = open_queue(with_headers=lose_first)
    queue.setblocking(False)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    held: deque[tuple[float, int]] = deque()
    seen: set[bytes] = set()
    while True:
        now = time.monotonic()
        while held and held[0][0] <= now:
            queue.send(verdict(held.popleft()[1], _ACCEPT))
        ready, _, _ = select.select([queue], [], [], max(0.0, held[0][0] - now) if held else None)
        if not ready:
            continue
        try:
            received = queue.recv(1 << 20)
        except BlockingIOError:
            continue
        due = time.monotonic() + delay_s
        for packet_id, packet in packets(received, with_headers=lose_first):
            opened = opens_connection(packet) if lose_first else b""
            is_first = bool(opened) and opened not in seen
            seen.add(opened)
            if is_first or (lost and random.random() < lost):
                queue.send(verdict(packet_id, _DROP))
            else:
                held.append((due, packet_id))


if __name__ == "__main__":
    main(float(sys.argv[1]) / 1000, float(sys.argv[2]) / 100, "first" in sys.argv[3:])
