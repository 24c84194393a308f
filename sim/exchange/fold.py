"""The simulated exchange: a fold over the recorded market and our orders that answers with execution reports.

Assumptions, and what is unrealistic in them:

1. The venue's book is the recorded one, at the time at which the feed saw it: the feed's latency is zero, or counted
   in the entry latency.
2. We do not move the market: nobody reacts to our orders, and what we take is missing only until the level's next
   change (sim.exchange.shown_book), so large or frequent orders fill too well.
3. A taker gets what is shown (times `taker_depth_share`), level by level, at most MAX_WALK levels; no hidden orders,
   nobody is faster within the latency drawn; nothing beyond the edge up to which the book is known (trading.books.edge).
4. A resting order fills when the queue model (sim.exchange.queue_model, hftbacktest's power-probability model) says that prints
   have used up what was ahead; wholly when a print goes through its price; and by as much as the other side shows when
   that side's quotes come to stand at or through its price. All at its own price. Prints that our order would
   have absorbed still print.
5. Our own orders never meet each other and do not stand in the book that others see; prints that reach several of
   ours at one price are shared in the order of arrival.
6. Latency is uniform per message, in order, without loss (sim.exchange.latency). Cancels and new orders share one line.
7. While the book is stale every new order is refused; resting ones stay, prints fill them, cancels pass.
8. Fees are the instrument's maker and taker rates on the notional of each fill; no discounts, no funding, no margin.

Time. Inputs come in the order of their time. An order sent at t arrives at max(last arrival, t + entry latency) and is
applied then: `advance` applies whatever is due, and every `on_` kernel first applies what arrived up to its own
time, so that how eagerly a caller advances changes nothing. A report's ts_ns is the time at which we see it, its
ts_exchange_ns when it happened; ts_ns never decreases from one report to the next, over all symbols.

Outputs. All kernels write REPORT_RECORDs to out[0:n] and return n; `out` has OUT_ROWS rows. `advance` and `finish` stop when
`out` might not do for the next message: they have done all when they return 0.
"""

from __future__ import annotations

from typing import Any, Final

from sim.exchange.latency import arrival_ns
from sim.exchange.matching import apply_next, expire_all, fill, load_scratch, met_by_touch, reject_unheard, unlink
from sim.exchange.queue_model import RECENT_NS, on_level, on_print
from sim.exchange.shown_book import displayed, forget_taken, set_touch, touch_rules
from sim.exchange.state import (
    EXCH_GLOBAL,
    EXCH_PARAMS,
    EXCH_STATE,
    MAX_ORDERS,
    MAX_PENDING,
    MAX_WALK,
    NONE,
    OUT_ROWS,
    ROOM,
    SCRATCH,
    init,
    make_params,
    min_entry_ns,
    min_response_ns,
)
from trading.books.book import ASK, BID, NO_KEY, clear, follow, set_level, widen
from trading.jit import Recs, kernel
from trading.records import TS_END, Flag, Kind

__all__ = [
    "END_DEPTH",
    "END_MARKET",
    "END_ORDERS",
    "EXCH_GLOBAL",
    "EXCH_PARAMS",
    "EXCH_STATE",
    "MAX_ORDERS",
    "MAX_PENDING",
    "MAX_WALK",
    "OUT_ROWS",
    "advance",
    "finish",
    "init",
    "make_params",
    "min_entry_ns",
    "min_response_ns",
    "next_due",
    "on_depth",
    "on_end",
    "on_market",
    "on_order",
]

END_MARKET: Final = 1
END_DEPTH: Final = 2
END_ORDERS: Final = 4

_DEPTH: Final = int(Kind.DEPTH)
_TRADE: Final = int(Kind.TRADE)
_BBO: Final = int(Kind.BBO)
_SNAPSHOT: Final = int(Kind.SNAPSHOT)
_STALE: Final = int(Kind.STALE)
_EDGE: Final = int(Kind.EDGE)
_NEW: Final = int(Kind.NEW)
_CANCEL: Final = int(Kind.CANCEL)
_VALID: Final = int(Flag.BOOK_VALID)
_SELL: Final = int(Flag.AGGRESSOR_SELL)
_ASK: Final = int(Flag.ASK)
_LAST: Final = int(Flag.LAST)


