"""Raw recordings on disk: what came off the wire, one growing gzip file a symbol, never doubled and never torn.

    <folder>/<market>/<SYMBOL>/<SYMBOL>_<YYYYMMDDTHHMMSSZ>.gz       lines `<recv_ns> {frame}`
    <folder>/_connection/_connection_<...>.gz                       frames about no symbol

A batch of frames becomes one member in each file that it concerns, and only then may the ring's cursor move. A member says
which ring sequences it covers (`procs.frame_log_format`), so after `kill -9` the next incarnation cuts off what stands
behind the last whole member and passes over the frames that a file already holds: nothing doubled, nothing lost,
although the files of one batch were written one after another.

When the disk is full the member is taken back and the batch kept; `flush` is to be called again. Files rotate between two
members, by the frames' own time or by size, so that nothing can fall between them.

What this module is not: it reads no ring (`procs.recorder` does) and judges no frame.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from procs.config import RecordSettings
from procs.frame_log_format import CONNECTION, SUFFIX, Taken, is_sound, line_of, member, members

NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
LOCK: Final = ".lock"


class FrameLogError(Exception):
    """A raw recording cannot be written or gone on with; the message names the file and the remedy."""


class FrameLogBusy(FrameLogError):
    """Another process records this symbol into this folder."""


class FrameLogFull(FrameLogError):
    """There is no room. The frames are kept in memory: free some, then `flush` again."""


class FrameSource(Protocol):
    """Where the frames come from. `take` gives the next ones, each once; `release` lets those below `seq` be forgotten."""

    def take(self, most: int) -> list[Taken]:
        """Up to `most` frames in order."""

    def release(self, seq: int) -> None:
        """Everything below `seq` is on disk."""


@dataclass(frozen=True, slots=True)
class Policy:
    """When files rotate and reach the disk. `level` is gzip's."""

    rotate_ns: int = 3600 * 10**9
    rotate_bytes: int = 512 << 20
    sync: str = "rotate"  # never | flush | rotate
    level: int = 6

    @classmethod
    def of(cls, settings: RecordSettings) -> Policy:
        """From a profile's `record:`."""
        return cls(int(settings.rotate_minutes * 60e9), settings.rotate_mb << 20, settings.sync, settings.level)


