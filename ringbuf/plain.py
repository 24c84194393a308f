"""Writing and looking at a ring without numba: for the supervisor and the command line, which stay small and start at once.

    PlainWriter            the writing end
    latest, copied_from    what stands on a ring now, copied as an observing reader does it

The same protocol as ringbuf.ring in plain stores. Why that is right: CPython makes each 8-byte numpy store with one `mov`
and reorders nothing, and x86 keeps stores in order, so "sequence 0, payload, sequence" arrives as it was made; on
other machines shm.order puts a barrier before each store that others wait for. Python has no atomic
read-modify-write, but the kernel does: FUTEX_WAKE_OP adds to a doorbell, or takes bits out of the armed mask,
atomically, and wakes in the same call. Sleepers' membarriers must reach us, so we register (ringbuf.waiting).

A copy is a numpy call between two looks at the sequences, which x86 does not load out of order either.

Not for hot paths: a push is a few microseconds.
"""

from __future__ import annotations

import ctypes
import os
import platform
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ringbuf import layout
from ringbuf.layout import (
    ARMED_READERS,
    CAPACITY,
    CURSOR,
    DOORBELL_COUNT,
    DOORBELLS,
    GATING,
    LOSSY,
    READER_DOORBELL,
    READERS,
    TAIL,
    WATERMARK,
    Words,
    reader_line,
)
from shm.order import store_release

Recs = npt.NDArray[Any]

_MACHINE: Final = platform.machine()
_SYS_FUTEX: Final = {"x86_64": 202, "aarch64": 98, "riscv64": 98}[_MACHINE]
_SYS_MEMBARRIER: Final = {"x86_64": 324, "aarch64": 283, "riscv64": 283}[_MACHINE]
_REGISTER_GLOBAL_EXPEDITED: Final = 1 << 2
_FUTEX_WAKE_OP: Final = 5
_OP_ADD: Final = 1
_OP_ANDN: Final = 3
_EVERYBODY: Final = 0x7FFFFFFF

_libc: Final = ctypes.CDLL(None, use_errno=True)


def _syscall(number: int, *args: int) -> int:
    found = _libc.syscall(ctypes.c_long(number), *(ctypes.c_long(arg) for arg in args))
    return int(found)


def _wake_op(words: Words, index: int, operation: int, operand: int, wake: int) -> None:
    """Change the low half of a word atomically and wake up to `wake` of its sleepers."""
    address = words.ctypes.data + index * 8
    # The call also compares the old value (with 0, EQ) and may wake sleepers of the second address: here the same ones.
    encoded = operation << 28 | (operand & 0xFFF) << 12
    if _syscall(_SYS_FUTEX, address, _FUTEX_WAKE_OP, wake, 0, address, encoded) < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"futex: {os.strerror(code)}; the ring's memory must be writable")


def ring_doorbell(doorbells: Words, number: int) -> None:
    """Wake whoever sleeps on a doorbell; it counts up atomically, whoever else rings it."""
    _wake_op(doorbells, number, _OP_ADD, 1, _EVERYBODY)


