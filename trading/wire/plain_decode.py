"""Taking a plain frame (trading.wire.plain_frame) apart in compiled code: words in, the fields and rows that the feed fold works
on.

The words come out of shared memory, so nothing in them is believed: kind, symbol, flags, ids, the number of levels against the
frame's length, each price and quantity. What does not hold makes the frame MALFORMED, and no field of it is used.
"""

from __future__ import annotations

from typing import Any, Final

from trading.jit import Recs, kernel
from trading.records import Flag
from trading.wire.binance_layout import MAX_SNAPSHOT_LEVELS, Aside, Frame, FrameKind
from trading.wire.plain_frame import (
    HAS_CHECKSUM,
    HEAD,
    IN_BAND,
    MAGIC,
    SUMMARY,
    UNCHECKED,
    W_CHECKSUM,
    W_FIRST,
    W_FLAGS,
    W_KIND,
    W_LAST,
    W_LEVELS,
    W_MAGIC,
    W_PREV,
    W_SYMBOL,
    W_TS,
)
from trading.wire.scan import word_at

_ASK: Final = int(Flag.ASK)
_WORD: Final = 8

MAX_ID: Final = 2**62
"""No id or time in a plain frame is greater."""
MAX_PRICE: Final = 2**59
MAX_QTY: Final = 2**59
assert 2 * MAX_PRICE + 1 < 2**61, "a price and its side are one word, and a key of the book has 61 bits"


@kernel
def is_plain(base: int, end: int) -> bool:
    """Whether the bytes between these addresses begin like a plain frame."""
    return end - base >= _WORD and word_at(base) == MAGIC


@kernel
def _word(base: int, i: int) -> int:
    return word_at(base + _WORD * i)


@kernel
def _level(base: int, i: int) -> tuple[int, int, int]:
    """(side, price, lots) of a level; a price of -1 says that it is none."""
    packed = _word(base, HEAD + 2 * i)
    lots = _word(base, HEAD + 2 * i + 1)
    price = packed >> 1
    if packed < 0 or price > MAX_PRICE or lots < 0 or lots > MAX_QTY:
        return 0, -1, 0
    return packed & 1, price, lots


@kernel
def _take_levels(base: int, n: int, kind: int, frame: Frame, rows: Recs) -> bool:
    """A diff's or snapshot's levels into the rows."""
    bids = 0
    for i in range(n):
        side, price, lots = _level(base, i)
        if price <= 0:
            return False
        row = rows[i]
        row.price_ticks = price
        row.qty_lots = lots
        row.flags = side * _ASK
        bids += 1 - side
    frame.n_levels = n
    return kind == FrameKind.DEPTH or (bids <= MAX_SNAPSHOT_LEVELS and n - bids <= MAX_SNAPSHOT_LEVELS)


@kernel
def _take_bbo(base: int, n: int, frame: Frame) -> bool:
    if n != 2:
        return False
    for i in range(2):
        side, price, lots = _level(base, i)
        if price < 0 or side != i or (price == 0) != (lots == 0):
            return False
        frame.bbo_ticks[i] = price
        frame.bbo_lots[i] = lots
    bid = frame.bbo_ticks[0]
    ask = frame.bbo_ticks[1]
    return bid == 0 or ask == 0 or bid < ask


@kernel
def decode_plain(base: int, end: int, symbols: int, g: Any, rows: Recs) -> int:
    """Decode the plain frame between two addresses into FEED_GLOBAL's fields and rows[0:n_levels]; answers a FrameKind.

    With MALFORMED, `g.symbol` (-1: cannot be told) and `g.is_depth` say whose book may have missed a message.
    """
    g.symbol = -1
    g.is_depth = 0
    g.is_snapshot = 0
    g.plain_flags = 0
    g.enveloped = 0
    g.seen = 0
    g.n_levels = 0
    g.ts_exchange_ns = 0
    n_words = (end - base) // _WORD
    if n_words < HEAD or n_words * _WORD != end - base or _word(base, W_MAGIC) != MAGIC:
        return FrameKind.MALFORMED
    kind = _word(base, W_KIND)
    symbol = _word(base, W_SYMBOL)
    if kind < FrameKind.DEPTH or kind > FrameKind.ASIDE or symbol < 0 or symbol >= symbols:
        return FrameKind.MALFORMED
    g.symbol = symbol
    flags = _word(base, W_FLAGS)
    rest = kind == FrameKind.SNAPSHOT and flags & IN_BAND == 0
    g.is_depth = 1 if kind == FrameKind.DEPTH or (kind == FrameKind.SNAPSHOT and not rest) else 0
    g.is_snapshot = 1 if kind == FrameKind.SNAPSHOT else 0
    n = _word(base, W_LEVELS)
    if n < 0 or n > rows.shape[0] or n_words != HEAD + 2 * n or flags < 0 or flags > (IN_BAND | HAS_CHECKSUM | SUMMARY):
        return FrameKind.MALFORMED
    if kind == FrameKind.DEPTH and 2 * n > rows.shape[0]:
        return FrameKind.MALFORMED  # each level may push another out (`trading.books.trim`), and both are told
    is_book = kind == FrameKind.DEPTH or kind == FrameKind.SNAPSHOT
    summary = flags & SUMMARY != 0
    if (flags & IN_BAND != 0 and kind != FrameKind.SNAPSHOT) or (flags & HAS_CHECKSUM != 0 and not is_book):
        return FrameKind.MALFORMED
    if summary and kind != FrameKind.BBO:
        return FrameKind.MALFORMED
    g.ts_exchange_ns = _word(base, W_TS)
    g.first_id = _word(base, W_FIRST)
    g.last_id = _word(base, W_LAST)
    g.prev_id = _word(base, W_PREV)
    if g.ts_exchange_ns < 0 or g.ts_exchange_ns > MAX_ID or g.first_id < 0 or g.first_id > MAX_ID:
        return FrameKind.MALFORMED
    if g.last_id < 0 or g.last_id > MAX_ID or g.prev_id < UNCHECKED or g.prev_id > MAX_ID:
        return FrameKind.MALFORMED
    if flags & HAS_CHECKSUM != 0 and (_word(base, W_CHECKSUM) < -(1 << 31) or _word(base, W_CHECKSUM) >= 1 << 32):
        return FrameKind.MALFORMED
    g.plain_flags = flags
    g.checksum = _word(base, W_CHECKSUM) & 0xFFFFFFFF
    if is_book:
        good = _take_levels(base, n, kind, g, rows)
    elif kind == FrameKind.BBO:
        good = _take_bbo(base, n, g)
    elif kind == FrameKind.MARK:
        rate = _word(base, HEAD + 1) if n == 1 else 0
        packed = _word(base, HEAD) if n == 1 else 0
        good = n == 1 and packed > 0 and packed & 1 == 0 and packed >> 1 <= MAX_PRICE and -MAX_QTY <= rate <= MAX_QTY
        g.bbo_ticks[0] = packed >> 1
        g.bbo_lots[0] = rate
    else:
        good = n == 1
        g.aside = Aside.BLOCK  # the only ones that typed decoders tell of
        if good:
            side, price, lots = _level(base, 0)
            good = price > 0 and lots > 0
            g.bbo_ticks[0] = price
            g.bbo_lots[0] = lots
            g.maker_is_buyer = 1 - side
    return kind if good else FrameKind.MALFORMED