def stamp_of(ns: int) -> str:
    """A file name's time: UTC, to the second."""
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(ns // 10**9))


def segments(folder: Path) -> list[Path]:
    """The files of one symbol's folder, oldest first."""
    return sorted(folder.glob(f"{folder.name}_*{SUFFIX}"))


class SymbolLog:
    """The files of one symbol; `next_seq` is the first ring sequence that they do not hold. Use `SymbolLog.open`."""

    def __init__(self, folder: Path, run: int, policy: Policy, lock: int) -> None:
        """For `open` alone."""
        self.folder: Final = folder
        self.run: Final = run
        self.next_seq = 0
        self.cut_bytes = 0
        self.path: Path | None = None
        self._policy: Final = policy
        self._lock = lock
        self._fd = -1
        self._size = 0
        self._unsynced = False
        self._began_ns = 0
        self._lines: list[bytes] = []
        self._first = self._end = 0
        self._first_ns = self._last_ns = 0
        self.pending_bytes = 0

    @classmethod
    def open(cls, folder: Path, run: int, policy: Policy) -> SymbolLog:
        """Go on with the symbol's newest file if `run` wrote it, else begin a new one with the first frame.

        A member that was cut short is cut off, whoever wrote it. Raises FrameLogBusy, FrameLogError.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        except OSError as error:
            raise FrameLogError(
                f"{folder}: {error.strerror}; name a folder that can be written as record.folder"
            ) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            log = cls(folder, run, policy, lock)
            log._recover()
        except BlockingIOError:
            os.close(lock)
            raise FrameLogBusy(f"{folder} is being written by another process; stop it, or record into another folder") from None
        except BaseException:
            os.close(lock)
            raise
        return log

    def _recover(self) -> None:
        """From the newest file backwards to one with a whole member: cut off what stands behind it."""
        for path in reversed(segments(self.folder)):
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            found = list(members(fd))
            while found and not is_sound(fd, found[-1]):
                found.pop()
            size = os.fstat(fd).st_size
            whole = found[-1].offset + found[-1].size if found else 0
            if not found and size and not _begins_as_ours(fd):
                os.close(fd)
                continue  # somebody else's recording lies here under such a name
            if size > whole:
                self.cut_bytes += size - whole
                os.ftruncate(fd, whole)
            if not found:
                os.close(fd)
                path.unlink()
                continue
            if found[-1].run != self.run:
                os.close(fd)
                return
            self.next_seq = found[-1].end
            self.path, self._fd, self._size, self._began_ns = path, fd, whole, found[0].first_ns
            return

    def append(self, seq: int, recv_ns: int, line: bytes) -> bool:
        """Keep a line for the next member; False where a file holds the frame already."""
        if seq < self.next_seq:
            return False
        if not self._lines:
            self._first, self._first_ns = seq, recv_ns
        self._lines.append(line)
        self._end, self._last_ns = seq + 1, recv_ns
        self.pending_bytes += len(line) + 1
        return True

    def flush(self) -> None:
        """Write what is kept as one member. Raises FrameLogFull (all is kept, nothing half written), FrameLogError."""
        if not self._lines:
            self._sync()
            return
        try:
            if self._fd < 0 or self._is_over():
                self._begin()
            self._lines.append(b"")
            try:
                text = b"\n".join(self._lines)
            finally:
                self._lines.pop()
            data = member(
                text, self.run, self._first, self._end, self._first_ns, self._last_ns, len(self._lines), self._policy.level
            )
            self._write(data)
        except OSError as error:
            raise self._problem(error) from error
        self._size += len(data)
        self.next_seq = self._end
        self._lines.clear()
        self.pending_bytes = 0
        self._unsynced = self._policy.sync == "flush"
        self._sync()

    def _is_over(self) -> bool:
        if self._size == 0:
            return False
        return self._size >= self._policy.rotate_bytes or self._first_ns - self._began_ns >= self._policy.rotate_ns

    def _write(self, data: bytes) -> None:
        """At the end of the last whole member; what a failed write left is cut off."""
        done, view = 0, memoryview(data)
        try:
            while done < len(data):
                done += os.pwrite(self._fd, view[done:], self._size + done)
        except OSError:
            with contextlib.suppress(OSError):  # the next attempt writes over it, and so does the next incarnation
                os.ftruncate(self._fd, self._size)
            raise

    def _begin(self) -> None:
        """Open the next file; the finished one is synced and closed once the new one exists."""
        stem, again = f"{self.folder.name}_{stamp_of(self._first_ns)}", 0
        path = self.folder / f"{stem}{SUFFIX}"
        before = segments(self.folder)[-1:]
        if before and path.name <= before[0].name:  # the clock was put back: the names keep the order of the frames
            stem = before[0].name.removesuffix(SUFFIX).split("Z_")[0].removesuffix("Z") + "Z"
            path, again = before[0], _number_of(before[0])
        while True:
            try:
                fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
                break
            except FileExistsError:
                again += 1
                path = self.folder / f"{stem}_{again:03d}{SUFFIX}"  # '.' sorts before '_': still in order
        self._finish()
        self.path, self._fd, self._size, self._began_ns = path, fd, 0, self._first_ns
        if self._policy.sync != "never":
            folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def _sync(self) -> None:
        if not self._unsynced:
            return
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            raise self._problem(error) from error
        self._unsynced = False

    def _finish(self) -> None:
        """Sync and close the file at hand; one that never got a member goes."""
        if self._fd < 0:
            return
        try:
            if self._size and self._policy.sync != "never":
                os.fsync(self._fd)
        finally:
            os.close(self._fd)
            self._fd = -1
            if self._size == 0 and self.path is not None:
                self.path.unlink(missing_ok=True)

    def _problem(self, error: OSError) -> FrameLogError:
        where = self.path or self.folder
        if error.errno in NO_ROOM:
            return FrameLogFull(
                f"no room to record to {where} ({error.strerror}); it is whole up to frame {self.next_seq - 1}: free disk space"
            )
        return FrameLogError(
            f"cannot record to {where} ({error.strerror}); it is whole up to frame {self.next_seq - 1}: check the disk"
        )

    def close(self) -> None:
        """Finish the file and let go of the lock; what was not flushed is forgotten. Idempotent."""
        try:
            self._finish()
        except OSError as error:
            raise self._problem(error) from error
        finally:
            if self._lock >= 0:
                os.close(self._lock)
                self._lock = -1


def _number_of(path: Path) -> int:
    """The number of a file whose second had one already: `..Z_003.gz` is 3."""
    tail = path.name.removesuffix(SUFFIX).rpartition("Z_")[2]
    return int(tail) if tail.isdigit() else 0


def _begins_as_ours(fd: int) -> bool:
    """Whether the file's first bytes can be the beginning of a member of ours that was cut short."""
    head = os.pread(fd, 16, 0)
    sample = member(b"", 0, 0, 0, 0, 0, 0, 1)[:16]
    return sample.startswith(head) if len(head) < 16 else head == sample


@dataclass(slots=True)
class FrameLog:
    """The files of all symbols of a run. Members of a batch are written by `flush`; `written` is the sequence to release.

    names: (market, symbol) in the order of the symbols' indices. run: a number that no other run has.
    """

    folder: Path
    names: Sequence[tuple[str, str]]
    run: int
    policy: Policy = field(default_factory=Policy)
    written: int = 0
    taken: int = 0
    _logs: dict[int, SymbolLog] = field(default_factory=dict)

    def __post_init__(self) -> None:
        try:
            for index, (market, name) in enumerate(self.names):
                self._logs[index] = SymbolLog.open(self.folder / market.replace(":", "-") / name, self.run, self.policy)
            self._logs[-1] = SymbolLog.open(self.folder / CONNECTION, self.run, self.policy)
        except BaseException:
            self.close()
            raise

    @property
    def pending_bytes(self) -> int:
        """Text that waits for the next flush."""
        return sum(log.pending_bytes for log in self._logs.values())

    @property
    def cut_bytes(self) -> int:
        """What a crash had left behind the last whole members."""
        return sum(log.cut_bytes for log in self._logs.values())

    def take(self, frames: Iterable[Taken]) -> int:
        """Keep these for the next flush, in order; how many were new."""
        new = 0
        for frame in frames:
            index = frame.symbol if 0 <= frame.symbol < len(self.names) else -1
            line = line_of(frame, self.names[index][1] if index >= 0 else "")
            if line is not None:
                new += self._logs[index].append(frame.seq, frame.ts_ns, line)
            self.taken = frame.seq + 1
        return new

    def flush(self) -> int:
        """Write all that was taken; the sequence up to which everything is on disk. Raises FrameLogFull, FrameLogError.

        After FrameLogFull call it again: files that have their member are not written twice.
        """
        for log in self._logs.values():
            log.flush()
        self.written = max(self.written, self.taken)
        return self.written

    def close(self) -> None:
        """Close all files. Raises the first error, after trying all."""
        first: FrameLogError | None = None
        for log in self._logs.values():
            try:
                log.close()
            except FrameLogError as error:
                first = first or error
        self._logs.clear()
        if first is not None:
            raise first
