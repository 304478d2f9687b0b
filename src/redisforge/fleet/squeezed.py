"""A stream for another host, packed where the line is slower than the packing.

It is gzip throughout, in members of a mebibyte, one after the other, which is one stream for whoever reads it (RFC
1952, section 2.2). Each member is packed at zlib's fastest level, or stored as it is: what pays follows from what the
last ones took, so a fast line costs a checksum, and a layer that is packed already is not packed again. Docker reads
gzip in `docker load` (moby, pkg/archive, DecompressStream), with all members.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterable, Iterator

MEMBER_BYTES = 1024 * 1024
_GZIP = 31
"""zlib's wbits for a whole gzip member."""
_FASTEST, _STORED = 1, 0
_MEMORY = 0.7
"""What a member counts when the next one is added: about three are remembered."""
_USUAL_RATIO = 0.5
"""Of packed bytes to bytes: what is supposed of content that has not been tried."""
_USUAL_S_PER_BYTE = 1 / 50e6


class SqueezedStream:
    """Packs one stream; `raw_bytes` went in and `sent_bytes` came out until now.

    `clock`: seconds. The time between a member that is given and the next one that is asked for is the line's.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.raw_bytes = 0
        self.sent_bytes = 0
        self._clock = clock
        self._line_bytes = self._line_s = 0.0
        self._ratio = _USUAL_RATIO
        self._packing_s_per_byte = _USUAL_S_PER_BYTE

    def members(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """The gzip stream of `pieces`, member by member, none empty. Packs in the thread that asks."""
        for block in _blocks(pieces):
            pays = self.pays()
            began_s = self._clock()
            member = zlib.compress(block, _FASTEST if pays else _STORED, wbits=_GZIP)
            given_s = self._clock()
            self._note_packing(len(block), len(member), given_s - began_s, packed=pays)
            self.raw_bytes += len(block)
            self.sent_bytes += len(member)
            yield member
            self._line_s = _MEMORY * self._line_s + self._clock() - given_s
            self._line_bytes = _MEMORY * self._line_bytes + len(member)

    def pays(self) -> bool:
        """Whether packing takes less time than the line would with what it spares. Not before the line is known."""
        if not self._line_bytes:
            return False
        spared_s_per_byte = self._line_s / self._line_bytes * (1 - self._ratio)
        return spared_s_per_byte > self._packing_s_per_byte

    def _note_packing(self, raw_bytes: int, packed_bytes: int, seconds: float, *, packed: bool) -> None:
        """What was found, or, of content that was not tried, a step back to what is supposed: it may have changed."""
        ratio = packed_bytes / raw_bytes if packed else _USUAL_RATIO
        weight = 1 - _MEMORY if packed else (1 - _MEMORY) / 8
        self._ratio += weight * (ratio - self._ratio)
        if packed:
            self._packing_s_per_byte += weight * (seconds / raw_bytes - self._packing_s_per_byte)


def _blocks(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in blocks of MEMBER_BYTES or little more; the last one is shorter."""
    block = bytearray()
    for piece in pieces:
        block += piece
        if len(block) >= MEMBER_BYTES:
            yield bytes(block)
            block.clear()
    if block:
        yield bytes(block)
