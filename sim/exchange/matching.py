"""What happens to an order at the simulated venue: checks, taking, resting, filling, cancelling, and the reports of it.

Every report is made here, by `report`, in the order of events; it becomes visible a response latency later, never
before the one that was made before it. Conservation: for each order accepted, the lots filled plus the lots that
CANCELED or EXPIRED ended are its quantity.

What fills a resting order, and what does not: a print of the other side's takers at its price, when the queue before it is used
up; a print through its price, wholly; the other side's quotes at or through its price. A print that is far from the book shown
when it comes (trading.off_book) fills nothing and moves no queue. Was it true, the depth that follows shows the other side
at the order's price, which fills it then; was it an error or a deal made aside, nothing has happened here.

What this is not: the clock of events. sim.exchange.fold decides when each of these functions runs.
"""

from __future__ import annotations

from typing import Any

from sim.exchange.latency import arrival_ns
from sim.exchange.shown_book import FIRST_KEY, available, displayed, next_available, next_displayed, remember_taken
from sim.exchange.state import MAX_PENDING, MAX_WALK, NONE, SCRATCH, ExchangeArrays
from trading.books.book import ASK, BID, NO_KEY
from trading.instruments import fee_e8, notional_e8, settled_e8
from trading.jit import kernel, lean
from trading.records import ExecType, Kind, OrderStatus, OrderType, Refusal, Side, TimeInForce

Symbol = Any
"""One EXCH_STATE record."""
Order = Any
"""One VENUE_ORDER record."""


@kernel
def side_of(order: Order) -> int:
    """The book side on which the order rests."""
    return BID if order.side > 0 else ASK


@lean
def report(venue: ExchangeArrays, order: Order, exec_type: int, status: int, refusal: int, ts_ns: int) -> None:
    """Write the next report about the order; the event happened at `ts_ns`. FILL figures are set by `fill`."""
    g, p = venue.glob[0], venue.params[0]
    if g.n_out >= venue.out.size:
        g.reports_lost += 1
        return
    g.last_visible_ns = arrival_ns(
        p.response_seed, g.reports_sent, ts_ns, g.last_visible_ns, p.response_min_ns, p.response_max_ns
    )
    g.reports_sent += 1
    r = venue.out[g.n_out]
    g.n_out += 1
    live = status == OrderStatus.OPEN or status == OrderStatus.PARTIAL or status == OrderStatus.UNKNOWN
    r.ts_ns, r.kind, r.symbol, r.flags = g.last_visible_ns, Kind.REPORT, order.symbol, 0
    r.order_id, r.venue_order_id, r.trade_id = order.order_id, order.venue_order_id, 0
    r.exec_type, r.order_status, r.side, r.refusal = exec_type, status, order.side, refusal
    r.purpose, r.maker, r.price_ticks = order.purpose, 0, order.price_ticks
    r.last_ticks, r.last_lots, r.cum_lots, r.fee_e8 = 0, 0, order.cum_lots, 0
    r.leaves_lots = order.qty_lots - order.cum_lots if live else 0
    r.decision_ticks, r.ts_exchange_ns, r.ts_sent_ns = order.decision_ticks, ts_ns, order.sent_ns


@lean
def fill(venue: ExchangeArrays, order: Order, ticks: int, lots: int, maker: int, ts_ns: int) -> None:
    """Fill `lots` of the order at `ticks`, and report it."""
    st, it, g = venue.state[order.symbol], venue.instruments[order.symbol], venue.glob[0]
    order.cum_lots += lots
    st.trade_id += 1
    row = g.n_out
    status = OrderStatus.FILLED if order.cum_lots == order.qty_lots else OrderStatus.PARTIAL
    report(venue, order, ExecType.FILL, status, Refusal.NONE, ts_ns)
    if row == g.n_out:
        return
    r = venue.out[row]
    r.trade_id, r.maker, r.last_ticks, r.last_lots = st.trade_id, maker, ticks, lots
    value = settled_e8(venue.instruments, order.symbol, ticks, lots)
    r.fee_e8 = fee_e8(value, it.maker_fee_e6 if maker == 1 else it.taker_fee_e6)


@lean
def fill_resting(venue: ExchangeArrays, o: int, lots: int, ts_ns: int) -> None:
    """Fill `lots` of the resting order in slot `o` at its price, and take it out when nothing is left."""
    order = venue.glob[0].orders[o]
    fill(venue, order, order.price_ticks, lots, 1, ts_ns)
    if order.cum_lots == order.qty_lots:
        unlink(venue, o)


@lean
def take(venue: ExchangeArrays, order: Order, limit_key: int, ts_ns: int) -> None:
    """Fill the order against what is shown on the other side, level by level, down to key `limit_key`."""
    st, share = venue.state[order.symbol], venue.params[0].taker_share
    side = ASK if order.side > 0 else BID
    key = FIRST_KEY
    for _ in range(MAX_WALK):
        key = next_available(st, side, key, share)
        left = order.qty_lots - order.cum_lots
        if key == NO_KEY or key > limit_key or left == 0:
            return
        lots = min(left, available(st, side, key, share))
        remember_taken(st, side, key, lots)
        fill(venue, order, key if side == ASK else -key, lots, 0, ts_ns)
        key += 1


