"""The router fold: who may reach the venue, and what the venue's words make of each order.

`on_order` takes one command and lets it onto the wire, or answers it itself. It repeats the checks that must hold even if
risk were wrong: approval, an id never used before, quantity, value, message rate. Cancels pass without any of them
(an order that is final already needs none: its cancel is answered with CANCEL_REJECT here). One command in,
at most one message out, so a cancel never waits behind a new order.

`on_execution` takes one execution report, drops what was heard before, and passes on what is news with this router's own
view of the order. Fills are a set keyed by symbol and trade id, statuses only move up (trading.orders.table), so any order and
any repetition of the same executions ends in the same `outcome_words`; only the counters differ.
A fill of an order that is not in the table is passed on as it came: the money has moved. An execution type that this
code does not know counts as a fill if it carries a trade id and a quantity, else it is counted and dropped.

What this module is not: it does no I/O, keeps no keys, neither retries nor reconciles.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from trading.instruments import notional_e8
from trading.jit import Recs, Words, kernel
from trading.orders import budget, fills
from trading.orders import table as orders
from trading.records import ExecType, Kind, OrderStatus, OrderType, Refusal
from trading.settings import Strategy

MAX_SYMBOLS: Final = 64
"""Symbols of one router."""
MAX_WIRE_OUT: Final = 1
"""Rows of `wire_out` that a call may write."""
MAX_REPORTS_OUT: Final = 1
"""Rows of `reports_out` that a call may write."""

ROUTE_GLOBAL: Final = np.dtype(
    [
        *orders.TABLE_FIELDS,
        ("trades", fills.TRADE_WINDOW, MAX_SYMBOLS),
        ("last_order_id", "i8"),  # greatest id taken: ids increase, so a smaller one is a repeat
        ("n_reports", "i8"),  # written by this call of on_order
        ("budget_ns", "i8"),
        ("budget_ts_ns", "i8"),
        ("new_count", "i8"),
        ("cancel_count", "i8"),
        ("refused_count", "i8"),
        ("unapproved_count", "i8"),
        ("duplicate_count", "i8"),  # commands with an id that was taken before
        ("answered_count", "i8"),  # cancels of final orders, answered here
        ("fill_count", "i8"),
        ("repeat_count", "i8"),  # executions that were no news
        ("unknown_count", "i8"),  # executions of orders that are not in the table
        ("strange_count", "i8"),  # executions of no known type, or whose figures cannot be
        ("inconsistent_count", "i8"),  # cum and leaves that do not make up the order
    ],
    align=True,
)
"""All of the router's state."""

ROUTE_PARAMS: Final = np.dtype([("max_order_e8", "i8"), ("message_cost_ns", "i8")], align=True)
"""Settings, in the units that the kernels use."""


def make_params(strategy: Strategy, instruments: Recs) -> Recs:
    """ROUTE_PARAMS (shape (1,)) of a strategy's `risk` section. Raises ValueError for more than MAX_SYMBOLS instruments."""
    if len(instruments) > MAX_SYMBOLS:
        raise ValueError(f"{len(instruments)} instruments: one router serves at most {MAX_SYMBOLS}; split them over instances")
    params = np.zeros(1, ROUTE_PARAMS)
    params[0]["max_order_e8"] = round(strategy.risk.max_order_notional * 1e8)
    params[0]["message_cost_ns"] = budget.BUDGET_NS // strategy.risk.max_orders_per_s
    return params


def init(glob: Recs, params: Recs, instruments: Recs) -> None:
    """Put zeroed glob (1,) into its start state: nothing in flight, full message budget."""
    assert len(instruments) <= MAX_SYMBOLS
    glob[0]["budget_ns"] = budget.BUDGET_NS


def outcome_words(glob: Recs) -> Words:
    """What the executions taken so far have made of the orders, (n, 6) int64, by order id: for tests and tools.

    Columns: order id, status, filled lots, lots filled by the venue's word, seen events, venue order id.
    """
    table = glob[0]["orders"]
    rows = np.sort(table[table["order_id"] > 0], order="order_id")
    names = ("order_id", "status", "cum_lots", "venue_cum_lots", "seen", "venue_order_id")
    return np.stack([rows[name] for name in names], axis=1)


_NEW: Final = int(Kind.NEW)
_CANCEL: Final = int(Kind.CANCEL)
_REPORT: Final = int(Kind.REPORT)
_MARKET: Final = int(OrderType.MARKET)
_ACK: Final = int(ExecType.ACK)
_REJECT: Final = int(ExecType.REJECT)
_FILL: Final = int(ExecType.FILL)
_CANCEL_REJECT: Final = int(ExecType.CANCEL_REJECT)
_LAST_EXEC: Final = int(ExecType.EXPIRED)
_REJECTED: Final = int(OrderStatus.REJECTED)
_CANCEL_SENT: Final = int(orders.Event.CANCEL_SENT)
_NOT_POSITIVE: Final = int(Refusal.NOT_POSITIVE)
_STEP_MULTIPLE: Final = int(Refusal.STEP_MULTIPLE)
_MAX_QTY: Final = int(Refusal.MAX_QTY)
_MAX_NOTIONAL: Final = int(Refusal.MAX_NOTIONAL)
_MESSAGE_RATE: Final = int(Refusal.MESSAGE_RATE)
_ORDER_TABLE_FULL: Final = int(Refusal.ORDER_TABLE_FULL)
_UNKNOWN_ORDER: Final = int(Refusal.VENUE_UNKNOWN_ORDER)


