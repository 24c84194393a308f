"""What the feed fold tells: the top levels that a record shows, the record writers, its wants, and the oracle.

A market record shows the depth book's levels under a newer bookTicker: levels better than it are dropped, its own level
stands in front. It is valid if none of the levels shown can be missing: the last of them lies within the book's edge.

The oracle compares the bare depth book with the bookTicker whenever both stand at the same update id. A difference proves the
book wrong, unless the venue's level lies beyond the edge: it may be one that no message has told us of.

What this module is not: it changes no book and judges no sequence (`trading.books.fold`).
"""

from __future__ import annotations

from typing import Any, Final

from trading.books import book
from trading.books.ages import flags_of
from trading.books.state import HELD, RECENT, SYNCED, State
from trading.jit import Recs, kernel
from trading.records import LEVELS, Flag

_VALID: Final = int(Flag.BOOK_VALID)
_BEYOND_EDGE: Final = int(Flag.BEYOND_EDGE)


@kernel
def ask(st: State, g: Any, reason: int, update_id: int) -> None:
    """Want a snapshot, once until one comes. `reason`: a Want."""
    if st.asked != 0:
        return
    st.asked = 1
    st.asked_run = 0
    st.expected += 1
    st.wants += 1
    g.want_symbol = g.book_symbol
    g.want_reason = reason
    g.want_update_id = update_id


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
def _whole_top(st: State) -> bool:
    """Whether no level is missing among those shown."""
    bid = st.top_ticks[book.BID, LEVELS - 1]
    ask = st.top_ticks[book.ASK, LEVELS - 1]
    bids = st.edge[book.BID] == book.NO_KEY or (bid != 0 and -bid <= st.edge[book.BID])
    return bids and (st.edge[book.ASK] == book.NO_KEY or (ask != 0 and ask <= st.edge[book.ASK]))


@kernel
def market_record(st: State, g: Any, kind: int, update_id: int, out: Recs) -> int:
    """Write out[0], without a price and a quantity of its own; answers 1."""
    row = out[0]
    row.ts_ns = g.ts_ns
    row.kind = kind
    row.symbol = g.book_symbol
    flags = 0
    if st.phase == SYNCED:
        whole = _whole_top(st)
        flags = _VALID if whole else _BEYOND_EDGE
        st.beyond_edge += 0 if whole else 1
    row.flags = flags if st.dead == 0 else flags_of(st, flags)
    row.ts_exchange_ns = g.ts_exchange_ns
    row.ts_recv_ns = g.recv_ns
    row.update_id = update_id
    row.price_ticks = 0
    row.qty_lots = 0
    for i in range(LEVELS):
        row.bid_ticks[i] = st.top_ticks[0, i]
        row.bid_lots[i] = st.top_lots[0, i]
        row.ask_ticks[i] = st.top_ticks[1, i]
        row.ask_lots[i] = st.top_lots[1, i]
    return 1


@kernel
def depth_record(row: Any, g: Any, kind: int, flags: int, price: int, qty: int, update_id: int) -> None:
    """Write one row of DEPTH_RECORD."""
    row.ts_ns = g.ts_ns
    row.kind = kind
    row.symbol = g.book_symbol
    row.flags = flags
    row.price_ticks = price
    row.qty_lots = qty
    row.update_id = update_id


@kernel
def compare(st: State, bid: int, bid_lots: int, ask: int, ask_lots: int) -> bool:
    """Count one meeting of depth book and bookTicker at the same update id; whether it proves the book wrong."""
    equal = True
    wrong = False
    for side in range(2):
        best = st.best[side]
        price = ask if side == book.ASK else bid
        key = book.NO_KEY if price == 0 else (price if side == book.ASK else -price)
        if key != best or (best != book.NO_KEY and book.lots_at(st, side, best) != (ask_lots if side == book.ASK else bid_lots)):
            equal = False
            # a level that nobody told us of can only stand beyond the edge and before all that we have
            wrong = wrong or key <= st.edge[side] or best <= key
    if not equal and not wrong:
        st.oracle_beyond += 1
        return False
    st.oracle_checked += 1
    if equal:
        st.oracle_equal += 1
        for side in range(2):
            st.edge[side] = max(st.edge[side], st.best[side])
    return wrong


@kernel
def meet_recent(st: State) -> bool:
    """The depth book has reached last_id: has a bookTicker come with it before, and does it prove the book wrong?"""
    wrong = False
    i = st.recent_count
    oldest = max(0, i - RECENT)
    while i > oldest:
        i -= 1
        slot = i % RECENT
        if st.recent_id[slot] == st.last_id:
            wrong = compare(st, st.recent[slot, 0], st.recent[slot, 1], st.recent[slot, 2], st.recent[slot, 3])
        if st.recent_id[slot] <= st.last_id:
            return wrong
    return False
