"""The ends of a ring for Python code: processes that do I/O, users, notebooks. Compiled loops use ringbuf.ring itself.

    create_ring(name, record, capacity)      make a ring in a segment of its own
    open_writer, open_reader, open_observer  attach by name; a dead owner is succeeded, a living one refuses
    Writer, Reader, Observer                 over words that are mapped already (a pipeline's), for whom the caller vouches

    RingError
    |-- RingFull        push waited as long as it was allowed to
    `-- RingClosed      used after close()

A call costs about a microsecond (from Python into a compiled function: 330 ns), so poll many records at once.

What a crash leaves, and what the next owner does. Writer: the slot that it had opened is unreadable and is opened again;
numbering goes on after the last published record. Reader: it starts again at its released cursor. `poll` releases
what it returns before its caller has used it (a crash loses that batch for this reader); `view` and `release` let the
caller release when done (a crash repeats that batch). Exactly-once is the business of procs.fold.loop.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from ringbuf import batch, layout, ring, waiting
from ringbuf.intrinsics import MEMBARRIER_GLOBAL_EXPEDITED, membarrier, store_release
from ringbuf.jit import Words, lean
from ringbuf.layout import (
    CAPACITY,
    CURSOR,
    FENCED,
    GATING,
    LOSSY,
    OVERRUNS,
    POSITION,
    READERS,
    TAIL,
    WRITER_DOORBELL,
    RingLayoutError,
    reader_line,
)
from ringbuf.ring import I_HEAD, I_READER, I_RELEASED, LOC_WORDS, O_TAIL
from shm import owner
from shm.errors import RoleHeld, SegmentMissing
from shm.layout import ROLES, SegmentKind
from shm.segment import Segment

Recs = npt.NDArray[Any]
S = TypeVar("S", bound="End")

WRITER_ROLE: Final = 0
FOREVER_NS: Final = 1 << 60


class RingError(Exception):
    """Base of this module's errors."""


class RingFull(RingError):
    """There was no room in time: some gating reader does not keep up (`Writer.laggard` says which)."""


class RingClosed(RingError):
    """The end was used after close()."""


@lean
def _store(words: Words, index: int, value: int) -> None:
    store_release(words, index, value)


@lean
def _barrier() -> int:
    return membarrier(MEMBARRIER_GLOBAL_EXPEDITED)


def reader_role(reader: int) -> int:
    """The segment role of a reader. RingLayoutError for one beyond the roles that a segment has."""
    if not 0 <= reader < ROLES - 1:
        raise RingLayoutError(f"reader {reader}: a segment has roles for readers 0..{ROLES - 2}")
    return 1 + reader


def create_ring(
    name: str, record: np.dtype, capacity: int, *, gating: tuple[bool, ...] = (True,), lossy: bool = False, **wishes: Any
) -> Segment:
    """Make a ring of `capacity` records (a power of two) in a segment `name` (/scalper.<instance>.<what>).

    `gating[r]`: whether reader r holds the writer back; `lossy`: the writer never waits. `wishes` go to Segment.create
    (numa_node, huge, lock, ...). RingLayoutError, and the errors of Segment.create; nothing is left after any.
    """
    layout.check_capacity(capacity)
    if len(gating) >= ROLES:
        raise RingLayoutError(f"{len(gating)} readers: a segment has roles for {ROLES - 1}")
    fingerprint = layout.record_hash(record)
    payload = layout.payload_bytes(capacity, record)
    numbers = {"kind": SegmentKind.RING, "segment_id": 0, **wishes}
    segment = Segment.create(name, payload, layout_hash=fingerprint, **numbers)
    try:
        layout.format_ring(segment.words, record, capacity, gating=gating, lossy=lossy, record_hash=fingerprint)
    except BaseException:
        segment.unlink()
        segment.close()
        raise
    return segment


