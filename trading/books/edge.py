"""How far a book is known: what a snapshot proves, what later messages add to it, and when a deeper snapshot is wanted.

A REST snapshot that came with as many levels as were asked for has more behind its last one. Diffs tell of levels there too, so
single ones stand in the book; but that none is missing holds only up to the `edge` (trading.books.book). It moves outwards:

- the other side's best price at A: nothing stands at or through A (`book.widen`);
- the best bid/offer at the same update id: nothing stands before it (`trading.books.told.compare`);
- a deeper snapshot: `deepen`.

A deeper snapshot is asked for when the price has gone half of the way to the edge, so that it is here before the edge is
reached. It does not interrupt the book. Levels that stand in the book are right already, those that do not and are in the
snapshot are put in; but for those that went in between, which are noted while it is under way. Quantities are absolute, so a
snapshot ahead of the stream does no harm either: what it proves holds once the stream has got there.

What this module is not: it proves no sequence.
"""

from __future__ import annotations

from typing import Any, Final

from trading.books import book
from trading.books.state import LIMITS, REMOVED, State, Want
from trading.books.told import ask, depth_record, market_record, refresh
from trading.jit import Recs, kernel
from trading.records import Flag, Kind

_ASK: Final = int(Flag.ASK)
_VALID: Final = int(Flag.BOOK_VALID)
_LAST: Final = int(Flag.LAST)
_ROUNDS: Final = 16
NEVER: Final = 2**62
"""`removed_since` when noting has been given up: no snapshot is as new."""


@kernel
def is_cut(levels: int, asked: int) -> bool:
    """Whether a snapshot's side with so many levels has more behind them. `asked`: `snapshot_levels` of FEED_PARAMS."""
    if asked > 0:
        return levels >= asked
    if asked == 0:
        for limit in LIMITS:
            if levels == limit:
                return True
    return False


@kernel
def _edge_of(g: Any, rows: Recs, side: int, asked: int) -> int:
    """The largest key up to which the snapshot in the rows tells every level of a side."""
    count = 0
    worst = -book.NO_KEY
    for i in range(g.n_levels):
        if (rows[i].flags & _ASK != 0) == (side == book.ASK):
            count += 1
            worst = max(worst, rows[i].price_ticks if side == book.ASK else -rows[i].price_ticks)
    return worst if is_cut(count, asked) else book.NO_KEY


