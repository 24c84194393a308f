"""The slot-sequence ring: one writer, several readers with cursors of their own.

The writer fills a slot and release-stores its sequence, which lies in the slot's last word: a reader that polls the slot
it wants next finds payload and permission in the same cache lines, and the writer's tail is never shared on the hot
path. A gating reader's cursor is read by the writer only when its cached copy says "full".

    writer: begin -> fill slot -> commit ... flush        reader: ready -> use slot -> advance ... release
    (begin opens the slot: sequence 0)                    (release publishes the cursor)

What is stored when a record is published stands in two functions, `open_at` and `publish_at`; all compiled writers go through
them, one record at a time (`open_slot`, `publish_slot`, which also recompute) or many (ringbuf.batch). ringbuf.plain says
the same without a compiler.

Private bookkeeping is one row of int64 an endpoint (`loc`), plain data: copying it is a checkpoint of the endpoint.

A *recomputing* writer (one restarted from a checkpoint) runs through the same begin/commit: while its tail is below what
the dead incarnation had published, begin hands out the scratch slot and commit compares instead of publishing, so
that nothing is doubled, and a difference (which would mean that the fold is not deterministic) is counted.

Not here: waiting (ringbuf.waiting), Python conveniences (ringbuf.endpoint), who owns what (shm.owner).
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from ringbuf import layout
from ringbuf.intrinsics import (
    exchange,
    fence_acquire,
    fence_release,
    fetch_add,
    fetch_and,
    fetch_or,
    futex_wait,
    futex_wake,
    load_acquire,
    load_acquire2,
    store_release,
    store_release2,
)
from ringbuf.jit import Recs, Words, lean
from ringbuf.layout import (
    ARMED_READERS,
    ARMED_WRITER,
    ASLEEP,
    CAPACITY,
    CURSOR,
    DOORBELLS,
    FULL_STALLS,
    GATING,
    LINE_WORDS,
    LOOKER_DOORBELL,
    LOOKER_LINES,
    LOOKER_WANT,
    LOSSY,
    MAX_LOOKERS,
    MAX_READERS,
    OVERRUNS,
    POSITION,
    PROMISE,
    READER_DOORBELL,
    READER_LINES,
    READERS,
    TAIL,
    WANT,
    WATERMARK,
    WRITER_DOORBELL,
)

LOC_WORDS: Final = 16

# an output's private row
O_TAIL: Final = 0  # next sequence to write
O_GATE: Final = 1  # smallest gating cursor when last looked
O_KNOWN: Final = 2  # below this the dead incarnation had published already
O_DIVERGED: Final = 3  # recomputed records that differ from what had been published
O_WATERMARK: Final = 4
O_FLUSHED: Final = 5  # tail as last shown in the control page

# an input's private row
I_HEAD: Final = 0  # next sequence to read
I_READER: Final = 1
I_ENDED: Final = 2
I_SHIFT: Final = 3  # ns that a record's time is put later in the merge (lookahead)
I_TIMED: Final = 4  # 0: taken at once, outside the merge by time
I_RELEASED: Final = 5  # cursor as last published
I_ENDLESS: Final = 6  # 1: no END comes on it, nobody waits for one

NO_GATE: Final = 1 << 62


class Output(NamedTuple):
    """A ring's writing end."""

    ctl: Words  # int64[512]
    words: Words  # int64[capacity + 1, record words]
    recs: Recs  # the same slots as records
    loc: Words  # int64[16], private
    identity: Words  # indices of the words that make a record's identity


class Input(NamedTuple):
    """A ring's reading end."""

    ctl: Words
    words: Words
    recs: Recs
    loc: Words


def output(words: Words, record: np.dtype, loc: Words, identity: Words) -> Output:
    """The writing end over a ring's payload words. `loc` is the caller's: int64[16], zeroed or restored."""
    ctl, slots, recs = layout.views(words, record)
    return Output(ctl, slots, recs, loc, identity)


def input_(words: Words, record: np.dtype, loc: Words, reader: int) -> Input:
    """The reading end number `reader` over a ring's payload words."""
    ctl, slots, recs = layout.views(words, record)
    if not 0 <= reader < int(ctl[READERS]):
        raise layout.RingLayoutError(f"reader {reader}: the ring has {int(ctl[READERS])}")
    loc[I_READER] = reader
    return Input(ctl, slots, recs, loc)