class End:
    """What all ends share: views of the ring, private bookkeeping; opened by name, also the segment and the role in it.

    words: the ring's payload, int64; doorbells: int64 that its doorbell numbers index (a pipeline's are on its board), None
    for the ring's own. RingLayoutError where the words contradict each other.
    """

    def __init__(self, words: Words, record: np.dtype, doorbells: Words | None) -> None:
        self.ctl, self.slots, self.recs = layout.views(words, record)
        self.record: Final = record
        self.doorbells: Final[Words] = ring.own_doorbells(words) if doorbells is None else doorbells
        layout.check_state(self.ctl, self.doorbells.size)
        self.capacity: Final = int(self.ctl[CAPACITY])
        self.loc: Final[Words] = np.zeros(LOC_WORDS, np.int64)
        self.epoch = 0
        self._closed = False
        self._at_close = contextlib.ExitStack()

    def close(self) -> None:
        """Give the role back and let go of the segment; again is allowed. The segment itself stays."""
        if not self._closed:
            self._closed = True
            del self.ctl, self.slots, self.recs
            self._at_close.close()

    def __enter__(self: S) -> S:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self) -> None:
        if self._closed:
            raise RingClosed("this end of the ring was closed; open it again")

    def _buffer(self, rows: int) -> Words:
        self._open()
        return np.empty((rows, self.slots.shape[1]), np.int64)

    @property
    def tail(self) -> int:
        """The writer's tail as last shown: so many records have been published at least."""
        self._open()
        return int(self.ctl[TAIL])


class Writer(End):
    """The writing end. One a ring: opening a second one by name while the first lives is RoleHeld."""

    def __init__(self, words: Words, record: np.dtype, doorbells: Words | None = None) -> None:
        super().__init__(words, record, doorbells)
        waiting.register()
        self._identity: Final[Words] = np.zeros(0, np.int64)
        self._claimed = 0
        fields: Any = record.fields or {}
        payload = [key for key in record.names or () if fields[key][1] + fields[key][0].itemsize <= record.itemsize - 8]
        self._fields: Recs = self.recs[payload]
        ring.succeed(self.ctl, self.slots, self.loc, self.doorbells)

    @property
    def next_sequence(self) -> int:
        """Number of the next record, from 0: a restarted writer sees here how far its predecessor got."""
        return int(self.loc[O_TAIL])

    def room(self) -> int:
        """How many records may be pushed now."""
        self._open()
        return int(ring.room(self.ctl, self.loc, self.capacity))

    def laggard(self) -> int | None:
        """The gating reader that is furthest behind, None where none gates."""
        self._open()
        lines = [(int(self.ctl[reader_line(r) + CURSOR]), r) for r in range(int(self.ctl[READERS]))
                 if self.ctl[reader_line(r) + GATING]]  # fmt: skip
        return min(lines)[1] if lines and not self.ctl[LOSSY] else None

    def try_push(self, rec: Recs) -> bool:
        """Publish one record (shape () or (1,)), or return False where the ring is full."""
        return self.try_push_batch(rec) == 1

    def try_push_batch(self, recs: Recs) -> int:
        """Publish the first of these records (shape (n,)) as far as there is room; how many."""
        self._open()
        rows = self._rows(recs)
        return int(batch.push_rows(self.ctl, self.slots, self.loc, rows, len(rows), self._identity, self.doorbells))

    def push(self, recs: Recs, timeout_s: float | None = None) -> int:
        """Publish one record or many, waiting for room; the sequence after the last one. RingFull when time is over.

        A batch may exceed the capacity. After RingFull `next_sequence` tells how much of it went out.
        """
        self._open()
        rows = self._rows(recs)
        done = 0
        while True:
            left = rows[done:]
            done += int(batch.push_rows(self.ctl, self.slots, self.loc, left, len(left), self._identity, self.doorbells))
            if done == len(rows):
                return self.next_sequence
            if not self.wait_room(1, timeout_s):
                ring.note_full(self.ctl)
                raise RingFull(f"no room within {timeout_s} s: reader {self.laggard()} does not keep up; is it alive?")

    def wait_room(self, wanted: int, timeout_s: float | None = None) -> bool:
        """Wait until `wanted` records fit (at most the capacity); whether they do."""
        self._open()
        limit = FOREVER_NS if timeout_s is None else int(timeout_s * 1e9)
        args = (self.ctl, self.loc, min(wanted, self.capacity), self.doorbells, waiting.BLOCK, waiting.SPINS, limit)
        return bool(waiting.wait_room(*args))

    def claim(self, wanted: int) -> Recs:
        """Up to `wanted` free slots as records, to be filled in place and published; fewer, or none, where room is short.

        What lies in them is old. All fields but the sequence, which is the ring's alone: a whole record copied over it
        could publish the slot before it is full. Claim, fill, publish: nothing else in between.
        """
        self._open()
        row = int(self.loc[O_TAIL]) & (self.capacity - 1)
        self._claimed = int(batch.open_rows(self.ctl, self.slots, self.loc, wanted))
        return self._fields[row : row + self._claimed]

    def publish(self, count: int | None = None) -> int:
        """Publish the first `count` claimed slots (None: all); the sequence after the last one. ValueError for more."""
        self._open()
        count = self._claimed if count is None else count
        if not 0 <= count <= self._claimed:
            raise ValueError(f"publish {count}: {self._claimed} slots are claimed")
        self._claimed = 0
        batch.publish_rows(self.ctl, self.slots, self.loc, count, self._identity, self.doorbells)
        return self.next_sequence

    def promise(self, watermark_ns: int) -> None:
        """Raise the watermark: no record with a smaller `ts_ns` follows. A smaller one than before changes nothing."""
        self._open()
        ring.flush(self.ctl, self.loc, watermark_ns, self.doorbells)

    def _rows(self, recs: Recs) -> Words:
        rows = np.atleast_1d(np.asarray(recs))
        if rows.dtype != self.record:
            raise TypeError(f"records of dtype {rows.dtype}: this ring takes {self.record}")
        return np.ascontiguousarray(rows).view(np.int64).reshape(len(rows), self.slots.shape[1])


