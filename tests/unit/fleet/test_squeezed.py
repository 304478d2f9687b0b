"""A stream is packed where that is quicker, and arrives as it was."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redisforge.fleet.squeezed import MEMBER_BYTES, SqueezedStream

TEXT = b"All happy clusters are alike. " * 10_000
PIECE = 256 * 1024


class Line:
    """A clock by which a line takes its time for every byte, and packing too, when `zlib.compress` packs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, line_bytes_s: float, packing_bytes_s: float = 80e6) -> None:
        self.now_s, self.line_bytes_s = 0.0, line_bytes_s
        self.levels: list[int] = []
        compress = zlib.compress

        def timed(data: bytes, level: int, wbits: int) -> bytes:
            self.levels.append(level)
            self.now_s += len(data) / packing_bytes_s if level else 0.0
            return compress(data, level, wbits=wbits)

        monkeypatch.setattr(zlib, "compress", timed)

    def send(self, stream: SqueezedStream, pieces: Iterable[bytes]) -> bytes:
        sent: list[bytes] = []
        for member in stream.members(pieces):
            sent.append(member)
            self.now_s += len(member) / self.line_bytes_s
        return b"".join(sent)

    def clock(self) -> float:
        return self.now_s


def pieces_of(content: bytes) -> list[bytes]:
    return [content[at : at + PIECE] for at in range(0, len(content), PIECE)]


COMPRESSIBLE = (TEXT * 60)[: 16 * MEMBER_BYTES]


def test_a_slow_line_gets_it_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    line = Line(monkeypatch, line_bytes_s=2e6)
    stream = SqueezedStream(line.clock)
    sent = line.send(stream, pieces_of(COMPRESSIBLE))
    assert gzip.decompress(sent) == COMPRESSIBLE
    assert (stream.raw_bytes, stream.sent_bytes) == (len(COMPRESSIBLE), len(sent))
    assert line.levels == [0, *[1] * 15], "the first member shows what the line is like"
    assert len(sent) < len(COMPRESSIBLE) / 5


def test_a_fast_line_gets_it_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    line = Line(monkeypatch, line_bytes_s=300e6)
    sent = line.send(SqueezedStream(line.clock), pieces_of(COMPRESSIBLE))
    assert gzip.decompress(sent) == COMPRESSIBLE
    assert set(line.levels) == {0}
    assert len(sent) < len(COMPRESSIBLE) * 1.001


def test_what_is_packed_already_is_left_and_tried_again_from_time_to_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """At 20 MB/s packing pays for half of the size, and not for none."""
    line = Line(monkeypatch, line_bytes_s=20e6)
    stream = SqueezedStream(line.clock)
    noise = os.urandom(MEMBER_BYTES)
    line.send(stream, pieces_of(noise * 24))
    assert 0 < sum(line.levels) < 12
    line.levels.clear()
    sent = line.send(stream, pieces_of(COMPRESSIBLE))
    assert gzip.decompress(sent) == COMPRESSIBLE
    assert line.levels[-8:] == [1] * 8, "text again"


def test_a_line_that_becomes_slow_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What its buffers took at once said nothing of the line."""
    line = Line(monkeypatch, line_bytes_s=1e9)
    stream = SqueezedStream(line.clock)
    line.send(stream, pieces_of(COMPRESSIBLE))
    line.line_bytes_s = 1e6
    line.send(stream, pieces_of(COMPRESSIBLE))
    assert line.levels[16:] == [0, *[1] * 15]


@given(st.lists(st.sampled_from([b"a", TEXT, b"\0" * 700_000]), max_size=5), st.floats(1e5, 1e9))
def test_it_arrives_as_it_was(pieces: list[bytes], line_bytes_s: float) -> None:
    now_s, sent = [0.0], list[bytes]()
    for member in SqueezedStream(lambda: now_s[0]).members(pieces):
        assert member, "an empty piece would end the stream"
        sent.append(member)
        now_s[0] += len(member) / line_bytes_s
    whole = b"".join(sent)
    assert (gzip.decompress(whole) if whole else b"") == b"".join(pieces)
