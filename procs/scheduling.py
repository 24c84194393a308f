"""What a thread asks of the kernel's scheduler: hot stages to run as soon as they wake, helpers to stand back.

Since 6.12 Linux' fair class (EEVDF) takes a slice from each thread, and one that wakes goes before a running one of a longer
slice. The hot stages compute for microseconds, so they ask for the shortest: without that they wait for the end of
another's slice of milliseconds. Older kernels and other systems ignore or refuse the wish; nothing depends on it.

Real-time classes are not used: they could lock a machine up. Where memory lies is shm.numa's.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from typing import Final

PR_SET_TIMERSLACK: Final = 29
SLICE_NS: Final = 100_000
"""The shortest that the kernel takes."""
NICENESS: Final = 10
SLACK_NS: Final = 1_000_000
_SCHED_SETATTR: Final = {"x86_64": 314, "aarch64": 274}
_ATTR: Final = struct.Struct("IIQiIQQQ")  # struct sched_attr: size, policy, flags, nice, priority, runtime, deadline, period

_libc: Final = ctypes.CDLL(None)


def go_first() -> None:
    """The calling thread: timed waits end on time instead of 50 us late, and it runs as soon as it wakes."""
    _libc.prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)
    number = _SCHED_SETATTR.get(os.uname().machine)
    if number is not None and os.sched_getscheduler(0) == os.SCHED_OTHER:
        nice = os.getpriority(os.PRIO_PROCESS, 0)
        attr = _ATTR.pack(_ATTR.size, os.SCHED_OTHER, 0, nice, 0, SLICE_NS, 0, 0)
        _libc.syscall(ctypes.c_long(number), 0, ctypes.c_char_p(attr), 0)


def prepare_thread(core: int | None) -> None:
    """Pin the calling thread and let it go first."""
    if core is not None:
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, {core})
    go_first()


def step_back() -> None:
    """The calling process: whatever else wants the core goes first, at once; timers come together."""
    with contextlib.suppress(OSError):
        os.nice(NICENESS)
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    _libc.prctl(PR_SET_TIMERSLACK, SLACK_NS, 0, 0, 0)
