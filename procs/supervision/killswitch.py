"""The kill switch's latch: a file that says "halted", survives crash and reboot, and that only a person removes.

Anyone may trip it (operator, risk, supervisor, watchdog); `reset` wants a name and a reason. The first trip's words
stay, later ones go to the history. Whatever cannot be read counts as halted: a latch fails closed. This module knows
nothing of orders: procs.supervision.supervisor tells the pipeline, risk cancels.

    <state>/<instance>/halt.json      the latch      {"who", "reason", "time", "pid"}
    <state>/<instance>/halts.log      the history    one JSON line a trip and a reset, appended
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Final

import msgspec

from procs import rundir
from procs.whole_files import sync_folder, write_whole

LATCH: Final = "halt.json"
HISTORY: Final = "halts.log"
MAX_TEXT: Final = 500
MAX_LATCH_BYTES: Final = 8192


class KillSwitchError(OSError):
    """The latch could not be written or removed; the message names the file. Treat the instance as halted."""


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


def _text(value: str, what: str) -> str:
    words = " ".join(value.split())
    if not words:
        raise ValueError(f"the kill switch wants a {what}: say it in a few words")
    return words[:MAX_TEXT]


def _write_all(fd: int, raw: bytes) -> None:
    view = memoryview(raw)
    while view:
        view = view[os.write(fd, view) :]


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
        latch = msgspec.json.decode(os.read(fd, MAX_LATCH_BYTES), type=Latch)
        return msgspec.structs.replace(latch, path=str(path))
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return Latch(who="unknown", reason=f"{path} is damaged", time=0.0, path=str(path))
    finally:
        os.close(fd)


def status(instance: str) -> Latch | None:
    """The latch if the instance is halted, else None. Never raises for a damaged or unreadable file: that is halted."""
    for folder in _folders(instance):
        latch = _read(folder)
        if latch is not None:
            return latch
    return None


def trip(instance: str, who: str, reason: str) -> Latch:
    """Sets the latch, durably; returns the one that holds (the first, if it was set already).

    Raises KillSwitchError if the disk refuses: the caller must halt all the same.
    """
    mine = Latch(who=_text(who, "name"), reason=_text(reason, "reason"), time=time.time(), pid=os.getpid())
    kept: Latch | None = None
    for folder in _folders(instance):
        path = folder / LATCH
        try:
            with contextlib.suppress(OSError):  # the latch is worth more than its history
                _log(folder, _Entry(what="trip", who=mine.who, reason=mine.reason, time=mine.time, pid=mine.pid))
            if _read(folder) is None:
                with contextlib.suppress(FileExistsError):  # somebody was first, and his words stay
                    write_whole(path, msgspec.json.encode(mine), replace=False, sync=True)
        except OSError as e:
            raise KillSwitchError(f"{path}: the kill switch could not be latched ({e.strerror})") from e
        kept = kept or _read(folder)
    return kept or mine


def reset(instance: str, who: str, reason: str) -> Latch | None:
    """Removes the latch after writing who and why to the history; returns what it said, None if it was not set."""
    who, reason = _text(who, "name"), _text(reason, "reason")
    found: Latch | None = None
    for folder in _folders(instance):
        latch = _read(folder)
        if latch is None:
            continue
        found = found or latch
        try:
            _log(folder, _Entry(what="reset", who=who, reason=reason, time=time.time(), pid=os.getpid()))
            (folder / LATCH).unlink(missing_ok=True)
            sync_folder(folder)
        except OSError as e:
            raise KillSwitchError(f"{folder / LATCH}: the kill switch could not be reset ({e.strerror})") from e
    return found


def latch_paths(instance: str) -> list[Path]:
    """The files whose existence means "halted", for whoever looks often."""
    return [folder / LATCH for folder in _folders(instance)]