@kernel
def _check(rec_price: int, rec_qty: int, order_type: int, decision: float, s: int, params: Recs, instruments: Recs) -> int:
    """The checks that the router repeats on a new order; a Refusal, 0 if none applies."""
    it = instruments[s]
    if rec_qty <= 0 or (rec_price <= 0 and order_type != _MARKET):
        return _NOT_POSITIVE
    price = rec_price
    if order_type == _MARKET:
        if not (math.isfinite(decision) and 0.0 < decision < 1e15):
            return _NOT_POSITIVE
        price = int(math.ceil(decision))
    if rec_qty % it.step_lots != 0:
        return _STEP_MULTIPLE
    if rec_qty > it.max_qty_lots:
        return _MAX_QTY
    if budget.too_large(price, rec_qty) or notional_e8(instruments, s, price, rec_qty) > params[0].max_order_e8:
        return _MAX_NOTIONAL
    return 0


@kernel
def _answer(recs: Recs, i: int, out: Recs, order_id: int, exec_type: int, status: int, cum: int, refusal: int) -> None:
    """Write the router's own answer to a command."""
    rec, o = recs[i], out[0]
    o.ts_ns, o.kind, o.symbol, o.flags = rec.ts_ns, _REPORT, rec.symbol, 0
    o.order_id, o.venue_order_id, o.trade_id = order_id, 0, 0
    o.exec_type, o.order_status, o.side, o.refusal = exec_type, status, rec.side, refusal
    o.purpose, o.maker, o.price_ticks = rec.purpose, 0, rec.price_ticks
    o.last_ticks, o.last_lots, o.cum_lots, o.leaves_lots, o.fee_e8 = 0, 0, cum, 0, 0
    o.decision_ticks, o.ts_exchange_ns, o.ts_sent_ns = rec.decision_ticks, rec.ts_ns, rec.ts_ns


@kernel
def _put(recs: Recs, i: int, out: Recs) -> None:
    """Copy a command onto the wire (all but cause, stamps and sequence)."""
    rec, o = recs[i], out[0]
    o.ts_ns, o.kind, o.symbol, o.flags = rec.ts_ns, rec.kind, rec.symbol, rec.flags
    o.order_id, o.target_order_id = rec.order_id, rec.target_order_id
    o.side, o.order_type, o.time_in_force, o.purpose = rec.side, rec.order_type, rec.time_in_force, rec.purpose
    o.price_ticks, o.qty_lots, o.decision_ticks = rec.price_ticks, rec.qty_lots, rec.decision_ticks
    o.refusal, o.approved = 0, 1


@kernel
def _on_cancel(recs: Recs, i: int, glob: Recs, params: Recs, wire_out: Recs, reports_out: Recs) -> int:
    g, rec = glob[0], recs[i]
    slot = orders.find(glob, rec.target_order_id)
    if slot >= 0 and not orders.is_live(glob, slot):
        row = g.orders[slot]
        _answer(recs, i, reports_out, row.order_id, _CANCEL_REJECT, row.status, row.cum_lots, _UNKNOWN_ORDER)
        reports_out[0].venue_order_id, reports_out[0].price_ticks = row.venue_order_id, row.price_ticks
        reports_out[0].side, reports_out[0].purpose = row.side, row.purpose
        reports_out[0].decision_ticks, reports_out[0].ts_sent_ns = row.decision_ticks, row.ts_new_ns
        g.n_reports = 1
        g.answered_count += 1
        return 0
    if slot >= 0:
        orders.step(glob, slot, _CANCEL_SENT, 0, 0)
        g.orders[slot].seen &= ~(1 << _CANCEL_REJECT)  # its answer will be news
    # an order that the table does not know goes to the venue too: only the venue can say that it is not there
    budget.spend(glob, params, rec.ts_ns)
    _put(recs, i, wire_out)
    g.cancel_count += 1
    return 1


