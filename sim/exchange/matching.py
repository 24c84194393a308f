"""What happens to an order at the simulated venue: checks, taking, resting, filling, cancelling, and the reports of it.

Every report is made here, by `report`, in the order of events; it becomes visible a response latency later, never
before the one that was made before it. Conservation: for each order accepted, the lots filled plus the lots that
CANCELED or EXPIRED ended are its quantity.

What this is not: the clock of events. sim.exchange.fold decides when each of these functions runs.
"""

from __future__ import annotations

from typing import Any, Final

from sim.exchange.latency import arrival_ns
from sim.exchange.shown_book import FIRST_KEY, available, displayed, next_available, next_displayed, remember_taken
from sim.exchange.state import MAX_ORDERS, MAX_PENDING, MAX_WALK, NONE, SCRATCH
from trading.books.book import ASK, BID, NO_KEY
from trading.instruments import fee_e8, notional_e8
from trading.jit import Recs, kernel
from trading.records import ExecType, Kind, OrderStatus, OrderType, Refusal, TimeInForce

_REPORT: Final = int(Kind.REPORT)
_NEW: Final = int(Kind.NEW)

_ACK: Final = int(ExecType.ACK)
_REJECT: Final = int(ExecType.REJECT)
_FILL: Final = int(ExecType.FILL)
_CANCELED: Final = int(ExecType.CANCELED)
_CANCEL_REJECT: Final = int(ExecType.CANCEL_REJECT)
_EXPIRED: Final = int(ExecType.EXPIRED)

_S_OPEN: Final = int(OrderStatus.OPEN)
_S_PARTIAL: Final = int(OrderStatus.PARTIAL)
_S_FILLED: Final = int(OrderStatus.FILLED)
_S_CANCELED: Final = int(OrderStatus.CANCELED)
_S_REJECTED: Final = int(OrderStatus.REJECTED)
_S_EXPIRED: Final = int(OrderStatus.EXPIRED)
_S_UNKNOWN: Final = int(OrderStatus.UNKNOWN)

_MARKET: Final = int(OrderType.MARKET)
_LIMIT: Final = int(OrderType.LIMIT)
_POST_ONLY: Final = int(OrderType.POST_ONLY)
_IOC: Final = int(TimeInForce.IOC)

_ALLOWED: Final = int(Refusal.NONE)
_DUPLICATE: Final = int(Refusal.DUPLICATE)
_WOULD_CROSS: Final = int(Refusal.VENUE_POST_ONLY)
_UNKNOWN_ORDER: Final = int(Refusal.VENUE_UNKNOWN_ORDER)
_NO_LIQUIDITY: Final = int(Refusal.VENUE_NO_LIQUIDITY)
_FILTER: Final = int(Refusal.VENUE_FILTER)
_CLOSED: Final = int(Refusal.VENUE_CLOSED)
_STALE: Final = int(Refusal.VENUE_BOOK_STALE)
_TABLE_FULL: Final = int(Refusal.VENUE_TABLE_FULL)

Glob = Any
"""The EXCH_GLOBAL record."""
Symbol = Any
"""One EXCH_STATE record."""


@kernel
def report(g: Glob, params: Recs, out: Recs, o: int, exec_type: int, status: int, refusal: int, ts_ns: int) -> None:
    """Write the next report about the order in slot `o`; the event happened at `ts_ns`. FILL figures are set by `fill`."""
    if g.n_out >= out.size:
        g.reports_lost += 1
        return
    p = params[0]
    g.last_visible_ns = arrival_ns(
        p.response_seed, g.reports_sent, ts_ns, g.last_visible_ns, p.response_min_ns, p.response_max_ns
    )
    g.reports_sent += 1
    r = out[g.n_out]
    g.n_out += 1
    final = status == _S_FILLED or status == _S_CANCELED or status == _S_REJECTED or status == _S_EXPIRED
    r.ts_ns = g.last_visible_ns
    r.kind = _REPORT
    r.symbol = g.o_symbol[o]
    r.flags = 0
    r.order_id = g.o_order_id[o]
    r.venue_order_id = g.o_venue_id[o]
    r.trade_id = 0
    r.exec_type = exec_type
    r.order_status = status
    r.side = g.o_side[o]
    r.refusal = refusal
    r.purpose = g.o_purpose[o]
    r.maker = 0
    r.price_ticks = g.o_price[o]
    r.last_ticks = 0
    r.last_lots = 0
    r.cum_lots = g.o_cum[o]
    r.leaves_lots = 0 if final else g.o_qty[o] - g.o_cum[o]
    r.fee_e8 = 0
    r.decision_ticks = g.o_decision[o]
    r.ts_exchange_ns = ts_ns
    r.ts_sent_ns = g.o_sent_ns[o]


