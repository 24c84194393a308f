"""The records that travel on the rings: declared once, here, with units in the names.

Every record is whole cache lines of 8-byte words. Word 0 is the time at which the record takes effect
(`ts_ns`: Unix ns, virtual in replay), the last word is the ring's slot sequence, written by the ring alone.
Prices and quantities are int64 ticks and lots; floats occur only in analytics.

A field whose name ends in `_mono_ns` is a *stamp*: CLOCK_MONOTONIC of this machine, for latency figures
only. Stamps are not part of a record's identity: two runs that agree in every other word are the same run.
`identity_words` gives the words that count.
"""

from __future__ import annotations

import hashlib
from enum import IntEnum, IntFlag
from typing import Any, Final

import numpy as np

LEVELS: Final = 5
"""Book levels a side that a market record carries."""

TS_END: Final = 2**62
"""A time after every event: the watermark of a ring whose writer has ended."""


class Kind(IntEnum):
    """What a record says. One numbering for all rings, so that a dump needs no context."""

    NONE = 0
    END = 1  # the writer's last record: nothing follows
    # market, depth
    DEPTH = 10  # the book changed (market: top levels after the message; depth: one level)
    TRADE = 11  # a print
    BBO = 12  # best bid/offer message
    SNAPSHOT = 13  # market: book rebuilt from a snapshot; depth: forget the book, levels follow
    STALE = 14  # the book is not to be used until further notice
    MARK = 15  # mark price (price_ticks: in 1e-8), funding rate (qty_lots: in 1e-8) and next funding time (update_id: Unix ns)
    EDGE = 16  # depth: beyond price_ticks, levels of this side may be missing; 0: none is
    # signals, vectors, quotes
    SIGNAL = 20
    VECTOR = 21
    QUOTE = 30
    # orders, wire
    NEW = 40
    CANCEL = 41
    REFUSED = 42  # refusals ring: what risk did not let pass, and why
    # executions, reports
    REPORT = 50
    # control
    HALT = 60
    RESUME = 61
    INTAKE = 70  # intake log: `count` records of ring `ring` were taken next
    # frames: what the receiver took off the wire
    FRAME = 80  # a frame for the feed: the venue's own bytes, or a plain frame (trading.wire.plain_frame)
    RAW = 81  # the venue's own bytes where the feed gets a plain frame made of them: for the recorder alone
    LINE_UP = 82  # the symbol's streams on line `flags` are subscribed
    LINE_DOWN = 83  # they are not any more
    LOST = 84  # frames of the symbol were dropped: there was no room
    # resync: what the feed asks of the receiver
    WANT_SNAPSHOT = 90  # the symbol's book needs a snapshot; `update_id`: not older than this
    ODD_FRAME = 91  # the feed made nothing of frame `update_id` of the frames ring
    WANT_STREAM = 92  # a stream of the symbol has died alone: subscribe it anew; `reason`: a mask, bit i is Stream i


class Flag(IntFlag):
    """`flags` of market and depth records."""

    BOOK_VALID = 1  # the book follows the venue's sequence, is not crossed, and of the levels shown none is missing
    AGGRESSOR_SELL = 2  # trade: the seller was the aggressor (Binance m=true)
    ASK = 4  # depth: the level is on the ask side
    LAST = 8  # depth: last level of its message
    BEYOND_EDGE = 16  # market, instead of BOOK_VALID: right as far as it is known, but the levels shown may not be all
    STREAM_DEAD = 32  # market, instead of BOOK_VALID: the symbol's stream of depth or of best bid/offer has died alone
    PRINTS_DEAD = 64  # market: the symbol's prints have stopped; what is computed from them is not to be used


class Stream(IntEnum):
    """What a symbol's messages come by; each has an age of its own (trading.books.ages). A bit each in masks."""

    DEPTH = 0
    BBO = 1
    PRINTS = 2
    MARK = 3


class Side(IntEnum):
    """Order side; the value is the sign of the position that a fill adds."""

    SELL = -1
    NONE = 0
    BUY = 1


