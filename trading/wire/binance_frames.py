"""Binance market-data frames (spot, USD-M and COIN-M) from bytes to integers: one pass, no objects, nothing rounded.

Understood, as combined-stream frames `{"stream":...,"data":{...}}` and bare: `depthUpdate` (diff depth), `trade`, `aggTrade`,
`bookTicker` (spot's has no "e"), `markPriceUpdate` and, bare only, the REST depth snapshot. Keys may come in any order and
with blanks; unknown keys are stepped over. Partial-depth streams (`@depth5|10|20`) look like diffs or snapshots and are
neither: they count as unknown. A frame is malformed if it is no JSON object, says something twice, lacks a field that its
kind needs or holds a number that the instrument cannot (more decimals than its tick or lot, or no multiple of the tick).

A futures' `trade` whose `X` is not MARKET (INSURANCE_FUND, ADL, NA) is no trade on the book: it is ASIDE, with its id, whatever
its price. Times come in milliseconds or microseconds (Binance's `timeUnit`): their magnitude tells.

Levels go straight into the caller's depth rows (price_ticks, qty_lots, flags: ASK or 0); everything else into FRAME_FIELDS.
"""

from __future__ import annotations

from typing import Any, Final

from trading.instruments import is_future
from trading.jit import Bytes, Recs, kernel
from trading.records import Flag
from trading.wire.binance_layout import (
    E_AGG_TRADE,
    E_BBO,
    E_DEPTH,
    E_MARK,
    E_TRADE,
    I_AGG_ID,
    I_EVENT_TIME,
    I_FIRST_ID,
    I_LAST_ID,
    I_PREV_ID,
    I_SNAPSHOT_ID,
    I_TIME,
    I_TRADE_ID,
    MAX_MS,
    MAX_SNAPSHOT_LEVELS,
    MAX_US,
    S_DEPTH,
    SEEN_BOOK_SIDE,
    SEEN_DIFF_SIDE,
    SEEN_MAKER,
    T_ASK,
    T_ASK_QTY,
    T_BID,
    T_BID_QTY,
    T_KIND,
    T_ORIGIN,
    T_PRICE,
    T_QTY,
    T_RATE,
    T_STREAM,
    TEXT_BIT,
    X_ADL,
    X_INSURANCE,
    X_MARKET,
    X_NA,
    Aside,
    Frame,
    FrameKind,
)
from trading.wire.binance_object import (
    named_symbol,
    scan_object,
)
from trading.wire.level_scan import scan_levels, scan_units
from trading.wire.scan import (
    OPEN_BRACE,
    address_of,
    byte_at,
    fetch_ahead,
    pack,
    scan_decimal,
    skip_space,
)

_MARK_DECIMALS: Final = 8
_MINUS: Final = ord("-")
_ASK_FLAG: Final = int(Flag.ASK)
_AT: Final = ord("@")
_LINE: Final = 64  # bytes of a cache line
_AHEAD: Final = 2048


@kernel
def _is_partial_depth(base: int, frame: Frame, end: int) -> bool:
    """Whether the stream's name is `...@depth<digits>...`: the top of a book, not its changes."""
    if frame.seen & (1 << (TEXT_BIT + T_STREAM)) == 0:
        return False
    p = base + frame.texts[T_STREAM]
    stop = p + frame.text_lens[T_STREAM]
    while p < stop and byte_at(p) != _AT:
        p += 1
    return p + 6 < stop and pack(p + 1, 5, end) == S_DEPTH and 48 <= byte_at(p + 6) <= 57


@kernel
def _kind(base: int, end: int, frame: Frame) -> int:
    """The FrameKind by "e", or by the keys that came where there is no "e"; UNKNOWN for others."""
    if frame.seen & (1 << (TEXT_BIT + T_KIND)) != 0:
        n = frame.text_lens[T_KIND]
        at = base + frame.texts[T_KIND]
        word = pack(at, min(n, 8), end)
        if n == 11 and word == E_DEPTH[0] and pack(at + 8, 3, end) == E_DEPTH[1]:
            return FrameKind.UNKNOWN if _is_partial_depth(base, frame, end) else FrameKind.DEPTH
        if n == 5 and word == E_TRADE:
            return FrameKind.TRADE
        if n == 8 and word == E_AGG_TRADE:
            return FrameKind.AGG_TRADE
        if n == 10 and word == E_BBO[0] and pack(at + 8, 2, end) == E_BBO[1]:
            return FrameKind.BBO
        if n == 15 and word == E_MARK[0] and pack(at + 8, 7, end) == E_MARK[1]:
            return FrameKind.MARK
        return FrameKind.UNKNOWN
    if frame.seen & (1 << I_SNAPSHOT_ID) != 0:
        return FrameKind.SNAPSHOT if frame.enveloped == 0 else FrameKind.UNKNOWN
    needed = (1 << I_LAST_ID) | (1 << (TEXT_BIT + T_BID)) | (1 << (TEXT_BIT + T_ASK))
    return FrameKind.BBO if frame.seen & needed == needed else FrameKind.UNKNOWN


