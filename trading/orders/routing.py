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
from typing import Any, Final, NamedTuple

import numpy as np

from trading.instruments import notional_e8
from trading.jit import Recs, Words, lean
from trading.orders import budget, fills
from trading.orders import table as orders
from trading.orders.command import copy_command
from trading.ranges import MAX_SYMBOLS
from trading.records import ExecType, Kind, OrderStatus, OrderType, Refusal, Side
from trading.settings import Strategy

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
        *budget.BUDGET_FIELDS,
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

ROUTE_PARAMS: Final = np.dtype([("max_order_e8", "i8"), *budget.BUDGET_PARAMS], align=True)
"""Settings, in the units that the kernels use."""


class RouterArrays(NamedTuple):
    """What every kernel of the router takes: arrays of records, handed on together."""

    glob: Recs  # ROUTE_GLOBAL, shape (1,)
    params: Recs  # ROUTE_PARAMS, (1,)
    instruments: Recs  # INSTRUMENT, (n_symbols,)
    wire_out: Recs  # ORDER_RECORD, (MAX_WIRE_OUT,)
    reports_out: Recs  # REPORT_RECORD, (MAX_REPORTS_OUT,)


def make_params(strategy: Strategy, instruments: Recs) -> Recs:
    """ROUTE_PARAMS (shape (1,)) of a strategy's `risk` section. Raises ValueError for more than MAX_SYMBOLS instruments."""
    if len(instruments) > MAX_SYMBOLS:
        raise ValueError(f"{len(instruments)} instruments: one router serves at most {MAX_SYMBOLS}; split them over instances")
    params = np.zeros(1, ROUTE_PARAMS)
    params[0]["max_order_e8"] = round(strategy.risk.max_order_notional * 1e8)
    params[0]["message_cost_ns"] = budget.message_cost_ns(strategy.risk)
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


@lean
def _check(router: RouterArrays, rec: Any) -> int:
    """The checks that the router repeats on a new order; a Refusal, NONE if none applies."""
    it = router.instruments[rec.symbol]
    if rec.qty_lots <= 0 or (rec.price_ticks <= 0 and rec.order_type != OrderType.MARKET):
        return Refusal.NOT_POSITIVE
    price = rec.price_ticks
    if rec.order_type == OrderType.MARKET:
        if not (math.isfinite(rec.decision_ticks) and 0.0 < rec.decision_ticks < 1e15):
            return Refusal.NOT_POSITIVE
        price = int(math.ceil(rec.decision_ticks))
    if rec.qty_lots % it.step_lots != 0:
        return Refusal.STEP_MULTIPLE
    if rec.qty_lots > it.max_qty_lots:
        return Refusal.MAX_QTY
    if notional_e8(router.instruments, rec.symbol, price, rec.qty_lots) > router.params[0].max_order_e8:
        return Refusal.MAX_NOTIONAL
    return Refusal.NONE


@lean
def _answer(router: RouterArrays, rec: Any, exec_type: int, status: int, refusal: int) -> None:
    """Write the router's own answer to a command, as if it named an order of which nothing is known or filled."""
    o = router.reports_out[0]
    o.ts_ns, o.kind, o.symbol, o.flags = rec.ts_ns, Kind.REPORT, rec.symbol, 0
    o.order_id, o.venue_order_id, o.trade_id = rec.order_id, 0, 0
    o.exec_type, o.order_status, o.side, o.refusal = exec_type, status, rec.side, refusal
    o.purpose, o.maker, o.price_ticks = rec.purpose, 0, rec.price_ticks
    o.last_ticks, o.last_lots, o.cum_lots, o.leaves_lots, o.fee_e8 = 0, 0, 0, 0, 0
    o.decision_ticks, o.ts_exchange_ns, o.ts_sent_ns = rec.decision_ticks, rec.ts_ns, rec.ts_ns
    router.glob[0].n_reports = 1


@lean
def _send(router: RouterArrays, rec: Any) -> int:
    """Put a command onto the wire and book it. Returns 1, the records written."""
    budget.spend(router.glob, router.params, rec.ts_ns)
    copy_command(router.wire_out[0], rec)
    router.wire_out[0].refusal, router.wire_out[0].approved = 0, 1
    return 1


@lean
def _on_cancel(router: RouterArrays, rec: Any) -> int:
    g, o = router.glob[0], router.reports_out[0]
    slot = orders.find(router.glob, rec.target_order_id)
    if slot >= 0 and not orders.is_live(router.glob, slot):
        row = g.orders[slot]
        _answer(router, rec, ExecType.CANCEL_REJECT, row.status, Refusal.VENUE_UNKNOWN_ORDER)
        o.order_id, o.venue_order_id, o.cum_lots = row.order_id, row.venue_order_id, row.cum_lots
        o.price_ticks, o.side, o.purpose = row.price_ticks, row.side, row.purpose
        o.decision_ticks, o.ts_sent_ns = row.decision_ticks, row.ts_new_ns
        g.answered_count += 1
        return 0
    if slot >= 0:
        orders.step(router.glob, slot, orders.Event.CANCEL_SENT, 0, 0)
        g.orders[slot].seen &= ~(1 << ExecType.CANCEL_REJECT)  # its answer will be news
    # an order that the table does not know goes to the venue too: only the venue can say that it is not there
    g.cancel_count += 1
    return _send(router, rec)


