"""The loop of a process: its members' polls in turn, heartbeats, checkpoints, waiting, ending. All compiled.

A process has one hot stage, or several that share its thread (`pipeline.placement`). Members pass records to each other through
the same rings as processes do, so all that makes a stage a fold is untouched: each has its own checkpoint, intake log, page and
heartbeat, and whoever looks from outside sees no difference. What changes is that nobody has to be woken:

    turn     each member polls once; a member whose output is full gets its room from a reader beside it at once
    settle   what comes after a turn: nothing, a pause, a checkpoint, or the one sleep of all on the one doorbell of all

A group's words: how many members, then for each the address of its block, which of its inputs a member writes, whether it is
over, and the times that it showed last. One array type serves any membership, so this is compiled once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from procs.fold.block import (
    A_CTL,
    BLOCK,
    BLOCK_WORDS,
    CHECKPOINT_EVERY,
    DOORBELL,
    FENCES,
    IN,
    IN_STRIDE,
    INPUTS,
    LOG,
    LOOK,
    OUT,
    OUT_STRIDE,
    OUTPUTS,
    R_ARMED,
    R_BELL,
    R_BLOCKED,
    R_EMPTY,
    R_HUNG,
    R_INTERNAL_DUE,
    R_KEYS,
    R_LACKS,
    R_LOW,
    R_PROMISE,
    R_SINCE,
    R_SLEPT,
    R_SPAN,
    R_WAIT_NS,
    SPIN,
    SPIN_POLLS,
    STAGE,
    STRATEGY,
    YIELD,
    doorbells,
    in_ctl,
    in_loc,
    out_ctl,
    out_loc,
    page,
    registers,
)
from procs.fold.checkpoint import save
from procs.fold.look import want
from procs.fold.loop import conclude, finished, poll
from procs.fold.merge import can_go_on, waits_here
from procs.fold.stamps import note_held, note_slept
from procs.memory import board
from ringbuf.intrinsics import (
    MEMBARRIER_GLOBAL_EXPEDITED,
    exchange,
    fetch_and,
    fetch_or,
    load_acquire,
    membarrier,
    mono_ns,
    pause,
    sched_yield,
    store_release,
    words_at,
)
from ringbuf.jit import Words, kernel
from ringbuf.layout import (
    ARMED_READERS,
    ARMED_WRITER,
    CAPACITY,
    LINE_WORDS,
    NEVER,
    READER_DOORBELL,
    READER_LINES,
    READERS,
    TAIL,
    WANT,
)
from ringbuf.ring import I_HEAD, I_READER, I_RELEASED, I_TIMED, O_GATE, ring_doorbell, sleep_on
from trading.records import TS_END

MEMBERS: Final = 0
PARTIAL: Final = 1  # so many turns more ask only those who can go on; 0: the next one asks all
FIRST: Final = 8
STRIDE: Final = 16
M_BLOCK: Final = 0  # address
M_INNER: Final = 1  # bit r: a member writes input r
M_OVER: Final = 2
M_LOW: Final = 3  # R_LOW, R_PROMISE and R_INTERNAL_DUE at the last look
M_ASKED: Final = 6  # a reader waits until this member knows how far time has come
M_WRITERS: Final = 8  # which member writes each input, -1: none does

PARTIAL_TURNS: Final = 15
RING_SLOTS: Final = 4096
"""`checkpoint_every` holds for a ring of this size, and in proportion for others."""
CHECKPOINT_MOST: Final = 4
"""A member checkpoints after so many times `checkpoint_every` records, whatever room its inputs have; sooner after a start."""

NAP_NS: Final = 20_000_000
"""Longest sleep while something is not checkpointed yet."""
LONG_NS: Final = 5_000_000
"""A sleep of at least this that the clock ends is one that nobody meant to end sooner."""


def group_words(blocks: Sequence[Words]) -> Words:
    """The words of a group of these blocks, in the order in which they are polled. The caller keeps the blocks alive."""
    g = np.zeros(FIRST + STRIDE * len(blocks), np.int64)
    g[MEMBERS] = len(blocks)
    written = {int(b[OUT + o * OUT_STRIDE + A_CTL]): m for m, b in enumerate(blocks) for o in range(int(b[OUTPUTS]))}
    for m, b in enumerate(blocks):
        assert b.size == BLOCK_WORDS and b[DOORBELL] == blocks[0][DOORBELL], "members share a doorbell"
        at = FIRST + m * STRIDE
        g[at + M_BLOCK] = b.ctypes.data
        writers = [written.get(int(b[IN + r * IN_STRIDE + A_CTL]), -1) for r in range(int(b[INPUTS]))]
        g[at + M_INNER] = sum(1 << r for r, writer in enumerate(writers) if writer >= 0)
        g[at + M_WRITERS : at + M_WRITERS + len(writers)] = writers
    return g


@kernel
def member(g: Words, m: int) -> Words:
    """A member's block."""
    return words_at(g[FIRST + m * STRIDE + M_BLOCK], BLOCK_WORDS)


