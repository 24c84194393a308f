"""The feed stage: raw frames in, market and depth records out, each book provably right or marked stale.

Sources: a staged recording (memory-mapped spool) or the embedded market generator; both give a venue's wire frames.
The feed's only input is its source, and the place in it is part of its state: after a crash it goes on with the frame
after its last checkpoint.
"""

from __future__ import annotations

import mmap
from typing import Final, NamedTuple

import numpy as np

from procs import board
from procs.config import Profile
from procs.fold import (
    C_IDLE_NS,
    R_BLOCKED,
    R_DONE,
    R_LOW,
    R_SINCE,
    R_WAIT_NS,
    Fold,
    conclude,
    finished,
    flush_outputs,
    settle,
)
from procs.plan import Plan
from procs.stage import FRAME, LoopSettings, StateSpec, World, assemble, emit, emit_bare, emit_end, scratch
from procs.warm import warm_stage
from ringbuf.intrinsics import load_acquire, mono_ns, store_release
from ringbuf.jit import Recs, Words, kernel
from ringbuf.ring import O_KNOWN, O_TAIL, Output, note_full, room
from sim import market_generator, spool
from trading import market
from trading.jit import Bytes
from trading.records import DEPTH_RECORD, MARKET_RECORD, TS_END

NAME: Final = "feed"
FRAME_BUFFER: Final = 1 << 18

SOURCE_STATE: Final = np.dtype(
    [
        ("offset", "i8"),  # into the spool; 0: at its beginning
        ("frames", "i8"),
        ("bytes", "i8"),
        ("first_ns", "i8"),
        ("last_ns", "i8"),  # time given to the last frame
        ("pace_mono_ns", "i8"),  # when the first frame was let in
        ("exhausted", "i8"),
    ],
    align=True,
)
SOURCE_PARAMS: Final = np.dtype([("generated", "i8"), ("speed", "f8"), ("expected", "i8")], align=True)


class Io(NamedTuple):
    fold: Fold
    market: Output
    depth: Output
    state: Recs
    glob: Recs
    params: Recs
    instruments: Recs
    source: Recs
    source_params: Recs
    gen_state: Recs
    gen_glob: Recs
    gen_params: Recs
    spool: Bytes
    frame: Bytes
    where: Words
    market_out: Recs
    market_words: Words
    depth_out: Recs
    depth_words: Words


def state_spec(symbols: int) -> StateSpec:
    """What the stage keeps between frames."""
    return (
        ("state", market.FEED_STATE, symbols),
        ("glob", market.FEED_GLOBAL, 1),
        ("source", SOURCE_STATE, 1),
        ("gen_state", market_generator.GEN_STATE, symbols),
        ("gen_glob", market_generator.GEN_GLOBAL, 1),
    )


def _mapped(plan: Plan) -> Bytes:
    if plan.spool is None:
        return np.zeros(8, np.uint8)
    spool.open_spool(plan.spool)  # checks the header
    with plan.spool.open("rb") as file:
        # a private mapping, so that its type is that of any other byte array to the compiler; nothing writes to it
        return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY), np.uint8)


def build(plan: Plan, world: World, loop: LoopSettings) -> Io:
    """Bind the stage to its rings and its source, with its state at the start."""
    parts = assemble(NAME, world, state_spec(plan.symbols), loop)
    state = parts.state
    params = market.make_params()
    market.init(state["state"], state["glob"], plan.instruments, params)
    source_params = np.zeros(1, SOURCE_PARAMS)
    source_params[0]["generated"], source_params[0]["speed"] = plan.spool is None, plan.speed
    source_params[0]["expected"] = plan.frames
    gen_params = market_generator.make_params(plan.generator, plan.instruments)
    if plan.spool is None:
        market_generator.init(state["gen_state"], state["gen_glob"], gen_params, plan.instruments)
    market_out, market_words = scratch(MARKET_RECORD, market.MAX_MARKET_OUT)
    depth_out, depth_words = scratch(DEPTH_RECORD, market.MAX_DEPTH_OUT)
    return Io(
        parts.fold,
        parts.outputs["market"],
        parts.outputs["depth"],
        state["state"],
        state["glob"],
        params,
        plan.instruments,
        state["source"],
        source_params,
        state["gen_state"],
        state["gen_glob"],
        gen_params,
        _mapped(plan),
        np.zeros(FRAME_BUFFER, np.uint8),
        np.zeros(max(spool.OUT_WORDS, 8), np.int64),
        market_out,
        market_words,
        depth_out,
        depth_words,
    )


@kernel
def _next_time(io: Io) -> int:
    """Receive time of the next frame, or TS_END where there is none; fills `where` for a recording."""
    src = io.source[0]
    if src.exhausted != 0:
        return TS_END
    if io.source_params[0].generated != 0:
        due = io.gen_glob[0].next_ts_ns
        if due <= 0 or due >= TS_END:
            return TS_END
        return due
    if spool.next_frame(io.spool, src.offset, io.where) == 0:
        return TS_END
    return io.where[0]