@kernel
def _has(frame: Frame, bits: int) -> bool:
    return frame.seen & bits == bits


@kernel
def _time_ns(frame: Frame, slot: int) -> int:
    """The time in an integer slot in Unix ns (sent as ms, or as us with 16 digits); 0: none, -1: impossible."""
    if frame.seen & (1 << slot) == 0:
        return 0
    value = frame.integers[slot]
    if value <= MAX_MS:
        return value * 1_000_000
    if 10**15 <= value <= MAX_US:
        return value * 1000
    return -1


@kernel
def _pair(base: int, end: int, frame: Frame, price: int, qty: int, side: int, instrument: Any) -> bool:
    """Convert the price and quantity strings of two text slots into bbo_ticks/bbo_lots[side]."""
    ticks, p = scan_units(base + frame.texts[price] - 1, end, instrument.price_decimals, instrument.tick_units)
    if p < 0:
        return False
    lots, p = scan_units(base + frame.texts[qty] - 1, end, instrument.qty_decimals, 1)
    if p < 0:
        return False
    frame.bbo_ticks[side] = ticks
    frame.bbo_lots[side] = lots
    return True


@kernel
def _take_depth(base: int, end: int, kind: int, usdm: bool, instruments: Recs, frame: Frame, rows: Recs) -> bool:
    """Check a diff's or snapshot's fields, and scan the levels that had to wait for the symbol."""
    bit = SEEN_BOOK_SIDE if kind == FrameKind.SNAPSHOT else SEEN_DIFF_SIDE
    if not _has(frame, bit | (bit << 1)):
        return False
    if frame.levels_symbol >= 0 and frame.levels_symbol != frame.symbol:
        return False
    for side in range(2):
        at = frame.late_sides[side]
        if at > 0 and scan_levels(base + at, end, instruments[frame.symbol], side * _ASK_FLAG, frame, rows) < 0:
            return False
    if kind == FrameKind.SNAPSHOT:
        frame.last_id = frame.integers[I_SNAPSHOT_ID]
        bids = 0
        for i in range(frame.n_levels):
            bids += rows[i].flags != _ASK_FLAG
        return bids <= MAX_SNAPSHOT_LEVELS and frame.n_levels - bids <= MAX_SNAPSHOT_LEVELS
    if not _has(frame, (1 << I_FIRST_ID) | (1 << I_LAST_ID)) or (usdm and not _has(frame, 1 << I_PREV_ID)):
        return False
    frame.first_id = frame.integers[I_FIRST_ID]
    frame.last_id = frame.integers[I_LAST_ID]
    frame.prev_id = frame.integers[I_PREV_ID] if usdm else 0
    return frame.first_id <= frame.last_id and frame.prev_id <= frame.last_id


@kernel
def _take_trade(base: int, end: int, kind: int, instrument: Any, frame: Frame) -> bool:
    slot = I_AGG_ID if kind == FrameKind.AGG_TRADE else I_TRADE_ID
    texts = (1 << (TEXT_BIT + T_PRICE)) | (1 << (TEXT_BIT + T_QTY))
    if not _has(frame, (1 << slot) | texts | (1 << I_TIME) | SEEN_MAKER):
        return False
    frame.last_id = frame.integers[slot]
    return _pair(base, end, frame, T_PRICE, T_QTY, 0, instrument)


@kernel
def _aside(base: int, end: int, frame: Frame) -> int:
    """Why a print is no trade (Aside); -1 for one that is, or does not say."""
    if frame.seen & (1 << (TEXT_BIT + T_ORIGIN)) == 0:
        return -1
    n = frame.text_lens[T_ORIGIN]
    at = base + frame.texts[T_ORIGIN]
    word = pack(at, min(n, 8), end)
    if n == 6 and word == X_MARKET:
        return -1
    if n == 14 and word == X_INSURANCE[0] and pack(at + 8, 6, end) == X_INSURANCE[1]:
        return Aside.INSURANCE_FUND
    if n == 3 and word == X_ADL:
        return Aside.ADL
    return Aside.NA if n == 2 and word == X_NA else Aside.OTHER


@kernel
def _take_bbo(base: int, end: int, instrument: Any, frame: Frame) -> bool:
    """An empty side comes as price 0 and quantity 0; crossed or half-empty pairs are refused."""
    bids = (1 << (TEXT_BIT + T_BID)) | (1 << (TEXT_BIT + T_BID_QTY))
    asks = (1 << (TEXT_BIT + T_ASK)) | (1 << (TEXT_BIT + T_ASK_QTY))
    if not _has(frame, (1 << I_LAST_ID) | bids | asks):
        return False
    frame.last_id = frame.integers[I_LAST_ID]
    if not _pair(base, end, frame, T_BID, T_BID_QTY, 0, instrument):
        return False
    if not _pair(base, end, frame, T_ASK, T_ASK_QTY, 1, instrument):
        return False
    bid = frame.bbo_ticks[0]
    ask = frame.bbo_ticks[1]
    if (bid == 0) != (frame.bbo_lots[0] == 0) or (ask == 0) != (frame.bbo_lots[1] == 0):
        return False
    return bid == 0 or ask == 0 or bid < ask


