"""Reading, checking and writing a segment's header page. Nothing in it is trusted before it is checked.

A header may hold any words at all: another program's file, a crash, a stray store. `check` therefore works on a
private copy and ends in a clear error or in values within bounds; no size that comes from a header is ever used
unchecked.
"""

from __future__ import annotations

import os
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shm import backing
from shm.errors import (
    REMEDY_CLEAN,
    REMEDY_FOREIGN,
    REMEDY_INCOMPLETE,
    LayoutMismatch,
    NotASegment,
    SegmentDamaged,
    SegmentIncomplete,
    SegmentReadOnly,
)
from shm.layout import (
    HEADER_BYTES,
    HEADER_WORDS,
    MAGIC,
    MAX_EPOCH,
    MAX_KIND,
    MAX_PAYLOAD_BYTES,
    MAX_PID,
    MAX_SEGMENT_ID,
    O_BOOT_HI,
    O_BOOT_LO,
    O_EPOCH,
    O_PID,
    O_PID_NAMESPACE,
    O_SINCE_NS,
    O_START_TICKS,
    ROLES,
    VERSION,
    W_CREATOR,
    W_EPOCH,
    W_KIND,
    W_LAYOUT_HASH,
    W_MAGIC,
    W_PAYLOAD_BYTES,
    W_SEGMENT_ID,
    W_TOTAL_BYTES,
    W_VERSION,
    owner_word,
)
from shm.order import store_release
from shm.owner import Identity, current_identity

Words = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Owner:
    """Who holds a role (pid 0: nobody), since which epoch of the segment and which Unix ns."""

    identity: Identity
    epoch: int
    since_ns: int


def read_owner(words: Words, at: int) -> Owner:
    """The owner line that begins at word `at` of a header (int64, shape (512,)). Any words are accepted."""
    line = [int(word) for word in words[at : at + O_SINCE_NS + 1]]
    identity = Identity(line[O_PID], line[O_START_TICKS], line[O_BOOT_HI], line[O_BOOT_LO], line[O_PID_NAMESPACE])
    return Owner(identity, line[O_EPOCH], line[O_SINCE_NS])


class Header:
    """View of a mapped header page; `words` are its 512 int64, for kernels that look at the epoch."""

    def __init__(self, words: Words, path: Path, seen: os.stat_result) -> None:
        assert words.shape == (HEADER_WORDS,)
        self.words = words
        self.path = path
        self._seen = seen

    @property
    def place(self) -> str:
        """The segment's path as text, for messages."""
        return str(self.path)

    @property
    def kind(self) -> int:
        """What the segment is for (SegmentKind, or another number)."""
        return int(self.words[W_KIND])

    @property
    def layout_hash(self) -> int:
        """The hash of the payload's layout."""
        return int(self.words[W_LAYOUT_HASH])

    @property
    def segment_id(self) -> int:
        """The number that the topology gave to the segment."""
        return int(self.words[W_SEGMENT_ID])

    @property
    def total_bytes(self) -> int:
        """Header and payload."""
        return int(self.words[W_TOTAL_BYTES])

    @property
    def payload_bytes(self) -> int:
        """Payload alone."""
        return int(self.words[W_PAYLOAD_BYTES])

    @property
    def epoch(self) -> int:
        """How often a role of the segment was claimed."""
        return int(self.words[W_EPOCH])

    @property
    def creator(self) -> Owner:
        """Who made the segment."""
        return read_owner(self.words, W_CREATOR)

    def owner(self, role: int) -> Owner:
        """Who holds a role (0..7). ValueError for another number."""
        return read_owner(self.words, owner_word(role))

    def locked(self) -> AbstractContextManager[None]:
        """The lock under which owner lines are changed. SegmentReadOnly, SegmentBusy, SegmentMissing."""
        if not self.words.flags.writeable:
            raise SegmentReadOnly(self.place, "it is attached read-only", "attach it with readonly=False")
        return backing.locked(self.path, self._seen)


def write(words: Words, *, kind: int, layout_hash: int, segment_id: int, payload_bytes: int) -> None:
    """Fill the header of a new segment; the magic goes last, with release order."""
    me = current_identity()
    words[:] = 0
    words[W_VERSION] = VERSION
    words[W_KIND] = kind
    words[W_LAYOUT_HASH] = layout_hash
    words[W_SEGMENT_ID] = segment_id
    words[W_TOTAL_BYTES] = HEADER_BYTES + payload_bytes
    words[W_PAYLOAD_BYTES] = payload_bytes
    line = words[W_CREATOR : W_CREATOR + O_SINCE_NS + 1]
    line[:] = (me.pid, me.start_ticks, me.boot_hi, me.boot_lo, me.pid_namespace, 0, time.time_ns())
    store_release(words, W_MAGIC, MAGIC)


def read(fd: int) -> Words | None:
    """A private copy of the header page of an open file, None if the file is shorter than one."""
    # The magic first and the rest by a second call: who has seen the magic sees all that was stored before it.
    magic = os.pread(fd, 8, 0)
    page = os.pread(fd, HEADER_BYTES, 0)
    if len(magic) < 8 or len(page) < HEADER_BYTES:
        return None
    return np.frombuffer(magic + page[8:], dtype=np.int64).copy()


def check(words: Words, place: str, file_bytes: int) -> None:
    """Bounds of every word of a header (int64, shape (512,), a private copy) in a file of `file_bytes`.

    SegmentIncomplete without a magic, NotASegment with another, LayoutMismatch for another version, SegmentDamaged for
    a word out of bounds.
    """
    magic = int(words[W_MAGIC])
    if magic == 0:
        raise SegmentIncomplete(place, "its creator has not finished it", REMEDY_INCOMPLETE)
    if magic != MAGIC:
        raise NotASegment(place, f"not a segment (magic {magic & (1 << 64) - 1:#018x})", REMEDY_FOREIGN)
    version = int(words[W_VERSION])
    if version != VERSION:
        raise LayoutMismatch(place, f"header version {version}, this program writes {VERSION}", REMEDY_CLEAN)
    payload, epoch = int(words[W_PAYLOAD_BYTES]), int(words[W_EPOCH])
    bounds = [
        ("kind", int(words[W_KIND]), 0, MAX_KIND - 1),
        ("segment_id", int(words[W_SEGMENT_ID]), 0, MAX_SEGMENT_ID - 1),
        ("payload_bytes", payload, 8, min(MAX_PAYLOAD_BYTES, file_bytes - HEADER_BYTES)),
        ("total_bytes", int(words[W_TOTAL_BYTES]), payload + HEADER_BYTES, payload + HEADER_BYTES),
        ("epoch", epoch, 0, MAX_EPOCH - 1),
        ("creator pid", int(words[W_CREATOR + O_PID]), 1, MAX_PID),
    ]
    for role in range(ROLES):
        owner = read_owner(words, owner_word(role))
        bounds.append((f"pid of role {role}", owner.identity.pid, 0, MAX_PID))
        bounds.append((f"epoch of role {role}", owner.epoch, 0, epoch))
    for what, value, least, most in bounds:
        if not least <= value <= most:
            raise SegmentDamaged(place, f"header word {what} is {value}, not in {least}..{most}", REMEDY_CLEAN)
    if payload % 8:
        raise SegmentDamaged(place, f"header word payload_bytes is {payload}, no multiple of 8", REMEDY_CLEAN)
