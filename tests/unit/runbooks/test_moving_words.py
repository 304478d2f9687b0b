"""What an operator reads while slots move."""

from __future__ import annotations

import pytest

from redisforge.redis.moving import MoveProgress, MoveResult
from redisforge.runbooks.moving import moved_text, progress_text


@pytest.mark.parametrize(
    ("size_bytes", "words"),
    [
        (0, ", 2 s left"),
        (400, ", 200 B/s, 2 s left"),
        (50_000, ", 24.4 KB/s, 2 s left"),
        (6_000_000, ", 2.9 MB/s, 2 s left"),
    ],
)
def test_a_rate_is_told_in_a_unit_that_shows_it(size_bytes: int, words: str) -> None:
    progress = MoveProgress(
        slots_done=10, slots_total=20, keys_done=5, keys_total=5, bytes_done=size_bytes, bytes_total=0, elapsed_s=2.0
    )
    assert progress_text(progress) == f"moving slots: 10 of 20, 5 of 5 keys{words}"


def test_what_was_moved_is_told_without_the_size_of_nothing() -> None:
    done = MoveResult(slots_moved=4096, keys_moved=0, bytes_moved=0, seconds=2.75)
    assert moved_text(done) == "moved 4096 slots, 0 keys in 2.75 s"
    done = MoveResult(slots_moved=9, keys_moved=3, bytes_moved=4096, seconds=2.0)
    assert moved_text(done) == "moved 9 slots, 3 keys, 4.0 KB in 2.00 s (2.0 KB/s)"
