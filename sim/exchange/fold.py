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
   have absorbed still print. A print off the book (trading.off_book) does none of this: what is true of it the
   depth then shows, and the other side's quotes fill the order.
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
from sim.exchange.matching import (
    apply_next,
    expire_all,
    fill_resting,
    met_by_touch,
    reject_unheard,
    side_of,
    write_message,
)
from sim.exchange.queue_model import RECENT_NS, on_level, on_print
from sim.exchange.shown_book import FIRST_KEY, displayed, forget_taken, next_displayed, set_touch, touch_rules
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
    ExchangeArrays,
    init,
    make_params,
    min_entry_ns,
    min_response_ns,
)
from trading.books.book import ASK, BID, NO_KEY, clear, follow, set_level, widen
from trading.jit import Recs, kernel, lean
from trading.off_book import off_book
from trading.records import TS_END, Flag, Kind

__all__ = [
    "END_DEPTH",
    "END_MARKET",
    "END_ORDERS",
    "EXCH_GLOBAL",
    "EXCH_PARAMS",
    "EXCH_STATE",
    "ExchangeArrays",
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

_VALID: Final = int(Flag.BOOK_VALID)
_SELL: Final = int(Flag.AGGRESSOR_SELL)
_ASK: Final = int(Flag.ASK)
_LAST: Final = int(Flag.LAST)


@kernel
def next_due(glob: Recs) -> int:
    """When the next message under way reaches the venue; TS_END if none is."""
    g = glob[0]
    return g.pending[g.head & (MAX_PENDING - 1)].arrival_ns if g.head < g.tail else TS_END


@lean
def _arrive(venue: ExchangeArrays, ts_ns: int, reserve: int) -> None:
    """Apply the messages that arrive up to `ts_ns` while `out` keeps `reserve` rows free."""
    while next_due(venue.glob) <= ts_ns and venue.out.size - venue.glob[0].n_out >= ROOM + reserve:
        apply_next(venue)


@lean
def _begin(venue: ExchangeArrays, ts_ns: int) -> None:
    """What every input does first: no report yet, due messages applied, venue time moved."""
    g = venue.glob[0]
    g.n_out = 0
    _arrive(venue, ts_ns, MAX_ORDERS)
    g.now_ns = max(g.now_ns, ts_ns)


@lean
def advance(ts_ns: int, venue: ExchangeArrays) -> int:
    """Apply the messages that arrive up to `ts_ns`, before which no further input may come; returns the reports.

    0 means that nothing is due any more (or that it caused no report, which no message does).
    """
    venue.glob[0].n_out = 0
    _arrive(venue, ts_ns, MAX_ORDERS)
    return venue.glob[0].n_out


@lean
def _level_changed(venue: ExchangeArrays, st: Any, side: int, key: int, lots: int, ts_ns: int) -> None:
    """Move our orders at this level in their queue: it shows `lots` now."""
    o = st.first
    while o != NONE:
        order = venue.glob[0].orders[o]
        if order.key == key and side_of(order) == side:
            power = venue.params[0].queue_power
            ahead, unexplained, moved = on_level(order.ahead, order.level, order.printed, lots, power)
            order.ahead, order.level, order.printed = ahead, lots, 0
            if unexplained > 0:
                order.unexplained, order.moved, order.unexplained_ns = unexplained, moved, ts_ns
        o = order.next


@lean
def _meet(venue: ExchangeArrays, st: Any, ts_ns: int) -> None:
    """Fill our orders whose price the other side's quotes have reached."""
    if st.book_ok == 0 or st.market_stale == 1:
        return
    o = st.first
    while o != NONE:
        order = venue.glob[0].orders[o]
        after = order.next
        lots = met_by_touch(st, venue.params[0].taker_share, order)
        if lots > 0:
            fill_resting(venue, o, lots, ts_ns)
        o = after


@lean
def _end_of_message(venue: ExchangeArrays, st: Any, update_id: int, ts_ns: int) -> None:
    """A depth message is complete."""
    follow(st)
    widen(st)
    st.book_id = update_id
    if st.building == 1:
        st.building = 0
        st.book_ok = 1
        o = st.first
        while o != NONE:  # after a resync: what is shown now is all that can be ahead
            order = venue.glob[0].orders[o]
            order.level = displayed(st, side_of(order), order.key)
            order.ahead, order.printed = min(order.ahead, order.level), 0
            o = order.next
    if st.first != NONE:
        _meet(venue, st, ts_ns)


@lean
def on_depth(recs: Recs, i: int, venue: ExchangeArrays) -> int:
    """Take in DEPTH_RECORD recs[i]: a level (DEPTH), how far all are known (EDGE), a fresh book to come (SNAPSHOT), none (STALE).

    Returns the reports.
    """
    rec = recs[i]
    ts_ns = rec.ts_ns
    _begin(venue, ts_ns)
    g, st = venue.glob[0], venue.state[rec.symbol]
    if rec.kind == Kind.SNAPSHOT or rec.kind == Kind.STALE:
        clear(st)
        st.book_ok = 0
        st.building = 1 if rec.kind == Kind.SNAPSHOT else 0
        st.n_taken = 0
        st.book_id = 0
        if rec.kind == Kind.STALE:
            st.touch_id = 0
            return g.n_out
    elif rec.kind == Kind.DEPTH:
        side = ASK if rec.flags & _ASK != 0 else BID
        key = rec.price_ticks if side == ASK else -rec.price_ticks
        if st.building == 0:
            # a newer best bid/offer message knows better what stands at the touch and before it
            hidden = st.touch_id > rec.update_id and key <= st.touch_key[side]
            if st.n_taken > 0 and not hidden and displayed(st, side, key) != rec.qty_lots:
                forget_taken(st, side, key)
            if not hidden and st.first != NONE:
                _level_changed(venue, st, side, key, rec.qty_lots, ts_ns)
        set_level(st, side, key, rec.qty_lots)
    elif rec.kind == Kind.EDGE:
        side = ASK if rec.flags & _ASK != 0 else BID
        st.edge[side] = NO_KEY if rec.price_ticks == 0 else (rec.price_ticks if side == ASK else -rec.price_ticks)
    else:
        return g.n_out
    if rec.flags & _LAST != 0:
        _end_of_message(venue, st, rec.update_id, ts_ns)
    return g.n_out


@lean
def _printed(venue: ExchangeArrays, st: Any, side: int, key: int, lots: int, ts_ns: int) -> None:
    """`lots` traded at `key` of `side`: our orders there move up and fill, those before it were traded through.

    A print off the book is not believed. Without a book it is judged by the prints before it, and by where the book was.
    """
    best = next_displayed(st, side, FIRST_KEY) if st.book_ok == 1 and st.market_stale == 0 else NO_KEY
    if best == NO_KEY:
        best = st.print_key[side]
    if best != NO_KEY and best != 0 and off_book(key, best):
        venue.glob[0].prints_off_book += 1
        return
    st.print_key[side] = key
    shared = 0
    o = st.first
    while o != NONE:
        order = venue.glob[0].orders[o]
        after = order.next
        if side_of(order) == side:
            left = order.qty_lots - order.cum_lots
            filled = 0
            if order.key < key:
                filled = left
            elif order.key == key:
                if ts_ns - order.unexplained_ns > RECENT_NS:
                    order.unexplained = 0
                ahead, order.printed, order.unexplained, order.moved = on_print(
                    order.ahead, order.printed, order.unexplained, order.moved, lots
                )
                order.ahead = max(ahead, 0)
                if ahead < 0:
                    filled = min(left, max(0, -ahead - shared))
                    shared += filled
            if filled > 0:
                fill_resting(venue, o, filled, ts_ns)
        o = after


@lean
def _queues_at_touch(venue: ExchangeArrays, st: Any, ts_ns: int) -> None:
    """A best bid/offer message rules: our orders at its touch and before it see their levels change."""
    for side in range(2):
        _level_changed(venue, st, side, st.touch_key[side], st.touch_lots[side], ts_ns)
    o = st.first
    while o != NONE:
        order = venue.glob[0].orders[o]
        if order.key < st.touch_key[side_of(order)] and order.level > 0:
            order.ahead, order.level, order.printed = 0, 0, 0  # nobody else stands here any more
        o = order.next


@lean
def on_market(recs: Recs, i: int, venue: ExchangeArrays) -> int:
    """Take in MARKET_RECORD recs[i]: prints and touches may fill, every kind tells if the book holds; returns the reports."""
    rec = recs[i]
    ts_ns = rec.ts_ns
    _begin(venue, ts_ns)
    g, st = venue.glob[0], venue.state[rec.symbol]
    st.market_stale = 1 if rec.kind == Kind.STALE or rec.flags & _VALID == 0 else 0
    if rec.kind == Kind.STALE:
        st.touch_id = 0
    elif rec.kind == Kind.TRADE:
        if st.first != NONE:
            side = BID if rec.flags & _SELL != 0 else ASK
            key = rec.price_ticks if side == ASK else -rec.price_ticks
            _printed(venue, st, side, key, rec.qty_lots, ts_ns)
    elif rec.kind == Kind.BBO:
        bid = -rec.bid_ticks[0] if rec.bid_lots[0] > 0 else NO_KEY
        ask = rec.ask_ticks[0] if rec.ask_lots[0] > 0 else NO_KEY
        if set_touch(st, rec.update_id, bid, rec.bid_lots[0], ask, rec.ask_lots[0]) and st.first != NONE and touch_rules(st):
            _queues_at_touch(venue, st, ts_ns)
            _meet(venue, st, ts_ns)
    return g.n_out


@lean
def on_order(recs: Recs, i: int, venue: ExchangeArrays) -> int:
    """Put ORDER_RECORD recs[i] (NEW or CANCEL, sent at its ts_ns) on its way to the venue; returns the reports."""
    rec = recs[i]
    _begin(venue, rec.ts_ns)
    g, p = venue.glob[0], venue.params[0]
    if rec.kind != Kind.NEW and rec.kind != Kind.CANCEL:
        return g.n_out
    arrival = arrival_ns(p.entry_seed, g.orders_received, rec.ts_ns, g.last_arrival_ns, p.entry_min_ns, p.entry_max_ns)
    g.orders_received += 1
    g.last_arrival_ns = arrival
    if g.tail - g.head < MAX_PENDING:
        write_message(g.pending[g.tail & (MAX_PENDING - 1)], rec, arrival)
        g.tail += 1
    else:  # the line is full: answered at once
        write_message(g.pending[MAX_PENDING], rec, arrival)
        reject_unheard(venue, g.pending[MAX_PENDING])
    return g.n_out


@lean
def on_end(ts_ns: int, which: int, venue: ExchangeArrays) -> int:
    """A stream has ended at `ts_ns` (END_MARKET, END_DEPTH or END_ORDERS); returns the reports.

    After END_MARKET an order sent later is refused (VENUE_CLOSED), while cancels pass; when market and orders have both
    ended the venue closes as by `finish`.
    """
    _begin(venue, ts_ns)
    g = venue.glob[0]
    if which == END_MARKET and g.ended & END_MARKET == 0:
        g.end_ns = ts_ns
    g.ended |= which
    if g.ended & END_MARKET != 0 and g.ended & END_ORDERS != 0:
        _close(venue, ts_ns)
    return g.n_out


@lean
def _close(venue: ExchangeArrays, ts_ns: int) -> None:
    g = venue.glob[0]
    _arrive(venue, TS_END - 1, 0)
    if next_due(venue.glob) < TS_END:
        return  # no room: the next call goes on
    g.now_ns = max(g.now_ns, ts_ns)
    g.closed = 1
    for s in range(venue.state.size):
        expire_all(venue, s, g.now_ns)


@lean
def finish(ts_ns: int, venue: ExchangeArrays) -> int:
    """The session is over: apply all messages under way at their arrival times, then expire what rests; returns the reports.

    Call it until it returns 0. Orders that come later are refused (VENUE_CLOSED) when they arrive.
    """
    venue.glob[0].n_out = 0
    _close(venue, ts_ns)
    return venue.glob[0].n_out
