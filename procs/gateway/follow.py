"""A ring followed from outside: the newest record of each symbol, and every record in order while nothing laps us.

The reader is in no table of the ring: it copies a slot and looks whether its sequence stood before and after, so a torn record
is never seen and no writer ever waits. Lapped, it goes on at what is still there and counts what it missed.

What this module is not: it waits for nothing; the caller looks as often as it likes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from ringbuf import layout
from ringbuf.batch import observe_rows
from ringbuf.jit import Recs, Words, kernel
from ringbuf.layout import CAPACITY, TAIL
from ringbuf.ring import I_HEAD, LOC_WORDS
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
        words = words.view()
        words.flags.writeable = False  # also so that the kernels have one type, whether it lies in a segment or on the heap
        self._ctl, self._slots, _ = layout.views(words, record)
        self._loc = np.zeros(LOC_WORDS, np.int64)
        self._into = np.zeros((CHUNK, record.itemsize // 8), np.int64)
        self._recs: Recs = self._into.reshape(-1).view(record)
        self._kinds = int(kinds[0]), int(kinds[1])
        self.newest: Final[Recs] = np.zeros(symbols, record)
        self.lost = 0
        self.ended = False
        capacity, tail = int(self._ctl[CAPACITY]), int(self._ctl[TAIL])
        self._loc[I_HEAD] = max(0, tail - capacity + (capacity >> 2))

    @property
    def head(self) -> int:
        """Sequence of the next record, from 0."""
        return int(self._loc[I_HEAD])

    def look(self) -> Iterator[tuple[Recs, bool]]:
        """The records since the last look, in chunks that are overwritten by the next one; True where records were missed."""
        for _ in range(ROUNDS):
            count, lost = observe_rows(self._ctl, self._slots, self._loc, self._into, CHUNK)
            if count == 0 and lost == 0:
                return
            self.lost += lost
            recs = self._recs[:count]
            if keep_newest(recs, *self._kinds, self.newest):
                self.ended = True
            yield recs, lost > 0
            if count < CHUNK:
                return

    def newest_of(self, symbol: int) -> Any | None:
        """The symbol's newest record, a copy; None if none was seen."""
        record = self.newest[symbol]
        return record.copy() if record["seq"] else None
