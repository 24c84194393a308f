"""What makes a stage an exact fold: merged inputs, intake log, checkpoint, recovery, waiting. All compiled.

A stage's private state is one int64 array, the *arena*: registers, the endpoints' rows (heads and tails), then whatever
the stage keeps. A checkpoint is a copy of the arena into one of two buffers of a shared segment, made valid by one
atomic store. After kill -9 the next incarnation copies the last checkpoint back, learns from the slots how far its
predecessor had published, follows the intake log, computes again, and what had been published is compared instead
of published twice (ringbuf.ring.begin/commit).

Merging. In virtual time (replay, generated market) the next record is the one with the smallest (ts_ns, input order), and
it is taken only when no other input can still deliver a smaller one: each ring carries a watermark, the promise that
nothing earlier follows. This makes the order of intake a function of the records alone.

The loop risk -> router -> exchange -> router -> risk would make watermarks creep forward by one latency a round, so there
is a second, conditional promise: quoter, risk and router say "having read n reports and if no more come, I write nothing
before t". Router and exchange, which make the reports, know whether the condition holds: what they have not written
cannot have been read, and what is written but not read moves nobody before its own time. Between two reports the
whole loop thus advances as far as the market's records reach.

In arrival order (live venues) whatever is there is
taken, inputs in their order; then only the intake log knows the order, which is why it is written in both cases.

                arena                                       checkpoint segment
    +-------------------------------+            +--------------------------------------+
    | registers                     |            | ACTIVE (0 none, 1, 2)  ARENA_WORDS   |
    | row of input 0, 1, ...        |  copy ---> | buffer 1                             |
    | row of output 0, 1, ... intake|            | buffer 2                             |
    | the stage's own state         |            +--------------------------------------+
    +-------------------------------+
"""

from __future__ import annotations

from typing import Final, NamedTuple

from procs import board
from ringbuf.intrinsics import (
    exchange,
    fetch_or,
    futex_wait,
    load_acquire,
    load_acquire2,
    membarrier,
    mono_ns,
    pause,
    sched_yield,
    store_release,
)
from ringbuf.jit import Words, kernel
from ringbuf.layout import (
    ARMED_READERS,
    ARMED_WRITER,
    CAPACITY,
    CURSOR,
    LINE_WORDS,
    PROMISE,
    PROMISE_GIVEN,
    READER_LINES,
    RECORD_WORDS,
    WATERMARK,
)
from ringbuf.ring import (
    I_ENDED,
    I_HEAD,
    I_READER,
    I_RELEASED,
    I_SHIFT,
    I_TIMED,
    O_FLUSHED,
    O_GATE,
    O_KNOWN,
    O_TAIL,
    O_WATERMARK,
    Output,
    begin,
    commit,
    flush,
    note_full,
    published_tail,
    release,
    room,
    smallest_cursor,
    wake_readers,
)
from trading.records import TS_END

MAX_INPUTS: Final = 8
LOC: Final = 16  # ringbuf.ring.LOC_WORDS

# registers: the arena's first words
R_SINCE: Final = 0  # records taken since the last checkpoint
R_LOW: Final = 1  # no input delivers anything earlier than this
R_INTERNAL_DUE: Final = 2  # time of the next thing that the stage itself has pending
R_DONE: Final = 3  # the stage has written END everywhere
R_NOW: Final = 4  # CLOCK_MONOTONIC at the beginning of the run
R_WAIT_NS: Final = 5  # how long to sleep at most
R_BLOCKED: Final = 6  # bit o: output o was full
R_BELL: Final = 7  # doorbell as read before arming
R_BUSY_FROM: Final = 8
R_PROMISE: Final = 9  # nothing is written before this unless the feedback input delivers
R_UNTIMED: Final = 10  # time given to a record that was taken outside the merge
R_KEYS: Final = 16  # merge keys of the inputs
REGISTERS: Final = 32

assert R_KEYS + MAX_INPUTS <= REGISTERS

