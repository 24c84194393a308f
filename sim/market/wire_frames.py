"""Frames as Binance sends them, byte for byte, written into a buffer by kernels.

Spot and futures differ in fields and decimals, COIN-M names the pair too; each function writes what the instrument's market
sends. The text is that of the combined streams (`{"stream":...,"data":...}`), the REST snapshot is a plain object.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from sim.market.book import ASK, BID, lots_at, price_of
from trading.instruments import Market as Venue
from trading.instruments import is_future
from trading.jit import Bytes, Recs, kernel

MAX_FRAME_BYTES: Final = 65_536
"""A buffer of this size holds every frame: twice 192 levels of at most 60 characters and change."""

SPOT_DECIMALS: Final = 8
_COINM: Final = int(Venue.BINANCE_COINM)


def _text(words: str) -> Bytes:
    return np.frombuffer(words.encode("ascii"), np.uint8).copy()


_STREAM: Final = _text('{"stream":"')
_DEPTH_SPOT: Final = _text('@depth@100ms","data":{"e":"depthUpdate","E":')
_DEPTH_USDM: Final = _text('@depth@0ms","data":{"e":"depthUpdate","E":')
_BBO_SPOT: Final = _text('@bookTicker","data":{"u":')
_BBO_USDM: Final = _text('@bookTicker","data":{"e":"bookTicker","u":')
_TRADE: Final = _text('@trade","data":{"e":"trade","E":')
_S: Final = _text(',"s":"')
_U_FIRST: Final = _text('","U":')
_U_LAST: Final = _text(',"u":')
_PU: Final = _text(',"pu":')
_T: Final = _text(',"T":')
_E: Final = _text(',"E":')
_PS: Final = _text('","ps":"')
_T_ID: Final = _text('","t":')
_B_OPEN: Final = _text(',"b":[')
_A_OPEN: Final = _text('],"a":[')
_LIST_END: Final = _text("]}}")
_PAIR_OPEN: Final = _text('["')
_PAIR_MIDDLE: Final = _text('","')
_PAIR_CLOSE: Final = _text('"]')
_BID: Final = _text('","b":"')
_BID_QTY: Final = _text('","B":"')
_ASK: Final = _text('","a":"')
_ASK_QTY: Final = _text('","A":"')
_P: Final = _text(',"p":"')
_Q: Final = _text('","q":"')
_T_SPOT: Final = _text('","T":')
_M_USDM: Final = _text('","X":"MARKET","m":')
_M: Final = _text(',"m":')
_TRUE: Final = _text("true")
_FALSE: Final = _text("false")
_M_END: Final = _text(',"M":true}}')
_END: Final = _text("}}")
_QUOTED_END: Final = _text('"}}')
_QUOTE: Final = _text('"')
_SNAPSHOT: Final = _text('{"lastUpdateId":')
_BIDS: Final = _text(',"bids":[')
_ASKS: Final = _text('],"asks":[')
_SNAPSHOT_END: Final = _text("]}")


@kernel
def put(buf: Bytes, at: int, text: Bytes) -> int:
    """Copy `text` to buf[at:]; returns where it ends."""
    for i in range(text.size):
        buf[at + i] = text[i]
    return at + text.size


@kernel
def put_int(buf: Bytes, at: int, value: int) -> int:
    """Write a non-negative integer; returns where it ends."""
    digits = 1
    rest = value // 10
    while rest > 0:
        digits += 1
        rest //= 10
    rest = value
    for i in range(at + digits - 1, at - 1, -1):
        buf[i] = 48 + rest % 10
        rest //= 10
    return at + digits


@kernel
def put_decimal(buf: Bytes, at: int, units: int, decimals: int) -> int:
    """Write `units * 10**-decimals` with exactly `decimals` decimals; returns where it ends."""
    scale = 1
    for _ in range(decimals):
        scale *= 10
    at = put_int(buf, at, units // scale)
    if decimals == 0:
        return at
    buf[at] = 46
    rest = units % scale
    for i in range(at + decimals, at, -1):
        buf[i] = 48 + rest % 10
        rest //= 10
    return at + decimals + 1


@kernel
def put_price(buf: Bytes, at: int, instrument: Any, ticks: int) -> int:
    """Write a price as the venue prints it (spot: always 8 decimals)."""
    units = ticks * instrument.tick_units
    decimals = instrument.price_decimals
    if not is_future(instrument.market):
        for _ in range(SPOT_DECIMALS - decimals):
            units *= 10
        decimals = SPOT_DECIMALS
    return put_decimal(buf, at, units, decimals)


@kernel
def put_pair(buf: Bytes, at: int, instrument: Any) -> int:
    """Close the symbol and open the pair behind it, where the market says it (COIN-M): the name up to its `_`."""
    if instrument.market != _COINM:
        return at
    at = put(buf, at, _PS)
    for i in range(instrument.name_len):
        if instrument.name[i] == 95:
            return at + i
        buf[at + i] = instrument.name[i]
    return at + instrument.name_len


@kernel
def put_name(buf: Bytes, at: int, instrument: Any, lower: bool) -> int:
    """Write the symbol, in lower case for stream names."""
    name = instrument.name
    for i in range(instrument.name_len):
        c = name[i]
        buf[at + i] = c + 32 if lower and c >= 65 and c <= 90 else c
    return at + instrument.name_len


@kernel
def put_level(buf: Bytes, at: int, instrument: Any, ticks: int, lots: int) -> int:
    """Write `["price","qty"]`."""
    at = put(buf, at, _PAIR_OPEN)
    at = put_price(buf, at, instrument, ticks)
    at = put(buf, at, _PAIR_MIDDLE)
    at = put_decimal(buf, at, lots, instrument.qty_decimals)
    return put(buf, at, _PAIR_CLOSE)


@kernel
def snapshot_frame(st: Any, instruments: Recs, symbol: int, buf: Bytes) -> int:
    """The REST snapshot of the whole book; returns its length."""
    it = instruments[symbol]
    at = put(buf, 0, _SNAPSHOT)
    at = put_int(buf, at, st.update_id)
    for side in range(2):
        at = put(buf, at, _BIDS if side == BID else _ASKS)
        n = st.n[side]
        for i in range(n - 1, -1, -1):
            if i < n - 1:
                buf[at] = 44
                at += 1
            at = put_level(buf, at, it, price_of(side, st.keys[side, i]), st.lots[side, i])
    return put(buf, at, _SNAPSHOT_END)


@kernel
def depth_frame(st: Any, instruments: Recs, symbol: int, event_ms: int, first_id: int, previous_id: int, buf: Bytes) -> int:
    """The depthUpdate of all changed levels (already sorted) with their present quantities; returns its length."""
    it = instruments[symbol]
    usdm = is_future(it.market)
    at = put(buf, 0, _STREAM)
    at = put_name(buf, at, it, True)
    at = put(buf, at, _DEPTH_USDM if usdm else _DEPTH_SPOT)
    at = put_int(buf, at, event_ms)
    if usdm:
        at = put(buf, at, _T)
        at = put_int(buf, at, event_ms)
    at = put(buf, at, _S)
    at = put_name(buf, at, it, False)
    at = put_pair(buf, at, it)
    at = put(buf, at, _U_FIRST)
    at = put_int(buf, at, first_id)
    at = put(buf, at, _U_LAST)
    at = put_int(buf, at, st.update_id)
    if usdm:
        at = put(buf, at, _PU)
        at = put_int(buf, at, previous_id)
    for side in range(2):
        at = put(buf, at, _B_OPEN if side == BID else _A_OPEN)
        for i in range(st.n_changed[side]):
            if i > 0:
                buf[at] = 44
                at += 1
            key = st.changed[side, i]
            at = put_level(buf, at, it, price_of(side, key), lots_at(st, side, key))
    return put(buf, at, _LIST_END)


@kernel
def bbo_frame(st: Any, instruments: Recs, symbol: int, event_ms: int, update_id: int, buf: Bytes) -> int:
    """The bookTicker of the present touch; returns its length."""
    it = instruments[symbol]
    usdm = is_future(it.market)
    at = put(buf, 0, _STREAM)
    at = put_name(buf, at, it, True)
    at = put(buf, at, _BBO_USDM if usdm else _BBO_SPOT)
    at = put_int(buf, at, update_id)
    at = put(buf, at, _S)
    at = put_name(buf, at, it, False)
    at = put_pair(buf, at, it)
    for side in range(2):
        last = st.n[side] - 1
        at = put(buf, at, _BID if side == BID else _ASK)
        at = put_price(buf, at, it, price_of(side, st.keys[side, last]))
        at = put(buf, at, _BID_QTY if side == BID else _ASK_QTY)
        at = put_decimal(buf, at, st.lots[side, last], it.qty_decimals)
    if not usdm:
        return put(buf, at, _QUOTED_END)
    at = put(buf, at, _QUOTE)
    at = put(buf, at, _T)
    at = put_int(buf, at, event_ms)
    at = put(buf, at, _E)
    at = put_int(buf, at, event_ms)
    return put(buf, at, _END)


@kernel
def trade_frame(
    instruments: Recs, symbol: int, event_ms: int, trade_id: int, ticks: int, lots: int, side: int, buf: Bytes
) -> int:
    """The print of `lots` at `ticks` taken from book side `side` (BID: the seller was the aggressor); returns its length."""
    it = instruments[symbol]
    usdm = is_future(it.market)
    at = put(buf, 0, _STREAM)
    at = put_name(buf, at, it, True)
    at = put(buf, at, _TRADE)
    at = put_int(buf, at, event_ms)
    if usdm:
        at = put(buf, at, _T)
        at = put_int(buf, at, event_ms)
    at = put(buf, at, _S)
    at = put_name(buf, at, it, False)
    at = put(buf, at, _T_ID)
    at = put_int(buf, at, trade_id)
    at = put(buf, at, _P)
    at = put_price(buf, at, it, ticks)
    at = put(buf, at, _Q)
    at = put_decimal(buf, at, lots, it.qty_decimals)
    if usdm:
        at = put(buf, at, _M_USDM)
    else:
        at = put(buf, at, _T_SPOT)
        at = put_int(buf, at, event_ms)
        at = put(buf, at, _M)
    at = put(buf, at, _FALSE if side == ASK else _TRUE)
    return put(buf, at, _END if usdm else _M_END)
