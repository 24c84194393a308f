"""Two processes, each on a core of its own, that do something with each other: the stage on which rings are measured.

Both are forked children, so that the caller keeps its cores and its priority. They meet before the work begins, get
real-time priority where the system allows it (bursts of milliseconds, so that other programs on the two cores do not get
into the figures), and are killed by their own alarm should one of them hang.

`bare_futex` is what a wake costs at the least: nothing but a futex between the two.
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
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ringbuf.intrinsics import fetch_add, futex_wait, futex_wake, load_acquire, mono_ns, pause, store_release
from ringbuf.jit import lean

Words = npt.NDArray[np.int64]
Work = Callable[[], Any]

HANG_S: Final = 30
RT_PRIORITY: Final = 2
ASLEEP_NS: Final = 40_000
"""How long a writer lets the reader fall asleep before it wakes it."""
BEATS: Final = 2000
"""Of a bare futex: so many that its p99 says something, in a second or so."""
GO, ARMING, STAMP, BELL = 0, 16, 24, 32
"""Words of the two processes that it is between, each on a line of its own."""
BARE_WORDS: Final = 64


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


# ---- nothing but a futex ----------------------------------------------------------------------------------------------


@lean
def bare_write(sync: Words, count: int, nap_ns: int) -> int:
    """Wake a sleeper `count` times with nothing but a futex: stamp, count, wake.

    Between two wakes it sleeps itself for `nap_ns`, as a stage between two records does; 0: it spins until the other sleeps.
    """
    for n in range(count):
        while load_acquire(sync, ARMING) != n + 1:
            pause()
        if nap_ns > 0:
            futex_wait(sync, GO, 0, nap_ns)
        else:
            start = mono_ns()
            while mono_ns() - start < ASLEEP_NS:
                pause()
        sync[STAMP] = mono_ns()
        fetch_add(sync, BELL, 1)
        futex_wake(sync, BELL, 1)
    return 0


@lean
def bare_sleep(sync: Words, count: int, late: Words) -> int:
    """The other side: sleep until the bell has changed, `count` times; ns from the stamp to being awake into `late`."""
    for n in range(count):
        store_release(sync, ARMING, n + 1)
        while load_acquire(sync, BELL) == n:
            futex_wait(sync, BELL, n, 1_000_000_000)
        late[n] = mono_ns() - sync[STAMP]
    return 0


def bare_futex(rate: float, beats: int = BEATS) -> dict[str, Any]:
    """Two processes sleep, one wakes the other `rate` times a second, `beats` times, in 2 s at most where that is the default."""
    try:
        cores = two_cores()
    except BenchError as problem:
        return {"missing": str(problem)}
    gap_ns = int(1e9 / max(rate, 1.0))
    if beats == BEATS:
        beats = max(min(beats, int(2e9 / gap_ns)), 100)
    words, late = shared_words(BARE_WORDS), shared_words(beats)
    bare_write(words, 0, gap_ns)
    bare_sleep(words, 0, late)
    limit_s, wake = HANG_S + 2 * beats * gap_ns // 10**9, partial(bare_write, words, beats, gap_ns)
    run_pair(wake, partial(bare_sleep, words, beats, late), cores, urgent=False, limit_s=limit_s)
    seen = np.sort(late[:beats])
    return {
        "count": beats, "rate": round(1e9 / gap_ns, 1),
        "p50_ns": int(seen[beats // 2]), "p99_ns": int(seen[min(beats * 99 // 100, beats - 1)]), "max_ns": int(seen[-1]),
        "over_1_ms": int((seen > 1_000_000).sum()),
    }  # fmt: skip