# checkpoint segment
CK_ACTIVE: Final = 0
CK_ARENA_WORDS: Final = 1
CK_HEAD: Final = 512

# settings of a fold
C_STRATEGY: Final = 0
C_SPIN: Final = 1
C_CHECKPOINT_EVERY: Final = 2
C_BATCH: Final = 3
C_DOORBELL: Final = 4
C_TIMED: Final = 5
C_LOGGED: Final = 6
C_IDLE_NS: Final = 7
C_FEEDBACK: Final = 8  # the input on which reports come, -1: none
C_REFERENCE: Final = 9  # what a promise's condition is compared with
SETTINGS: Final = 16

BY_INPUT: Final = -1  # with what this stage has read on its feedback input; else with what it has written on output 0, 1, ..

SPIN: Final = 0
YIELD: Final = 1
BLOCK: Final = 2

IDLE_NS: Final = 100_000_000


class Fold(NamedTuple):
    """Everything that the kernels below need of a stage. Tuples have one entry an input or output."""

    in_ctl: tuple[Words, ...]
    in_words: tuple[Words, ...]
    in_loc: tuple[Words, ...]
    out_ctl: tuple[Words, ...]
    out_words: tuple[Words, ...]
    out_loc: tuple[Words, ...]
    out_burst: Words
    out_shift: Words  # ns by which an output's watermark leads the inputs'
    intake: Output
    arena: Words
    reg: Words  # the arena's registers
    checkpoint: Words  # payload of the checkpoint segment
    board: Words  # this stage's page
    doorbells: Words
    settings: Words


def checkpoint_words(arena_words: int) -> int:
    """Words of a checkpoint segment's payload for an arena of this size."""
    return CK_HEAD + 2 * arena_words


@kernel
def save(fold: Fold) -> None:
    """Checkpoint: copy the arena, make the copy valid by one store, then let the writers have the slots back."""
    fold.reg[R_SINCE] = 0
    arena, ck = fold.arena, fold.checkpoint
    target = 2 if ck[CK_ACTIVE] == 1 else 1
    start = CK_HEAD + (target - 1) * arena.shape[0]
    ck[start : start + arena.shape[0]] = arena
    store_release(ck, CK_ACTIVE, target)
    show_cursors(fold)
    fold.board[board.CHECKPOINTS] += 1


@kernel
def show_cursors(fold: Fold) -> None:
    """Publish the input cursors and the intake log's own cursor as of the checkpoint just made."""
    for r in range(len(fold.in_ctl)):
        release(fold.in_ctl[r], fold.in_loc[r], fold.doorbells)
    if fold.settings[C_LOGGED] != 0:
        store_release(fold.intake.ctl, READER_LINES + CURSOR, fold.intake.loc[O_TAIL])


@kernel
def restore(fold: Fold) -> int:
    """Put the arena back to the last checkpoint, if there is one, and learn what had been published since.

    Returns 1 when a checkpoint was loaded, 0 for a first start (the arena stays as the stage's init made it).
    """
    arena, ck = fold.arena, fold.checkpoint
    active = load_acquire(ck, CK_ACTIVE)
    if active != 0:
        start = CK_HEAD + (active - 1) * arena.shape[0]
        arena[:] = ck[start : start + arena.shape[0]]
    for o in range(len(fold.out_ctl)):
        _resume_output(fold.out_ctl[o], fold.out_words[o], fold.out_loc[o])
    if fold.settings[C_LOGGED] != 0:
        _resume_output(fold.intake.ctl, fold.intake.words, fold.intake.loc)
    for r in range(len(fold.in_ctl)):
        fold.in_loc[r][I_RELEASED] = -1
    show_cursors(fold)
    fold.reg[R_BLOCKED] = 0
    return 1 if active != 0 else 0


