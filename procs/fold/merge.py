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
    A_CTL,
    A_LEAD,
    A_LOC,
    A_SLOTS,
    A_WIDTH,
    ARENA,
    BATCH,
    BY_INPUT,
    CALLS,
    DOORBELLS,
    DUE,
    FEEDBACK,
    FENCES,
    IN,
    IN_STRIDE,
    INPUTS,
    LOG,
    LOOK,
    LOOKED,
    OUT,
    OUT_STRIDE,
    OUTPUTS,
    POLL,
    R_BLOCKED,
    R_CHOSEN,
    R_INTERNAL_DUE,
    R_KEYS,
    R_LACKS,
    R_LOW,
    R_NEED,
    R_NOW,
    R_PROMISE,
    R_SINCE,
    R_UNTIMED,
    REFERENCE,
    REGISTERS,
    TIMED,
    in_ctl,
    in_loc,
    in_slots,
    out_ctl,
    out_identity,
    out_loc,
    out_slots,
    registers,
)
from procs.fold.checkpoint import save, show_progress
from procs.fold.look import look, seen, watched
from procs.memory import board
from ringbuf.intrinsics import fence, load_acquire, mono_ns, store_release, words_at
from ringbuf.jit import Words, kernel, lean
from ringbuf.layout import CAPACITY, CONTROL_WORDS, PROMISE, PROMISE_GIVEN, WATERMARK
from ringbuf.ring import (
    I_ENDED,
    I_ENDLESS,
    I_HEAD,
    I_SHIFT,
    I_TIMED,
    LOC_WORDS,
    O_FLUSHED,
    O_KNOWN,
    O_TAIL,
    O_WATERMARK,
    note_full,
    open_slot,
    publish_slot,
    room,
    show,
    wake_readers,
)
from trading.records import TS_END, Kind

FALLS_DUE = -3
"""What `next_run` answers in place of an input: something of the stage's own falls due."""
LOG_KIND = int(Kind.INTAKE) << 32
LOG_RING, LOG_COUNT = 4, 5  # words of an intake record
ANY = -1  # R_LACKS where whatever comes may help


@kernel
def _recordable(b: Words, wanted: int) -> int:
    """How many of `wanted` records may be taken before an output could be full; notes which output is."""
    reg = registers(b)
    before = reg[R_BLOCKED]
    reg[R_BLOCKED] = 0
    least = wanted
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


@lean
def _there(b: Words, r: int, seq: int) -> bool:
    """Whether record `seq` of an input may be read."""
    at = IN + r * IN_STRIDE
    width = b[at + A_WIDTH]
    row = seq & (words_at(b[at + A_CTL], CONTROL_WORDS)[CAPACITY] - 1)
    return load_acquire(words_at(b[at + A_SLOTS] + row * width * 8, width), width - 1) == seq + 1


@lean
def _time(b: Words, r: int, seq: int) -> int:
    """The `ts_ns` of record `seq` of an input, which is there."""
    at = IN + r * IN_STRIDE
    row = seq & (words_at(b[at + A_CTL], CONTROL_WORDS)[CAPACITY] - 1)
    return words_at(b[at + A_SLOTS] + row * b[at + A_WIDTH] * 8, 1)[0]


@lean
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
        known, at = words_at(b[IN + feedback * IN_STRIDE + A_LOC], LOC_WORDS)[I_HEAD], IN + feedback * IN_STRIDE
    else:
        loc, at = words_at(b[OUT + reference * OUT_STRIDE + A_LOC], LOC_WORDS), OUT + reference * OUT_STRIDE
        known = max(loc[O_TAIL], loc[O_KNOWN])
    if given >= known:
        return promise
    # the first report that they have not read may move them, at the time at which they see it
    width = b[at + A_WIDTH]
    row = given & (words_at(b[at + A_CTL], CONTROL_WORDS)[CAPACITY] - 1)
    slot = words_at(b[at + A_SLOTS] + row * width * 8, width)
    if load_acquire(slot, width - 1) == given + 1:
        return max(watermark, min(promise, slot[0]))
    return watermark


