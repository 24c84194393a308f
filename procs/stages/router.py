"""The router stage: the owner of order state at the venue, here towards the simulated exchange's wire.

Later issues put real venues behind the same two rings; the decisions are in trading.orders.routing.
"""

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
from procs.fold.block import R_DONE, R_LOW, R_NOW, page, registers
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
from trading.orders import routing
from trading.orders.routing import ROUTE_GLOBAL, ROUTE_PARAMS, RouterArrays
from trading.records import ORDER_RECORD, REPORT_RECORD, TS_END, Kind, words

NAME: Final = "router"
EXECUTIONS, ORDERS = 0, 1
assert topology.STAGE[NAME].inputs == ("executions", "orders")
WIRE, REPORTS = 0, 1
assert [ring.name for ring in topology.outputs(NAME)][:2] == ["wire", "reports"]
EXECUTIONS_ID: Final = topology.RING["executions"].ring_id
ORDERS_ID: Final = topology.RING["orders"].ring_id
END: Final = int(Kind.END)
TRANSIT_NS: Final = 1
"""An order leaves the router this much after risk wrote it: nothing that the router answers can precede its cause."""
# the stage's own arrays
GLOB, PARAMS, INSTRUMENTS, WIRE_OUT, REPORTS_OUT = 0, 1, 2, 3, 4
WIRE_WIDTH: Final = words(ORDER_RECORD)
REPORT_WIDTH: Final = words(REPORT_RECORD)
POLL_RECORDS: Final = 1024
assert topology.RING["wire"].burst >= routing.MAX_WIRE_OUT
assert topology.RING["reports"].burst >= routing.MAX_REPORTS_OUT


def state_spec(symbols: int) -> StateSpec:
    """What the stage keeps between records."""
    return (("glob", ROUTE_GLOBAL, 1),)


def build(plan: Plan, world: World, loop: LoopSettings) -> Bound:
    """Bind the stage to its rings, with its state at the start."""
    bound = assemble(
        NAME, world, state_spec(plan.symbols), loop, feedback="executions", reference=REPORTS, shifts={"orders": TRANSIT_NS}
    )
    glob = bound.state["glob"]
    params = routing.make_params(plan.strategy, plan.instruments)
    routing.init(glob, params, plan.instruments)
    wire, reports = scratch(ORDER_RECORD, routing.MAX_WIRE_OUT), scratch(REPORT_RECORD, routing.MAX_REPORTS_OUT)
    bound.give(*RouterArrays(glob, params, plan.instruments, wire, reports))
    return bound


@kernel
def _arrays(b: Words) -> RouterArrays:
    return RouterArrays(
        own(b, GLOB, ROUTE_GLOBAL),
        own(b, PARAMS, ROUTE_PARAMS),
        own(b, INSTRUMENTS, INSTRUMENT),
        own(b, WIRE_OUT, ORDER_RECORD),
        own(b, REPORTS_OUT, REPORT_RECORD),
    )


@apart(0)
def _on_order(b: Words, now: int) -> None:
    recs, row = in_recs(b, ORDERS, ORDER_RECORD), in_row(b, ORDERS)
    head, origin, ts_ns = recs[row].seq - 1, recs[row].ts_origin_mono_ns, recs[row].ts_ns + TRANSIT_NS
    if recs[row].kind == END:
        emit_end(b, WIRE, ts_ns, ORDERS_ID, head)
        end_input(b, ORDERS)
        return
    note_latency(b, recs[row].ts_publish_mono_ns, origin, now)
    wire, reports, glob = own(b, WIRE_OUT, ORDER_RECORD), own(b, REPORTS_OUT, REPORT_RECORD), own(b, GLOB, ROUTE_GLOBAL)
    n = routing.on_order(recs, row, _arrays(b))
    for k in range(n):
        wire[k].ts_ns = ts_ns
        emit(b, WIRE, own_words(b, WIRE_OUT, WIRE_WIDTH), k, ORDERS_ID, head, origin, now)
    for k in range(glob[0].n_reports):
        reports[k].ts_ns = ts_ns
        emit(b, REPORTS, own_words(b, REPORTS_OUT, REPORT_WIDTH), k, ORDERS_ID, head, origin, now)


@apart(1)
def _on_execution(b: Words, now: int) -> None:
    recs, row = in_recs(b, EXECUTIONS, REPORT_RECORD), in_row(b, EXECUTIONS)
    head, origin = recs[row].seq - 1, recs[row].ts_origin_mono_ns
    if recs[row].kind == END:
        emit_end(b, REPORTS, recs[row].ts_ns, EXECUTIONS_ID, head)
        end_input(b, EXECUTIONS)
        return
    note_latency(b, recs[row].ts_publish_mono_ns, origin, now)
    n = routing.on_execution(recs, row, _arrays(b))
    for k in range(n):
        emit(b, REPORTS, own_words(b, REPORTS_OUT, REPORT_WIDTH), k, EXECUTIONS_ID, head, origin, now)


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
            if ring == ORDERS:
                _on_order(b, now)
            else:
                _on_execution(b, now)
            taken(b, ring)
        if ended(b, ORDERS) and ended(b, EXECUTIONS):
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
