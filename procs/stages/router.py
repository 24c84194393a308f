"""The router stage: the owner of order state at the venue, towards whichever stage plays the exchange.

The decisions are in trading.orders.routing.
"""

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
from procs.fold.block import ENDED
from procs.fold.far_calls import apart
from procs.fold.plan import Plan
from procs.fold.warm import warm_stage
from ringbuf.jit import Words, kernel
from trading.instruments import INSTRUMENT
from trading.orders import routing
from trading.orders.routing import ROUTE_GLOBAL, ROUTE_PARAMS, RouterArrays
from trading.records import ORDER_RECORD, REPORT_RECORD, words

NAME: Final = "router"
EXECUTIONS, ORDERS = 0, 1
assert topology.STAGE[NAME].inputs == ("executions", "orders")
WIRE, REPORTS = 0, 1
assert [ring.name for ring in topology.outputs(NAME)][:2] == ["wire", "reports"]
EXECUTIONS_ID: Final = topology.RING["executions"].ring_id
ORDERS_ID: Final = topology.RING["orders"].ring_id
TRANSIT_NS: Final = 1
"""An order leaves the router this much after risk wrote it: nothing that the router answers can precede its cause."""
# the stage's own arrays
GLOB, PARAMS, INSTRUMENTS, WIRE_OUT, REPORTS_OUT = 0, 1, 2, 3, 4
WIRE_WIDTH: Final = words(ORDER_RECORD)
REPORT_WIDTH: Final = words(REPORT_RECORD)
assert topology.RING["wire"].burst >= routing.MAX_WIRE_OUT
assert topology.RING["reports"].burst >= routing.MAX_REPORTS_OUT


def state_spec(symbols: int) -> StateSpec:
    """What the stage keeps between records."""
    return (("glob", ROUTE_GLOBAL, 1),)


def build(plan: Plan, world: World, loop: LoopSettings) -> Bound:
    """Bind the stage to its rings, with its state at the start."""
    bound = assemble(NAME, world, state_spec(plan.symbols), loop, shifts={"orders": TRANSIT_NS})
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


@apart(ORDERS)
def _on_order(b: Words, now: int) -> None:
    recs, row = in_recs(b, ORDERS, ORDER_RECORD), in_row(b, ORDERS)
    head, origin, ts_ns = recs[row].seq - 1, recs[row].ts_origin_mono_ns, recs[row].ts_ns + TRANSIT_NS
    wire, reports, glob = own(b, WIRE_OUT, ORDER_RECORD), own(b, REPORTS_OUT, REPORT_RECORD), own(b, GLOB, ROUTE_GLOBAL)
    n = routing.on_order(recs, row, _arrays(b))
    for k in range(n):
        wire[k].ts_ns = ts_ns
        emit(b, WIRE, own_words(b, WIRE_OUT, WIRE_WIDTH), k, ORDERS_ID, head, origin, now)
    for k in range(glob[0].n_reports):
        reports[k].ts_ns = ts_ns
        emit(b, REPORTS, own_words(b, REPORTS_OUT, REPORT_WIDTH), k, ORDERS_ID, head, origin, now)


@apart(EXECUTIONS)
def _on_execution(b: Words, now: int) -> None:
    recs, row = in_recs(b, EXECUTIONS, REPORT_RECORD), in_row(b, EXECUTIONS)
    head, origin = recs[row].seq - 1, recs[row].ts_origin_mono_ns
    reports, ts_ns = own(b, REPORTS_OUT, REPORT_RECORD), in_time(b, EXECUTIONS)
    n = routing.on_execution(recs, row, _arrays(b))
    for k in range(n):
        reports[k].ts_ns = ts_ns
        emit(b, REPORTS, own_words(b, REPORTS_OUT, REPORT_WIDTH), k, EXECUTIONS_ID, head, origin, now)


@apart(ENDED)
def _on_end(b: Words, r: int) -> None:
    pass_end(b, WIRE if r == ORDERS else REPORTS, r)


warm: Final = partial(warm_stage, NAME)
"""Compile or load this stage's kernels (the zygote calls it once)."""
