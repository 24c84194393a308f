"""The features stage: one signal record for every market record."""

from __future__ import annotations

from typing import NamedTuple

from procs import board, topology
from procs.config import Profile
from procs.fold import R_DONE, R_LOW, R_NOW, Fold, conclude, end_input, finished, flush_outputs, next_run, settle, taken
from procs.plan import Plan
from procs.stage import LoopSettings, StateSpec, World, assemble, emit, emit_end, note_latency, scratch
from procs.warm import warm_stage
from ringbuf.intrinsics import store_release
from ringbuf.jit import Recs, Words, kernel
from ringbuf.ring import I_HEAD, Input, Output
from trading import features
from trading.records import SIGNAL_RECORD, TS_END, Kind

NAME = "features"
MARKET = 0
CAUSE = topology.RING["market"].ring_id
END = int(Kind.END)


class Io(NamedTuple):
    fold: Fold
    market: Input
    signals: Output
    state: Recs
    glob: Recs
    params: Recs
    instruments: Recs
    out: Recs
    out_words: Words


def state_spec(symbols: int) -> StateSpec:
    """What the stage keeps between records."""
    return (("state", features.FEATURE_STATE, symbols), ("glob", features.FEATURE_GLOBAL, 1))


def build(plan: Plan, world: World, loop: LoopSettings) -> Io:
    """Bind the stage to its rings, with its state at the start."""
    parts = assemble(NAME, world, state_spec(plan.symbols), loop)
    params = features.make_params(plan.strategy, plan.instruments)
    features.init(parts.state["state"], parts.state["glob"], params, plan.instruments)
    out, out_words = scratch(SIGNAL_RECORD, 1)
    return Io(
        parts.fold,
        parts.inputs["market"],
        parts.outputs["signals"],
        parts.state["state"],
        parts.state["glob"],
        params,
        plan.instruments,
        out,
        out_words,
    )


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
            head = io.market.loc[I_HEAD]
            row = head & (io.market.words.shape[0] - 2)
            rec = io.market.recs[row]
            if rec.kind == END:
                emit_end(io.signals, rec.ts_ns, CAUSE, head)
                end_input(fold, ring)
                fold.reg[R_LOW] = TS_END
                fold.reg[R_DONE] = 1
            else:
                note_latency(fold.board, rec.ts_publish_mono_ns, rec.ts_origin_mono_ns, now)
                features.on_market(io.market.recs, row, io.state, io.glob, io.params, io.instruments, io.out, 0)
                emit(io.signals, io.out_words, 0, CAUSE, head, rec.ts_origin_mono_ns, now)
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
