"""The feed fold's state, settings and counters: the layout that `trading.books.fold` works on.

One FEED_STATE a symbol holds its book, the diffs kept for a snapshot, the newest bookTicker and the symbol's counters. All words
are plain int64, 0 at the start but for what `init` sets, so a copy of the array is a checkpoint.

`phase` says what the book is worth: WAITING, there is none; LOADED, a snapshot that no diff has proved yet; SYNCED, it follows
the venue; HELD, it was right up to `last_id`, then a diff was missing: out of use, kept in case the missing one still comes.

Its constants are frozen into the compiled kernels, as those of `binance_layout` are.

What this module is not: it decodes and decides nothing.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, Final

import numpy as np

from trading.books import book
from trading.jit import Recs
from trading.records import Stream
from trading.wire.binance_layout import FRAME_FIELDS, MAX_SNAPSHOT_LEVELS, Aside

WAITING: Final = 0
LOADED: Final = 1
SYNCED: Final = 2
HELD: Final = 3


class Want(IntEnum):
    """Why the fold wants a snapshot of a symbol."""

    NONE = 0
    START = 1  # there has been none yet
    GAP = 2  # a diff is missing
    CROSSED = 3
    MALFORMED = 4  # a diff, or the snapshot itself, could not be used
    CHECKSUM = 5
    TOO_OLD = 6  # the snapshot that came does not reach the diffs kept
    DISCONNECTED = 7  # the first diff after the symbol's last line had gone down
    RESTARTED_IDS = 8  # the venue counts anew
    LOST = 9  # frames were dropped before they reached the fold
    EDGE = 10  # the best price comes near the end of what the last snapshot told
    ORACLE = 11  # the venue's best bid/offer at the same update id says that the book is wrong
    STREAM_DEAD = 12  # the first diff after the depth stream had died alone


LATE_LIMIT: Final = 1000
"""So many late copies in a row with nothing new among them: the venue counts its ids anew, the old ones are forgotten."""
PATIENCE: Final = 1000
"""So many diffs without a book since a snapshot was asked for: it must have been lost on the way, and is asked for again."""
TRADE_WINDOW: Final = 4096
"""Trade ids back from the newest for which it is known whether they came; a power of two."""
MAX_LINE: Final = 62
"""Highest number of a line: one bit each in `lines_up`."""

PENDING_WORDS: Final = 8192
"""Room for diffs kept while there is no snapshot; when it is full the oldest go (`pending_dropped`)."""
HEAD: Final = 6  # words of a pending diff before its levels: see `pending`
P_FIRST, P_LAST, P_PREV, P_FLAGS, P_CHECKSUM, P_LEVELS = range(HEAD)
REMOVED: Final = 512  # levels noted that went beyond the edge while a deeper snapshot is on its way
LIMITS: Final = (500, 1000, 5000)
"""How many levels a side snapshots to keep a book with are asked for, where nobody says (recordings)."""
RECENT: Final = 128  # bookTickers remembered for a depth message that is yet to come
STREAMS: Final = len(Stream)
OWED_LIMIT_NS: Final = 2_000_000_000
SILENCE_NS: Final = 60_000_000_000
"""Where nobody says otherwise (`live.stream_age_ms`, `live.silence_timeout_s`)."""

MAX_MARKET_OUT: Final = 1
"""Most market records that one frame makes."""
MAX_DEPTH_OUT: Final = 16384
"""Most depth records that one frame makes; a diff of more levels is refused as malformed."""

assert TRADE_WINDOW & (TRADE_WINDOW - 1) == 0 and TRADE_WINDOW % 64 == 0
assert MAX_DEPTH_OUT >= 3 + 2 * MAX_SNAPSHOT_LEVELS + PENDING_WORDS // 2, "marker, edges, snapshot and pending levels must fit"
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
        ("duplicates", "i8"),  # a diff that came twice in a row, or is kept already: ignored
        ("late", "i8"),  # diffs wholly at or before the book: copies from a slower line, ignored
        ("healed", "i8"),  # times a held book became valid again without a snapshot
        ("bbos_late", "i8"),  # bookTickers no newer than the newest: no record
        ("trade_copies", "i8"),  # trades whose id had come before: no record
        ("aside", "i8", len(Aside)),  # prints that are no trades, by what their venue calls them
        ("marks", "i8"),
        ("checksum_checked", "i8"),
        ("checksum_failed", "i8"),
        ("lost", "i8"),  # times the fold was told that frames were dropped
        ("wants", "i8"),  # snapshots asked for
        ("malformed", "i8"),  # frames that named this symbol and could not be used
        ("snapshots_too_old", "i8"),  # older than the first diff kept: another is needed
        ("snapshots_ignored", "i8"),  # no newer than the book
        ("pending_dropped", "i8"),  # diffs that went for want of room
        ("trade_gaps", "i8"),  # trade ids skipped over (of `trade` messages)
        ("last_trade_id", "i8"),
        # asking for snapshots
        ("asked", "i8"),  # 1: a snapshot is asked for and has not come
        ("asked_run", "i8"),  # diffs since, while there is no book
        ("expected", "i8"),  # snapshots asked for that have not come: where the book got well without, they are no news
        ("first_reason", "i8"),  # Want that the next first diff kept will give; 0: START
        ("lines_up", "i8"),  # bit i: line i is subscribed
        ("late_run", "i8"),  # late diffs in a row
        ("bbos_late_run", "i8"),
        ("held_run", "i8"),  # diffs applied to a held book in a row
        ("depth_limit", "i8"),  # levels a side that the stream covers; 0: all
        ("edge_wants", "i8"),  # of `wants`: for deeper snapshots
        ("deepened", "i8"),  # times one came and fitted
        ("beyond_edge", "i8"),  # market records that showed levels beyond the edge, so without BOOK_VALID
        ("oracle_beyond", "i8"),  # bookTickers whose level may be one that is missing beyond the edge: nothing to compare
        # what a snapshot proves (see `trading.books.edge`)
        ("edge_margin", "i8", 2),  # by side: a deeper snapshot is wanted when the edge is nearer to the best key than this
        ("edge_next", "i8", 2),  # the edge from ...
        ("edge_next_id", "i8"),  # ... this update id on; 0: none is to come
        ("removed_since", "i8"),  # a deeper snapshot was asked for at this update id; 0: none
        ("removed_count", "i8"),
        ("removed_rounds", "i8"),  # times there was no room for more and noting began anew
        ("removed", "i8", (REMOVED, 2)),  # 2 * key + side and update id of levels removed beyond the edge since
        ("book_ts_ns", "i8"),  # exchange time of the last depth message applied, 0: it had none
        ("oracle_checked", "i8"),  # depth book and bookTicker at the same update id ...
        ("oracle_equal", "i8"),  # ... and with equal best prices and quantities
        # trade ids seen, `trade` and `aggTrade` apart
        ("trade_newest", "i8", 2),
        ("trade_late_run", "i8", 2),
        ("trade_seen", "i8", (2, TRADE_WINDOW // 64)),  # bit id % TRADE_WINDOW, of the ids up to trade_newest
        # best bid/offer message, newest update id
        ("bbo_id", "i8"),
        ("bbo_ticks", "i8", 2),  # by side; 0: the side is empty
        ("bbo_lots", "i8", 2),
        ("recent_count", "i8"),
        ("recent_id", "i8", RECENT),
        ("recent", "i8", (RECENT, 4)),  # bid ticks, bid lots, ask ticks, ask lots
        ("pending_used", "i8"),
        ("pending_last", "i8"),  # id of the newest diff kept since the pending were last forgotten, 0: none
        ("pending", "i8", PENDING_WORDS),  # diffs by last id: P_FIRST .. P_LEVELS (n), then n x (2 * price + side, lots)
        # the age of each stream (see `trading.books.ages`)
        ("heard_ns", "i8", STREAMS),  # when its last message came; 0: none since the lines were up
        ("usual_ns", "i8", STREAMS),  # of prints and mark prices: the longest gap of the last minutes
        ("owed_ns", "i8", STREAMS),  # since when the others show that a message of it is owed; 0: none is
        ("late_ns", "i8", STREAMS),  # when it was first seen too late; 0: it is not
        ("owed_id", "i8"),  # update id that the depth stream owes; 0: what it owes has no id
        ("moves", "i8"),  # best bid/offers that moved away from the book while depth was silent for longer than it may owe
        ("beyond", "i8"),  # prints beyond the book's best prices since the last depth message
        ("told_best", "i8", 4),  # of the last best bid/offer message: bid ticks, bid lots, ask ticks, ask lots
        ("dead", "i8"),  # bit i: Stream i has died alone
        ("deaths", "i8", STREAMS),  # times it has
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
        ("odd", "i8"),  # 1: the last frame was unknown or malformed
        ("want_symbol", "i8"),  # symbol whose snapshot the last call asks for; -1: none
        ("want_reason", "i8"),  # Want
        ("want_update_id", "i8"),  # a snapshot older than this would be of no use; 0: any
        ("want_streams", "i8"),  # bit i: Stream i of `book_symbol` is to be subscribed anew; set by the last call
        # the message in hand, set when it begins; after its call nobody reads them
        ("ts_ns", "i8"),
        ("recv_ns", "i8"),
        ("book_symbol", "i8"),  # whose book it is about (`symbol`: whom the frame names)
        ("rule", "i8"),  # how its diffs follow each other (trading.books.sync_rules)
        ("plain_flags", "i8"),  # of the last frame if it was a plain one (trading.wire.plain_frame), else 0
        ("checksum", "i8"),
        ("digits", "i8", 24),  # scratch of `trading.books.checksum`
        *FRAME_FIELDS,
    ],
    align=True,
)

FEED_PARAMS: Final = np.dtype(
    [("overlay", "i8"), ("oracle", "i8"), ("snapshot_levels", "i8"), ("owed_limit_ns", "i8"), ("silence_ns", "i8")], align=True
)

State = Any
"""A record of FEED_STATE."""


WHOLE: Final = -1
"""`snapshot_levels`: REST snapshots hold all levels that there are."""


def make_params(
    *,
    overlay: bool = True,
    oracle: bool = True,
    snapshot_levels: int = 0,
    owed_limit_ns: int = OWED_LIMIT_NS,
    silence_ns: int = SILENCE_NS,
) -> Recs:
    """FEED_PARAMS, shape (1,). `overlay`: show a newer bookTicker over the depth book; `oracle`: compare the two.

    `snapshot_levels`: how many levels a side REST snapshots are asked for; a side that came with so many has more. 0: not
    known, then any of LIMITS; WHOLE: they have them all. `owed_limit_ns`: a stream of the book that owes a message for longer
    is dead. `silence_ns`: prints that are silent for longer, and for much longer than is usual, are (trading.books.ages).
    """
    params = np.zeros(1, FEED_PARAMS)
    params["owed_limit_ns"], params["silence_ns"] = owed_limit_ns, silence_ns
    params["overlay"], params["oracle"], params["snapshot_levels"] = overlay, oracle, snapshot_levels
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
    state["edge"] = book.NO_KEY
    glob["want_symbol"] = -1