@kernel
def _resume_output(ctl: Words, words: Words, loc: Words) -> None:
    loc[O_KNOWN] = published_tail(ctl, words, loc[O_TAIL])
    gate = smallest_cursor(ctl)
    loc[O_GATE] = gate if gate < loc[O_TAIL] else loc[O_TAIL]
    loc[O_FLUSHED] = -1
    loc[O_WATERMARK] = -1


@kernel
def _recordable(fold: Fold) -> int:
    """How many records may be taken before an output could be full; notes which output is."""
    fold.reg[R_BLOCKED] = 0
    least = fold.settings[C_BATCH]
    for o in range(len(fold.out_ctl)):
        burst = fold.out_burst[o]
        if burst > 0:
            free = room(fold.out_ctl[o], fold.out_loc[o], burst * least) // burst
            if free < least:
                least = free
            if free == 0:
                fold.reg[R_BLOCKED] |= 1 << o
                note_full(fold.out_ctl[o])
    if fold.settings[C_LOGGED] != 0 and room(fold.intake.ctl, fold.intake.loc, 1) < 1:
        # our own cursor in the log moves with our checkpoint
        if fold.reg[R_SINCE] > 0:
            save(fold)
        if room(fold.intake.ctl, fold.intake.loc, 1) < 1:
            fold.reg[R_BLOCKED] |= 1 << len(fold.out_ctl)
            note_full(fold.intake.ctl)
            return 0
    return least


@kernel
def _log(fold: Fold, ring: int, count: int, ts_ns: int) -> None:
    row = begin(fold.intake)
    rec = fold.intake.recs[row]
    rec.ts_ns = ts_ns
    rec.cause_seq = fold.in_loc[ring][I_HEAD]
    rec.cause_ring = 0
    rec.kind = 70  # Kind.INTAKE
    rec.symbol = 0
    rec.flags = 0
    rec.ring = ring
    rec.count = count
    rec.first_seq = fold.in_loc[ring][I_HEAD]
    commit(fold.intake)


@kernel
def _available(ctl: Words, words: Words, head: int) -> bool:
    return load_acquire2(words, head & (ctl[CAPACITY] - 1), ctl[RECORD_WORDS] - 1) == head + 1


@kernel
def _bound(fold: Fold, ctl: Words) -> int:
    """The earliest time that this input may still deliver, as far as promises on it hold for us.

    The promise is read as a pair: its condition before and after it must be the same.
    """
    watermark = load_acquire(ctl, WATERMARK)
    given = load_acquire(ctl, PROMISE_GIVEN)
    promise = load_acquire(ctl, PROMISE)
    if given == 0 or given != load_acquire(ctl, PROMISE_GIVEN) or promise <= watermark:
        return watermark
    given -= 1
    reference = fold.settings[C_REFERENCE]
    if reference == BY_INPUT:
        if fold.settings[C_FEEDBACK] >= 0 and given == fold.in_loc[fold.settings[C_FEEDBACK]][I_HEAD]:
            return promise
        return watermark
    loc, out, words = fold.out_loc[reference], fold.out_ctl[reference], fold.out_words[reference]
    written = loc[O_TAIL] if loc[O_TAIL] > loc[O_KNOWN] else loc[O_KNOWN]
    if given >= written:
        return promise
    # the first record of ours that they have not read may move them, at the time at which they see it
    row = given & (out[CAPACITY] - 1)
    if load_acquire2(words, row, out[RECORD_WORDS] - 1) == given + 1:
        return max(watermark, min(promise, words[row, 0]))
    return watermark


