"""Which input a stage takes how many records from next: the merge of several rings into one order.

In virtual time (replay, generated market) the next record is the one with the smallest (ts_ns, input order), and it is
taken only when no other input can still deliver a smaller one: each ring carries a watermark, the promise that nothing
earlier follows. This makes the order of intake a function of the records alone.

The loop risk -> router -> exchange -> router -> risk would make watermarks creep forward by one latency a round, so there
is a second, conditional promise: quoter, risk and router say "having read n reports and if no more come, I write nothing
before t". Router and exchange, which make the reports, know whether the condition holds: what they have not written
cannot have been read, and what is written but not read moves nobody before its own time. What they are still to write
themselves breaks the condition too, so they go on it no further than their own next record could be answered. Between two
reports the whole loop thus advances as far as the market's records reach.

What comes from outside (an operator's record; an answer of an exchange that is no fold) has no time of its own here. It gets one
when it is taken: the first that is behind everything we have shown or promised, so that to all others it is as if it had always
stood there. The intake log keeps that time and the place between the other records: with the two, and the record itself, a
session folds again from its journals (procs.research.refold).

A stage may have something fall due by itself (R_INTERNAL_DUE). It is done before any record of that time or later, as soon
as nothing earlier can come: a function of the records like all else, whether the market speaks then or not. The watermarks and
the promise never go beyond it. A run that was noted in the log ends early where something falls due within it; the next line
of the log (INTAKE_CUT) then says how many of it were taken.

In arrival order (live venues) whatever is there is taken, inputs in their order. Then only the intake log knows the order,
which is why it is written in both cases, before a batch is processed: after a crash the log is followed.
"""

from __future__ import annotations

from procs.fold.block import (
    A_BURST,
    A_LEAD,
    BATCH,
    BY_INPUT,
    CALLS,
    DUE,
    FEEDBACK,
    INPUTS,
    LOG,
    OUT,
    OUT_STRIDE,
    OUTPUTS,
    R_BLOCKED,
    R_INTERNAL_DUE,
    R_KEYS,
    R_LOW,
    R_NOW,
    R_PROMISE,
    R_SINCE,
    R_UNTIMED,
    REFERENCE,
    TIMED,
    doorbells,
    in_ctl,
    in_loc,
    in_slots,
    out_ctl,
    out_identity,
    out_loc,
    out_slots,
    registers,
)
from procs.fold.checkpoint import save
from ringbuf.intrinsics import load_acquire, load_acquire2, mono_ns, store_release
from ringbuf.jit import Words, kernel
from ringbuf.layout import CAPACITY, PROMISE, PROMISE_GIVEN, RECORD_WORDS, WATERMARK
from ringbuf.ring import (
    I_ENDED,
    I_ENDLESS,
    I_HEAD,
    I_SHIFT,
    I_TIMED,
    O_KNOWN,
    O_TAIL,
    O_WATERMARK,
    flush,
    note_full,
    open_slot,
    publish_slot,
    ready,
    room,
    wake_readers,
)
from trading.records import TS_END, Kind

FALLS_DUE = -3
"""What `next_run` answers in place of an input: something of the stage's own falls due."""
LOG_KIND = int(Kind.INTAKE) << 32
LOG_RING, LOG_COUNT = 4, 5  # words of an intake record


@kernel
def _recordable(b: Words) -> int:
    """How many records may be taken before an output could be full; notes which output is."""
    reg = registers(b)
    before = reg[R_BLOCKED]
    reg[R_BLOCKED] = 0
    least = b[BATCH]
    for o in range(b[OUTPUTS]):
        burst = b[OUT + o * OUT_STRIDE + A_BURST]
        if burst > 0:
            free = room(out_ctl(b, o), out_loc(b, o), burst * least) // burst
            if free < least:
                least = free
            if free == 0:
                reg[R_BLOCKED] |= 1 << o
                if not (before >> o) & 1:
                    note_full(out_ctl(b, o))
    return least if loggable(b) else 0


@kernel
def loggable(b: Words) -> bool:
    """Whether the intake log has room for a run that may be cut, where there is a log; notes it where not."""
    reg, log = registers(b), b[LOG]
    if log < 0 or room(out_ctl(b, log), out_loc(b, log), 2) >= 2:
        return True
    # our own cursor in the log moves with our checkpoint
    if reg[R_SINCE] > 0:
        save(b)
    if room(out_ctl(b, log), out_loc(b, log), 2) >= 2:
        return True
    reg[R_BLOCKED] |= 1 << log
    note_full(out_ctl(b, log))
    return False


