"""Records made anew against those in a journal: the same, word for word, or where they first differ.

What makes a record's identity counts (trading.records.identity_words), as in a digest; but a digest does not say where two runs
differ. An intake log is compared record by record taken: how a run was cut into batches is chance.

Journals are mapped and looked at piece by piece, as what is compared with them comes: nothing is held.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import numpy as np

from procs.journal.file import JournalDamaged, JournalReader
from trading.jit import Recs, Words
from trading.records import INTAKE_CUT, INTAKE_RECORD, Kind, identity_words, words

PIECE: Final = 8192
"""Records of a journal that are looked at together."""

_CAUSE_SEQ, _KIND_WORD = 1, 2
_fields: Any = INTAKE_RECORD.fields
LOG_RING, LOG_COUNT = (int(_fields[name][1]) // 8 for name in ("ring", "count"))


class Difference(NamedTuple):
    """The first place at which two runs part. `field` is "" where one of them has no such record."""

    sequence: int
    field: str
    was: Any
    now: Any

    def text(self) -> str:
        """In words."""
        if not self.field:
            return f"record {self.sequence:,} {'was' if self.was else 'was not'} there, and {'is' if self.now else 'is not'} now"
        return f"record {self.sequence:,}, {self.field}: was {self.was}, is {self.now}"


@dataclass(slots=True)
class Kept:
    """A ring's journal as it stood when it was opened; slots that a power failure left unwritten are no records."""

    path: Path
    recs: Recs
    words: Words = field(init=False)

    def __post_init__(self) -> None:
        width = self.recs.dtype.itemsize // 8
        self.words = self.recs.view("<i8").reshape(len(self.recs), width)
        end = len(self.words)
        while end and not self.words[end - 1, -1]:
            end -= 1
        self.recs, self.words = self.recs[:end], self.words[:end]

    @classmethod
    def of(cls, path: Path, record: np.dtype) -> Kept:
        """Raises JournalError for one that is none, of another layout, or that does not begin with a session."""
        reader = JournalReader(path, record)
        if reader.first_sequence:
            raise JournalDamaged(f"{path} begins at sequence {reader.first_sequence}; only a session that is whole folds again")
        return cls(path, reader.records())

    def __len__(self) -> int:
        return len(self.words)

    def piece(self, start: int, end: int) -> Words:
        """Rows [start, end) as words. Raises JournalDamaged where their sequences break."""
        found = self.words[start:end]
        wrong = np.flatnonzero(found[:, -1] != np.arange(start + 1, start + len(found) + 1))
        if wrong.size:
            at = start + int(wrong[0])
            raise JournalDamaged(
                f"{self.path}: sequence {at} is due, {int(self.words[at, -1]) - 1} was found; the file is damaged: use a copy"
            )
        return found

    @property
    def closed(self) -> bool:
        """Whether its writer has said that nothing follows."""
        return bool(len(self)) and int(self.words[-1, _KIND_WORD]) >> 32 == Kind.END


class Check(Protocol):
    """What takes a ring's new records and holds them against the old."""

    same: int
    difference: Difference | None

    @property
    def total(self) -> int:
        """Records in the journal."""

    def take(self, recs: Recs) -> None:
        """The next records, which are only lent."""

    def finish(self) -> None:
        """None follow."""


@dataclass(slots=True)
class RecordCheck:
    """A ring's records. `total`: in its journal; `same`: found equal so far, from the first on."""

    kept: Kept
    same: int = 0
    difference: Difference | None = None
    _seen: int = 0

    @property
    def total(self) -> int:
        """Records in the journal."""
        return len(self.kept)

    def take(self, recs: Recs) -> None:
        """The next records; what lies behind the journal's end is only counted, unless the ring had ended there."""
        start, self._seen = self._seen, self._seen + len(recs)
        if self.difference is not None:
            return
        old = self.kept.piece(start, self._seen)
        keep = identity_words(recs.dtype)
        new = np.ascontiguousarray(recs).view("<i8").reshape(len(recs), words(recs.dtype))[: len(old)]
        wrong = np.flatnonzero((old[:, keep] != new[:, keep]).any(axis=1))
        if wrong.size:
            row = int(wrong[0])
            self.same = start + row
            self.difference = first_field(self.same, self.kept.recs[self.same], recs[row])
            return
        self.same = start + len(old)
        if self._seen > len(self.kept) and self.kept.closed:
            self.difference = Difference(len(self.kept), "", False, True)


    def finish(self) -> None:
        """Nothing is held back."""