@kernel
def fill(
    st: Symbol, g: Glob, params: Recs, instruments: Recs, out: Recs, o: int, ticks: int, lots: int, maker: int, ts_ns: int
) -> None:
    """Fill `lots` of the order in slot `o` at `ticks`, and report it."""
    g.o_cum[o] += lots
    st.trade_id += 1
    row = g.n_out
    report(g, params, out, o, _FILL, _S_FILLED if g.o_cum[o] == g.o_qty[o] else _S_PARTIAL, _ALLOWED, ts_ns)
    if row == g.n_out:
        return
    symbol = g.o_symbol[o]
    it = instruments[symbol]
    r = out[row]
    r.trade_id = st.trade_id
    r.maker = maker
    r.last_ticks = ticks
    r.last_lots = lots
    r.fee_e8 = fee_e8(notional_e8(instruments, symbol, ticks, lots), it.maker_fee_e6 if maker == 1 else it.taker_fee_e6)


@kernel
def take(st: Symbol, g: Glob, params: Recs, instruments: Recs, out: Recs, o: int, limit_key: int, ts_ns: int) -> None:
    """Fill the order in slot `o` against what is shown on the other side, level by level, down to key `limit_key`."""
    side = ASK if g.o_side[o] > 0 else BID
    share = params[0].taker_share
    key = FIRST_KEY
    for _ in range(MAX_WALK):
        key = next_available(st, side, key, share)
        left = g.o_qty[o] - g.o_cum[o]
        if key == NO_KEY or key > limit_key or left == 0:
            return
        lots = min(left, available(st, side, key, share))
        remember_taken(st, side, key, lots)
        fill(st, g, params, instruments, out, o, key if side == ASK else -key, lots, 0, ts_ns)
        key += 1


@kernel
def met_by_touch(st: Symbol, params: Recs, o_key: int, side: int, wanted: int) -> int:
    """Lots of the other side that reach an order resting at `o_key` on `side`, up to `wanted`; they are then taken."""
    other = ASK if side == BID else BID
    share = params[0].taker_share
    total = 0
    key = FIRST_KEY
    while total < wanted:
        key = next_available(st, other, key, share)
        if key == NO_KEY or key > -o_key:
            break
        lots = min(wanted - total, available(st, other, key, share))
        remember_taken(st, other, key, lots)
        total += lots
        key += 1
    return total


@kernel
def rest(st: Symbol, g: Glob) -> int:
    """Give the order in SCRATCH a slot at the end of its symbol's list and of the queue at its price; returns the slot."""
    g.n_free -= 1
    o = g.free[g.n_free]
    g.n_resting += 1
    g.o_order_id[o] = g.o_order_id[SCRATCH]
    g.o_venue_id[o] = g.o_venue_id[SCRATCH]
    g.o_symbol[o] = g.o_symbol[SCRATCH]
    g.o_side[o] = g.o_side[SCRATCH]
    g.o_type[o] = g.o_type[SCRATCH]
    g.o_tif[o] = g.o_tif[SCRATCH]
    g.o_purpose[o] = g.o_purpose[SCRATCH]
    g.o_price[o] = g.o_price[SCRATCH]
    g.o_key[o] = g.o_key[SCRATCH]
    g.o_qty[o] = g.o_qty[SCRATCH]
    g.o_cum[o] = g.o_cum[SCRATCH]
    g.o_decision[o] = g.o_decision[SCRATCH]
    g.o_sent_ns[o] = g.o_sent_ns[SCRATCH]
    shown = displayed(st, BID if g.o_side[o] > 0 else ASK, g.o_key[o])
    g.o_ahead[o] = shown
    g.o_level[o] = shown
    g.o_printed[o] = 0
    g.o_unexplained[o] = 0
    g.o_moved[o] = 0
    g.o_unexplained_ns[o] = 0
    g.o_next[o] = NONE
    g.o_previous[o] = st.last
    if st.last == NONE:
        st.first = o
    else:
        g.o_next[st.last] = o
    st.last = o
    return o