@kernel
def log_intake(b: Words, ring: int, head: int, count: int, ts_ns: int) -> None:
    """Write down that `count` records of an input, from `head` on, are taken now; `ts_ns` is the time of the first."""
    log = b[LOG]
    ctl, slots, loc = out_ctl(b, log), out_slots(b, log), out_loc(b, log)
    row = open_slot(ctl, slots, loc)
    slots[row, 0], slots[row, 1], slots[row, 2], slots[row, 3] = ts_ns, head, LOG_KIND, 0
    slots[row, LOG_RING], slots[row, LOG_COUNT], slots[row, 6] = ring, count, head
    publish_slot(ctl, slots, loc, out_identity(b, log))


@kernel
def _bound(b: Words, ctl: Words) -> int:
    """The earliest time that this input may still deliver, as far as promises on it hold for us.

    The promise is read as a pair: its condition before and after it must be the same.
    """
    watermark = load_acquire(ctl, WATERMARK)
    given = load_acquire(ctl, PROMISE_GIVEN)
    promise = load_acquire(ctl, PROMISE)
    if given == 0 or given != load_acquire(ctl, PROMISE_GIVEN) or promise <= watermark:
        return watermark
    given -= 1
    reference, feedback = b[REFERENCE], b[FEEDBACK]
    if reference == BY_INPUT:
        if feedback < 0:
            return watermark
        known = in_loc(b, feedback)[I_HEAD]
        ring, slots = in_ctl(b, feedback), in_slots(b, feedback)
    else:
        loc = out_loc(b, reference)
        known = max(loc[O_TAIL], loc[O_KNOWN])
        ring, slots = out_ctl(b, reference), out_slots(b, reference)
    if given >= known:
        return promise
    # the first report that they have not read may move them, at the time at which they see it
    if ready(ring, slots, given):
        return max(watermark, min(promise, slots[given & (ring[CAPACITY] - 1), 0]))
    return watermark


@kernel
def _due_by(b: Words, ts_ns: int) -> bool:
    """Whether something of the stage's own falls due by then."""
    return b[CALLS + DUE] != 0 and registers(b)[R_INTERNAL_DUE] <= ts_ns < TS_END


@kernel
def _fall_due(b: Words) -> tuple[int, int]:
    """What `next_run` answers when something falls due: nothing for now where an output is full."""
    registers(b)[R_NOW] = mono_ns()
    return (FALLS_DUE, 1) if _recordable(b) > 0 else (-1, 0)


@kernel
def next_run(b: Words) -> tuple[int, int]:
    """(input, count): which input to take how many records from next; count 0 when there is nothing to take now.

    The choice has been written to the intake log when this returns. Updates R_LOW, the bound before which nothing more
    can come, R_PROMISE and R_NOW.
    """
    reg = registers(b)
    log = b[LOG]
    if log >= 0 and out_loc(b, log)[O_TAIL] < out_loc(b, log)[O_KNOWN]:
        slots = out_slots(b, log)
        row = out_loc(b, log)[O_TAIL] & (out_ctl(b, log)[CAPACITY] - 1)
        ring, count, ts = slots[row, LOG_RING], slots[row, LOG_COUNT], slots[row, 0]
        if _due_by(b, ts):
            return _fall_due(b)
        log_intake(b, ring, in_loc(b, ring)[I_HEAD], count, ts)
        reg[R_UNTIMED] = ts
        reg[R_NOW] = mono_ns()
        return ring, count

    low, promise = TS_END, TS_END
    reference = b[REFERENCE]
    chosen, chosen_key, untimed, open_end = -1, TS_END + 1, -1, False
    for r in range(b[INPUTS]):
        ctl, slots, loc = in_ctl(b, r), in_slots(b, r), in_loc(b, r)
        head = loc[I_HEAD]
        reg[R_KEYS + r] = TS_END + 1
        if loc[I_ENDED] != 0:
            continue
        if b[TIMED] == 0:
            if chosen_key >= 0 and ready(ctl, slots, head):
                chosen, chosen_key = r, -1
            continue
        if loc[I_TIMED] == 0:
            open_end |= loc[I_ENDLESS] == 0
            if untimed < 0 and ready(ctl, slots, head):
                untimed = r
            continue
        # the promise before the slot: what it covers is then visible
        bound = load_acquire(ctl, WATERMARK)
        told = max(bound, _bound(b, ctl))
        if reference != BY_INPUT:
            # A promise holds while we write nothing new. What we have pending, or take from the inputs before this one, may
            # make us write: nobody answers that before we have written it.
            own = min(low, reg[R_INTERNAL_DUE]) + b[OUT + reference * OUT_STRIDE + A_LEAD]
            bound = max(bound, min(told, own))
        if ready(ctl, slots, head):
            key = slots[head & (ctl[CAPACITY] - 1), 0] + loc[I_SHIFT]
            hope = key
            if key < chosen_key:
                chosen, chosen_key = r, key
        else:
            key = bound + loc[I_SHIFT]
            hope = told + loc[I_SHIFT]
        reg[R_KEYS + r] = key
        low = min(low, key)
        if r != b[FEEDBACK]:
            promise = min(promise, hope)
    if open_end and low >= TS_END:
        # only what comes from outside is still to come, and it is given no time after the last: time stands still
        low = promise = min(reg[R_LOW], TS_END - 1)
    reg[R_LOW], reg[R_PROMISE] = low, promise
    if untimed >= 0 and low >= max(load_acquire(out_ctl(b, 0), WATERMARK), load_acquire(out_ctl(b, 0), PROMISE)):
        chosen, chosen_key = untimed, -1
    if _due_by(b, low):
        return _fall_due(b)
    if chosen < 0:
        return -1, 0
    count = _run_length(b, chosen, chosen_key)
    if count == 0:
        return -1, 0
    if log >= 0:
        loc = in_loc(b, chosen)
        ts = in_slots(b, chosen)[loc[I_HEAD] & (in_ctl(b, chosen)[CAPACITY] - 1), 0]
        if chosen_key < 0:
            # outside the merge a record takes effect now
            ts = max(low if low < TS_END else 0, out_loc(b, 0)[O_WATERMARK])
            reg[R_UNTIMED] = ts
        log_intake(b, chosen, loc[I_HEAD], count, ts)
    reg[R_NOW] = mono_ns()
    return chosen, count