@kernel
def next_due(glob: Recs) -> int:
    """When the next message under way reaches the venue; TS_END if none is."""
    g = glob[0]
    return g.p_arrival_ns[g.p_head & (MAX_PENDING - 1)] if g.p_head < g.p_tail else TS_END


@kernel
def _arrive(ts_ns: int, reserve: int, state: Recs, glob: Recs, params: Recs, instruments: Recs, out: Recs) -> None:
    """Apply the messages that arrive up to `ts_ns` while `out` keeps `reserve` rows free."""
    g = glob[0]
    while next_due(glob) <= ts_ns and out.size - g.n_out >= ROOM + reserve:
        apply_next(state, g, params, instruments, out)


@kernel
def _begin(ts_ns: int, state: Recs, glob: Recs, params: Recs, instruments: Recs, out: Recs) -> None:
    """What every input does first: no report yet, due messages applied, venue time moved."""
    glob[0].n_out = 0
    _arrive(ts_ns, MAX_ORDERS, state, glob, params, instruments, out)
    glob[0].now_ns = max(glob[0].now_ns, ts_ns)


@kernel
def advance(ts_ns: int, state: Recs, glob: Recs, params: Recs, instruments: Recs, out: Recs) -> int:
    """Apply the messages that arrive up to `ts_ns`, before which no further input may come; returns the reports.

    0 means that nothing is due any more (or that it caused no report, which no message does).
    """
    glob[0].n_out = 0
    _arrive(ts_ns, MAX_ORDERS, state, glob, params, instruments, out)
    return glob[0].n_out


@kernel
def _level_changed(st: Any, g: Any, params: Recs, side: int, key: int, lots: int, ts_ns: int) -> None:
    """Move our orders at this level in their queue: it shows `lots` now."""
    o = st.first
    while o != NONE:
        if g.o_key[o] == key and (g.o_side[o] > 0) == (side == BID):
            ahead, unexplained, moved = on_level(g.o_ahead[o], g.o_level[o], g.o_printed[o], lots, params[0].queue_power)
            g.o_ahead[o] = ahead
            g.o_level[o] = lots
            g.o_printed[o] = 0
            if unexplained > 0:
                g.o_unexplained[o] = unexplained
                g.o_moved[o] = moved
                g.o_unexplained_ns[o] = ts_ns
        o = g.o_next[o]


@kernel
def _meet(st: Any, g: Any, params: Recs, instruments: Recs, out: Recs, ts_ns: int) -> None:
    """Fill our orders whose price the other side's quotes have reached."""
    if st.book_ok == 0 or st.market_stale == 1:
        return
    o = st.first
    while o != NONE:
        after = g.o_next[o]
        lots = met_by_touch(st, params, g.o_key[o], BID if g.o_side[o] > 0 else ASK, g.o_qty[o] - g.o_cum[o])
        if lots > 0:
            fill(st, g, params, instruments, out, o, g.o_price[o], lots, 1, ts_ns)
            if g.o_cum[o] == g.o_qty[o]:
                unlink(st, g, o)
        o = after


@kernel
def _end_of_message(st: Any, g: Any, params: Recs, instruments: Recs, out: Recs, update_id: int, ts_ns: int) -> None:
    """A depth message is complete."""
    follow(st)
    widen(st)
    st.book_id = update_id
    if st.building == 1:
        st.building = 0
        st.book_ok = 1
        o = st.first
        while o != NONE:  # after a resync: what is shown now is all that can be ahead
            side = BID if g.o_side[o] > 0 else ASK
            g.o_level[o] = displayed(st, side, g.o_key[o])
            g.o_ahead[o] = min(g.o_ahead[o], g.o_level[o])
            g.o_printed[o] = 0
            o = g.o_next[o]
    if st.first != NONE:
        _meet(st, g, params, instruments, out, ts_ns)