@kernel
def _take_mark(base: int, end: int, frame: Frame) -> bool:
    """Mark price and funding rate in 1e-8 (the rate may be negative, or an empty string: none), next funding time in ns."""
    if not _has(frame, (1 << I_EVENT_TIME) | (1 << (TEXT_BIT + T_PRICE))):
        return False
    price, p = scan_units(base + frame.texts[T_PRICE] - 1, end, _MARK_DECIMALS, 1)
    if p < 0 or price == 0:
        return False
    rate = 0
    if frame.seen & (1 << (TEXT_BIT + T_RATE)) != 0 and frame.text_lens[T_RATE] > 0:
        at = base + frame.texts[T_RATE]
        negative = byte_at(at) == _MINUS
        at += 1 if negative else 0
        rate, p = scan_decimal(at, end, _MARK_DECIMALS)
        if p != base + frame.texts[T_RATE] + frame.text_lens[T_RATE]:
            return False
        rate = -rate if negative else rate
    frame.last_id = _time_ns(frame, I_TIME)
    frame.bbo_ticks[0] = price
    frame.bbo_lots[0] = rate
    return frame.last_id >= 0


@kernel
def decode(buf: Bytes, start: int, end: int, hint: int, instruments: Recs, frame: Frame, rows: Recs) -> int:
    """Decode the frame at `buf[start:end]` into `frame` and, for depth, its levels into `rows[0:n_levels]`.

    `hint` is the instrument of frames that name none (-1: unknown). Answers a FrameKind. With MALFORMED, `frame.symbol` and
    `frame.is_depth` say whose book has missed a message, as far as the bytes still tell. Rows beyond n_levels may hold
    leftovers. Any bytes are safe; 0 <= start and end <= len(buf) are the caller's to see to.
    """
    frame.seen = 0
    frame.keys = 0
    frame.faults = 0
    frame.enveloped = 0
    frame.late_sides[0] = 0
    frame.late_sides[1] = 0
    frame.levels_symbol = -1
    frame.symbol = -1
    frame.is_depth = 0
    frame.is_snapshot = 0
    frame.n_levels = 0
    base = address_of(buf) + start
    end = base + end - start
    for line in range(base + _LINE, min(end, base + _AHEAD), _LINE):
        fetch_ahead(line)  # another core wrote these bytes: waiting for many lines at once costs what one does
    p = skip_space(base, end)
    if p >= end or byte_at(p) != OPEN_BRACE:
        return FrameKind.MALFORMED
    p = scan_object(base, p, end, hint, instruments, frame, rows)
    whole = p >= 0 and skip_space(p, end) == end
    kind = _kind(base, end, frame)
    if kind == FrameKind.UNKNOWN:
        return FrameKind.UNKNOWN if whole else FrameKind.MALFORMED
    if kind == FrameKind.SNAPSHOT:
        frame.is_snapshot = 1
        frame.symbol = hint if 0 <= hint < instruments.shape[0] else -1
    else:
        frame.symbol = named_symbol(base, frame, hint, instruments)
    frame.is_depth = 1 if kind == FrameKind.DEPTH else 0
    if frame.symbol < 0:
        return FrameKind.UNKNOWN if whole else FrameKind.MALFORMED
    if not whole or frame.faults != 0:
        return FrameKind.MALFORMED
    frame.ts_exchange_ns = _time_ns(frame, I_TIME if kind != FrameKind.MARK and frame.seen & (1 << I_TIME) != 0 else I_EVENT_TIME)
    if frame.ts_exchange_ns < 0:
        return FrameKind.MALFORMED
    instrument = instruments[frame.symbol]
    if kind == FrameKind.TRADE or kind == FrameKind.AGG_TRADE:
        frame.aside = _aside(base, end, frame)
        if frame.aside >= 0:
            slot = I_AGG_ID if kind == FrameKind.AGG_TRADE else I_TRADE_ID
            frame.last_id = frame.integers[slot] if _has(frame, 1 << slot) else 0
            return FrameKind.ASIDE
        good = _take_trade(base, end, kind, instrument, frame)
        if good and (frame.bbo_ticks[0] == 0 or frame.bbo_lots[0] == 0):
            return FrameKind.UNKNOWN  # a placeholder: nothing was traded
    elif kind == FrameKind.BBO:
        good = _take_bbo(base, end, instrument, frame)
    elif kind == FrameKind.MARK:
        good = _take_mark(base, end, frame)
    else:
        good = _take_depth(base, end, kind, is_future(instrument.market), instruments, frame, rows)
    return kind if good else FrameKind.MALFORMED