@kernel
def _set_margins(st: State) -> None:
    for side in range(2):
        edge = st.edge[side]
        st.edge_margin[side] = 0 if edge == book.NO_KEY else max(0, (edge - st.best[side]) // 2)


@kernel
def set_edges(st: State, g: Any, rows: Recs, asked: int) -> None:
    """The book has just been made of the snapshot in the rows."""
    for side in range(2):
        # smaller already where the book had no room for it all
        st.edge[side] = min(st.edge[side], _edge_of(g, rows, side, asked))
    _set_margins(st)


@kernel
def forget_wish(st: State) -> None:
    """A deeper snapshot would find another book than the one for which it was asked."""
    st.removed_since = 0
    st.removed_count = 0
    st.edge_next_id = 0


@kernel
def ask_if_near(st: State, g: Any) -> None:
    """SYNCED: want a deeper snapshot if the price comes near an edge."""
    near = st.edge[0] - st.best[0] < st.edge_margin[0] or st.edge[1] - st.best[1] < st.edge_margin[1]
    if near and st.asked == 0 and st.edge_next_id == 0:
        ask(st, g, Want.EDGE, st.last_id)
        st.edge_wants += 1
        st.removed_since = st.last_id
        st.removed_count = 0
        st.removed_rounds = 0


@kernel
def note_removed(st: State, g: Any, rows: Recs) -> None:
    """A deeper snapshot is under way: remember what the diff in the rows removed beyond the edge.

    Which levels go the processor cannot guess, so every row is written and only the count depends on it.
    """
    n = g.n_levels
    update_id = g.last_id
    count = st.removed_count
    if count + n > REMOVED:
        # A snapshot from before this is of no use, one from after it knows of all this. Where none comes (a recording has
        # but one) the noting ends; an answer after that is too old and asked for again.
        count = 0
        n = 0
        st.removed_rounds += 1
        st.removed_since = update_id if st.removed_rounds < _ROUNDS else NEVER
    bid_edge = st.edge[book.BID]
    ask_edge = st.edge[book.ASK]
    for i in range(n):
        ask_side = rows[i].flags & _ASK != 0
        price = rows[i].price_ticks
        key = price if ask_side else -price
        st.removed[count, 0] = 2 * key + (1 if ask_side else 0)
        st.removed[count, 1] = update_id
        count += (1 if rows[i].qty_lots == 0 else 0) & (1 if key > (ask_edge if ask_side else bid_edge) else 0)
    st.removed_count = count


@kernel
def tell_edges(st: State, g: Any, n: int, all_sides: bool, out: Recs) -> int:
    """An EDGE row a side to out[n:], where there is room; answers the next free row. `all_sides`: also the wholly known ones."""
    for side in range(2):
        edge = st.edge[side]
        if (all_sides or edge != book.NO_KEY) and n < out.shape[0]:
            flags = _VALID | (_ASK if side == book.ASK else 0)
            price = 0 if edge == book.NO_KEY else abs(edge)
            depth_record(out[n], g, Kind.EDGE, flags, price, 0, st.last_id)
            n += 1
    return n


@kernel
def reach(st: State, g: Any, n: int, out: Recs) -> int:
    """If the book has come to the snapshot that was ahead of it, what that one proves holds; told in out[n:]."""
    if st.last_id < st.edge_next_id:
        return n
    st.edge_next_id = 0
    for side in range(2):
        st.edge[side] = max(st.edge[side], st.edge_next[side])
    _set_margins(st)
    return tell_edges(st, g, n, True, out)


@kernel
def _insert(st: State, g: Any, rows: Recs) -> int:
    """Put what the snapshot has beyond the edges and the book has not into the book, but for what went since it was taken.

    Moves those rows to the front and answers how many.
    """
    count = 0
    for i in range(st.removed_count):
        side = st.removed[i, 0] & 1
        if st.removed[i, 1] <= g.last_id or book.lots_at(st, side, st.removed[i, 0] >> 1) > 0:
            st.removed[i, 1] = 0  # the snapshot knows of it, or it is back
    for i in range(g.n_levels):
        price = rows[i].price_ticks
        lots = rows[i].qty_lots
        flags = rows[i].flags
        side = 1 if flags & _ASK != 0 else 0
        key = price if side == book.ASK else -price
        if key > st.edge[side] and lots > 0 and book.lots_at(st, side, key) == 0:
            book.set_level(st, side, key, lots)
            rows[count].price_ticks = price
            rows[count].flags = flags
            count += 1
    for i in range(st.removed_count):
        if st.removed[i, 1] != 0:
            book.set_level(st, st.removed[i, 0] & 1, st.removed[i, 0] >> 1, 0)
    return count


@kernel
def deepen(st: State, g: Any, params: Any, market_out: Recs, depth_out: Recs) -> int:
    """SYNCED, and the snapshot that was asked for because of the edge is in the rows: same outputs as `on_snapshot`."""
    if g.last_id < st.removed_since:
        st.snapshots_too_old += 1
        forget_wish(st)
        ask_if_near(st, g)
        return 0
    st.snapshots += 1
    st.deepened += 1
    for side in range(2):
        st.edge_next[side] = _edge_of(g, depth_out, side, params.snapshot_levels)
    dropped = st.levels_dropped
    count = _insert(st, g, depth_out)
    for side in range(2):
        if st.levels_dropped != dropped and st.far_count[side] > 0:
            st.edge_next[side] = min(st.edge_next[side], book.worst_far(st, side))  # there was no room for it all
    n = 0
    for i in range(count):
        flags = depth_out[i].flags & _ASK
        side = 1 if flags != 0 else 0
        price = depth_out[i].price_ticks
        lots = book.lots_at(st, side, price if side == book.ASK else -price)
        if lots > 0:
            depth_record(depth_out[n], g, Kind.DEPTH, _VALID | flags, price, lots, st.last_id)
            n += 1
    forget_wish(st)
    st.edge_next_id = g.last_id
    n = reach(st, g, n, depth_out)
    if n > 0:
        depth_out[n - 1].flags |= _LAST
    g.n_depth = n
    ask_if_near(st, g)
    refresh(st, params.overlay)
    return market_record(st, g, Kind.DEPTH, st.last_id, market_out)