@kernel
def _over(g: Words, m: int) -> bool:
    return g[FIRST + m * STRIDE + M_OVER] != 0


@kernel
def _ring_laggards(b: Words, o: int) -> None:
    """Wake every reader of a full ring, also those that sleep by the clock and have not said so (the recorder)."""
    ctl, bells = out_ctl(b, o), doorbells(b)
    for r in range(ctl[READERS]):
        ring_doorbell(bells, ctl[READER_DOORBELL + r])


@kernel
def _arm(b: Words, inner: int) -> None:
    """Say on every input from outside, and on full outputs, that we are about to sleep.

    What a member writes while the group is awake needs no bell: whoever polls sees it, and `turn` counts it. Nor does an input
    whose next record is there already: what it waits for is another's, and nothing behind it changes what is taken next. A
    stage that looks through others wants no news from its inputs but records, and where a record waits, from those alone
    that it lacks; which watermarks it needs it says as a looker.
    """
    reg = registers(b)
    reg[R_EMPTY] = 0
    looks, lacks, there = b[LOOK] != 0, reg[R_LACKS], 0
    for r in range(b[INPUTS]):
        here, timed = waits_here(b, r), in_loc(b, r)[I_TIMED] != 0
        there |= (1 if here else 0) << r
        if (inner >> r) & 1:
            continue
        ctl, reader = in_ctl(b, r), in_loc(b, r)[I_READER]
        if not here and not (looks and timed and lacks > 0 and not (lacks >> r) & 1):
            reg[R_EMPTY] |= 1 << r
            store_release(ctl, READER_LINES + reader * LINE_WORDS + WANT, NEVER if looks and timed and lacks >= 0 else 0)
            fetch_or(ctl, ARMED_READERS, 1 << reader)
        elif looks and (load_acquire(ctl, ARMED_READERS) >> reader) & 1:
            fetch_and(ctl, ARMED_READERS, ~(1 << reader))
    if looks:
        want(b, there)
    blocked = reg[R_BLOCKED]
    reg[R_ARMED] = blocked
    outputs = b[OUTPUTS] + (1 if b[LOG] >= 0 else 0)
    for o in range(outputs):
        if (blocked >> o) & 1:
            exchange(out_ctl(b, o), ARMED_WRITER, 1)
            _ring_laggards(b, o)


@kernel
def _writer_waits(b: Words) -> bool:
    """Whether a writer sleeps for room of which a checkpoint would give it a good piece."""
    for r in range(b[INPUTS]):
        ctl, loc = in_ctl(b, r), in_loc(b, r)
        if load_acquire(ctl, ARMED_WRITER) != 0 and loc[I_HEAD] - loc[I_RELEASED] >= ctl[CAPACITY] // 8:
            return True
    return False


