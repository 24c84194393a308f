"""Diffs and snapshots into a symbol's book: applied when proved, kept when not, and asked for when missing.

A symbol's book is in one of four phases (the venue's own rules are in `trading.books.sync_rules`, every sequence checked for
ever):

    WAITING --snapshot--> LOADED --diffs that connect to it without a hole--> SYNCED <--in-band snapshot, from anywhere
       ^                                                                      |   ^
       |<--- crossed, malformed, checksum, ids anew, lost: Kind.STALE --------+   | the missing diffs came: healed
       |                                                                      v   |
       +<------------- no room, crossed ------------------------------------ HELD-+     (gap: Kind.STALE)
                                                                              +--- newer snapshot ---> LOADED

A REST snapshot by itself is not shown: only the diff that connects to it proves that nothing lies between them. At a gap the
book is out of use at once, but kept: with two lines, or after reordering, the missing diff comes a moment later. Going
SYNCED tells the depth ring the whole book behind a SNAPSHOT marker, because STALE has made its readers forget. How deep a
SYNCED book is known is the business of `trading.books.edge`.

What this module is not: it decodes no frame and knows neither trades nor tickers.
"""

from __future__ import annotations

from typing import Any, Final

from trading.books import book
from trading.books.ages import revive
from trading.books.checksum import book_checksum, has_rule
from trading.books.edge import NEVER, ask_if_near, deepen, forget_wish, note_removed, reach, set_edges, tell_edges
from trading.books.pending_diffs import DROPPED, apply_kept, drop_front, forget_kept, keep, newest_run, whole_from
from trading.books.state import HEAD as PENDING_HEAD
from trading.books.state import (
    HELD,
    LATE_LIMIT,
    LOADED,
    MAX_DEPTH_OUT,
    P_CHECKSUM,
    P_FIRST,
    P_FLAGS,
    P_LAST,
    P_LEVELS,
    P_PREV,
    PATIENCE,
    SYNCED,
    WAITING,
    WHOLE,
    State,
    Want,
)
from trading.books.sync_rules import PLAIN, follows, is_older
from trading.books.told import ask, depth_record, market_record, meet_recent, refresh
from trading.books.trade_window import forget_trades
from trading.books.trim import trim
from trading.jit import Recs, kernel
from trading.records import Flag, Kind
from trading.wire.plain_frame import HAS_CHECKSUM, IN_BAND, UNCHECKED

_VALID: Final = int(Flag.BOOK_VALID)
_ASK: Final = int(Flag.ASK)
_LAST: Final = int(Flag.LAST)


# ---- words to the outside


@kernel
def drop_book(st: State, overlay: int) -> None:
    """No book from here on; what is pending stays."""
    book.clear(st)
    st.phase = WAITING
    st.first_id = 0
    st.last_id = 0
    st.late_run = 0
    st.held_run = 0
    forget_wish(st)
    refresh(st, overlay)


@kernel
def stale(st: State, g: Any, hold: bool, overlay: int, market_out: Recs, depth_out: Recs) -> int:
    """Take a synced book out of use, kept aside or forgotten, and tell both rings; answers 1."""
    update_id = st.last_id
    if hold:
        st.phase = HELD
        st.late_run = 0
        st.held_run = 0
        forget_wish(st)
        refresh(st, overlay)
    else:
        drop_book(st, overlay)
    depth_record(depth_out[0], g, Kind.STALE, _LAST, 0, 0, update_id)
    g.n_depth = 1
    return market_record(st, g, Kind.STALE, update_id, market_out)


@kernel
def _write_side(st: State, g: Any, side: int, n: int, out: Recs) -> int:
    """Write a whole side of the book to out[n:], best first; answers the next free row."""
    flags = _VALID | (_ASK if side == book.ASK else 0)
    key = st.best[side]
    while key != book.NO_KEY:
        depth_record(out[n], g, Kind.DEPTH, flags, abs(key), book.lots_at(st, side, key), st.last_id)
        n += 1
        key = book.next_key(st, side, key + 1)
    return n


@kernel
def _write_book(st: State, g: Any, out: Recs) -> int:
    """The SNAPSHOT marker, edges and all levels to out[0:]; answers how many rows."""
    depth_record(out[0], g, Kind.SNAPSHOT, _VALID, 0, 0, st.last_id)
    n = tell_edges(st, g, 1, False, out)
    n = _write_side(st, g, book.BID, n, out)
    n = _write_side(st, g, book.ASK, n, out)
    out[n - 1].flags |= _LAST
    return n


