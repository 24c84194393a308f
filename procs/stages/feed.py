"""The feed stage: raw frames in, market and depth records out, each book provably right or marked stale.

Sources: a staged recording (memory-mapped spool), the embedded market generator, or the frames ring, into which the receiver
writes what comes off the wire. The feed's only input is its source, and the place in it is part of its state: after a crash
it goes on with the frame after its last checkpoint. What it wants of the venue (a snapshot) it says on the resync ring.

A frame off the wire takes effect at its receive time, if that is later than what has been promised. While nothing comes, time
goes on by the receiver's promises. Where the receiver itself is silent for longer than LATE_NS (it died, hangs or was stopped)
the feed reads the clock in its place, and writes what it said into its intake log: later frames take effect after that, and
whoever folds the session again says it at the same place. Nothing behind the feed reads a clock.
"""

from __future__ import annotations

import mmap
from functools import partial
from typing import Final

import numpy as np

from procs import topology
from procs.fold.assembly import (
    END_HIGH,
    FRAME,
    HIGH_HALF,
    W_CAUSE_RING,
    W_CAUSE_SEQ,
    Bound,
    LoopSettings,
    StateSpec,
    World,
    assemble,
    emit,
    emit_bare,
    emit_end,
    in_recs,
    in_row,
    own,
    own_words,
    scratch,
)
from procs.fold.block import (
    A_BURST,
    FRAMES_A_POLL,
    IDLE_NS,
    LOG,
    MAX_INPUTS,
    OUT,
    OUT_STRIDE,
    OUTPUTS,
    OWN,
    POLL,
    R_BLOCKED,
    R_DONE,
    R_LOW,
    R_SINCE,
    R_WAIT_NS,
    in_ctl,
    in_loc,
    in_slots,
    out_ctl,
    out_loc,
    out_slots,
    page,
    registers,
)
from procs.fold.far_calls import INT, apart
from procs.fold.merge import flush_outputs, log_intake, loggable, pending
from procs.fold.plan import Plan
from procs.fold.stamps import note_taken
from procs.fold.warm import warm_stage
from procs.memory import board
from procs.memory.segments import aligned_words
from ringbuf.intrinsics import bytes_at, load_acquire, mono_ns, words_at
from ringbuf.jit import Words, kernel
from ringbuf.layout import CAPACITY, WATERMARK
from ringbuf.ring import I_HEAD, O_KNOWN, O_TAIL, note_full, ready, room
from sim.market import generator as market_generator
from sim.market.generator import GEN_GLOBAL, GEN_PARAMS, GEN_STATE
from sim.recordings import spool
from trading.books import fold as market
from trading.books.fold import FEED_GLOBAL, FEED_PARAMS, FEED_STATE
from trading.books.state import STREAMS
from trading.instruments import INSTRUMENT
from trading.jit import Bytes
from trading.records import DEPTH_RECORD, FRAME_RECORD, INTAKE_CLOCK, MARKET_RECORD, RESYNC_RECORD, TS_END, Kind, words

NAME: Final = "feed"
FRAME_BUFFER: Final = market_generator.MAX_FRAME_BYTES
MARKET, DEPTH, RESYNC = 0, 1, 2
assert [ring.name for ring in topology.outputs(NAME)][:3] == ["market", "depth", "resync"]
assert topology.RING["depth"].burst >= market.MAX_DEPTH_OUT
assert topology.RING["market"].burst >= market.MAX_MARKET_OUT
MARKET_WIDTH: Final = words(MARKET_RECORD)
DEPTH_WIDTH: Final = words(DEPTH_RECORD)
RESYNC_WIDTH: Final = words(RESYNC_RECORD)
K_FRAME, K_LINE_UP, K_LINE_DOWN, K_LOST = int(Kind.FRAME), int(Kind.LINE_UP), int(Kind.LINE_DOWN), int(Kind.LOST)
K_WANT_SNAPSHOT, K_ODD_FRAME, K_WANT_STREAM = int(Kind.WANT_SNAPSHOT), int(Kind.ODD_FRAME), int(Kind.WANT_STREAM)
# the stage's own arrays
STATE, GLOB, PARAMS, INSTRUMENTS, SOURCE, SOURCE_SETTINGS, GEN, GEN_GLOB, GEN_SETTINGS = 0, 1, 2, 3, 4, 5, 6, 7, 8
SPOOL, FRAME_BYTES, WHERE, MARKET_OUT, DEPTH_OUT, ARENA, RESYNC_OUT = 9, 10, 11, 12, 13, 14, 15
FRAMES: Final = 0  # the input
LATE_NS: Final = 30_000_000
"""A receiver promises every 10 ms; one that is later than this says nothing."""
LOOK_NS: Final = 10_000_000
"""How often the feed looks whether it does, and tells the time where it does not."""

