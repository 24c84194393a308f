"""The risk stage: turns signals and quotes into approved orders or refusals. The only writer of the orders ring."""

from __future__ import annotations

from functools import partial
from typing import Final

from procs import topology
from procs.fold.assembly import (
    Bound,
    LoopSettings,
    StateSpec,
    World,
    assemble,
    emit,
    in_recs,
    in_row,
    in_time,
    own,
    own_words,
    pass_end,
    scratch,
)
from procs.fold.block import DUE, ENDED, R_CAUSE_RING, R_CAUSE_SEQ, R_INTERNAL_DUE, R_NOW, in_loc, registers
from procs.fold.far_calls import apart
from procs.fold.loop import ended
from procs.fold.plan import Plan
from procs.fold.stamps import NO_FRAME
from procs.fold.warm import warm_stage
from ringbuf.jit import Words, kernel
from ringbuf.ring import I_HEAD
from trading.instruments import INSTRUMENT
from trading.records import (
    CONTROL_RECORD,
    MARKET_RECORD,
    ORDER_RECORD,
    QUOTE_RECORD,
    REPORT_RECORD,
    SIGNAL_RECORD,
    words,
)
from trading.risk import fold as risk
from trading.risk.fold import RISK_GLOBAL, RISK_PARAMS, RISK_STATE, RiskArrays

NAME: Final = "risk"
CONTROL, REPORTS, MARKET, SIGNALS, QUOTES = 0, 1, 2, 3, 4
assert topology.STAGE[NAME].inputs == ("control", "reports", "market", "signals", "quotes")
ORDERS, REFUSALS = 0, 1
assert [ring.name for ring in topology.outputs(NAME)][:2] == ["orders", "refusals"]
CONTROL_ID: Final = topology.RING["control"].ring_id
REPORTS_ID: Final = topology.RING["reports"].ring_id
MARKET_ID: Final = topology.RING["market"].ring_id
SIGNALS_ID: Final = topology.RING["signals"].ring_id
QUOTES_ID: Final = topology.RING["quotes"].ring_id
# the stage's own arrays
STATE, GLOB, PARAMS, INSTRUMENTS, INTENT, ORDERS_OUT, REFUSALS_OUT, CONTROL_IN = 0, 1, 2, 3, 4, 5, 6, 7
WIDTH: Final = words(ORDER_RECORD)
assert topology.RING["orders"].burst >= risk.MAX_ORDERS_OUT
assert topology.RING["refusals"].burst >= risk.MAX_REFUSALS_OUT


def state_spec(symbols: int) -> StateSpec:
    """What the stage keeps between records."""
    return (("state", RISK_STATE, symbols), ("glob", RISK_GLOBAL, 1))


def build(plan: Plan, world: World, loop: LoopSettings) -> Bound:
    """Bind the stage to its rings, with its state at the start."""
    bound = assemble(NAME, world, state_spec(plan.symbols), loop)
    state, glob = bound.state["state"], bound.state["glob"]
    params = risk.make_params(plan.strategy)
    risk.init(state, glob, params, plan.instruments)
    bound.give(*risk.RiskArrays(state, glob, params, plan.instruments, *risk.outputs()), scratch(CONTROL_RECORD, 1))
    return bound


@kernel
def _arrays(b: Words) -> RiskArrays:
    return RiskArrays(
        own(b, STATE, RISK_STATE),
        own(b, GLOB, RISK_GLOBAL),
        own(b, PARAMS, RISK_PARAMS),
        own(b, INSTRUMENTS, INSTRUMENT),
        own(b, INTENT, ORDER_RECORD),
        own(b, ORDERS_OUT, ORDER_RECORD),
        own(b, REFUSALS_OUT, ORDER_RECORD),
    )


