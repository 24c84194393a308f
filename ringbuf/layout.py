"""Where every word of a ring stands. The algorithm is in ringbuf.ring.

One page of control words, then the slots. A line is 64 bytes (8 words), so that what one process writes often never
shares a line with what another process writes.

    word   line  written by
       0      0  writer         TAIL WATERMARK . FULL_STALLS PROMISE PROMISE_GIVEN OWN_DUE .
       8      1  both, rarely   ARMED_READERS (bit r: reader r, bit 8 + k: looker k) ARMED_WRITER (who wants its doorbell rung)
      16      2  creator        CAPACITY RECORD_WORDS READERS RING_ID LOSSY WRITER_DOORBELL RECORD_HASH .
      24      3  creator        doorbell number of reader 0..7
      32+8r   4..11  reader r   CURSOR POSITION GATING OVERRUNS WANT FENCED . .
      96  12,13  any            16 doorbells of the ring's own, for rings that stand alone
     112+8k  14..21  looker k   LOOKER_DOORBELL LOOKER_WANT . . . . . .
     176..511    spare to the end of the page
     512      slot 0: record words, the last one is the slot's sequence
              ...
              slot capacity-1
              one slot more: scratch, where a restarted writer recomputes what it had already published

Sequences are free-running: the record number n (from 0) lies in slot n % capacity, and its sequence word is n + 1 once
it may be read, 0 while it is being written. CURSOR is what gates the writer; POSITION is how far the reader has read
(it may be ahead of the cursor by what is not checkpointed yet). Whoever is armed is rung for at a record behind its POSITION,
and when watermark or promise come to its WANT: 0 is any news, NEVER no news but records. A looker reads no records and
waits for a WANT alone (procs.fold.look). A doorbell counts its rings; its bit ASLEEP says that somebody sleeps on it.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.int64]
Recs = npt.NDArray[np.void]

LINE_WORDS: Final = 8
CONTROL_WORDS: Final = 512
MAX_READERS: Final = 8

TAIL: Final = 0
WATERMARK: Final = 1
FULL_STALLS: Final = 3
PROMISE: Final = 4  # a watermark that holds as long as the writer is told nothing new on its feedback input ...
PROMISE_GIVEN: Final = 5  # ... of which it has read this many records, plus 1; 0: no promise
OWN_DUE: Final = 6  # the writer's outputs from here on answer an input, or come not before this; 0: it does not say

ARMED_READERS: Final = 8
ARMED_WRITER: Final = 9

CAPACITY: Final = 16
RECORD_WORDS: Final = 17
READERS: Final = 18
RING_ID: Final = 19
LOSSY: Final = 20
WRITER_DOORBELL: Final = 21
RECORD_HASH: Final = 22

READER_DOORBELL: Final = 24

READER_LINES: Final = 32
CURSOR: Final = 0
POSITION: Final = 1
GATING: Final = 2
OVERRUNS: Final = 3
WANT: Final = 4
FENCED: Final = 5  # 1: it gated, died, and was taken out so that the writer goes on (ringbuf.endpoint.fence_reader)

DOORBELLS: Final = 96
DOORBELL_COUNT: Final = 16
ASLEEP: Final = 1 << 62

LOOKER_LINES: Final = 112
MAX_LOOKERS: Final = 8
LOOKER_DOORBELL: Final = 0
LOOKER_WANT: Final = 1
NEVER: Final = (1 << 63) - 1

MIN_CAPACITY: Final = 2
MAX_CAPACITY: Final = 1 << 26
MAX_SEQUENCE: Final = 1 << 61

assert READER_DOORBELL + MAX_READERS <= READER_LINES
assert READER_LINES + MAX_READERS * LINE_WORDS <= DOORBELLS
assert DOORBELLS + DOORBELL_COUNT <= LOOKER_LINES
assert LOOKER_LINES + MAX_LOOKERS * LINE_WORDS <= CONTROL_WORDS
assert CONTROL_WORDS * 8 == 4096, "slots begin on a page"


class RingLayoutError(ValueError):
    """The words of a ring contradict each other or what was asked for; the message says which."""


def reader_line(reader: int) -> int:
    """First word of a reader's line."""
    return READER_LINES + reader * LINE_WORDS


def payload_bytes(capacity: int, record: np.dtype) -> int:
    """Bytes of a ring's segment payload: control page, slots, scratch slot."""
    return CONTROL_WORDS * 8 + (capacity + 1) * record.itemsize