class Reader(End):
    """The reading end with a line of its own: gating, or observing (then it may be lapped, see `lost`).

    It begins at its released cursor, or at `start` where its reader has had the records before that already.
    """

    def __init__(
        self, words: Words, record: np.dtype, reader: int, doorbells: Words | None = None, *, start: int = 0
    ) -> None:
        super().__init__(words, record, doorbells)
        waiting.register()
        self.reader: Final = reader
        self._line: Final = reader_line(reader)
        ctl, loc, line = self.ctl, self.loc, self._line
        if not 0 <= reader < int(ctl[READERS]):
            raise RingLayoutError(f"reader {reader}: the ring has {int(ctl[READERS])}")
        loc[I_READER], loc[I_RELEASED] = reader, -1
        loc[I_HEAD] = max(int(ctl[line + CURSOR]), start)
        if ctl[line + FENCED]:
            self._join_again()
        self.gating: Final = bool(ctl[line + GATING]) and not ctl[LOSSY]
        ring.release(ctl, loc, self.doorbells)
        ring.ring_surely(self.doorbells, int(ctl[WRITER_DOORBELL]))

    def _join_again(self) -> None:
        """Gate again after having been fenced; what the writer overwrote meanwhile is counted as lost.

        The writer may work with a gate that it looked up before we were back. That gate is at most the tail as it is after
        the barrier, and every later look includes our cursor: from that tail on nothing is overwritten before we read it.
        """
        ctl, line = self.ctl, self._line
        _store(ctl, line + CURSOR, ring.published_tail(ctl, self.slots, int(self.loc[I_HEAD])))
        _store(ctl, line + GATING, 1)
        _barrier()
        tail = ring.published_tail(ctl, self.slots, int(ctl[line + CURSOR]))
        ring.count_overrun(ctl, self.reader, tail - int(self.loc[I_HEAD]))
        self.loc[I_HEAD] = tail
        _store(ctl, line + CURSOR, tail)
        _store(ctl, line + FENCED, 0)

    @property
    def head(self) -> int:
        """Number of the next record to read, from 0."""
        return int(self.loc[I_HEAD])

    @property
    def lost(self) -> int:
        """Records that this reader never saw, over all its incarnations; always 0 for a gating reader that was not fenced."""
        self._open()
        return int(self.ctl[self._line + OVERRUNS])

    def poll(self, most: int = 256) -> Recs:
        """Up to `most` records, copied and released; an empty array where there is none."""
        into = self._buffer(min(most, self.capacity))
        if self.gating:
            count = int(batch.take_rows(self.ctl, self.slots, self.loc, into, len(into)))
        else:
            count, lost = batch.observe_rows(self.ctl, self.slots, self.loc, into, len(into))
            if lost:
                ring.count_overrun(self.ctl, self.reader, lost)
        ring.release(self.ctl, self.loc, self.doorbells)
        return into[:count].reshape(-1).view(self.record)

    def view(self, most: int = 256, after: int = 0) -> Recs:
        """Up to `most` records where they lie, no copy, theirs until `release`; the first `after` left out. For gating readers.

        Fewer than there are where the ring wraps. RingError for an observing reader, whose slots may change under it.
        """
        self._open()
        if not self.gating:
            raise RingError("an observing reader is not waited for: use poll, which copies and checks")
        first = self.head + after
        row = first & (self.capacity - 1)
        count = int(batch.count_readable(self.ctl, self.slots, first, most))
        seen = self.recs[row : row + count]
        seen.flags.writeable = False
        return seen

    def release(self, count: int) -> None:
        """Give `count` viewed records back to the writer. ValueError for more than can be read."""
        self._open()
        if not 0 <= count <= self.capacity or (count and not ring.ready(self.ctl, self.slots, self.head + count - 1)):
            raise ValueError(f"release {count}: so many records have not been read")
        self.loc[I_HEAD] += count
        ring.release(self.ctl, self.loc, self.doorbells)

    def wait(self, timeout_s: float | None = None, *, strategy: int = waiting.BLOCK) -> bool:
        """Wait until there is a record, at most so long; whether there is."""
        self._open()
        limit = FOREVER_NS if timeout_s is None else int(timeout_s * 1e9)
        head, spins = self.head, waiting.SPINS
        return bool(waiting.wait_readable(self.ctl, self.slots, head, self.reader, self.doorbells, strategy, spins, limit))

    def records(self, idle_s: float | None = None) -> Iterator[Recs]:
        """Each record as a scalar (np.void), for ever, or until none came for `idle_s`."""
        while self.wait(idle_s):
            yield from self.poll()

    def __iter__(self) -> Iterator[Recs]:
        return self.records()