def first_field(sequence: int, was: np.void, now: np.void) -> Difference:
    """The first field that makes two records of one layout different records."""
    counted, fields = set(identity_words(was.dtype).tolist()), was.dtype.fields
    assert fields is not None
    for name in was.dtype.names or ():
        dtype, offset = fields[name][:2]
        if offset // 8 not in counted or was[name].tobytes() == now[name].tobytes():
            continue
        if not dtype.shape:
            return Difference(sequence, name, was[name].item(), now[name].item())
        at = next(k for k in range(dtype.shape[0]) if was[name][k].tobytes() != now[name][k].tobytes())
        return Difference(sequence, f"{name}[{at}]", was[name][at].item(), now[name][at].item())
    raise AssertionError("the records are the same")


def taken_by(rows: Words) -> Words:
    """How many records each line of an intake log stands for: a cut, which follows it, says so of the line before it."""
    count, cut = rows[:, LOG_COUNT].copy(), rows[:, LOG_RING] == INTAKE_CUT
    count[:-1][cut[1:]] = count[1:][cut[1:]]
    count[cut] = 0
    return count


def expanded(rows: Words, count: Words) -> Words:
    """Lines of an intake log, each so many records, record by record: int64[n, 2] of input and sequence."""
    first = np.repeat(rows[:, _CAUSE_SEQ] - np.cumsum(count) + count, count)
    return np.stack([np.repeat(rows[:, LOG_RING], count), first + np.arange(len(first))], axis=1)


@dataclass(slots=True)
class OrderCheck:
    """An intake log. Its "records" are those that were taken. `ended`: the stage had taken all that there was to take."""

    kept: Kept
    ended: bool
    same: int = 0
    difference: Difference | None = None
    total: int = field(init=False)
    _row: int = 0
    _old: Words = field(default_factory=lambda: np.zeros((0, 2), np.int64))
    _held: Words = field(default_factory=lambda: np.zeros((0, words(INTAKE_RECORD)), np.int64))

    def __post_init__(self) -> None:
        self.total = 0
        for start in range(0, len(self.kept), PIECE):
            self.total += int(taken_by(self.kept.piece(start, start + PIECE + 1))[:PIECE].sum())

    def take(self, recs: Recs) -> None:
        """The next lines of the log made anew. The last one waits for the one that may cut it."""
        rows = np.concatenate((self._held, np.ascontiguousarray(recs).view("<i8").reshape(len(recs), words(recs.dtype))))
        self._held = rows[-1:].copy()
        self._compare(expanded(rows[:-1], taken_by(rows)[:-1]))

    def finish(self) -> None:
        """The last line was not cut."""
        self._compare(expanded(self._held, taken_by(self._held)))
        self._held = self._held[:0]

    def _compare(self, new: Words) -> None:
        if self.difference is not None:
            return
        while len(new):
            if not len(self._old):
                if self._row >= len(self.kept):
                    if self.ended:
                        self.difference = Difference(self.same, "", False, True)
                    return
                rows = self.kept.piece(self._row, self._row + PIECE + 1)
                self._old = expanded(rows[:PIECE], taken_by(rows)[:PIECE])
                self._row += PIECE
            n = min(len(new), len(self._old))
            wrong = np.flatnonzero((new[:n] != self._old[:n]).any(axis=1))
            if wrong.size:
                row = int(wrong[0])
                self.same += row
                which = int(new[row, 0] == self._old[row, 0])
                name = ("input", "sequence of its input")[which]
                self.difference = Difference(self.same, name, int(self._old[row, which]), int(new[row, which]))
                return
            self.same += n
            new, self._old = new[n:], self._old[n:]
