"""Who is a process, is it alive, and who holds a role in a segment.

A pid alone says nothing: pids come round again. A process is its pid, its start time and the boot that it belongs to,
seen from one pid namespace. Death is *proven* (by the process's pidfd, by another start time under its pid, by another
boot); silence, a stale heartbeat or a permission error prove nothing, and whoever is not proven dead counts as alive.

A role (writer, reader 3, ...) has at most one owner. Taking it from a dead one is the first step of every recovery. Nobody
is killed and nothing repaired here; that is the caller's part.
"""

from __future__ import annotations

import os
import select
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shm.errors import REMEDY_CLEAN, RoleHeld, RoleNotHeld, SegmentDamaged
from shm.layout import (
    MAX_EPOCH,
    MAX_PID,
    O_BOOT_HI,
    O_BOOT_LO,
    O_EPOCH,
    O_PID,
    O_PID_NAMESPACE,
    O_SINCE_NS,
    O_START_TICKS,
    W_EPOCH,
    owner_word,
)
from shm.order import store_release

if TYPE_CHECKING:
    from shm.header import Header


@dataclass(frozen=True, slots=True)
class Identity:
    """One process of one boot. `pid` 0 is nobody; `start_ticks` are clock ticks since boot."""

    pid: int
    start_ticks: int
    boot_hi: int
    boot_lo: int
    pid_namespace: int = 0

    def __str__(self) -> str:
        return f"pid {self.pid}" if self.pid else "nobody"


NOBODY = Identity(0, 0, 0, 0)


def start_ticks(pid: int) -> int:
    """Start time of a process in clock ticks since boot. OSError if /proc does not show the process."""
    with open(f"/proc/{pid}/stat", "rb") as stat:
        text = stat.read()
    # The command may hold spaces and brackets of its own: fields are counted from the last ')'.
    return int(text[text.rindex(b")") + 2 :].split()[19])


def boot_id() -> tuple[int, int]:
    """The running boot's id as two int64 (upper, lower)."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as text:
        raw = uuid.UUID(text.read().strip()).bytes
    return int.from_bytes(raw[:8], "big", signed=True), int.from_bytes(raw[8:], "big", signed=True)


_cached: Identity = NOBODY


def current_identity() -> Identity:
    """Identity of the calling process; read once per process (a forked child gets its own)."""
    global _cached
    pid = os.getpid()
    if _cached.pid != pid:
        _cached = Identity(pid, start_ticks(pid), *boot_id(), pid_namespace=os.stat("/proc/self/ns/pid").st_ino)
    return _cached


def is_alive(identity: Identity) -> bool:
    """False only if the process is proven dead (a zombie is: it will never touch memory again).

    True also for a process of another pid namespace of this boot, which cannot be judged from here. Any words are
    accepted: a pid that Linux cannot give, or a start time before the boot, belongs to nobody.
    """
    if not 0 < identity.pid <= MAX_PID or identity.start_ticks < 0:
        return False
    me = current_identity()
    if (identity.boot_hi, identity.boot_lo) != (me.boot_hi, me.boot_lo):
        return False
    if identity.pid_namespace not in (0, me.pid_namespace):
        return True
    try:
        pidfd = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        return False
    except OSError:
        # No descriptors left, or a pid that is now a thread of somebody else: the start time still decides.
        return _started_at(identity.pid) in (None, identity.start_ticks)
    try:
        # With the pidfd held the pid cannot come round again unseen: first the start time, then "has it exited?".
        started = _started_at(identity.pid)
        exited = select.poll()
        exited.register(pidfd, select.POLLIN)
        if exited.poll(0):
            return False
        return started in (None, identity.start_ticks)
    finally:
        os.close(pidfd)


def _started_at(pid: int) -> int | None:
    """Start ticks, -1 if the pid is free, None if /proc does not tell (hidepid)."""
    try:
        return start_ticks(pid)
    except (FileNotFoundError, ProcessLookupError):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return -1
        except OSError:
            return None
        return None
    except (OSError, ValueError, IndexError):
        return None


def claim(header: Header, role: int) -> int:
    """Make the calling process the owner of a role (0..7) and return the segment's new epoch, which is then its own.

    Two processes that claim at once are put in order by a lock on the segment's file, which the kernel releases
    should its holder die. Errors: RoleHeld if the present owner is not proven dead (the caller itself included: a role
    has one holder, release it first), SegmentReadOnly, SegmentBusy, SegmentMissing if the segment was unlinked,
    SegmentDamaged if the epoch is used up, ValueError for a role that does not exist.
    """
    at = owner_word(role)
    me = current_identity()
    with header.locked():
        words = header.words
        holder = header.owner(role).identity
        if is_alive(holder):
            who = "this process" if holder == me else str(holder)
            raise RoleHeld(
                header.place, f"role {role} is held by {who}, which is alive", "stop that process first, then claim again"
            )
        epoch = int(words[W_EPOCH]) + 1
        if not 0 < epoch < MAX_EPOCH:
            raise SegmentDamaged(header.place, f"epoch {epoch - 1} is out of bounds", REMEDY_CLEAN)
        store_release(words, at + O_PID, 0)  # from here to the last line the role is nobody's
        words[at + O_START_TICKS] = me.start_ticks
        words[at + O_BOOT_HI] = me.boot_hi
        words[at + O_BOOT_LO] = me.boot_lo
        words[at + O_PID_NAMESPACE] = me.pid_namespace
        words[at + O_SINCE_NS] = time.time_ns()
        # Epoch before owner line: a claim that dies in between has only skipped a number.
        store_release(words, W_EPOCH, epoch)
        words[at + O_EPOCH] = epoch
        store_release(words, at + O_PID, me.pid)
        return epoch


def release(header: Header, role: int) -> None:
    """Give up a role. RoleNotHeld unless the calling process owns it; the epoch stays."""
    at = owner_word(role)
    with header.locked():
        holder = header.owner(role).identity
        if holder != current_identity():
            raise RoleNotHeld(header.place, f"role {role} is held by {holder}", "only its owner may release it")
        store_release(header.words, at + O_PID, 0)