class Observer(End):
    """A look from outside: read-only, known to nobody, never waited for. For tools and notebooks.

    It begins at the oldest records that are safely there, or at the newest.
    """

    def __init__(self, words: Words, record: np.dtype, *, from_oldest: bool = True) -> None:
        words = words.view()
        words.flags.writeable = False  # also so that the kernels have one type, wherever the words lie
        super().__init__(words, record, np.zeros(layout.CONTROL_WORDS, np.int64))
        self._lost = 0
        tail = self.tail
        self.loc[I_HEAD] = max(0, tail - self.capacity + (self.capacity >> 2)) if from_oldest else tail

    @property
    def lost(self) -> int:
        """Records that were overwritten before this observer came to them."""
        return self._lost

    @property
    def head(self) -> int:
        """Number of the next record to read, from 0."""
        return int(self.loc[I_HEAD])

    def poll(self, most: int = 256) -> Recs:
        """Up to `most` records, copied and each proven whole; an empty array where there is none."""
        return self.poll_into(self._buffer(min(most, self.capacity)))

    def poll_into(self, into: Words) -> Recs:
        """`poll` that overwrites `into` (int64[most, words of a record]) instead of making an array: for who looks often."""
        self._open()
        count, lost = batch.observe_rows(self.ctl, self.slots, self.loc, into, len(into))
        self._lost += lost
        return into[:count].reshape(-1).view(self.record)

    def cursors(self) -> list[dict[str, int]]:
        """Each reader's cursor, position and overruns, as its control words stand."""
        self._open()
        lines = [reader_line(reader) for reader in range(int(self.ctl[READERS]))]
        keys = (("cursor", CURSOR), ("position", POSITION), ("gating", GATING), ("overruns", OVERRUNS))
        return [{key: int(self.ctl[line + word]) for key, word in keys} for line in lines]


