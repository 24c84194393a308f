"""The quoter stage: keeps two-sided target quotes for the symbols that make markets."""

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
    own,
    own_words,
    pass_end,
    scratch,
)
from procs.fold.block import DUE, ENDED, R_CAUSE_RING, R_CAUSE_SEQ, R_INTERNAL_DUE, registers
from procs.fold.far_calls import apart
from procs.fold.loop import ended
from procs.fold.plan import Plan
from procs.fold.stamps import NO_FRAME
from procs.fold.warm import warm_stage
from procs.learning import install
from ringbuf.jit import Words, kernel
from trading.instruments import INSTRUMENT
from trading.quoting import targets as quoting
from trading.quoting.targets import QUOTE_FIGURES, QUOTE_GLOBAL, QUOTE_PARAMS, QUOTE_STATE, QuoterArrays
from trading.records import MARKET_RECORD, QUOTE_RECORD, REPORT_RECORD, TS_END, words

NAME: Final = "quoter"
REPORTS, MARKET = 0, 1
assert topology.STAGE[NAME].inputs == ("reports", "market")
QUOTES: Final = 0
REPORTS_ID: Final = topology.RING["reports"].ring_id
MARKET_ID: Final = topology.RING["market"].ring_id
# the stage's own arrays
STATE, GLOB, PARAMS, INSTRUMENTS, FIGURES, SCRATCH = 0, 1, 2, 3, 4, 5
WIDTH: Final = words(QUOTE_RECORD)


def state_spec(symbols: int) -> StateSpec:
    """What the stage keeps between records."""
    return (("state", QUOTE_STATE, symbols), ("glob", QUOTE_GLOBAL, 1))


def build(plan: Plan, world: World, loop: LoopSettings) -> Bound:
    """Bind the stage to its rings, with its state at the start."""
    bound = assemble(NAME, world, state_spec(plan.symbols), loop)
    state, glob = bound.state["state"], bound.state["glob"]
    params = quoting.make_params(plan.strategy, plan.instruments)
    quoting.init(state, glob, params, plan.instruments)
    figures = quoting.make_figures(plan.strategy, plan.names)
    install.microprices(plan.strategy, plan.names, figures)
    bound.give(*QuoterArrays(state, glob, params, plan.instruments, figures, scratch(QUOTE_RECORD, 1)))
    return bound


@kernel
def _arrays(b: Words) -> QuoterArrays:
    return QuoterArrays(
        own(b, STATE, QUOTE_STATE),
        own(b, GLOB, QUOTE_GLOBAL),
        own(b, PARAMS, QUOTE_PARAMS),
        own(b, INSTRUMENTS, INSTRUMENT),
        own(b, FIGURES, QUOTE_FIGURES),
        own(b, SCRATCH, QUOTE_RECORD),
    )


@apart(MARKET)
def _on_market(b: Words, now: int) -> None:
    recs, row = in_recs(b, MARKET, MARKET_RECORD), in_row(b, MARKET)
    head, origin = recs[row].seq - 1, recs[row].ts_origin_mono_ns
    n = quoting.on_market(recs, row, _arrays(b))
    if n > 0:
        emit(b, QUOTES, own_words(b, SCRATCH, WIDTH), 0, MARKET_ID, head, origin, now)
    registers(b)[R_INTERNAL_DUE] = own(b, GLOB, QUOTE_GLOBAL)[0].due_ns


@apart(REPORTS)
def _on_report(b: Words, now: int) -> None:
    """After the market's END the quoter only listens."""
    recs, row = in_recs(b, REPORTS, REPORT_RECORD), in_row(b, REPORTS)
    n = quoting.on_report(recs, row, _arrays(b))
    if ended(b, MARKET):
        return
    if n > 0:
        emit(b, QUOTES, own_words(b, SCRATCH, WIDTH), 0, REPORTS_ID, recs[row].seq - 1, NO_FRAME, now)
    registers(b)[R_INTERNAL_DUE] = own(b, GLOB, QUOTE_GLOBAL)[0].due_ns


@apart(DUE)
def _on_due(b: Words, now: int) -> None:
    reg = registers(b)
    n = quoting.on_due(reg[R_INTERNAL_DUE], _arrays(b))
    if n > 0:
        emit(b, QUOTES, own_words(b, SCRATCH, WIDTH), 0, reg[R_CAUSE_RING], reg[R_CAUSE_SEQ], NO_FRAME, now)
    reg[R_INTERNAL_DUE] = own(b, GLOB, QUOTE_GLOBAL)[0].due_ns


@apart(ENDED)
def _on_end(b: Words, r: int) -> None:
    if r == MARKET:
        registers(b)[R_INTERNAL_DUE] = TS_END
        pass_end(b, QUOTES, r)


warm: Final = partial(warm_stage, NAME)
"""Compile or load this stage's kernels (the zygote calls it once)."""