@kernel
def _shown(st: State, g: Any, n: int, overlay: int, market_out: Recs) -> int:
    """The book has become valid and its n rows are written; answers 1."""
    st.phase = SYNCED
    revive(st)
    st.asked = 0
    st.first_reason = 0
    st.late_run = 0
    st.book_ts_ns = g.ts_exchange_ns
    forget_wish(st)
    book.widen(st)
    ask_if_near(st, g)
    g.n_depth = n
    refresh(st, overlay)
    return market_record(st, g, Kind.SNAPSHOT, st.last_id, market_out)


# ---- is it right?


@kernel
def _fault(st: State, g: Any, flags: int, checksum: int, instrument: Any) -> int:
    """Why the book cannot be right after a message: a Want, NONE if it is sound. Counts it."""
    if book.is_crossed(st):
        st.crossed += 1
        return Want.CROSSED
    if flags & HAS_CHECKSUM != 0 and has_rule(instrument):
        st.checksum_checked += 1
        if book_checksum(st, instrument, g) != checksum:
            st.checksum_failed += 1
            return Want.CHECKSUM
    return Want.NONE


@kernel
def _late(st: State, g: Any) -> bool:
    """Count a diff that the book has already; True if there were so many that the venue must be counting anew."""
    if g.last_id == st.last_id and g.first_id == st.first_id:
        st.duplicates += 1
    else:
        st.late += 1
    st.late_run += 1
    return st.late_run >= LATE_LIMIT


@kernel
def forget_ids(st: State) -> None:
    """Ids known so far say nothing about those to come: diffs kept, tickers, trades."""
    forget_kept(st)
    forget_trades(st)
    st.bbo_id = 0
    st.bbos_late_run = 0
    st.recent_count = 0


@kernel
def _first_reason(st: State) -> int:
    """Why the first diff without a book asks for a snapshot: a Want."""
    return st.first_reason if st.first_reason != Want.NONE else Want.START


# ---- from LOADED or HELD to SYNCED


@kernel
def _load(st: State, g: Any, rows: Recs, asked: int) -> None:
    """Make the snapshot in the rows the book. `asked`: `snapshot_levels` of FEED_PARAMS."""
    book.clear(st)
    for i in range(g.n_levels):
        row = rows[i]
        if row.flags & _ASK != 0:
            book.set_level(st, book.ASK, row.price_ticks, row.qty_lots)
        else:
            book.set_level(st, book.BID, -row.price_ticks, row.qty_lots)
    st.first_id = 0
    st.last_id = g.last_id
    st.depth_limit = 0
    st.phase = LOADED
    st.late_run = 0
    forget_wish(st)
    set_edges(st, g, rows, asked)


@kernel
def _connect(st: State, g: Any, params: Any, instrument: Any, market_out: Recs, depth_out: Recs) -> int:
    """LOADED: drop the kept diffs that the snapshot contains and apply the rest, if they connect to it without a hole."""
    at = whole_from(st, st.last_id, g.rule)
    if at < 0:
        if st.asked == 0:
            st.snapshots_too_old += 1
            ask(st, g, Want.TOO_OLD, newest_run(st, g.rule))
        return 0
    if at == st.pending_used:
        st.pending_used = 0
        refresh(st, params.overlay)
        return 0
    n = _write_book(st, g, depth_out)
    fault = Want.NONE
    while at < st.pending_used and fault == Want.NONE:
        n = apply_kept(st, g, at, n, depth_out)
        flags = st.pending[at + P_FLAGS]
        if params.oracle != 0 and meet_recent(st):
            fault = Want.ORACLE
        elif flags != 0:
            fault = _fault(st, g, flags, st.pending[at + P_CHECKSUM], instrument)
        at += PENDING_HEAD + 2 * st.pending[at + P_LEVELS]
    if fault == Want.NONE:
        fault = _fault(st, g, 0, 0, instrument)
    if fault != Want.NONE:
        drop_book(st, params.overlay)
        ask(st, g, fault, newest_run(st, g.rule))
        return 0
    st.pending_used = 0
    st.resyncs += 1
    return _shown(st, g, n, params.overlay, market_out)


