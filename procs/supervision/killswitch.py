"""The kill switch's latch: a file that says "halted", survives crash and reboot, and that only a person resets.

Anyone may trip it (operator, risk, supervisor, watchdog); `reset` wants a name and a reason. The first trip's words
stay, later ones go to the history. Whatever cannot be read counts as halted: a latch fails closed. This module knows
nothing of orders: procs.supervision.supervisor tells the pipeline, risk cancels.

    <state>/<instance>/halt.json      the latch      {"who", "reason", "time", "pid"}; {"halted": false} while it is not set
    <state>/<instance>/halts.log      the history    one JSON line a trip and a reset, appended
    <run>/<instance>/halt.json        the spare      written only where the latch is refused; it lives until a reboot

`reserve` makes the latch before anything trades, as large as it will ever be. A trip then writes over it in place and syncs it,
so that a full disk cannot refuse it. A disk that fails, or a file system that copies what it writes over (btrfs, zfs), still can:
then the spare holds, which a supervisor that starts again finds as well, and the trip says that it is not latched.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from procs import rundir
from procs.whole_files import sync_folder, write_whole

LATCH: Final = "halt.json"
HISTORY: Final = "halts.log"
MAX_TEXT: Final = 500
ROOM: Final = 8192
"""Bytes of a latch's file: of the longest words that there are, each character escaped."""
FREE: Final = b'{"halted": false}'
LOCK_TRIES: Final = 50
LOCK_PAUSE_S: Final = 0.01


class KillSwitchError(OSError):
    """The latch could not be written or reset; the message names the file. Treat the instance as halted."""


class Latch(msgspec.Struct, frozen=True, kw_only=True):
    """Who halted the instance, why, and when (UTC, seconds since 1970)."""

    who: str
    reason: str
    time: float
    pid: int = 0
    path: str = ""

    def in_words(self) -> str:
        """`halted by operator at 2024-08-08T00:00:00Z: reason`."""
        try:
            stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.time))
        except (OverflowError, ValueError, OSError):
            stamp = "an unknown time"
        return f"halted by {self.who} at {stamp}: {self.reason}"


class _Entry(msgspec.Struct, frozen=True, kw_only=True):
    what: str
    who: str
    reason: str
    time: float
    pid: int


def _folders(instance: str) -> list[Path]:
    """Our state directory, and the system service's of the same name where we may look into it."""
    own = rundir.state_dir(instance)
    system = rundir.SYSTEM_STATE / instance
    if system != own and os.access(system, os.R_OK | os.W_OK | os.X_OK):
        return [own, system]
    return [own]


def _spares(instance: str) -> list[Path]:
    """The spare's folders that are there: where the supervisor of this name runs, or ran."""
    return [folder for folder in rundir.run_dir_candidates(instance) if os.access(folder, os.R_OK | os.W_OK | os.X_OK)]


def _text(value: str, what: str) -> str:
    words = " ".join(value.split())
    if not words:
        raise ValueError(f"the kill switch wants a {what}: say it in a few words")
    return words[:MAX_TEXT]


def _write_all(fd: int, raw: bytes, at: int = 0) -> None:
    view = memoryview(raw)
    while view:
        done = os.pwrite(fd, view, at)
        view, at = view[done:], at + done


