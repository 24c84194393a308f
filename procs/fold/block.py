"""A stage's block: one int64 array that says where everything of a stage is, and the views over it.

Compiled functions take the block and nothing else. Passing arrays by value costs a reference count and seven words each
on every call, and a tuple of arrays makes a type of its own for every stage, each compiled anew; a block has one type,
so that what all stages share is compiled once.

       0  arena, its words, checkpoint segment, page on the board, doorbells (addresses)
       5  number of inputs, of outputs, intake log's output or -1
       8  settings
      32  inputs,  4 words each: control words, slots, row of the arena, record words
      64  outputs, 8 words each: control words, slots, row, record words, burst, lead, identity words, how many
     128  the stage's own arrays: addresses and counts, in pairs
     224  addresses of functions compiled apart (procs.fold.far_calls)

Whoever fills a block keeps the memory alive (procs.fold.assembly.Bound does).
"""

from __future__ import annotations

from typing import Final

from ringbuf.intrinsics import words2_at, words_at
from ringbuf.jit import Words, kernel
from ringbuf.layout import CAPACITY, CONTROL_WORDS
from ringbuf.ring import LOC_WORDS

ARENA: Final = 0
ARENA_WORDS: Final = 1
CHECKPOINT: Final = 2
PAGE: Final = 3
DOORBELLS: Final = 4
INPUTS: Final = 5
OUTPUTS: Final = 6
LOG: Final = 7

STRATEGY: Final = 8
SPIN_POLLS: Final = 9
CHECKPOINT_EVERY: Final = 10
BATCH: Final = 11
DOORBELL: Final = 12
TIMED: Final = 13
IDLE_NS: Final = 14
FEEDBACK: Final = 15  # the input on which reports come, -1: none
REFERENCE: Final = 16  # what a promise's condition is compared with: BY_INPUT, or an output's number

STAMPED: Final = 17  # bit r: records of input r say when they were published, and when their frame came in

STAGE: Final = 18  # the stage's number
FRAMES_A_POLL: Final = 19  # most frames that the feed takes in one poll

LOOK: Final = 20  # address of what is seen through other stages (procs.fold.look), 0: nothing is
LOOKED: Final = 21  # 1: others look through this stage
FENCES: Final = 22  # not 0: a fence stands between what is shown and the look for sleepers; 2: so with who writes the inputs

SPIN, YIELD, BLOCK = 0, 1, 2
"""Ways to wait (STRATEGY)."""

BY_INPUT: Final = -1

IN: Final = 32
IN_STRIDE: Final = 4
MAX_INPUTS: Final = 8
OUT: Final = 64
OUT_STRIDE: Final = 8
MAX_OUTPUTS: Final = 8
A_CTL: Final = 0
A_SLOTS: Final = 1
A_LOC: Final = 2
A_WIDTH: Final = 3
A_BURST: Final = 4
A_LEAD: Final = 5
A_IDENTITY: Final = 6
A_IDENTITY_COUNT: Final = 7
OWN: Final = 128
CALLS: Final = 224
MAX_CALLS: Final = 32
# places of the calls: one an input, MAX_INPUTS .. DUE - 1 are the stage's own, then what procs.fold.loop calls
DUE, POLL, ENDED, WAITING, BEFORE = 27, 28, 29, 30, 31
BLOCK_WORDS: Final = 256

assert IN + MAX_INPUTS * IN_STRIDE <= OUT
assert OUT + MAX_OUTPUTS * OUT_STRIDE <= OWN
assert CALLS + MAX_CALLS <= BLOCK_WORDS

