"""The risk stage: turns signals and quotes into approved orders or refusals. The only writer of the orders ring."""

from __future__ import annotations

from typing import NamedTuple

from procs import board, topology
from procs.config import Profile
from procs.fold import R_DONE, R_LOW, R_NOW, Fold, conclude, end_input, ended, finished, flush_outputs, next_run, settle, taken
from procs.plan import Plan
from procs.stage import LoopSettings, StateSpec, World, assemble, emit, emit_end, note_latency, scratch
from procs.warm import warm_stage
from ringbuf.intrinsics import store_release
from ringbuf.jit import Recs, Words, kernel
from ringbuf.ring import I_HEAD, O_TAIL, Input, Output
from trading import risk
from trading.records import ORDER_RECORD, TS_END, Kind

NAME = "risk"
CONTROL, REPORTS, MARKET, SIGNALS, QUOTES = 0, 1, 2, 3, 4
assert topology.STAGE[NAME].inputs == ("control", "reports", "market", "signals", "quotes")
CONTROL_ID = topology.RING["control"].ring_id
REPORTS_ID = topology.RING["reports"].ring_id
MARKET_ID = topology.RING["market"].ring_id
SIGNALS_ID = topology.RING["signals"].ring_id
QUOTES_ID = topology.RING["quotes"].ring_id
END = int(Kind.END)
assert topology.RING["orders"].burst >= risk.MAX_ORDERS_OUT
assert topology.RING["refusals"].burst >= risk.MAX_REFUSALS_OUT


class Io(NamedTuple):
    fold: Fold
    control: Input
    reports: Input
    market: Input
    signals: Input
    quotes: Input
    orders: Output
    refusals: Output
    state: Recs
    glob: Recs
    params: Recs
    instruments: Recs
    orders_out: Recs
    orders_words: Words
    refusals_out: Recs
    refusals_words: Words


def state_spec(symbols: int) -> StateSpec:
    """What the stage keeps between records."""
    return (("state", risk.RISK_STATE, symbols), ("glob", risk.RISK_GLOBAL, 1))


def build(plan: Plan, world: World, loop: LoopSettings) -> Io:
    """Bind the stage to its rings, with its state at the start."""
    parts = assemble(NAME, world, state_spec(plan.symbols), loop, feedback="reports")
    params = risk.make_params(plan.strategy, plan.instruments)
    risk.init(parts.state["state"], parts.state["glob"], params, plan.instruments)
    orders_out, orders_words = scratch(ORDER_RECORD, risk.MAX_ORDERS_OUT)
    refusals_out, refusals_words = scratch(ORDER_RECORD, risk.MAX_REFUSALS_OUT)
    return Io(
        parts.fold,
        parts.inputs["control"],
        parts.inputs["reports"],
        parts.inputs["market"],
        parts.inputs["signals"],
        parts.inputs["quotes"],
        parts.outputs["orders"],
        parts.outputs["refusals"],
        parts.state["state"],
        parts.state["glob"],
        params,
        plan.instruments,
        orders_out,
        orders_words,
        refusals_out,
        refusals_words,
    )


@kernel
def _emit(io: Io, n: int, ring_id: int, head: int, origin: int, now: int) -> None:
    for k in range(n):
        emit(io.orders, io.orders_words, k, ring_id, head, origin, now)
    for k in range(io.glob[0].n_refusals):
        emit(io.refusals, io.refusals_words, k, ring_id, head, origin, now)


@kernel
def _close_session(io: Io, ts_ns: int, ring_id: int, head: int, now: int) -> None:
    """Cancel what is open and END the orders, once nobody can ask for more."""
    fold = io.fold
    if not (ended(fold, MARKET) and ended(fold, SIGNALS) and ended(fold, QUOTES)):
        return
    emit_end(io.orders, ts_ns, ring_id, head)
    emit_end(io.refusals, ts_ns, ring_id, head)


@kernel
def _on_control(io: Io, now: int) -> None:
    head = io.control.loc[I_HEAD]
    row = head & (io.control.words.shape[0] - 2)
    n = risk.on_control(io.control.recs, row, io.state, io.glob, io.params, io.instruments, io.orders_out, io.refusals_out)
    if not ended(io.fold, MARKET):
        _emit(io, n, CONTROL_ID, head, now, now)


