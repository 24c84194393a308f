"""Two processes, each on a core of its own, that do something with each other: the stage on which rings are measured.

Both are forked children, so that the caller keeps its cores and its priority. They meet before the work begins, get
real-time priority where the system allows it (bursts of milliseconds, so that other programs on the two cores do not get
into the figures), and are killed by their own alarm should one of them hang.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.int64]
Work = Callable[[], Any]

HANG_S: Final = 30
RT_PRIORITY: Final = 2


class BenchError(RuntimeError):
    """The benchmark cannot run here, or its check failed; the message says why and what to do."""


def two_cores() -> tuple[int, int]:
    """The cores to measure on: the last two that this process may use. BenchError where there is only one."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise BenchError("this process may use one core only: a ring between two needs two (see taskset, cpuset)")
    return cores[-2], cores[-1]


def shared_words(count: int) -> Words:
    """Zeroed int64 words, page aligned, that forked children share."""
    words = np.frombuffer(mmap.mmap(-1, -(-count * 8 // 4096) * 4096), np.int64)
    words[:] = 0  # fault the pages in
    return words


def real_time() -> bool:
    """Ask for real-time priority for the calling process; whether it was given."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(RT_PRIORITY))
    except OSError:
        return False
    return True


def may_real_time() -> bool:
    """Whether children will get real-time priority."""
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    given = real_time()
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, *before)
    return given


def run_pair(first: Work, second: Work, cores: tuple[int, int], *, urgent: bool = True, limit_s: int = HANG_S) -> tuple[Any, Any]:
    """Run both at once, each in a forked child on its core; their results (anything that JSON can carry).

    Each is called when both are in place. BenchError when one fails or hangs.
    """
    ready, go = os.pipe(), os.pipe()
    children = [_fork(work, core, ready, go, urgent, limit_s) for work, core in zip((first, second), cores, strict=True)]
    try:
        for _ in children:
            os.read(ready[0], 1)
        os.write(go[1], b"gg")
        return _collect(children[0]), _collect(children[1])
    finally:
        for fd in (*ready, *go):
            os.close(fd)
        for pid, answer in children:
            os.close(answer)
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(pid, os.WNOHANG)[0] == 0:
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)


def _fork(work: Work, core: int, ready: tuple[int, int], go: tuple[int, int], urgent: bool, limit_s: int) -> tuple[int, int]:
    answer, reply = os.pipe()
    pid = os.fork()
    if pid:
        os.close(reply)
        return pid, answer
    status = 1
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(limit_s)
        os.sched_setaffinity(0, {core})
        os.write(ready[1], b"r")
        os.read(go[0], 1)
        if urgent:
            real_time()
        found = work()
        if urgent:
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        os.write(reply, json.dumps(found).encode())
        status = 0
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(status)


def _collect(child: tuple[int, int]) -> Any:
    pid, answer = child
    text = b""
    while piece := os.read(answer, 65536):
        text += piece
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status or not text:
        why = "hung" if status == -signal.SIGALRM else f"ended with status {status}"
        raise BenchError(f"one of the two measured processes {why}; run it again on a quieter machine")
    return json.loads(text)
