"""The board: one shared segment on which every process shows what it does, and finds what it is told.

    words 0..127               doorbells, one a stage on its own cache line (futex words)
    128 + PAGE_WORDS * stage   that stage's page: commands, counters, latency histograms

The stage is the only writer of its counters, the supervisor of STOP and INCARNATION. Inspection reads, never asks.
Every counter is declared once, below, with its unit and a sentence; the CLI prints from these declarations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from procs.topology import MAX_STAGE_ID, STAGE, STAGES, outputs
from shm.percentiles import WORDS

Words = npt.NDArray[np.int64]

HISTOGRAM_WORDS: Final = WORDS
DOORBELL_STRIDE: Final = 8
DOORBELL_WORDS: Final = 128


@dataclass(frozen=True, slots=True)
class Counter:
    """One word of a stage's page: `key` as programs name it, `unit`, and one sentence for people."""

    word: int
    key: str
    unit: str
    meaning: str

    def __post_init__(self) -> None:
        assert self.key.isidentifier() and self.key == self.key.lower(), f"{self.key!r} is no lower-case identifier"
        one_sentence = self.meaning.endswith(".") and ". " not in self.meaning and self.meaning[:1].isupper()
        assert one_sentence, f"{self.key}: the meaning must be one sentence, from a capital to its full stop"


# commands and state
HEARTBEAT: Final = 0
STOP: Final = 1
READY: Final = 2
FINISHED: Final = 3
PID: Final = 4
INCARNATION: Final = 5
CORE: Final = 6
STARTED_NS: Final = 7
DRAIN: Final = 8  # the feed ends its stream, and END runs through all stages
TURN: Final = 9  # on the page of a process's first stage: the number of the one that is at work, 0 for none
# the loop's own
RECORDS: Final = 16
WORK_POLLS: Final = 17
CHECKPOINTS: Final = 18
RECOVERIES: Final = 19
SLEEPS: Final = 20
SLEPT_NS: Final = 21
DIVERGED: Final = 22
MISSED: Final = 23
FAULT: Final = 25
# why the recorder cannot write, in its FAULT
FAULT_DISK_FULL: Final = 1
FAULT_DISK: Final = 2
# the feed's own
FRAMES: Final = 32
FRAME_BYTES: Final = 33
MALFORMED: Final = 34
UNKNOWN: Final = 35
GAPS: Final = 36
RESYNCS: Final = 37
ORACLE_CHECKED: Final = 38
ORACLE_EQUAL: Final = 39
SOURCE_NS: Final = 40
FRAMES_EXPECTED: Final = 41
# the gateway's own
PORT: Final = 42  # where it listens; 0 while it does not
# the feed's, again
STREAM_DEATHS: Final = 43

# the receiver's own: the session's clock (procs.receiver.clock)
SESSION_CLOCK_NS: Final = 44  # what it is ahead of CLOCK_MONOTONIC
CLOCK_LEAD_NS: Final = 45  # and of the wall clock, which was set back
CLOCK_STEPS: Final = 46

# the features' own: trading.own_signals.call's guard, 64 words
USER_GUARD: Final = 32

HISTOGRAMS: Final = 96
# those of an input, in the order of the stage's inputs; a record counts in ORIGIN, and in AWAKE or in the other three
ORIGIN: Final = 0  # the frame came in to taken
AWAKE: Final = 1  # published to taken, of records that came while the stage was awake
WOKEN: Final = 2  # the same, of records for which it was woken
WAKE: Final = 3  # published to woken, of those
WAIT: Final = 4  # woken to taken, of those: the stage's turn, and the merge's
OF_INPUT: Final = 5
MAX_INPUTS: Final = 5
# that of an output, after them: taken to published, of each record published there
MAX_OUTPUTS: Final = 3
HISTOGRAM_COUNT: Final = MAX_INPUTS * OF_INPUT + MAX_OUTPUTS

PAGE_WORDS: Final = HISTOGRAMS + HISTOGRAM_COUNT * HISTOGRAM_WORDS
BOARD_WORDS: Final = DOORBELL_WORDS + (MAX_STAGE_ID + 1) * PAGE_WORDS

assert (MAX_STAGE_ID + 1) * DOORBELL_STRIDE <= DOORBELL_WORDS
assert max(len(stage.inputs) for stage in STAGES if stage.hot) <= MAX_INPUTS
assert max(len(outputs(stage.name)) - stage.logged for stage in STAGES if stage.hot) <= MAX_OUTPUTS

