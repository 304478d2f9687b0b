"""Clients at work while a test changes the cluster: what they could not do, how long they waited, what was lost.

    with Load(cluster.url("primary")) as load:     # every worker has succeeded once when this returns
        cluster.run("restart", "--yes")
    report = load.stop()                            # inside or after the block
    report.check()                                  # no error, nothing lost

The work is done in a process of its own (load_program.py). A write that failed may have happened or not; only what was
acknowledged has to be there. Each worker asks 100 times a second and is judged by itself: a gap is seen to 10 ms, and
what 800 requests a second cost the client, Envoy and the nodes leaves the machine to what is tested.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import selectors
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
from load_program import Settings

SOURCE = Path(__file__).parents[2] / "src"
PROGRAM = Path(__file__).with_name("load_program.py")
START_LIMIT_S = 20.0
ANSWER_LIMIT_S = 90.0


class LoadReport(msgspec.Struct, frozen=True, kw_only=True):
    """What the clients saw.

    `errors` are the first 20, each with its offset from the start in seconds; `error_window_s` is the time from the
    first to the last of all. A gap is the time between two successes of the same worker, at least 1 / rate.
    `acknowledged` says by key which write was acknowledged last (for a counter: how many INCRs).
    `stale_reads`: a read through the primary endpoint that saw less than had been acknowledged before it began.
    """

    writes: int
    reads: int
    errors: tuple[str, ...]
    error_count: int
    longest_gap_s: float
    longest_gap_at: str
    error_window_s: float
    stale_reads: tuple[str, ...]
    seconds: float
    limit_reached: bool
    lost: tuple[str, ...] = ()
    acknowledged: dict[str, int] = {}

    def check(self) -> None:
        """No client saw an error, and every acknowledged write is there. Raises AssertionError."""
        assert self.error_count == 0, str(self)
        self.check_nothing_lost()
        assert not self.stale_reads, str(self)

    def check_nothing_lost(self) -> None:
        """Every acknowledged write is there, and the load lived to see it. Raises AssertionError."""
        assert not self.limit_reached, f"the load ended by itself after {self.seconds:.0f} s: raise its limits"
        assert self.writes or self.reads, "the load did nothing"
        assert not self.lost, f"{len(self.lost)} lost: {self.lost[:20]}"

    def __str__(self) -> str:
        lines = [
            f"{self.writes} writes, {self.reads} reads in {self.seconds:.1f} s; longest gap {self.longest_gap_s:.3f} s "
            f"(from {self.longest_gap_at}); {self.error_count} errors within {self.error_window_s:.3f} s; "
            f"{len(self.lost)} lost, {len(self.stale_reads)} stale reads",
            *self.errors,
            *(f"lost: {text}" for text in self.lost[:20]),
            *(f"stale: {text}" for text in self.stale_reads),
        ]
        return "\n".join(lines)


class Load:
    """Writers and readers on `url`; readers on `reader_url` if that is given. `options` are those of `Settings`."""

    def __init__(self, url: str, *, writers: int = 4, readers: int = 4, reader_url: str = "", **options: Any) -> None:
        run = secrets.token_hex(4)
        self.settings = Settings(url=url, writers=writers, readers=readers, reader_url=reader_url, run=run, **options)
        self._process: subprocess.Popen[bytes] | None = None
        self._unread = b""
        self._report: LoadReport | None = None

    @property
    def pid(self) -> int:
        """The process of the load."""
        assert self._process, "not started"
        return self._process.pid

    def __enter__(self) -> Load:
        environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
        self._process = subprocess.Popen(
            (sys.executable, str(PROGRAM)), env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._send(msgspec.json.encode(self.settings))
        try:
            assert self._answer(START_LIMIT_S) == {"ready": True}
        except TimeoutError:
            seen = self.so_far()
            self._end()
            raise AssertionError(f"not every worker could begin within {START_LIMIT_S} s: {seen}") from None
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._report is None and kind is None:
            self.stop()
        self._end()

    def so_far(self) -> LoadReport:
        """What has happened until now; nothing is read back."""
        self._send(b"state")
        return msgspec.convert(self._answer(), type=LoadReport)

    def verify(self) -> tuple[str, ...]:
        """Read every acknowledged write back now, while the load goes on: what is lost, by key."""
        if self._report:
            return self._report.lost
        self._send(b"verify")
        return tuple(self._answer()["lost"])

    def await_writes(self, count: int, deadline_s: float = 30.0) -> None:
        """Wait until `count` more writes have succeeded."""
        goal, deadline = self.so_far().writes + count, time.monotonic() + deadline_s
        while (seen := self.so_far()).writes < goal:
            assert time.monotonic() < deadline, f"not {count} more writes within {deadline_s} s: {seen}"
            time.sleep(0.05)

    def stop(self) -> LoadReport:
        """End the load, read everything back, and report. Again: the same report."""
        if self._report is None:
            self._send(b"stop")
            self._report = msgspec.convert(self._answer(), type=LoadReport)
            assert self._process
            self._process.wait(ANSWER_LIMIT_S)
        return self._report

    def _send(self, line: bytes) -> None:
        assert self._process, "use `with Load(...) as load`"
        assert self._process.stdin
        try:
            self._process.stdin.write(line + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise AssertionError(f"the load died: exit status {self._process.wait()}") from None

    def _answer(self, limit_s: float = ANSWER_LIMIT_S) -> Any:
        """The next line of the program as JSON. Raises TimeoutError after `limit_s`."""
        assert self._process
        assert self._process.stdout
        descriptor = self._process.stdout.fileno()
        deadline = time.monotonic() + limit_s
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, selectors.EVENT_READ)
            while b"\n" not in self._unread:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise TimeoutError(f"no answer of the load within {limit_s} s")
                chunk = os.read(descriptor, 1 << 16)
                assert chunk, f"the load died: exit status {self._process.wait()}"
                self._unread += chunk
        line, _, self._unread = self._unread.partition(b"\n")
        return msgspec.json.decode(line)

    def _end(self) -> None:
        if self._process is None:
            return
        with contextlib.suppress(BrokenPipeError):
            if self._process.stdin:
                self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()