class PlainWriter:
    """The writing end over a ring's payload words. It must be the ring's only writer: claim the role in shm.owner.

    words: int64, the segment's payload; record: the dtype of its slots; doorbells: int64 that the ring's doorbell numbers
    index (a pipeline's are on its board), None for the ring's own. Goes on after the last published record. RingLayoutError.
    """

    def __init__(self, words: Words, record: np.dtype, doorbells: Words | None = None) -> None:
        self._ctl, self._slots, _ = layout.views(words, record)
        self._record: Final = record
        self._doorbells: Final[Words] = words[DOORBELLS : DOORBELLS + DOORBELL_COUNT] if doorbells is None else doorbells
        layout.check_state(self._ctl, self._doorbells.size)
        self._capacity: Final = int(self._ctl[CAPACITY])
        self._tail = self._published()
        _syscall(_SYS_MEMBARRIER, _REGISTER_GLOBAL_EXPEDITED, 0, 0)
        self._show()
        self._ring(range(int(self._ctl[READERS])))  # a predecessor may have died before it rang

    @property
    def next_sequence(self) -> int:
        """Number of the next record, from 0."""
        return self._tail

    def room(self) -> int:
        """How many records may be pushed now."""
        ctl = self._ctl
        if ctl[LOSSY]:
            return self._capacity
        gates = [line for line in map(reader_line, range(int(ctl[READERS]))) if ctl[line + GATING]]
        return self._capacity - (self._tail - min((int(ctl[line + CURSOR]) for line in gates), default=self._tail))

    def try_push(self, rec: Recs) -> bool:
        """Publish one record (shape () or (1,)), show it and wake who sleeps; False where the ring is full."""
        row = np.atleast_1d(np.asarray(rec))
        if row.dtype != self._record or row.shape != (1,):
            raise TypeError(f"{row.shape} of dtype {row.dtype}: this ring takes one record of {self._record}")
        if self.room() < 1:
            return False
        slot = self._slots[self._tail & (self._capacity - 1)]
        store_release(slot, -1, 0)  # an observing reader that is in the middle of this slot sees it
        if _MACHINE != "x86_64":
            store_release(slot, -1, 0)  # its barrier keeps the payload behind the first one
        slot[:-1] = np.ascontiguousarray(row).view(np.int64)[:-1]
        store_release(slot, -1, self._tail + 1)
        self._tail += 1
        self._show()
        return True

    def promise(self, watermark_ns: int) -> None:
        """Raise the watermark: no record with a smaller `ts_ns` follows. A smaller one than before changes nothing."""
        if watermark_ns > self._ctl[WATERMARK]:
            store_release(self._ctl, WATERMARK, watermark_ns)
            self._wake()

    def _show(self) -> None:
        if self._tail > self._ctl[TAIL]:
            store_release(self._ctl, TAIL, self._tail)
        self._wake()

    def _wake(self) -> None:
        _wake_op(self._ctl, ARMED_READERS, _OP_ANDN, 0, 0)  # changes nothing: a fence, for sleepers that make no membarrier
        armed = int(self._ctl[ARMED_READERS]) & (1 << layout.MAX_READERS) - 1
        if armed:
            # only the bits that we saw: one that is set meanwhile stays for the next push, and its reader looks again
            _wake_op(self._ctl, ARMED_READERS, _OP_ANDN, armed, 0)
            self._ring([reader for reader in range(int(self._ctl[READERS])) if armed >> reader & 1])

    def _ring(self, readers: Any) -> None:
        for reader in readers:
            ring_doorbell(self._doorbells, int(self._ctl[READER_DOORBELL + reader]))

    def _published(self) -> int:
        """The sequence after the last published record: ringbuf.ring.published_tail."""
        tail = int(self._ctl[TAIL])
        seqs = self._slots[: self._capacity, -1]
        rows = np.arange(self._capacity)
        most = layout.MAX_SEQUENCE if self._ctl[LOSSY] else min(
            (int(self._ctl[line + CURSOR]) + self._capacity for line in map(reader_line, range(int(self._ctl[READERS])))
             if self._ctl[line + GATING]), default=layout.MAX_SEQUENCE)  # fmt: skip
        sound = seqs[((seqs - 1) & (self._capacity - 1) == rows) & (seqs > tail) & (seqs <= most)]
        return int(sound.max()) if sound.size else tail


def copied_from(words: Words, record: np.dtype, first: int) -> tuple[Recs, int]:
    """(copies, tail): the records from `first` to the tail that are there, oldest first; what was overwritten is left out."""
    ctl, slots, _ = layout.views(words, record)
    tail, capacity = int(ctl[TAIL]), len(slots) - 1
    wanted = np.arange(max(first, tail - capacity, 0), tail, dtype=np.int64)
    rows = wanted & (capacity - 1)
    copied = slots[rows]
    whole = (copied[:, -1] == wanted + 1) & (slots[rows, -1] == wanted + 1)
    return copied[whole].reshape(-1).view(record), tail


def latest(words: Words, record: np.dtype, count: int) -> Recs:
    """Copies of the last `count` records of a ring, oldest first; what was overwritten meanwhile is left out."""
    return copied_from(words, record, max(int(words[TAIL]) - count, 0))[0]


__all__ = ["PlainWriter", "copied_from", "latest", "ring_doorbell"]
