"""All decisions over market records in one compiled loop: no rings, no promises, nothing that waits.

The kernels are the pipeline's own, and so is the order in which they are called: by time, and at one time by the inputs of each
stage as they stand in the pipeline's table. At a time t:

    exchange    orders that arrive by t; the levels, then the market records of t
    router      executions of t; orders that risk wrote at t - 1 ns
    quoter      what falls due by t; reports of t; market records of t
    features    market records of t
    risk        what falls due by t; reports, market, signals, quotes of t (no operator speaks in a backtest)

Nothing of t waits for what comes later: an execution is seen a response latency after its cause, an order a nanosecond. Records
are handed in piece by piece (`Piece`), what comes of them stands in `Out` after each call. All that goes on from one call to the
next is in the arrays.

What this module is not: it decodes nothing (sim.backtest.pieces) and keeps nothing that a report is made of.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from sim.exchange import fold as exchange
from sim.exchange.state import OUT_ROWS, ExchangeArrays
from trading.jit import Recs, Words, lean
from trading.orders import routing
from trading.orders.routing import RouterArrays
from trading.quoting import targets as quoting
from trading.quoting.targets import QuoterArrays
from trading.records import (
    ORDER_RECORD,
    QUOTE_RECORD,
    REPORT_RECORD,
    SIGNAL_RECORD,
    TS_END,
)
from trading.risk import fold as risk
from trading.risk.fold import MAX_ORDERS_OUT, MAX_REFUSALS_OUT, RiskArrays
from trading.scoring import one_pass as features

TRANSIT_NS: Final = 1
"""An order leaves the router this much after risk wrote it, as in the pipeline."""
UNDER_WAY: Final = 1 << 14
"""Executions, and orders, that may be on their way at once."""
STEP_ROWS: Final = 4096
"""Rows that one time may add to each kind of `Out` (beyond it the loop stops with FULL and goes on when called again)."""

# words of `at`
FRAME, X_HEAD, X_TAIL, S_HEAD, S_TAIL, ENDED, ORDERS, WIRE, REPORTS, REFUSALS, QUOTES, SIGNALS, CLOSED = range(13)
MARKET_GONE, REPORTS_GONE, SIGNALS_GONE, QUOTES_GONE = range(13, 17)  # records before those of the piece, and of `Out`
Q_RING, Q_SEQ, R_RING, R_SEQ = range(17, 21)  # what quoter and risk took last: the cause of what they do
MARKET_ID, ORDERS_ID, EXECUTIONS_ID, REPORTS_ID, SIGNALS_ID, QUOTES_ID = range(21, 27)  # numbers of rings, for causes
AT_WORDS: Final = 32

MORE, FULL, DONE, LOST = range(4)
"""What `run` returns: go on with the next piece; empty `Out`, then call again; all is over; too much is under way."""


class Features(NamedTuple):
    """Of trading.scoring.one_pass."""

    state: Recs
    glob: Recs
    params: Recs
    instruments: Recs


class Piece(NamedTuple):
    """Market data of some frames. `ts`, `market_to`, `depth_to`: (frames,): its time, and the ends of its rows."""

    ts: Words
    market_to: Words
    depth_to: Words
    market: Recs
    depth: Recs


class Stages(NamedTuple):
    """The state, settings and scratch of all who decide, and of the exchange."""

    venue: ExchangeArrays
    router: RouterArrays
    quoter: QuoterArrays
    features: Features
    risk: RiskArrays
    executions: Recs  # REPORT_RECORD, (UNDER_WAY,): not seen yet
    sent: Recs  # ORDER_RECORD, (UNDER_WAY,): not with the router yet


class Out(NamedTuple):
    """Rows that came of it since `at` was set back; `signals` and `quotes` as wide as a piece may ask."""

    orders: Recs
    wire: Recs
    reports: Recs
    refusals: Recs
    quotes: Recs
    signals: Recs


def out_of(rows: int, signals: int) -> Out:
    """Room for so many rows of each, and signals, and of one time more."""
    orders = [np.zeros(rows + STEP_ROWS, ORDER_RECORD) for _ in range(3)]
    reports, quotes = np.zeros(rows + STEP_ROWS, REPORT_RECORD), np.zeros(rows + STEP_ROWS, QUOTE_RECORD)
    return Out(orders[0], orders[1], reports, orders[2], quotes, np.zeros(signals + STEP_ROWS, SIGNAL_RECORD))


def under_way() -> tuple[Recs, Recs]:
    """(executions, sent) of Stages, with nothing in them."""
    return np.zeros(UNDER_WAY, REPORT_RECORD), np.zeros(UNDER_WAY, ORDER_RECORD)


@lean
def _from_venue(s: Stages, at: Words, n: int) -> None:
    """Executions that the exchange has written are on their way to us."""
    for k in range(n):
        s.executions[at[X_TAIL] & (UNDER_WAY - 1)] = s.venue.out[k]
        at[X_TAIL] += 1


@lean
def _take_orders(s: Stages, at: Words, out: Out, n: int) -> None:
    """Orders that risk has written go to the router, refusals nowhere."""
    for k in range(n):
        order = s.risk.orders_out[k]
        order.cause_ring, order.cause_seq = at[R_RING], at[R_SEQ]
        s.sent[at[S_TAIL] & (UNDER_WAY - 1)] = order
        at[S_TAIL] += 1
        out.orders[at[ORDERS]] = order
        at[ORDERS] += 1
    for k in range(s.risk.glob[0].n_refusals):
        refusal = s.risk.refusals_out[k]
        refusal.cause_ring, refusal.cause_seq = at[R_RING], at[R_SEQ]
        out.refusals[at[REFUSALS]] = refusal
        at[REFUSALS] += 1


@lean
def _risk_due(s: Stages, at: Words, out: Out, ts_ns: int) -> None:
    """What falls due by a time is done before the next record of that time."""
    while s.risk.glob[0].due_ns <= ts_ns:
        _take_orders(s, at, out, risk.on_due(s.risk.glob[0].due_ns, s.risk))


@lean
def _from_risk(s: Stages, at: Words, out: Out, n: int, ts_ns: int) -> None:
    """Risk has taken a record of that time and written so many orders."""
    _take_orders(s, at, out, n)
    _risk_due(s, at, out, ts_ns)


@lean
def _report(s: Stages, at: Words, out: Out, ts_ns: int, n: int, ring: int, sequence: int) -> None:
    for k in range(n):
        report = s.router.reports_out[k]
        report.ts_ns, report.cause_ring, report.cause_seq = ts_ns, ring, sequence
        out.reports[at[REPORTS]] = report
        at[REPORTS] += 1


@lean
def _route(s: Stages, at: Words, out: Out, ts_ns: int) -> None:
    """The router's turn at a time: executions, then orders."""
    while at[X_HEAD] < at[X_TAIL] and s.executions[at[X_HEAD] & (UNDER_WAY - 1)].ts_ns <= ts_ns:
        n = routing.on_execution(s.executions, at[X_HEAD] & (UNDER_WAY - 1), s.router)
        _report(s, at, out, ts_ns, n, at[EXECUTIONS_ID], at[X_HEAD])
        at[X_HEAD] += 1
    while at[S_HEAD] < at[S_TAIL] and s.sent[at[S_HEAD] & (UNDER_WAY - 1)].ts_ns + TRANSIT_NS <= ts_ns:
        n = routing.on_order(s.sent, at[S_HEAD] & (UNDER_WAY - 1), s.router)
        _report(s, at, out, ts_ns, s.router.glob[0].n_reports, at[ORDERS_ID], at[S_HEAD])
        for k in range(n):
            wire = s.router.wire_out[k]
            wire.ts_ns, wire.cause_ring, wire.cause_seq = ts_ns, at[ORDERS_ID], at[S_HEAD]
            out.wire[at[WIRE]] = wire
            at[WIRE] += 1
            _from_venue(s, at, exchange.on_order(s.router.wire_out, k, s.venue))
        at[S_HEAD] += 1


