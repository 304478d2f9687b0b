"""Delays and loses packets that arrive at this host, in user space: for kernels without netem.

    python3 slow_line.py DELAY_MS LOST_PERCENT      until it is killed; prints `ready`

What iptables sends to queue QUEUE_NUMBER is held until its time has come, in order. The rule belongs into INPUT: what
is held in OUTPUT counts against the sender's small queues, and a connection crawls. Of the standard library alone.

The kernel's side, nfnetlink_queue: requests and packets are netlink messages of subsystem 3 with attributes.
Source: linux/netfilter/nfnetlink_queue.h, netlink(7).
"""

from __future__ import annotations

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


def open_queue() -> socket.socket:
    """The queue, bound. Raises OSError."""
    queue = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
    queue.bind((0, 0))
    queue.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    queue.setsockopt(_SOL_NETLINK, _NO_ENOBUFS, 1)
    bind_it = attribute(1, struct.pack("!BBH", 1, 0, 0))
    copy_little = attribute(2, struct.pack("!IB", 64, 1))  # the id is all that is needed of a packet
    length = attribute(3, struct.pack("!I", 65536))
    when_full_accept = attribute(4, struct.pack("!I", 5)) + attribute(5, struct.pack("!I", 5))
    for settings in (bind_it, copy_little, length, when_full_accept):
        queue.send(message(_CONFIG, _REQUEST_ACK, settings))
        problem = -struct.unpack_from("=i", queue.recv(4096), _HEADER_BYTES)[0]
        if problem:
            raise OSError(problem, "the queue cannot be set up")
    return queue


def packet_ids(received: bytes) -> Iterator[int]:
    """The ids of the packets that a read from the queue brought."""
    start = 0
    while start + _HEADER_BYTES <= len(received):
        size, kind = struct.unpack_from("=IH", received, start)
        place = start + _HEADER_BYTES + _FAMILY_BYTES
        while kind == _SUBSYSTEM | _PACKET and place + 4 <= start + size:
            length, name = struct.unpack_from("=HH", received, place)
            if name & 0x3FFF == 1:
                yield struct.unpack_from("!I", received, place + 4)[0]
                break
            place += (length + 3) & ~3
        start += (size + 3) & ~3


def main(delay_s: float, lost: float) -> None:
    """Hold every packet for `delay_s`; let the share `lost` of them vanish."""
    queue = open_queue()
    queue.setblocking(False)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    held: deque[tuple[float, int]] = deque()
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
        for packet_id in packet_ids(received):
            if lost and random.random() < lost:
                queue.send(verdict(packet_id, _DROP))
            else:
                held.append((due, packet_id))


if __name__ == "__main__":
    main(float(sys.argv[1]) / 1000, float(sys.argv[2]) / 100)
