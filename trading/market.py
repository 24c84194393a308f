"""The feed fold: raw frames in, market and depth records out, each symbol's book proved right or marked stale.

A symbol's book is in one of three phases (PROTOCOLS: the venue's own rules, every sequence checked for ever):

    WAITING --snapshot--> LOADED --first diff that brackets the snapshot--> SYNCED
       ^                    |                                                 |
       +---snapshot is older than the first diff kept------ gap, crossed book, malformed diff: Kind.STALE
       +----------------------------------------------------------------------+

Diffs are kept in `pending` until SYNCED. A snapshot by itself is not shown: only the diff that connects to it proves that
nothing lies between them. Records of a symbol that is not SYNCED lack Flag.BOOK_VALID: nobody may decide on them.

Trades and best-bid/offer messages pass in every phase. The levels that a market record carries are the depth book's, under a
newer bookTicker: levels better than it are dropped, its own level stands in front. The oracle compares depth book and
bookTicker whenever both stand at the same update id; the two counters must stay equal.

What this module is not: it reads no socket or file, asks for no snapshot (whoever runs it sees Kind.STALE and fetches one),
and knows no time but its arguments.
"""

from __future__ import annotations

from typing import Any, Final

from trading import binance_frames, book
from trading.binance_layout import FrameKind
from trading.feed_records import compare, depth_record, market_record, meet_recent, refresh, refresh_side
from trading.feed_state import (
    FEED_GLOBAL,
    FEED_PARAMS,
    FEED_STATE,
    HEAD,
    LOADED,
    MAX_DEPTH_OUT,
    MAX_MARKET_OUT,
    PENDING_WORDS,
    RECENT,
    SYNCED,
    WAITING,
    State,
    init,
    make_params,
)
from trading.instruments import Market
from trading.jit import Bytes, Recs, kernel
from trading.records import Flag, Kind

__all__ = [
    "FEED_GLOBAL",
    "FEED_PARAMS",
    "FEED_STATE",
    "LOADED",
    "MAX_DEPTH_OUT",
    "MAX_MARKET_OUT",
    "SYNCED",
    "WAITING",
    "init",
    "make_params",
    "on_disconnect",
    "on_frame",
]

_NO_FLAGS: Final = 0
_VALID: Final = int(Flag.BOOK_VALID)
_SELL: Final = int(Flag.AGGRESSOR_SELL)
_ASK: Final = int(Flag.ASK)
_LAST: Final = int(Flag.LAST)
_KIND_DEPTH: Final = int(Kind.DEPTH)
_KIND_TRADE: Final = int(Kind.TRADE)
_KIND_BBO: Final = int(Kind.BBO)
_KIND_SNAPSHOT: Final = int(Kind.SNAPSHOT)
_KIND_STALE: Final = int(Kind.STALE)
_UNKNOWN: Final = int(FrameKind.UNKNOWN)
_MALFORMED: Final = int(FrameKind.MALFORMED)
_DEPTH: Final = int(FrameKind.DEPTH)
_TRADE: Final = int(FrameKind.TRADE)
_AGG_TRADE: Final = int(FrameKind.AGG_TRADE)
_BBO: Final = int(FrameKind.BBO)
_SPOT: Final = int(Market.BINANCE_SPOT)


# ---- keeping the book right