@kernel
def next_run(fold: Fold) -> tuple[int, int]:
    """(input, count): which input to take how many records from next; count 0 when there is nothing to take now.

    The choice has been written to the intake log when this returns. Updates R_LOW, the bound before which nothing more
    can come, and R_NOW.
    """
    reg = fold.reg
    inputs = len(fold.in_ctl)
    logged = fold.settings[C_LOGGED] != 0
    if logged and fold.intake.loc[O_TAIL] < fold.intake.loc[O_KNOWN]:
        row = fold.intake.loc[O_TAIL] & (fold.intake.ctl[CAPACITY] - 1)
        ring = fold.intake.recs[row].ring
        count = fold.intake.recs[row].count
        ts = fold.intake.recs[row].ts_ns
        _log(fold, ring, count, ts)
        reg[R_UNTIMED] = ts
        reg[R_NOW] = mono_ns()
        return ring, count

    low, promise = TS_END, TS_END
    feedback = fold.settings[C_FEEDBACK]
    by_origin = fold.settings[C_REFERENCE] != BY_INPUT
    chosen, chosen_key = -1, TS_END + 1
    for r in range(inputs):
        ctl, words, loc = fold.in_ctl[r], fold.in_words[r], fold.in_loc[r]
        head = loc[I_HEAD]
        reg[R_KEYS + r] = TS_END + 1
        if loc[I_ENDED] != 0:
            continue
        if loc[I_TIMED] == 0 or fold.settings[C_TIMED] == 0:
            if _available(ctl, words, head) and (chosen < 0 or chosen_key > -1):
                chosen, chosen_key = r, -1
            continue
        # the promise before the slot: what the watermark covers is then visible
        bound = load_acquire(ctl, WATERMARK)
        told = max(bound, _bound(fold, ctl))
        if by_origin:
            bound = told
        if _available(ctl, words, head):
            key = words[head & (ctl[CAPACITY] - 1), 0] + loc[I_SHIFT]
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
    reg[R_LOW] = low
    reg[R_PROMISE] = promise
    if chosen < 0:
        return -1, 0

    ctl, words, loc = fold.in_ctl[chosen], fold.in_words[chosen], fold.in_loc[chosen]
    last_word, mask, head = ctl[RECORD_WORDS] - 1, ctl[CAPACITY] - 1, loc[I_HEAD]
    most = _recordable(fold)
    before, upto = TS_END + 1, TS_END + 1
    if chosen_key >= 0:
        for r in range(inputs):
            if r < chosen and reg[R_KEYS + r] < before:
                before = reg[R_KEYS + r]
            if r > chosen and reg[R_KEYS + r] < upto:
                upto = reg[R_KEYS + r]
    count = 0
    while count < most:
        at = head + count
        if load_acquire2(words, at & mask, last_word) != at + 1:
            break
        if chosen_key >= 0:
            key = words[at & mask, 0] + loc[I_SHIFT]
            if key >= before or key > upto:
                break
        count += 1
    if count == 0:
        return -1, 0
    if logged:
        ts = words[head & mask, 0]
        if chosen_key < 0:
            # outside the merge a record takes effect now: after all that we have promised
            ts = max(low if low < TS_END else 0, fold.out_loc[0][O_WATERMARK])
            reg[R_UNTIMED] = ts
        _log(fold, chosen, count, ts)
    reg[R_NOW] = mono_ns()
    return chosen, count


@kernel
def taken(fold: Fold, ring: int) -> None:
    """One record of this input has been processed."""
    fold.in_loc[ring][I_HEAD] += 1
    fold.reg[R_SINCE] += 1


@kernel
def end_input(fold: Fold, ring: int) -> None:
    """This input has delivered its END."""
    fold.in_loc[ring][I_ENDED] = 1


@kernel
def ended(fold: Fold, ring: int) -> bool:
    """Whether this input has delivered its END."""
    return fold.in_loc[ring][I_ENDED] != 0


@kernel
def flush_outputs(fold: Fold) -> None:
    """Show tails and watermarks of all outputs, wake who sleeps. Records are visible to spinning readers since commit."""
    low = fold.reg[R_LOW]
    if fold.reg[R_INTERNAL_DUE] < low:
        low = fold.reg[R_INTERNAL_DUE]
    for o in range(len(fold.out_ctl)):
        watermark = low + fold.out_shift[o]
        if watermark > TS_END or low >= TS_END:
            watermark = TS_END
        flush(fold.out_ctl[o], fold.out_loc[o], watermark, fold.doorbells)
    if fold.settings[C_FEEDBACK] >= 0:
        _promise(fold)
    if fold.settings[C_LOGGED] != 0:
        flush(fold.intake.ctl, fold.intake.loc, 0, fold.doorbells)


