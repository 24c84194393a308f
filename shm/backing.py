"""Files behind segments: names, opening, locking, removal. Nothing here looks at a segment's content.

Segments live in /dev/shm under posix_ipc, or, when a directory is given (argument, else environment SCALPER_SHM_DIR),
as plain files there: a small tmpfs in a test, a hugetlbfs mount in earnest. Either way a file is opened without
following links, and close-on-exec.

The file's lock (flock) is held while a segment is created, claimed or removed. The kernel drops it when its holder
dies, so that a lock is itself a proof of life.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import posix_ipc

from shm.errors import REMEDY_USER, SegmentBusy, SegmentMissing, SegmentNameInvalid, SegmentPermission, from_os_error

SHM_DIRECTORY: Final = Path("/dev/shm")
DIRECTORY_VARIABLE: Final = "SCALPER_SHM_DIR"
MAX_NAME: Final = 128
LOCK_PATIENCE_S: Final = 2.0
LOCK_PAUSE_S: Final = 0.001

_WORD: Final = r"[A-Za-z0-9](?:[A-Za-z0-9_-]*[A-Za-z0-9])?"
_NAME: Final = re.compile(rf"/scalper\.(?P<instance>{_WORD})\.(?P<what>{_WORD}(?:\.{_WORD})*)", re.ASCII)


def segment_name(instance: str, what: str) -> str:
    """`/scalper.<instance>.<what>`, checked. SegmentNameInvalid if the parts do not make a name."""
    name = f"/scalper.{instance}.{what}"
    split_name(name)
    return name


def split_name(name: str) -> tuple[str, str]:
    """(instance, what) of a segment's name. SegmentNameInvalid if it is none."""
    match = _NAME.fullmatch(name) if len(name) <= MAX_NAME else None
    if match is None:
        raise SegmentNameInvalid(
            ascii(name[: MAX_NAME + 1]),
            "not a segment's name",
            f"use /scalper.<instance>.<what> of letters, digits, '-' and '_' (and '.' in <what>), at most {MAX_NAME} characters",
        )
    return match["instance"], match["what"]


def directory_of(directory: str | os.PathLike[str] | None) -> Path | None:
    """The alternative directory that is in force, None for /dev/shm by posix_ipc."""
    chosen = directory if directory is not None else os.environ.get(DIRECTORY_VARIABLE) or None
    return None if chosen is None else Path(chosen).absolute()


def path_of(name: str, directory: Path | None) -> Path:
    """Where the segment's file is."""
    split_name(name)
    return (directory or SHM_DIRECTORY) / name[1:]


def open_new(name: str, directory: Path | None, mode: int) -> int:
    """Create the file of a segment, empty, and return its descriptor. FileExistsError if there is one, else SegmentError."""
    path = path_of(name, directory)
    try:
        if directory is None:
            fd = int(posix_ipc.SharedMemory(name, posix_ipc.O_CREX, mode=mode, size=0).fd)
        else:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    except (FileExistsError, posix_ipc.ExistentialError) as error:
        raise FileExistsError(str(path)) from error
    except posix_ipc.PermissionsError as error:
        raise SegmentPermission(
            str(path), "may not be created by this user", f"give the user write access to {path.parent}"
        ) from error
    except FileNotFoundError as error:
        raise SegmentMissing(str(path.parent), "no such directory", f"create it, or unset {DIRECTORY_VARIABLE}") from error
    except OSError as error:
        if error.errno is None:  # posix_ipc says "too many files open" in words only
            error.errno = errno.EMFILE
        raise from_os_error(str(path), error) from error
    try:
        os.fchmod(fd, mode)  # whatever the umask took away
    except OSError as error:
        os.close(fd)
        remove(path)
        raise from_os_error(str(path), error) from error
    return fd


def open_existing(name: str, directory: Path | None, *, readonly: bool) -> int:
    """Open the file of a segment and return its descriptor. SegmentMissing, SegmentPermission, SegmentLimit, SegmentError."""
    path = path_of(name, directory)
    flags = os.O_RDONLY if readonly else os.O_RDWR
    try:
        # What shm_open does, plus O_NONBLOCK: a FIFO that a stranger made at this name must not hang us.
        return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise from_os_error(str(path), error) from error


def remove(path: Path) -> bool:
    """Unlink a segment's file; False if it was gone already. SegmentError if the system refuses."""
    try:
        os.unlink(path)  # what shm_unlink does; by path so that both kinds of place are one code
    except FileNotFoundError:
        return False
    except OSError as error:
        raise from_os_error(str(path), error) from error
    return True


def same_file(path: Path, seen: os.stat_result) -> bool:
    """Is the file now at `path` the one that was seen?"""
    try:
        now = os.stat(path, follow_symlinks=False)
    except OSError:
        return False
    return (now.st_dev, now.st_ino) == (seen.st_dev, seen.st_ino)


def try_lock(fd: int) -> bool:
    """Take the file's lock if nobody has it."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def unlock(fd: int) -> None:
    """Give the lock back. Closing is not enough: a duplicate of the descriptor lives in the mapping."""
    fcntl.flock(fd, fcntl.LOCK_UN)


@contextlib.contextmanager
def locked(path: Path, seen: os.stat_result, patience_s: float = LOCK_PATIENCE_S) -> Iterator[None]:
    """Hold the lock of the file at `path`, which must still be the one `seen` (by fstat) when it was attached.

    The file is opened anew: locks belong to open files, and a forked child shares its parent's. SegmentMissing if
    the segment was unlinked or replaced, SegmentBusy if the lock does not come free in `patience_s`.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise from_os_error(str(path), error) from error
    try:
        deadline = time.monotonic() + patience_s
        while not try_lock(fd):
            if time.monotonic() >= deadline:
                raise SegmentBusy(
                    str(path), "another process keeps its header locked", "see who with `lsof`, resume or stop it, then retry"
                )
            time.sleep(LOCK_PAUSE_S)
        if not same_file(path, seen):
            raise SegmentMissing(str(path), "the segment was removed or replaced meanwhile", "attach again")
        yield
    finally:
        os.close(fd)


def check_access(path: Path, seen: os.stat_result, mode: int) -> None:
    """SegmentPermission unless the file is a regular one of this user whose mode is no wider than `mode`."""
    if not stat.S_ISREG(seen.st_mode):
        raise SegmentPermission(str(path), "it is not a regular file", "remove it")
    if seen.st_uid != os.geteuid():
        raise SegmentPermission(str(path), f"it belongs to uid {seen.st_uid}, this process is uid {os.geteuid()}", REMEDY_USER)
    wide = stat.S_IMODE(seen.st_mode) & ~mode
    if wide:
        raise SegmentPermission(
            str(path), f"its mode {stat.S_IMODE(seen.st_mode):04o} is wider than {mode:04o}", f"chmod {mode:04o} it, or remove it"
        )


def names_in(directory: Path | None, instance: str | None) -> list[str]:
    """Names of the segment files that are there, sorted, of one instance or of all. SegmentError if the place cannot be read."""
    place = directory or SHM_DIRECTORY
    try:
        found = ["/" + entry for entry in os.listdir(place)]
    except FileNotFoundError as error:
        raise SegmentMissing(str(place), "no such directory", f"create it, or unset {DIRECTORY_VARIABLE}") from error
    except OSError as error:
        raise from_os_error(str(place), error) from error
    matches = [(_NAME.fullmatch(name), name) for name in sorted(found) if len(name) <= MAX_NAME]
    return [name for match, name in matches if match and instance in (None, match["instance"])]