class OrderType(IntEnum):
    """How an order may trade."""

    NONE = 0
    MARKET = 1
    LIMIT = 2
    POST_ONLY = 3


class TimeInForce(IntEnum):
    """How long an order lives."""

    NONE = 0
    GTC = 1
    IOC = 2


class Purpose(IntEnum):
    """Why an order exists."""

    NONE = 0
    ENTRY = 1  # opened by a signal
    EXIT_STOP = 2
    EXIT_TIME = 3
    EXIT_TARGET = 4
    EXIT_SIGNAL = 5
    QUOTE = 6  # a side of a two-sided quote
    FLATTEN = 7


class ExecType(IntEnum):
    """What an execution report tells."""

    NONE = 0
    ACK = 1
    REJECT = 2
    FILL = 3
    CANCELED = 4
    CANCEL_REJECT = 5
    EXPIRED = 6


class OrderStatus(IntEnum):
    """Where an order stands; exactly one at any time."""

    NONE = 0
    PENDING_NEW = 1
    OPEN = 2
    PARTIAL = 3
    PENDING_CANCEL = 4
    FILLED = 5
    CANCELED = 6
    REJECTED = 7
    EXPIRED = 8
    UNKNOWN = 9


class Refusal(IntEnum):
    """Why risk (or the venue, from 100) refused an order. Each is counted and shown."""

    NONE = 0
    HALTED = 1
    BOOK_STALE = 2
    BOOK_CROSSED = 3
    NOT_POSITIVE = 4  # quantity or price zero, negative or not a number
    TICK_MULTIPLE = 5
    STEP_MULTIPLE = 6
    MAX_QTY = 7
    MAX_NOTIONAL = 8
    MIN_NOTIONAL = 9
    MAX_POSITION = 10
    MAX_OPEN_ORDERS = 11
    PRICE_COLLAR = 12
    SELF_MATCH = 13
    MESSAGE_RATE = 14
    LOSS_LIMIT = 15
    DRAWDOWN = 16
    PORTFOLIO_HEAT = 17
    NO_EQUITY = 18
    ORDER_RING_FULL = 19
    ORDER_TABLE_FULL = 20
    DUPLICATE = 21
    SESSION_ENDED = 22
    WOULD_CROSS = 23
    # from the venue
    VENUE_POST_ONLY = 100
    VENUE_UNKNOWN_ORDER = 101
    VENUE_NO_LIQUIDITY = 102
    VENUE_FILTER = 103
    VENUE_CLOSED = 104
    VENUE_BOOK_STALE = 105
    VENUE_TABLE_FULL = 106


def _record(*fields: tuple[str, str] | tuple[str, str, int]) -> np.dtype:
    """Pad the fields to whole cache lines and put the slot's sequence into the last word."""
    used = np.dtype(list(fields), align=True).itemsize
    assert used % 8 == 0, f"a record is made of 8-byte words, this one has {used} bytes"
    lines = (used + 8 + 63) // 64
    spare = lines * 8 - used // 8 - 1
    tail: list[Any] = [("spare", "i8", spare)] if spare else []
    return np.dtype([*fields, *tail, ("seq", "i8")], align=True)


_HEADER: Final = (
    ("ts_ns", "i8"),
    ("cause_seq", "i8"),  # the record that this one answers: its sequence on ...
    ("cause_ring", "i4"),  # ... the ring with this id (procs.topology); -1: a raw frame
    ("kind", "i4"),
    ("symbol", "i4"),  # index into the instrument table
    ("flags", "i4"),
)
_STAMPS: Final = (
    ("ts_origin_mono_ns", "i8"),  # when the frame at the root of this cause entered the pipeline
    ("ts_publish_mono_ns", "i8"),  # when this record was published
)

DEPTH_RECORD: Final = _record(
    *_HEADER,
    ("price_ticks", "i8"),
    ("qty_lots", "i8"),  # absolute; 0 removes the level
    ("update_id", "i8"),
)
"""One level change of the full book, 64 B."""