@kernel
def on_order(recs: Recs, i: int, glob: Recs, params: Recs, instruments: Recs, wire_out: Recs, reports_out: Recs) -> int:
    """Take an ORDER_RECORD (NEW, CANCEL). Returns records written to wire_out (0 or 1); answers: glob[0].n_reports (0 or 1).

    A repeated id is only counted: a REJECT under that id would speak of the order that lives under it.
    An order without approval is rejected with the refusal that it carries, NOT_POSITIVE if it carries none.
    """
    g, rec = glob[0], recs[i]
    g.n_reports = 0
    if rec.kind != _NEW and rec.kind != _CANCEL:
        return 0
    if rec.order_id <= g.last_order_id:
        g.duplicate_count += 1
        return 0
    g.last_order_id = rec.order_id
    if rec.kind == _CANCEL:
        return _on_cancel(recs, i, glob, params, wire_out, reports_out)
    s = rec.symbol
    refusal = 0
    if rec.approved != 1:
        g.unapproved_count += 1
        refusal = rec.refusal if rec.refusal > 0 else _NOT_POSITIVE
    elif s < 0 or s >= len(instruments) or (rec.side != 1 and rec.side != -1):
        refusal = _NOT_POSITIVE
    else:
        refusal = _check(rec.price_ticks, rec.qty_lots, rec.order_type, rec.decision_ticks, s, params, instruments)
    if refusal == 0 and not budget.has_budget(glob, params, rec.ts_ns):
        refusal = _MESSAGE_RATE
    if refusal == 0:
        slot = orders.insert(
            glob,
            rec.order_id,
            s,
            rec.side,
            rec.purpose,
            rec.order_type,
            rec.price_ticks,
            rec.qty_lots,
            rec.decision_ticks,
            rec.ts_ns,
        )
        if slot < 0:
            refusal = _ORDER_TABLE_FULL
    if refusal != 0:
        g.refused_count += 1
        _answer(recs, i, reports_out, rec.order_id, _REJECT, _REJECTED, 0, refusal)
        g.n_reports = 1
        return 0
    budget.spend(glob, params, rec.ts_ns)
    _put(recs, i, wire_out)
    g.new_count += 1
    return 1


@kernel
def _pass_on(recs: Recs, i: int, out: Recs, exec_type: int) -> None:
    """Copy an execution report (all but cause, stamps and sequence)."""
    rec, o = recs[i], out[0]
    o.ts_ns, o.kind, o.symbol, o.flags = rec.ts_ns, _REPORT, rec.symbol, rec.flags
    o.order_id, o.venue_order_id, o.trade_id = rec.order_id, rec.venue_order_id, rec.trade_id
    o.exec_type, o.order_status, o.side, o.refusal = exec_type, rec.order_status, rec.side, rec.refusal
    o.purpose, o.maker, o.price_ticks = rec.purpose, rec.maker, rec.price_ticks
    o.last_ticks, o.last_lots, o.fee_e8 = rec.last_ticks, rec.last_lots, rec.fee_e8
    o.cum_lots, o.leaves_lots = rec.cum_lots, rec.leaves_lots
    o.decision_ticks, o.ts_exchange_ns, o.ts_sent_ns = rec.decision_ticks, rec.ts_exchange_ns, rec.ts_sent_ns


@kernel
def on_execution(recs: Recs, i: int, glob: Recs, params: Recs, instruments: Recs, reports_out: Recs) -> int:
    """Take the venue's REPORT_RECORD. Returns reports written (0: it was no news, 1)."""
    g, rec = glob[0], recs[i]
    s = rec.symbol
    if rec.kind != _REPORT:
        return 0
    if s < 0 or s >= len(instruments):
        g.strange_count += 1
        return 0
    exec_type = rec.exec_type
    known_type = 0 < exec_type <= _LAST_EXEC
    if not known_type:
        g.strange_count += 1
        if rec.trade_id <= 0 or rec.last_lots <= 0:
            return 0
        exec_type = _FILL
    slot = orders.find(glob, rec.order_id)
    if slot >= 0 and g.orders[slot].symbol != s:
        slot = -1
    new_lots = 0
    if exec_type == _FILL:
        if rec.last_lots <= 0 or rec.last_ticks <= 0 or rec.trade_id <= 0:
            g.strange_count += 1
            return 0
        if not fills.first_sight(g.trades, s, rec.trade_id):
            g.repeat_count += 1
            return 0
        new_lots = rec.last_lots
        g.fill_count += 1
    if slot < 0:
        g.unknown_count += 1
        if exec_type != _FILL:
            return 0
        _pass_on(recs, i, reports_out, exec_type)
        return 1
    row = g.orders[slot]
    is_live_type = exec_type == _FILL or exec_type == _ACK
    if rec.cum_lots < 0 or rec.cum_lots > row.qty_lots or rec.leaves_lots < 0:
        g.inconsistent_count += 1
    elif is_live_type and rec.cum_lots + rec.leaves_lots != row.qty_lots:
        g.inconsistent_count += 1
    seen_before = (row.seen >> exec_type) & 1
    status = orders.step(glob, slot, exec_type, new_lots, rec.cum_lots)
    row.venue_order_id = max(row.venue_order_id, rec.venue_order_id)
    if exec_type != _FILL and seen_before == 1:
        g.repeat_count += 1
        return 0
    _pass_on(recs, i, reports_out, exec_type)
    o = reports_out[0]
    o.order_status, o.cum_lots = status, row.cum_lots
    o.leaves_lots = max(row.qty_lots - row.cum_lots, 0) if orders.is_live(glob, slot) else 0
    o.side, o.purpose, o.price_ticks = row.side, row.purpose, row.price_ticks
    o.decision_ticks, o.ts_sent_ns, o.venue_order_id = row.decision_ticks, row.ts_new_ns, row.venue_order_id
    return 1