@kernel
def _give_room(g: Words, b: Words, at_once: bool) -> bool:
    """Checkpoint the members on whom alone the full outputs of `b` wait; whether there were any.

    `at_once`: nothing else goes on. Else only where it gives a good piece: a checkpoint a slot would cost more than all work.
    """
    gave = False
    blocked = registers(b)[R_BLOCKED]
    for o in range(b[OUTPUTS]):
        if not (blocked >> o) & 1:
            continue
        gate = out_loc(b, o)[O_GATE]
        for m in range(g[MEMBERS]):
            if _over(g, m):
                continue
            reader = member(g, m)
            for r in range(reader[INPUTS]):
                loc = in_loc(reader, r)
                here = reader[IN + r * IN_STRIDE + A_CTL] == b[OUT + o * OUT_STRIDE + A_CTL]
                if not here or max(loc[I_RELEASED], 0) != gate:  # -1: nothing released yet
                    continue
                if loc[I_HEAD] - gate >= (1 if at_once else out_ctl(b, o)[CAPACITY] // 8):
                    save(reader)
                    gave = True
    return gave


@kernel
def _checkpoint_due(b: Words) -> bool:
    """Whether an input's ring has room to gain: by its size, so that a ring of small records does not bring one on too often."""
    since, every = registers(b)[R_SINCE], b[CHECKPOINT_EVERY]
    if since >= min(every * CHECKPOINT_MOST, registers(b)[R_SPAN]):
        return since > 0
    if since < every:
        return False
    for r in range(b[INPUTS]):
        loc = in_loc(b, r)
        if (loc[I_HEAD] - loc[I_RELEASED]) * RING_SLOTS >= every * in_ctl(b, r)[CAPACITY]:
            return True
    return False


@kernel
def _account(b: Words, work: int) -> None:
    """Heartbeat, counters, and the checkpoint that is due after so many records."""
    words, reg = page(b), registers(b)
    store_release(words, board.HEARTBEAT, words[board.HEARTBEAT] + 1)
    if work > 0:
        words[board.RECORDS] += work
        words[board.WORK_POLLS] += 1
        words[board.MISSED] += reg[R_HUNG]
        reg[R_SLEPT] = reg[R_HUNG] = 0
        if _checkpoint_due(b):
            save(b)


@kernel
def _moved(g: Words, m: int) -> bool:
    """Whether a member knows more of what can still come than at the last look: for others that may be news."""
    reg, at = registers(member(g, m)), FIRST + m * STRIDE + M_LOW
    low, promise, due = reg[R_LOW], reg[R_PROMISE], reg[R_INTERNAL_DUE]
    if g[at] == low and g[at + 1] == promise and g[at + 2] == due:
        return False
    g[at], g[at + 1], g[at + 2] = low, promise, due
    return True


@kernel
def _ask(g: Words, m: int, asked: bool) -> None:
    """Ask those for how far time has come for whom a record of this member waits, or who keeps it from answering that itself."""
    reg, at = registers(member(g, m)), FIRST + m * STRIDE + M_WRITERS
    lacks = reg[R_LACKS]
    if lacks == 0 and asked:
        least, inputs = TS_END, member(g, m)[INPUTS]
        for r in range(inputs):
            least = min(least, reg[R_KEYS + r])
        for r in range(inputs):
            if reg[R_KEYS + r] == least:
                lacks |= 1 << r
    if lacks > 0:
        for r in range(member(g, m)[INPUTS]):
            if (lacks >> r) & 1 and g[at + r] >= 0:
                g[FIRST + g[at + r] * STRIDE + M_ASKED] = 1


@kernel
def turn(g: Words) -> tuple[int, int]:
    """Poll each member once: (what happened, members that live). Whoever is done or told to stop is concluded.

    What happened counts records; in a group also news of time and room that was given, which mean that another turn is due.
    While records flow inside a group, most turns leave out who has nothing to do: who lacks what it lacked before, and who only
    brings new records in. Every so many turns, and whenever nothing else goes on, all are polled.
    """
    work, living, members = 0, 0, g[MEMBERS]
    whole = members == 1 or g[PARTIAL] == 0
    g[PARTIAL] = PARTIAL_TURNS if whole else g[PARTIAL] - 1
    leader = page(member(g, 0))
    for m in range(members):
        if _over(g, m):
            continue
        b, at = member(g, m), FIRST + m * STRIDE
        asked = g[at + M_ASKED] != 0
        if not whole and not asked and (g[at + M_INNER] == 0 or not can_go_on(b)):
            living += 1
            _ask(g, m, False)
            continue
        if finished(b):
            conclude(b)
            g[at + M_OVER] = 1
            g[PARTIAL] = 0
            continue
        living += 1
        g[at + M_ASKED] = 0
        leader[board.TURN] = b[STAGE]
        some = poll(b)
        _account(b, some)
        if members > 1:
            if _moved(g, m):
                some += 1
            if registers(b)[R_BLOCKED] != 0 and _give_room(g, b, False):
                some += 1
            _ask(g, m, asked)
        work += some
    leader[board.TURN] = 0
    if work == 0 and members > 1:
        for m in range(members):
            if not _over(g, m) and registers(member(g, m))[R_BLOCKED] != 0 and _give_room(g, member(g, m), True):
                work += 1
        g[PARTIAL] = 0  # nobody sleeps before all were asked
        if not whole:
            work = 1
    return work, living


@kernel
def _before_sleep(g: Words, block: bool) -> None:
    """Checkpoint where nobody is disturbed by it, then arm, in `block`.

    Who is no stage puts no fence between publishing and looking for sleepers, nor do readers that give room; the membarrier here,
    paid only before sleeping, orders their stores before our second look. Without it both sides can miss each other. Stages in
    processes of their own do put a fence there, so who waits for them alone does without: it costs more than all their fences.
    """
    first, apart = member(g, 0), False
    if block:
        registers(first)[R_BELL] = load_acquire(doorbells(first), first[DOORBELL])
    for m in range(g[MEMBERS]):
        if _over(g, m):
            continue
        b = member(g, m)
        reg = registers(b)
        if reg[R_SINCE] > 0 and (not block or reg[R_SLEPT] != 0 or _writer_waits(b)):
            save(b)
        if block:
            _arm(b, g[FIRST + m * STRIDE + M_INNER])
            apart |= b[FENCES] != 2 or reg[R_BLOCKED] != 0
    if apart:
        membarrier(MEMBARRIER_GLOBAL_EXPEDITED)


@kernel
def _note_missed(b: Words) -> None:
    """Count what must not be: a long sleep that the clock ended, and an input that was empty before it has a record.

    One whose writer has shown its tail: it looks for sleepers right after that.
    """
    armed = registers(b)[R_EMPTY]
    for r in range(b[INPUTS]):
        if (armed >> r) & 1 and load_acquire(in_ctl(b, r), TAIL) > in_loc(b, r)[I_HEAD]:
            page(b)[board.MISSED] += 1


@kernel
def _sleep(g: Words) -> None:
    """Sleep on the doorbell until somebody rings, or the first member's time has come."""
    first = member(g, 0)
    nap = NAP_NS * 1000
    for m in range(g[MEMBERS]):
        if _over(g, m):
            continue
        reg = registers(member(g, m))
        if reg[R_BLOCKED] & ~reg[R_ARMED] != 0:
            return  # an output was found full since we armed: its readers must know first
        nap = min(nap, reg[R_WAIT_NS])
        if reg[R_SINCE] > 0:
            nap = min(nap, NAP_NS)
    if nap <= 0:
        return
    for m in range(g[MEMBERS]):
        if not _over(g, m):
            note_held(member(g, m))
    before = mono_ns()
    rung = sleep_on(doorbells(first), first[DOORBELL], registers(first)[R_BELL], nap)
    now = mono_ns()
    by_clock = 0 if rung else 1
    for m in range(g[MEMBERS]):
        if not _over(g, m):
            b = member(g, m)
            registers(b)[R_SLEPT] = by_clock
            registers(b)[R_HUNG] = 1 if by_clock != 0 and nap >= LONG_NS and registers(b)[R_LACKS] > 0 else 0
            if by_clock != 0 and nap >= LONG_NS:
                _note_missed(b)
            note_slept(b, before, now)
            page(b)[board.SLEEPS] += 1
            page(b)[board.SLEPT_NS] += now - before


@kernel
def settle(g: Words, work: int, idle: int) -> int:
    """What the loop does after a turn. Takes and returns the count of idle turns in a row.

    Waiting in `block`: spin, say that we sleep, poll once more, sleep on the doorbell with a time limit. The slots that were
    read go back to their writers with the next checkpoint: after so many records, when nobody rang for a while, or when a
    writer says that it waits for room.
    """
    if work > 0:
        return 0
    idle += 1
    first = member(g, 0)
    strategy, spin = first[STRATEGY], first[SPIN_POLLS]
    if idle < spin:
        pause()
    elif idle == spin:
        _before_sleep(g, strategy == BLOCK)
    elif strategy == SPIN:
        pause()
    elif strategy == YIELD:
        sched_yield()
    else:
        _sleep(g)
        return spin - 1  # arming is renewed before the next sleep
    return idle


@kernel
def run(g: Words) -> None:
    """The hot loop, until every member is done or told to stop."""
    for m in range(g[MEMBERS]):
        store_release(page(member(g, m)), board.READY, 1)
    idle = 0
    while True:
        work, living = turn(g)
        if living == 0:
            return
        idle = settle(g, work, idle)
