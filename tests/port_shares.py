"""Which ports tests try, where several processes test at once: trying takes a port for a moment.

All lie below the range from which the kernel takes the ports of outgoing connections (32768 and up), so that no
connection made between a check and a server's start can take one away.
"""

from __future__ import annotations

import os

BLOCK_SIZE = 250
"""Ports of one cluster: its nodes, their buses, Envoys and endpoints."""
_WORKERS = 2
_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _WORKERS

BLOCKS = range(23000, 30000, BLOCK_SIZE)[_worker::_WORKERS]
"""First ports of blocks."""
SINGLE = range(20000, 22700)[_worker::_WORKERS]
"""Ports of nodes with the default bus offset of 10000: their buses lie above all blocks."""
