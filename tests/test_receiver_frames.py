"""The frames ring's writer: bytes arrive as they came, nothing is overwritten while it is held, what finds no room is told."""

from __future__ import annotations

import mmap
import os
import random
import signal
import zlib

import numpy as np
import pytest
from receiver_world import RingWorld

from procs.memory.arena import PAD
from procs.receiver.frames import NOWHERE, FrameWriter
from ringbuf import layout
from ringbuf.layout import CURSOR, TAIL, WATERMARK, reader_line
from trading.records import FRAME_RECORD, Kind

F = Kind.FRAME


def test_frames_arrive_byte_identical_and_in_order() -> None:
    """Any sizes, empty and odd ones included, come out as they went in, with their symbol and line."""
    world = RingWorld(capacity=64)
    writer = world.writer()
    rng = random.Random(1)
    sent = [(F, n % 3, n % 5, rng.randbytes(rng.choice([0, 1, 7, 8, 9, 63, 64, 500]))) for n in range(60)]
    for n, (_, symbol, line, raw) in enumerate(sent):
        assert writer.frame(memoryview(raw) if n % 2 else raw, symbol, line, n, 7, 100 + n) == n
    assert world.read() == sent
    assert writer.frames == 60 and writer.bytes == sum(len(raw) for *_, raw in sent)


def test_records_carry_what_the_feed_needs() -> None:
    """Time, counter, stamp and position; cause_ring says "a raw frame"; the symbol may be unknown."""
    world = RingWorld()
    writer = world.writer()
    writer.frame(b"hello", -1, 3, 17, 1234, 99)
    rec = world.recs[0]
    assert [int(rec[f]) for f in ("ts_ns", "cause_seq", "cause_ring", "kind", "symbol", "flags")] == [99, 17, -1, int(F), -1, 3]
    assert int(rec["ts_origin_mono_ns"]) == 1234
    assert world.arena[rec["at"] : rec["at"] + rec["length"]].tobytes() == b"hello"


def test_time_never_runs_backwards() -> None:
    """A wall clock that is set back does not make a record older than the one before, nor than a promise."""
    world = RingWorld()
    writer = world.writer()
    for now in (50, 40, 60):
        writer.frame(b"x", 0, 0, 0, 0, now)
    writer.promise(100)
    writer.promise(90)
    writer.frame(b"x", 0, 0, 0, 0, 70)
    assert [int(world.recs[n]["ts_ns"]) for n in range(4)] == [50, 50, 60, 100]
    assert world.ctl[WATERMARK] == 100


@pytest.mark.parametrize("seed", range(12))
def test_nothing_is_overwritten_while_it_is_held(seed: int) -> None:
    """Random sizes, random reading: each frame is whole when it is read, or its drop was answered; the arena is used up."""
    rng = random.Random(seed)
    world = RingWorld(capacity=rng.choice([8, 32, 128]), arena=rng.choice([4096, 5000, 1 << 14]))
    writer = world.writer()
    kept: list[bytes] = []
    read: list[bytes] = []
    for n in range(4000):
        if rng.random() < 0.5:
            raw = rng.randbytes(rng.choice([0, 3, 8, 100, 700, 1000]))
            if writer.frame(raw, 0, 0, n, 0, n) != NOWHERE:
                kept.append(raw)
        else:
            read += [raw for *_, raw in world.read(rng.randrange(12))]
        if n % 97 == 0:
            writer = world.writer()  # a new incarnation, at any point
    read += [raw for *_, raw in world.read()]
    assert read == kept and len(kept) > 1000


def test_an_empty_arena_takes_the_largest_frame_wherever_its_end_stands() -> None:
    """When nothing is held, a frame that does not fit behind the last one lies at the start."""
    world = RingWorld(arena=4096)
    writer = world.writer()
    big = b"y" * writer.largest
    for n in range(50):
        assert writer.frame(big, 0, 0, n, 0, n) != NOWHERE
        assert world.read()[0][3] == big
    assert writer.frame(b"z" * (writer.largest + 8), 0, 0, 0, 0, 99) == NOWHERE