@kernel
def _run_length(b: Words, chosen: int, chosen_key: int) -> int:
    """How many records of the chosen input come before anything that another input has or may still deliver."""
    reg = registers(b)
    ctl, slots, loc = in_ctl(b, chosen), in_slots(b, chosen), in_loc(b, chosen)
    last_word, mask, head = ctl[RECORD_WORDS] - 1, ctl[CAPACITY] - 1, loc[I_HEAD]
    most = _recordable(b)
    before, upto = TS_END + 1, TS_END + 1
    if chosen_key >= 0:
        if b[CALLS + DUE] != 0:
            before = reg[R_INTERNAL_DUE]
        for r in range(b[INPUTS]):
            if r < chosen:
                before = min(before, reg[R_KEYS + r])
            if r > chosen:
                upto = min(upto, reg[R_KEYS + r])
    else:
        most = min(most, 1)
    count = 0
    while count < most:
        at = head + count
        if load_acquire2(slots, at & mask, last_word) != at + 1:
            break
        if chosen_key >= 0:
            key = slots[at & mask, 0] + loc[I_SHIFT]
            if key >= before or key > upto:
                break
        count += 1
    return count


@kernel
def flush_outputs(b: Words) -> None:
    """Show tails, watermarks and the promise, wake who sleeps. Spinning readers see records since they were written."""
    reg = registers(b)
    bells = doorbells(b)
    low = min(reg[R_LOW], reg[R_INTERNAL_DUE])
    for o in range(b[OUTPUTS]):
        watermark = TS_END if low >= TS_END else low + b[OUT + o * OUT_STRIDE + A_LEAD]
        flush(out_ctl(b, o), out_loc(b, o), watermark, bells)
    if b[FEEDBACK] >= 0:
        _promise(b)
    if b[LOG] >= 0:
        flush(out_ctl(b, b[LOG]), out_loc(b, b[LOG]), 0, bells)


@kernel
def _promise(b: Words) -> None:
    """Show the conditional watermark on the first output.

    What a dead incarnation has promised behind more reports than we have read again still holds, and says more.
    """
    ctl = out_ctl(b, 0)
    given = in_loc(b, b[FEEDBACK])[I_HEAD] + 1
    promise = min(registers(b)[R_PROMISE], registers(b)[R_INTERNAL_DUE])
    if ctl[PROMISE_GIVEN] > given or (ctl[PROMISE_GIVEN] == given and ctl[PROMISE] >= promise):
        return
    store_release(ctl, PROMISE_GIVEN, 0)
    store_release(ctl, PROMISE, promise)
    store_release(ctl, PROMISE_GIVEN, given)
    wake_readers(ctl, doorbells(b))
