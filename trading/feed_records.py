"""What the feed fold tells: the top levels that a record shows, the two record writers, and the oracle.

A market record shows the depth book's levels under a newer bookTicker: levels better than it are dropped, its own level
stands in front. The oracle compares the bare depth book with the bookTicker whenever both stand at the same update id.

What this module is not: it changes no book and judges no sequence (`trading.market`).
"""

from __future__ import annotations

from typing import Any, Final

from trading import book
from trading.feed_state import HELD, RECENT, SYNCED, State
from trading.jit import Recs, kernel
from trading.records import LEVELS, Flag

_VALID: Final = int(Flag.BOOK_VALID)


@kernel
def refresh_side(st: State, side: int, covered: bool) -> None:
    """The top of a side: from the depth book, or behind the bookTicker's level where that is newer; a held book is not shown."""
    held = st.phase == HELD
    if not covered:
        book.fill_top(st, side, book.NO_KEY if held else st.best[side], 0)
        return
    ticks = st.bbo_ticks[side]
    if ticks == 0:
        book.fill_top(st, side, book.NO_KEY, 0)
        return
    st.top_ticks[side, 0] = ticks
    st.top_lots[side, 0] = st.bbo_lots[side]
    book.fill_top(st, side, book.NO_KEY if held else (ticks if side == book.ASK else -ticks) + 1, 1)


@kernel
def refresh(st: State, overlay: int) -> None:
    """Bring both sides of the top up to date with depth book and bookTicker."""
    covered = overlay != 0 and st.bbo_id > (0 if st.phase == HELD else st.last_id)
    refresh_side(st, book.BID, covered)
    refresh_side(st, book.ASK, covered)


@kernel
def market_record(
    st: State,
    symbol: int,
    kind: int,
    flags: int,
    frame: Any,
    ts_ns: int,
    recv_ns: int,
    price: int,
    qty: int,
    update_id: int,
    out: Recs,
) -> int:
    """Write out[0]; answers 1."""
    row = out[0]
    row.ts_ns = ts_ns
    row.kind = kind
    row.symbol = symbol
    row.flags = flags | (_VALID if st.phase == SYNCED else 0)
    row.ts_exchange_ns = frame.ts_exchange_ns
    row.ts_recv_ns = recv_ns
    row.update_id = update_id
    row.price_ticks = price
    row.qty_lots = qty
    for i in range(LEVELS):
        row.bid_ticks[i] = st.top_ticks[0, i]
        row.bid_lots[i] = st.top_lots[0, i]
        row.ask_ticks[i] = st.top_ticks[1, i]
        row.ask_lots[i] = st.top_lots[1, i]
    return 1


@kernel
def depth_record(row: Any, ts_ns: int, symbol: int, kind: int, flags: int, price: int, qty: int, update_id: int) -> None:
    """Write one row of DEPTH_RECORD."""
    row.ts_ns = ts_ns
    row.kind = kind
    row.symbol = symbol
    row.flags = flags
    row.price_ticks = price
    row.qty_lots = qty
    row.update_id = update_id


@kernel
def compare(st: State, bid: int, bid_lots: int, ask: int, ask_lots: int) -> None:
    """Count one meeting of depth book and bookTicker at the same update id."""
    st.oracle_checked += 1
    for side in range(2):
        best = st.best[side]
        price = 0 if best == book.NO_KEY else abs(best)
        lots = 0 if best == book.NO_KEY else book.lots_at(st, side, best)
        if price != (ask if side == book.ASK else bid) or lots != (ask_lots if side == book.ASK else bid_lots):
            return
    st.oracle_equal += 1


@kernel
def meet_recent(st: State) -> None:
    """The depth book has reached last_id: has a bookTicker come with it before?"""
    i = st.recent_count
    oldest = max(0, i - RECENT)
    while i > oldest:
        i -= 1
        slot = i % RECENT
        if st.recent_id[slot] == st.last_id:
            compare(st, st.recent[slot, 0], st.recent[slot, 1], st.recent[slot, 2], st.recent[slot, 3])
        if st.recent_id[slot] <= st.last_id:
            return