@lean
def smallest_cursor(ctl: Words) -> int:
    """The smallest cursor of the gating readers; NO_GATE where nobody gates."""
    smallest = NO_GATE
    for reader in range(ctl[READERS]):
        line = READER_LINES + reader * LINE_WORDS
        if load_acquire(ctl, line + GATING) != 0:
            cursor = load_acquire(ctl, line + CURSOR)
            if cursor < smallest:
                smallest = cursor
    return smallest


@lean
def room(ctl: Words, loc: Words, wanted: int) -> int:
    """Free slots before the writer would overtake a gating reader; looks at the readers only if `wanted` seem missing."""
    if ctl[LOSSY] != 0:
        return ctl[CAPACITY]
    free = ctl[CAPACITY] - (loc[O_TAIL] - loc[O_GATE])
    if free < wanted:
        gate = smallest_cursor(ctl)
        if gate > loc[O_TAIL]:
            gate = loc[O_TAIL]
        loc[O_GATE] = gate
        free = ctl[CAPACITY] - (loc[O_TAIL] - gate)
    return free


@lean
def open_at(words: Words, sequence: int) -> int:
    """Open the slot of record `sequence` and return its row; fill it, then publish_at. There is room, nothing is recomputed.

    Opening marks the slot unreadable before the first word of it changes, so that an observing reader that is lapped in
    the middle of a copy sees it. Capacity and width are taken from the slots' shape, which was checked once (layout.views)
    and stays in registers, not from the control page. The private tail stays where it is until `step`: written and read
    again for each record of a batch it is what limits the rate.
    """
    row = sequence & (words.shape[0] - 2)
    store_release2(words, row, words.shape[1] - 1, 0)
    fence_release()
    return row


@lean
def publish_at(words: Words, sequence: int) -> None:
    """Publish the record that open_at opened. Readers see it at once; a batch is published in order, without a gap."""
    store_release2(words, sequence & (words.shape[0] - 2), words.shape[1] - 1, sequence + 1)


@lean
def step(loc: Words, count: int) -> None:
    """Move the private tail over `count` records that publish_at published: due before anything else looks at it (flush)."""
    loc[O_TAIL] += count


@lean
def open_slot(ctl: Words, words: Words, loc: Words) -> int:
    """Open the next slot, or the scratch slot of a recomputing writer, and return its row; fill it, then publish_slot.

    The caller has made sure that there is room.
    """
    if loc[O_TAIL] < loc[O_KNOWN]:
        return words.shape[0] - 1
    return open_at(words, loc[O_TAIL])


@lean
def publish_slot(ctl: Words, words: Words, loc: Words, identity: Words) -> int:
    """Publish the slot that open_slot opened; returns the record's sequence number (from 0).

    `identity` names the words that a recomputed record is compared in.
    """
    tail, capacity = loc[O_TAIL], words.shape[0] - 1
    if tail < loc[O_KNOWN]:
        row = tail & (capacity - 1)
        if load_acquire2(words, row, words.shape[1] - 1) == tail + 1:
            for k in range(identity.shape[0]):
                if words[row, identity[k]] != words[capacity, identity[k]]:
                    loc[O_DIVERGED] += 1
                    break
    else:
        publish_at(words, tail)
    loc[O_TAIL] = tail + 1
    return tail


@lean
def begin(out: Output) -> int:
    """`open_slot` of an output."""
    return open_slot(out.ctl, out.words, out.loc)


@lean
def commit(out: Output) -> int:
    """`publish_slot` of an output."""
    return publish_slot(out.ctl, out.words, out.loc, out.identity)


@lean
def ring_doorbell(doorbells: Words, number: int) -> None:
    """Wake whoever sleeps on this doorbell. The bell's count changes first, so a sleeper-to-be sees that it was rung.

    Several writers may ring the same bell, so the count is added to atomically. Whoever is awake costs no system call: count
    and ASLEEP are one word, so either we find the bit, or the sleeper-to-be finds another count. A number outside of the array,
    which only a damaged control page can hold, rings nothing.
    """
    if 0 <= number < doorbells.shape[0] and fetch_add(doorbells, number, 1) & ASLEEP != 0:
        fetch_and(doorbells, number, ~ASLEEP)
        futex_wake(doorbells, number, 1 << 30)