@kernel
def unlink(st: Symbol, g: Glob, o: int) -> None:
    """Give the slot of an order that has ended back."""
    before, after = g.o_previous[o], g.o_next[o]
    if before == NONE:
        st.first = after
    else:
        g.o_next[before] = after
    if after == NONE:
        st.last = before
    else:
        g.o_previous[after] = before
    g.free[g.n_free] = o
    g.n_free += 1
    g.n_resting -= 1


@kernel
def find_order(st: Symbol, g: Glob, order_id: int) -> int:
    """Slot of the resting order with this client order id; NONE if there is none."""
    o = st.first
    while o != NONE and g.o_order_id[o] != order_id:
        o = g.o_next[o]
    return o


@kernel
def expire_all(st: Symbol, g: Glob, params: Recs, out: Recs, ts_ns: int) -> None:
    """End this symbol's resting orders, oldest first, as far as `out` has room."""
    while st.first != NONE and g.n_out < out.size:
        o = st.first
        report(g, params, out, o, _EXPIRED, _S_EXPIRED, _CLOSED, ts_ns)
        unlink(st, g, o)


@kernel
def load_scratch(g: Glob, p: int) -> None:
    """Put pending message `p` into the SCRATCH slot."""
    g.o_order_id[SCRATCH] = g.p_order_id[p]
    g.o_venue_id[SCRATCH] = 0
    g.o_symbol[SCRATCH] = g.p_symbol[p]
    g.o_side[SCRATCH] = g.p_side[p]
    g.o_type[SCRATCH] = g.p_type[p]
    g.o_tif[SCRATCH] = g.p_tif[p]
    g.o_purpose[SCRATCH] = g.p_purpose[p]
    g.o_price[SCRATCH] = g.p_price[p]
    g.o_key[SCRATCH] = -g.p_price[p] if g.p_side[p] > 0 else g.p_price[p]
    g.o_qty[SCRATCH] = g.p_qty[p]
    g.o_cum[SCRATCH] = 0
    g.o_decision[SCRATCH] = g.p_decision[p]
    g.o_sent_ns[SCRATCH] = g.p_sent_ns[p]


@kernel
def _wrong(g: Glob) -> bool:
    """Whether the order in SCRATCH is none that the venue knows to read."""
    side, kind, tif = g.o_side[SCRATCH], g.o_type[SCRATCH], g.o_tif[SCRATCH]
    if side != 1 and side != -1:
        return True
    if kind != _MARKET and kind != _LIMIT and kind != _POST_ONLY:
        return True
    return (kind != _MARKET and g.o_price[SCRATCH] <= 0) or (kind == _POST_ONLY and tif == _IOC)


@kernel
def _filtered(st: Symbol, g: Glob, instruments: Recs) -> bool:
    """Whether the venue's filters (step, quantity, notional) refuse the order in SCRATCH."""
    symbol, qty = g.o_symbol[SCRATCH], g.o_qty[SCRATCH]
    it = instruments[symbol]
    if qty <= 0 or qty < it.min_qty_lots or qty > it.max_qty_lots or qty % it.step_lots != 0:
        return True
    price = g.o_price[SCRATCH]
    if g.o_type[SCRATCH] == _MARKET:
        best = next_displayed(st, ASK if g.o_side[SCRATCH] > 0 else BID, FIRST_KEY)
        if best == NO_KEY:
            return False  # it will find no liquidity
        price = abs(best)
    return notional_e8(instruments, symbol, price, qty) < it.min_notional_e8


