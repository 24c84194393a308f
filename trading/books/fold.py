"""The feed fold: raw and plain frames in, market and depth records out, each symbol's book proved right or marked stale.

`trading.books.sync` says when a book is right; here frames are told apart, and what needs no book is done. Records of a symbol
whose book is not SYNCED lack Flag.BOOK_VALID: nobody may decide on them.

Trades, best-bid/offer and mark-price messages pass in every phase; a second line's copies of trades and tickers are dropped by
id. The levels that a market record carries are the depth book's, under a newer bookTicker: levels better than it are dropped,
its own level stands in front. The oracle compares depth book and bookTicker whenever both stand at the same update id; the
two counters must stay equal.

A stream that dies alone is found by what the others show (`trading.books.ages`). Without its depth a book is stale, and the
first diff that comes again asks for a snapshot.

After each call FEED_GLOBAL says whether a snapshot is wanted (`want_symbol`, -1: none; `want_reason`, `want_update_id`), which
streams of the frame's symbol are to be subscribed anew (`want_streams`), and whether the frame was one that nothing could be
made of (`odd`).

What this module is not: it reads no socket or file, fetches no snapshot, and knows no time but its arguments.
"""

from __future__ import annotations

from typing import Any, Final

from trading.books.ages import after_bbo, after_depth, amend, before_print, died, forget_ages, hear
from trading.books.pending_diffs import forget_kept
from trading.books.state import (
    FEED_GLOBAL,
    FEED_PARAMS,
    FEED_STATE,
    HELD,
    LATE_LIMIT,
    LOADED,
    MAX_DEPTH_OUT,
    MAX_LINE,
    MAX_MARKET_OUT,
    RECENT,
    SYNCED,
    WAITING,
    WHOLE,
    State,
    Want,
    init,
    make_params,
)
from trading.books.sync import drop_book, on_diff, on_snapshot, stale
from trading.books.sync_rules import PLAIN, native_rule
from trading.books.told import ask, compare, depth_record, market_record, refresh_side
from trading.books.trade_window import is_new_trade
from trading.jit import Bytes, Recs, kernel
from trading.records import Flag, Kind, Stream
from trading.wire import binance_frames
from trading.wire.binance_layout import T_STREAM, T_SYMBOL, TEXT_BIT, FrameKind
from trading.wire.plain_decode import decode_plain, is_plain
from trading.wire.plain_frame import IN_BAND, SUMMARY
from trading.wire.scan import address_of

__all__ = [
    "FEED_GLOBAL",
    "FEED_PARAMS",
    "FEED_STATE",
    "HELD",
    "LOADED",
    "MAX_DEPTH_OUT",
    "MAX_MARKET_OUT",
    "SYNCED",
    "WAITING",
    "WHOLE",
    "Want",
    "init",
    "make_params",
    "on_disconnect",
    "on_frame",
    "on_line",
    "on_lost",
]

_SELL: Final = int(Flag.AGGRESSOR_SELL)
_LAST: Final = int(Flag.LAST)
_DEPTH, _BBO, _PRINTS, _MARK = int(Stream.DEPTH), int(Stream.BBO), int(Stream.PRINTS), int(Stream.MARK)
_NAMED: Final = (1 << (TEXT_BIT + T_SYMBOL)) | (1 << (TEXT_BIT + T_STREAM))


# ---- what needs no book


@kernel
def _on_bbo(st: State, g: Any, params: Any, market_out: Recs, depth_out: Recs) -> int:
    """A best bid/offer message. Id 0: its venue sends none that could be compared with the book's."""
    st.bbos += 1
    if 0 < g.last_id <= st.bbo_id:
        st.bbos_late += 1
        st.bbos_late_run += 1
        if st.bbos_late_run < LATE_LIMIT:
            return 0
        st.bbo_id = 0
        st.recent_count = 0
    st.bbos_late_run = 0
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
            if compare(st, st.bbo_ticks[0], st.bbo_lots[0], st.bbo_ticks[1], st.bbo_lots[1]):
                forget_kept(st)
                ask(st, g, Want.ORACLE, st.last_id)
                return stale(st, g, False, params.overlay, market_out, depth_out)
    return market_record(st, g, Kind.BBO, g.last_id, market_out)


@kernel
def _on_trade(st: State, g: Any, kind: int, market_out: Recs) -> int:
    """A trade; id 0: its venue sends none."""
    st.trades += 1
    if g.last_id > 0 and not is_new_trade(st, 1 if kind == FrameKind.AGG_TRADE else 0, g.last_id):
        st.trade_copies += 1
        return 0
    if kind == FrameKind.TRADE:
        if st.last_trade_id != 0 and g.last_id > st.last_trade_id + 1:
            st.trade_gaps += 1
        st.last_trade_id = max(st.last_trade_id, g.last_id)
    m = market_record(st, g, Kind.TRADE, g.last_id, market_out)
    row = market_out[0]
    row.flags |= _SELL if g.maker_is_buyer != 0 else 0
    row.price_ticks = g.bbo_ticks[0]
    row.qty_lots = g.bbo_lots[0]
    return m


