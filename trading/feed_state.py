"""The feed fold's state, settings and counters: the layout that `trading.market` works on.

One FEED_STATE a symbol holds its book, the diffs kept for a snapshot, the newest bookTicker and the symbol's counters. All words
are plain int64, 0 at the start but for what `init` sets, so a copy of the array is a checkpoint.

Its constants are frozen into the compiled kernels, as those of `binance_layout` are.

What this module is not: it decodes and decides nothing.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from trading import book
from trading.binance_layout import FRAME_FIELDS, MAX_SNAPSHOT_LEVELS
from trading.jit import Recs

WAITING: Final = 0
LOADED: Final = 1
SYNCED: Final = 2

PENDING_WORDS: Final = 8192
"""Room for diffs kept while there is no snapshot; when it is full the oldest go (`pending_dropped`)."""
HEAD: Final = 3  # words of a pending diff before its levels: first id, last id, levels
RECENT: Final = 128  # bookTickers remembered for a depth message that is yet to come

MAX_MARKET_OUT: Final = 1
"""Most market records that one frame makes."""
MAX_DEPTH_OUT: Final = 16384
"""Most depth records that one frame makes; a diff of more levels is refused as malformed."""

assert MAX_DEPTH_OUT >= 1 + 2 * MAX_SNAPSHOT_LEVELS + PENDING_WORDS // 2, "marker, snapshot and all pending levels must fit"
assert book.FAR >= MAX_SNAPSHOT_LEVELS

FEED_STATE: Final = np.dtype(
    [
        ("phase", "i8"),
        ("first_id", "i8"),  # of the last diff applied
        ("last_id", "i8"),  # update id of the depth book; 0: no book
        # one counter each, since start
        ("depth_messages", "i8"),
        ("trades", "i8"),
        ("bbos", "i8"),
        ("snapshots", "i8"),
        ("resyncs", "i8"),  # times the book became valid
        ("gaps", "i8"),  # diffs that did not follow, synced or kept
        ("crossed", "i8"),  # books found crossed
        ("duplicates", "i8"),  # a diff that came twice in a row, ignored
        ("malformed", "i8"),  # frames that named this symbol and could not be used
        ("snapshots_too_old", "i8"),  # older than the first diff kept: another is needed
        ("snapshots_ignored", "i8"),  # no newer than the book
        ("pending_dropped", "i8"),  # diffs that went for want of room
        ("trade_gaps", "i8"),  # trade ids skipped over (of `trade` messages)
        ("last_trade_id", "i8"),
        ("oracle_checked", "i8"),  # depth book and bookTicker at the same update id ...
        ("oracle_equal", "i8"),  # ... and with equal best prices and quantities
        # best bid/offer message, newest update id
        ("bbo_id", "i8"),
        ("bbo_ticks", "i8", 2),  # by side; 0: the side is empty
        ("bbo_lots", "i8", 2),
        ("recent_count", "i8"),
        ("recent_id", "i8", RECENT),
        ("recent", "i8", (RECENT, 4)),  # bid ticks, bid lots, ask ticks, ask lots
        ("pending_used", "i8"),
        ("pending_first", "i8"),  # ids of the newest diff kept, 0: none since the chain began
        ("pending_last", "i8"),
        ("pending", "i8", PENDING_WORDS),  # diffs: first id, last id, n, then n x (2 * price + side, lots)
        *book.BOOK_FIELDS,
    ],
    align=True,
)
"""One symbol's state; plain words, 0 everywhere but what `init` sets."""

FEED_GLOBAL: Final = np.dtype(
    [
        ("n_depth", "i8"),  # depth records of the last call
        ("frames", "i8"),
        ("unknown", "i8"),  # well-formed, not ours
        ("malformed", "i8"),
        *FRAME_FIELDS,
    ],
    align=True,
)

FEED_PARAMS: Final = np.dtype([("overlay", "i8"), ("oracle", "i8")], align=True)

State = Any
"""A record of FEED_STATE."""


def make_params(*, overlay: bool = True, oracle: bool = True) -> Recs:
    """FEED_PARAMS, shape (1,). `overlay`: show a newer bookTicker over the depth book; `oracle`: compare the two."""
    params = np.zeros(1, FEED_PARAMS)
    params["overlay"], params["oracle"] = overlay, oracle
    return params


def init(state: Recs, glob: Recs, instruments: Recs, params: Recs) -> None:
    """Put `state` (one FEED_STATE a symbol) and `glob` (1,) into the start state: no book, nothing counted."""
    if state.shape != instruments.shape or glob.shape != (1,) or params.shape != (1,):
        raise ValueError(
            f"feed state {state.shape}, glob {glob.shape}, params {params.shape} for {len(instruments)} instruments: "
            "make one state a symbol, one glob, one params"
        )
    state[:] = np.zeros(1, FEED_STATE)[0]
    glob[:] = np.zeros(1, FEED_GLOBAL)[0]
    state["best"] = book.NO_KEY
