"""Moving several records at once between a ring and a private buffer: what the Python-side ends are made of.

All return how many records they moved; none waits. Buffers are int64[n, record words], the last word of a row being the
record's sequence (ignored on the way in, set on the way out).

For compiled loops there is `readable_ahead`: a reader that drains many records looks far ahead first and so keeps away from
the line that the writer is writing (figures: procs/bench/alternatives.md).
"""

from __future__ import annotations

from ringbuf.intrinsics import fence_release, load_acquire, load_acquire2, store_release2
from ringbuf.jit import Words, lean
from ringbuf.layout import CAPACITY, TAIL
from ringbuf.ring import I_HEAD, O_TAIL, copy_observed, flush, open_slot, publish_slot, ready, ring_doorbell, room


@lean
def push_rows(ctl: Words, slots: Words, loc: Words, rows: Words, count: int, identity: Words, doorbells: Words) -> int:
    """Push the first `count` rows as far as there is room, then flush."""
    most = min(count, room(ctl, loc, count))
    for n in range(most):
        row = open_slot(ctl, slots, loc)
        for k in range(slots.shape[1] - 1):
            slots[row, k] = rows[n, k]
        publish_slot(ctl, slots, loc, identity)
    flush(ctl, loc, 0, doorbells)
    return most


@lean
def open_rows(ctl: Words, slots: Words, loc: Words, wanted: int) -> int:
    """Open up to `wanted` slots that lie in one piece from the tail on; how many. They stay unreadable until published."""
    row = loc[O_TAIL] & (ctl[CAPACITY] - 1)
    most = min(min(wanted, room(ctl, loc, wanted)), ctl[CAPACITY] - row)
    for n in range(most):
        store_release2(slots, row + n, slots.shape[1] - 1, 0)
    fence_release()
    return most


@lean
def publish_rows(ctl: Words, slots: Words, loc: Words, count: int, identity: Words, doorbells: Words) -> None:
    """Publish `count` opened slots, in order, then flush."""
    for _ in range(count):
        publish_slot(ctl, slots, loc, identity)
    flush(ctl, loc, 0, doorbells)


@lean
def count_readable(ctl: Words, slots: Words, head: int, most: int) -> int:
    """Published records from `head` on, at most `most` and at most to the end of the slots (so that they lie in one piece)."""
    most = min(most, ctl[CAPACITY] - (head & (ctl[CAPACITY] - 1)))
    count = 0
    while count < most and ready(ctl, slots, head + count):
        count += 1
    return count


@lean
def readable_ahead(slots: Words, head: int, most: int) -> int:
    """How many records from `head` on are surely there: `most` (a power of two), or a half, a quarter ... of it; 0: none.

    Records are published in order, so whoever sees record head + n - 1 sees all before it: one look for many records. And
    it is a look at a line that the writer has not reached yet, or left long ago, where looking at each next record takes
    the very line out of the writer's hands that it is about to fill.
    """
    while most > 0 and not ready(slots, slots, head + most - 1):
        most >>= 1
    return most


@lean
def take_rows(ctl: Words, slots: Words, loc: Words, into: Words, most: int) -> int:
    """Copy up to `most` published records into `into` as a gating reader and step over them (without releasing them)."""
    count = 0
    while count < most and ready(ctl, slots, loc[I_HEAD]):
        row = loc[I_HEAD] & (ctl[CAPACITY] - 1)
        for k in range(slots.shape[1]):
            into[count, k] = slots[row, k]
        loc[I_HEAD] += 1
        count += 1
    return count


@lean
def oldest_safe(ctl: Words, slots: Words, head: int) -> int:
    """Where a lapped reader goes on: the oldest record that is there, less a quarter of the ring for the writer's advance."""
    capacity = ctl[CAPACITY]
    tail = max(load_acquire(ctl, TAIL), load_acquire2(slots, head & (capacity - 1), slots.shape[1] - 1))
    return max(head + 1, tail - capacity + (capacity >> 2))


@lean
def observe_rows(ctl: Words, slots: Words, loc: Words, into: Words, most: int) -> tuple[int, int]:
    """(copied, lost): up to `most` records into `into` for a reader that the writer does not wait for."""
    count, lost = 0, 0
    while count < most:
        head = loc[I_HEAD]
        outcome = copy_observed(ctl, slots, head, into[count])
        if outcome == 0:
            break
        if outcome > 0:
            loc[I_HEAD] = head + 1
            count += 1
        else:
            loc[I_HEAD] = oldest_safe(ctl, slots, head)
            lost += loc[I_HEAD] - head
    return count, lost


@lean
def wake_all(ctl: Words, doorbells: Words, first: int, count: int) -> None:
    """Ring the doorbells named in `count` control words from `first` on, armed or not.

    A predecessor may have died between disarming a sleeper and ringing.
    """
    for n in range(count):
        ring_doorbell(doorbells, ctl[first + n])