def record_hash(record: np.dtype) -> int:
    """A 63-bit hash of a record's names, types and offsets: who attaches with another layout is refused."""
    fields: Any = record.fields or {}
    text = ";".join(f"{n}:{fields[n][0].str}:{fields[n][1]}:{fields[n][0].shape}" for n in record.names or ())
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def check_state(words: Words, doorbells: int) -> None:
    """Refuse a ring whose running words contradict each other; `doorbells` is how many its users can ring.

    Tail, cursors and doorbell numbers of a formatted ring (see `views` for its sizes). RingLayoutError says which word.
    """
    capacity, tail = int(words[CAPACITY]), int(words[TAIL])
    if not 0 <= tail < MAX_SEQUENCE:
        raise RingLayoutError(f"the ring's tail is {tail}, not in 0..{MAX_SEQUENCE - 1}")
    bells = [("the writer", int(words[WRITER_DOORBELL]))]
    for reader in range(int(words[READERS])):
        line = reader_line(reader)
        bells.append((f"reader {reader}", int(words[READER_DOORBELL + reader])))
        cursor, gates = int(words[line + CURSOR]), int(words[line + GATING])
        least = tail - capacity if gates else 0  # TAIL may be behind, a gating cursor may then be ahead of it
        if not max(least, 0) <= cursor < MAX_SEQUENCE:
            raise RingLayoutError(f"the cursor of reader {reader} is {cursor}, the tail {tail}, the capacity {capacity}")
    for who, bell in bells:
        if not 0 <= bell < doorbells:
            raise RingLayoutError(
                f"the doorbell of {who} is number {bell}, of {doorbells}: a pipeline's are on its board, pass them as doorbells="
            )


def check_capacity(capacity: int) -> None:
    """A power of two within limits, or RingLayoutError."""
    if not MIN_CAPACITY <= capacity <= MAX_CAPACITY or capacity & (capacity - 1):
        raise RingLayoutError(f"ring capacity {capacity}: wanted a power of two from {MIN_CAPACITY} to {MAX_CAPACITY}")


def format_ring(
    words: Words,
    record: np.dtype,
    capacity: int,
    *,
    ring_id: int = 0,
    gating: tuple[bool, ...] = (True,),
    lossy: bool = False,
    writer_doorbell: int | None = None,
    reader_doorbells: tuple[int, ...] | None = None,
    record_hash: int = 0,
) -> None:
    """Write a fresh ring's control words into zeroed `words` (int64 view of the payload).

    `gating[r]` says whether reader r holds the writer back. Doorbell numbers index the doorbell array that the endpoints
    are given; by default the ring's own (reader r: r, writer: MAX_READERS).
    """
    check_capacity(capacity)
    if len(gating) > MAX_READERS:
        raise RingLayoutError(f"{len(gating)} readers: a ring has at most {MAX_READERS}")
    if reader_doorbells is not None and len(reader_doorbells) != len(gating):
        raise RingLayoutError(f"{len(reader_doorbells)} doorbells for {len(gating)} readers: wanted one each")
    if record.itemsize % 64:
        raise RingLayoutError(f"record of {record.itemsize} bytes: wanted whole cache lines of 64")
    if words.size * 8 < payload_bytes(capacity, record):
        raise RingLayoutError(f"{words.size * 8} bytes are too few for {capacity} records of {record.itemsize} bytes")
    words[CAPACITY] = capacity
    words[RECORD_WORDS] = record.itemsize // 8
    words[READERS] = len(gating)
    words[RING_ID] = ring_id
    words[LOSSY] = lossy
    words[RECORD_HASH] = record_hash
    words[WRITER_DOORBELL] = MAX_READERS if writer_doorbell is None else writer_doorbell
    for reader, gates in enumerate(gating):
        words[READER_DOORBELL + reader] = reader if reader_doorbells is None else reader_doorbells[reader]
        words[reader_line(reader) + GATING] = gates


def views(words: Words, record: np.dtype) -> tuple[Words, Words, Recs]:
    """(control words, slots as int64[capacity + 1, record words], slots as records) of a formatted ring.

    Every word that is used for an address is checked: a ring whose words contradict each other is refused.
    """
    if words.size < CONTROL_WORDS:
        raise RingLayoutError(f"{words.size} words are too few for a ring's control page of {CONTROL_WORDS}")
    capacity, width, readers = int(words[CAPACITY]), int(words[RECORD_WORDS]), int(words[READERS])
    check_capacity(capacity)
    if width * 8 != record.itemsize:
        raise RingLayoutError(f"the ring holds records of {width * 8} bytes, the reader expects {record.itemsize}")
    if not 0 <= readers <= MAX_READERS:
        raise RingLayoutError(f"the ring claims {readers} readers: at most {MAX_READERS}")
    end = CONTROL_WORDS + (capacity + 1) * width
    if words.size < end:
        raise RingLayoutError(f"the ring claims {capacity} slots of {width * 8} bytes, its segment has {words.size * 8} bytes")
    slots = words[CONTROL_WORDS:end]
    return words[:CONTROL_WORDS], slots.reshape(capacity + 1, width), slots.view(record)
