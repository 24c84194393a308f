"""Limits of this process (ulimit, systemd's Limit...=) that would end a pipeline in the middle, said before anything is started.

A soft limit is raised as far as the hard one lets it. What a machine gives besides (cores, /dev/shm) is `scalperctl doctor`'s.
"""

from __future__ import annotations

import os
import resource
from typing import Final

from procs import topology
from procs.cli.outcome import FAILED, CliError
from procs.memory.arena import arena_bytes
from procs.profiles.schema import Profile
from ringbuf import layout

SPARE_FILES: Final = 64
"""For what libraries open, operators on the control socket, and lines that are replaced before the old one is closed."""
MB: Final = 1 << 20
ADDRESSES: Final = 2048 * MB
"""Of address space that one process may take: LLVM while it compiles, the segments, the libraries."""


def files_needed(profile: Profile) -> int:
    """Descriptors that the process with the most of them may have open: a segment each, a journal each, sockets, log."""
    segments = 3 + len(topology.RINGS) + len(topology.STAGES)  # board, arena, models; rings; checkpoints
    per_symbol = 4 if profile.source.kind == "live" else 0  # raw file, connections, REST
    return segments + len(topology.RINGS) + per_symbol * len(profile.symbols) + SPARE_FILES


def largest_file(profile: Profile) -> int:
    """Bytes of the largest segment, which counts as a file."""
    rings = (layout.payload_bytes(entry.capacity, entry.record) for entry in topology.RINGS)
    return max(*rings, arena_bytes(profile)) + MB


def tasks_needed() -> int:
    """Processes and threads: three for each stage (what remains of it too), and supervisor, zygote, standbys and the command."""
    return 3 * len(topology.STAGES) + 6


def tasks_of(uid: int) -> int:
    """Processes and threads that this user has now, as RLIMIT_NPROC counts them."""
    count = 0
    for entry in os.scandir("/proc"):
        try:
            if entry.name.isdigit() and entry.stat().st_uid == uid:
                count += len(os.listdir(f"/proc/{entry.name}/task"))
        except OSError:  # it has ended
            continue
    return count


def _raised(which: int, wanted: int) -> int:
    """The limit after raising it towards `wanted`; `wanted` where it is no less."""
    soft, hard = resource.getrlimit(which)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    room = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
    resource.setrlimit(which, (room, hard))
    return room


def too_low(profile: Profile) -> str:
    """The first limit that is too low, as a sentence with the number that is needed; "" if none is."""
    for which, name, option, setting, unit, needed in (
        (resource.RLIMIT_NOFILE, "open files", "ulimit -n", "LimitNOFILE", 1, files_needed(profile)),
        (resource.RLIMIT_AS, "address space", "ulimit -v", "LimitAS", 1024, ADDRESSES),
        (resource.RLIMIT_FSIZE, "the size of a file", "ulimit -f", "LimitFSIZE", 1024, largest_file(profile)),
    ):
        has = _raised(which, needed)
        if has < needed:
            return (
                f"the limit of {name} is {has // unit}, {profile.instance} needs {-(-needed // unit)}: "
                f"raise it (`{option} {-(-needed // unit)}`, or {setting}= in a systemd unit)"
            )
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    if os.geteuid() != 0 and soft != resource.RLIM_INFINITY:  # root is not held to it
        has = tasks_of(os.getuid())
        if has + tasks_needed() > soft:
            return (
                f"the limit of processes and threads is {soft}, of which {has} are there; {profile.instance} needs "
                f"{tasks_needed()} more: raise it (`ulimit -u {has + tasks_needed()}`, or LimitNPROC= in a systemd unit)"
            )
    return ""


def refuse_low_limits(profile: Profile) -> None:
    """CliError FAILED, with the number that is needed, where a limit would end the pipeline."""
    problem = too_low(profile)
    if problem:
        raise CliError(problem, FAILED)