LOOP_COUNTERS: Final = (
    Counter(HEARTBEAT, "heartbeat", "polls", "Polls of the stage's loop; it stands still only if the stage hangs."),
    Counter(RECORDS, "records", "records", "Input records processed since the pipeline began, recomputed ones included."),
    Counter(WORK_POLLS, "work_polls", "polls", "Polls that found work."),
    Counter(CHECKPOINTS, "checkpoints", "checkpoints", "Checkpoints written."),
    Counter(RECOVERIES, "recoveries", "starts", "Starts that resumed from a checkpoint."),
    Counter(SLEEPS, "sleeps", "sleeps", "Times the loop went to sleep on its doorbell."),
    Counter(SLEPT_NS, "slept_ns", "ns", "Time asleep on the doorbell."),
    Counter(MISSED, "missed", "sleeps", "Long sleeps that the clock ended while a record was there: 0 while no writer dies."),
    Counter(DIVERGED, "diverged", "records", "Recomputed records that differed from what had been published: always 0."),
    Counter(FAULT, "fault", "code", "Why the stage gave up, or the recorder cannot write; 0 while all is well."),
)

FEED_COUNTERS: Final = (
    Counter(FRAMES, "frames", "frames", "Raw frames read from the source."),
    Counter(FRAME_BYTES, "frame_bytes", "bytes", "Bytes of those frames."),
    Counter(MALFORMED, "malformed", "frames", "Frames that could not be decoded exactly."),
    Counter(UNKNOWN, "unknown", "frames", "Frames of a kind that the decoder does not know."),
    Counter(GAPS, "gaps", "gaps", "Times a book's sequence was broken."),
    Counter(RESYNCS, "resyncs", "books", "Times a book became valid from a snapshot."),
    Counter(ORACLE_CHECKED, "oracle_checked", "checks", "Times book and best bid/ask message stood at the same update id."),
    Counter(ORACLE_EQUAL, "oracle_equal", "checks", "Times they agreed in price and quantity on both sides."),
    Counter(STREAM_DEATHS, "stream_deaths", "streams", "Times that a symbol's stream died alone while others of it went on."),
    Counter(SOURCE_NS, "source_ns", "ns", "Time of the last frame, as the source stamps it."),
    Counter(FRAMES_EXPECTED, "frames_expected", "frames", "Frames in the recording; 0 where the source has no end."),
)


def doorbell(stage_id: int, groups: Sequence[Sequence[str]] = ()) -> int:
    """A stage's doorbell number: the index of its word in the board's first words. A group sleeps on its first member's."""
    for group in groups:
        ids = [STAGE[name].stage_id for name in group]
        if stage_id in ids:
            stage_id = ids[0]
    return stage_id * DOORBELL_STRIDE


def page_start(stage_id: int) -> int:
    """First word of a stage's page."""
    return DOORBELL_WORDS + stage_id * PAGE_WORDS


def page(words: Words, stage_id: int) -> Words:
    """A stage's page as a view of the board's words."""
    start = page_start(stage_id)
    return words[start : start + PAGE_WORDS]


def disk_trouble(recorder_page: Words) -> str:
    """What keeps the recorder from writing, as a sentence; "" if nothing does."""
    fault = int(recorder_page[FAULT])
    if not fault:
        return ""
    what = "has no room left on its disk: free some" if fault == FAULT_DISK_FULL else "cannot write its files (its log says why)"
    return f"the recorder {what}; nothing that waits is lost, but the pipeline stands still once its rings are full"


def histogram(page_words: Words, which: int) -> Words:
    """One of the page's latency histograms, by its place."""
    start = HISTOGRAMS + which * HISTOGRAM_WORDS
    return page_words[start : start + HISTOGRAM_WORDS]


def of_input(page_words: Words, r: int, what: int) -> Words:
    """The histogram ORIGIN, AWAKE, WOKEN, WAKE or WAIT of a stage's input `r`."""
    return histogram(page_words, r * OF_INPUT + what)


def of_output(page_words: Words, o: int) -> Words:
    """The histogram of the work behind a stage's output `o`: from taking its cause until it was published."""
    return histogram(page_words, MAX_INPUTS * OF_INPUT + o)


def _sound(counters: tuple[Counter, ...]) -> bool:
    """Whether each key and each word stands there once, before the histograms."""
    words, keys = {counter.word for counter in counters}, {counter.key for counter in counters}
    return len(words) == len(keys) == len(counters) and max(words) < HISTOGRAMS


assert _sound(LOOP_COUNTERS + FEED_COUNTERS)