@lean
def _quote(s: Stages, at: Words, out: Out, n: int) -> None:
    if n > 0:
        quote = s.quoter.out[0]
        quote.cause_ring, quote.cause_seq = at[Q_RING], at[Q_SEQ]
        out.quotes[at[QUOTES]] = quote
        at[QUOTES] += 1


@lean
def _quoter_due(s: Stages, at: Words, out: Out, ts_ns: int) -> None:
    while s.quoter.glob[0].due_ns <= ts_ns:
        _quote(s, at, out, quoting.on_due(s.quoter.glob[0].due_ns, s.quoter))


@lean
def _arrivals(s: Stages, at: Words, ts_ns: int) -> None:
    """Orders that reach the venue by a time."""
    if exchange.next_due(s.venue.glob) <= ts_ns:
        n = exchange.advance(ts_ns, s.venue)
        while n > 0:
            _from_venue(s, at, n)
            n = exchange.advance(ts_ns, s.venue)


@lean
def _next_time(s: Stages, at: Words, market_ns: int) -> int:
    """The earliest time at which anything happens."""
    t = market_ns
    if at[X_HEAD] < at[X_TAIL]:
        t = min(t, s.executions[at[X_HEAD] & (UNDER_WAY - 1)].ts_ns)
    if at[S_HEAD] < at[S_TAIL]:
        t = min(t, s.sent[at[S_HEAD] & (UNDER_WAY - 1)].ts_ns + TRANSIT_NS)
    if at[ENDED] == 0:
        t = min(t, min(s.quoter.glob[0].due_ns, s.risk.glob[0].due_ns))
    # before the orders under way have arrived nobody knows what they brought about
    return min(t, exchange.next_due(s.venue.glob))