@pytest.mark.parametrize(("capacity", "arena", "size"), [(8, 1 << 16, 16), (64, 4096, 512)])
def test_full_ring_or_arena_drops_and_then_tells_lost(capacity: int, arena: int, size: int) -> None:
    """What finds no room is dropped without waiting; LOST is told for each symbol before anything that follows."""
    world = RingWorld(capacity, arena)
    writer = world.writer()
    n = 0
    while writer.frame(bytes([n % 251]) * size, 1, 0, n, 0, n) != NOWHERE:
        n += 1
    writer.lost(0, (1, 2), n)
    held = len(world.peek())
    for _ in range(100):
        assert writer.frame(b"q" * size, 1, 0, n, 0, n) == NOWHERE
        writer.lost(0, (1,), n)
    assert writer.dropped == 101 and writer.owed <= 2
    assert [raw for kind, *_, raw in world.read() if kind is F] == [bytes([k % 251]) * size for k in range(n)]
    assert writer.frame(b"next", 1, 0, n, 0, n) != NOWHERE
    told = world.read()
    assert told[-1] == (F, 1, 0, b"next")
    lost = [(kind, symbol) for kind, symbol, *_ in told[:-1]]
    assert held <= capacity and set(lost) <= {(Kind.LOST, 1), (Kind.LOST, 2)} and (Kind.LOST, 1) in lost


def test_line_notices_wait_for_room_in_their_order() -> None:
    """While the ring is full, UP after DOWN stays behind it, DOWN swallows what came before, and frames come last."""
    world = RingWorld(capacity=4)
    writer = world.writer()
    for n in range(4):
        writer.frame(b"x", 0, 0, n, 0, n)
    writer.line_up(1, (5,), 10)
    writer.line_down(1, (5,), 11)
    writer.line_up(1, (5,), 12)
    writer.lost(1, (5,), 13)
    assert writer.frame(b"late", 5, 1, 0, 0, 14) == NOWHERE
    world.read()
    writer.promise(20)
    assert [kind for kind, *_ in world.read()] == [Kind.LINE_DOWN, Kind.LINE_UP, Kind.LOST]
    assert writer.frame(b"now", 5, 1, 0, 0, 21) != NOWHERE and writer.owed == 0


def test_bytes_of_a_record_are_given_until_they_are_overwritten() -> None:
    """An odd frame can be looked at later, and is never somebody else's bytes."""
    world = RingWorld(capacity=256, arena=8192)
    writer = world.writer()
    rng = random.Random(3)
    sent = {}
    for n in range(400):
        raw = rng.randbytes(rng.randrange(1, 300))
        sent[writer.frame(raw, 0, 2, n, 0, n)] = raw
        world.read()
        for sequence in rng.sample(sorted(sent), min(5, len(sent))):
            assert writer.bytes_of(sequence) in (None, sent[sequence])
    assert writer.bytes_of(399) == sent[399] and writer.record_of(399) == (0, 2)
    assert writer.bytes_of(0) is None and writer.bytes_of(400) is None and world.writer().bytes_of(399) is None


def _child(words: np.ndarray, arena: np.ndarray) -> None:
    writer = FrameWriter(words, arena)
    n = 0
    while True:
        body = n.to_bytes(8, "little") * (1 + n % 60)
        if writer.frame(zlib.crc32(body).to_bytes(4, "little") + body, 0, 0, n, 0, n) != NOWHERE:
            n += 1


def test_after_kill_9_the_next_writer_goes_on_and_nothing_is_torn() -> None:
    """A writer killed at any point leaves whole records only; its successor's frames follow theirs without a gap in the ring."""
    capacity, arena_bytes = 64, 1 << 14
    size = layout.payload_bytes(capacity, FRAME_RECORD)
    shared = mmap.mmap(-1, size + 4096 + arena_bytes + PAD)
    words = np.frombuffer(shared, np.int64, size // 8)
    arena = np.frombuffer(shared, np.uint8, arena_bytes + PAD, (size + 4095) // 4096 * 4096)
    layout.format_ring(words, FRAME_RECORD, capacity)
    ctl, _, recs = layout.views(words, FRAME_RECORD)
    FrameWriter(words, arena)  # compiled before the fork
    head = 0
    for turn in range(8):
        pid = os.fork()
        if pid == 0:
            try:
                _child(words, arena)
            finally:
                os._exit(1)
        goal = head + 500 + 37 * turn
        while head < goal:
            rec = recs[head & (capacity - 1)]
            if rec["seq"] != head + 1:
                continue
            at, length = int(rec["at"]), int(rec["length"])
            raw = arena[at : at + length].tobytes()
            assert zlib.crc32(raw[4:]).to_bytes(4, "little") == raw[:4]
            head += 1
            ctl[reader_line(0) + CURSOR] = head
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    writer = FrameWriter(words, arena)
    assert writer.tail >= head and ctl[TAIL] == writer.tail
    while head < writer.tail:
        assert recs[head & (capacity - 1)]["seq"] == head + 1
        head += 1