MARKET_RECORD: Final = _record(
    *_HEADER,
    *_STAMPS,
    ("ts_exchange_ns", "i8"),
    ("ts_recv_ns", "i8"),
    ("update_id", "i8"),  # book update id; trade id for a trade
    ("price_ticks", "i8"),  # of the trade, else 0
    ("qty_lots", "i8"),  # of the trade, else 0
    ("bid_ticks", "i8", LEVELS),  # best first; 0 where there is no such level
    ("bid_lots", "i8", LEVELS),
    ("ask_ticks", "i8", LEVELS),
    ("ask_lots", "i8", LEVELS),
)
"""One market event with the top of the book after it, 256 B."""

MAX_SIGNALS: Final = 24
"""Places for signals: those of trading.features.signals come first, a user's own may take the rest."""

SIGNAL_RECORD: Final = _record(
    *_HEADER,
    *_STAMPS,
    ("score", "f8"),  # 0..100, 50 neutral
    ("confidence", "f8"),  # 0..1
    ("urgency", "f8"),  # 0..100
    ("mid", "f8"),  # ticks
    ("spread_bps", "f8"),
    ("volatility", "f8"),  # EWMA deviation of mid returns a second, as a fraction
    ("atr_ticks", "f8"),
    ("bid_ticks", "i8"),
    ("ask_ticks", "i8"),
    ("bid_lots", "i8"),
    ("ask_lots", "i8"),
    ("ready_mask", "i8"),  # bit i: signal i is warm
    ("active_mask", "i8"),  # bit i: signal i contributes
    ("side", "i4"),  # Side that the ensemble asks for after its gates
    ("gate", "i4"),  # trading.scoring.ensemble.Gate that held it back, 0: none
    ("regime", "i4"),  # trading.features.regime.Regime, 0: not known yet
    ("reason", "i4"),  # 1 + the index of the signal with the greatest vote, 0: none
    ("microprice", "f8"),  # ticks
    ("microstructure", "f4"),  # score 0..100, 0: not warm
    ("patterns", "i4"),  # bit set of trading.features.patterns.Pattern on the bar that closed last
    ("vpin", "f4"),  # 0..1, 0: not warm
    ("order_flow", "f4"),  # best-quote OFI of the window over the average depth
    ("strength", "f4", MAX_SIGNALS),  # -1..1 each
    ("long_threshold", "f8"),  # in force at this record, 0..100: the score from which a buy is asked for; 0: no usable book
    ("short_threshold", "f8"),  # ... and the one down to which a sale is
)
"""What the features process makes of one market record, 320 B."""

VECTOR_LENGTH: Final = 50
"""Features of the vector (trading.features.vector)."""

VECTOR_RECORD: Final = _record(
    *_HEADER,  # ts_ns and symbol of the market record; cause_seq is its sequence; flags: BOOK_VALID
    *_STAMPS,
    ("version", "i8"),  # trading.features.vector.VERSION: order, units and meaning of the values
    ("warm_mask", "i8"),  # bit i: feature i is warm
    ("values", "f8", VECTOR_LENGTH),  # 0 where not warm
)
"""The feature vector of a symbol after one market record, 512 B."""

QUOTE_RECORD: Final = _record(
    *_HEADER,
    *_STAMPS,
    ("bid_ticks", "i8"),  # 0 with bid_lots 0: no bid wanted
    ("bid_lots", "i8"),
    ("ask_ticks", "i8"),
    ("ask_lots", "i8"),
    ("fair_price", "f8"),  # ticks
    ("half_spread", "f8"),  # ticks
    ("skew", "f8"),  # ticks
    ("inventory_lots", "i8"),
)
"""A target quote, 128 B."""

ORDER_RECORD: Final = _record(
    *_HEADER,
    *_STAMPS,
    ("order_id", "i8"),  # client order id: a counter, unique within the run
    ("target_order_id", "i8"),  # CANCEL: the order to cancel
    ("side", "i4"),
    ("order_type", "i4"),
    ("time_in_force", "i4"),
    ("purpose", "i4"),
    ("price_ticks", "i8"),  # 0 for MARKET
    ("qty_lots", "i8"),
    ("decision_ticks", "f8"),  # mid when decided
    ("refusal", "i4"),
    ("approved", "i4"),  # 1: risk let it pass; the router sends nothing else
)
"""An order command, approved or refused, 128 B."""

