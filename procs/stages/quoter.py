"""The quoter stage: keeps two-sided target quotes for the symbols that make markets."""

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
from trading.quoting import skewed as quoting
from trading.quoting.skewed import QUOTE_GLOBAL, QUOTE_PARAMS, QUOTE_STATE, QuoterArrays
from trading.records import MARKET_RECORD, QUOTE_RECORD, REPORT_RECORD, TS_END, Kind, words

NAME: Final = "quoter"
REPORTS, MARKET = 0, 1
assert topology.STAGE[NAME].inputs == ("reports", "market")
QUOTES: Final = 0
REPORTS_ID: Final = topology.RING["reports"].ring_id
MARKET_ID: Final = topology.RING["market"].ring_id
END: Final = int(Kind.END)
# the stage's own arrays
STATE, GLOB, PARAMS, INSTRUMENTS, SCRATCH = 0, 1, 2, 3, 4
WIDTH: Final = words(QUOTE_RECORD)
POLL_RECORDS: Final = 1024


def state_spec(symbols: int) -> StateSpec:
    """What the stage keeps between records."""
    return (("state", QUOTE_STATE, symbols), ("glob", QUOTE_GLOBAL, 1))


def build(plan: Plan, world: World, loop: LoopSettings) -> Bound:
    """Bind the stage to its rings, with its state at the start."""
    bound = assemble(NAME, world, state_spec(plan.symbols), loop, feedback="reports")
    state, glob = bound.state["state"], bound.state["glob"]
    params = quoting.make_params(plan.strategy, plan.instruments)
    quoting.init(state, glob, params, plan.instruments)
    bound.give(*QuoterArrays(state, glob, params, plan.instruments, scratch(QUOTE_RECORD, 1)))
    return bound


@kernel
def _arrays(b: Words) -> QuoterArrays:
    return QuoterArrays(
        own(b, STATE, QUOTE_STATE),
        own(b, GLOB, QUOTE_GLOBAL),
        own(b, PARAMS, QUOTE_PARAMS),
        own(b, INSTRUMENTS, INSTRUMENT),
        own(b, SCRATCH, QUOTE_RECORD),
    )


@apart(0)
def _on_market(b: Words, now: int) -> None:
    recs, row = in_recs(b, MARKET, MARKET_RECORD), in_row(b, MARKET)
    head, origin = recs[row].seq - 1, recs[row].ts_origin_mono_ns
    if recs[row].kind == END:
        emit_end(b, QUOTES, recs[row].ts_ns, MARKET_ID, head)
        end_input(b, MARKET)
        return
    note_latency(b, recs[row].ts_publish_mono_ns, origin, now)
    n = quoting.on_market(recs, row, _arrays(b))
    if n > 0:
        emit(b, QUOTES, own_words(b, SCRATCH, WIDTH), 0, MARKET_ID, head, origin, now)


@apart(1)
def _on_report(b: Words, now: int) -> None:
    """After the market's END the quoter only listens."""
    recs, row = in_recs(b, REPORTS, REPORT_RECORD), in_row(b, REPORTS)
    head, origin = recs[row].seq - 1, recs[row].ts_origin_mono_ns
    if recs[row].kind == END:
        end_input(b, REPORTS)
        return
    note_latency(b, recs[row].ts_publish_mono_ns, origin, now)
    n = quoting.on_report(recs, row, _arrays(b))
    if n > 0 and not ended(b, MARKET):
        emit(b, QUOTES, own_words(b, SCRATCH, WIDTH), 0, REPORTS_ID, head, origin, now)


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
            else:
                _on_report(b, now)
            taken(b, ring)
        if ended(b, MARKET) and ended(b, REPORTS):
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