@kernel
def met_by_touch(st: Symbol, share: float, order: Order) -> int:
    """Lots of the other side that reach a resting order, up to what is left of it; they are then taken."""
    other = ASK if order.side > 0 else BID
    wanted = order.qty_lots - order.cum_lots
    total = 0
    key = FIRST_KEY
    while total < wanted:
        key = next_available(st, other, key, share)
        if key == NO_KEY or key > -order.key:
            break
        lots = min(wanted - total, available(st, other, key, share))
        remember_taken(st, other, key, lots)
        total += lots
        key += 1
    return total


@lean
def rest(venue: ExchangeArrays) -> None:
    """Give the order in SCRATCH a slot at the end of its symbol's list and of the queue at its price."""
    g = venue.glob[0]
    g.n_free -= 1
    o = g.free[g.n_free]
    g.n_resting += 1
    g.orders[o] = g.orders[SCRATCH]
    order = g.orders[o]
    st = venue.state[order.symbol]
    if st.first == NONE:
        for side in range(2):
            st.print_key[side] = next_displayed(st, side, FIRST_KEY)
    shown = displayed(st, side_of(order), order.key)
    order.ahead, order.level, order.printed = shown, shown, 0
    order.unexplained, order.moved, order.unexplained_ns = 0, 0, 0
    order.next, order.previous = NONE, st.last
    if st.last == NONE:
        st.first = o
    else:
        g.orders[st.last].next = o
    st.last = o


@lean
def unlink(venue: ExchangeArrays, o: int) -> None:
    """Give the slot of an order that has ended back."""
    g = venue.glob[0]
    order = g.orders[o]
    st = venue.state[order.symbol]
    if order.previous == NONE:
        st.first = order.next
    else:
        g.orders[order.previous].next = order.next
    if order.next == NONE:
        st.last = order.previous
    else:
        g.orders[order.next].previous = order.previous
    g.free[g.n_free] = o
    g.n_free += 1
    g.n_resting -= 1


@lean
def find_order(venue: ExchangeArrays, symbol: int, order_id: int) -> int:
    """Slot of the symbol's resting order with this client order id; NONE if there is none, or no such symbol."""
    if symbol < 0 or symbol >= venue.state.size:
        return NONE
    g = venue.glob[0]
    o = venue.state[symbol].first
    while o != NONE and g.orders[o].order_id != order_id:
        o = g.orders[o].next
    return o


@lean
def expire_all(venue: ExchangeArrays, symbol: int, ts_ns: int) -> None:
    """End this symbol's resting orders, oldest first, as far as `out` has room."""
    st, g = venue.state[symbol], venue.glob[0]
    while st.first != NONE and g.n_out < venue.out.size:
        o = st.first
        report(venue, g.orders[o], ExecType.EXPIRED, OrderStatus.EXPIRED, Refusal.VENUE_CLOSED, ts_ns)
        unlink(venue, o)


@kernel
def write_message(message: Any, rec: Any, arrival_ns: int) -> None:
    """Make a MESSAGE of an ORDER_RECORD (NEW or CANCEL)."""
    message.arrival_ns, message.sent_ns, message.kind, message.symbol = arrival_ns, rec.ts_ns, rec.kind, rec.symbol
    message.order_id = rec.order_id if rec.kind == Kind.NEW else rec.target_order_id
    message.side, message.order_type = rec.side, rec.order_type
    message.time_in_force, message.purpose = rec.time_in_force, rec.purpose
    message.price_ticks, message.qty_lots, message.decision_ticks = rec.price_ticks, rec.qty_lots, rec.decision_ticks


@kernel
def _open(order: Order, message: Any) -> None:
    """Make an order of a message, with nothing filled and no place in a queue."""
    order.sent_ns, order.symbol, order.order_id = message.sent_ns, message.symbol, message.order_id
    order.side, order.order_type = message.side, message.order_type
    order.time_in_force, order.purpose = message.time_in_force, message.purpose
    order.price_ticks, order.qty_lots, order.decision_ticks = message.price_ticks, message.qty_lots, message.decision_ticks
    order.venue_order_id, order.cum_lots = 0, 0
    order.key = -message.price_ticks if message.side > 0 else message.price_ticks


@kernel
def _wrong(order: Order) -> bool:
    """Whether the order is none that the venue knows to read."""
    kind = order.order_type
    if order.side != Side.BUY and order.side != Side.SELL:
        return True
    if kind == OrderType.MARKET:
        return False
    if kind != OrderType.LIMIT and kind != OrderType.POST_ONLY:
        return True
    return order.price_ticks <= 0 or (kind == OrderType.POST_ONLY and order.time_in_force == TimeInForce.IOC)


