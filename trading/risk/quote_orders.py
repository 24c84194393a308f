"""From a target quote to orders: what differs is cancelled and its successor sent at once.

Not after the cancel is confirmed: a symbol is never unquoted for a round trip, and the price is that both orders count in
the worst case until the old one is known to be dead. A side refused only for an order that is dying (self-match, position,
open orders) is tried again when an order of the symbol ends. An order is kept when its price is the target's and what is
left of it is between half the target and the target: a partial fill is no reason to lose the queue.

What this module is not: it decides no price (trading.quoting.targets does) and passes no check by (trading.risk.submitting does).
"""

from __future__ import annotations

from typing import Any, Final

from trading.jit import lean
from trading.orders import table as orders
from trading.records import OrderStatus, OrderType, Purpose, Refusal, Side
from trading.risk.arrays import RiskArrays
from trading.risk.submitting import begin, cancel, submit

QUOTE_RETRY_NS: Final = 1_000_000_000
"""A target quote older than this is not tried again."""

QUOTE_FIELDS: Final = (
    ("bid_id", "i8"),  # working quote order of each side
    ("ask_id", "i8"),
    ("target_ts_ns", "i8"),  # the last target quote ...
    ("target_bid_ticks", "i8"),
    ("target_bid_lots", "i8"),
    ("target_ask_ticks", "i8"),
    ("target_ask_lots", "i8"),
    ("retry_bid", "i8"),  # ... and 1 where an order of ours that is dying stood in its way
    ("retry_ask", "i8"),
)
"""Per-symbol fields."""


@lean
def _quote_side(risk: RiskArrays, s: int, ts_ns: int, side: int) -> None:
    """Bring one side's working order to the target."""
    st = risk.state[s]
    if side > 0:
        working, price_ticks, qty_lots = st.bid_id, st.target_bid_ticks, st.target_bid_lots
        st.retry_bid = 0
    else:
        working, price_ticks, qty_lots = st.ask_id, st.target_ask_ticks, st.target_ask_lots
        st.retry_ask = 0
    wanted = qty_lots != 0 and st.exit_purpose == 0
    slot = orders.find(risk.glob, working) if working != 0 else -1
    if slot >= 0:
        row = risk.glob[0].orders[slot]
        left = row.qty_lots - row.cum_lots
        same = row.price_ticks == price_ticks and left <= qty_lots and 2 * left >= qty_lots
        if wanted and same and row.status != OrderStatus.PENDING_CANCEL:
            return
        cancel(risk, slot, ts_ns)
    order_id = 0
    if wanted:
        begin(risk, s, ts_ns, side, Purpose.QUOTE)
        want = risk.intent[0]
        want.order_type, want.price_ticks, want.qty_lots = OrderType.POST_ONLY, price_ticks, qty_lots
        order_id = submit(risk, 0.0)
    dying = order_id == -Refusal.SELF_MATCH or order_id == -Refusal.MAX_POSITION or order_id == -Refusal.MAX_OPEN_ORDERS
    if side > 0:
        st.bid_id, st.retry_bid = max(order_id, 0), int(dying)
    else:
        st.ask_id, st.retry_ask = max(order_id, 0), int(dying)


@lean
def follow_target(risk: RiskArrays, rec: Any) -> None:
    """Take a QUOTE_RECORD as the target and send what leads there."""
    st = risk.state[rec.symbol]
    st.target_ts_ns = rec.ts_ns
    st.target_bid_ticks, st.target_bid_lots = rec.bid_ticks, rec.bid_lots
    st.target_ask_ticks, st.target_ask_lots = rec.ask_ticks, rec.ask_lots
    _quote_side(risk, rec.symbol, rec.ts_ns, Side.BUY)
    _quote_side(risk, rec.symbol, rec.ts_ns, Side.SELL)


@lean
def retry_quotes(risk: RiskArrays, s: int, ts_ns: int) -> None:
    """An order of this symbol has ended: try the sides that it stood in the way of."""
    st = risk.state[s]
    if ts_ns - st.target_ts_ns > QUOTE_RETRY_NS:
        return
    if st.retry_bid != 0:
        _quote_side(risk, s, ts_ns, Side.BUY)
    if st.retry_ask != 0:
        _quote_side(risk, s, ts_ns, Side.SELL)
