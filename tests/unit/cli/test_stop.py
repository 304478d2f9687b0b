"""SIGTERM ends a command as Ctrl-C does, also where Ctrl-C is ignored: its tasks clean up, and nothing else is said."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from redisforge.errors import INTERRUPTED_EXIT_STATUS

IGNORING_SIGINT = ("sh", "-c", 'trap "" INT; exec "$@"', "sh")
BUSY = """
import asyncio
from redisforge.cli import main

async def work():
    while True:
        sum(range(20_000))
        await asyncio.sleep(0)

async def all_work():
    tasks = [asyncio.create_task(work()) for _ in range(3)]
    print("busy", flush=True)
    try:
        await asyncio.gather(*tasks)
    finally:
        await asyncio.sleep(0.01)
        print("cleaned up", flush=True)

def command(**_):
    asyncio.run(all_work())

main.command_line = lambda words: command
main.main()
"""


@pytest.mark.parametrize("before", [(), IGNORING_SIGINT], ids=["in front", "in the background"])
def test_a_command_that_is_told_to_stop_cleans_up(before: tuple[str, ...]) -> None:
    argv = (*before, sys.executable, "-c", BUSY)
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "busy\n"
        if before:
            process.send_signal(signal.SIGINT)  # which it does not hear
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=30)
    assert (process.returncode, output) == (INTERRUPTED_EXIT_STATUS, "cleaned up\n"), errors
    assert errors.count("\n") == 1, errors
    assert errors.startswith("interrupted")