@kernel
def _on_aside(st: State, g: Any) -> int:
    """A print that is no trade: counted, and its id passed over, so that none is missed. No record: nobody decides on it."""
    if g.last_id > 0 and not is_new_trade(st, 0, g.last_id):
        st.trade_copies += 1
        return 0
    st.aside[g.aside] += 1
    if st.last_trade_id != 0 and g.last_id > st.last_trade_id + 1:
        st.trade_gaps += 1
    st.last_trade_id = max(st.last_trade_id, g.last_id)
    return 0


@kernel
def _on_mark(st: State, g: Any, market_out: Recs) -> int:
    """Mark price and funding."""
    st.marks += 1
    m = market_record(st, g, Kind.MARK, g.last_id, market_out)
    market_out[0].price_ticks = g.bbo_ticks[0]
    market_out[0].qty_lots = g.bbo_lots[0]
    return m


# ---- streams that die alone


@kernel
def _judge(st: State, g: Any, params: Any, m: int, market_out: Recs, depth_out: Recs) -> int:
    """Look for dead streams once the message in hand, which made m records, is dealt with; answers how many there are now."""
    found = died(st, g.ts_ns, params.owed_limit_ns, params.silence_ns)
    if found == 0:
        return m
    g.want_streams = found
    if (found >> _DEPTH) & 1 == 0:
        amend(st, m, market_out)
        return m
    st.asked = 0
    st.expected = 0
    st.first_reason = Want.STREAM_DEAD
    g.want_symbol = -1  # the first diff that comes again asks: before that nothing connects to a snapshot
    forget_kept(st)
    if m == 1 and (market_out[0].kind == Kind.TRADE or market_out[0].kind == Kind.MARK):
        update_id = st.last_id
        drop_book(st, params.overlay)
        depth_record(depth_out[0], g, Kind.STALE, _LAST, 0, 0, update_id)
        g.n_depth = 1
        amend(st, m, market_out)  # a print is told all the same
        return m
    return stale(st, g, False, params.overlay, market_out, depth_out)


# ---- one frame, or an event of its line


@kernel
def _begin(g: Any, ts_ns: int, recv_ns: int, book_symbol: int) -> None:
    """A message is in hand: nothing is told yet, and what belongs to it alone is set."""
    g.n_depth = 0
    g.want_symbol = -1
    g.want_streams = 0
    g.ts_ns = ts_ns
    g.recv_ns = recv_ns
    g.book_symbol = book_symbol
    g.rule = 0


@kernel
def _on_malformed(hint: int, state: Recs, g: Any, overlay: int, market_out: Recs, depth_out: Recs) -> int:
    """A frame that could not be used: a diff has changed the venue's book and not ours; a snapshot is asked for again.

    An answer that is no snapshot at all (`{}`, a notice of maintenance) names nobody either.
    """
    symbol = g.symbol
    snapshot = g.is_snapshot != 0
    if symbol < 0:
        if hint < 0 or hint >= state.shape[0] or g.enveloped != 0 or g.seen & _NAMED != 0 or state[hint].asked == 0:
            return 0
        symbol = hint  # it names nobody and we wait for a snapshot, which names nobody either
        snapshot = True
    else:
        state[symbol].malformed += 1
    g.book_symbol = symbol
    st = state[symbol]
    if snapshot and st.expected > 0:
        st.asked = 0
        st.expected -= 1
        st.removed_since = 0  # a synced book asks again by itself while its edge is near
    g.ts_exchange_ns = 0
    if g.is_depth != 0 and st.phase == SYNCED:
        forget_kept(st)
        ask(st, g, Want.MALFORMED, 0)
        return stale(st, g, False, overlay, market_out, depth_out)
    if g.is_depth != 0 and st.phase == HELD:
        drop_book(st, overlay)
    if st.phase != SYNCED and (snapshot or st.phase == WAITING and g.is_depth != 0):
        ask(st, g, Want.MALFORMED, 0)
    return 0


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
    """Fold one frame `buf[start:end]` (C-contiguous uint8; a venue's bytes or a plain frame) into its symbol's book.

    Writes market_out[0:m] (MARKET_RECORD) and depth_out[0:d] (DEPTH_RECORD), answers m and leaves d in glob[0].n_depth;
    m is 0 for frames that say nothing new yet (unknown, malformed, kept for later). `symbol_hint` is the instrument of frames
    that name none, -1 for none. market_out has at least MAX_MARKET_OUT rows, depth_out MAX_DEPTH_OUT: -1 if not, nothing is done.
    """
    if market_out.shape[0] < MAX_MARKET_OUT or depth_out.shape[0] < MAX_DEPTH_OUT:
        return -1
    g = glob[0]
    _begin(g, ts_ns, recv_ns, symbol_hint)
    g.odd = 0
    g.frames += 1
    start = max(start, 0)
    end = min(end, buf.shape[0])
    p = params[0]
    base = address_of(buf)
    plain = is_plain(base + start, base + end)
    if plain:
        kind = decode_plain(base + start, base + end, state.shape[0], g, depth_out)
    else:
        g.plain_flags = 0
        kind = binance_frames.decode(buf, start, end, symbol_hint, instruments, g, depth_out)
    if kind == FrameKind.UNKNOWN:
        g.unknown += 1
        g.odd = 1
        if plain or g.symbol >= 0:
            return 0  # of one of ours, and nothing that a book is made of
        return _on_malformed(symbol_hint, state, g, p.overlay, market_out, depth_out)
    if kind == FrameKind.MALFORMED:
        g.malformed += 1
        g.odd = 1
        return _on_malformed(symbol_hint, state, g, p.overlay, market_out, depth_out)
    symbol = g.symbol
    g.book_symbol = symbol
    st = state[symbol]
    instrument = instruments[symbol]
    venue = instrument.market
    if kind == FrameKind.BBO:
        counts = g.plain_flags & SUMMARY == 0
        if counts:
            hear(st, _BBO, ts_ns)
        m = _on_bbo(st, g, p, market_out, depth_out)
        if counts and (g.last_id == 0 or g.last_id == st.bbo_id):  # no late copy
            after_bbo(st, g, p.owed_limit_ns, venue)
    elif kind == FrameKind.TRADE or kind == FrameKind.AGG_TRADE:
        hear(st, _PRINTS, ts_ns)
        before_print(st, g, venue)
        m = _on_trade(st, g, kind, market_out)
    elif kind == FrameKind.ASIDE:
        hear(st, _PRINTS, ts_ns)
        m = _on_aside(st, g)
    elif kind == FrameKind.MARK:
        hear(st, _MARK, ts_ns)
        m = _on_mark(st, g, market_out)
    else:
        g.rule = PLAIN if plain else native_rule(venue)
        update_id = g.last_id
        streamed = kind == FrameKind.DEPTH or g.plain_flags & IN_BAND != 0
        if streamed:
            hear(st, _DEPTH, ts_ns)
        if kind == FrameKind.DEPTH:
            m = on_diff(st, g, p, instrument, market_out, depth_out)
        else:
            m = on_snapshot(st, g, p, instrument, market_out, depth_out)
        if streamed and st.phase == SYNCED and update_id >= st.last_id:
            after_depth(st, ts_ns, venue)
    return _judge(st, g, p, m, market_out, depth_out)


