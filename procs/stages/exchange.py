"""The simulated exchange as a process of its own: the world behind the router's wire. The model is in sim.exchange.fold."""

from __future__ import annotations

from functools import partial
from typing import Final

import numpy as np

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
    in_time,
    own,
    own_words,
    scratch,
)
from procs.fold.block import (
    A_LEAD,
    ENDED,
    MAX_INPUTS,
    OUT,
    OUT_STRIDE,
    R_BLOCKED,
    R_INTERNAL_DUE,
    R_NOW,
    WAITING,
    in_ctl,
    in_loc,
    out_ctl,
    out_loc,
    registers,
)
from procs.fold.far_calls import apart
from procs.fold.loop import ended
from procs.fold.plan import Plan
from procs.fold.stamps import NO_FRAME
from procs.fold.warm import warm_stage
from ringbuf.intrinsics import mono_ns
from ringbuf.jit import Words, kernel
from ringbuf.layout import RING_ID
from ringbuf.ring import I_HEAD, note_full, room
from sim.exchange import fold as exchange
from sim.exchange.state import EXCH_GLOBAL, EXCH_PARAMS, EXCH_STATE, OUT_ROWS, ExchangeArrays
from trading.instruments import INSTRUMENT
from trading.records import DEPTH_RECORD, MARKET_RECORD, ORDER_RECORD, REPORT_RECORD, TS_END, Kind, words

NAME: Final = "exchange"
DEPTH, MARKET, WIRE = 0, 1, 2
assert topology.STAGE[NAME].inputs == ("depth", "market", "wire")
EXECUTIONS: Final = 0
DEPTH_ID: Final = topology.RING["depth"].ring_id
MARKET_ID: Final = topology.RING["market"].ring_id
WIRE_ID: Final = topology.RING["wire"].ring_id
CANCEL: Final = int(Kind.CANCEL)
# the stage's own arrays
STATE, GLOB, PARAMS, INSTRUMENTS, SCRATCH, ASKED_OF = 0, 1, 2, 3, 4, 5
ASKED: Final = np.dtype([("order_id", "i8"), ("wire_seq", "i8"), ("origin_mono_ns", "i8")], align=True)
"""The wire record that last spoke of an order: the cause of what is reported when it arrives."""
ASKED_ROWS: Final = 1024  # by order id; more than can be under way
WIDTH: Final = words(REPORT_RECORD)
assert topology.RING["executions"].burst >= OUT_ROWS


def state_spec(symbols: int) -> StateSpec:
    """What the stage keeps between records."""
    return (("state", EXCH_STATE, symbols), ("glob", EXCH_GLOBAL, 1), ("asked", ASKED, ASKED_ROWS))


def build(plan: Plan, world: World, loop: LoopSettings) -> Bound:
    """Bind the stage to its rings, with its state at the start.

    An order's record is merged at its earliest possible arrival, and reports are promised no earlier than the least
    response latency: these two leads are what lets the loop through risk make progress in virtual time.
    """
    params = exchange.make_params(plan.exchange, plan.instruments)
    bound = assemble(
        NAME,
        world,
        state_spec(plan.symbols),
        loop,
        shifts={"wire": exchange.min_entry_ns(params)},
        lead_ns=exchange.min_response_ns(params),
    )
    state, glob = bound.state["state"], bound.state["glob"]
    exchange.init(state, glob, params, plan.instruments)
    out = scratch(REPORT_RECORD, OUT_ROWS)
    bound.give(*ExchangeArrays(state, glob, params, plan.instruments, out), bound.state["asked"])
    return bound


@kernel
def _arrays(b: Words) -> ExchangeArrays:
    return ExchangeArrays(
        own(b, STATE, EXCH_STATE),
        own(b, GLOB, EXCH_GLOBAL),
        own(b, PARAMS, EXCH_PARAMS),
        own(b, INSTRUMENTS, INSTRUMENT),
        own(b, SCRATCH, REPORT_RECORD),
    )


@kernel
def _emit(b: Words, n: int, ring_id: int, head: int, origin: int, now: int) -> None:
    for k in range(n):
        emit(b, EXECUTIONS, own_words(b, SCRATCH, WIDTH), k, ring_id, head, origin, now)


