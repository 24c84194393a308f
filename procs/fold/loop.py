"""The loop that every hot stage runs: poll, heartbeat, checkpoints, waiting, ending. All compiled, all over the stage's block.

A stage is its handlers (procs.fold.far_calls), by the places that the loop calls them at:

    0, 1, ...   (b, now)       a record has come on this input, in the order of the stage's inputs; never an END
    ENDED       (b, input)     END has come on this input
    WAITING     (b, low)       nothing can be taken now, and nothing before `low` will come; only where there is one
    BEFORE      (b, 0)         before a poll; only where there is one
    POLL        (b, 0)         the whole poll of a stage that takes no records from a merge (the feed); how much it took

`poll(b) -> work` takes what procs.fold.merge lets it take and never waits. `settle` does what comes after a poll; `conclude`
leaves everything as readers and a next incarnation want to find it.
"""

from __future__ import annotations

from typing import Final

from procs.fold.assembly import W_CAUSE_RING
from procs.fold.block import (
    BEFORE,
    BLOCK,
    CALLS,
    CHECKPOINT_EVERY,
    DOORBELL,
    ENDED,
    INPUTS,
    LOG,
    OUTPUTS,
    POLL,
    R_ARMED,
    R_BELL,
    R_BLOCKED,
    R_DONE,
    R_LOW,
    R_NOW,
    R_SINCE,
    R_SLEPT,
    R_WAIT_NS,
    SPIN,
    SPIN_POLLS,
    STAMPED,
    STRATEGY,
    WAITING,
    YIELD,
    doorbells,
    in_ctl,
    in_loc,
    in_slots,
    out_ctl,
    page,
    registers,
)
from procs.fold.checkpoint import save
from procs.fold.far_calls import ask_numbered, call_numbered
from procs.fold.merge import flush_outputs, next_run
from procs.fold.stamps import W_ORIGIN, W_PUBLISH, note_held, note_slept, note_taken
from procs.memory import board
from ringbuf.intrinsics import (
    MEMBARRIER_GLOBAL_EXPEDITED,
    exchange,
    fetch_or,
    futex_wait,
    load_acquire,
    membarrier,
    mono_ns,
    pause,
    sched_yield,
    store_release,
)
from ringbuf.jit import Words, kernel
from ringbuf.layout import ARMED_READERS, ARMED_WRITER, CAPACITY, READER_DOORBELL, READERS
from ringbuf.ring import I_ENDED, I_HEAD, I_READER, I_RELEASED, I_TIMED, ring_doorbell
from trading.records import TS_END, Kind

POLL_RECORDS: Final = 1024
END: Final = int(Kind.END)

NAP_NS: Final = 20_000_000
"""Longest sleep while something is not checkpointed yet."""


@kernel
def taken(b: Words, ring: int) -> None:
    """One record of this input has been processed."""
    in_loc(b, ring)[I_HEAD] += 1
    registers(b)[R_SINCE] += 1


@kernel
def ended(b: Words, ring: int) -> bool:
    """Whether this input has delivered its END."""
    return in_loc(b, ring)[I_ENDED] != 0


@kernel
def _ring_laggards(b: Words, o: int) -> None:
    """Wake every reader of a full ring, also those that sleep by the clock and have not said so (the recorder)."""
    ctl, bells = out_ctl(b, o), doorbells(b)
    for r in range(ctl[READERS]):
        ring_doorbell(bells, ctl[READER_DOORBELL + r])


@kernel
def _arm(b: Words) -> None:
    """Say on every input (and on full outputs) that we are about to sleep, then make every writer see it.

    The writers put no fence between publishing and looking for sleepers; the membarrier here, paid only before sleeping,
    orders their stores before our second look. Without it both sides can miss each other.
    """
    reg = registers(b)
    reg[R_BELL] = load_acquire(doorbells(b), b[DOORBELL])
    for r in range(b[INPUTS]):
        fetch_or(in_ctl(b, r), ARMED_READERS, 1 << in_loc(b, r)[I_READER])
    blocked = reg[R_BLOCKED]
    reg[R_ARMED] = blocked
    outputs = b[OUTPUTS] + (1 if b[LOG] >= 0 else 0)
    for o in range(outputs):
        if (blocked >> o) & 1:
            exchange(out_ctl(b, o), ARMED_WRITER, 1)
            _ring_laggards(b, o)
    membarrier(MEMBARRIER_GLOBAL_EXPEDITED)


@kernel
def _writer_waits(b: Words) -> bool:
    """Whether a writer sleeps for room of which a checkpoint would give it a good piece."""
    for r in range(b[INPUTS]):
        ctl, loc = in_ctl(b, r), in_loc(b, r)
        if load_acquire(ctl, ARMED_WRITER) != 0 and loc[I_HEAD] - loc[I_RELEASED] >= ctl[CAPACITY] // 8:
            return True
    return False


