"""The router stage: the owner of order state at the venue, here towards the simulated exchange's wire.

Later issues put real venues behind the same two rings; the decisions are in trading.routing.
"""

from __future__ import annotations

from typing import NamedTuple

from procs import board, topology
from procs.config import Profile
from procs.fold import (
    R_DONE,
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
from ringbuf.intrinsics import store_release
from ringbuf.jit import Recs, Words, kernel
from ringbuf.ring import I_HEAD, Input, Output
from trading import routing
from trading.records import ORDER_RECORD, REPORT_RECORD, TS_END, Kind

NAME = "router"
EXECUTIONS, ORDERS = 0, 1
assert topology.STAGE[NAME].inputs == ("executions", "orders")
EXECUTIONS_ID = topology.RING["executions"].ring_id
ORDERS_ID = topology.RING["orders"].ring_id
END = int(Kind.END)
REPORTS_OUT = 1  # the output on which the router itself answers
assert [ring.name for ring in topology.outputs(NAME)][:2] == ["wire", "reports"]
TRANSIT_NS = 1
"""An order leaves the router this much after risk wrote it: nothing that the router answers can precede its cause."""
OUT_ROWS = topology.RING["reports"].burst


class Io(NamedTuple):
    fold: Fold
    executions: Input
    orders: Input
    wire: Output
    reports: Output
    glob: Recs
    params: Recs
    instruments: Recs
    wire_out: Recs
    wire_words: Words
    report_out: Recs
    report_words: Words


def state_spec(symbols: int) -> StateSpec:
    """What the stage keeps between records."""
    return (("glob", routing.ROUTE_GLOBAL, 1),)


def build(plan: Plan, world: World, loop: LoopSettings) -> Io:
    """Bind the stage to its rings, with its state at the start."""
    parts = assemble(NAME, world, state_spec(plan.symbols), loop, feedback="executions", reference=REPORTS_OUT, shifts={"orders": TRANSIT_NS})
    params = routing.make_params(plan.strategy, plan.instruments)
    routing.init(parts.state["glob"], params, plan.instruments)
    wire_out, wire_words = scratch(ORDER_RECORD, OUT_ROWS)
    report_out, report_words = scratch(REPORT_RECORD, OUT_ROWS)
    return Io(
        parts.fold,
        parts.inputs["executions"],
        parts.inputs["orders"],
        parts.outputs["wire"],
        parts.outputs["reports"],
        parts.state["glob"],
        params,
        plan.instruments,
        wire_out,
        wire_words,
        report_out,
        report_words,
    )


@kernel
def _on_order(io: Io, now: int) -> None:
    head = io.orders.loc[I_HEAD]
    row = head & (io.orders.words.shape[0] - 2)
    rec = io.orders.recs[row]
    if rec.kind == END:
        emit_end(io.wire, rec.ts_ns + TRANSIT_NS, ORDERS_ID, head)
        end_input(io.fold, ORDERS)
        return
    origin = rec.ts_origin_mono_ns
    note_latency(io.fold.board, rec.ts_publish_mono_ns, origin, now)
    n = routing.on_order(io.orders.recs, row, io.glob, io.params, io.instruments, io.wire_out, io.report_out)
    for k in range(n):
        io.wire_out[k].ts_ns = rec.ts_ns + TRANSIT_NS
        emit(io.wire, io.wire_words, k, ORDERS_ID, head, origin, now)
    for k in range(io.glob[0].n_reports):
        io.report_out[k].ts_ns = rec.ts_ns + TRANSIT_NS
        emit(io.reports, io.report_words, k, ORDERS_ID, head, origin, now)


@kernel
def _on_execution(io: Io, now: int) -> None:
    head = io.executions.loc[I_HEAD]
    row = head & (io.executions.words.shape[0] - 2)
    rec = io.executions.recs[row]
    if rec.kind == END:
        emit_end(io.reports, rec.ts_ns, EXECUTIONS_ID, head)
        end_input(io.fold, EXECUTIONS)
        return
    origin = rec.ts_origin_mono_ns
    note_latency(io.fold.board, rec.ts_publish_mono_ns, origin, now)
    n = routing.on_execution(io.executions.recs, row, io.glob, io.params, io.instruments, io.report_out)
    for k in range(n):
        emit(io.reports, io.report_words, k, EXECUTIONS_ID, head, origin, now)


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
            if ring == ORDERS:
                _on_order(io, now)
            else:
                _on_execution(io, now)
            taken(fold, ring)
        if ended(fold, ORDERS) and ended(fold, EXECUTIONS):
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