@lean
def _choose(b: Words, looked: bool) -> tuple[int, int, int]:
    """(timed input whose record is the earliest, its key, untimed input that has one), -1 where there is none.

    Updates the keys, R_LOW and R_PROMISE. `looked`: what `look` has seen counts as well as what the writers promise.
    """
    reg = words_at(b[ARENA], REGISTERS)
    low, promise = TS_END, TS_END
    reference, feedback, inputs = b[REFERENCE], b[FEEDBACK], b[INPUTS]
    chosen, chosen_key, untimed, open_end = -1, TS_END + 1, -1, False
    for r in range(inputs):
        loc = words_at(b[IN + r * IN_STRIDE + A_LOC], LOC_WORDS)
        reg[R_KEYS + r] = TS_END + 1
        if loc[I_ENDED] != 0:
            continue
        head = loc[I_HEAD]
        there = _there(b, r, head)
        if b[TIMED] == 0:
            if chosen_key >= 0 and there:
                chosen, chosen_key = r, -1
            continue
        if loc[I_TIMED] == 0:
            open_end |= loc[I_ENDLESS] == 0
            if untimed < 0 and there:
                untimed = r
            continue
        bound = told = 0
        if not there:
            # the promise before the slot: what it covers is then visible
            ctl = words_at(b[IN + r * IN_STRIDE + A_CTL], CONTROL_WORDS)
            bound = load_acquire(ctl, WATERMARK)
            told = max(bound, _bound(b, ctl))
            if reference != BY_INPUT:
                # A promise holds while we write nothing new. What we have pending, or take from the inputs before this one,
                # may make us write: nobody answers that before we have written it.
                own = min(low, reg[R_INTERNAL_DUE]) + b[OUT + reference * OUT_STRIDE + A_LEAD]
                bound = max(bound, min(told, own))
            if looked:
                bound = max(bound, seen(b, r))
                told = max(told, bound)
            there = _there(b, r, head)
        if there:
            key = _time(b, r, head) + loc[I_SHIFT]
            hope = key
            if key < chosen_key:
                chosen, chosen_key = r, key
        else:
            key = bound + loc[I_SHIFT]
            hope = told + loc[I_SHIFT]
        reg[R_KEYS + r] = key
        low = min(low, key)
        if r != feedback:
            promise = min(promise, hope)
    if open_end and low >= TS_END:
        # only what comes from outside is still to come, and it is given no time after the last: time stands still
        low = promise = min(reg[R_LOW], TS_END - 1)
    else:
        low = max(low, reg[R_LOW])  # what was seen through others is true, though no writer has said it yet
    reg[R_LOW], reg[R_PROMISE] = low, max(promise, low)
    return chosen, chosen_key, untimed


@lean
def _run_length(b: Words, chosen: int, chosen_key: int) -> int:
    """How many records of the chosen input come before anything that another input has or may still deliver.

    Where none does, R_LACKS says of which inputs too little is known, and R_NEED how far it would have to be.
    """
    reg = words_at(b[ARENA], REGISTERS)
    loc = words_at(b[IN + chosen * IN_STRIDE + A_LOC], LOC_WORDS)
    if chosen_key < 0:
        return 1
    most, head, shift = b[BATCH], loc[I_HEAD], loc[I_SHIFT]
    before = reg[R_INTERNAL_DUE] if b[CALLS + DUE] != 0 else TS_END + 1
    upto, lacks = TS_END + 1, 0
    for r in range(b[INPUTS]):
        key = reg[R_KEYS + r]
        if r < chosen:
            before = min(before, key)
            if key <= chosen_key:
                lacks |= 1 << r
        if r > chosen:
            upto = min(upto, key)
            if key < chosen_key:
                lacks |= 1 << r
    if lacks != 0:
        reg[R_LACKS], reg[R_NEED], reg[R_CHOSEN] = lacks, chosen_key, chosen
        return 0
    at, count = IN + chosen * IN_STRIDE, 1
    slots, width = b[at + A_SLOTS], b[at + A_WIDTH]  # here: behind each acquire in the loop they would be read anew
    mask = words_at(b[at + A_CTL], CONTROL_WORDS)[CAPACITY] - 1
    while count < most:
        slot = words_at(slots + ((head + count) & mask) * width * 8, width)
        if load_acquire(slot, width - 1) != head + count + 1:
            break
        key = slot[0] + shift
        if key >= before or key > upto:
            break
        count += 1
    return count


