"""How risk writes an order: new ones through every check, cancels through none, refusals with their reason.

Each kernel appends to the caller's output rows and keeps table, ids, budget and reserved quantity in step with what was
written, so that nothing can leave without being counted.

What this module is not: it does not know why an order is wanted.
"""

from __future__ import annotations

from typing import Final

from trading.jit import Recs, kernel
from trading.orders import budget
from trading.orders import table as orders
from trading.records import Kind, OrderStatus, OrderType, Refusal, TimeInForce
from trading.risk import limits
from trading.risk.layout import MAX_ORDERS_OUT, MAX_REFUSALS_OUT

_NEW: Final = int(Kind.NEW)
_CANCEL: Final = int(Kind.CANCEL)
_REFUSED: Final = int(Kind.REFUSED)
_MARKET: Final = int(OrderType.MARKET)
_GTC: Final = int(TimeInForce.GTC)
_IOC: Final = int(TimeInForce.IOC)
_PENDING_CANCEL: Final = int(OrderStatus.PENDING_CANCEL)
_CANCEL_SENT: Final = int(orders.Event.CANCEL_SENT)
_ORDER_TABLE_FULL: Final = int(Refusal.ORDER_TABLE_FULL)


@kernel
def _write(
    out: Recs,
    n: int,
    kind: int,
    ts_ns: int,
    s: int,
    order_id: int,
    target_id: int,
    side: int,
    order_type: int,
    purpose: int,
    price_ticks: int,
    qty_lots: int,
    decision_ticks: float,
    refusal: int,
) -> None:
    o = out[n]
    o.ts_ns, o.kind, o.symbol, o.flags = ts_ns, kind, s, 0
    o.order_id, o.target_order_id = order_id, target_id
    o.side, o.order_type, o.purpose = side, order_type, purpose
    o.time_in_force = _IOC if order_type == _MARKET else _GTC
    o.price_ticks, o.qty_lots, o.decision_ticks = price_ticks, qty_lots, decision_ticks
    o.refusal = refusal
    o.approved = 0 if kind == _REFUSED else 1


@kernel
def mid_ticks(state: Recs, s: int) -> float:
    """Mid of risk's own book in ticks."""
    return 0.5 * float(state[s].bid_ticks[0] + state[s].ask_ticks[0])


@kernel
def refuse(
    state: Recs,
    glob: Recs,
    s: int,
    ts_ns: int,
    side: int,
    order_type: int,
    price_ticks: int,
    qty_lots: int,
    purpose: int,
    refusal: int,
    refusals_out: Recs,
) -> None:
    """Count a refusal and write it (kind REFUSED, approved 0, order id 0: it never got one)."""
    g = glob[0]
    g.refused_count[refusal] += 1
    if g.n_refusals < MAX_REFUSALS_OUT:
        n = g.n_refusals
        mid = mid_ticks(state, s)
        _write(refusals_out, n, _REFUSED, ts_ns, s, 0, 0, side, order_type, purpose, price_ticks, qty_lots, mid, refusal)
        g.n_refusals = n + 1


@kernel
def cancel(glob: Recs, params: Recs, slot: int, ts_ns: int, orders_out: Recs) -> None:
    """Cancel a live order, unless its cancel is on the way already. No limit applies."""
    g = glob[0]
    row = g.orders[slot]
    if row.status == _PENDING_CANCEL or g.n_orders >= MAX_ORDERS_OUT:
        return
    order_id = g.next_order_id
    g.next_order_id = order_id + 1
    leaves = orders.reserved_lots(glob, slot)
    _write(
        orders_out,
        g.n_orders,
        _CANCEL,
        ts_ns,
        row.symbol,
        order_id,
        row.order_id,
        row.side,
        row.order_type,
        row.purpose,
        row.price_ticks,
        leaves,
        row.decision_ticks,
        0,
    )
    g.n_orders += 1
    g.cancel_count += 1
    budget.spend(glob, params, ts_ns)
    orders.step(glob, slot, _CANCEL_SENT, 0, 0)


@kernel
def cancel_all(glob: Recs, params: Recs, s: int, ts_ns: int, orders_out: Recs) -> None:
    """Cancel every live order of symbol `s`; of all symbols when `s` is negative. Exits in flight are MARKET: they go too."""
    for j in range(glob[0].n_live):
        slot = glob[0].live[j]
        if s < 0 or glob[0].orders[slot].symbol == s:
            cancel(glob, params, slot, ts_ns, orders_out)


@kernel
def submit(
    state: Recs,
    glob: Recs,
    params: Recs,
    instruments: Recs,
    s: int,
    ts_ns: int,
    side: int,
    order_type: int,
    price_ticks: int,
    qty_lots: int,
    purpose: int,
    heat_e8: float,
    orders_out: Recs,
    refusals_out: Recs,
) -> int:
    """Check a new order and send or refuse it. Returns its id, or minus the Refusal."""
    refusal = limits.check_order(
        state, glob, params, instruments, s, ts_ns, side, order_type, price_ticks, qty_lots, purpose, heat_e8
    )
    g = glob[0]
    order_id = g.next_order_id
    if refusal == 0:
        slot = -1
        if g.n_orders < MAX_ORDERS_OUT:
            slot = orders.insert(glob, order_id, s, side, purpose, order_type, price_ticks, qty_lots, mid_ticks(state, s), ts_ns)
        if slot < 0:
            refusal = _ORDER_TABLE_FULL
    if refusal != 0:
        refuse(state, glob, s, ts_ns, side, order_type, price_ticks, qty_lots, purpose, refusal, refusals_out)
        return -refusal
    g.next_order_id = order_id + 1
    mid = mid_ticks(state, s)
    _write(orders_out, g.n_orders, _NEW, ts_ns, s, order_id, 0, side, order_type, purpose, price_ticks, qty_lots, mid, 0)
    g.n_orders += 1
    g.new_count += 1
    budget.spend(glob, params, ts_ns)
    if side > 0:
        state[s].open_buy_lots += qty_lots
    else:
        state[s].open_sell_lots += qty_lots
    return order_id


@kernel
def heat_e8(state: Recs, glob: Recs, instruments: Recs) -> float:
    """Money (1e-8) lost if every leg and every pending entry were stopped out: sum of quantity * stop distance (Elder)."""
    total = 0.0
    for s in range(len(state)):
        st = state[s]
        lots = abs(st.leg_lots)
        if st.entry_id != 0:
            slot = orders.find(glob, st.entry_id)
            if slot >= 0:
                lots += orders.reserved_lots(glob, slot)
        if lots > 0:
            it = instruments[s]
            total += float(lots) * st.stop_distance * float(it.notional_mul) / float(it.notional_div)
    return total
