"""Raw recordings on disk: what came off the wire, one growing gzip file a symbol, never doubled and never torn.

    <folder>/<market>/<SYMBOL>/<SYMBOL>_<YYYYMMDDTHHMMSSZ>.gz       lines `<recv_ns> {frame}`
    <folder>/_connection/_connection_<...>.gz                       frames about no symbol

A batch of frames becomes one member in each file that it concerns, and only then may the ring's cursor move. A member says
which ring sequences it covers (`procs.recordings.frame_log_format`), so after `kill -9` the next incarnation cuts off what stands
behind the last whole member and passes over the frames that a file already holds: nothing doubled, nothing lost,
although the files of one batch were written one after another.

When the disk is full the member is taken back and the batch kept; `flush` is to be called again. Files rotate between two
members, by the frames' own time or by size, so that nothing can fall between them. A part that a power failure damaged, with
sound members behind it, is set aside as `FILE.damaged-<offset>`, and a line in its place declares the loss.

Frames of venues with typed decoders mean what their connection says. Their files begin with an event that names the symbol as
the venue writes it, with tick and lot, and an event stands wherever the connection is another than that of the frame before.

What this module is not: it reads no ring; `procs.stages.recorder` does.
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

from procs.profiles.schema import RecordSettings
from procs.recordings.frame_log_format import (
    CONNECTION,
    SUFFIX,
    Member,
    Taken,
    came_of,
    damage_of,
    line_of,
    mark_of,
    member,
    members,
    sound_members,
)
from procs.whole_files import sync_folder
from trading.records import Kind
from trading.venues.names import CCXT

NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
LOCK: Final = ".lock"
WITHOUT_FRAMES: Final = CCXT
"""Markets of which nothing is kept: what their library hands on is no frame of the venue's."""


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

    def __init__(self, folder: Path, run: int, policy: Policy, lock: int, head: bytes) -> None:
        """For `open` alone."""
        self.folder: Final = folder
        self.run: Final = run
        self._head: Final = head
        self._mark = b""  # the last one in the file at hand, as far as we know
        self.next_seq = 0
        self.cut_bytes = self.damaged_bytes = 0
        self.path: Path | None = None
        self._policy: Final = policy
        self._lock = lock
        self._fd = -1
        self._size = 0
        self._unsynced = False
        self._began_ns = 0
        self._lines: list[tuple[int, bytes, bytes]] = []  # recv_ns, mark, line
        self._first = self._end = 0
        self._first_ns = self._last_ns = 0
        self.pending_bytes = 0

    @classmethod
    def open(cls, folder: Path, run: int, policy: Policy, head: bytes = b"") -> SymbolLog:
        """Go on with the symbol's newest file if `run` wrote it, else begin a new one with the first frame. head: the event that
        begins each file.

        A member that was cut short is cut off, whoever wrote it. Raises FrameLogBusy, FrameLogError.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        except OSError as error:
            raise FrameLogError(
                f"{folder}: {error.strerror}; name a folder that can be written as record.folder"
            ) from error
        log = None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            log = cls(folder, run, policy, lock, head)
            log._recover()
        except BlockingIOError:
            os.close(lock)
            raise FrameLogBusy(f"{folder} is being written by another process; stop it, or record into another folder") from None
        except OSError as error:
            os.close(lock)
            assert log is not None
            raise log._problem(error) from error
        except BaseException:
            os.close(lock)
            raise
        return log

    def _recover(self) -> None:
        """From the newest file backwards to one with a whole member: cut off what stands behind its last one."""
        for path in reversed(segments(self.folder)):
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                if self._goes_on(path, fd):
                    fd = -1 if fd == self._fd else fd
                    return
            finally:
                if fd >= 0:
                    os.close(fd)

    def _goes_on(self, path: Path, fd: int) -> bool:
        """Whether this file has a whole member, its end repaired; it becomes the file at hand if this run wrote it."""
        written = next(iter(members(fd)), None)
        size = os.fstat(fd).st_size
        # a file of this run was written since the machine started, and what a killed process wrote is there
        found = sound_members(fd, thorough=written is not None and written.run != self.run)
        if not found and size and not _begins_as_ours(fd):
            return False  # somebody else's recording lies here under such a name
        whole = found[-1].offset + found[-1].size if found else 0
        if size > whole:
            self.cut_bytes += size - whole
            os.ftruncate(fd, whole)
        if not found:
            path.unlink()
            return False
        ours = found[-1].run == self.run
        ends = [0, *(m.offset + m.size for m in found)]
        holes = [(end, m.offset) for end, m in zip(ends, found, strict=False) if end < m.offset]
        if holes:
            fresh = self._set_aside(path, fd, found, holes)
            if ours:
                os.dup2(fresh, fd, inheritable=False)
            os.close(fresh)
            whole = os.stat(path).st_size
        if ours:
            self.next_seq = found[-1].end
            self.path, self._fd, self._size, self._began_ns = path, fd, whole, found[0].first_ns
        return True

    def _set_aside(self, path: Path, fd: int, found: list[Member], holes: list[tuple[int, int]]) -> int:
        """The file anew without its damaged parts, which are kept beside it; a descriptor of the new one.

        Whoever reads gzip could read no further than the first of them. The new file appears whole or not at all.
        """
        partial = path.with_name(f".{path.name}.partial")
        fresh = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            name, at = "" if self.folder.name == CONNECTION else self.folder.name, 0
            for begin, end in holes:
                _copy(fd, at, begin, fresh)
                aside = os.open(path.with_name(f"{path.name}.damaged-{begin}"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
                try:
                    _copy(fd, begin, end, aside)
                    os.fsync(aside)
                finally:
                    os.close(aside)
                after = next(m for m in found if m.offset == end)
                text = b"%d %s\n" % (after.first_ns, damage_of(name, end - begin))
                told = member(text, after.run, after.first, after.first, after.first_ns, after.first_ns, 1, self._policy.level)
                _put(fresh, told)
                self.damaged_bytes += end - begin
                at = end
            _copy(fd, at, os.fstat(fd).st_size, fresh)
            os.fsync(fresh)
            partial.replace(path)
        except BaseException:
            os.close(fresh)
            partial.unlink(missing_ok=True)
            raise
        return fresh

    def append(self, seq: int, recv_ns: int, line: bytes, mark: bytes = b"") -> bool:
        """Keep a line for the next member; False where a file holds the frame already. mark: the event that is to stand before it
        unless the file has the same one last."""
        if seq < self.next_seq:
            return False
        if not self._lines:
            self._first, self._first_ns = seq, recv_ns
        self._lines.append((recv_ns, mark, line))
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
            lines, mark = self._text()
            text = b"\n".join([*lines, b""])
            data = member(text, self.run, self._first, self._end, self._first_ns, self._last_ns, len(lines), self._policy.level)
            self._write(data)
        except OSError as error:
            raise self._problem(error) from error
        self._size += len(data)
        self._mark = mark
        self.next_seq = self._end
        self._lines.clear()
        self.pending_bytes = 0
        self._unsynced = self._policy.sync == "flush"
        self._sync()

    def _text(self) -> tuple[list[bytes], bytes]:
        """The lines that are kept, with the events that belong before them, and the mark that is the last one then."""
        mark, lines = self._mark, []
        if self._head and not self._size:
            lines.append(b"%d %s" % (self._first_ns, self._head))
        for recv_ns, own, line in self._lines:
            if own and own != mark:
                lines.append(b"%d %s" % (recv_ns, own))
                mark = own
            lines.append(line)
        return lines, mark

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
        try:
            self._finish()
        except OSError:
            os.close(fd)
            path.unlink(missing_ok=True)
            raise
        self.path, self._fd, self._size, self._began_ns = path, fd, 0, self._first_ns
        self._mark = b""
        if self._policy.sync != "never":
            sync_folder(self.folder)

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


def _copy(source: int, at: int, end: int, target: int) -> None:
    """The bytes from `at` to `end` to where `target` stands."""
    while at < end:
        piece = os.pread(source, min(end - at, 1 << 20), at)
        if not piece:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        _put(target, piece)
        at += len(piece)


def _put(target: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(target, view) :]


@dataclass(slots=True)
class FrameLog:
    """The files of all symbols of a run. Members of a batch are written by `flush`; `written` is the sequence to release.

    names: (market, symbol) in the order of the symbols' indices. run: a number that no other run has. heads: by index, what
    `frame_log_format.head_of` says of a symbol whose frames mean what their connection says; b"" for others.
    """

    folder: Path
    names: Sequence[tuple[str, str]]
    run: int
    policy: Policy = field(default_factory=Policy)
    heads: Sequence[bytes] = ()
    written: int = 0
    taken: int = 0
    _logs: dict[int, SymbolLog] = field(default_factory=dict)

    def __post_init__(self) -> None:
        try:
            for index, (market, name) in enumerate(self.names):
                if market.startswith(WITHOUT_FRAMES):
                    continue
                place = self.folder / market.replace(":", "-") / name
                self._logs[index] = SymbolLog.open(place, self.run, self.policy, self._head(index))
            self._logs[-1] = SymbolLog.open(self.folder / CONNECTION, self.run, self.policy)
        except BaseException:
            self.close()
            raise

    def _head(self, index: int) -> bytes:
        return self.heads[index] if 0 <= index < len(self.heads) else b""

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
            # bytes of nobody knows whom are missing: any file may be the one that misses them
            for one in self._logs if index < 0 and frame.kind == Kind.LOST else (index,):
                name = self.names[one][1] if one >= 0 else ""
                line = line_of(frame, name)
                if line is not None and one in self._logs:
                    mark = mark_of(came_of(frame.line), name) if frame.kind == Kind.RAW and self._head(one) else b""
                    new += self._logs[one].append(frame.seq, frame.ts_ns, line, mark)
            self.taken = frame.seq + 1
        return new

    def flush(self) -> int:
        """Write all that was taken; the sequence up to which everything is on disk. Raises FrameLogFull, FrameLogError.

        After an error call it again: files that have their member are not written twice. What befalls one file keeps no other
        from its member.
        """
        first: FrameLogError | None = None
        for log in self._logs.values():
            try:
                log.flush()
            except FrameLogError as error:
                first = first or error
        if first is not None:
            raise first
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