@kernel
def on_depth(recs: Recs, i: int, state: Recs, glob: Recs, params: Recs, instruments: Recs, out: Recs) -> int:
    """Take in DEPTH_RECORD recs[i]: a level (DEPTH), how far all are known (EDGE), a fresh book to come (SNAPSHOT), none (STALE).

    Returns the reports.
    """
    rec = recs[i]
    ts_ns = rec.ts_ns
    _begin(ts_ns, state, glob, params, instruments, out)
    g = glob[0]
    st = state[rec.symbol]
    if rec.kind == _SNAPSHOT or rec.kind == _STALE:
        clear(st)
        st.book_ok = 0
        st.building = 1 if rec.kind == _SNAPSHOT else 0
        st.n_taken = 0
        st.book_id = 0
        if rec.kind == _STALE:
            st.touch_id = 0
            return g.n_out
    elif rec.kind == _DEPTH:
        side = ASK if rec.flags & _ASK != 0 else BID
        key = rec.price_ticks if side == ASK else -rec.price_ticks
        if st.building == 0:
            # a newer best bid/offer message knows better what stands at the touch and before it
            hidden = st.touch_id > rec.update_id and key <= st.touch_key[side]
            if st.n_taken > 0 and not hidden and displayed(st, side, key) != rec.qty_lots:
                forget_taken(st, side, key)
            if not hidden and st.first != NONE:
                _level_changed(st, g, params, side, key, rec.qty_lots, ts_ns)
        set_level(st, side, key, rec.qty_lots)
    elif rec.kind == _EDGE:
        side = ASK if rec.flags & _ASK != 0 else BID
        st.edge[side] = NO_KEY if rec.price_ticks == 0 else (rec.price_ticks if side == ASK else -rec.price_ticks)
    else:
        return g.n_out
    if rec.flags & _LAST != 0:
        _end_of_message(st, g, params, instruments, out, rec.update_id, ts_ns)
    return g.n_out


@kernel
def _printed(st: Any, g: Any, params: Recs, instruments: Recs, out: Recs, side: int, key: int, lots: int, ts_ns: int) -> None:
    """`lots` traded at `key` of `side`: our orders there move up and fill, those before it were traded through."""
    shared = 0
    o = st.first
    while o != NONE:
        after = g.o_next[o]
        if (g.o_side[o] > 0) == (side == BID):
            left = g.o_qty[o] - g.o_cum[o]
            filled = 0
            if g.o_key[o] < key:
                filled = left
            elif g.o_key[o] == key:
                if ts_ns - g.o_unexplained_ns[o] > RECENT_NS:
                    g.o_unexplained[o] = 0
                ahead, printed, unexplained, moved = on_print(
                    g.o_ahead[o], g.o_printed[o], g.o_unexplained[o], g.o_moved[o], lots
                )
                g.o_printed[o] = printed
                g.o_unexplained[o] = unexplained
                g.o_moved[o] = moved
                g.o_ahead[o] = max(ahead, 0)
                if ahead < 0:
                    filled = min(left, max(0, -ahead - shared))
                    shared += filled
            if filled > 0:
                fill(st, g, params, instruments, out, o, g.o_price[o], filled, 1, ts_ns)
                if g.o_cum[o] == g.o_qty[o]:
                    unlink(st, g, o)
        o = after


@kernel
def _queues_at_touch(st: Any, g: Any, params: Recs, ts_ns: int) -> None:
    """A best bid/offer message rules: our orders at its touch and before it see their levels change."""
    for side in range(2):
        _level_changed(st, g, params, side, st.touch_key[side], st.touch_lots[side], ts_ns)
    o = st.first
    while o != NONE:
        side = BID if g.o_side[o] > 0 else ASK
        if g.o_key[o] < st.touch_key[side] and g.o_level[o] > 0:
            g.o_ahead[o] = 0  # nobody else stands here any more
            g.o_level[o] = 0
            g.o_printed[o] = 0
        o = g.o_next[o]


@kernel
def on_market(recs: Recs, i: int, state: Recs, glob: Recs, params: Recs, instruments: Recs, out: Recs) -> int:
    """Take in MARKET_RECORD recs[i]: prints and touches may fill, every kind tells if the book holds; returns the reports."""
    rec = recs[i]
    ts_ns = rec.ts_ns
    _begin(ts_ns, state, glob, params, instruments, out)
    g = glob[0]
    st = state[rec.symbol]
    st.market_stale = 1 if rec.kind == _STALE or rec.flags & _VALID == 0 else 0
    if rec.kind == _STALE:
        st.touch_id = 0
    elif rec.kind == _TRADE:
        if st.first != NONE:
            side = BID if rec.flags & _SELL != 0 else ASK
            key = rec.price_ticks if side == ASK else -rec.price_ticks
            _printed(st, g, params, instruments, out, side, key, rec.qty_lots, ts_ns)
    elif rec.kind == _BBO:
        bid = -rec.bid_ticks[0] if rec.bid_lots[0] > 0 else NO_KEY
        ask = rec.ask_ticks[0] if rec.ask_lots[0] > 0 else NO_KEY
        if set_touch(st, rec.update_id, bid, rec.bid_lots[0], ask, rec.ask_lots[0]) and st.first != NONE and touch_rules(st):
            _queues_at_touch(st, g, params, ts_ns)
            _meet(st, g, params, instruments, out, ts_ns)
    return g.n_out


