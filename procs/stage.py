"""How a stage is put together: its arena, its ends of the rings, its fold; and how a record is emitted.

The same builder serves the pipeline (rings in shared segments) and the backtest (the same rings on the heap): a `World`
says where the words are. A stage module gives `state_spec`, `build` and the compiled `poll` and `run`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from procs import board, topology
from procs.fold import (
    BY_INPUT,
    C_BATCH,
    C_CHECKPOINT_EVERY,
    C_DOORBELL,
    C_FEEDBACK,
    C_IDLE_NS,
    C_LOGGED,
    C_REFERENCE,
    C_SPIN,
    C_STRATEGY,
    C_TIMED,
    IDLE_NS,
    R_INTERNAL_DUE,
    R_WAIT_NS,
    REGISTERS,
    SETTINGS,
    SPIN,
    Fold,
    checkpoint_words,
)
from procs.pipeline import format_ring
from ringbuf import layout, ring
from ringbuf.jit import Recs, Words, kernel
from ringbuf.ring import I_READER, I_RELEASED, I_SHIFT, I_TIMED, LOC_WORDS, Input, Output, begin, commit
from shm.histogram import WORDS as HISTOGRAM_WORDS
from shm.histogram import record as record_latency
from trading.records import TS_END, identity_words, layout_hash

StateSpec = Sequence[tuple[str, np.dtype, int]]
"""A stage's own state: (name, record dtype, how many), all of 8-byte words."""

assert HISTOGRAM_WORDS == board.HISTOGRAM_WORDS

FRAME: Final = -1
"""`cause_ring` of a record that answers a raw frame."""


@dataclass(slots=True)
class World:
    """Where the shared words are."""

    rings: Mapping[str, Words]
    board: Words
    checkpoints: Mapping[str, Words]


@dataclass(slots=True)
class LoopSettings:
    """How a stage's loop waits and checkpoints."""

    strategy: int = SPIN
    spin: int = 100
    checkpoint_every: int = 1024
    batch: int = 64
    timed: bool = True
    idle_ns: int = IDLE_NS


@dataclass(slots=True)
class Parts:
    """What `assemble` gives a stage module."""

    fold: Fold
    inputs: dict[str, Input]
    outputs: dict[str, Output]
    state: dict[str, Recs]
    scratch: dict[str, Recs] = field(default_factory=dict)


def _rows(name: str) -> int:
    return len(topology.inputs(name)) + len(topology.outputs(name)) + 1