@kernel
def settle(b: Words, work: int, idle: int) -> int:
    """What the loop does after a poll: heartbeat, checkpoint, wait. Takes and returns the count of idle polls in a row.

    Waiting in `block`: spin, say that we sleep, poll once more, sleep on the doorbell with a time limit. The slots that were
    read go back to their writers with the next checkpoint: after so many records, when nobody rang for a while, or when a
    writer says that it waits for room.
    """
    words, reg = page(b), registers(b)
    store_release(words, board.HEARTBEAT, words[board.HEARTBEAT] + 1)
    if work > 0:
        words[board.RECORDS] += work
        words[board.WORK_POLLS] += 1
        reg[R_SLEPT] = 0
        if reg[R_SINCE] >= b[CHECKPOINT_EVERY]:
            save(b)
        return 0
    idle += 1
    strategy, spin = b[STRATEGY], b[SPIN_POLLS]
    if idle < spin:
        pause()
        return idle
    if idle == spin:
        if strategy == BLOCK:
            if reg[R_SINCE] > 0 and (reg[R_SLEPT] != 0 or _writer_waits(b)):
                save(b)
            _arm(b)
        elif reg[R_SINCE] > 0:
            save(b)
        return idle
    if strategy == SPIN:
        pause()
        return idle
    if strategy == YIELD:
        sched_yield()
        return idle
    if reg[R_BLOCKED] & ~reg[R_ARMED] != 0:
        return spin - 1  # an output was found full since we armed: its readers must know first
    if reg[R_WAIT_NS] > 0:
        words[board.SLEEPS] += 1
        note_held(b)
        before = mono_ns()
        nap = min(reg[R_WAIT_NS], NAP_NS) if reg[R_SINCE] > 0 else reg[R_WAIT_NS]
        futex_wait(doorbells(b), b[DOORBELL], reg[R_BELL], nap)
        reg[R_SLEPT] = 1 if load_acquire(doorbells(b), b[DOORBELL]) == reg[R_BELL] else 0
        now = mono_ns()
        note_slept(b, before, now)
        words[board.SLEPT_NS] += now - before
    # arming is renewed before the next sleep
    return spin - 1


@kernel
def finished(b: Words) -> bool:
    """Whether the loop is to end: told to stop, or done."""
    return registers(b)[R_DONE] != 0 or load_acquire(page(b), board.STOP) != 0


@kernel
def conclude(b: Words) -> None:
    """Leave everything as a reader or a next incarnation wants to find it."""
    flush_outputs(b)
    save(b)
    words = page(b)
    if registers(b)[R_DONE] != 0:
        store_release(words, board.FINISHED, 1)


@kernel
def _all_ended(b: Words) -> bool:
    for r in range(b[INPUTS]):
        if in_loc(b, r)[I_TIMED] != 0 and not ended(b, r):
            return False
    return True


@kernel
def _take(b: Words, r: int, now: int) -> None:
    """Hand the next record of an input to its handler."""
    slots = in_slots(b, r)
    row = in_loc(b, r)[I_HEAD] & (slots.shape[0] - 2)
    if in_loc(b, r)[I_TIMED] != 0 and slots[row, W_CAUSE_RING] >> 32 == END:
        in_loc(b, r)[I_ENDED] = 1
        call_numbered(b, ENDED, r)
        if _all_ended(b):
            registers(b)[R_LOW] = TS_END
            registers(b)[R_DONE] = 1
        return
    if (b[STAMPED] >> r) & 1:
        note_taken(b, r, slots[row, W_PUBLISH], slots[row, W_ORIGIN], now)
    call_numbered(b, r, now)


@kernel
def poll(b: Words) -> int:
    """Drain what is there; how many records were taken."""
    if b[CALLS + POLL] != 0:
        return ask_numbered(b, POLL, 0)
    if b[CALLS + BEFORE] != 0:
        call_numbered(b, BEFORE, 0)
    reg = registers(b)
    work = 0
    while work < POLL_RECORDS:
        ring, count = next_run(b)
        if count == 0 and b[CALLS + WAITING] != 0 and reg[R_DONE] == 0:
            call_numbered(b, WAITING, reg[R_LOW])
        flush_outputs(b)
        if count == 0:
            break
        now = reg[R_NOW]
        for _ in range(count):
            _take(b, ring, now)
            taken(b, ring)
        work += count
    return work


@kernel
def run(b: Words) -> None:
    """The hot loop."""
    store_release(page(b), board.READY, 1)
    idle = 0
    while not finished(b):
        idle = settle(b, poll(b), idle)
    conclude(b)