@lean
def sleep_on(doorbells: Words, number: int, seen: int, most_ns: int) -> bool:
    """Sleep at most `most_ns` on a doorbell that was rung no more since `seen` was read of it; whether it was rung meanwhile.

    Who rings takes the bit away; one that the clock wakes leaves it to others that may sleep on the same bell.
    """
    fetch_or(doorbells, number, ASLEEP)
    futex_wait(doorbells, number, seen, most_ns)
    return (load_acquire(doorbells, number) ^ seen) & ~ASLEEP != 0


@lean
def ring_surely(doorbells: Words, number: int) -> None:
    """`ring_doorbell` with the system call in any case."""
    if 0 <= number < doorbells.shape[0]:
        fetch_add(doorbells, number, 1)
        futex_wake(doorbells, number, 1 << 30)


@lean
def wake_all(ctl: Words, doorbells: Words) -> None:
    """Ring for all readers and lookers, armed or not, asleep or not.

    A predecessor may have died between disarming a sleeper and ringing, or between taking its bit ASLEEP and waking it.
    """
    for reader in range(ctl[READERS]):
        ring_surely(doorbells, ctl[READER_DOORBELL + reader])
    for looker in range(MAX_LOOKERS):
        line = LOOKER_LINES + looker * LINE_WORDS
        if ctl[line + LOOKER_DOORBELL] > 0:
            ring_surely(doorbells, ctl[line + LOOKER_DOORBELL])


@lean
def wake_readers(ctl: Words, doorbells: Words) -> None:
    """Ring for those that are armed and have what they wait for. Costs one load of a quiet line where nobody is.

    Who is not rung for stays armed. No fence stands between the writer's stores and these loads: the sleeper's membarrier
    takes its place (ringbuf.waiting). Bits go before the bell rings, and one by one: who arms itself anew looks once more.
    """
    armed = load_acquire(ctl, ARMED_READERS)
    if armed == 0:
        return
    tail, known = load_acquire(ctl, TAIL), max(load_acquire(ctl, WATERMARK), load_acquire(ctl, PROMISE))
    for reader in range(ctl[READERS]):
        line = READER_LINES + reader * LINE_WORDS
        if (armed >> reader) & 1 and (tail > load_acquire(ctl, line + POSITION) or known >= load_acquire(ctl, line + WANT)):
            fetch_and(ctl, ARMED_READERS, ~(1 << reader))
            ring_doorbell(doorbells, ctl[READER_DOORBELL + reader])
    if armed >> MAX_READERS == 0:
        return
    for looker in range(MAX_LOOKERS):
        line, bit = LOOKER_LINES + looker * LINE_WORDS, MAX_READERS + looker
        if (armed >> bit) & 1 and known >= load_acquire(ctl, line + LOOKER_WANT):
            fetch_and(ctl, ARMED_READERS, ~(1 << bit))
            ring_doorbell(doorbells, ctl[line + LOOKER_DOORBELL])


@lean
def show(ctl: Words, loc: Words, watermark: int) -> bool:
    """Show tail and watermark in the control page; whether either moved.

    The watermark is a promise: no record with a smaller `ts_ns` follows. It never falls.
    """
    moved = False
    if loc[O_FLUSHED] != loc[O_TAIL]:
        loc[O_FLUSHED] = loc[O_TAIL]
        if loc[O_TAIL] > ctl[TAIL]:
            store_release(ctl, TAIL, loc[O_TAIL])
        moved = True
    if watermark > loc[O_WATERMARK]:
        loc[O_WATERMARK] = watermark
        if watermark > ctl[WATERMARK]:
            store_release(ctl, WATERMARK, watermark)
        moved = True
    return moved


@lean
def flush(ctl: Words, loc: Words, watermark: int, doorbells: Words) -> None:
    """`show`, and wake sleeping readers if anything moved."""
    if show(ctl, loc, watermark):
        wake_readers(ctl, doorbells)


@lean
def note_full(ctl: Words) -> None:
    """Count one stall of the writer at a full ring (backpressure)."""
    ctl[FULL_STALLS] += 1


@lean
def ready(ctl: Words, words: Words, head: int) -> bool:
    """Whether record `head` may be read."""
    return load_acquire2(words, head & (words.shape[0] - 2), words.shape[1] - 1) == head + 1


@lean
def release(ctl: Words, loc: Words, doorbells: Words) -> None:
    """Publish the cursor: the writer may reuse every slot before it. Wakes a writer that sleeps for room."""
    release_lazily(ctl, loc, doorbells, NO_GATE)


