"""What a Binance frame is made of: frame kinds, the decoder's fields and their slots, key and event names as words.

`trading.wire.binance_frames` is the algorithm over this layout; a name of up to eight bytes is compared as one int64
(`scan.pack`).

Its constants are frozen into the compiled kernels: whoever caches machine code must count this file as kernel source.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, Final

import numpy as np


class FrameKind(IntEnum):
    """What `decode` found."""

    UNKNOWN = 0  # well-formed, but none of ours, or of no symbol of ours
    MALFORMED = 1
    DEPTH = 2
    TRADE = 3
    AGG_TRADE = 4
    BBO = 5
    SNAPSHOT = 6
    MARK = 7  # mark price, funding rate, next funding time
    ASIDE = 8  # a print that is no trade: the venue's insurance fund, an automatic deleveraging, a placeholder


class Aside(IntEnum):
    """Why a print is no trade on the book: what Binance's `X` says other than MARKET, or a deal that was made aside."""

    INSURANCE_FUND = 0
    ADL = 1
    NA = 2
    BLOCK = 3
    OTHER = 4


MAX_SNAPSHOT_LEVELS: Final = 5000
"""Levels a side of the largest REST snapshot (`limit=5000`)."""

# Slots of `integers`, of `texts`, and bits of `seen`: integer slot i is bit i, text slot i is bit 16 + i.
(I_EVENT_TIME, I_TIME, I_FIRST_ID, I_LAST_ID, I_PREV_ID, I_TRADE_ID, I_SNAPSHOT_ID, I_AGG_ID) = range(8)
(T_KIND, T_SYMBOL, T_STREAM, T_PRICE, T_QTY, T_BID, T_BID_QTY, T_ASK, T_ASK_QTY, T_RATE, T_ORIGIN) = range(11)
TEXT_BIT: Final = 16
SEEN_MAKER: Final = 1 << 32
SEEN_DIFF_SIDE: Final = 1 << 33  # << side
SEEN_BOOK_SIDE: Final = 1 << 35  # << side

FRAME_FIELDS: Final[tuple[Any, ...]] = (
    ("seen", "i8"),
    ("keys", "i8"),  # which one-letter keys (and the longer ones of ours) have come, whatever their values
    ("faults", "i8"),
    ("enveloped", "i8"),
    ("integers", "i8", 8),
    ("texts", "i8", 11),  # where the string's first byte stands, from the frame's start (as all places here)
    ("text_lens", "i8", 11),
    ("maker_is_buyer", "i8"),
    ("late_sides", "i8", 2),  # where a side's levels start that had to wait for the symbol; 0: none
    ("levels_symbol", "i8"),
    ("symbol", "i8"),  # instrument index, -1: none of ours
    ("is_depth", "i8"),  # also said of a malformed frame: its symbol's book has missed something
    ("is_snapshot", "i8"),  # also said of a malformed frame
    ("n_levels", "i8"),
    ("ts_exchange_ns", "i8"),  # matching time where given, else event time, else 0
    ("first_id", "i8"),
    ("last_id", "i8"),
    ("prev_id", "i8"),
    ("bbo_ticks", "i8", 2),  # also [0] of a trade; of a mark price, in 1e-8, and its funding rate in bbo_lots
    ("bbo_lots", "i8", 2),
    ("aside", "i8"),  # Aside, of a frame that is ASIDE; -1 of a trade
)
"""Scratch and result of `decode`, to stand in a larger state record."""

FRAME: Final = np.dtype(list(FRAME_FIELDS), align=True)

Frame = Any
"""A numba record that has FRAME_FIELDS."""


def _word(text: str) -> int:
    """What `scan.pack` makes of up to eight characters."""
    return int.from_bytes(text.encode()[:8], "little")


LONG_KEY: Final = 1  # no key packs to this
K_LAST_UPDATE: Final = (_word("lastUpda"), _word("teId"))
K_STREAM: Final = _word("stream")
K_DATA: Final = _word("data")
K_BIDS: Final = _word("bids")
K_ASKS: Final = _word("asks")
K_PREV: Final = _word("pu")
K_KIND: Final = ord("e")
K_EVENT_TIME: Final = ord("E")
K_SYMBOL: Final = ord("s")
K_TIME: Final = ord("T")
K_FIRST_ID: Final = ord("U")
K_LAST_ID: Final = ord("u")
K_BID: Final = ord("b")
K_BID_QTY: Final = ord("B")
K_ASK: Final = ord("a")
K_ASK_QTY: Final = ord("A")
K_PRICE: Final = ord("p")
K_QTY: Final = ord("q")
K_TRADE_ID: Final = ord("t")
K_MAKER: Final = ord("m")
K_RATE: Final = ord("r")
K_ORIGIN: Final = ord("X")
E_DEPTH: Final = (_word("depthUpd"), _word("ate"))
E_TRADE: Final = _word("trade")
E_AGG_TRADE: Final = _word("aggTrade")
E_BBO: Final = (_word("bookTick"), _word("er"))
E_MARK: Final = (_word("markPric"), _word("eUpdate"))
X_MARKET: Final = _word("MARKET")
X_INSURANCE: Final = (_word("INSURANC"), _word("E_FUND"))
X_ADL: Final = _word("ADL")
X_NA: Final = _word("NA")
S_DEPTH: Final = _word("depth")
MAX_MS: Final = (2**63 - 1) // 1_000_000
"""Latest time in milliseconds that fits into int64 nanoseconds."""
MAX_US: Final = (2**63 - 1) // 1_000
"""The same in microseconds."""
V_TRUE: Final = _word("true")
V_FALSE: Final = (_word("fals"), ord("e"))
