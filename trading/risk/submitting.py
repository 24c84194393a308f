"""How risk writes an order: new ones through every check, cancels through none, refusals with their reason.

An order is made in `risk.intent[0]`: `begin` starts it, the caller adds type, price and quantity, and `submit` or `refuse` sends
it off. Each of them appends to the output rows and keeps table, ids, budget and reserved quantity in step with what was
written, so that nothing can leave without being counted.

What this module is not: it does not know why an order is wanted.
"""

from __future__ import annotations

from typing import Any, Final

from trading.instruments import loss_e8
from trading.jit import Recs, kernel, lean
from trading.orders import budget
from trading.orders import table as orders
from trading.orders.command import copy_command
from trading.records import Kind, OrderStatus, OrderType, Refusal, TimeInForce
from trading.risk import limits
from trading.risk.arrays import MAX_ORDERS_OUT, MAX_REFUSALS_OUT, RiskArrays

REASONS: Final = 128
"""Length of the count of refusals by reason."""
assert max(Refusal) < REASONS

OUTPUT_FIELDS: Final = (
    ("next_order_id", "i8"),
    ("n_orders", "i8"),  # written by this call
    ("n_refusals", "i8"),  # written by this call
    ("new_count", "i8"),
    ("cancel_count", "i8"),
    ("refused_count", "i8", REASONS),
)
"""Global fields."""


@kernel
def mid_ticks(state: Recs, s: int) -> float:
    """Mid of risk's own book in ticks."""
    return 0.5 * float(state[s].bid_ticks[0] + state[s].ask_ticks[0])


@lean
def begin(risk: RiskArrays, s: int, ts_ns: int, side: int, purpose: int) -> None:
    """Start an intent: a MARKET order of no quantity, decided at the present mid."""
    want = risk.intent[0]
    want.ts_ns, want.kind, want.symbol, want.flags = ts_ns, Kind.NEW, s, 0
    want.order_id, want.target_order_id = 0, 0
    want.side, want.order_type, want.purpose = side, OrderType.MARKET, purpose
    want.price_ticks, want.qty_lots, want.decision_ticks = 0, 0, mid_ticks(risk.state, s)


@kernel
def _write(row: Any, want: Any, kind: int, refusal: int) -> None:
    want.kind, want.refusal = kind, refusal
    want.time_in_force = TimeInForce.IOC if want.order_type == OrderType.MARKET else TimeInForce.GTC
    want.approved = 0 if kind == Kind.REFUSED else 1
    copy_command(row, want)


@lean
def refuse(risk: RiskArrays, refusal: int) -> None:
    """Count a refusal of the intent and write it (kind REFUSED, approved 0, order id 0: it never got one)."""
    g, want = risk.glob[0], risk.intent[0]
    g.refused_count[refusal] += 1
    if g.n_refusals < MAX_REFUSALS_OUT:
        want.order_id = 0
        _write(risk.refusals_out[g.n_refusals], want, Kind.REFUSED, refusal)
        g.n_refusals += 1


@lean
def cancel(risk: RiskArrays, slot: int, ts_ns: int) -> None:
    """Cancel a live order, unless its cancel is on the way already. No limit applies. The intent is lost."""
    g, want = risk.glob[0], risk.intent[0]
    row = g.orders[slot]
    if row.status == OrderStatus.PENDING_CANCEL or g.n_orders >= MAX_ORDERS_OUT:
        return
    begin(risk, row.symbol, ts_ns, row.side, row.purpose)
    want.order_id, want.target_order_id = g.next_order_id, row.order_id
    want.order_type, want.price_ticks, want.decision_ticks = row.order_type, row.price_ticks, row.decision_ticks
    want.qty_lots = orders.reserved_lots(risk.glob, slot)
    _write(risk.orders_out[g.n_orders], want, Kind.CANCEL, Refusal.NONE)
    g.next_order_id += 1
    g.n_orders += 1
    g.cancel_count += 1
    budget.spend(risk.glob, risk.params, ts_ns)
    orders.step(risk.glob, slot, orders.Event.CANCEL_SENT, 0, 0)


@lean
def cancel_all(risk: RiskArrays, s: int, ts_ns: int) -> None:
    """Cancel every live order of symbol `s`; of all symbols when `s` is negative. Exits in flight are MARKET: they go too."""
    g = risk.glob[0]
    for j in range(g.n_live):
        if s < 0 or g.orders[g.live[j]].symbol == s:
            cancel(risk, g.live[j], ts_ns)


@lean
def submit(risk: RiskArrays, heat_e8: float) -> int:
    """Check the intent and send or refuse it. Returns its order id, or minus the Refusal. `heat_e8`: as for check_order."""
    g, want = risk.glob[0], risk.intent[0]
    refusal = limits.check_order(risk, heat_e8)
    if refusal == Refusal.NONE:
        want.order_id = g.next_order_id
        if g.n_orders >= MAX_ORDERS_OUT or orders.insert(risk.glob, want) < 0:
            refusal = Refusal.ORDER_TABLE_FULL
    if refusal != Refusal.NONE:
        refuse(risk, refusal)
        return -refusal
    _write(risk.orders_out[g.n_orders], want, Kind.NEW, Refusal.NONE)
    g.next_order_id += 1
    g.n_orders += 1
    g.new_count += 1
    budget.spend(risk.glob, risk.params, want.ts_ns)
    st = risk.state[want.symbol]
    if want.side > 0:
        st.open_buy_lots += want.qty_lots
    else:
        st.open_sell_lots += want.qty_lots
    return want.order_id


@lean
def heat_e8(risk: RiskArrays) -> float:
    """Money (1e-8) lost if every leg and every pending entry were stopped out: sum of quantity * stop distance (Elder)."""
    total = 0.0
    for s in range(len(risk.state)):
        st = risk.state[s]
        lots = abs(st.leg_lots)
        if st.entry_id != 0:
            slot = orders.find(risk.glob, st.entry_id)
            if slot >= 0:
                lots += orders.reserved_lots(risk.glob, slot)
        if lots > 0:
            total += loss_e8(risk.instruments, s, mid_ticks(risk.state, s), float(lots), st.stop_distance)
    return total