@lean
def release_lazily(ctl: Words, loc: Words, doorbells: Words, most_waiting: int) -> None:
    """`release` that lets a sleeping writer sleep on while more than `most_waiting` records still wait for this reader.

    A writer that is woken for every slot that comes free does nothing but wake. It must not need the room: use this only
    where the writer's sleep is bounded and the reader releases again when it has nothing left to do.
    """
    head = loc[I_HEAD]
    line = READER_LINES + loc[I_READER] * LINE_WORDS
    ctl[line + POSITION] = head
    if loc[I_RELEASED] != head:
        loc[I_RELEASED] = head
        store_release(ctl, line + CURSOR, head)
        if load_acquire(ctl, ARMED_WRITER) != 0 and load_acquire(ctl, TAIL) - head <= most_waiting:
            exchange(ctl, ARMED_WRITER, 0)
            ring_doorbell(doorbells, ctl[WRITER_DOORBELL])


@lean
def copy_observed(ctl: Words, words: Words, head: int, into: Words) -> int:
    """Copy record `head` into `into` (int64[record words]) as a reader that the writer does not wait for.

    1: copied whole. 0: not written yet. -1: lapped, it is gone (also when it was overwritten during the copy).
    """
    last = words.shape[1] - 1
    row = head & (words.shape[0] - 2)
    seq = load_acquire2(words, row, last)
    if seq != head + 1:
        if seq > head + 1:
            return -1
        if load_acquire(ctl, TAIL) <= head:
            return 0
        # The writer is past it. It may have published it between our two looks, so look again before calling it lost.
        seq = load_acquire2(words, row, last)
        if seq != head + 1:
            return -1
    for k in range(last):
        into[k] = words[row, k]
    fence_acquire()
    if load_acquire2(words, row, last) != head + 1:
        return -1
    into[last] = seq
    return 1


@lean
def count_overrun(ctl: Words, reader: int, lost: int) -> None:
    """Add records that a lapped reader lost to its line."""
    ctl[READER_LINES + reader * LINE_WORDS + OVERRUNS] += lost


@lean
def published_tail(ctl: Words, words: Words, start: int) -> int:
    """The sequence after the last published record, not below `start`: what a dead writer had got done.

    TAIL is shown lazily, the slots' own sequences are the truth. All are looked at: a writer that publishes more than a
    ring's worth between two flushes has overwritten, or opened, the very slot at which TAIL points. A sequence that
    cannot stand in its slot, or that a gating reader would not have let through, is no sequence.
    """
    capacity, last = words.shape[0] - 1, words.shape[1] - 1
    tail = max(start, load_acquire(ctl, TAIL))
    most = NO_GATE
    if ctl[LOSSY] == 0:
        most = smallest_cursor(ctl)
        if most < NO_GATE:
            most += capacity
    for row in range(capacity):
        seq = load_acquire2(words, row, last)
        if tail < seq <= most and (seq - 1) & (capacity - 1) == row:
            tail = seq
    return tail


@lean
def succeed(ctl: Words, words: Words, loc: Words, doorbells: Words) -> None:
    """Make `loc` (zeroed) the row of a writer that goes on after the last published record, whoever wrote it.

    What a predecessor did not come to is done: its last records are shown, and whoever may sleep is woken.
    """
    loc[O_TAIL] = loc[O_KNOWN] = published_tail(ctl, words, 0)
    loc[O_GATE] = min(smallest_cursor(ctl), loc[O_TAIL])
    loc[O_FLUSHED], loc[O_WATERMARK] = -1, ctl[WATERMARK]
    flush(ctl, loc, 0, doorbells)
    wake_all(ctl, doorbells)


def own_doorbells(words: Words) -> Words:
    """The doorbells inside a ring's own control page, for rings that stand alone."""
    return words[DOORBELLS : DOORBELLS + layout.DOORBELL_COUNT]


__all__ = [
    "ARMED_READERS",
    "ARMED_WRITER",
    "Input",
    "Output",
    "begin",
    "commit",
    "copy_observed",
    "count_overrun",
    "flush",
    "input_",
    "note_full",
    "open_at",
    "open_slot",
    "output",
    "own_doorbells",
    "publish_at",
    "publish_slot",
    "published_tail",
    "ready",
    "release",
    "release_lazily",
    "ring_doorbell",
    "ring_surely",
    "room",
    "show",
    "sleep_on",
    "smallest_cursor",
    "step",
    "succeed",
    "wake_all",
    "wake_readers",
]