@kernel
def _due_by(b: Words, ts_ns: int) -> bool:
    """Whether something of the stage's own falls due by then."""
    return b[CALLS + DUE] != 0 and registers(b)[R_INTERNAL_DUE] <= ts_ns < TS_END


@lean
def _lack_due(b: Words, key: int) -> None:
    """Where something falls due before the record that waits (at `key`), and an input has come that far already: of which inputs
    too little is known for it. A due time that nobody has reached is waited for by nobody."""
    reg = words_at(b[ARENA], REGISTERS)
    due = reg[R_INTERNAL_DUE]
    if b[CALLS + DUE] == 0 or due >= TS_END or due > key or reg[R_LACKS] == ANY:
        return
    lacks, reached = 0, False
    for r in range(b[INPUTS]):
        loc = words_at(b[IN + r * IN_STRIDE + A_LOC], LOC_WORDS)
        if loc[I_TIMED] == 0 or reg[R_KEYS + r] < due:
            lacks |= 1 << r  # what comes from outside has no time yet, and would come first
        elif loc[I_ENDED] == 0:
            reached = True
    if reached:
        reg[R_LACKS], reg[R_NEED], reg[R_CHOSEN] = lacks, due, -1


@kernel
def _fall_due(b: Words) -> tuple[int, int]:
    """What `next_run` answers when something falls due: nothing for now where an output is full."""
    registers(b)[R_NOW] = mono_ns()
    return (FALLS_DUE, 1) if _recordable(b, 1) > 0 else (-1, 0)


@lean
def _pick(b: Words, looked: bool) -> tuple[int, int, int]:
    """(input or FALLS_DUE, merge key, count): what may be taken next, whatever room there is; count 0: nothing.

    A key below 0 is that of a record outside the merge. Where nothing may be taken, R_LACKS says what a record lacks.
    """
    reg = words_at(b[ARENA], REGISTERS)
    reg[R_LACKS] = 0
    chosen, chosen_key, untimed = _choose(b, looked)
    low = reg[R_LOW]
    if untimed >= 0:
        first = words_at(b[OUT + A_CTL], CONTROL_WORDS)
        if low >= max(load_acquire(first, WATERMARK), load_acquire(first, PROMISE)):
            chosen, chosen_key = untimed, -1
        else:
            reg[R_LACKS] = ANY
    if b[CALLS + DUE] != 0 and reg[R_INTERNAL_DUE] <= low < TS_END:
        return FALLS_DUE, chosen_key, 1
    return chosen, chosen_key, _run_length(b, chosen, chosen_key) if chosen >= 0 else 0


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

    chosen, chosen_key, count = _pick(b, False)
    if count == 0 and b[LOOK] != 0 and (chosen >= 0 or b[LOOKED] == 0 or reg[R_INTERNAL_DUE] < TS_END or watched(b)):
        look(b)
        chosen, chosen_key, count = _pick(b, True)
    if chosen == FALLS_DUE:
        return _fall_due(b)
    low = reg[R_LOW]
    if count == 0:
        reg[R_BLOCKED] = 0
        _lack_due(b, chosen_key)
        return -1, 0
    count = _recordable(b, count)
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


