"""The checksums that venues send of their books, computed from integer ticks and lots without building a string.

Kraken: CRC32 over the best ten asks, then the best ten bids, each price and quantity as the digits of the venue's own
decimals, without the point and without leading zeros. The instrument's tick and lot must have the venue's number of decimals.

OKX: CRC32 over the best 25 levels, `bid price:bid quantity:ask price:ask quantity:...`, interleaved while both sides have levels,
then the longer side alone; numbers as the venue prints them, which is always without trailing zeros ("30244", "0.08").

Both rules reproduce every checksum of the recordings (4,269 of Kraken's, 290 of OKX's).

What this module is not: it does not decide what a mismatch means.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from trading.books import book
from trading.books.state import State
from trading.instruments import by_market
from trading.jit import kernel
from trading.venues.names import Checksum

KRAKEN_LEVELS: Final = 10
OKX_LEVELS: Final = 25
_RULES: Final = by_market(lambda facts: facts.checksum, Checksum.NONE)
_ALL: Final = 0xFFFFFFFF
_ZERO: Final = ord("0")
_DOT: Final = ord(".")
_COLON: Final = ord(":")


def _crc_table() -> np.ndarray:
    """CRC-32 (the reflected polynomial of zlib and PNG) of each single byte."""
    table = np.arange(256, dtype=np.int64)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ 0xEDB88320, table >> 1)
    return table


_TABLE: Final = _crc_table()


@kernel
def _add(crc: int, byte: int) -> int:
    return (crc >> 8) ^ _TABLE[(crc ^ byte) & 0xFF]


@kernel
def _add_number(crc: int, units: int, decimals: int, g: Any) -> int:
    """Go on with the digits of `units`, a point before the last `decimals` of them (0: no point)."""
    n = 0
    while units > 0 or n <= decimals:
        g.digits[n] = units % 10
        units //= 10
        n += 1
    while n > 0:
        if n == decimals:
            crc = _add(crc, _DOT)
        n -= 1
        crc = _add(crc, _ZERO + g.digits[n])
    return crc


@kernel
def _add_shortest(crc: int, units: int, decimals: int, g: Any) -> int:
    """Go on with `units * 10**-decimals` as it is printed without zeros behind."""
    while decimals > 0 and units % 10 == 0:
        units //= 10
        decimals -= 1
    return _add_number(crc, units, decimals, g)


@kernel
def _kraken(st: State, instrument: Any, g: Any) -> int:
    crc = _ALL
    for i in range(2):
        side = book.ASK if i == 0 else book.BID
        key = st.best[side]
        n = 0
        while key != book.NO_KEY and n < KRAKEN_LEVELS:
            crc = _add_number(crc, abs(key) * instrument.tick_units, 0, g)
            crc = _add_number(crc, book.lots_at(st, side, key), 0, g)
            n += 1
            key = book.next_key(st, side, key + 1)
    return crc ^ _ALL


@kernel
def _okx(st: State, instrument: Any, g: Any) -> int:
    crc = _ALL
    bid = st.best[book.BID]
    ask = st.best[book.ASK]
    first = True
    for _ in range(OKX_LEVELS):
        for side in range(2):
            key = bid if side == book.BID else ask
            if key == book.NO_KEY:
                continue
            if not first:
                crc = _add(crc, _COLON)
            first = False
            crc = _add_shortest(crc, abs(key) * instrument.tick_units, instrument.price_decimals, g)
            crc = _add(crc, _COLON)
            crc = _add_shortest(crc, book.lots_at(st, side, key), instrument.qty_decimals, g)
            if side == book.BID:
                bid = book.next_key(st, side, key + 1)
            else:
                ask = book.next_key(st, side, key + 1)
    return crc ^ _ALL


@kernel
def has_rule(instrument: Any) -> bool:
    """Whether this venue's checksum is known here."""
    return _RULES[instrument.market] != Checksum.NONE


@kernel
def book_checksum(st: State, instrument: Any, g: Any) -> int:
    """The venue's CRC32 of the symbol's book, 0 .. 2**32 - 1. `g.digits` (24 words) is scratch."""
    return _okx(st, instrument, g) if _RULES[instrument.market] == Checksum.SHORTEST else _kraken(st, instrument, g)
