"""The risk stage: turns signals and quotes into approved orders or refusals. The only writer of the orders ring."""

from __future__ import annotations

from typing import Final

from procs import topology
from procs.fold.assembly import (
    Bound,
    LoopSettings,
    StateSpec,
    World,
    assemble,
    emit,
    emit_end,
    in_recs,
    in_row,
    note_latency,
    own,
    own_words,
    scratch,
)
from procs.fold.block import R_DONE, R_LOW, R_NOW, R_UNTIMED, page, registers
from procs.fold.far_calls import apart
from procs.fold.loop import conclude, end_input, ended, finished, settle, taken
from procs.fold.merge import flush_outputs, next_run
from procs.fold.plan import Plan
from procs.fold.warm import warm_stage
from procs.memory import board
from procs.profiles.schema import Profile
from ringbuf.intrinsics import store_release
from ringbuf.jit import Words, kernel
from trading.instruments import INSTRUMENT
from trading.records import (
    CONTROL_RECORD,
    MARKET_RECORD,
    ORDER_RECORD,
    QUOTE_RECORD,
    REPORT_RECORD,
    SIGNAL_RECORD,
    TS_END,
    Kind,
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
END: Final = int(Kind.END)
# the stage's own arrays
STATE, GLOB, PARAMS, INSTRUMENTS, INTENT, ORDERS_OUT, REFUSALS_OUT, CONTROL_IN = 0, 1, 2, 3, 4, 5, 6, 7
WIDTH: Final = words(ORDER_RECORD)
POLL_RECORDS: Final = 1024
assert topology.RING["orders"].burst >= risk.MAX_ORDERS_OUT
assert topology.RING["refusals"].burst >= risk.MAX_REFUSALS_OUT


def state_spec(symbols: int) -> StateSpec:
    """What the stage keeps between records."""
    return (("state", RISK_STATE, symbols), ("glob", RISK_GLOBAL, 1))


def build(plan: Plan, world: World, loop: LoopSettings) -> Bound:
    """Bind the stage to its rings, with its state at the start."""
    bound = assemble(NAME, world, state_spec(plan.symbols), loop, feedback="reports")
    state, glob = bound.state["state"], bound.state["glob"]
    params = risk.make_params(plan.strategy, plan.instruments)
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
    for k in range(n):
        emit(b, ORDERS, own_words(b, ORDERS_OUT, WIDTH), k, ring_id, head, origin, now)
    for k in range(own(b, GLOB, RISK_GLOBAL)[0].n_refusals):
        emit(b, REFUSALS, own_words(b, REFUSALS_OUT, WIDTH), k, ring_id, head, origin, now)


@kernel
def _close_session(b: Words, ts_ns: int, ring_id: int, head: int) -> None:
    """END the orders once nobody can ask for more."""
    if ended(b, MARKET) and ended(b, SIGNALS) and ended(b, QUOTES):
        emit_end(b, ORDERS, ts_ns, ring_id, head)
        emit_end(b, REFUSALS, ts_ns, ring_id, head)


@apart(0)
def _on_control(b: Words, now: int) -> None:
    """An operator's word takes effect at the time that the merge gave it; the log keeps that time."""
    recs, row = in_recs(b, CONTROL, CONTROL_RECORD), in_row(b, CONTROL)
    head = recs[row].seq - 1
    said = own(b, CONTROL_IN, CONTROL_RECORD)
    said[0] = recs[row]
    said[0].ts_ns = registers(b)[R_UNTIMED]
    n = risk.on_control(said, 0, _arrays(b))
    if not ended(b, MARKET):
        _emit(b, n, CONTROL_ID, head, now, now)


@apart(1)
def _on_report(b: Words, now: int) -> None:
    recs, row = in_recs(b, REPORTS, REPORT_RECORD), in_row(b, REPORTS)
    head, origin = recs[row].seq - 1, recs[row].ts_origin_mono_ns
    if recs[row].kind == END:
        end_input(b, REPORTS)
        return
    note_latency(b, recs[row].ts_publish_mono_ns, origin, now)
    n = risk.on_report(recs, row, _arrays(b))
    if not ended(b, MARKET):
        _emit(b, n, REPORTS_ID, head, origin, now)


@apart(2)
def _on_market(b: Words, now: int) -> None:
    recs, row = in_recs(b, MARKET, MARKET_RECORD), in_row(b, MARKET)
    head, origin = recs[row].seq - 1, recs[row].ts_origin_mono_ns
    if recs[row].kind == END:
        n = risk.on_market_end(recs[row].ts_ns, _arrays(b))
        _emit(b, n, MARKET_ID, head, now, now)
        end_input(b, MARKET)
        _close_session(b, recs[row].ts_ns, MARKET_ID, head)
        return
    note_latency(b, recs[row].ts_publish_mono_ns, origin, now)
    n = risk.on_market(recs, row, _arrays(b))
    _emit(b, n, MARKET_ID, head, origin, now)


@apart(3)
def _on_signal(b: Words, now: int) -> None:
    recs, row = in_recs(b, SIGNALS, SIGNAL_RECORD), in_row(b, SIGNALS)
    head, origin = recs[row].seq - 1, recs[row].ts_origin_mono_ns
    if recs[row].kind == END:
        end_input(b, SIGNALS)
        _close_session(b, recs[row].ts_ns, SIGNALS_ID, head)
        return
    note_latency(b, recs[row].ts_publish_mono_ns, origin, now)
    n = risk.on_signal(recs, row, _arrays(b))
    if not ended(b, MARKET):
        _emit(b, n, SIGNALS_ID, head, origin, now)


@apart(4)
def _on_quote(b: Words, now: int) -> None:
    recs, row = in_recs(b, QUOTES, QUOTE_RECORD), in_row(b, QUOTES)
    head, origin = recs[row].seq - 1, recs[row].ts_origin_mono_ns
    if recs[row].kind == END:
        end_input(b, QUOTES)
        _close_session(b, recs[row].ts_ns, QUOTES_ID, head)
        return
    note_latency(b, recs[row].ts_publish_mono_ns, origin, now)
    n = risk.on_quote(recs, row, _arrays(b))
    if not ended(b, MARKET):
        _emit(b, n, QUOTES_ID, head, origin, now)


@kernel
def poll(b: Words) -> int:
    """Drain what is there; how many records were taken."""
    work = 0
    while work < POLL_RECORDS:
        ring, count = next_run(b)
        flush_outputs(b)
        if count == 0:
            break
        now = registers(b)[R_NOW]
        for _ in range(count):
            if ring == MARKET:
                _on_market(b, now)
            elif ring == SIGNALS:
                _on_signal(b, now)
            elif ring == QUOTES:
                _on_quote(b, now)
            elif ring == REPORTS:
                _on_report(b, now)
            else:
                _on_control(b, now)
            taken(b, ring)
        if ended(b, MARKET) and ended(b, SIGNALS) and ended(b, QUOTES) and ended(b, REPORTS):
            registers(b)[R_LOW] = TS_END
            registers(b)[R_DONE] = 1
        work += count
    return work


@kernel
def run(b: Words) -> None:
    """The hot loop."""
    store_release(page(b), board.READY, 1)
    idle = 0
    while not finished(b):
        idle = settle(b, poll(b), idle)
    conclude(b)


def warm(profile: Profile) -> None:
    """Compile or load this stage's kernels (the zygote calls it once)."""
    warm_stage(NAME, profile)