@kernel
def _heal(st: State, g: Any, params: Any, instrument: Any, market_out: Recs, depth_out: Recs) -> int:
    """HELD: bring the book forward by the kept diffs that continue it; valid again once none is left behind a hole."""
    at = 0
    before = st.held_run
    fault = Want.NONE
    while at < st.pending_used and fault == Want.NONE:
        if follows(g.rule, st.pending[at + P_FIRST], st.pending[at + P_PREV], st.last_id):
            apply_kept(st, g, at, -1, depth_out)
            trim(st, g, -1, depth_out)
            fault = _fault(st, g, st.pending[at + P_FLAGS], st.pending[at + P_CHECKSUM], instrument)
            if fault == Want.NONE and params.oracle != 0 and meet_recent(st):
                fault = Want.ORACLE
            st.held_run += 1
        elif st.pending[at + P_LAST] > st.last_id:
            break
        at += PENDING_HEAD + 2 * st.pending[at + P_LEVELS]
    drop_front(st, at)
    if fault == Want.NONE and book.count_levels(st, book.BID) + book.count_levels(st, book.ASK) + 3 > MAX_DEPTH_OUT:
        fault = Want.GAP  # more levels than one call may tell: only a snapshot helps
    if fault != Want.NONE:
        drop_book(st, params.overlay)
        ask(st, g, fault, newest_run(st, g.rule))
        return 0
    if st.held_run >= LATE_LIMIT:
        forget_kept(st)  # from before the venue counted anew; were they not, the next diffs would show a gap
    if st.held_run == before or st.pending_used > 0:
        return 0
    st.healed += 1
    st.resyncs += 1
    n = _write_book(st, g, depth_out)
    return _shown(st, g, n, params.overlay, market_out)


# ---- one message


@kernel
def _on_in_band(
    st: State, g: Any, solicited: bool, params: Any, instrument: Any, market_out: Recs, depth_out: Recs
) -> int:
    """A snapshot within the stream: the book from here on, whatever it was."""
    was_synced = st.phase == SYNCED
    if was_synced and st.lines_up & (st.lines_up - 1) != 0:
        # The other line's. Ids that begin anew (Bybit's u == 1 after a restart of its service) reset the book, but once: the
        # second copy is no newer than what has been applied since.
        copied = g.last_id == 1 and 0 < g.ts_exchange_ns <= st.book_ts_ns
        if copied or (not solicited and 1 < g.last_id <= st.last_id):
            st.snapshots_ignored += 1
            return 0
    st.snapshots += 1
    update_id = st.last_id
    forget_kept(st)
    _load(st, g, depth_out, WHOLE)
    st.depth_limit = g.first_id
    trim(st, g, -1, depth_out)
    fault = _fault(st, g, g.plain_flags, g.checksum, instrument)
    if fault == Want.NONE and params.oracle != 0 and meet_recent(st):
        fault = Want.ORACLE
    if fault != Want.NONE:
        ask(st, g, fault, 0)
        st.last_id = update_id
        if was_synced:
            return stale(st, g, False, params.overlay, market_out, depth_out)
        drop_book(st, params.overlay)
        return 0
    if not was_synced:
        st.resyncs += 1
    n = _write_book(st, g, depth_out)
    return _shown(st, g, n, params.overlay, market_out)


@kernel
def on_snapshot(st: State, g: Any, params: Any, instrument: Any, market_out: Recs, depth_out: Recs) -> int:
    """A snapshot, decoded into FEED_GLOBAL's fields and the depth rows."""
    solicited = st.expected != 0
    st.asked = 0
    st.expected = max(0, st.expected - 1)
    if g.plain_flags & IN_BAND != 0:
        return _on_in_band(st, g, solicited, params, instrument, market_out, depth_out)
    was_synced = st.phase == SYNCED
    if was_synced and st.removed_since != 0:
        return deepen(st, g, params, market_out, depth_out)
    if st.phase != WAITING and (g.last_id <= st.last_id or (was_synced and solicited)):
        # no newer than the book, or asked for and not needed any more
        st.snapshots_ignored += 1
        if st.phase == HELD or (st.phase == LOADED and st.pending_used > 0):
            ask(st, g, Want.TOO_OLD, newest_run(st, g.rule))
        return 0
    st.snapshots += 1
    if was_synced:
        # Newer than the book: the stream was cut without our being told. The diffs to come must bracket this snapshot.
        forget_kept(st)
    elif whole_from(st, g.last_id, g.rule) < 0:
        st.snapshots_too_old += 1
        ask(st, g, Want.TOO_OLD, newest_run(st, g.rule))
        return 0
    old_id = st.last_id
    _load(st, g, depth_out, params.snapshot_levels)
    crossed = book.is_crossed(st)
    if crossed:
        st.crossed += 1
        drop_book(st, params.overlay)
        ask(st, g, Want.CROSSED, newest_run(st, g.rule))
    if was_synced:
        refresh(st, params.overlay)
        depth_record(depth_out[0], g, Kind.STALE, _LAST, 0, 0, old_id)
        g.n_depth = 1
        return market_record(st, g, Kind.STALE, old_id, market_out)
    if crossed:
        return 0
    return _connect(st, g, params, instrument, market_out, depth_out)