# registers: the arena's first words
R_SINCE: Final = 0  # records taken since the last checkpoint
R_LOW: Final = 1  # no input delivers anything earlier than this
R_INTERNAL_DUE: Final = 2  # time of the next thing that the stage itself has pending
R_DONE: Final = 3  # the stage has written END everywhere
R_NOW: Final = 4  # CLOCK_MONOTONIC at the beginning of the run
R_WAIT_NS: Final = 5  # how long to sleep at most
R_BLOCKED: Final = 6  # bit o: output o was full
R_BELL: Final = 7  # doorbell as read before arming
R_PROMISE: Final = 8  # nothing is written before this unless the feedback input delivers
R_UNTIMED: Final = 9  # time given to a record that was taken outside the merge
R_ARMED: Final = 10  # R_BLOCKED as it was when we said that we sleep
R_SLEPT: Final = 11  # the last sleep ended by the clock: nobody is in a hurry, a checkpoint disturbs no one
R_DOZED: Final = 12  # when the last sleep began; CLOCK_MONOTONIC
R_WOKE: Final = 13  # when it ended
R_LACKS: Final = 14  # bit r: a record waits until more is known of input r; 0: none waits, -1: for anything
R_NEED: Final = 15  # how far that must be: the waiting record's merge key
R_KEYS: Final = 16  # merge keys of the inputs
R_EMPTY: Final = 24  # bit r: input r was armed before the last sleep, and empty
R_CAUSE_RING: Final = 25  # the last record taken, in a stage that has things fall due: what does so names it as its cause
R_CAUSE_SEQ: Final = 26
R_CHOSEN: Final = 27  # the input whose record waits, -1: something that falls due does
R_HUNG: Final = 28  # 1: something waited when we went to sleep, and only the clock woke us
R_SPAN: Final = 29  # so many records at most until the next checkpoint; 0 after a start, and doubled by each
REGISTERS: Final = 32

assert R_KEYS + MAX_INPUTS <= R_EMPTY

# in an input's row, after the ring's own words (ringbuf.ring)
I_HELD: Final = 8  # sequence + 1 of a record that was there when we went to sleep: the merge held it back
I_WOKEN: Final = 9  # and when we were woken for it; 0: it came while we were awake

assert I_WOKEN < LOC_WORDS


@kernel
def registers(b: Words) -> Words:
    """The arena's registers."""
    return words_at(b[ARENA], REGISTERS)


@kernel
def page(b: Words) -> Words:
    """The stage's page on the board, as far as its counters go."""
    return words_at(b[PAGE], 96)


@kernel
def doorbells(b: Words) -> Words:
    """The board's doorbells."""
    return words_at(b[DOORBELLS], 128)


@kernel
def in_ctl(b: Words, r: int) -> Words:
    """Control words of an input."""
    return words_at(b[IN + r * IN_STRIDE + A_CTL], CONTROL_WORDS)


@kernel
def in_slots(b: Words, r: int) -> Words:
    """Slots of an input, int64[capacity + 1, record words]."""
    at = IN + r * IN_STRIDE
    return words2_at(b[at + A_SLOTS], words_at(b[at + A_CTL], CONTROL_WORDS)[CAPACITY] + 1, b[at + A_WIDTH])


@kernel
def in_loc(b: Words, r: int) -> Words:
    """An input's row of the arena."""
    return words_at(b[IN + r * IN_STRIDE + A_LOC], LOC_WORDS)


@kernel
def out_ctl(b: Words, o: int) -> Words:
    """Control words of an output."""
    return words_at(b[OUT + o * OUT_STRIDE + A_CTL], CONTROL_WORDS)


@kernel
def out_slots(b: Words, o: int) -> Words:
    """Slots of an output, int64[capacity + 1, record words]; the last one is scratch."""
    at = OUT + o * OUT_STRIDE
    return words2_at(b[at + A_SLOTS], words_at(b[at + A_CTL], CONTROL_WORDS)[CAPACITY] + 1, b[at + A_WIDTH])


@kernel
def out_loc(b: Words, o: int) -> Words:
    """An output's row of the arena."""
    return words_at(b[OUT + o * OUT_STRIDE + A_LOC], LOC_WORDS)


@kernel
def out_identity(b: Words, o: int) -> Words:
    """Indices of the words that make an output record's identity."""
    at = OUT + o * OUT_STRIDE
    return words_at(b[at + A_IDENTITY], b[at + A_IDENTITY_COUNT])