@kernel
def _refusal(state: Recs, g: Glob, instruments: Recs) -> int:
    """Why the venue refuses the order in SCRATCH before it looks at the book's other side; _ALLOWED if it does not."""
    symbol = g.o_symbol[SCRATCH]
    if symbol < 0 or symbol >= state.size or _wrong(g):
        return _FILTER
    st = state[symbol]
    if g.closed == 1 or (g.ended & 1 == 1 and g.o_sent_ns[SCRATCH] > g.end_ns):
        return _CLOSED
    if find_order(st, g, g.o_order_id[SCRATCH]) != NONE:
        return _DUPLICATE
    if st.book_ok == 0 or st.market_stale == 1:
        return _STALE
    if _filtered(st, g, instruments):
        return _FILTER
    if g.o_type[SCRATCH] == _POST_ONLY:
        # shown and not yet taken by us, whatever share of it a taker could get
        other = next_available(st, ASK if g.o_side[SCRATCH] > 0 else BID, FIRST_KEY, 1.0)
        if other != NO_KEY and g.o_key[SCRATCH] + other <= 0:
            return _WOULD_CROSS
    if g.n_free == 0 and g.o_type[SCRATCH] != _MARKET and g.o_tif[SCRATCH] != _IOC:
        return _TABLE_FULL
    return _ALLOWED


@kernel
def new_order(state: Recs, g: Glob, params: Recs, instruments: Recs, out: Recs, ts_ns: int) -> None:
    """The order in SCRATCH reaches the venue."""
    refusal = _refusal(state, g, instruments)
    if refusal != _ALLOWED:
        report(g, params, out, SCRATCH, _REJECT, _S_REJECTED, refusal, ts_ns)
        return
    st = state[g.o_symbol[SCRATCH]]
    g.venue_order_id += 1
    g.o_venue_id[SCRATCH] = g.venue_order_id
    report(g, params, out, SCRATCH, _ACK, _S_OPEN, _ALLOWED, ts_ns)
    if g.o_type[SCRATCH] == _MARKET:
        take(st, g, params, instruments, out, SCRATCH, NO_KEY - 1, ts_ns)
    elif g.o_type[SCRATCH] == _LIMIT:
        take(st, g, params, instruments, out, SCRATCH, -g.o_key[SCRATCH], ts_ns)
    if g.o_cum[SCRATCH] == g.o_qty[SCRATCH]:
        return
    if g.o_type[SCRATCH] == _MARKET or g.o_tif[SCRATCH] == _IOC:
        report(g, params, out, SCRATCH, _EXPIRED, _S_EXPIRED, _NO_LIQUIDITY, ts_ns)
        return
    rest(st, g)


@kernel
def cancel_order(state: Recs, g: Glob, params: Recs, out: Recs, ts_ns: int) -> None:
    """The cancel in SCRATCH (whose order id is the target's) reaches the venue. It always passes or is answered."""
    symbol = g.o_symbol[SCRATCH]
    o = NONE
    if symbol >= 0 and symbol < state.size:
        o = find_order(state[symbol], g, g.o_order_id[SCRATCH])
    if o == NONE:
        report(g, params, out, SCRATCH, _CANCEL_REJECT, _S_UNKNOWN, _UNKNOWN_ORDER, ts_ns)
        return
    g.o_sent_ns[o] = g.o_sent_ns[SCRATCH]  # the report tells when the message that it answers was sent
    report(g, params, out, o, _CANCELED, _S_CANCELED, _ALLOWED, ts_ns)
    unlink(state[symbol], g, o)


@kernel
def apply_next(state: Recs, g: Glob, params: Recs, instruments: Recs, out: Recs) -> None:
    """Take the next pending message in, at its arrival time."""
    p = g.p_head & (MAX_PENDING - 1)
    g.p_head += 1
    ts_ns = max(g.p_arrival_ns[p], g.now_ns)
    g.now_ns = ts_ns
    load_scratch(g, p)
    if g.p_kind[p] == _NEW:
        new_order(state, g, params, instruments, out, ts_ns)
    else:
        cancel_order(state, g, params, out, ts_ns)


@kernel
def reject_unheard(g: Glob, params: Recs, out: Recs, kind: int, ts_ns: int) -> None:
    """Answer the message in SCRATCH that found the FIFO full: the venue never looks at it."""
    if kind == _NEW:
        report(g, params, out, SCRATCH, _REJECT, _S_REJECTED, _TABLE_FULL, ts_ns)
    else:
        report(g, params, out, SCRATCH, _CANCEL_REJECT, _S_UNKNOWN, _TABLE_FULL, ts_ns)


assert MAX_PENDING & (MAX_PENDING - 1) == 0
assert SCRATCH == MAX_ORDERS