@lean
def _filtered(venue: ExchangeArrays, order: Order) -> bool:
    """Whether the venue's filters (step, quantity, notional) refuse the order."""
    it, qty = venue.instruments[order.symbol], order.qty_lots
    if qty <= 0 or qty < it.min_qty_lots or qty > it.max_qty_lots or qty % it.step_lots != 0:
        return True
    price = order.price_ticks
    if order.order_type == OrderType.MARKET:
        best = next_displayed(venue.state[order.symbol], ASK if order.side > 0 else BID, FIRST_KEY)
        if best == NO_KEY:
            return False  # it will find no liquidity
        price = abs(best)
    return notional_e8(venue.instruments, order.symbol, price, qty) < it.min_notional_e8


@lean
def _refusal(venue: ExchangeArrays, order: Order) -> int:
    """Why the venue refuses the order before it looks at the book's other side; NONE if it does not."""
    g = venue.glob[0]
    if order.symbol < 0 or order.symbol >= venue.state.size or _wrong(order):
        return Refusal.VENUE_FILTER
    st = venue.state[order.symbol]
    if g.closed == 1 or (g.ended & 1 == 1 and order.sent_ns > g.end_ns):
        return Refusal.VENUE_CLOSED
    if find_order(venue, order.symbol, order.order_id) != NONE:
        return Refusal.DUPLICATE
    if st.book_ok == 0 or st.market_stale == 1:
        return Refusal.VENUE_BOOK_STALE
    if _filtered(venue, order):
        return Refusal.VENUE_FILTER
    if order.order_type == OrderType.POST_ONLY:
        # shown and not yet taken by us, whatever share of it a taker could get
        other = next_available(st, ASK if order.side > 0 else BID, FIRST_KEY, 1.0)
        if other != NO_KEY and order.key + other <= 0:
            return Refusal.VENUE_POST_ONLY
    if g.n_free == 0 and order.order_type != OrderType.MARKET and order.time_in_force != TimeInForce.IOC:
        return Refusal.VENUE_TABLE_FULL
    return Refusal.NONE


@lean
def _new_order(venue: ExchangeArrays, order: Order, ts_ns: int) -> None:
    """The order in SCRATCH reaches the venue."""
    refusal = _refusal(venue, order)
    if refusal != Refusal.NONE:
        report(venue, order, ExecType.REJECT, OrderStatus.REJECTED, refusal, ts_ns)
        return
    g = venue.glob[0]
    g.venue_order_id += 1
    order.venue_order_id = g.venue_order_id
    report(venue, order, ExecType.ACK, OrderStatus.OPEN, Refusal.NONE, ts_ns)
    if order.order_type == OrderType.MARKET:
        take(venue, order, NO_KEY - 1, ts_ns)
    elif order.order_type == OrderType.LIMIT:
        take(venue, order, -order.key, ts_ns)
    if order.cum_lots == order.qty_lots:
        return
    if order.order_type == OrderType.MARKET or order.time_in_force == TimeInForce.IOC:
        report(venue, order, ExecType.EXPIRED, OrderStatus.EXPIRED, Refusal.VENUE_NO_LIQUIDITY, ts_ns)
        return
    rest(venue)


@lean
def _cancel_order(venue: ExchangeArrays, asked: Order, ts_ns: int) -> None:
    """The cancel in SCRATCH (whose order id is the target's) reaches the venue. It always passes or is answered."""
    o = find_order(venue, asked.symbol, asked.order_id)
    if o == NONE:
        report(venue, asked, ExecType.CANCEL_REJECT, OrderStatus.UNKNOWN, Refusal.VENUE_UNKNOWN_ORDER, ts_ns)
        return
    order = venue.glob[0].orders[o]
    order.sent_ns = asked.sent_ns  # the report tells when the message that it answers was sent
    report(venue, order, ExecType.CANCELED, OrderStatus.CANCELED, Refusal.NONE, ts_ns)
    unlink(venue, o)


@lean
def apply_next(venue: ExchangeArrays) -> None:
    """Take the next pending message in, at its arrival time."""
    g = venue.glob[0]
    message, order = g.pending[g.head & (MAX_PENDING - 1)], g.orders[SCRATCH]
    g.head += 1
    g.now_ns = max(message.arrival_ns, g.now_ns)
    _open(order, message)
    if message.kind == Kind.NEW:
        _new_order(venue, order, g.now_ns)
    else:
        _cancel_order(venue, order, g.now_ns)


@lean
def reject_unheard(venue: ExchangeArrays, message: Any) -> None:
    """Answer a message that found the FIFO full: the venue never looks at it."""
    order = venue.glob[0].orders[SCRATCH]
    _open(order, message)
    if message.kind == Kind.NEW:
        report(venue, order, ExecType.REJECT, OrderStatus.REJECTED, Refusal.VENUE_TABLE_FULL, message.arrival_ns)
    else:
        report(venue, order, ExecType.CANCEL_REJECT, OrderStatus.UNKNOWN, Refusal.VENUE_TABLE_FULL, message.arrival_ns)
