"""Moving several records at once between a ring and a private buffer: what the Python-side ends are made of.

All return how many records they moved; none waits. Buffers are int64[n, record words], the last word of a row being the
record's sequence (ignored on the way in, set on the way out).

For compiled loops that move many records (figures: procs/bench/alternatives.md): a writer says in advance which slots it is
about to fill (`fetch_slots`), keeps its tail in a register meanwhile (`recomputing`, ring's `open_at`, `publish_at`, `step`) and
fills a line at a time (`store_line`); a reader stays a good way behind the writer (`readable_behind`) and so keeps away from
the lines that the writer is writing.

Neither `store_line` nor `load_line` is relied upon to be atomic: the sequence alone, stored after the lines and looked at
before they are loaded, says when they may be read.
"""

# numba intrinsics are compile-time generators: mypy sees only Any there.
from __future__ import annotations

from typing import Any, Final

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from ringbuf.intrinsics import load_acquire, load_acquire2
from ringbuf.jit import Words, lean
from ringbuf.layout import CAPACITY, LINE_WORDS, TAIL
from ringbuf.ring import (
    I_HEAD,
    O_KNOWN,
    O_TAIL,
    copy_observed,
    flush,
    open_at,
    open_slot,
    publish_at,
    publish_slot,
    ready,
    room,
    step,
)

I64: Final = ir.IntType(64)
I32: Final = ir.IntType(32)
LINE: Final = ir.VectorType(I64, LINE_WORDS)
LINE_TUPLE: Any = types.UniTuple(types.int64, LINE_WORDS)  # type: ignore[attr-defined,unused-ignore]


def _line_pointer(context: Any, builder: Any, arrtype: Any, arr: Any, row: Any, line: Any) -> Any:
    array = context.make_array(arrtype)(context, builder, arr)
    width = builder.extract_value(array.shape, 1)
    word = builder.add(builder.mul(row, width), builder.mul(line, I64(LINE_WORDS)))
    return builder.bitcast(builder.gep(array.data, [word]), LINE.as_pointer())


@intrinsic
def store_line(typingctx: Any, rows: Any, row: Any, line: Any, words: Any) -> Any:
    """`rows[row, 8 * line : 8 * line + 8] = words` (a tuple of 8 int64), with as few stores as the processor can.

    In an opened slot the record's last word must be given as 0: the sequence is the publishing's.
    """

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        value = ir.Constant(LINE, ir.Undefined)
        for k in range(LINE_WORDS):
            value = builder.insert_element(value, builder.extract_value(args[3], k), I32(k))
        builder.store(value, _line_pointer(context, builder, sig.args[0], *args[:3]), align=8)
        return context.get_dummy_value()

    return types.void(rows, types.int64, types.int64, LINE_TUPLE), codegen


@intrinsic
def load_line(typingctx: Any, rows: Any, row: Any, line: Any) -> Any:
    """The words `rows[row, 8 * line : 8 * line + 8]` as a tuple of 8 int64, with as few loads as the processor can."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        value = builder.load(_line_pointer(context, builder, sig.args[0], *args), align=8)
        return cgutils.pack_array(builder, [builder.extract_element(value, I32(k)) for k in range(LINE_WORDS)])

    return LINE_TUPLE(rows, types.int64, types.int64), codegen


@intrinsic
def _fetch_line(typingctx: Any, rows: Any, row: Any, line: Any) -> Any:
    """Ask for a line in order to write it (prefetchw); nothing changes but where it lies."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = builder.bitcast(_line_pointer(context, builder, sig.args[0], *args), ir.IntType(8).as_pointer())
        fetch_type = ir.FunctionType(ir.VoidType(), [pointer.type, I32, I32, I32])
        fetch = cgutils.get_or_insert_function(builder.module, fetch_type, "llvm.prefetch.p0i8")
        builder.call(fetch, [pointer, I32(1), I32(3), I32(1)])
        return context.get_dummy_value()

    return types.void(rows, types.int64, types.int64), codegen


@lean
def fetch_slots(slots: Words, tail: int, count: int) -> None:
    """Ask for the lines of the `count` slots from sequence `tail` on, which the caller is about to fill.

    Stores take effect in order, so a writer gets the lines back from the reader's core nearly one by one; asked for beforehand
    they come at once. Only for slots that there is room for: of others it would take the lines out of the reader's hands.
    """
    for n in range(count):
        row = (tail + n) & (slots.shape[0] - 2)
        for line in range(slots.shape[1] // LINE_WORDS):
            _fetch_line(slots, row, line)


@lean
def recomputing(loc: Words) -> bool:
    """Whether the next record was published by a dead incarnation: then open_slot and publish_slot must be used for it."""
    return loc[O_TAIL] < loc[O_KNOWN]


@lean
def push_rows(ctl: Words, slots: Words, loc: Words, rows: Words, count: int, identity: Words, doorbells: Words) -> int:
    """Push the first `count` rows as far as there is room, then flush."""
    most = min(count, room(ctl, loc, count))
    done = 0
    while done < most and recomputing(loc):
        row = open_slot(ctl, slots, loc)
        for k in range(slots.shape[1] - 1):
            slots[row, k] = rows[done, k]
        publish_slot(ctl, slots, loc, identity)
        done += 1
    tail, final = loc[O_TAIL] - done, slots.shape[1] // LINE_WORDS - 1
    for n in range(done, most):
        row = open_at(slots, tail + n)
        for line in range(final):
            store_line(slots, row, line, load_line(rows, n, line))
        w = load_line(rows, n, final)
        store_line(slots, row, final, (w[0], w[1], w[2], w[3], w[4], w[5], w[6], 0))
        publish_at(slots, tail + n)
    step(loc, most - done)
    flush(ctl, loc, 0, doorbells)
    return most


@lean
def open_rows(ctl: Words, slots: Words, loc: Words, wanted: int) -> int:
    """Open up to `wanted` slots that lie in one piece from the tail on; how many. They stay unreadable until published."""
    row = loc[O_TAIL] & (ctl[CAPACITY] - 1)
    most = min(min(wanted, room(ctl, loc, wanted)), ctl[CAPACITY] - row)
    for n in range(most):
        open_at(slots, loc[O_TAIL] + n)
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
def readable_behind(slots: Words, head: int, most: int, lag: int, patient: bool) -> int:
    """`readable_ahead` for a reader that keeps `lag` records behind the writer: 0 until that many lie behind the `most`.

    Close behind the writer each takes the lines away that the other one needs next, or that its processor fetches in
    advance. A record must not wait for followers that may never come: after some looks in vain call it with `patient`
    False, for whatever there is. `most` is a power of two, `most` + `lag` at most the capacity.
    """
    if ready(slots, slots, head + most + lag - 1):
        return most
    return 0 if patient else readable_ahead(slots, head, most)


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