@kernel
def _emit(b: Words, n: int, ring_id: int, head: int, origin: int, now: int) -> None:
    """Publish what the fold wrote, and note when it wants to be called next."""
    for k in range(n):
        emit(b, ORDERS, own_words(b, ORDERS_OUT, WIDTH), k, ring_id, head, origin, now)
    for k in range(own(b, GLOB, RISK_GLOBAL)[0].n_refusals):
        emit(b, REFUSALS, own_words(b, REFUSALS_OUT, WIDTH), k, ring_id, head, origin, now)
    registers(b)[R_INTERNAL_DUE] = own(b, GLOB, RISK_GLOBAL)[0].due_ns


@apart(CONTROL)
def _on_control(b: Words, now: int) -> None:
    """An operator's word takes effect at the time that the merge gave it; the log keeps that time."""
    recs, row = in_recs(b, CONTROL, CONTROL_RECORD), in_row(b, CONTROL)
    head = recs[row].seq - 1
    said = own(b, CONTROL_IN, CONTROL_RECORD)
    said[0] = recs[row]
    said[0].ts_ns = in_time(b, CONTROL)
    n = risk.on_control(said, 0, _arrays(b))
    if not ended(b, MARKET):
        _emit(b, n, CONTROL_ID, head, NO_FRAME, now)


@apart(REPORTS)
def _on_report(b: Words, now: int) -> None:
    recs, row = in_recs(b, REPORTS, REPORT_RECORD), in_row(b, REPORTS)
    head = recs[row].seq - 1
    n = risk.on_report(recs, row, _arrays(b))
    if not ended(b, MARKET):
        _emit(b, n, REPORTS_ID, head, NO_FRAME, now)  # the venue brought it about, not a frame


@apart(MARKET)
def _on_market(b: Words, now: int) -> None:
    recs, row = in_recs(b, MARKET, MARKET_RECORD), in_row(b, MARKET)
    head, origin = recs[row].seq - 1, recs[row].ts_origin_mono_ns
    n = risk.on_market(recs, row, _arrays(b))
    _emit(b, n, MARKET_ID, head, origin, now)


@apart(SIGNALS)
def _on_signal(b: Words, now: int) -> None:
    recs, row = in_recs(b, SIGNALS, SIGNAL_RECORD), in_row(b, SIGNALS)
    head, origin = recs[row].seq - 1, recs[row].ts_origin_mono_ns
    n = risk.on_signal(recs, row, _arrays(b))
    if not ended(b, MARKET):
        _emit(b, n, SIGNALS_ID, head, origin, now)


@apart(QUOTES)
def _on_quote(b: Words, now: int) -> None:
    recs, row = in_recs(b, QUOTES, QUOTE_RECORD), in_row(b, QUOTES)
    head, origin = recs[row].seq - 1, recs[row].ts_origin_mono_ns
    n = risk.on_quote(recs, row, _arrays(b))
    if not ended(b, MARKET):
        _emit(b, n, QUOTES_ID, head, origin, now)


@apart(DUE)
def _on_due(b: Words, now: int) -> None:
    """Time has come to something, with or without a record: its cause is the last record taken."""
    reg = registers(b)
    n = risk.on_due(reg[R_INTERNAL_DUE], _arrays(b))
    _emit(b, n, reg[R_CAUSE_RING], reg[R_CAUSE_SEQ], NO_FRAME, now)


@apart(ENDED)
def _on_end(b: Words, r: int) -> None:
    """With the market's END everything is closed; END the orders once nobody can ask for more."""
    if r == REPORTS:
        return
    if r == MARKET:
        now = registers(b)[R_NOW]
        n = risk.on_market_end(in_time(b, r), _arrays(b))
        _emit(b, n, MARKET_ID, in_loc(b, r)[I_HEAD], NO_FRAME, now)
    if ended(b, MARKET) and ended(b, SIGNALS) and ended(b, QUOTES):
        pass_end(b, ORDERS, r)
        pass_end(b, REFUSALS, r)


warm: Final = partial(warm_stage, NAME)
"""Compile or load this stage's kernels (the zygote calls it once)."""
