"""A ring on disk: one append-only file per ring that outlives the process, the segment and the machine's power.

    offset
    0      +--------------------------------------------------------------+
           | "SCALPER-JOURNAL 1 <blake2b of the JSON>\\n"                   |
           | {"ring": ..., "dtype": {...}, "first_sequence": ..., ...}    |  one page of text:
           | spaces ... "\\n"                                              |  head -c 4096 FILE shows it
    4096   +--------------------------------------------------------------+
           | slot of sequence first      (record_bytes, raw)  last word = first + 1
           | slot of sequence first + 1                       last word = first + 2
           | ...

The file has one writer (held by flock) and any number of readers, which may map it while it grows. A slot is raw:
what was in the ring is what is on disk, and the dtype in the header is enough to read it with numpy alone.

Kill -9 can leave a cut slot at the end and nothing else; the next `JournalWriter.open` cuts it off and says at
which sequence to go on. A power failure can besides leave slots that were never written (sequence word 0): these are
cut off as well. Any other broken sequence is damage: it is reported, never repaired silently. There is no checksum
per record: after a power failure only what `sync` confirmed is vouched for.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Final

import numpy as np

from procs.journal.format import (
    HEADER_BYTES,
    MAGIC,
    VERSION,
    JournalBusy,
    JournalDamaged,
    JournalError,
    JournalFormatError,
    JournalFull,
    JournalHeader,
    JournalMismatch,
    JournalSequenceError,
    check_record,
    header_page,
    journal_path,
    laid_out,
    open_regular,
    parse_header,
)
from procs.whole_files import sync_folder
from trading.jit import Recs, Words
from trading.records import layout_hash

__all__ = [
    "HEADER_BYTES",
    "JournalBusy",
    "JournalDamaged",
    "JournalError",
    "JournalFormatError",
    "JournalFull",
    "JournalHeader",
    "JournalMismatch",
    "JournalReader",
    "JournalSequenceError",
    "JournalWriter",
    "journal_path",
]

TAIL_CHECK: Final = 2048
"""Slots before the end whose sequences are verified when a journal is opened for writing (0.6 MB at most: a restarted
recorder must be back in milliseconds, of all journals), fewer where a predecessor vouches; `JournalReader.check` verifies all."""

READ_BYTES: Final = 131_072
"""Of a journal that are read at a time."""

_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def _sequence_words(fd: int, record_bytes: int, first_slot: int, count: int) -> Words:
    """The sequence words of `count` slots from `first_slot` on, shape (count,); fewer where the file ends before."""
    found = np.empty(count, "<i8")
    words = np.empty((max(READ_BYTES // record_bytes, 1), record_bytes // 8), "<i8")  # read over and over: no new pages
    done = 0
    while done < count:
        into = words[: count - done]
        got = os.preadv(fd, [into.data], HEADER_BYTES + (first_slot + done) * record_bytes) // record_bytes
        if not got:
            break
        found[done : done + got] = into[:got, -1]
        done += got
    return found[:done]


class JournalWriter:
    """Appends whole slots of one ring. Not thread-safe. Use `JournalWriter.open`; a context manager closes it.

    Attributes: path, header; next_sequence: the sequence that the next slot must have; cut_bytes: what `open` cut
    off behind the last whole slot.
    """

    def __init__(self, fd: int, path: Path, header: JournalHeader, slots: int, cut_bytes: int, sync_every: int) -> None:
        """For `open` alone: `fd` is locked, and the file holds exactly `slots` slots."""
        self.path: Final = path
        self.header: Final = header
        self.cut_bytes: Final = cut_bytes
        self.next_sequence: int = header.first_sequence + slots
        self._fd = fd
        self._sync_every = sync_every
        self._unsynced = 0

    @classmethod
    def open(
        cls, path: str | Path, ring: str, dtype: np.dtype, instance: str,
        *, first_sequence: int = 0, sync_every: int = 0, vouched: int = 0,
    ) -> JournalWriter:  # fmt: skip
        """Open or create the journal of a ring; go on at `next_sequence`.

        first_sequence: of the first slot, if the journal is new. sync_every: `append` itself calls fdatasync once this
        many slots wait for it; 1 is after each append, 0 leaves it to `sync` and `close` (a killed process loses nothing
        either way: syncing is for power failures). vouched: a writer of this boot has written all that comes before this
        sequence, as shared memory tells, which a power failure does not survive: the check begins with the last of that.

        Raises JournalMismatch for another ring's, layout's or instance's file, JournalFormatError for a foreign file,
        JournalBusy if it has a writer, JournalDamaged, JournalFull.
        """
        path = Path(path)
        check_record(dtype)
        if sync_every < 0 or first_sequence < 0:
            raise ValueError("sync_every and first_sequence are 0 or more")
        wanted = JournalHeader(ring, instance, laid_out(dtype)[1], dtype, first_sequence, time.time_ns())
        fd = open_regular(path, os.O_RDWR | os.O_CREAT)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise JournalBusy(f"{path} is being written by another process; stop it, or record into another folder") from None
            page = os.pread(fd, HEADER_BYTES, 0)
            if cls._never_begun(fd, page):
                cls._begin(fd, path, header_page(wanted))
                return cls(fd, path, wanted, 0, len(page), sync_every)
            found = parse_header(page, path, dtype)
            cls._check_same(path, found, wanted)
            slots, cut = cls._repair_end(fd, path, found, vouched)
        except BaseException:
            os.close(fd)
            raise
        return cls(fd, path, found, slots, cut, sync_every)

    @staticmethod
    def _never_begun(fd: int, page: bytes) -> bool:
        """Whether this is a new file, or one whose writer died before its header was on disk: such a file has no slot."""
        if os.fstat(fd).st_size > HEADER_BYTES:
            return False
        begins = b"%s %d " % (MAGIC, VERSION)
        return not page.strip(b"\0") or (len(page) < HEADER_BYTES and (page.startswith(begins) or begins.startswith(page)))

    @staticmethod
    def _begin(fd: int, path: Path, page: bytes) -> None:
        """Write the header and make file and name durable before the first slot."""
        try:
            os.ftruncate(fd, 0)
            if os.pwrite(fd, page, 0) != len(page):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(fd)
            sync_folder(path.parent)
        except OSError as error:
            if error.errno in _NO_ROOM:
                raise JournalFull(f"no room for the journal {path} ({error.strerror}); free some and retry", 0) from error
            raise JournalError(f"cannot begin the journal {path} ({error.strerror}); check the disk") from error

    @staticmethod
    def _check_same(path: Path, found: JournalHeader, wanted: JournalHeader) -> None:
        if found.ring != wanted.ring:
            raise JournalMismatch(f"{path} is the journal of ring {found.ring}, not of {wanted.ring}; name another file")
        if found.layout != wanted.layout:
            raise JournalMismatch(
                f"{path} holds another record layout of ring {found.ring} ({found.layout:x}, this program writes "
                f"{wanted.layout:x}); it is from another version: record into a new folder"
            )
        if found.instance != wanted.instance:
            raise JournalMismatch(
                f"{path} was written by instance {found.instance!r}, this is {wanted.instance!r}; record into a new folder"
            )

    @staticmethod
    def _repair_end(fd: int, path: Path, header: JournalHeader, vouched: int) -> tuple[int, int]:
        """Cut off what a crash left behind the last whole slot. Returns (slots left, bytes cut)."""
        size, width, first = os.fstat(fd).st_size, header.record_bytes, header.first_sequence
        slots = start = max(size - HEADER_BYTES, 0) // width
        known = max(vouched - first - 1, 0)
        found = np.empty(0, "<i8")
        while start and not found.size:  # slots that a power failure left unwritten
            known = known if known < start else 0
            slots, start = start, max(known, start - TAIL_CHECK)
            found = _sequence_words(fd, width, start, slots - start)
            if found.size and not found[-1]:
                found = np.trim_zeros(found, "b")
        slots = start + found.size
        if start > known and found.size < TAIL_CHECK:  # those behind took room of the check
            start = max(known, slots - TAIL_CHECK)
            found = _sequence_words(fd, width, start, slots - start)
        wrong = np.flatnonzero(found != np.arange(first + start + 1, first + slots + 1))
        if wrong.size:
            slot = start + int(wrong[0])
            raise JournalDamaged(
                f"{path}: the slot of sequence {first + slot} carries {int(found[wrong[0]]) - 1}; the file is damaged: "
                "move it away and record into a new one"
            )
        cut = size - (HEADER_BYTES + slots * width)
        if cut > 0:
            os.ftruncate(fd, HEADER_BYTES + slots * width)
        return slots, max(cut, 0)

    def append(self, slots: Recs | memoryview | bytes | bytearray) -> int:
        """Write whole slots, whose sequence words go on from `next_sequence`; returns how many.

        Raises JournalSequenceError (nothing written) and JournalFull: the whole slots that fitted are kept and counted
        in `next_sequence`; free space and append the rest from there.
        """
        if self._fd < 0:
            raise JournalError(f"{self.path} is closed; open it again to append")
        width = self.header.record_bytes
        if isinstance(slots, np.ndarray):
            if slots.dtype.itemsize != width and slots.dtype != np.uint8:
                raise JournalSequenceError(
                    f"{self.path}: records of {slots.dtype.itemsize} bytes given, its own have {width}; append those of its ring"
                )
            raw = np.ascontiguousarray(slots).view(np.uint8).reshape(-1).data
        else:
            raw = memoryview(slots).cast("B")
        count, rest = divmod(len(raw), width)
        if rest:
            raise JournalSequenceError(f"{self.path}: {len(raw)} bytes are no whole slots of {width} bytes; append whole slots")
        if not count:
            return 0
        words = np.frombuffer(raw, "<i8").reshape(count, width // 8)[:, -1]
        wrong = np.flatnonzero(words != np.arange(self.next_sequence + 1, self.next_sequence + count + 1))
        if wrong.size:
            at = int(wrong[0])
            raise JournalSequenceError(
                f"{self.path}: sequence {self.next_sequence + at} is due, {int(words[at]) - 1} was given; "
                "append from next_sequence on, each slot once"
            )
        written = self._write(raw, count)
        self._unsynced += written
        if self._sync_every and self._unsynced >= self._sync_every:
            try:
                self.sync()
            except JournalFull as error:
                error.appended = written  # in the file, if not yet proof against a power failure
                raise
        return written

    def _write(self, raw: memoryview, count: int) -> int:
        """Write at the offset of `next_sequence`, so that a cut slot of a failed call is simply overwritten."""
        width = self.header.record_bytes
        base = HEADER_BYTES + (self.next_sequence - self.header.first_sequence) * width
        done = 0
        try:
            while done < len(raw):
                done += os.pwrite(self._fd, raw[done:], base + done)
        except OSError as error:
            kept = done // width
            self.next_sequence += kept
            self._unsynced += kept
            try:
                os.ftruncate(self._fd, base + kept * width)
            except OSError:
                pass  # readers ignore a cut slot, and the next append overwrites it
            if error.errno in _NO_ROOM:
                raise JournalFull(
                    f"no room to append to {self.path} ({error.strerror}); it is whole up to sequence {self.next_sequence - 1}: "
                    "free disk space, then append the rest",
                    kept,
                ) from error
            raise JournalError(
                f"cannot append to {self.path} ({error.strerror}), whole up to sequence {self.next_sequence - 1}; check the disk"
            ) from error
        self.next_sequence += count
        return count

    def sync(self) -> None:
        """fdatasync: what was appended survives a power failure once this returns. Raises JournalFull or JournalError."""
        if self._fd < 0 or not self._unsynced:
            return
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            if error.errno in _NO_ROOM:
                raise JournalFull(f"no room to sync {self.path} ({error.strerror}); free disk space, then go on", 0) from error
            raise JournalError(f"cannot sync {self.path} ({error.strerror}); the disk may have lost records: check it") from error
        self._unsynced = 0

    def close(self) -> None:
        """Sync and let go of the file and its lock. Idempotent."""
        if self._fd < 0:
            return
        try:
            self.sync()
        finally:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> JournalWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class JournalReader:
    """Reads a journal, also while it is being written: each `records()` maps all whole slots that are there now."""

    def __init__(self, path: str | Path, dtype: np.dtype | None = None) -> None:
        """Open a journal; with `dtype`, refuse one of another layout (JournalMismatch).

        Raises JournalFormatError for a file that is no journal, JournalError for one that cannot be opened.
        """
        self.path: Final = Path(path)
        fd = open_regular(self.path, os.O_RDONLY)
        try:
            self.header: Final = parse_header(os.pread(fd, HEADER_BYTES, 0), self.path)
        finally:
            os.close(fd)
        if dtype is not None and layout_hash(dtype) != self.header.layout:
            raise JournalMismatch(
                f"{self.path} holds another record layout ({self.header.layout:x}) than this program's ({layout_hash(dtype):x}); "
                "read it without a dtype, or with the version that wrote it"
            )
        self._records: Recs = np.zeros(0, self.header.dtype)

    @property
    def first_sequence(self) -> int:
        """Sequence of the first slot."""
        return self.header.first_sequence

    def records(self) -> Recs:
        """All whole slots, shape (n,), read-only and mapped: record i has sequence `first_sequence + i`."""
        fd = open_regular(self.path, os.O_RDONLY)
        try:
            count = max(os.fstat(fd).st_size - HEADER_BYTES, 0) // self.header.record_bytes
            if count != len(self._records):
                mapped = mmap.mmap(fd, HEADER_BYTES + count * self.header.record_bytes, access=mmap.ACCESS_READ)
                self._records = np.frombuffer(mapped, self.header.dtype, count, HEADER_BYTES)
        finally:
            os.close(fd)
        return self._records

    def gaps(self) -> list[tuple[int, int]]:
        """(sequence due, sequence found) wherever the chain breaks; empty for a sound journal."""
        found = self.records()["seq"] - 1
        if not len(found):
            return []
        due = np.concatenate(([self.first_sequence], found[:-1] + 1))
        return [(int(due[i]), int(found[i])) for i in np.flatnonzero(found != due)]

    def check(self) -> int:
        """The number of records; raises JournalDamaged naming the first break of the chain."""
        for due, found in self.gaps():
            raise JournalDamaged(f"{self.path}: sequence {due} is due, {found} was found; the file is damaged: use a copy")
        return len(self.records())

    def index_of(self, sequence: int) -> int:
        """Index in `records()` of a sequence, -1 if it is not there. O(1); O(log n) by bisection in a file with gaps."""
        recs = self.records()
        low, high = 0, len(recs)
        guess = sequence - self.first_sequence
        if 0 <= guess < high and int(recs[guess]["seq"]) == sequence + 1:
            return guess
        while low < high:
            middle = (low + high) // 2
            if int(recs[middle]["seq"]) < sequence + 1:
                low = middle + 1
            else:
                high = middle
        return low if low < len(recs) and int(recs[low]["seq"]) == sequence + 1 else -1