@lean
def _decide(s: Stages, at: Words, out: Out, piece: Piece, ts_ns: int, a: int, b: int, reports: int) -> None:
    """Quoter, features and risk at a time: reports from row `reports` on, market records a to b of the piece."""
    quotes = at[QUOTES]
    _quoter_due(s, at, out, ts_ns)
    for k in range(reports, at[REPORTS]):
        at[Q_RING], at[Q_SEQ] = at[REPORTS_ID], at[REPORTS_GONE] + k
        _quote(s, at, out, quoting.on_report(out.reports, k, s.quoter))
        _quoter_due(s, at, out, ts_ns)
    for k in range(a, b):
        at[Q_RING], at[Q_SEQ] = at[MARKET_ID], at[MARKET_GONE] + k
        _quote(s, at, out, quoting.on_market(piece.market, k, s.quoter))
        _quoter_due(s, at, out, ts_ns)
    signals = at[SIGNALS]
    f = s.features
    for k in range(a, b):
        if features.on_market(piece.market, k, f.state, f.glob, f.params, f.instruments, out.signals, at[SIGNALS]) == 1:
            signal = out.signals[at[SIGNALS]]
            signal.cause_ring, signal.cause_seq = at[MARKET_ID], at[MARKET_GONE] + k
            at[SIGNALS] += 1
    _risk_due(s, at, out, ts_ns)
    for k in range(reports, at[REPORTS]):
        at[R_RING], at[R_SEQ] = at[REPORTS_ID], at[REPORTS_GONE] + k
        _from_risk(s, at, out, risk.on_report(out.reports, k, s.risk), ts_ns)
    for k in range(a, b):
        at[R_RING], at[R_SEQ] = at[MARKET_ID], at[MARKET_GONE] + k
        _from_risk(s, at, out, risk.on_market(piece.market, k, s.risk), ts_ns)
    for k in range(signals, at[SIGNALS]):
        at[R_RING], at[R_SEQ] = at[SIGNALS_ID], at[SIGNALS_GONE] + k
        _from_risk(s, at, out, risk.on_signal(out.signals, k, s.risk), ts_ns)
    for k in range(quotes, at[QUOTES]):
        at[R_RING], at[R_SEQ] = at[QUOTES_ID], at[QUOTES_GONE] + k
        _from_risk(s, at, out, risk.on_quote(out.quotes, k, s.risk), ts_ns)


@lean
def _is_full(at: Words, out: Out) -> bool:
    """Whether one time more might not fit."""
    return bool(
        at[ORDERS] > len(out.orders) - STEP_ROWS
        or at[WIRE] > len(out.wire) - STEP_ROWS
        or at[REPORTS] > len(out.reports) - STEP_ROWS
        or at[REFUSALS] > len(out.refusals) - STEP_ROWS
        or at[QUOTES] > len(out.quotes) - STEP_ROWS
        or at[SIGNALS] > len(out.signals) - STEP_ROWS
    )