@kernel
def _keep(st: State, frame: Any, rows: Recs, spot: bool) -> None:
    """Append the diff in the rows to `pending`; a break in its chain throws away what came before the break."""
    if st.pending_last != 0:
        if frame.last_id == st.pending_last and frame.first_id == st.pending_first:
            st.duplicates += 1
            return
        if (frame.first_id != st.pending_last + 1) if spot else (frame.prev_id != st.pending_last):
            st.gaps += 1
            st.pending_used = 0
    st.pending_first = frame.first_id
    st.pending_last = frame.last_id
    need = HEAD + 2 * frame.n_levels
    if need > PENDING_WORDS:
        st.pending_used = 0
        st.pending_last = 0  # this one is missing: the next begins a new chain
        st.pending_dropped += 1
        return
    if st.pending_used + need > PENDING_WORDS:
        # half of it at once, so that the moving is rare
        at = 0
        while at < st.pending_used and (at < PENDING_WORDS // 2 or st.pending_used - at + need > PENDING_WORDS):
            at += HEAD + 2 * st.pending[at + 2]
            st.pending_dropped += 1
        for i in range(at, st.pending_used):
            st.pending[i - at] = st.pending[i]
        st.pending_used -= at
    at = st.pending_used
    st.pending[at] = frame.first_id
    st.pending[at + 1] = frame.last_id
    st.pending[at + 2] = frame.n_levels
    at += HEAD
    for i in range(frame.n_levels):
        st.pending[at] = 2 * rows[i].price_ticks + (1 if rows[i].flags & _ASK != 0 else 0)
        st.pending[at + 1] = rows[i].qty_lots
        at += 2
    st.pending_used = at


@kernel
def _drop_book(st: State, overlay: int) -> None:
    """No book from here on; what is pending stays."""
    book.clear(st)
    st.phase = WAITING
    st.first_id = 0
    st.last_id = 0
    refresh(st, overlay)


@kernel
def _stale(st: State, symbol: int, g: Any, ts_ns: int, recv_ns: int, overlay: int, market_out: Recs, depth_out: Recs) -> int:
    """Take the book out of use and tell both rings; answers 1."""
    update_id = st.last_id
    _drop_book(st, overlay)
    depth_record(depth_out[0], ts_ns, symbol, _KIND_STALE, _LAST, 0, 0, update_id)
    g.n_depth = 1
    return market_record(st, symbol, _KIND_STALE, _NO_FLAGS, g, ts_ns, recv_ns, 0, 0, update_id, market_out)


@kernel
def _load(st: State, frame: Any, rows: Recs) -> None:
    """Make the snapshot in the rows the book."""
    book.clear(st)
    for i in range(frame.n_levels):
        row = rows[i]
        if row.flags & _ASK != 0:
            book.set_level(st, book.ASK, row.price_ticks, row.qty_lots)
        else:
            book.set_level(st, book.BID, -row.price_ticks, row.qty_lots)
    st.first_id = 0
    st.last_id = frame.last_id
    st.phase = LOADED


@kernel
def _write_levels(st: State, side: int, n: int, symbol: int, ts_ns: int, out: Recs) -> int:
    """Write a whole side of the book to out[n:], best first; answers the next free row."""
    flags = _VALID | (_ASK if side == book.ASK else 0)
    key = st.best[side]
    while key != book.NO_KEY:
        depth_record(out[n], ts_ns, symbol, _KIND_DEPTH, flags, abs(key), book.lots_at(st, side, key), st.last_id)
        n += 1
        key = book.next_key(st, side, key + 1)
    return n


@kernel
def _connect(
    st: State, symbol: int, g: Any, ts_ns: int, recv_ns: int, spot: bool, params: Any, market_out: Recs, depth_out: Recs
) -> int:
    """LOADED: drop the pending diffs that the snapshot contains and apply the rest, if its first one brackets the snapshot."""
    snapshot_id = st.last_id
    at = 0
    while at < st.pending_used and (st.pending[at + 1] <= snapshot_id if spot else st.pending[at + 1] < snapshot_id):
        at += HEAD + 2 * st.pending[at + 2]
    if at == st.pending_used:
        st.pending_used = 0
        refresh(st, params.overlay)
        return 0
    if st.pending[at] > (snapshot_id + 1 if spot else snapshot_id):
        st.snapshots_too_old += 1
        _drop_book(st, params.overlay)
        return 0
    depth_record(depth_out[0], ts_ns, symbol, _KIND_SNAPSHOT, _VALID, 0, 0, snapshot_id)
    n = _write_levels(st, book.BID, 1, symbol, ts_ns, depth_out)
    n = _write_levels(st, book.ASK, n, symbol, ts_ns, depth_out)
    depth_out[n - 1].flags |= _LAST
    while at < st.pending_used:
        st.first_id = st.pending[at]
        st.last_id = st.pending[at + 1]
        count = st.pending[at + 2]
        at += HEAD
        for i in range(count):
            side = st.pending[at] & 1
            price = st.pending[at] >> 1
            lots = st.pending[at + 1]
            book.set_level(st, side, price if side == book.ASK else -price, lots)
            flags = _VALID | (_ASK if side == book.ASK else 0) | (_LAST if i == count - 1 else 0)
            depth_record(depth_out[n], ts_ns, symbol, _KIND_DEPTH, flags, price, lots, st.last_id)
            n += 1
            at += 2
        book.follow(st)
        if params.oracle != 0:
            meet_recent(st)
    if book.is_crossed(st):
        st.crossed += 1
        _drop_book(st, params.overlay)
        return 0
    st.pending_used = 0
    st.phase = SYNCED
    st.resyncs += 1
    g.n_depth = n
    refresh(st, params.overlay)
    return market_record(st, symbol, _KIND_SNAPSHOT, _NO_FLAGS, g, ts_ns, recv_ns, 0, 0, st.last_id, market_out)


# ---- one frame of each kind


@kernel
def _on_snapshot(
    st: State, symbol: int, g: Any, ts_ns: int, recv_ns: int, spot: bool, params: Any, market_out: Recs, depth_out: Recs
) -> int:
    if st.phase != WAITING and g.last_id <= st.last_id:
        st.snapshots_ignored += 1
        return 0
    was_synced = st.phase == SYNCED
    st.snapshots += 1
    if was_synced:
        # Newer than the book: the stream was cut without our being told. The diffs to come must bracket this snapshot.
        st.pending_used = 0
        st.pending_last = 0
    old_id = st.last_id
    _load(st, g, depth_out)
    crossed = book.is_crossed(st)
    if crossed:
        st.crossed += 1
        _drop_book(st, params.overlay)
    if was_synced:
        refresh(st, params.overlay)
        depth_record(depth_out[0], ts_ns, symbol, _KIND_STALE, _LAST, 0, 0, old_id)
        g.n_depth = 1
        return market_record(st, symbol, _KIND_STALE, _NO_FLAGS, g, ts_ns, recv_ns, 0, 0, old_id, market_out)
    if crossed:
        return 0
    return _connect(st, symbol, g, ts_ns, recv_ns, spot, params, market_out, depth_out)


@kernel
def _on_diff(
    st: State, symbol: int, g: Any, ts_ns: int, recv_ns: int, spot: bool, params: Any, market_out: Recs, depth_out: Recs
) -> int:
    st.depth_messages += 1
    if st.phase != SYNCED:
        _keep(st, g, depth_out, spot)
        if st.phase == LOADED:
            return _connect(st, symbol, g, ts_ns, recv_ns, spot, params, market_out, depth_out)
        return 0
    if g.last_id == st.last_id and g.first_id == st.first_id:
        st.duplicates += 1
        return 0
    good = g.first_id == st.last_id + 1 if spot else g.prev_id == st.last_id
    if good:
        n = g.n_levels
        for i in range(n):
            row = depth_out[i]
            side = 1 if row.flags & _ASK != 0 else 0
            book.set_level(st, side, row.price_ticks if side == book.ASK else -row.price_ticks, row.qty_lots)
            row.ts_ns = ts_ns
            row.kind = _KIND_DEPTH
            row.symbol = symbol
            row.flags |= _VALID
            row.update_id = g.last_id
        book.follow(st)
        if book.is_crossed(st):
            st.crossed += 1
            good = False
        elif n > 0:
            depth_out[n - 1].flags |= _LAST
    else:
        st.gaps += 1
    if not good:
        st.pending_used = 0
        st.pending_last = 0
        _keep(st, g, depth_out, spot)
        return _stale(st, symbol, g, ts_ns, recv_ns, params.overlay, market_out, depth_out)
    st.first_id = g.first_id
    st.last_id = g.last_id
    g.n_depth = g.n_levels
    refresh(st, params.overlay)
    if params.oracle != 0:
        meet_recent(st)
    return market_record(st, symbol, _KIND_DEPTH, _NO_FLAGS, g, ts_ns, recv_ns, 0, 0, st.last_id, market_out)


@kernel
def _on_bbo(st: State, symbol: int, g: Any, ts_ns: int, recv_ns: int, params: Any, market_out: Recs) -> int:
    st.bbos += 1
    if g.last_id > st.bbo_id:
        st.bbo_id = g.last_id
        for side in range(2):
            st.bbo_ticks[side] = g.bbo_ticks[side]
            st.bbo_lots[side] = g.bbo_lots[side]
        if g.last_id > st.last_id:
            if params.overlay != 0:
                for side in range(2):
                    if st.top_ticks[side, 0] == st.bbo_ticks[side] and st.bbo_ticks[side] != 0:
                        st.top_lots[side, 0] = st.bbo_lots[side]  # the levels behind it are the same
                    else:
                        refresh_side(st, side, True)
            slot = st.recent_count % RECENT
            st.recent_count += 1
            st.recent_id[slot] = g.last_id
            for side in range(2):
                st.recent[slot, 2 * side] = st.bbo_ticks[side]
                st.recent[slot, 2 * side + 1] = st.bbo_lots[side]
        elif g.last_id == st.last_id and st.phase == SYNCED and params.oracle != 0:
            compare(st, st.bbo_ticks[0], st.bbo_lots[0], st.bbo_ticks[1], st.bbo_lots[1])
    return market_record(st, symbol, _KIND_BBO, _NO_FLAGS, g, ts_ns, recv_ns, 0, 0, g.last_id, market_out)


@kernel
def _on_trade(st: State, symbol: int, g: Any, ts_ns: int, recv_ns: int, kind: int, market_out: Recs) -> int:
    st.trades += 1
    if kind == _TRADE:
        if st.last_trade_id != 0 and g.last_id > st.last_trade_id + 1:
            st.trade_gaps += 1
        st.last_trade_id = max(st.last_trade_id, g.last_id)
    flags = _SELL if g.maker_is_buyer != 0 else 0
    return market_record(st, symbol, _KIND_TRADE, flags, g, ts_ns, recv_ns, g.bbo_ticks[0], g.bbo_lots[0], g.last_id, market_out)


@kernel
def on_frame(
    buf: Bytes,
    start: int,
    end: int,
    ts_ns: int,
    recv_ns: int,
    symbol_hint: int,
    state: Recs,
    glob: Recs,
    params: Recs,
    instruments: Recs,
    market_out: Recs,
    depth_out: Recs,
) -> int:
    """Fold one raw frame `buf[start:end]` (C-contiguous uint8) into its symbol's book.

    Writes market_out[0:m] (MARKET_RECORD) and depth_out[0:d] (DEPTH_RECORD), answers m and leaves d in glob[0].n_depth;
    m is 0 for frames that say nothing new yet (unknown, malformed, kept for later). `symbol_hint` is the instrument of frames
    that name none, -1 for none. market_out has at least MAX_MARKET_OUT rows, depth_out MAX_DEPTH_OUT: -1 if not, nothing is done.
    """
    if market_out.shape[0] < MAX_MARKET_OUT or depth_out.shape[0] < MAX_DEPTH_OUT:
        return -1
    g = glob[0]
    g.n_depth = 0
    g.frames += 1
    kind = binance_frames.decode(buf, max(start, 0), min(end, buf.shape[0]), symbol_hint, instruments, g, depth_out)
    if kind == _UNKNOWN:
        g.unknown += 1
        return 0
    symbol = g.symbol
    p = params[0]
    if kind == _MALFORMED:
        g.malformed += 1
        if symbol < 0:
            return 0
        st = state[symbol]
        st.malformed += 1
        if g.is_depth == 0 or st.phase != SYNCED:
            return 0
        g.ts_exchange_ns = 0
        st.pending_used = 0
        st.pending_last = 0
        return _stale(st, symbol, g, ts_ns, recv_ns, p.overlay, market_out, depth_out)
    st = state[symbol]
    if kind == _BBO:
        return _on_bbo(st, symbol, g, ts_ns, recv_ns, p, market_out)
    if kind == _TRADE or kind == _AGG_TRADE:
        return _on_trade(st, symbol, g, ts_ns, recv_ns, kind, market_out)
    spot = instruments[symbol].market == _SPOT
    if kind == _DEPTH:
        return _on_diff(st, symbol, g, ts_ns, recv_ns, spot, p, market_out, depth_out)
    return _on_snapshot(st, symbol, g, ts_ns, recv_ns, spot, p, market_out, depth_out)


@kernel
def on_disconnect(
    symbol: int, ts_ns: int, recv_ns: int, state: Recs, glob: Recs, params: Recs, market_out: Recs, depth_out: Recs
) -> int:
    """The symbol's stream was cut: forget diffs kept and snapshot; a book in use goes stale at once, not at the next gap.

    Same outputs as `on_frame`: 1 if the book was in use, else 0.
    """
    g = glob[0]
    g.n_depth = 0
    st = state[symbol]
    st.pending_used = 0
    st.pending_last = 0
    if st.phase == SYNCED:
        g.ts_exchange_ns = 0
        return _stale(st, symbol, g, ts_ns, recv_ns, params[0].overlay, market_out, depth_out)
    _drop_book(st, params[0].overlay)
    return 0