def _log(folder: Path, entry: _Entry) -> None:
    fd = os.open(folder / HISTORY, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        _write_all(fd, msgspec.json.encode(entry) + b"\n")
        os.fsync(fd)
    finally:
        os.close(fd)


def _read(folder: Path) -> Latch | None:
    path = folder / LATCH
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as e:
        return Latch(who="unknown", reason=f"{path} cannot be read ({e.strerror})", time=0.0, path=str(path))
    try:
        raw = os.read(fd, ROOM).strip()
        if raw == FREE:
            return None
        return msgspec.structs.replace(msgspec.json.decode(raw, type=Latch), path=str(path))
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return Latch(who="unknown", reason=f"{path} is damaged", time=0.0, path=str(path))
    finally:
        os.close(fd)


@contextlib.contextmanager
def _locked(fd: int) -> Iterator[None]:
    """Alone among those who write a latch. Who is kept waiting for too long goes on all the same: a halt never hangs."""
    for _ in range(LOCK_TRIES):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except OSError:
            time.sleep(LOCK_PAUSE_S)
    yield


def _put(folder: Path, words: bytes, *, over: bool) -> None:
    """Make these the latch's words, durably; without `over` only where it is not set. Raises OSError."""
    path, raw = folder / LATCH, words.ljust(ROOM - 1) + b"\n"
    try:
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        fd = -1
    try:
        if fd >= 0 and stat.S_ISREG(os.fstat(fd).st_mode):
            with _locked(fd):
                if over or _read(folder) is None:
                    _write_all(fd, raw)
                    os.ftruncate(fd, ROOM)
                    os.fsync(fd)
            return
    finally:
        if fd >= 0:
            os.close(fd)
    if over or _read(folder) is None:
        with contextlib.suppress(FileExistsError):  # somebody was first, and his words stay
            write_whole(path, raw, replace=over, sync=True)


def reserve(instance: str) -> None:
    """Makes the latch's file where it is missing, not set, so that a disk that is full later cannot refuse it.

    Raises KillSwitchError: where the latch has no place, nothing may trade.
    """
    for folder in _folders(instance):
        path = folder / LATCH
        try:
            if not os.path.lexists(path):
                _put(folder, FREE, over=False)
        except OSError as e:
            raise KillSwitchError(
                f"{path}: no room can be reserved for the kill switch ({e.strerror}); free some on that disk, then start again"
            ) from e


def status(instance: str) -> Latch | None:
    """The latch if the instance is halted, else None. Never raises for a damaged or unreadable file: that is halted."""
    return status_in(places(instance))


def places(instance: str) -> list[Path]:
    """Every folder in which a latch of this instance counts, for whoever looks often."""
    return [*_folders(instance), *_spares(instance)]


def status_in(folders: list[Path]) -> Latch | None:
    """What `status` says, of these `places`."""
    return next((latch for folder in folders if (latch := _read(folder)) is not None), None)


def new_latch(who: str, reason: str) -> Latch:
    """The words of a trip that happens now. Raises ValueError where one of them is empty."""
    return Latch(who=_text(who, "name"), reason=_text(reason, "reason"), time=time.time(), pid=os.getpid())


def trip(instance: str, who: str, reason: str) -> Latch:
    """Sets the latch, durably, and notes it in the history; returns the one that holds (the first, if it was set already).

    Raises KillSwitchError if the disk refuses: the caller must halt all the same, and try `latch` again.
    """
    mine = new_latch(who, reason)
    with contextlib.suppress(OSError):  # the latch is worth more than its history
        for folder in _folders(instance):
            _log(folder, _Entry(what="trip", who=mine.who, reason=mine.reason, time=mine.time, pid=mine.pid))
    return latch(instance, mine)


def latch(instance: str, mine: Latch) -> Latch:
    """What `trip` does, without the history. Raises KillSwitchError; the spare is set then, if it can be."""
    kept: Latch | None = None
    path = Path(LATCH)
    try:
        for folder in _folders(instance):
            path = folder / LATCH
            _put(folder, msgspec.json.encode(mine), over=False)
            kept = kept or _read(folder)
    except OSError as e:
        for spare in _spares(instance):
            with contextlib.suppress(OSError):
                _put(spare, msgspec.json.encode(mine), over=False)
        raise KillSwitchError(f"{path}: the kill switch could not be latched ({e.strerror or e})") from e
    return kept or mine


def reset(instance: str, who: str, reason: str) -> Latch | None:
    """Resets the latch after writing who and why to the history; returns what it said, None if it was not set."""
    who, reason = _text(who, "name"), _text(reason, "reason")
    found: Latch | None = None
    folders = _folders(instance)
    for folder in (*folders, *_spares(instance)):
        latch = _read(folder)
        if latch is None:
            continue
        found = found or latch
        path = folder / LATCH
        try:
            entry = _Entry(what="reset", who=who, reason=reason, time=time.time(), pid=os.getpid())
            _log(folder if folder in folders else folders[0], entry)
            if stat.S_ISREG(os.lstat(path).st_mode):
                _put(folder, FREE, over=True)
            else:
                path.unlink(missing_ok=True)
                sync_folder(folder)
        except OSError as e:
            raise KillSwitchError(f"{path}: the kill switch could not be reset ({e.strerror})") from e
    return found
