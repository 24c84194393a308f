"""The writing end of the frames ring and its byte arena: each frame is copied once, then published. It never waits.

Reuse of bytes: a record keeps its bytes until all gating readers have released it. Every record, also one without bytes, says in
`at` where the arena's end was when it was written; so the oldest record that is still held bounds what is free, and the last
record tells a restarted writer where to go on. The arena is never filled to the last 8 bytes: "end at the oldest record's
bytes" then always means that nothing is held.

No room: the frame is dropped (a venue cannot be told to wait), and its symbols are owed a LOST. Notices (LINE_UP, LINE_DOWN,
LOST) that found no room are owed as well, at most one set a symbol and line, and go out before the next frame.

The copy is a memoryview assignment, the record one call of a small kernel with integer arguments: a call with arrays
costs more than the stores it makes. Plain Python stores measured the same, and only on x86 would they be in order.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from procs.memory.arena import ALIGN, LARGEST_SHARE, PAD
from ringbuf import layout
from ringbuf.intrinsics import words2_at, words_at
from ringbuf.jit import Words, kernel
from ringbuf.layout import CAPACITY, CONTROL_WORDS, WATERMARK
from ringbuf.ring import (
    LOC_WORDS,
    O_GATE,
    O_TAIL,
    flush,
    open_at,
    own_doorbells,
    publish_at,
    smallest_cursor,
    step,
    succeed,
)
from ringbuf.waiting import register
from trading.records import FRAME_RECORD, Kind

WIDTH: Final = FRAME_RECORD.itemsize // 8
W_TS, W_CAUSE, W_KIND, W_SYMBOL, W_AT, W_LENGTH, W_ORIGIN, W_SEQ = range(8)
assert FRAME_RECORD.fields is not None and WIDTH == 8
assert FRAME_RECORD.fields["at"][1] == W_AT * 8 and FRAME_RECORD.fields["length"][1] == W_LENGTH * 8

# the kernels' block
B_CTL, B_SLOTS, B_CAPACITY, B_LOC, B_SIZE, B_END, B_BELLS, B_BELL_COUNT, B_LIMIT, B_BEGAN, B_WRITTEN, B_LAST_NS = range(12)
B_LEAD_NS: Final = 12
BLOCK: Final = 16
NOWHERE: Final = -1
_NO_CAUSE: Final = 0xFFFFFFFF  # cause_ring -1
_FRAME: Final = int(Kind.FRAME)


@kernel
def _publish(block: int, ts_ns: int, count: int, kind: int, symbol: int, line: int, at: int, length: int, origin_ns: int) -> int:
    """Write one record at the tail, show it, wake who sleeps; the new tail. There is room. Time never runs backwards."""
    b = words_at(block, BLOCK)
    loc = words_at(b[B_LOC], LOC_WORDS)
    tail = loc[O_TAIL]
    b[B_LAST_NS] = max(b[B_LAST_NS], ts_ns + b[B_LEAD_NS])
    words_at(b[B_BEGAN], b[B_CAPACITY])[tail & (b[B_CAPACITY] - 1)] = b[B_WRITTEN]
    b[B_WRITTEN] += (length + ALIGN - 1) & ~(ALIGN - 1)
    slots = words2_at(b[B_SLOTS], b[B_CAPACITY] + 1, WIDTH)
    row = open_at(slots, tail)
    slots[row, W_TS] = b[B_LAST_NS]
    slots[row, W_CAUSE] = count
    slots[row, W_KIND] = kind << 32 | _NO_CAUSE
    slots[row, W_SYMBOL] = line << 32 | (symbol & 0xFFFFFFFF)
    slots[row, W_AT] = at
    slots[row, W_LENGTH] = length
    slots[row, W_ORIGIN] = origin_ns
    publish_at(slots, tail)
    step(loc, 1)
    b[B_END] = (at + length + ALIGN - 1) & ~(ALIGN - 1)
    flush(words_at(b[B_CTL], CONTROL_WORDS), loc, 0, words_at(b[B_BELLS], b[B_BELL_COUNT]))
    return tail + 1


@kernel
def _find_room(block: int, need: int) -> int:
    """Where `need` bytes (a multiple of 8) fit in one piece, -1 where nowhere or where the ring is full.

    Leaves in the block the gate that was seen and the end of the free piece (B_LIMIT).
    """
    b = words_at(block, BLOCK)
    loc = words_at(b[B_LOC], LOC_WORDS)
    tail = loc[O_TAIL]
    gate = loc[O_GATE] = min(smallest_cursor(words_at(b[B_CTL], CONTROL_WORDS)), tail)
    if tail - gate >= b[B_CAPACITY]:
        return -1
    size, end = b[B_SIZE], b[B_END]
    if gate == tail:
        b[B_LIMIT] = size
        if end + need <= size:
            return end
        return 0 if need <= size else -1
    oldest = words2_at(b[B_SLOTS], b[B_CAPACITY] + 1, WIDTH)[gate & (b[B_CAPACITY] - 1), W_AT]
    if end >= oldest:
        b[B_LIMIT] = size
        if end + need <= size:
            return end
        b[B_LIMIT] = oldest - ALIGN
        return 0 if need <= oldest - ALIGN else -1
    b[B_LIMIT] = oldest - ALIGN
    return end if end + need <= oldest - ALIGN else -1


@kernel
def _promise(block: int, watermark_ns: int) -> None:
    """Raise the watermark and wake who sleeps."""
    b = words_at(block, BLOCK)
    b[B_LAST_NS] = max(b[B_LAST_NS], watermark_ns + b[B_LEAD_NS])
    flush(words_at(b[B_CTL], CONTROL_WORDS), words_at(b[B_LOC], LOC_WORDS), b[B_LAST_NS], words_at(b[B_BELLS], b[B_BELL_COUNT]))


class FrameWriter:
    """The one writer of the frames ring.

    ring: int64, the ring segment's payload; doorbells: int64 that its doorbell numbers index (None: the ring's own); arena:
    writable uint8 of the arena's segment, PAD included. Goes on after the last record that was published, whoever wrote it.
    """

    def __init__(self, ring: Words, arena: npt.NDArray[np.uint8], doorbells: Words | None = None) -> None:
        ctl, slots, recs = layout.views(ring, FRAME_RECORD)
        bells = own_doorbells(ring) if doorbells is None else doorbells
        layout.check_state(ctl, bells.size)
        register()
        self._loc: Final = np.zeros(LOC_WORDS, np.int64)
        self._keep: Final[Any] = (ring, arena, bells)
        self._recs: Final = recs
        self.capacity: Final = int(ctl[CAPACITY])
        self.size: Final = (arena.size - PAD) & ~(ALIGN - 1)
        self.largest: Final = self.size // LARGEST_SHARE
        self._bytes: Final = arena.data
        watermark = int(ctl[WATERMARK])
        succeed(ctl, slots, self._loc, bells)
        tail = int(self._loc[O_TAIL])
        last = recs[(tail - 1) & (self.capacity - 1)] if tail else None
        end = 0 if last is None else int(last["at"] + last["length"] + ALIGN - 1) & ~(ALIGN - 1)
        self._block: Final = np.zeros(BLOCK, np.int64)
        self._block[:B_SIZE] = ctl.ctypes.data, slots.ctypes.data, self.capacity, self._loc.ctypes.data
        self._block[B_SIZE:B_LIMIT] = self.size, end, bells.ctypes.data, bells.size
        self._at: Final = int(self._block.ctypes.data)
        self.tail = tail
        self._end, self._limit, self._ring_limit = end, 0, 0  # the first frame looks
        self._block[B_LAST_NS] = max(watermark, 0 if last is None else int(last["ts_ns"]))
        # where each record's bytes began, in bytes written since we started: tells whether they have been overwritten
        self._began: Final = np.zeros(self.capacity, np.int64)
        self._block[B_BEGAN] = self._began.ctypes.data
        self._first: Final = tail
        self._owed: dict[tuple[int, int], list[bool]] = {}
        self.frames = self.bytes = self.dropped = 0

    def frame(
        self, payload: bytes | memoryview, symbol: int, line: int, count: int, origin_ns: int, now_ns: int, kind: int = _FRAME
    ) -> int:
        """Copy and publish one frame; its sequence, or NOWHERE: it was dropped, and the caller says who lost it (`lost`).

        payload: contiguous bytes; count: the line's message counter; origin_ns: CLOCK_MONOTONIC when it arrived; now_ns: Unix.
        """
        length = len(payload)
        need = (length + 7) & ~7
        at, tail = self._end, self.tail
        if self._owed or tail >= self._ring_limit or at + need > self._limit or length > self.largest:
            at = self._room(need, now_ns)
            if at < 0:
                self.dropped += 1
                return NOWHERE
            tail = self.tail
        self._bytes[at : at + length] = payload
        self.tail = _publish(self._at, now_ns, count, kind, symbol, line, at, length, origin_ns)
        self._end = at + need
        self.frames += 1
        self.bytes += length
        return tail

    def line_up(self, line: int, symbols: Iterable[int], now_ns: int) -> None:
        """Tell that these symbols' streams on this line are subscribed."""
        self._owe(line, symbols, 1)
        self.settle(now_ns)

    def line_down(self, line: int, symbols: Iterable[int], now_ns: int) -> None:
        """Tell that they are not any more."""
        self._owe(line, symbols, 0)
        self.settle(now_ns)

    def lost(self, line: int, symbols: Iterable[int], now_ns: int) -> None:
        """Tell that frames of these symbols are missing from this line."""
        self._owe(line, symbols, 2)
        self.settle(now_ns)

    def settle(self, now_ns: int) -> bool:
        """Tell what is owed as far as there is room; whether nothing is owed any more."""
        while self._owed:
            (line, symbol), (down, up, lost) = next(iter(self._owed.items()))
            for owed, kind in ((down, Kind.LINE_DOWN), (up, Kind.LINE_UP), (lost, Kind.LOST)):
                if owed and not self._notice(int(kind), line, symbol, now_ns):
                    return False
                if owed:
                    self._owed[line, symbol][(Kind.LINE_DOWN, Kind.LINE_UP, Kind.LOST).index(kind)] = False
            del self._owed[line, symbol]
        return True

    @property
    def owed(self) -> int:
        """Symbols and lines with something to tell that found no room yet."""
        return len(self._owed)

    def promise(self, now_ns: int) -> None:
        """Raise the watermark to `now_ns`: what follows is not older. Settles first what is owed."""
        if self._owed:
            self.settle(now_ns)
        _promise(self._at, now_ns)

    def lead(self, lead_ns: int) -> None:
        """From now on the session's time is so far ahead of the `now_ns` that is handed in (procs.receiver.clock)."""
        self._block[B_LEAD_NS] = lead_ns

    def bytes_of(self, sequence: int) -> bytes | None:
        """The bytes of a record that this incarnation wrote; None if the ring or the arena has gone over them since."""
        row = sequence & (self.capacity - 1)
        rec = self._recs[row]
        if not self._first <= sequence < self.tail or rec["seq"] != sequence + 1:
            return None
        # between its writing and its being overwritten the end of the arena is skipped once, for at most a frame's bytes
        if int(self._block[B_WRITTEN]) - int(self._began[row]) + self.largest > self.size:
            return None
        at = int(rec["at"])
        return bytes(self._bytes[at : at + int(rec["length"])])

    def record_of(self, sequence: int) -> tuple[int, int]:
        """(symbol, line) of a record that is still in the ring, else (-1, -1)."""
        rec = self._recs[sequence & (self.capacity - 1)]
        return (int(rec["symbol"]), int(rec["flags"])) if rec["seq"] == sequence + 1 else (-1, -1)

    def _owe(self, line: int, symbols: Iterable[int], what: int) -> None:
        for symbol in symbols:
            owed = self._owed.setdefault((line, symbol), [False, False, False])
            if what == 0:
                owed[:] = [True, False, False]  # what was to be told before does not matter any more
            else:
                owed[what] = True

    def _room(self, need: int, now_ns: int) -> int:
        if need > self.largest or not self.settle(now_ns):
            return NOWHERE
        at = int(_find_room(self._at, need))
        self._limit, self._ring_limit = int(self._block[B_LIMIT]), int(self._loc[O_GATE]) + self.capacity
        if at < 0:
            self._limit = 0  # look again next time
        return at

    def _notice(self, kind: int, line: int, symbol: int, now_ns: int) -> bool:
        if self.tail >= self._ring_limit:
            _find_room(self._at, 0)
            self._ring_limit = int(self._loc[O_GATE]) + self.capacity
            self._limit = 0
            if self.tail >= self._ring_limit:
                return False
        self.tail = _publish(self._at, now_ns, 0, kind, symbol, line, self._end, 0, 0)
        return True
