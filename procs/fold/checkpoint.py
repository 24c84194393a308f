"""Checkpoint and recovery of a stage: what makes it an exact fold that survives kill -9 at any instruction.

A stage's private state is one int64 array, the *arena*: registers, the endpoints' rows (heads and tails), then whatever
the stage keeps. A checkpoint is a copy of the arena into one of two buffers of a shared segment, made valid by one
atomic store. After a crash the next incarnation copies the last checkpoint back, learns from the slots how far its
predecessor had published, follows the intake log (procs.fold.merge), computes again, and what had been published is
compared instead of published twice (ringbuf.ring).

                arena                                       checkpoint segment
    +-------------------------------+            +--------------------------------------+
    | registers                     |            | ACTIVE (0 none, 1, 2)                |
    | row of input 0, 1, ...        |  copy ---> | buffer 1                             |
    | row of output 0, 1, ... log   |            | buffer 2                             |
    | the stage's own state         |            +--------------------------------------+
    +-------------------------------+

The writers may reuse a slot only once a checkpoint lies behind it: a gating cursor is its checkpoint's. After a start checkpoints
come after one record, two more, four more and so on, until the usual distance: a stage that is killed again and again, but takes
a turn in between, does not compute the same for ever.
"""

from __future__ import annotations

from typing import Final

from procs.fold.block import (
    A_CTL,
    A_LEAD,
    A_LOC,
    ARENA,
    ARENA_WORDS,
    CHECKPOINT,
    IN,
    IN_STRIDE,
    INPUTS,
    LOG,
    LOOKED,
    OUT,
    OUT_STRIDE,
    OUTPUTS,
    R_BLOCKED,
    R_INTERNAL_DUE,
    R_SINCE,
    R_SPAN,
    REGISTERS,
    doorbells,
    in_ctl,
    in_loc,
    out_ctl,
    out_loc,
    out_slots,
    page,
    registers,
)
from procs.memory import board
from ringbuf.intrinsics import copy_words, load_acquire, store_release, words_at
from ringbuf.jit import Words, kernel, lean
from ringbuf.layout import CAPACITY, CONTROL_WORDS, CURSOR, LINE_WORDS, OWN_DUE, POSITION, READER_LINES
from ringbuf.ring import (
    I_HEAD,
    I_READER,
    I_RELEASED,
    LOC_WORDS,
    O_DIVERGED,
    O_FLUSHED,
    O_GATE,
    O_KNOWN,
    O_TAIL,
    O_WATERMARK,
    published_tail,
    release_lazily,
    smallest_cursor,
    wake_all,
)
from trading.records import TS_END

ACTIVE: Final = 0
HEAD_WORDS: Final = 512
LONGEST_SPAN: Final = 1 << 40


def checkpoint_words(arena_words: int) -> int:
    """Words of a checkpoint segment's payload for an arena of this size."""
    return HEAD_WORDS + 2 * arena_words


@kernel
def diverged(b: Words) -> int:
    """Recomputed records that differed from what had been published: 0, or the stage is no fold."""
    total = 0
    for o in range(b[OUTPUTS] + (1 if b[LOG] >= 0 else 0)):
        total += out_loc(b, o)[O_DIVERGED]
    return total


@kernel
def save(b: Words) -> None:
    """Copy the arena, make the copy valid by one store, then let the writers have the slots back."""
    reg = registers(b)
    reg[R_SINCE], reg[R_SPAN] = 0, min(max(2 * reg[R_SPAN], 1), LONGEST_SPAN)
    show_progress(b)
    size = b[ARENA_WORDS]
    ck, arena = words_at(b[CHECKPOINT], HEAD_WORDS + 2 * size), words_at(b[ARENA], size)
    target = 2 if ck[ACTIVE] == 1 else 1
    copy_words(ck, HEAD_WORDS + (target - 1) * size, arena, 0, size)
    store_release(ck, ACTIVE, target)
    show_cursors(b)
    page(b)[board.CHECKPOINTS] += 1
    page(b)[board.DIVERGED] = diverged(b)


@lean
def show_progress(b: Words) -> None:
    """Show how far every input has been read, for those who look through this stage (procs.fold.look).

    What the records before a position brought about is on the rings by now, and what they made fall due is told first.
    """
    if b[LOOKED] != 0:
        due = words_at(b[ARENA], REGISTERS)[R_INTERNAL_DUE]
        for o in range(b[OUTPUTS]):
            ctl = words_at(b[OUT + o * OUT_STRIDE + A_CTL], CONTROL_WORDS)
            said = TS_END if due >= TS_END else due + b[OUT + o * OUT_STRIDE + A_LEAD]
            if ctl[OWN_DUE] != said:
                store_release(ctl, OWN_DUE, said)
    for r in range(b[INPUTS]):
        ctl = words_at(b[IN + r * IN_STRIDE + A_CTL], CONTROL_WORDS)
        loc = words_at(b[IN + r * IN_STRIDE + A_LOC], LOC_WORDS)
        at = READER_LINES + loc[I_READER] * LINE_WORDS + POSITION
        if ctl[at] != loc[I_HEAD]:
            store_release(ctl, at, loc[I_HEAD])


@kernel
def show_cursors(b: Words) -> None:
    """Publish the input cursors, and the log's own cursor, as of the checkpoint just made."""
    bells = doorbells(b)
    for r in range(b[INPUTS]):
        ctl = in_ctl(b, r)
        release_lazily(ctl, in_loc(b, r), bells, ctl[CAPACITY] // 2)
    if b[LOG] >= 0:
        store_release(out_ctl(b, b[LOG]), READER_LINES + CURSOR, out_loc(b, b[LOG])[O_TAIL])


@kernel
def restore(b: Words) -> int:
    """Put the arena back to the last checkpoint, if there is one, and learn what had been published since.

    Returns 1 when a checkpoint was loaded, 0 for a first start (the arena stays as the stage's init made it).
    """
    size = b[ARENA_WORDS]
    ck, arena = words_at(b[CHECKPOINT], HEAD_WORDS + 2 * size), words_at(b[ARENA], size)
    active = load_acquire(ck, ACTIVE)
    if active != 0:
        copy_words(arena, 0, ck, HEAD_WORDS + (active - 1) * size, size)
    outputs = b[OUTPUTS] + (1 if b[LOG] >= 0 else 0)
    for o in range(outputs):
        ctl, loc = out_ctl(b, o), out_loc(b, o)
        loc[O_KNOWN] = published_tail(ctl, out_slots(b, o), loc[O_TAIL])
        loc[O_GATE] = min(smallest_cursor(ctl), loc[O_TAIL])
        loc[O_FLUSHED] = -1
        loc[O_WATERMARK] = -1
        wake_all(ctl, doorbells(b))
    for r in range(b[INPUTS]):
        in_loc(b, r)[I_RELEASED] = -1
    show_cursors(b)
    registers(b)[R_BLOCKED] = 0
    registers(b)[R_SPAN] = 0  # whoever dies again and again gets on, if only by one turn each time
    return 1 if active != 0 else 0
