"""A ring followed from outside: the newest record of each symbol, and every record in order while nothing laps us.

What this module is not: it waits for nothing; the caller looks as often as it likes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from ringbuf.endpoint import Observer
from ringbuf.jit import Recs, Words, kernel
from trading.records import Kind

END: Final = int(Kind.END)
CHUNK: Final = 1024
ROUNDS: Final = 16
"""Chunks of one look: four rings' worth. A writer that is faster than that laps us, and we catch up at the next look."""


@kernel
def keep_newest(recs: Recs, first_kind: int, last_kind: int, kept: Recs) -> int:
    """Copy the last record of each symbol, if its kind is within the bounds, to `kept[symbol]`; 1 if an END was among them."""
    ended = 0
    for i in range(len(recs)):
        kind, symbol = recs[i].kind, recs[i].symbol
        if kind == END:
            ended = 1
        elif first_kind <= kind <= last_kind and 0 <= symbol < len(kept):
            kept[symbol] = recs[i]
    return ended


class Follower:
    """One ring. `newest[symbol]` has `seq` 0 until a record of that symbol was seen."""

    def __init__(self, words: Words, record: np.dtype, symbols: int, kinds: tuple[Kind, Kind]) -> None:
        """`words`: the ring's payload; `kinds`: first and last Kind that count as a symbol's newest."""
        self._ring: Final = Observer(words, record)
        self._into: Final = np.zeros((CHUNK, record.itemsize // 8), np.int64)
        self._kinds = int(kinds[0]), int(kinds[1])
        self.newest: Final[Recs] = np.zeros(symbols, record)
        self.ended = False

    @property
    def head(self) -> int:
        """Sequence of the next record, from 0."""
        return self._ring.head

    @property
    def lost(self) -> int:
        """Records that were overwritten before they were looked at."""
        return self._ring.lost

    def look(self) -> Iterator[tuple[Recs, bool]]:
        """The records since the last look, in chunks that are overwritten by the next one; True where records were missed."""
        for _ in range(ROUNDS):
            lost = self.lost
            recs = self._ring.poll_into(self._into)
            if len(recs) == 0 and self.lost == lost:
                return
            if keep_newest(recs, *self._kinds, self.newest):
                self.ended = True
            yield recs, self.lost > lost
            if len(recs) < CHUNK:
                return

    def newest_of(self, symbol: int) -> Any | None:
        """The symbol's newest record, a copy; None if none was seen."""
        record = self.newest[symbol]
        return record.copy() if record["seq"] else None