@kernel
def on_order(recs: Recs, i: int, state: Recs, glob: Recs, params: Recs, instruments: Recs, out: Recs) -> int:
    """Put ORDER_RECORD recs[i] (NEW or CANCEL, sent at its ts_ns) on its way to the venue; returns the reports."""
    rec = recs[i]
    _begin(rec.ts_ns, state, glob, params, instruments, out)
    g = glob[0]
    if rec.kind != _NEW and rec.kind != _CANCEL:
        return g.n_out
    p = params[0]
    arrival = arrival_ns(p.entry_seed, g.orders_received, rec.ts_ns, g.last_arrival_ns, p.entry_min_ns, p.entry_max_ns)
    g.orders_received += 1
    g.last_arrival_ns = arrival
    full = g.p_tail - g.p_head == MAX_PENDING
    k = g.p_tail & (MAX_PENDING - 1)
    if not full:
        g.p_arrival_ns[k] = arrival
        g.p_sent_ns[k] = rec.ts_ns
        g.p_kind[k] = rec.kind
        g.p_symbol[k] = rec.symbol
        g.p_order_id[k] = rec.order_id if rec.kind == _NEW else rec.target_order_id
        g.p_side[k] = rec.side
        g.p_type[k] = rec.order_type
        g.p_tif[k] = rec.time_in_force
        g.p_purpose[k] = rec.purpose
        g.p_price[k] = rec.price_ticks
        g.p_qty[k] = rec.qty_lots
        g.p_decision[k] = rec.decision_ticks
        g.p_tail += 1
        return g.n_out
    # the line is full: answered at once, from SCRATCH
    load_scratch(g, k)
    g.o_order_id[SCRATCH] = rec.order_id if rec.kind == _NEW else rec.target_order_id
    g.o_symbol[SCRATCH] = rec.symbol
    g.o_side[SCRATCH] = rec.side
    g.o_purpose[SCRATCH] = rec.purpose
    g.o_price[SCRATCH] = rec.price_ticks
    g.o_qty[SCRATCH] = rec.qty_lots
    g.o_decision[SCRATCH] = rec.decision_ticks
    g.o_sent_ns[SCRATCH] = rec.ts_ns
    reject_unheard(g, params, out, rec.kind, arrival)
    return g.n_out


@kernel
def on_end(ts_ns: int, which: int, state: Recs, glob: Recs, params: Recs, instruments: Recs, out: Recs) -> int:
    """A stream has ended at `ts_ns` (END_MARKET, END_DEPTH or END_ORDERS); returns the reports.

    After END_MARKET an order sent later is refused (VENUE_CLOSED), while cancels pass; when market and orders have both
    ended the venue closes as by `finish`.
    """
    _begin(ts_ns, state, glob, params, instruments, out)
    g = glob[0]
    if which == END_MARKET and g.ended & END_MARKET == 0:
        g.end_ns = ts_ns
    g.ended |= which
    if g.ended & END_MARKET != 0 and g.ended & END_ORDERS != 0:
        _close(ts_ns, state, glob, params, instruments, out)
    return g.n_out


@kernel
def _close(ts_ns: int, state: Recs, glob: Recs, params: Recs, instruments: Recs, out: Recs) -> None:
    g = glob[0]
    _arrive(TS_END - 1, 0, state, glob, params, instruments, out)
    if next_due(glob) < TS_END:
        return  # no room: the next call goes on
    g.now_ns = max(g.now_ns, ts_ns)
    g.closed = 1
    for s in range(state.size):
        expire_all(state[s], g, params, out, g.now_ns)


@kernel
def finish(ts_ns: int, state: Recs, glob: Recs, params: Recs, instruments: Recs, out: Recs) -> int:
    """The session is over: apply all messages under way at their arrival times, then expire what rests; returns the reports.

    Call it until it returns 0. Orders that come later are refused (VENUE_CLOSED) when they arrive.
    """
    glob[0].n_out = 0
    _close(ts_ns, state, glob, params, instruments, out)
    return glob[0].n_out
