"""Where a record's time goes: its stamps, and the histograms on the stage's page that count what lies between them.

    frame in         published             woken            taken           published
       |  the stages   |       WAKE          |     WAIT       |     work      |
       |  before ...   |---------------------|----------------|---------------|
       |               |--- the hop: WOKEN, else AWAKE -------|   of an output
       |---------------------- ORIGIN ------------------------|

WOKEN, WAKE and WAIT are counted where the record came while the stage slept. WAKE ends with the wake that showed it: what the
merge holds back after that (an earlier record may still come on another input) is WAIT, further sleeps included. Where
the stage was awake the whole hop is waiting. Under load nobody sleeps, and a record costs two histograms.

A record that no frame brought about (something fell due, the venue answered, an operator spoke, the stream ended) has the origin
NO_FRAME, and no ORIGIN is counted of it. A report has that of its order, the venue's delay included; what answers it has none.

Stamps are CLOCK_MONOTONIC; they are in no digest and not in a record's identity (trading.records.identity_words). Records that
are computed again after a crash are counted again.
"""

from __future__ import annotations

from typing import Final

from procs.fold.block import (
    A_LOC,
    ARENA,
    I_HELD,
    I_WOKEN,
    IN,
    IN_STRIDE,
    INPUTS,
    PAGE,
    R_DOZED,
    R_WOKE,
    REGISTERS,
    STAMPED,
    in_ctl,
    in_loc,
    in_slots,
    registers,
)
from procs.memory import board
from ringbuf.intrinsics import mono_ns, words_at
from ringbuf.jit import Words, kernel, lean
from ringbuf.ring import I_HEAD, LOC_WORDS, ready
from shm.histogram import WORDS
from shm.histogram import record as count

assert WORDS == board.HISTOGRAM_WORDS

W_ORIGIN: Final = 4
NO_FRAME: Final = 0
W_PUBLISH: Final = 5
BYTES: Final = WORDS * 8
FIRST: Final = board.HISTOGRAMS * 8
OF_OUTPUTS: Final = FIRST + board.MAX_INPUTS * board.OF_INPUT * BYTES
ORIGIN, AWAKE, WOKEN = board.ORIGIN * BYTES, board.AWAKE * BYTES, board.WOKEN * BYTES
WAKE, WAIT = board.WAKE * BYTES, board.WAIT * BYTES
ROW: Final = board.OF_INPUT * BYTES


@lean  # with a branch in it, numba would count references to the block at each call: 12 ns instead of 6 [measured]
def note_taken(b: Words, r: int, published: int, origin: int, now: int) -> None:
    """Count the record that is next on input `r` and was taken `now`."""
    at, reg, woken = b[PAGE] + FIRST + r * ROW, words_at(b[ARENA], REGISTERS), 0
    if published < reg[R_WOKE]:
        loc = words_at(b[IN + r * IN_STRIDE + A_LOC], LOC_WORDS)
        if loc[I_HELD] == loc[I_HEAD] + 1:
            woken = loc[I_WOKEN]
        elif published >= reg[R_DOZED]:
            woken = reg[R_WOKE]
    if woken > 0:
        count(words_at(at + WOKEN, WORDS), now - published)
        count(words_at(at + WAKE, WORDS), woken - published)
        count(words_at(at + WAIT, WORDS), now - woken)
    else:
        count(words_at(at + AWAKE, WORDS), now - published)
    if origin > 0:
        count(words_at(at + ORIGIN, WORDS), now - origin)


@kernel
def note_held(b: Words) -> None:
    """Before a sleep: note which inputs' next records are there already, and which wake showed them first."""
    reg = registers(b)
    for r in range(b[INPUTS]):
        if (b[STAMPED] >> r) & 1:
            slots, loc = in_slots(b, r), in_loc(b, r)
            head = loc[I_HEAD]
            if loc[I_HELD] != head + 1 and ready(in_ctl(b, r), slots, head):
                published = slots[head & (slots.shape[0] - 2), W_PUBLISH]
                loc[I_HELD] = head + 1
                loc[I_WOKEN] = reg[R_WOKE] if reg[R_DOZED] <= published < reg[R_WOKE] else 0


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