@kernel
def _consume(io: Io, ts_ns: int, origin: int) -> None:
    """Decode one frame and publish what it says."""
    src = io.source[0]
    if io.source_params[0].generated != 0:
        length = market_generator.next_frame(io.gen_state, io.gen_glob, io.gen_params, io.instruments, io.frame)
        if length == 0:
            src.exhausted = 1
            return
        recv, symbol = io.gen_glob[0].recv_ns, io.gen_glob[0].symbol
        m = market.on_frame(
            io.frame,
            0,
            length,
            ts_ns,
            recv,
            symbol,
            io.state,
            io.glob,
            io.params,
            io.instruments,
            io.market_out,
            io.depth_out,
        )
    else:
        src.offset = spool.next_frame(io.spool, src.offset, io.where)
        length = io.where[3] - io.where[2]
        m = market.on_frame(
            io.spool,
            io.where[2],
            io.where[3],
            ts_ns,
            io.where[0],
            io.where[1],
            io.state,
            io.glob,
            io.params,
            io.instruments,
            io.market_out,
            io.depth_out,
        )
    for k in range(io.glob[0].n_depth):
        emit_bare(io.depth, io.depth_words, k, FRAME, src.frames)
    now = mono_ns()
    for k in range(m):
        emit(io.market, io.market_words, k, FRAME, src.frames, origin, now)
    src.frames += 1
    src.bytes += length
    src.last_ns = ts_ns
    io.fold.reg[R_SINCE] += 1


@kernel
def _end(io: Io) -> None:
    src = io.source[0]
    emit_end(io.depth, src.last_ns + 1, FRAME, src.frames)
    emit_end(io.market, src.last_ns + 1, FRAME, src.frames)
    io.fold.reg[R_LOW] = TS_END
    io.fold.reg[R_DONE] = 1
    io.fold.reg[R_SINCE] += 1


@kernel
def _draining(io: Io) -> bool:
    """Told to end, and not in the middle of computing again what had been published before."""
    if load_acquire(io.fold.board, board.DRAIN) == 0:
        return False
    return io.market.loc[O_TAIL] >= io.market.loc[O_KNOWN] and io.depth.loc[O_TAIL] >= io.depth.loc[O_KNOWN]


@kernel
def poll(io: Io) -> int:
    """Let in the frames whose time has come; how many were decoded."""
    fold = io.fold
    src = io.source[0]
    speed = io.source_params[0].speed
    work = 0
    fold.reg[R_BLOCKED] = 0
    fold.reg[R_WAIT_NS] = fold.settings[C_IDLE_NS]
    while work < 256 and fold.reg[R_DONE] == 0:
        for o in range(len(fold.out_ctl)):
            if room(fold.out_ctl[o], fold.out_loc[o], fold.out_burst[o]) < fold.out_burst[o]:
                fold.reg[R_BLOCKED] |= 1 << o
                note_full(fold.out_ctl[o])
        if fold.reg[R_BLOCKED] != 0:
            break
        recv = _next_time(io)
        if recv >= TS_END or _draining(io):
            _end(io)
            flush_outputs(fold)
            work += 1
            break
        ts_ns = recv if recv > src.last_ns else src.last_ns + 1
        origin = mono_ns()
        if src.frames == 0 and src.pace_mono_ns == 0:
            src.first_ns, src.pace_mono_ns = ts_ns, origin
        # nothing earlier than this frame can come any more, whoever waits for that may go on
        fold.reg[R_LOW] = ts_ns
        if speed > 0.0:
            due = src.pace_mono_ns + int((ts_ns - src.first_ns) / speed)
            if origin < due:
                flush_outputs(fold)
                if due - origin < fold.reg[R_WAIT_NS]:
                    fold.reg[R_WAIT_NS] = due - origin
                break
        _consume(io, ts_ns, origin)
        flush_outputs(fold)
        work += 1
    return work


@kernel
def show(io: Io) -> None:
    """Put the feed's figures on the board."""
    page, src = io.fold.board, io.source[0]
    page[board.FRAMES], page[board.FRAME_BYTES], page[board.SOURCE_NS] = src.frames, src.bytes, src.last_ns
    page[board.FRAMES_EXPECTED] = io.source_params[0].expected
    page[board.MALFORMED], page[board.UNKNOWN] = io.glob[0].malformed, io.glob[0].unknown
    gaps, resyncs, checked, equal = 0, 0, 0, 0
    for s in range(io.state.shape[0]):
        gaps += io.state[s].gaps
        resyncs += io.state[s].resyncs
        checked += io.state[s].oracle_checked
        equal += io.state[s].oracle_equal
    page[board.GAPS], page[board.RESYNCS] = gaps, resyncs
    page[board.ORACLE_CHECKED], page[board.ORACLE_EQUAL] = checked, equal


@kernel
def run(io: Io) -> None:
    """The hot loop."""
    store_release(io.fold.board, board.READY, 1)
    idle = 0
    while not finished(io.fold):
        work = poll(io)
        if work > 0:
            show(io)
        idle = settle(io.fold, work, idle)
    show(io)
    conclude(io.fold)


def warm(profile: Profile) -> None:
    """Compile or load this stage's kernels (the zygote calls it once)."""
    warm_stage(NAME, profile)