@kernel
def _promise(fold: Fold) -> None:
    """Show the conditional watermark on the first output."""
    ctl = fold.out_ctl[0]
    given = fold.in_loc[fold.settings[C_FEEDBACK]][I_HEAD] + 1
    promise = fold.reg[R_PROMISE]
    if ctl[PROMISE_GIVEN] == given and ctl[PROMISE] >= promise:
        return
    store_release(ctl, PROMISE_GIVEN, 0)
    store_release(ctl, PROMISE, promise)
    store_release(ctl, PROMISE_GIVEN, given)
    wake_readers(ctl, fold.doorbells)


@kernel
def _arm(fold: Fold) -> None:
    """Say on every input (and on full outputs) that we are about to sleep, then make every writer see it.

    The writers put no fence between publishing and looking for sleepers; the membarrier here, paid only before sleeping,
    orders their stores before our second look. Without it both sides can miss each other.
    """
    fold.reg[R_BELL] = load_acquire(fold.doorbells, fold.settings[C_DOORBELL])
    for r in range(len(fold.in_ctl)):
        fetch_or(fold.in_ctl[r], ARMED_READERS, 1 << fold.in_loc[r][I_READER])
    blocked = fold.reg[R_BLOCKED]
    for o in range(len(fold.out_ctl)):
        if (blocked >> o) & 1:
            exchange(fold.out_ctl[o], ARMED_WRITER, 1)
    if (blocked >> len(fold.out_ctl)) & 1:
        exchange(fold.intake.ctl, ARMED_WRITER, 1)
    membarrier(2)  # MEMBARRIER_CMD_GLOBAL_EXPEDITED


@kernel
def settle(fold: Fold, work: int, idle: int) -> int:
    """What the loop does after a poll: heartbeat, checkpoint, wait. Takes and returns the count of idle polls in a row.

    Waiting in `block`: spin, then checkpoint (so that writers get their slots back), say that we sleep, poll once more,
    sleep on the doorbell with a time limit.
    """
    page, settings, reg = fold.board, fold.settings, fold.reg
    store_release(page, board.HEARTBEAT, page[board.HEARTBEAT] + 1)
    if work > 0:
        page[board.RECORDS] += work
        page[board.WORK_POLLS] += 1
        if reg[R_SINCE] >= settings[C_CHECKPOINT_EVERY]:
            save(fold)
        return 0
    idle += 1
    strategy, spin = settings[C_STRATEGY], settings[C_SPIN]
    if idle < spin:
        pause()
        return idle
    if idle == spin:
        if reg[R_SINCE] > 0:
            save(fold)
        if strategy == BLOCK:
            _arm(fold)
        return idle
    if strategy == SPIN:
        pause()
    elif strategy == YIELD:
        sched_yield()
    else:
        wait_ns = reg[R_WAIT_NS]
        if wait_ns > 0:
            page[board.SLEEPS] += 1
            before = mono_ns()
            futex_wait(fold.doorbells, settings[C_DOORBELL], reg[R_BELL], wait_ns)
            page[board.SLEPT_NS] += mono_ns() - before
        # be ready to spin again; arming is renewed before the next sleep
        return spin - 1
    return idle


@kernel
def finished(fold: Fold) -> bool:
    """Whether the loop is to end: told to stop, or done."""
    return fold.reg[R_DONE] != 0 or load_acquire(fold.board, board.STOP) != 0


@kernel
def conclude(fold: Fold) -> None:
    """Leave everything as a reader or a next incarnation wants to find it."""
    flush_outputs(fold)
    save(fold)
    if fold.reg[R_DONE] != 0:
        store_release(fold.board, board.FINISHED, 1)


def settings_words() -> int:
    """Length of a settings array."""
    return SETTINGS


assert LINE_WORDS == 8
