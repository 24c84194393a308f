"""The simulated exchange as a process of its own: the world behind the router's wire. The model is in sim.exchange."""

from __future__ import annotations

from typing import NamedTuple

from procs import board, topology
from procs.config import Profile
from procs.fold import (
    R_DONE,
    R_INTERNAL_DUE,
    R_LOW,
    R_NOW,
    Fold,
    conclude,
    end_input,
    ended,
    finished,
    flush_outputs,
    next_run,
    settle,
    taken,
)
from procs.plan import Plan
from procs.stage import LoopSettings, StateSpec, World, assemble, emit, emit_end, note_latency, scratch
from procs.warm import warm_stage
from ringbuf.intrinsics import mono_ns, store_release
from ringbuf.jit import Recs, Words, kernel
from ringbuf.ring import I_HEAD, I_SHIFT, Input, Output
from sim import exchange
from trading.records import REPORT_RECORD, TS_END, Kind

NAME = "exchange"
DEPTH, MARKET, WIRE = 0, 1, 2
assert topology.STAGE[NAME].inputs == ("depth", "market", "wire")
DEPTH_ID = topology.RING["depth"].ring_id
MARKET_ID = topology.RING["market"].ring_id
WIRE_ID = topology.RING["wire"].ring_id
END = int(Kind.END)
OUT_ROWS = topology.RING["executions"].burst


class Io(NamedTuple):
    fold: Fold
    depth: Input
    market: Input
    wire: Input
    executions: Output
    state: Recs
    glob: Recs
    params: Recs
    instruments: Recs
    out: Recs
    out_words: Words


def state_spec(symbols: int) -> StateSpec:
    """What the stage keeps between records."""
    return (("state", exchange.EXCH_STATE, symbols), ("glob", exchange.EXCH_GLOBAL, 1))


def build(plan: Plan, world: World, loop: LoopSettings) -> Io:
    """Bind the stage to its rings, with its state at the start.

    An order's record is merged at its earliest possible arrival, and reports are promised no earlier than the least
    response latency: these two leads are what lets the loop through risk make progress in virtual time.
    """
    params = exchange.make_params(plan.exchange, plan.instruments)
    parts = assemble(
        NAME,
        world,
        state_spec(plan.symbols),
        loop,
        shifts={"wire": exchange.min_entry_ns(params)},
        lead_ns=exchange.min_response_ns(params),
        reference=0,
    )
    exchange.init(parts.state["state"], parts.state["glob"], params, plan.instruments)
    out, out_words = scratch(REPORT_RECORD, OUT_ROWS)
    return Io(
        parts.fold,
        parts.inputs["depth"],
        parts.inputs["market"],
        parts.inputs["wire"],
        parts.outputs["executions"],
        parts.state["state"],
        parts.state["glob"],
        params,
        plan.instruments,
        out,
        out_words,
    )


@kernel
def _emit(io: Io, n: int, ring_id: int, head: int, origin: int, now: int) -> None:
    for k in range(n):
        emit(io.executions, io.out_words, k, ring_id, head, origin, now)


@kernel
def _advance(io: Io, ts_ns: int) -> int:
    """Let every order in that has arrived by `ts_ns`.

    Called before each record with the record's place in the merge, so that arrivals and records interleave by time alone,
    however early `poll` lets arrivals in while it waits.
    """
    n = exchange.advance(ts_ns, io.state, io.glob, io.params, io.instruments, io.out)
    if n > 0:
        now = mono_ns()
        _emit(io, n, WIRE_ID, 0, now, now)
    io.fold.reg[R_INTERNAL_DUE] = exchange.next_due(io.glob)
    return n


@kernel
def _close_session(io: Io, ts_ns: int, ring_id: int, head: int, now: int) -> None:
    fold = io.fold
    if not (ended(fold, DEPTH) and ended(fold, MARKET) and ended(fold, WIRE)):
        return
    while True:
        n = exchange.finish(ts_ns, io.state, io.glob, io.params, io.instruments, io.out)
        if n == 0:
            break
        _emit(io, n, ring_id, head, now, now)
    last = io.glob[0].last_visible_ns
    emit_end(io.executions, last + 1 if last >= ts_ns else ts_ns, ring_id, head)
    fold.reg[R_INTERNAL_DUE] = TS_END
    fold.reg[R_LOW] = TS_END
    fold.reg[R_DONE] = 1


@kernel
def _on_depth(io: Io, now: int) -> None:
    head = io.depth.loc[I_HEAD]
    row = head & (io.depth.words.shape[0] - 2)
    rec = io.depth.recs[row]
    if rec.kind == END:
        end_input(io.fold, DEPTH)
        _close_session(io, rec.ts_ns, DEPTH_ID, head, now)
        return
    _advance(io, rec.ts_ns)
    n = exchange.on_depth(io.depth.recs, row, io.state, io.glob, io.params, io.instruments, io.out)
    _emit(io, n, DEPTH_ID, head, now, now)


@kernel
def _on_market(io: Io, now: int) -> None:
    head = io.market.loc[I_HEAD]
    row = head & (io.market.words.shape[0] - 2)
    rec = io.market.recs[row]
    if rec.kind == END:
        end_input(io.fold, MARKET)
        _close_session(io, rec.ts_ns, MARKET_ID, head, now)
        return
    note_latency(io.fold.board, rec.ts_publish_mono_ns, rec.ts_origin_mono_ns, now)
    _advance(io, rec.ts_ns)
    n = exchange.on_market(io.market.recs, row, io.state, io.glob, io.params, io.instruments, io.out)
    _emit(io, n, MARKET_ID, head, rec.ts_origin_mono_ns, now)


@kernel
def _on_wire(io: Io, now: int) -> None:
    head = io.wire.loc[I_HEAD]
    row = head & (io.wire.words.shape[0] - 2)
    rec = io.wire.recs[row]
    if rec.kind == END:
        end_input(io.fold, WIRE)
        _close_session(io, rec.ts_ns, WIRE_ID, head, now)
        return
    note_latency(io.fold.board, rec.ts_publish_mono_ns, rec.ts_origin_mono_ns, now)
    _advance(io, rec.ts_ns + io.wire.loc[I_SHIFT])
    n = exchange.on_order(io.wire.recs, row, io.state, io.glob, io.params, io.instruments, io.out)
    _emit(io, n, WIRE_ID, head, rec.ts_origin_mono_ns, now)
    io.fold.reg[R_INTERNAL_DUE] = exchange.next_due(io.glob)


@kernel
def poll(io: Io) -> int:
    """Drain what is there, and let in the orders whose time has come; how many records were taken."""
    fold = io.fold
    work = 0
    while work < 1024:
        ring, count = next_run(fold)
        if count == 0:
            if fold.reg[R_INTERNAL_DUE] <= fold.reg[R_LOW] and fold.reg[R_DONE] == 0:
                _advance(io, fold.reg[R_LOW])
            flush_outputs(fold)
            break
        flush_outputs(fold)
        now = fold.reg[R_NOW]
        for _ in range(count):
            if ring == MARKET:
                _on_market(io, now)
            elif ring == DEPTH:
                _on_depth(io, now)
            else:
                _on_wire(io, now)
            taken(fold, ring)
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
