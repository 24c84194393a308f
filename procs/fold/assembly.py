"""How a stage is put together: its arena, its ends of the rings, its fold; and how a record is emitted.

The same builder serves the pipeline (rings in shared segments) and the backtest (the same rings on the heap): a `World`
says where the words are. A stage module gives `state_spec`, `build`, `warm` and its handlers (procs.fold.loop).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from procs import topology
from procs.fold import block
from procs.fold import far_calls as apart
from procs.fold.block import (
    A_SLOTS,
    IN,
    IN_STRIDE,
    OWN,
    R_UNTIMED,
    REGISTERS,
    in_ctl,
    in_loc,
    in_slots,
    out_ctl,
    out_identity,
    out_loc,
    out_slots,
    registers,
)
from procs.fold.checkpoint import checkpoint_words
from procs.fold.stamps import W_ORIGIN, W_PUBLISH, note_published
from procs.memory import board
from procs.memory.segments import aligned_words, format_ring
from ringbuf import layout
from ringbuf.intrinsics import recs_at, words2_at
from ringbuf.jit import Recs, Words, kernel
from ringbuf.layout import CAPACITY, RING_ID
from ringbuf.ring import I_ENDLESS, I_HEAD, I_READER, I_RELEASED, I_SHIFT, I_TIMED, LOC_WORDS, open_slot, publish_slot
from trading.records import (
    DEPTH_RECORD,
    MARKET_RECORD,
    ORDER_RECORD,
    QUOTE_RECORD,
    REPORT_RECORD,
    SIGNAL_RECORD,
    TS_END,
    VECTOR_RECORD,
    Kind,
    identity_words,
    layout_hash,
)

W_CAUSE_SEQ: Final = 1
W_CAUSE_RING: Final = 2  # low half; the kind is the high half
W_SYMBOL: Final = 3  # low half; flags are the high half
LOW_HALF: Final = 0xFFFFFFFF
HIGH_HALF: Final = ~LOW_HALF
END_HIGH: Final = int(Kind.END) << 32


def _offset(record: np.dtype, name: str) -> int:
    assert record.fields is not None
    return int(record.fields[name][1])


for _record in (MARKET_RECORD, SIGNAL_RECORD, VECTOR_RECORD, QUOTE_RECORD, ORDER_RECORD, REPORT_RECORD, DEPTH_RECORD):
    assert _offset(_record, "cause_seq") == W_CAUSE_SEQ * 8 and _offset(_record, "cause_ring") == W_CAUSE_RING * 8
    assert _offset(_record, "kind") == W_CAUSE_RING * 8 + 4 and _offset(_record, "symbol") == W_SYMBOL * 8
    if _record is not DEPTH_RECORD:
        assert _offset(_record, "ts_origin_mono_ns") == W_ORIGIN * 8
        assert _offset(_record, "ts_publish_mono_ns") == W_PUBLISH * 8

StateSpec = Sequence[tuple[str, np.dtype, int]]
"""A stage's own state: (name, record dtype, how many), all of 8-byte words."""

IDLE_NS: Final = 100_000_000
"""Longest sleep: bounds how stale a heartbeat can be."""

FRAME: Final = -1
"""`cause_ring` of a record that answers a raw frame."""


@dataclass(slots=True)
class World:
    """Where the shared words are."""

    rings: Mapping[str, Words]
    board: Words
    checkpoints: Mapping[str, Words]
    arena: npt.NDArray[np.uint8] | None = None  # bytes of the frames off the wire
    models: Words | None = None  # procs.memory.model_channel; None: no model can be published
    outside: frozenset[str] = topology.Run().outside  # rings whose records get their time where they enter


@dataclass(slots=True)
class LoopSettings:
    """How a stage's loop waits and checkpoints."""

    strategy: int = block.SPIN
    spin: int = 100
    checkpoint_every: int = 1024
    batch: int = 64
    frames: int = 256  # a poll of the feed; few in a group, where a burst would else be decoded whole before the first decision
    timed: bool = True
    idle_ns: int = IDLE_NS
    look: bool = False  # see through other stages (procs.fold.look); where all share a thread, watermarks cost nothing