GENERATED, SPOOLED, WIRED = 0, 1, 2  # kinds of source

SOURCE_STATE: Final = np.dtype(
    [
        ("offset", "i8"),  # into the spool; 0: at its beginning
        ("frames", "i8"),
        ("bytes", "i8"),
        ("first_ns", "i8"),
        ("last_ns", "i8"),  # time given to the last frame
        ("pace_mono_ns", "i8"),  # when the first frame was let in
        ("exhausted", "i8"),
        ("clock_ns", "i8"),  # what the last frame's time is ahead of CLOCK_MONOTONIC
        ("said_ns", "i8"),  # the time as the feed has said it last, without the receiver
    ],
    align=True,
)
SOURCE_PARAMS: Final = np.dtype([("kind", "i8"), ("speed", "f8"), ("expected", "i8")], align=True)


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


def build(plan: Plan, world: World, loop: LoopSettings) -> Bound:
    """Bind the stage to its rings and its source, with its state at the start."""
    bound = assemble(NAME, world, state_spec(plan.symbols), loop)
    kept = bound.state
    generated = plan.spool is None and not plan.live
    params = market.make_params(
        snapshot_levels=market.WHOLE if generated else plan.snapshot_levels, owed_limit_ns=plan.owed_limit_ns,
        silence_ns=plan.silence_ns,
    )  # fmt: skip
    market.init(kept["state"], kept["glob"], plan.instruments, params)
    source_params = np.zeros(1, SOURCE_PARAMS)
    source_params[0]["kind"] = WIRED if plan.live else GENERATED if generated else SPOOLED
    source_params[0]["speed"] = 0.0 if plan.live else plan.speed
    source_params[0]["expected"] = plan.frames
    gen_params = np.zeros(1, GEN_PARAMS)
    if generated:
        gen_params = market_generator.make_params(plan.generator)
        market_generator.init(kept["gen_state"], kept["gen_glob"], gen_params, plan.instruments)
    bound.give(
        kept["state"],
        kept["glob"],
        params,
        plan.instruments,
        kept["source"],
        source_params,
        kept["gen_state"],
        kept["gen_glob"],
        gen_params,
        _mapped(plan),
        aligned_words(FRAME_BUFFER // 8).view(np.uint8),
        np.zeros(spool.OUT_WORDS, np.int64),
        scratch(MARKET_RECORD, market.MAX_MARKET_OUT),
        scratch(DEPTH_RECORD, market.MAX_DEPTH_OUT),
        world.arena if world.arena is not None else np.zeros(64, np.uint8),
        scratch(RESYNC_RECORD, 1),
    )
    return bound


@kernel
def _bytes(b: Words, k: int) -> Bytes:
    return bytes_at(b[OWN + 2 * k], b[OWN + 2 * k + 1])


@kernel
def _where(b: Words) -> Words:
    return words_at(b[OWN + 2 * WHERE], b[OWN + 2 * WHERE + 1])


@kernel
def _next_time(b: Words) -> int:
    """Receive time of the next frame, or TS_END where there is none; fills `where` for a recording."""
    src = own(b, SOURCE, SOURCE_STATE)[0]
    if src.exhausted != 0:
        return TS_END
    kind = own(b, SOURCE_SETTINGS, SOURCE_PARAMS)[0].kind
    if kind == WIRED:
        ctl, slots, head = in_ctl(b, FRAMES), in_slots(b, FRAMES), in_loc(b, FRAMES)[I_HEAD]
        return slots[head & (ctl[CAPACITY] - 1), 0] if ready(ctl, slots, head) else TS_END
    if kind == GENERATED:
        due = own(b, GEN_GLOB, GEN_GLOBAL)[0].next_ts_ns
        return due if 0 < due < TS_END else TS_END
    where = _where(b)
    if spool.next_frame(_bytes(b, SPOOL), src.offset, where) == 0:
        return TS_END
    return where[spool.OUT_RECV_NS]


@apart(MAX_INPUTS, INT)
def _fold_frame(b: Words, source: int, start: int, end: int, ts_ns: int, recv: int, symbol: int) -> int:
    """Fold one frame's bytes, which lie in own array `source`; how many market records it made."""
    return market.on_frame(
        _bytes(b, source),
        start,
        end,
        ts_ns,
        recv,
        symbol,
        own(b, STATE, FEED_STATE),
        own(b, GLOB, FEED_GLOBAL),
        own(b, PARAMS, FEED_PARAMS),
        own(b, INSTRUMENTS, INSTRUMENT),
        own(b, MARKET_OUT, MARKET_RECORD),
        own(b, DEPTH_OUT, DEPTH_RECORD),
    )


@apart(MAX_INPUTS + 1, INT)
def _generate(b: Words) -> int:
    """Let the generator write its next frame; where it ends, 0: there is none."""
    gen, raw, instruments = own(b, GEN_GLOB, GEN_GLOBAL), _bytes(b, FRAME_BYTES), own(b, INSTRUMENTS, INSTRUMENT)
    return market_generator.next_frame(own(b, GEN, GEN_STATE), gen, own(b, GEN_SETTINGS, GEN_PARAMS), instruments, raw)


@apart(MAX_INPUTS + 2, INT)
def _fold_line(b: Words, kind: int, symbol: int, line: int, ts_ns: int, recv: int) -> int:
    """Fold an event of a symbol's line; how many market records it made."""
    state, glob, params = own(b, STATE, FEED_STATE), own(b, GLOB, FEED_GLOBAL), own(b, PARAMS, FEED_PARAMS)
    market_out, depth_out = own(b, MARKET_OUT, MARKET_RECORD), own(b, DEPTH_OUT, DEPTH_RECORD)
    if kind == K_LINE_UP or kind == K_LINE_DOWN:
        up = 1 if kind == K_LINE_UP else 0
        return market.on_line(symbol, line, up, ts_ns, recv, state, glob, params, market_out, depth_out)
    if kind == K_LOST:
        return market.on_lost(symbol, ts_ns, recv, state, glob, params, market_out, depth_out)
    return 0


@kernel
def _take_wired(b: Words, ts_ns: int) -> int:
    """Fold the next record of the frames ring: bytes in the arena, or an event of a line. The ring's memory is checked."""
    glob = own(b, GLOB, FEED_GLOBAL)
    record = in_recs(b, FRAMES, FRAME_RECORD)[in_row(b, FRAMES)]
    kind, symbol, recv = record.kind, record.symbol, record.ts_ns
    glob[0].n_depth = 0
    glob[0].want_symbol = -1
    glob[0].want_streams = 0
    glob[0].odd = 0
    m = 0
    if kind == K_FRAME:
        arena = _bytes(b, ARENA)
        at, length = record.at, record.length
        if 0 <= at and 0 <= length and length <= arena.shape[0] and at <= arena.shape[0] - length:
            m = _fold_frame(b, ARENA, at, at + length, ts_ns, recv, symbol)
            own(b, SOURCE, SOURCE_STATE)[0].bytes += length
    elif 0 <= symbol < b[OWN + 2 * STATE + 1]:
        m = _fold_line(b, kind, symbol, record.flags, ts_ns, recv)
    return m


@kernel
def _ask(b: Words, kind: int, symbol: int, reason: int, update_id: int, ts_ns: int) -> None:
    row = own(b, RESYNC_OUT, RESYNC_RECORD)[0]
    row.ts_ns, row.kind, row.symbol, row.flags = ts_ns, kind, symbol, 0
    row.reason, row.update_id = reason, update_id
    emit_bare(b, RESYNC, own_words(b, RESYNC_OUT, RESYNC_WIDTH), 0, FRAME, own(b, SOURCE, SOURCE_STATE)[0].frames)


@kernel
def _consume(b: Words, ts_ns: int, taken: int) -> None:
    """Decode one frame and publish what it says. `taken`: when it was let in; a source that is no socket has it since then."""
    src = own(b, SOURCE, SOURCE_STATE)[0]
    glob = own(b, GLOB, FEED_GLOBAL)
    kind = own(b, SOURCE_SETTINGS, SOURCE_PARAMS)[0].kind
    origin = taken
    if kind == WIRED:
        origin = in_recs(b, FRAMES, FRAME_RECORD)[in_row(b, FRAMES)].ts_origin_mono_ns
        if origin > 0:  # an event of a line has none
            src.clock_ns = in_recs(b, FRAMES, FRAME_RECORD)[in_row(b, FRAMES)].ts_ns - origin
            note_taken(b, FRAMES, origin, origin, taken)
        m = _take_wired(b, ts_ns)
        if glob[0].odd != 0:
            _ask(b, K_ODD_FRAME, glob[0].symbol, 0, in_loc(b, FRAMES)[I_HEAD], ts_ns)
        in_loc(b, FRAMES)[I_HEAD] += 1
    elif kind == GENERATED:
        gen = own(b, GEN_GLOB, GEN_GLOBAL)
        end = _generate(b)
        if end == 0:
            src.exhausted = 1
            return
        src.bytes += end
        m = _fold_frame(b, FRAME_BYTES, 0, end, ts_ns, gen[0].recv_ns, gen[0].symbol)
    else:
        raw, where = _bytes(b, SPOOL), _where(b)
        src.offset = spool.next_frame(raw, src.offset, where)
        start, end = where[spool.OUT_START], where[spool.OUT_END]
        src.bytes += end - start
        notice = where[spool.OUT_NOTICE]
        if notice == 0:
            m = _fold_frame(b, SPOOL, start, end, ts_ns, where[spool.OUT_RECV_NS], where[spool.OUT_SYMBOL])
        else:
            glob[0].n_depth = 0
            glob[0].want_symbol = -1
            glob[0].odd = 0
            m = 0
            if where[spool.OUT_SYMBOL] < b[OWN + 2 * STATE + 1]:
                m = _fold_line(b, notice, where[spool.OUT_SYMBOL], where[spool.OUT_LINE], ts_ns, where[spool.OUT_RECV_NS])
    for k in range(glob[0].n_depth):
        emit_bare(b, DEPTH, own_words(b, DEPTH_OUT, DEPTH_WIDTH), k, FRAME, src.frames)
    for k in range(m):
        emit(b, MARKET, own_words(b, MARKET_OUT, MARKET_WIDTH), k, FRAME, src.frames, origin, taken)
    if kind == WIRED and glob[0].want_streams != 0:
        _ask(b, K_WANT_STREAM, glob[0].book_symbol, glob[0].want_streams, 0, ts_ns)
    if kind == WIRED and glob[0].want_symbol >= 0:
        _ask(b, K_WANT_SNAPSHOT, glob[0].want_symbol, glob[0].want_reason, glob[0].want_update_id, ts_ns)
    src.frames += 1
    src.last_ns = ts_ns
    registers(b)[R_SINCE] += 1


@kernel
def _end_time(b: Words) -> int:
    """When the stream ends: after the last frame, and not before what was promised of a next one. Said once, it stays so."""
    depth, loc = out_ctl(b, DEPTH), out_loc(b, DEPTH)
    if loc[O_TAIL] < loc[O_KNOWN]:
        return out_slots(b, DEPTH)[loc[O_TAIL] & (depth[CAPACITY] - 1), 0]
    return max(own(b, SOURCE, SOURCE_STATE)[0].last_ns + 1, max(depth[WATERMARK], out_ctl(b, MARKET)[WATERMARK]))


@kernel
def _end(b: Words) -> None:
    src, reg, ts_ns = own(b, SOURCE, SOURCE_STATE)[0], registers(b), _end_time(b)
    emit_end(b, DEPTH, ts_ns, FRAME, src.frames)
    emit_end(b, MARKET, ts_ns, FRAME, src.frames)
    if own(b, SOURCE_SETTINGS, SOURCE_PARAMS)[0].kind == WIRED:
        emit_end(b, RESYNC, ts_ns, FRAME, src.frames)
    reg[R_LOW] = TS_END
    reg[R_DONE] = 1
    reg[R_SINCE] += 1


@kernel
def _follows(b: Words) -> bool:
    """Whether a dead incarnation's words on the time are still to be said again."""
    loc = out_loc(b, b[LOG])
    return loc[O_TAIL] < loc[O_KNOWN]


@kernel
def _say_time(b: Words) -> bool:
    """Read the clock in the place of a receiver that is silent, or say again what a dead one said here; whether it said."""
    src, log = own(b, SOURCE, SOURCE_STATE)[0], b[LOG]
    ctl, slots, loc = out_ctl(b, log), out_slots(b, log), out_loc(b, log)
    if _follows(b):
        row = loc[O_TAIL] & (ctl[CAPACITY] - 1)
        if slots[row, W_CAUSE_SEQ] != src.frames:
            return False
        ts_ns = slots[row, 0]
    else:
        for o in range(b[OUTPUTS]):
            if out_loc(b, o)[O_TAIL] < out_loc(b, o)[O_KNOWN]:
                return False
        ts_ns = mono_ns() + src.clock_ns - LATE_NS
        known = max(load_acquire(in_ctl(b, FRAMES), WATERMARK), src.last_ns)
        if src.clock_ns == 0 or ts_ns <= max(known, src.said_ns + LOOK_NS):
            return False
    if not loggable(b):
        return False
    log_intake(b, INTAKE_CLOCK, src.frames, 1, ts_ns)
    src.said_ns = ts_ns
    registers(b)[R_SINCE] += 1
    return True


@kernel
def _draining(b: Words) -> bool:
    """Told to end, and not in the middle of computing again what had been published before.

    Where the dead incarnation had already said END, its END says after which frame; being told is no part of the fold.
    """
    if load_acquire(page(b), board.DRAIN) == 0 or _follows(b):
        return False
    market_loc, depth_loc = out_loc(b, MARKET), out_loc(b, DEPTH)
    tail = depth_loc[O_TAIL]
    if tail < depth_loc[O_KNOWN]:
        slots = out_slots(b, DEPTH)
        row = tail & (out_ctl(b, DEPTH)[CAPACITY] - 1)
        if slots[row, slots.shape[1] - 1] != tail + 1 or slots[row, W_CAUSE_RING] & HIGH_HALF != END_HIGH:
            return False
        return slots[row, W_CAUSE_SEQ] == own(b, SOURCE, SOURCE_STATE)[0].frames
    return market_loc[O_TAIL] >= market_loc[O_KNOWN]


@kernel
def _has_room(b: Words) -> bool:
    reg = registers(b)
    before = reg[R_BLOCKED]
    reg[R_BLOCKED] = 0
    for o in range(b[OUTPUTS]):
        burst = b[OUT + o * OUT_STRIDE + A_BURST]
        if room(out_ctl(b, o), out_loc(b, o), burst) < burst:
            reg[R_BLOCKED] |= 1 << o
            if not (before >> o) & 1:
                note_full(out_ctl(b, o))
    return reg[R_BLOCKED] == 0


@kernel
def _show(b: Words) -> None:
    """Put the feed's figures on the board."""
    words, src = page(b), own(b, SOURCE, SOURCE_STATE)[0]
    glob, state = own(b, GLOB, FEED_GLOBAL)[0], own(b, STATE, FEED_STATE)
    words[board.FRAMES], words[board.FRAME_BYTES], words[board.SOURCE_NS] = src.frames, src.bytes, src.last_ns
    words[board.FRAMES_EXPECTED] = own(b, SOURCE_SETTINGS, SOURCE_PARAMS)[0].expected
    words[board.MALFORMED], words[board.UNKNOWN] = glob.malformed, glob.unknown
    gaps, resyncs, checked, equal, deaths = 0, 0, 0, 0, 0
    for s in range(state.shape[0]):
        gaps += state[s].gaps
        resyncs += state[s].resyncs
        checked += state[s].oracle_checked
        equal += state[s].oracle_equal
        for stream in range(STREAMS):
            deaths += state[s].deaths[stream]
    words[board.STREAM_DEATHS] = deaths
    words[board.GAPS], words[board.RESYNCS] = gaps, resyncs
    words[board.ORACLE_CHECKED], words[board.ORACLE_EQUAL] = checked, equal


@apart(POLL, INT)
def _let_in(b: Words, _: int) -> int:
    """Let in the frames whose time has come; how many were decoded."""
    reg, src = registers(b), own(b, SOURCE, SOURCE_STATE)[0]
    speed = own(b, SOURCE_SETTINGS, SOURCE_PARAMS)[0].speed
    work = 0
    reg[R_WAIT_NS] = b[IDLE_NS]
    while work < b[FRAMES_A_POLL] and reg[R_DONE] == 0 and _has_room(b):
        wired = own(b, SOURCE_SETTINGS, SOURCE_PARAMS)[0].kind == WIRED
        if wired and _follows(b):
            if not loggable(b):
                break
            if _say_time(b):
                work += 1
                continue  # more may have been said before the same frame
        recv = _next_time(b)
        if recv >= TS_END and wired and not _draining(b):
            # nothing there: what the receiver promises is how far the others may go
            low = max(load_acquire(in_ctl(b, FRAMES), WATERMARK), src.last_ns + 1)
            if ready(in_ctl(b, FRAMES), in_slots(b, FRAMES), in_loc(b, FRAMES)[I_HEAD]):
                continue
            _say_time(b)
            low = max(low, src.said_ns)
            reg[R_WAIT_NS] = min(reg[R_WAIT_NS], LOOK_NS)
            if src.frames > 0 and low > reg[R_LOW]:
                reg[R_LOW] = low
                flush_outputs(b)
            break
        if recv >= TS_END or _draining(b):
            _end(b)
            flush_outputs(b)
            work += 1
            break
        ts_ns = max(recv, max(src.last_ns + 1, src.said_ns))
        origin = mono_ns()
        if src.frames == 0 and src.pace_mono_ns == 0:
            src.first_ns, src.pace_mono_ns = ts_ns, origin
        # nothing earlier than this frame can come any more: told with what the frame before it has brought
        reg[R_LOW] = ts_ns
        if pending(b):
            flush_outputs(b)
        if speed > 0.0:
            due = src.pace_mono_ns + int((ts_ns - src.first_ns) / speed)
            if origin < due:
                flush_outputs(b)
                reg[R_WAIT_NS] = min(reg[R_WAIT_NS], due - origin)
                break
        _consume(b, ts_ns, origin)
        work += 1
    if work > 0:
        flush_outputs(b)
        _show(b)
    return work


warm: Final = partial(warm_stage, NAME)
"""Compile or load this stage's kernels (the zygote calls it once)."""