@kernel
def _wait(st: State, g: Any, params: Any, instrument: Any, market_out: Recs, depth_out: Recs) -> int:
    """A diff while the book is not synced."""
    st.asked_run += 1
    if st.asked != 0 and st.asked_run >= PATIENCE:
        st.asked = 0
        st.expected -= 1
        ask(st, g, Want.LOST, 0)
    if g.rule == PLAIN and g.prev_id == UNCHECKED:
        ask(st, g, _first_reason(st), 0)  # without a sequence nothing kept would connect
        return 0
    if st.phase == HELD and not follows(g.rule, g.first_id, g.prev_id, st.last_id) and g.last_id <= st.last_id:
        restarted = _late(st, g)
        if not restarted:
            return 0
    elif st.phase == LOADED and is_older(g.rule, g.last_id, st.last_id):
        st.late_run += 1
        restarted = st.late_run >= LATE_LIMIT
    else:
        st.late_run = 0
        restarted = False
    if restarted:
        forget_ids(st)
        drop_book(st, params.overlay)
        ask(st, g, Want.RESTARTED_IDS, g.first_id)
    if keep(st, g, depth_out) == DROPPED and st.phase != WAITING:
        drop_book(st, params.overlay)  # nothing can prove it any more
    if st.phase == LOADED:
        return _connect(st, g, params, instrument, market_out, depth_out)
    if st.phase == HELD:
        return _heal(st, g, params, instrument, market_out, depth_out)
    ask(st, g, _first_reason(st), newest_run(st, g.rule) if st.asked == 0 else 0)
    return 0


@kernel
def _out_of_line(st: State, g: Any, overlay: int, market_out: Recs, depth_out: Recs) -> int:
    """A diff that does not follow the synced book: a copy of what it has, or a gap."""
    if g.last_id <= st.last_id:
        if not _late(st, g):
            return 0
        forget_ids(st)
        keep(st, g, depth_out)
        ask(st, g, Want.RESTARTED_IDS, g.first_id)
        return stale(st, g, False, overlay, market_out, depth_out)
    st.gaps += 1
    forget_kept(st)
    keep(st, g, depth_out)
    ask(st, g, Want.GAP, g.first_id)
    return stale(st, g, True, overlay, market_out, depth_out)


@kernel
def on_diff(st: State, g: Any, params: Any, instrument: Any, market_out: Recs, depth_out: Recs) -> int:
    """A diff, decoded into FEED_GLOBAL's fields and the depth rows."""
    st.depth_messages += 1
    if st.phase != SYNCED:
        return _wait(st, g, params, instrument, market_out, depth_out)
    if not follows(g.rule, g.first_id, g.prev_id, st.last_id):
        return _out_of_line(st, g, params.overlay, market_out, depth_out)
    n = g.n_levels
    update_id = g.last_id
    ts_ns = g.ts_ns
    symbol = g.book_symbol
    for i in range(n):
        row = depth_out[i]
        side = 1 if row.flags & _ASK != 0 else 0
        book.set_level(st, side, row.price_ticks if side == book.ASK else -row.price_ticks, row.qty_lots)
        row.ts_ns = ts_ns
        row.kind = Kind.DEPTH
        row.symbol = symbol
        row.flags |= _VALID
        row.update_id = update_id
    if 0 < st.removed_since < NEVER:
        note_removed(st, g, depth_out)
    book.follow(st)
    old_id = st.last_id
    st.last_id = update_id
    n = trim(st, g, n, depth_out)
    fault = _fault(st, g, g.plain_flags, g.checksum, instrument)
    if fault == Want.NONE and params.oracle != 0 and meet_recent(st):
        fault = Want.ORACLE
    if fault != Want.NONE:
        st.last_id = old_id
        forget_kept(st)
        keep(st, g, depth_out)
        ask(st, g, fault, g.first_id)
        return stale(st, g, False, params.overlay, market_out, depth_out)
    book.widen(st)
    if st.edge_next_id != 0:
        n = reach(st, g, n, depth_out)
    ask_if_near(st, g)
    if n > 0:
        depth_out[n - 1].flags |= _LAST
    st.first_id = g.first_id
    st.late_run = 0
    st.book_ts_ns = g.ts_exchange_ns
    g.n_depth = n
    refresh(st, params.overlay)
    return market_record(st, g, Kind.DEPTH, update_id, market_out)