def arena_words(name: str, spec: StateSpec) -> int:
    """Words of a stage's arena, rounded up to whole cache lines."""
    own = sum(dtype.itemsize // 8 * count for _, dtype, count in spec)
    return -(-(REGISTERS + _rows(name) * LOC_WORDS + own) // 8) * 8


def fold_layout(spec: StateSpec) -> int:
    """Layout hash of a stage's checkpoints: from another state layout nobody resumes."""
    text = ";".join(f"{key}:{layout_hash(dtype)}:{count}" for key, dtype, count in spec)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 2


def aligned_words(count: int) -> Words:
    """Zeroed int64 words that begin on a page."""
    raw = np.zeros(count + 512, np.int64)
    start = (-raw.ctypes.data % 4096) // 8
    return raw[start : start + count]


def heap_world(specs: Mapping[str, StateSpec]) -> World:
    """The pipeline's rings, board and checkpoints on this process's heap (backtest, warm-up, tests)."""
    rings: dict[str, Words] = {}
    for entry in topology.RINGS:
        words = aligned_words(layout.payload_bytes(entry.capacity, entry.record) // 8)
        format_ring(words, entry)
        rings[entry.name] = words
    checkpoints = {name: aligned_words(checkpoint_words(arena_words(name, spec))) for name, spec in specs.items()}
    return World(rings, aligned_words(board.BOARD_WORDS), checkpoints)


def assemble(
    name: str,
    world: World,
    spec: StateSpec,
    loop: LoopSettings,
    *,
    shifts: Mapping[str, int] | None = None,
    lead_ns: int = 0,
    feedback: str | None = None,
    reference: int = BY_INPUT,
) -> Parts:
    """Lay out a stage's arena and bind its endpoints.

    `shifts` puts an input's records later in the merge (ns), `lead_ns` is how far the outputs' watermarks lead the inputs'.
    `feedback` names the input on which reports come back, `reference` what promises about it are compared with (procs.fold).
    """
    inputs, outputs, log = topology.inputs(name), topology.outputs(name), topology.intake(name)
    data_outputs = [entry for entry in outputs if entry is not log]
    arena = aligned_words(arena_words(name, spec))
    at = REGISTERS

    def row() -> Words:
        nonlocal at
        at += LOC_WORDS
        return arena[at - LOC_WORDS : at]

    ins: dict[str, Input] = {}
    for entry in inputs:
        loc = row()
        loc[I_READER], loc[I_TIMED], loc[I_RELEASED] = entry.reader_index(name), entry.timed, -1
        loc[I_SHIFT] = (shifts or {}).get(entry.name, 0)
        ins[entry.name] = ring.input_(world.rings[entry.name], entry.record, loc, entry.reader_index(name))
    outs: dict[str, Output] = {}
    for entry in outputs:
        outs[entry.name] = ring.output(world.rings[entry.name], entry.record, row(), identity_words(entry.record))
    state: dict[str, Recs] = {}
    for key, dtype, count in spec:
        size = dtype.itemsize // 8 * count
        state[key] = arena[at : at + size].view(dtype)
        at += size
    reg = arena[:REGISTERS]
    reg[R_INTERNAL_DUE] = TS_END
    reg[R_WAIT_NS] = loop.idle_ns
    settings = np.zeros(SETTINGS, np.int64)
    settings[C_STRATEGY], settings[C_SPIN] = loop.strategy, loop.spin
    settings[C_CHECKPOINT_EVERY], settings[C_BATCH] = loop.checkpoint_every, loop.batch
    settings[C_DOORBELL] = board.doorbell(topology.stage_id(name))
    settings[C_TIMED], settings[C_LOGGED], settings[C_IDLE_NS] = loop.timed, log is not None, loop.idle_ns
    # a stage without input rings gets one on which nothing ever comes: the compiler cannot type an empty tuple
    ends: list[Input | Output] = list(ins.values()) or [_no_ring(gating=(False,))]
    settings[C_FEEDBACK] = -1 if feedback is None else list(ins).index(feedback)
    settings[C_REFERENCE] = reference
    fold = Fold(
        in_ctl=tuple(end.ctl for end in ends),
        in_words=tuple(end.words for end in ends),
        in_loc=tuple(end.loc for end in ends),
        out_ctl=tuple(outs[e.name].ctl for e in data_outputs),
        out_words=tuple(outs[e.name].words for e in data_outputs),
        out_loc=tuple(outs[e.name].loc for e in data_outputs),
        out_burst=np.array([e.burst for e in data_outputs], np.int64),
        out_shift=np.full(len(data_outputs), lead_ns, np.int64),
        intake=outs[log.name] if log is not None else _no_ring(),
        arena=arena,
        reg=reg,
        checkpoint=world.checkpoints[name],
        board=board.page(world.board, topology.stage_id(name)),
        doorbells=world.board[: board.DOORBELL_WORDS],
        settings=settings,
    )
    return Parts(fold, ins, outs, state)


def _no_ring(gating: tuple[bool, ...] = ()) -> Output:
    """A ring that goes nowhere: stands where a stage with one input would have its intake log."""
    entry = next(entry for entry in topology.RINGS if entry.name.startswith("intake."))
    words = aligned_words(layout.payload_bytes(2, entry.record) // 8)
    layout.format_ring(words, entry.record, 2, gating=gating)
    return ring.output(words, entry.record, np.zeros(LOC_WORDS, np.int64), identity_words(entry.record))


def scratch(record: np.dtype, rows: int) -> tuple[Recs, Words]:
    """A private buffer into which a kernel writes its outputs: as records and as int64[rows, record words]."""
    words = aligned_words(rows * record.itemsize // 8)
    return words.view(record), words.reshape(rows, record.itemsize // 8)


@kernel
def emit(out: Output, rows: Words, at: int, cause_ring: int, cause_seq: int, origin_mono_ns: int, now: int) -> int:
    """Publish the record that a kernel wrote into row `at` of a scratch buffer, with its cause and stamps."""
    slot = begin(out)
    for k in range(rows.shape[1] - 1):
        out.words[slot, k] = rows[at, k]
    rec = out.recs[slot]
    rec.cause_seq = cause_seq
    rec.cause_ring = cause_ring
    rec.ts_origin_mono_ns = origin_mono_ns
    rec.ts_publish_mono_ns = now
    return commit(out)


@kernel
def emit_bare(out: Output, rows: Words, at: int, cause_ring: int, cause_seq: int) -> int:
    """`emit` for records without stamps."""
    slot = begin(out)
    for k in range(rows.shape[1] - 1):
        out.words[slot, k] = rows[at, k]
    rec = out.recs[slot]
    rec.cause_seq = cause_seq
    rec.cause_ring = cause_ring
    return commit(out)


@kernel
def emit_end(out: Output, ts_ns: int, cause_ring: int, cause_seq: int) -> int:
    """Publish END: nothing follows on this ring."""
    slot = begin(out)
    for k in range(out.words.shape[1] - 1):
        out.words[slot, k] = 0
    rec = out.recs[slot]
    rec.ts_ns = ts_ns
    rec.kind = 1  # Kind.END
    rec.symbol = -1
    rec.cause_seq = cause_seq
    rec.cause_ring = cause_ring
    return commit(out)


@kernel
def note_latency(page: Words, published: int, origin: int, now: int) -> None:
    """Count one record's hop (published to taken) and way (frame in to taken) in the stage's histograms."""
    h = board.HISTOGRAMS
    record_latency(page[h : h + HISTOGRAM_WORDS], now - published)
    record_latency(page[h + board.HISTOGRAM_WORDS : h + 2 * HISTOGRAM_WORDS], now - origin)


def core_of(name: str, cores: Any) -> int | None:
    """The core that the settings give a stage: by name, or by its place in a list; None: not pinned."""
    if isinstance(cores, Mapping):
        return cores.get(name)
    if isinstance(cores, Sequence) and cores:
        names = [stage.name for stage in topology.STAGES]
        return int(cores[names.index(name) % len(cores)])
    return None
