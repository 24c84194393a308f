"""From a target quote to orders: what differs is cancelled and its successor sent at once.

Not after the cancel is confirmed: a symbol is never unquoted for a round trip, and the price is that both orders count in
the worst case until the old one is known to be dead. A side refused only for an order that is dying (self-match, position,
open orders) is tried again when an order of the symbol ends. An order is kept when its price is the target's and what is
left of it is between half the target and the target: a partial fill is no reason to lose the queue.

What this module is not: it decides no price (trading.quoting.skewed does) and passes no check by (trading.risk.submitting does).
"""

from __future__ import annotations

from typing import Final

from trading.jit import Recs, kernel
from trading.orders import table as orders
from trading.records import OrderStatus, OrderType, Purpose, Refusal, Side
from trading.risk.layout import NS_PER_MS
from trading.risk.submitting import cancel, submit

QUOTE_RETRY_NS: Final = 1_000 * NS_PER_MS
"""A target quote older than this is not tried again."""

_BUY: Final = int(Side.BUY)
_SELL: Final = int(Side.SELL)
_POST_ONLY: Final = int(OrderType.POST_ONLY)
_QUOTE: Final = int(Purpose.QUOTE)
_PENDING_CANCEL: Final = int(OrderStatus.PENDING_CANCEL)
_MAX_POSITION: Final = int(Refusal.MAX_POSITION)
_MAX_OPEN_ORDERS: Final = int(Refusal.MAX_OPEN_ORDERS)
_SELF_MATCH: Final = int(Refusal.SELF_MATCH)


@kernel
def quote_side(
    state: Recs,
    glob: Recs,
    params: Recs,
    instruments: Recs,
    s: int,
    ts_ns: int,
    side: int,
    price_ticks: int,
    qty_lots: int,
    orders_out: Recs,
    refusals_out: Recs,
) -> None:
    """Bring one side's working order to the target."""
    st = state[s]
    working = st.bid_id if side > 0 else st.ask_id
    if side > 0:
        st.retry_bid = 0
    else:
        st.retry_ask = 0
    wanted = qty_lots != 0 and st.exit_purpose == 0
    slot = orders.find(glob, working) if working != 0 else -1
    if slot >= 0:
        row = glob[0].orders[slot]
        left = row.qty_lots - row.cum_lots
        same = row.price_ticks == price_ticks and left <= qty_lots and 2 * left >= qty_lots and row.status != _PENDING_CANCEL
        if wanted and same:
            return
        cancel(glob, params, slot, ts_ns, orders_out)
    order_id = 0
    if wanted:
        order_id = submit(
            state,
            glob,
            params,
            instruments,
            s,
            ts_ns,
            side,
            _POST_ONLY,
            price_ticks,
            qty_lots,
            _QUOTE,
            0.0,
            orders_out,
            refusals_out,
        )
    retry = int(order_id == -_SELF_MATCH or order_id == -_MAX_POSITION or order_id == -_MAX_OPEN_ORDERS)
    if side > 0:
        st.bid_id, st.retry_bid = max(order_id, 0), retry
    else:
        st.ask_id, st.retry_ask = max(order_id, 0), retry


@kernel
def retry_quotes(
    state: Recs,
    glob: Recs,
    params: Recs,
    instruments: Recs,
    s: int,
    ts_ns: int,
    orders_out: Recs,
    refusals_out: Recs,
) -> None:
    """An order of this symbol has ended: try the sides that it stood in the way of."""
    st = state[s]
    if ts_ns - st.target_ts_ns > QUOTE_RETRY_NS:
        return
    if st.retry_bid != 0:
        price, lots = st.target_bid_ticks, st.target_bid_lots
        quote_side(state, glob, params, instruments, s, ts_ns, _BUY, price, lots, orders_out, refusals_out)
    if st.retry_ask != 0:
        price, lots = st.target_ask_ticks, st.target_ask_lots
        quote_side(state, glob, params, instruments, s, ts_ns, _SELL, price, lots, orders_out, refusals_out)