@kernel
def _on_report(io: Io, now: int) -> None:
    head = io.reports.loc[I_HEAD]
    row = head & (io.reports.words.shape[0] - 2)
    rec = io.reports.recs[row]
    if rec.kind == END:
        end_input(io.fold, REPORTS)
        return
    note_latency(io.fold.board, rec.ts_publish_mono_ns, rec.ts_origin_mono_ns, now)
    n = risk.on_report(io.reports.recs, row, io.state, io.glob, io.params, io.instruments, io.orders_out, io.refusals_out)
    if not ended(io.fold, MARKET):
        _emit(io, n, REPORTS_ID, head, rec.ts_origin_mono_ns, now)


@kernel
def _on_market(io: Io, now: int) -> None:
    head = io.market.loc[I_HEAD]
    row = head & (io.market.words.shape[0] - 2)
    rec = io.market.recs[row]
    if rec.kind == END:
        n = risk.on_market_end(rec.ts_ns, io.state, io.glob, io.params, io.instruments, io.orders_out, io.refusals_out)
        _emit(io, n, MARKET_ID, head, now, now)
        end_input(io.fold, MARKET)
        _close_session(io, rec.ts_ns, MARKET_ID, head, now)
        return
    note_latency(io.fold.board, rec.ts_publish_mono_ns, rec.ts_origin_mono_ns, now)
    n = risk.on_market(io.market.recs, row, io.state, io.glob, io.params, io.instruments, io.orders_out, io.refusals_out)
    _emit(io, n, MARKET_ID, head, rec.ts_origin_mono_ns, now)


@kernel
def _on_signal(io: Io, now: int) -> None:
    head = io.signals.loc[I_HEAD]
    row = head & (io.signals.words.shape[0] - 2)
    rec = io.signals.recs[row]
    if rec.kind == END:
        end_input(io.fold, SIGNALS)
        _close_session(io, rec.ts_ns, SIGNALS_ID, head, now)
        return
    note_latency(io.fold.board, rec.ts_publish_mono_ns, rec.ts_origin_mono_ns, now)
    n = risk.on_signal(io.signals.recs, row, io.state, io.glob, io.params, io.instruments, io.orders_out, io.refusals_out)
    if not ended(io.fold, MARKET):
        _emit(io, n, SIGNALS_ID, head, rec.ts_origin_mono_ns, now)


@kernel
def _on_quote(io: Io, now: int) -> None:
    head = io.quotes.loc[I_HEAD]
    row = head & (io.quotes.words.shape[0] - 2)
    rec = io.quotes.recs[row]
    if rec.kind == END:
        end_input(io.fold, QUOTES)
        _close_session(io, rec.ts_ns, QUOTES_ID, head, now)
        return
    note_latency(io.fold.board, rec.ts_publish_mono_ns, rec.ts_origin_mono_ns, now)
    n = risk.on_quote(io.quotes.recs, row, io.state, io.glob, io.params, io.instruments, io.orders_out, io.refusals_out)
    if not ended(io.fold, MARKET):
        _emit(io, n, QUOTES_ID, head, rec.ts_origin_mono_ns, now)


@kernel
def poll(io: Io) -> int:
    """Drain what is there; how many records were taken."""
    fold = io.fold
    work = 0
    while work < 1024:
        ring, count = next_run(fold)
        flush_outputs(fold)
        if count == 0:
            break
        now = fold.reg[R_NOW]
        for _ in range(count):
            if ring == MARKET:
                _on_market(io, now)
            elif ring == SIGNALS:
                _on_signal(io, now)
            elif ring == QUOTES:
                _on_quote(io, now)
            elif ring == REPORTS:
                _on_report(io, now)
            else:
                _on_control(io, now)
            taken(fold, ring)
        if ended(fold, MARKET) and ended(fold, SIGNALS) and ended(fold, QUOTES) and ended(fold, REPORTS):
            fold.reg[R_LOW] = TS_END
            fold.reg[R_DONE] = 1
        work += count
    return work


@kernel
def run(io: Io) -> None:
    """The hot loop."""
    store_release(io.fold.board, board.READY, 1)
    idle = 0
    while not finished(io.fold):
        idle = settle(io.fold, poll(io), idle)
    conclude(io.fold)


assert O_TAIL == 0


def warm(profile: Profile) -> None:
    """Compile or load this stage's kernels (the zygote calls it once)."""
    warm_stage(NAME, profile)