@lean
def on_order(recs: Recs, i: int, router: RouterArrays) -> int:
    """Take an ORDER_RECORD (NEW, CANCEL). Returns records written to wire_out (0 or 1); answers: glob[0].n_reports (0 or 1).

    A repeated id is only counted: a REJECT under that id would speak of the order that lives under it.
    An order without approval is rejected with the refusal that it carries, NOT_POSITIVE if it carries none.
    """
    g, rec = router.glob[0], recs[i]
    g.n_reports = 0
    if rec.kind != Kind.NEW and rec.kind != Kind.CANCEL:
        return 0
    if rec.order_id <= g.last_order_id:
        g.duplicate_count += 1
        return 0
    g.last_order_id = rec.order_id
    if rec.kind == Kind.CANCEL:
        return _on_cancel(router, rec)
    if rec.approved != 1:
        g.unapproved_count += 1
        refusal = rec.refusal if rec.refusal > 0 else Refusal.NOT_POSITIVE.value
    elif rec.symbol < 0 or rec.symbol >= len(router.instruments) or (rec.side != Side.BUY and rec.side != Side.SELL):
        refusal = Refusal.NOT_POSITIVE
    else:
        refusal = _check(router, rec)
    if refusal == Refusal.NONE and not budget.has_budget(router.glob, router.params, rec.ts_ns):
        refusal = Refusal.MESSAGE_RATE
    if refusal == Refusal.NONE and orders.insert(router.glob, rec) < 0:
        refusal = Refusal.ORDER_TABLE_FULL
    if refusal != Refusal.NONE:
        g.refused_count += 1
        _answer(router, rec, ExecType.REJECT, OrderStatus.REJECTED, refusal)
        return 0
    g.new_count += 1
    return _send(router, rec)


@lean
def _pass_on(router: RouterArrays, rec: Any, exec_type: int) -> None:
    """Copy an execution report (all but cause, stamps and sequence)."""
    o = router.reports_out[0]
    o.ts_ns, o.kind, o.symbol, o.flags = rec.ts_ns, Kind.REPORT, rec.symbol, rec.flags
    o.order_id, o.venue_order_id, o.trade_id = rec.order_id, rec.venue_order_id, rec.trade_id
    o.exec_type, o.order_status, o.side, o.refusal = exec_type, rec.order_status, rec.side, rec.refusal
    o.purpose, o.maker, o.price_ticks = rec.purpose, rec.maker, rec.price_ticks
    o.last_ticks, o.last_lots, o.fee_e8 = rec.last_ticks, rec.last_lots, rec.fee_e8
    o.cum_lots, o.leaves_lots = rec.cum_lots, rec.leaves_lots
    o.decision_ticks, o.ts_exchange_ns, o.ts_sent_ns = rec.decision_ticks, rec.ts_exchange_ns, rec.ts_sent_ns


@lean
def on_execution(recs: Recs, i: int, router: RouterArrays) -> int:
    """Take the venue's REPORT_RECORD. Returns reports written (0: it was no news, 1)."""
    g, rec = router.glob[0], recs[i]
    s = rec.symbol
    if rec.kind != Kind.REPORT:
        return 0
    if s < 0 or s >= len(router.instruments):
        g.strange_count += 1
        return 0
    exec_type = rec.exec_type
    known_type = 0 < exec_type <= ExecType.EXPIRED
    if not known_type:
        g.strange_count += 1
        if rec.trade_id <= 0 or rec.last_lots <= 0:
            return 0
        exec_type = ExecType.FILL.value
    slot = orders.find(router.glob, rec.order_id)
    if slot >= 0 and g.orders[slot].symbol != s:
        slot = -1
    new_lots = 0
    if exec_type == ExecType.FILL:
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
        if exec_type != ExecType.FILL:
            return 0
        _pass_on(router, rec, exec_type)
        return 1
    row = g.orders[slot]
    is_live_type = exec_type == ExecType.FILL or exec_type == ExecType.ACK
    if rec.cum_lots < 0 or rec.cum_lots > row.qty_lots or rec.leaves_lots < 0:
        g.inconsistent_count += 1
    elif is_live_type and rec.cum_lots + rec.leaves_lots != row.qty_lots:
        g.inconsistent_count += 1
    seen_before = (row.seen >> exec_type) & 1
    status = orders.step(router.glob, slot, exec_type, new_lots, rec.cum_lots)
    row.venue_order_id = max(row.venue_order_id, rec.venue_order_id)
    if exec_type != ExecType.FILL and seen_before == 1:
        g.repeat_count += 1
        return 0
    _pass_on(router, rec, exec_type)
    o = router.reports_out[0]
    o.order_status, o.cum_lots = status, row.cum_lots
    o.leaves_lots = max(row.qty_lots - row.cum_lots, 0) if orders.is_live(router.glob, slot) else 0
    o.side, o.purpose, o.price_ticks = row.side, row.purpose, row.price_ticks
    o.decision_ticks, o.ts_sent_ns, o.venue_order_id = row.decision_ticks, row.ts_new_ns, row.venue_order_id
    return 1