@apart(MAX_INPUTS)
def _advance(b: Words, ts_ns: int, eager: int) -> None:
    """Let every order in that has arrived by `ts_ns`; when `eager`, as far as there is room (a record brings room with it).

    Called before each record with the record's place in the merge, so that arrivals and records interleave by time alone,
    however early `poll` lets arrivals in while it waits.
    """
    reg = registers(b)
    if reg[R_INTERNAL_DUE] > ts_ns:
        return
    glob = own(b, GLOB, EXCH_GLOBAL)
    while True:
        if eager and room(out_ctl(b, EXECUTIONS), out_loc(b, EXECUTIONS), OUT_ROWS) < OUT_ROWS:
            reg[R_BLOCKED] |= 1 << EXECUTIONS
            note_full(out_ctl(b, EXECUTIONS))
            break
        if eager:
            reg[R_BLOCKED] &= ~(1 << EXECUTIONS)
        n = exchange.advance(ts_ns, _arrays(b))
        if n == 0:
            break
        now = mono_ns()
        out, asked = own(b, SCRATCH, REPORT_RECORD), own(b, ASKED_OF, ASKED)
        for k in range(n):
            row = out[k].order_id & (ASKED_ROWS - 1)
            if asked[row].order_id == out[k].order_id:
                cause, origin = asked[row].wire_seq, asked[row].origin_mono_ns
            else:
                cause, origin = -1, NO_FRAME
            emit(b, EXECUTIONS, own_words(b, SCRATCH, WIDTH), k, WIRE_ID, cause, origin, now)
    reg[R_INTERNAL_DUE] = exchange.next_due(glob)


@apart(DEPTH)
def _on_depth(b: Words, now: int) -> None:
    recs, row = in_recs(b, DEPTH, DEPTH_RECORD), in_row(b, DEPTH)
    head = recs[row].seq - 1
    _advance(b, recs[row].ts_ns, False)
    n = exchange.on_depth(recs, row, _arrays(b))
    _emit(b, n, DEPTH_ID, head, NO_FRAME, now)


@apart(MARKET)
def _on_market(b: Words, now: int) -> None:
    recs, row = in_recs(b, MARKET, MARKET_RECORD), in_row(b, MARKET)
    head, origin = recs[row].seq - 1, recs[row].ts_origin_mono_ns
    _advance(b, recs[row].ts_ns, False)
    n = exchange.on_market(recs, row, _arrays(b))
    _emit(b, n, MARKET_ID, head, origin, now)


@apart(WIRE)
def _on_wire(b: Words, now: int) -> None:
    recs, row = in_recs(b, WIRE, ORDER_RECORD), in_row(b, WIRE)
    head, origin = recs[row].seq - 1, recs[row].ts_origin_mono_ns
    _advance(b, in_time(b, WIRE), False)
    order_id = recs[row].target_order_id if recs[row].kind == CANCEL else recs[row].order_id
    asked = own(b, ASKED_OF, ASKED)[order_id & (ASKED_ROWS - 1)]
    asked.order_id, asked.wire_seq, asked.origin_mono_ns = order_id, head, origin
    glob = own(b, GLOB, EXCH_GLOBAL)
    n = exchange.on_order(recs, row, _arrays(b))
    _emit(b, n, WIRE_ID, head, origin, now)
    registers(b)[R_INTERNAL_DUE] = exchange.next_due(glob)


@apart(WAITING)
def _let_in(b: Words, low: int) -> None:
    """Nothing to take: the orders whose time has come arrive meanwhile."""
    _advance(b, low, True)


@apart(ENDED)
def _on_end(b: Words, r: int) -> None:
    ts_ns, ring_id, head, now = in_time(b, r), in_ctl(b, r)[RING_ID], in_loc(b, r)[I_HEAD], registers(b)[R_NOW]
    _advance(b, ts_ns, False)
    if not (ended(b, DEPTH) and ended(b, MARKET) and ended(b, WIRE)):
        return
    glob = own(b, GLOB, EXCH_GLOBAL)
    while True:
        n = exchange.finish(ts_ns, _arrays(b))
        if n == 0:
            break
        _emit(b, n, ring_id, head, NO_FRAME, now)
    last = glob[0].last_visible_ns
    emit_end(b, EXECUTIONS, max(last + 1, ts_ns + b[OUT + EXECUTIONS * OUT_STRIDE + A_LEAD]), ring_id, head)
    registers(b)[R_INTERNAL_DUE] = TS_END


warm: Final = partial(warm_stage, NAME)
"""Compile or load this stage's kernels (the zygote calls it once)."""
