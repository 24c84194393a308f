"""Cutting a book to the depth that its stream covers.

A stream of so many levels (Kraken's) does not say when a level falls out behind them: whoever keeps it would see it again, long
wrong, when the book before it gets thinner. So the worst levels go as soon as there are more than the stream covers, and
whoever mirrors the book is told.

What this module is not: the bound of a book's memory (`trading.books.book`).
"""

from __future__ import annotations

from typing import Any, Final

from trading.books import book
from trading.books.state import State
from trading.books.told import depth_record
from trading.jit import Recs, kernel
from trading.records import Flag, Kind

_ASK: Final = int(Flag.ASK)
_VALID: Final = int(Flag.BOOK_VALID)
_SLOTS: Final = book.WINDOW - 1


@kernel
def worst_key(st: State, side: int) -> int:
    """The largest key of a side, NO_KEY if it is empty."""
    if st.best[side] == book.NO_KEY:
        return book.NO_KEY
    if st.far_count[side] > 0:
        return book.worst_far(st, side)
    key = st.base[side] + book.WINDOW - 1
    while True:
        slot = key & _SLOTS
        word = st.bits0[side, slot >> 6]
        if word == 0:
            key -= (slot & 63) + 1
        elif word & (1 << (slot & 63)) == 0:
            key -= 1
        else:
            return key


@kernel
def trim(st: State, g: Any, n: int, out: Recs) -> int:
    """Remove the levels beyond `depth_limit` (0: no limit), worst first, and tell it in out[n:] (n < 0: not told).

    Answers the next free row.
    """
    if st.depth_limit == 0:
        return n
    for side in range(2):
        while book.count_levels(st, side) > st.depth_limit:
            key = worst_key(st, side)
            book.set_level(st, side, key, 0)
            if n >= 0:
                flags = _VALID | (_ASK if side == book.ASK else 0)
                depth_record(out[n], g, Kind.DEPTH, flags, abs(key), 0, st.last_id)
                n += 1
    return n
