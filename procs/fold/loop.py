"""What every hot stage does when its turn comes: one poll of its inputs. All compiled, all over the stage's block.

A stage is its handlers (procs.fold.far_calls), by the places that the loop calls them at:

    0, 1, ...   (b, now)       a record has come on this input, in the order of the stage's inputs; never an END
    ENDED       (b, input)     END has come on this input
    WAITING     (b, low)       nothing can be taken now, and nothing before `low` will come; only where there is one
    DUE         (b, now)       time has come to R_INTERNAL_DUE, before any record of that time; only where there is one
    BEFORE      (b, 0)         before a poll; only where there is one
    POLL        (b, 0)         the whole poll of a stage that takes no records from a merge (the feed); how much it took

`poll(b) -> work` takes what procs.fold.merge lets it take and never waits; `conclude` leaves everything as readers and a next
incarnation want to find it. Turns, waiting and checkpoints are procs.fold.group's.
"""

from __future__ import annotations

from typing import Final

from procs.fold.assembly import W_CAUSE_RING, in_time
from procs.fold.block import (
    BEFORE,
    CALLS,
    DUE,
    ENDED,
    INPUTS,
    POLL,
    R_CAUSE_RING,
    R_CAUSE_SEQ,
    R_DONE,
    R_INTERNAL_DUE,
    R_LOW,
    R_NOW,
    R_SINCE,
    STAMPED,
    WAITING,
    in_ctl,
    in_loc,
    in_slots,
    page,
    registers,
)
from procs.fold.checkpoint import save
from procs.fold.far_calls import ask_numbered, call_numbered
from procs.fold.merge import FALLS_DUE, flush_outputs, log_intake, next_run, pending
from procs.fold.stamps import W_ORIGIN, W_PUBLISH, note_taken
from procs.memory import board
from ringbuf.intrinsics import load_acquire, store_release
from ringbuf.jit import Words, kernel
from ringbuf.layout import RING_ID
from ringbuf.ring import I_ENDED, I_ENDLESS, I_HEAD
from trading.records import INTAKE_CUT, TS_END, Kind

POLL_RECORDS: Final = 1024
END: Final = int(Kind.END)


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
        if in_loc(b, r)[I_ENDLESS] == 0 and not ended(b, r):
            return False
    return True


@kernel
def _end(b: Words, r: int) -> None:
    """The next record of an input is its END."""
    in_loc(b, r)[I_ENDED] = 1
    call_numbered(b, ENDED, r)
    if _all_ended(b):
        registers(b)[R_LOW] = TS_END
        registers(b)[R_DONE] = 1


@kernel
def poll(b: Words) -> int:
    """Drain what is there; how many records were taken."""
    return poll_some(b, POLL_RECORDS)


@kernel
def poll_some(b: Words, most: int) -> int:
    """`poll` that begins no batch once it has taken `most` records; the last batch may go beyond."""
    if b[CALLS + POLL] != 0:
        return ask_numbered(b, POLL, 0)
    if b[CALLS + BEFORE] != 0:
        call_numbered(b, BEFORE, 0)
    reg = registers(b)
    work = 0
    while work < most:
        ring, count = next_run(b)
        if count == 0 and b[CALLS + WAITING] != 0 and reg[R_DONE] == 0:
            call_numbered(b, WAITING, reg[R_LOW])
        if count == 0:
            flush_outputs(b)
            break
        if pending(b):
            flush_outputs(b)
        work += _fire(b) if ring == FALLS_DUE else _take_run(b, ring, count)
    return work


@kernel
def _fire(b: Words) -> int:
    """Let the stage do what falls due."""
    reg = registers(b)
    call_numbered(b, DUE, reg[R_NOW])
    reg[R_SINCE] += 1
    return 1


@kernel
def _take_run(b: Words, ring: int, count: int) -> int:
    """Take so many records of an input, fewer where something falls due before the next; how many."""
    reg, loc, slots = registers(b), in_loc(b, ring), in_slots(b, ring)
    now, dues, stamped, endless = reg[R_NOW], b[CALLS + DUE] != 0, (b[STAMPED] >> ring) & 1, loc[I_ENDLESS] != 0
    mask, done = slots.shape[0] - 2, 0
    while done < count:
        row = loc[I_HEAD] & mask
        if not endless and slots[row, W_CAUSE_RING] >> 32 == END:
            _end(b, ring)
        else:
            if stamped:
                note_taken(b, ring, slots[row, W_PUBLISH], slots[row, W_ORIGIN], now)
            call_numbered(b, ring, now)
        taken(b, ring)
        done += 1
        if dues and done < count and reg[R_INTERNAL_DUE] <= in_time(b, ring):
            log_intake(b, INTAKE_CUT, in_loc(b, ring)[I_HEAD], done, reg[R_INTERNAL_DUE])
            break
    if dues:
        reg[R_CAUSE_RING], reg[R_CAUSE_SEQ] = in_ctl(b, ring)[RING_ID], in_loc(b, ring)[I_HEAD] - 1
    return done
