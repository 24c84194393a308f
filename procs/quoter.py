"""The quoter stage: keeps two-sided target quotes for the symbols that make markets."""

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
from ringbuf.ring import I_HEAD, Input, Output
from trading import quoting
from trading.records import QUOTE_RECORD, TS_END, Kind

NAME = "quoter"
REPORTS, MARKET = 0, 1
assert topology.STAGE[NAME].inputs == ("reports", "market")
REPORTS_ID = topology.RING["reports"].ring_id
MARKET_ID = topology.RING["market"].ring_id
END = int(Kind.END)


class Io(NamedTuple):
    fold: Fold
    reports: Input
    market: Input
    quotes: Output
    state: Recs
    glob: Recs
    params: Recs
    instruments: Recs
    out: Recs
    out_words: Words


def state_spec(symbols: int) -> StateSpec:
    """What the stage keeps between records."""
    return (("state", quoting.QUOTE_STATE, symbols), ("glob", quoting.QUOTE_GLOBAL, 1))


def build(plan: Plan, world: World, loop: LoopSettings) -> Io:
    """Bind the stage to its rings, with its state at the start."""
    parts = assemble(NAME, world, state_spec(plan.symbols), loop, feedback="reports")
    params = quoting.make_params(plan.strategy, plan.instruments)
    quoting.init(parts.state["state"], parts.state["glob"], params, plan.instruments)
    out, out_words = scratch(QUOTE_RECORD, 1)
    return Io(
        parts.fold,
        parts.inputs["reports"],
        parts.inputs["market"],
        parts.outputs["quotes"],
        parts.state["state"],
        parts.state["glob"],
        params,
        plan.instruments,
        out,
        out_words,
    )


@kernel
def poll(io: Io) -> int:
    """Drain what is there; how many records were taken. After the market's END only reports are read, and nothing is said."""
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
                head = io.market.loc[I_HEAD]
                row = head & (io.market.words.shape[0] - 2)
                rec = io.market.recs[row]
                if rec.kind == END:
                    emit_end(io.quotes, rec.ts_ns, MARKET_ID, head)
                    end_input(fold, ring)
                else:
                    note_latency(fold.board, rec.ts_publish_mono_ns, rec.ts_origin_mono_ns, now)
                    n = quoting.on_market(io.market.recs, row, io.state, io.glob, io.params, io.instruments, io.out, 0)
                    if n > 0:
                        emit(io.quotes, io.out_words, 0, MARKET_ID, head, rec.ts_origin_mono_ns, now)
            else:
                head = io.reports.loc[I_HEAD]
                row = head & (io.reports.words.shape[0] - 2)
                report = io.reports.recs[row]
                if report.kind == END:
                    end_input(fold, ring)
                else:
                    note_latency(fold.board, report.ts_publish_mono_ns, report.ts_origin_mono_ns, now)
                    n = quoting.on_report(io.reports.recs, row, io.state, io.glob, io.params, io.instruments, io.out, 0)
                    if n > 0 and not ended(fold, MARKET):
                        emit(io.quotes, io.out_words, 0, REPORTS_ID, head, report.ts_origin_mono_ns, now)
            taken(fold, ring)
        if ended(fold, MARKET) and ended(fold, REPORTS):
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


def warm(profile: Profile) -> None:
    """Compile or load this stage's kernels (the zygote calls it once)."""
    warm_stage(NAME, profile)