@dataclass(slots=True)
class Bound:
    """A stage bound to its rings: the block that its compiled functions take, and what keeps the memory alive."""

    block: Words
    arena: Words
    state: dict[str, Recs]
    settings: LoopSettings
    keep: list[Any] = field(default_factory=list)
    own: int = 0

    @property
    def registers(self) -> Words:
        """The arena's registers (procs.fold.block)."""
        return self.arena[: block.REGISTERS]

    def give(self, *arrays: npt.NDArray[Any]) -> None:
        """Put the stage's own arrays into the block, in this order: the compiled side finds them by number (`own`)."""
        for array in arrays:
            assert array.flags.c_contiguous
            at = block.OWN + 2 * self.own
            assert at < block.CALLS
            self.block[at], self.block[at + 1] = array.ctypes.data, array.shape[0]
            self.keep.append(array)
            self.own += 1


def _rows(name: str) -> int:
    return len(topology.inputs(name)) + len(topology.outputs(name)) + 1


def arena_words(name: str, spec: StateSpec) -> int:
    """Words of a stage's arena, rounded up to whole cache lines."""
    own = sum(dtype.itemsize // 8 * count for _, dtype, count in spec)
    return -(-(REGISTERS + _rows(name) * LOC_WORDS + own) // 8) * 8


def spec_of(module: Any, plan: Any) -> StateSpec:
    """What a stage's module keeps under a plan: `plan_spec(plan)` where more than the number of symbols decides."""
    found: StateSpec = module.plan_spec(plan) if hasattr(module, "plan_spec") else module.state_spec(plan.symbols)
    return found


def fold_layout(spec: StateSpec) -> int:
    """Layout hash of a stage's checkpoints: from another state layout nobody resumes."""
    text = ";".join(f"{key}:{layout_hash(dtype)}:{count}" for key, dtype, count in spec)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 2


def heap_world(
    specs: Mapping[str, StateSpec], groups: Sequence[Sequence[str]] = (), outside: frozenset[str] = topology.Run().outside
) -> World:
    """The pipeline's rings, board and checkpoints on this process's heap (backtest, warm-up, tests)."""
    rings: dict[str, Words] = {}
    for entry in topology.RINGS:
        words = aligned_words(layout.payload_bytes(entry.capacity, entry.record) // 8)
        format_ring(words, entry, groups=groups)
        rings[entry.name] = words
    checkpoints = {name: aligned_words(checkpoint_words(arena_words(name, spec))) for name, spec in specs.items()}
    return World(rings, aligned_words(board.BOARD_WORDS), checkpoints, outside=outside)


def assemble(
    name: str,
    world: World,
    spec: StateSpec,
    loop: LoopSettings,
    *,
    shifts: Mapping[str, int] | None = None,
    lead_ns: int = 0,
) -> Bound:
    """Lay out a stage's arena and fill its block with the addresses of its ends of the rings.

    `shifts` puts an input's records later in the merge (ns), `lead_ns` is how far the outputs' watermarks lead the inputs'.
    """
    stage, inputs, log = topology.STAGE[name], topology.inputs(name), topology.intake(name)
    outputs = [entry for entry in topology.outputs(name) if entry is not log]
    words = arena_words(name, spec)
    arena, b = aligned_words(words), aligned_words(block.BLOCK_WORDS)
    page = board.page(world.board, topology.stage_id(name))
    bound = Bound(b, arena, {}, loop, [world, arena, page])
    at = block.REGISTERS

    def row() -> Words:
        nonlocal at
        at += LOC_WORDS
        return arena[at - LOC_WORDS : at]

    for r, entry in enumerate(inputs):
        reader = entry.reader_index(name)
        loc = row()
        loc[I_READER], loc[I_TIMED], loc[I_RELEASED] = reader, entry.name not in world.outside, -1
        loc[I_ENDLESS] = entry.writer == topology.SUPERVISOR
        loc[I_SHIFT] = (shifts or {}).get(entry.name, 0)
        ctl, slots, _ = layout.views(world.rings[entry.name], entry.record)
        _place(b, block.IN + r * block.IN_STRIDE, ctl, slots, loc)
    for o, entry in enumerate([*outputs, log] if log is not None else outputs):
        loc, identity = row(), identity_words(entry.record)
        ctl, slots, _ = layout.views(world.rings[entry.name], entry.record)
        start = block.OUT + o * block.OUT_STRIDE
        _place(b, start, ctl, slots, loc)
        b[start + block.A_BURST], b[start + block.A_LEAD] = entry.burst, lead_ns
        b[start + block.A_IDENTITY], b[start + block.A_IDENTITY_COUNT] = identity.ctypes.data, identity.size
        bound.keep.append(identity)
    for key, dtype, count in spec:
        size = dtype.itemsize // 8 * count
        bound.state[key] = arena[at : at + size].view(dtype)
        at += size
    bound.registers[block.R_INTERNAL_DUE] = TS_END
    bound.registers[block.R_WAIT_NS] = loop.idle_ns
    b[block.ARENA], b[block.ARENA_WORDS] = arena.ctypes.data, words
    b[block.CHECKPOINT], b[block.PAGE] = world.checkpoints[name].ctypes.data, page.ctypes.data
    assert world.checkpoints[name].size >= checkpoint_words(words)
    b[block.DOORBELLS] = world.board.ctypes.data
    b[block.INPUTS], b[block.OUTPUTS], b[block.LOG] = len(inputs), len(outputs), -1 if log is None else len(outputs)
    b[block.STRATEGY], b[block.SPIN_POLLS] = loop.strategy, loop.spin
    b[block.CHECKPOINT_EVERY], b[block.BATCH] = loop.checkpoint_every, loop.batch
    first = inputs[0]  # the rings say which doorbell is whose: a group's members share one
    ctl, _, _ = layout.views(world.rings[first.name], first.record)
    b[block.DOORBELL] = ctl[layout.READER_DOORBELL + first.reader_index(name)]
    b[block.FRAMES_A_POLL] = loop.frames
    b[block.STAGE] = topology.stage_id(name)
    b[block.TIMED], b[block.IDLE_NS] = loop.timed, loop.idle_ns
    b[block.FEEDBACK] = stage.inputs.index(stage.feedback) if stage.feedback else -1
    b[block.REFERENCE] = [out.name for out in outputs].index(stage.reference) if stage.reference else block.BY_INPUT
    stamped = (entry.timed and "ts_publish_mono_ns" in (entry.record.names or ()) for entry in inputs)
    b[block.STAMPED] = sum(1 << r for r, said in enumerate(stamped) if said)
    apart.link(b, stage.module)
    calls = b[block.CALLS :]
    handled = calls[block.POLL] or (calls[block.ENDED] and calls[: len(inputs)].all())
    assert handled or not calls.any(), f"{name}: the loop has no handler for one of its inputs, or for its end"
    return bound


def _place(b: Words, at: int, ctl: Words, slots: Words, loc: Words) -> None:
    """Addresses of one end of a ring."""
    b[at + block.A_CTL], b[at + block.A_SLOTS] = ctl.ctypes.data, slots.ctypes.data
    b[at + block.A_LOC], b[at + block.A_WIDTH] = loc.ctypes.data, slots.shape[1]


def scratch(record: np.dtype, rows: int) -> Recs:
    """A private buffer into which a kernel writes its outputs."""
    return aligned_words(rows * record.itemsize // 8).view(record)


@kernel
def own(b: Words, k: int, dtype: Any) -> Recs:
    """The stage's own array number `k` (in the order of Bound.give), as records of this dtype."""
    return recs_at(b[OWN + 2 * k], b[OWN + 2 * k + 1], dtype)


@kernel
def own_words(b: Words, k: int, width: int) -> Words:
    """The stage's own array number `k` as int64[rows, width]."""
    return words2_at(b[OWN + 2 * k], b[OWN + 2 * k + 1], width)


@kernel
def in_recs(b: Words, r: int, dtype: Any) -> Recs:
    """An input's slots as records."""
    at = IN + r * IN_STRIDE
    return recs_at(b[at + A_SLOTS], in_ctl(b, r)[CAPACITY] + 1, dtype)


@kernel
def in_row(b: Words, r: int) -> int:
    """Row of the record that is next on this input."""
    return in_loc(b, r)[I_HEAD] & (in_ctl(b, r)[CAPACITY] - 1)


@kernel
def in_time(b: Words, r: int) -> int:
    """When the record that is next on this input takes effect here: its `ts_ns`, put later by the input's shift; from outside,
    the time that it was given where it entered."""
    if in_loc(b, r)[I_TIMED] == 0:
        return registers(b)[R_UNTIMED]
    return in_slots(b, r)[in_row(b, r), 0] + in_loc(b, r)[I_SHIFT]


@kernel
def emit(b: Words, o: int, rows: Words, at: int, cause_ring: int, cause_seq: int, origin_mono_ns: int, now: int) -> int:
    """Publish the record that a kernel wrote into row `at` of a scratch buffer, with its cause and its stamps.

    `now`: when its cause was taken; the stamp is read as late as can be, for the readers' hops begin with it.
    """
    ctl, slots, loc = out_ctl(b, o), out_slots(b, o), out_loc(b, o)
    slot = open_slot(ctl, slots, loc)
    for k in range(rows.shape[1] - 1):
        slots[slot, k] = rows[at, k]
    slots[slot, W_CAUSE_SEQ] = cause_seq
    slots[slot, W_CAUSE_RING] = (rows[at, W_CAUSE_RING] & HIGH_HALF) | (cause_ring & LOW_HALF)
    slots[slot, W_ORIGIN] = origin_mono_ns
    slots[slot, W_PUBLISH] = note_published(b, o, now)
    return publish_slot(ctl, slots, loc, out_identity(b, o))


@kernel
def emit_bare(b: Words, o: int, rows: Words, at: int, cause_ring: int, cause_seq: int) -> int:
    """`emit` for records without stamps."""
    ctl, slots, loc = out_ctl(b, o), out_slots(b, o), out_loc(b, o)
    slot = open_slot(ctl, slots, loc)
    for k in range(rows.shape[1] - 1):
        slots[slot, k] = rows[at, k]
    slots[slot, W_CAUSE_SEQ] = cause_seq
    slots[slot, W_CAUSE_RING] = (rows[at, W_CAUSE_RING] & HIGH_HALF) | (cause_ring & LOW_HALF)
    return publish_slot(ctl, slots, loc, out_identity(b, o))


@kernel
def emit_end(b: Words, o: int, ts_ns: int, cause_ring: int, cause_seq: int) -> int:
    """Publish END: nothing follows on this ring. Its symbol is -1."""
    ctl, slots, loc = out_ctl(b, o), out_slots(b, o), out_loc(b, o)
    slot = open_slot(ctl, slots, loc)
    for k in range(slots.shape[1] - 1):
        slots[slot, k] = 0
    slots[slot, 0] = ts_ns
    slots[slot, W_CAUSE_SEQ] = cause_seq
    slots[slot, W_CAUSE_RING] = END_HIGH | (cause_ring & LOW_HALF)
    slots[slot, W_SYMBOL] = LOW_HALF
    return publish_slot(ctl, slots, loc, out_identity(b, o))


@kernel
def pass_end(b: Words, o: int, r: int) -> int:
    """Publish END on an output as the answer to the END that is next on this input."""
    return emit_end(b, o, in_time(b, r), in_ctl(b, r)[RING_ID], in_loc(b, r)[I_HEAD])