@lean
def pending(b: Words) -> bool:
    """Whether records have been written that no tail shows yet: whoever sleeps for them has not been woken."""
    for o in range(b[OUTPUTS]):
        loc = words_at(b[OUT + o * OUT_STRIDE + A_LOC], LOC_WORDS)
        if loc[O_FLUSHED] != loc[O_TAIL]:
            return True
    return False


@lean
def waits_here(b: Words, r: int) -> bool:
    """Whether an input's next record is there, or none will come: nothing that its writer does now changes what is taken next."""
    loc = words_at(b[IN + r * IN_STRIDE + A_LOC], LOC_WORDS)
    return loc[I_ENDED] != 0 or _there(b, r, loc[I_HEAD])


@lean
def can_go_on(b: Words) -> bool:
    """Whether anything has come that the last try to take a record lacked; what is cheaper to ask than to try again.

    May say yes for nothing. A no leaves out what only a try does: to pass on how far time has come.
    """
    reg = words_at(b[ARENA], REGISTERS)
    lacks, need = reg[R_LACKS], reg[R_NEED]
    if reg[R_BLOCKED] != 0 or lacks == ANY or b[CALLS + POLL] != 0:
        return True
    for r in range(b[INPUTS]):
        loc = words_at(b[IN + r * IN_STRIDE + A_LOC], LOC_WORDS)
        if lacks != 0 and not (lacks >> r) & 1:
            continue
        if loc[I_ENDED] == 0:
            if _there(b, r, loc[I_HEAD]):
                return True
            if lacks != 0:
                ctl = words_at(b[IN + r * IN_STRIDE + A_CTL], CONTROL_WORDS)
                if max(load_acquire(ctl, WATERMARK), load_acquire(ctl, PROMISE)) + loc[I_SHIFT] >= need:
                    return True
    return False


@lean
def flush_outputs(b: Words) -> None:
    """Show progress, tails, watermarks and the promise, then wake who sleeps. Who spins sees records once they are written.

    Between processes a fence stands between the two, and sleepers need no membarrier (procs.fold.group).
    """
    show_progress(b)
    reg, moved = words_at(b[ARENA], REGISTERS), 0
    low, outputs = min(reg[R_LOW], reg[R_INTERNAL_DUE]), b[OUTPUTS] + (1 if b[LOG] >= 0 else 0)
    for o in range(outputs):
        at = OUT + o * OUT_STRIDE
        watermark = 0 if o == b[LOG] else TS_END if low >= TS_END else low + b[at + A_LEAD]
        if show(words_at(b[at + A_CTL], CONTROL_WORDS), words_at(b[at + A_LOC], LOC_WORDS), watermark):
            moved |= 1 << o
    if b[FEEDBACK] >= 0 and _promise(b):
        moved |= 1
    if moved == 0:
        return
    if b[FENCES] != 0:
        fence()
    for o in range(outputs):
        if (moved >> o) & 1:
            wake_readers(words_at(b[OUT + o * OUT_STRIDE + A_CTL], CONTROL_WORDS), words_at(b[DOORBELLS], board.DOORBELL_WORDS))


@lean
def _promise(b: Words) -> bool:
    """Show the conditional watermark on the first output; whether it has changed.

    What a dead incarnation has promised behind more reports than we have read again still holds, and says more.
    """
    ctl = words_at(b[OUT + A_CTL], CONTROL_WORDS)
    given = words_at(b[IN + b[FEEDBACK] * IN_STRIDE + A_LOC], LOC_WORDS)[I_HEAD] + 1
    promise = words_at(b[ARENA], REGISTERS)[R_PROMISE]
    promise = min(promise, words_at(b[ARENA], REGISTERS)[R_INTERNAL_DUE])
    if ctl[PROMISE_GIVEN] > given or (ctl[PROMISE_GIVEN] == given and ctl[PROMISE] >= promise):
        return False
    store_release(ctl, PROMISE_GIVEN, 0)
    store_release(ctl, PROMISE, promise)
    store_release(ctl, PROMISE_GIVEN, given)
    return True