@lean
def _is_lost(at: Words) -> bool:
    """Whether one time more might overrun what is under way."""
    crowd = max(at[X_TAIL] - at[X_HEAD], at[S_TAIL] - at[S_HEAD])
    return bool(crowd > UNDER_WAY - OUT_ROWS - MAX_ORDERS_OUT)


@lean
def _only_listen(s: Stages, at: Words, out: Out, ts_ns: int) -> None:
    """The router's turn after the session's end: reports count, nobody asks for anything."""
    reports = at[REPORTS]
    _route(s, at, out, ts_ns)
    for k in range(reports, at[REPORTS]):
        quoting.on_report(out.reports, k, s.quoter)
        risk.on_report(out.reports, k, s.risk)


@lean
def _end(s: Stages, at: Words, piece: Piece, out: Out, end_ns: int, min_entry_ns: int) -> int:
    """The market has ended, see `run`."""
    while True:
        if _is_full(at, out):
            return FULL
        if _is_lost(at):
            return LOST
        if at[ENDED] == 0:
            t = _next_time(s, at, end_ns)
            _arrivals(s, at, t)
            reports = at[REPORTS]
            _route(s, at, out, t)
            if t < end_ns:
                _decide(s, at, out, piece, t, 0, 0, reports)
                continue
            _quoter_due(s, at, out, t)
            for k in range(reports, at[REPORTS]):
                _quote(s, at, out, quoting.on_report(out.reports, k, s.quoter))
                _quoter_due(s, at, out, t)
            _risk_due(s, at, out, t)
            for k in range(reports, at[REPORTS]):
                at[R_RING], at[R_SEQ] = at[REPORTS_ID], at[REPORTS_GONE] + k
                _from_risk(s, at, out, risk.on_report(out.reports, k, s.risk), t)
            at[R_RING], at[R_SEQ] = at[MARKET_ID], at[MARKET_GONE]
            _take_orders(s, at, out, risk.on_market_end(t, s.risk))
            at[ENDED] = 1
        elif at[CLOSED] == 0:
            closing = end_ns + TRANSIT_NS + min_entry_ns
            t = min(_next_time(s, at, closing), closing)
            _arrivals(s, at, t)
            _only_listen(s, at, out, t)
            if t == closing:
                at[CLOSED] = 1
        else:
            n = exchange.finish(end_ns + TRANSIT_NS + min_entry_ns, s.venue)
            _from_venue(s, at, n)
            while at[X_HEAD] < at[X_TAIL] and not _is_full(at, out):
                _only_listen(s, at, out, s.executions[at[X_HEAD] & (UNDER_WAY - 1)].ts_ns)
            if n == 0 and at[X_HEAD] == at[X_TAIL]:
                return DONE


@lean
def run(s: Stages, at: Words, piece: Piece, out: Out, end_ns: int, min_entry_ns: int) -> int:
    """Go through a piece, from frame `at[FRAME]` on. Returns MORE, FULL or LOST.

    `end_ns` above 0: the market ends then, after the piece. All is cancelled, what is under way comes to its end, the exchange
    closes when the last order can have reached it (`min_entry_ns`: the least time that it takes). Returns DONE, FULL or LOST.
    """
    frames = len(piece.ts)
    while at[FRAME] < frames:
        if _is_full(at, out):
            return FULL
        if _is_lost(at):
            return LOST
        k = at[FRAME]
        t = _next_time(s, at, piece.ts[k])
        _arrivals(s, at, t)
        reports = at[REPORTS]
        a = b = 0
        if piece.ts[k] == t:
            at[FRAME] += 1
            for d in range(piece.depth_to[k - 1] if k > 0 else 0, piece.depth_to[k]):
                _from_venue(s, at, exchange.on_depth(piece.depth, d, s.venue))
            a, b = piece.market_to[k - 1] if k > 0 else 0, piece.market_to[k]
            for m in range(a, b):
                _from_venue(s, at, exchange.on_market(piece.market, m, s.venue))
        _route(s, at, out, t)
        _decide(s, at, out, piece, t, a, b, reports)
    if end_ns > 0:
        return _end(s, at, piece, out, end_ns, min_entry_ns)
    at[MARKET_GONE] += piece.market_to[frames - 1] if frames > 0 else 0
    return MORE


assert MAX_ORDERS_OUT + MAX_REFUSALS_OUT < STEP_ROWS and OUT_ROWS < STEP_ROWS
assert TS_END > 0
