"""Waiting for a record, or for room. A stage's loop has its own version (procs.fold.loop), which checkpoints before it sleeps.

Which strategy when:

    spin    a core of its own and nanoseconds that count. Burns the core; with more spinning processes than cores, each
            waits out the others' time slices (milliseconds).
    yield   a core shared with few others that also yield. Latency is microseconds while the machine is idle, CPU is 100 %.
    block   everything else, and the default when processes outnumber cores: spins a little, then sleeps on a futex.
            A wake costs the sleeper some tens of microseconds and the writer one system call.

How a sleeper and a writer cannot miss each other. The writer publishes, then looks whether somebody is armed, with no
fence between the two: on x86 its load may pass its own store. The sleeper reads its doorbell's count, arms itself, then
calls membarrier, which makes every registered process that is running execute a full barrier: now either the writer's
look comes after our arming (and it rings: the count differs, futex_wait returns at once), or its record is visible to our
second look. The fence is thus paid by who is about to sleep anyhow, not by every push. `procs.bench.wake` races the two
sides; without the membarrier they do miss each other. Writers must have called `register`.

Every sleep has a limit as well (MAX_NAP_NS): a writer killed between disarming a sleeper and ringing leaves nobody to ring.
"""

from __future__ import annotations

from typing import Final

from ringbuf.intrinsics import (
    MEMBARRIER_GLOBAL_EXPEDITED,
    MEMBARRIER_REGISTER_GLOBAL_EXPEDITED,
    fetch_and,
    fetch_or,
    load_acquire,
    membarrier,
    mono_ns,
    pause,
    sched_yield,
    store_release,
)
from ringbuf.jit import Words, lean
from ringbuf.layout import (
    ARMED_READERS,
    ARMED_WRITER,
    LINE_WORDS,
    NEVER,
    READER_DOORBELL,
    READER_LINES,
    WANT,
    WRITER_DOORBELL,
)
from ringbuf.ring import ready, room, sleep_on

SPIN: Final = 0
YIELD: Final = 1
BLOCK: Final = 2

SPINS: Final = 200
"""Polls before a blocking wait arms itself: about the time of one trip to the kernel."""
MAX_NAP_NS: Final = 100_000_000
CLOCK_EVERY: Final = 64  # polls of a spinning wait between two looks at the clock


@lean
def register() -> int:
    """Make this process one that membarriers of sleepers reach; once per process (a fork inherits it). 0, or -1 if refused."""
    return membarrier(MEMBARRIER_REGISTER_GLOBAL_EXPEDITED)


@lean
def wait_readable(
    ctl: Words, slots: Words, head: int, reader: int, doorbells: Words, strategy: int, spins: int, timeout_ns: int
) -> bool:
    """Wait until record `head` may be read, at most `timeout_ns`; whether it may.

    `reader` (-1: one without a line of its own, which cannot sleep on a doorbell and yields instead) names the line to arm.
    A gating reader must have released what it has read, or a full ring and this wait last for ever.
    """
    for _ in range(spins):
        if ready(ctl, slots, head):
            return True
        pause()
    if ready(ctl, slots, head):
        return True
    if timeout_ns <= 0:
        return False
    deadline = mono_ns() + timeout_ns
    if strategy != BLOCK or reader < 0:
        polls = 0
        while not ready(ctl, slots, head):
            if strategy == SPIN:
                pause()
            else:
                sched_yield()
            polls += 1
            if polls % CLOCK_EVERY == 0 and mono_ns() >= deadline:
                return False
        return True
    bell = ctl[READER_DOORBELL + reader]
    mask = 1 << reader
    while True:
        seen = load_acquire(doorbells, bell)
        store_release(ctl, READER_LINES + reader * LINE_WORDS + WANT, NEVER)
        fetch_or(ctl, ARMED_READERS, mask)
        membarrier(MEMBARRIER_GLOBAL_EXPEDITED)
        there = ready(ctl, slots, head)
        left = deadline - mono_ns()
        if there or left <= 0:
            fetch_and(ctl, ARMED_READERS, ~mask)  # else the next push rings for nobody, at the price of a system call
            return there
        sleep_on(doorbells, bell, seen, min(left, MAX_NAP_NS))
        if ready(ctl, slots, head):
            return True


@lean
def wait_room(ctl: Words, loc: Words, wanted: int, doorbells: Words, strategy: int, spins: int, timeout_ns: int) -> bool:
    """Wait until the writer has room for `wanted` records, at most `timeout_ns`; whether it has.

    What was pushed must have been flushed, or the readers sleep and no room ever comes.
    """
    for _ in range(spins):
        if room(ctl, loc, wanted) >= wanted:
            return True
        pause()
    if room(ctl, loc, wanted) >= wanted:
        return True
    if timeout_ns <= 0:
        return False
    deadline = mono_ns() + timeout_ns
    if strategy != BLOCK:
        polls = 0
        while room(ctl, loc, wanted) < wanted:
            if strategy == SPIN:
                pause()
            else:
                sched_yield()
            polls += 1
            if polls % CLOCK_EVERY == 0 and mono_ns() >= deadline:
                return False
        return True
    bell = ctl[WRITER_DOORBELL]
    while True:
        seen = load_acquire(doorbells, bell)
        store_release(ctl, ARMED_WRITER, 1)
        membarrier(MEMBARRIER_GLOBAL_EXPEDITED)
        there = room(ctl, loc, wanted) >= wanted
        left = deadline - mono_ns()
        if there or left <= 0:
            store_release(ctl, ARMED_WRITER, 0)
            return there
        sleep_on(doorbells, bell, seen, min(left, MAX_NAP_NS))
        if room(ctl, loc, wanted) >= wanted:
            return True