REPORT_RECORD: Final = _record(
    *_HEADER,
    *_STAMPS,
    ("order_id", "i8"),
    ("venue_order_id", "i8"),
    ("trade_id", "i8"),
    ("exec_type", "i4"),
    ("order_status", "i4"),
    ("side", "i4"),
    ("refusal", "i4"),
    ("purpose", "i4"),
    ("maker", "i4"),
    ("price_ticks", "i8"),  # limit price of the order
    ("last_ticks", "i8"),  # FILL: price
    ("last_lots", "i8"),  # FILL: quantity
    ("cum_lots", "i8"),
    ("leaves_lots", "i8"),
    ("fee_e8", "i8"),  # FILL: fee in 1e-8 of what the symbol is settled in; negative is a rebate
    ("decision_ticks", "f8"),
    ("ts_exchange_ns", "i8"),  # when it happened at the venue (ts_ns is when we see it)
    ("ts_sent_ns", "i8"),  # when the order left the router
)
"""An execution report, 192 B."""

CONTROL_RECORD: Final = _record(*_HEADER, ("reason", "i8"))
"""An operator's or the supervisor's word to risk, 64 B."""

INTAKE_RECORD: Final = _record(*_HEADER, ("ring", "i8"), ("count", "i8"), ("first_seq", "i8"))
"""One line of a stage's intake log, 64 B. `ring`: which of the stage's inputs, or INTAKE_CLOCK, INTAKE_CUT."""
INTAKE_CLOCK: Final = -1
"""No records: a clock was read, `ts_ns` is what it said."""
INTAKE_CUT: Final = -2
"""No records: of the line before this one `count` were taken, then something fell due."""

FRAME_RECORD: Final = _record(
    # cause_seq: the line's message counter; flags: the line, for Kind.RAW also its connection; symbol: -1 where the receiver
    # does not know it
    *_HEADER,
    ("at", "i8"),  # first byte in the frames arena
    ("length", "i8"),  # bytes
    ("ts_origin_mono_ns", "i8"),  # when the receiver had it
)
"""One frame as it came off the wire, or an event of its line, 64 B. The bytes lie in one piece in the arena."""

RESYNC_RECORD: Final = _record(*_HEADER, ("reason", "i8"), ("update_id", "i8"))
"""What the feed wants of the receiver, 64 B."""


def words(record: np.dtype) -> int:
    """8-byte words of a record, its sequence included."""
    return record.itemsize // 8


def layout_hash(record: np.dtype) -> int:
    """A 63-bit hash of names, types and offsets: who attaches with another layout is refused."""
    assert record.fields is not None
    fields = [(name, *record.fields[name][:2]) for name in record.names or ()]
    text = ";".join(f"{name}:{dtype.str}:{offset}:{dtype.shape}" for name, dtype, offset in fields)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def identity_words(record: np.dtype) -> np.ndarray:
    """Indices of the words that make a record's identity: all but stamps, spare words and the sequence."""
    assert record.fields is not None
    keep: list[int] = []
    for name in record.names or ():
        dtype, offset = record.fields[name][:2]
        if name.endswith("_mono_ns") or name in ("spare", "seq"):
            continue
        keep.extend(range(offset // 8, (offset + dtype.itemsize + 7) // 8))
    return np.array(sorted(set(keep)), dtype=np.int64)


for _r, _bytes in (
    (DEPTH_RECORD, 64),
    (MARKET_RECORD, 256),
    (SIGNAL_RECORD, 320),
    (VECTOR_RECORD, 512),
    (QUOTE_RECORD, 128),
    (ORDER_RECORD, 128),
    (REPORT_RECORD, 192),
    (CONTROL_RECORD, 64),
    (INTAKE_RECORD, 64),
    (FRAME_RECORD, 64),
    (RESYNC_RECORD, 64),
):
    assert _r.itemsize == _bytes, (_r, _r.itemsize)
