"""The features stage: one signal record for every market record."""

from __future__ import annotations

from typing import Final

from procs import board, signal_files, topology
from procs.apart import apart
from procs.block import R_DONE, R_LOW, R_NOW, page, registers
from procs.config import Profile
from procs.fold import conclude, end_input, finished, settle, taken
from procs.merge import flush_outputs, next_run
from procs.plan import Plan
from procs.stage import (
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
from procs.warm import warm_stage
from ringbuf.intrinsics import store_release
from ringbuf.jit import Words, kernel
from trading import features
from trading.features import FEATURE_GLOBAL, FEATURE_PARAMS, FEATURE_STATE
from trading.instruments import INSTRUMENT
from trading.records import MARKET_RECORD, SIGNAL_RECORD, TS_END, Kind, words
from trading.user_call import GUARD_WORDS

NAME: Final = "features"
MARKET: Final = 0
SIGNALS: Final = 0
CAUSE: Final = topology.RING["market"].ring_id
END: Final = int(Kind.END)
# the stage's own arrays
STATE, GLOB, PARAMS, INSTRUMENTS, SCRATCH = 0, 1, 2, 3, 4
WIDTH: Final = words(SIGNAL_RECORD)
POLL_RECORDS: Final = 1024


def state_spec(symbols: int) -> StateSpec:
    """What the stage keeps between records."""
    return (("state", FEATURE_STATE, symbols), ("glob", FEATURE_GLOBAL, 1))


def plan_spec(plan: Plan) -> StateSpec:
    """The same with the fields of the user's signals; their names hold the hash of the user's code."""
    return (*state_spec(plan.symbols), *signal_files.load(plan.strategy).spec(plan.symbols))


def build(plan: Plan, world: World, loop: LoopSettings) -> Bound:
    """Bind the stage to its rings, with its state at the start."""
    bound = assemble(NAME, world, plan_spec(plan), loop)
    state, glob = bound.state["state"], bound.state["glob"]
    params = features.make_params(plan.strategy, plan.instruments)
    features.init(state, glob, params, plan.instruments)
    user = signal_files.load(plan.strategy)
    if user.settings:
        rows, status = (bound.state[name] for name, _, _ in user.spec(plan.symbols))
        guard = board.page(world.board, topology.stage_id(NAME))[board.USER_GUARD : board.USER_GUARD + GUARD_WORDS]
        bound.keep.append(user.bind(params, rows, status, guard))
    bound.give(state, glob, params, plan.instruments, scratch(SIGNAL_RECORD, 1))
    return bound


@apart(0)
def _on_market(b: Words, now: int) -> None:
    recs, row = in_recs(b, MARKET, MARKET_RECORD), in_row(b, MARKET)
    head, origin = recs[row].seq - 1, recs[row].ts_origin_mono_ns
    if recs[row].kind == END:
        emit_end(b, SIGNALS, recs[row].ts_ns, CAUSE, head)
        end_input(b, MARKET)
        registers(b)[R_LOW] = TS_END
        registers(b)[R_DONE] = 1
        return
    note_latency(b, recs[row].ts_publish_mono_ns, origin, now)
    out = own(b, SCRATCH, SIGNAL_RECORD)
    state, glob = own(b, STATE, FEATURE_STATE), own(b, GLOB, FEATURE_GLOBAL)
    n = features.on_market(recs, row, state, glob, own(b, PARAMS, FEATURE_PARAMS), own(b, INSTRUMENTS, INSTRUMENT), out, 0)
    if n > 0:
        emit(b, SIGNALS, own_words(b, SCRATCH, WIDTH), 0, CAUSE, head, origin, now)


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
            _on_market(b, now)
            taken(b, ring)
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
