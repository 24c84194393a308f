"""What segments there are, who holds them, and removing what only the dead held.

A segment is living while its creator or the owner of one of its roles is not *proven* dead (owner.is_alive); also while
anybody holds its file's lock, which a creator does until the magic is in place, and which the kernel drops when it
dies. Removal happens under that lock, after looking again: nobody can create, claim or remove at the same time.

Files of another user and files that are not segments are shown and left alone.
"""

from __future__ import annotations

import fcntl
import os
import signal
import stat
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from shm import backing, header
from shm.errors import SegmentDamaged, SegmentError, SegmentMissing
from shm.header import Owner
from shm.layout import MAGIC, ROLES, W_CREATOR, W_EPOCH, W_KIND, W_MAGIC, W_SEGMENT_ID, owner_word
from shm.owner import is_alive

_F_SETSIG: Final = 10  # Linux; the fcntl module does not name it


class State(StrEnum):
    """What is known of a file that has a segment's name."""

    LIVING = "living"  # somebody who holds it is not proven dead
    DEAD = "dead"  # everybody who held it is
    CREATING = "creating"  # no magic yet, and its creator holds the lock
    ABANDONED = "abandoned"  # no magic, and its creator died
    FOREIGN = "foreign"  # not ours to touch


@dataclass(frozen=True, slots=True)
class Holder:
    """One who made or owns a segment: role -1 is the creator."""

    role: int
    owner: Owner
    alive: bool


@dataclass(frozen=True, slots=True)
class SegmentState:
    """One segment as `list_segments` saw it. `nbytes`: of the file; kind, segment_id, epoch: 0 without a good header."""

    name: str
    path: Path
    state: State
    nbytes: int
    kind: int = 0
    segment_id: int = 0
    epoch: int = 0
    owners: tuple[Holder, ...] = ()
    note: str = ""

    def holders(self) -> str:
        """The living holders as text."""
        alive = [
            f"{'creator' if holder.role < 0 else f'role {holder.role}'} {holder.owner.identity}"
            for holder in self.owners
            if holder.alive
        ]
        return ", ".join(alive) or ("somebody maps it" if self.owners else "its creator is still at work")


def inspect(name: str, directory: str | os.PathLike[str] | None = None) -> SegmentState | None:
    """State of one segment, None if there is none. SegmentNameInvalid, SegmentLimit."""
    place = backing.directory_of(directory)
    try:
        fd = backing.open_existing(name, place, readonly=True)
    except SegmentMissing:
        return None
    except SegmentError as error:
        path = backing.path_of(name, place)
        return SegmentState(name, path, State.FOREIGN, _size(path), note=error.problem)
    try:
        return _look(name, backing.path_of(name, place), fd)
    finally:
        os.close(fd)


def list_segments(instance: str | None = None, directory: str | os.PathLike[str] | None = None) -> list[SegmentState]:
    """Every file that has a segment's name, of one instance or of all, sorted by name.

    SegmentError if the place cannot be read.
    """
    place = backing.directory_of(directory)
    found = (inspect(name, place) for name in backing.names_in(place, instance))
    return [state for state in found if state is not None]


def clean(instance: str | None = None, directory: str | os.PathLike[str] | None = None) -> list[str]:
    """Remove what dead pipelines left, of one instance or of all, and return the names. SegmentError if the system refuses."""
    place = backing.directory_of(directory)
    return [name for name in backing.names_in(place, instance) if _remove_if_dead(name, place)]


def _remove_if_dead(name: str, place: Path | None) -> bool:
    path = backing.path_of(name, place)
    try:
        fd = backing.open_existing(name, place, readonly=True)
    except SegmentError:
        return False  # gone, or not ours
    try:
        seen = os.fstat(fd)
        # Looked at under the lock that creation and claims take: what is dead now cannot come to life before the unlink.
        if not stat.S_ISREG(seen.st_mode) or not backing.try_lock(fd) or not backing.same_file(path, seen):
            return False
        state = _look(name, path, fd, locked=True).state
        return state in (State.DEAD, State.ABANDONED) and backing.remove(path)
    finally:
        os.close(fd)


def _look(name: str, path: Path, fd: int, *, locked: bool = False) -> SegmentState:
    """State of an open file. `locked`: the caller holds its lock."""
    seen = os.fstat(fd)
    if not stat.S_ISREG(seen.st_mode) or seen.st_uid != os.geteuid():
        return SegmentState(name, path, State.FOREIGN, seen.st_size, note=f"mode {seen.st_mode:o}, uid {seen.st_uid}")
    words = header.read(fd)
    if words is None and seen.st_size:
        return SegmentState(name, path, State.FOREIGN, seen.st_size, note="too short for a header")
    if words is None or int(words[W_MAGIC]) == 0:
        free = locked or _lockable(fd)
        words = header.read(fd)  # again: the creator may have finished between the two looks
        if words is None or int(words[W_MAGIC]) == 0:
            return SegmentState(name, path, State.ABANDONED if free else State.CREATING, seen.st_size, note="no magic")
    if int(words[W_MAGIC]) != MAGIC:
        return SegmentState(name, path, State.FOREIGN, seen.st_size, note="no segment's magic")
    lines = [(-1, header.read_owner(words, W_CREATOR))]
    lines += [(role, header.read_owner(words, owner_word(role))) for role in range(ROLES)]
    owners = tuple(Holder(role, owner, is_alive(owner.identity)) for role, owner in lines if owner.identity.pid)
    living, note = any(holder.alive for holder in owners), ""
    try:
        header.check(words, str(path), os.fstat(fd).st_size)
    except SegmentDamaged as error:
        # Owner lines in a damaged header prove nothing: ask the kernel whether anybody has it mapped.
        note = error.problem
        living = living or _is_open_elsewhere(fd)
    except SegmentError as error:
        note = error.problem  # another version's: the owner lines are where they always are
    state = State.LIVING if living else State.DEAD
    kind, segment_id, epoch = (int(words[at]) for at in (W_KIND, W_SEGMENT_ID, W_EPOCH))
    return SegmentState(name, path, state, seen.st_size, kind, segment_id, epoch, owners, note)


def _is_open_elsewhere(fd: int) -> bool:
    """Has any process the file of `fd` open or mapped, this one included? True also where the kernel does not tell.

    A write lease is granted only to the sole opener of a file, and a mapping counts as one. It is given back at once.
    """
    try:
        fcntl.fcntl(fd, _F_SETSIG, signal.SIGURG)  # whoever opens it right now must not kill us by SIGIO
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    except OSError:
        return True
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False


def _lockable(fd: int) -> bool:
    if not backing.try_lock(fd):
        return False
    backing.unlock(fd)
    return True


def _size(path: Path) -> int:
    try:
        return os.stat(path, follow_symlinks=False).st_size
    except OSError:
        return 0
