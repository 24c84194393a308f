"""Where a record's time goes: its stamps, and the histograms on the stage's page that count what lies between them.

    frame in         published             woken            taken           published
       |  the stages   |       WAKE          |     WAIT       |     work      |
       |  before ...   |---------------------|----------------|---------------|
       |               |------------- HOP --------------------|   of an output
       |---------------------- ORIGIN ------------------------|

WAKE is counted only where the record came while the stage slept, and up to the wake that showed it: what the merge holds
back after that (an earlier record may still come on another input) is WAIT, further sleeps included. A stage that was
awake has WAIT alone, which is its HOP then. Stamps are CLOCK_MONOTONIC; they are in no digest and not in a record's
identity (trading.records.identity_words). Records that are computed again after a crash are counted again.
"""

from __future__ import annotations

from typing import Final

from procs.fold.block import (
    I_HELD,
    I_WOKEN,
    INPUTS,
    PAGE,
    R_DOZED,
    R_WOKE,
    STAMPED,
    in_ctl,
    in_loc,
    in_slots,
    registers,
)
from procs.memory import board
from ringbuf.intrinsics import mono_ns, words_at
from ringbuf.jit import Words, kernel
from ringbuf.ring import I_HEAD, ready
from shm.histogram import WORDS
from shm.histogram import record as count

assert WORDS == board.HISTOGRAM_WORDS

W_ORIGIN: Final = 4
W_PUBLISH: Final = 5
BYTES: Final = WORDS * 8
FIRST: Final = board.HISTOGRAMS * 8
OF_OUTPUTS: Final = FIRST + board.MAX_INPUTS * board.OF_INPUT * BYTES
HOP, ORIGIN, WAKE, WAIT = (what * BYTES for what in (board.HOP, board.ORIGIN, board.WAKE, board.WAIT))
ROW: Final = board.OF_INPUT * BYTES


@kernel
def _woken_for(b: Words, published: int) -> int:
    """When the stage was woken, if this record came during its last sleep; else 0."""
    reg = registers(b)
    return reg[R_WOKE] if reg[R_DOZED] <= published < reg[R_WOKE] else 0


@kernel
def note_taken(b: Words, r: int, published: int, origin: int, now: int) -> None:
    """Count the record that is next on input `r` and was taken `now`."""
    at, loc = b[PAGE] + FIRST + r * ROW, in_loc(b, r)
    woken = loc[I_WOKEN] if loc[I_HELD] == loc[I_HEAD] + 1 else _woken_for(b, published)
    since = published
    if woken > published:
        count(words_at(at + WAKE, WORDS), woken - published)
        since = woken
    count(words_at(at + HOP, WORDS), now - published)
    count(words_at(at + ORIGIN, WORDS), now - origin)
    count(words_at(at + WAIT, WORDS), now - since)


@kernel
def note_held(b: Words) -> None:
    """Before a sleep: note which inputs' next records are there already, and which wake showed them first."""
    for r in range(b[INPUTS]):
        if (b[STAMPED] >> r) & 1:
            slots, loc = in_slots(b, r), in_loc(b, r)
            head = loc[I_HEAD]
            if loc[I_HELD] != head + 1 and ready(in_ctl(b, r), slots, head):
                loc[I_HELD] = head + 1
                loc[I_WOKEN] = _woken_for(b, slots[head & (slots.shape[0] - 2), W_PUBLISH])


@kernel
def note_slept(b: Words, since: int, until: int) -> None:
    """After a sleep: when it began and when it ended."""
    reg = registers(b)
    reg[R_DOZED], reg[R_WOKE] = since, until


@kernel
def note_published(b: Words, o: int, taken: int) -> int:
    """The stamp of a record that is published on output `o` now; counts the work since its cause was taken."""
    now: int = mono_ns()
    count(words_at(b[PAGE] + OF_OUTPUTS + o * BYTES, WORDS), now - taken)
    return now