def open_writer(name: str, record: np.dtype, *, doorbells: Words | None = None, **how: Any) -> Writer:
    """Attach as the writer, succeeding a dead one. Errors of Segment.attach, RoleHeld, RingLayoutError.

    `doorbells`: a pipeline's are on its board; a ring that stands alone has its own. `how` goes to Segment.attach.
    """
    return _opened(name, record, WRITER_ROLE, how, lambda words: Writer(words, record, doorbells))


def open_reader(name: str, record: np.dtype, reader: int = 0, *, doorbells: Words | None = None, **how: Any) -> Reader:
    """Attach as reader number `reader`, succeeding a dead one. Errors of Segment.attach, RoleHeld, RingLayoutError."""
    return _opened(name, record, reader_role(reader), how, lambda words: Reader(words, record, reader, doorbells))


def open_observer(name: str, record: np.dtype, *, from_oldest: bool = True, **how: Any) -> Observer:
    """Attach read-only: at the oldest records that are safely there, or at the newest. Errors of Segment.attach."""
    wishes = {"readonly": True, **how}
    return _opened(name, record, None, wishes, lambda words: Observer(words, record, from_oldest=from_oldest))


def _opened(name: str, record: np.dtype, role: int | None, how: dict[str, Any], build: Callable[[Words], S]) -> S:
    with contextlib.ExitStack() as undo:
        segment = Segment.attach(name, layout_hash=layout.record_hash(record), **how)
        undo.callback(segment.close)
        epoch = 0
        if role is not None:
            epoch = owner.claim(segment.header, role)
            undo.callback(_give_back, segment, role)
        end = build(segment.words)
        end.epoch, end._at_close = epoch, undo.pop_all()
        return end


def _give_back(segment: Segment, role: int) -> None:
    with contextlib.suppress(SegmentMissing):  # removed meanwhile, and the owner lines with it
        owner.release(segment.header, role)


def fence_reader(segment: Segment, record: np.dtype, reader: int, *, doorbells: Words | None = None) -> bool:
    """Take a dead gating reader out of the writer's way, so that it never wedges the ring; False if it did not gate.

    For supervisors. RoleHeld while its owner is not proven dead: kill it and wait for its end first. The reader's next
    incarnation gates again from the tail of that moment on and counts what it missed (`Reader.lost`).
    """
    ctl, _, _ = layout.views(segment.words, record)
    bells = ring.own_doorbells(segment.words) if doorbells is None else doorbells
    layout.check_state(ctl, bells.size)
    role, line = reader_role(reader), reader_line(reader)
    owner.claim(segment.header, role)  # nobody takes the reader's place while it is being fenced
    try:
        if reader >= int(ctl[READERS]) or not ctl[line + GATING]:
            return False
        _store(ctl, line + FENCED, 1)
        _store(ctl, line + GATING, 0)
        ring.ring_surely(bells, int(ctl[WRITER_DOORBELL]))
        return True
    finally:
        owner.release(segment.header, role)


__all__ = [
    "End",
    "Observer",
    "Reader",
    "RingClosed",
    "RingError",
    "RingFull",
    "RoleHeld",
    "Writer",
    "create_ring",
    "fence_reader",
    "open_observer",
    "open_reader",
    "open_writer",
]