@kernel
def _cut(st: State, g: Any, overlay: int, market_out: Recs, depth_out: Recs) -> int:
    """Forget book, diffs kept and tickers; answers 1 if the book was in use."""
    forget_kept(st)
    g.ts_exchange_ns = 0
    if st.phase == SYNCED:
        return stale(st, g, False, overlay, market_out, depth_out)
    drop_book(st, overlay)
    return 0


@kernel
def on_disconnect(
    symbol: int, ts_ns: int, recv_ns: int, state: Recs, glob: Recs, params: Recs, market_out: Recs, depth_out: Recs
) -> int:
    """The symbol's stream was cut: forget diffs kept and snapshot; a book in use goes stale at once, not at the next gap.

    Same outputs as `on_frame`: 1 if the book was in use, else 0. The first diff that comes after it asks for a snapshot.
    """
    g = glob[0]
    _begin(g, ts_ns, recv_ns, symbol)
    st = state[symbol]
    st.asked = 0
    st.expected = 0
    st.first_reason = Want.DISCONNECTED
    st.bbo_id = 0
    st.bbos_late_run = 0
    st.recent_count = 0
    forget_ages(st)
    return _cut(st, g, params[0].overlay, market_out, depth_out)


@kernel
def on_lost(
    symbol: int, ts_ns: int, recv_ns: int, state: Recs, glob: Recs, params: Recs, market_out: Recs, depth_out: Recs
) -> int:
    """Frames of the symbol were dropped before they got here: stale, and a snapshot is wanted. Same outputs as `on_frame`."""
    g = glob[0]
    _begin(g, ts_ns, recv_ns, symbol)
    st = state[symbol]
    st.lost += 1
    m = _cut(st, g, params[0].overlay, market_out, depth_out)
    ask(st, g, Want.LOST, 0)
    return m


@kernel
def on_line(
    symbol: int,
    line: int,
    up: int,
    ts_ns: int,
    recv_ns: int,
    state: Recs,
    glob: Recs,
    params: Recs,
    market_out: Recs,
    depth_out: Recs,
) -> int:
    """The symbol's streams on a line (0..MAX_LINE; others are ignored) are subscribed (`up` 1) or are not any more (0).

    When the last line goes down that is `on_disconnect`. A line that comes up asks for nothing: either the venue sends a
    snapshot in the stream, or the first diff asks. Same outputs as `on_frame`.
    """
    _begin(glob[0], ts_ns, recv_ns, symbol)
    if line < 0 or line > MAX_LINE:
        return 0
    st = state[symbol]
    before = st.lines_up
    bit = 1 << line
    if up != 0:
        st.lines_up = before | bit
        if before == 0:
            st.asked = 0
            st.expected = 0
        return 0
    st.lines_up = before & ~bit
    if before == 0 or st.lines_up != 0:
        return 0
    return on_disconnect(symbol, ts_ns, recv_ns, state, glob, params, market_out, depth_out)
