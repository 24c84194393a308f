"""What tests of segments share: a segment with unimportant numbers, a child that may die, open descriptors."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable

from shm.segment import Segment

INSTANCE = f"segments{os.getpid()}"
NAME = f"/scalper.{INSTANCE}.ring"
Maker = Callable[..., Segment]


def make(name: str = NAME, payload_bytes: int = 8192, **more: object) -> Segment:
    """A segment with unimportant numbers."""
    return Segment.create(name, payload_bytes, **{"layout_hash": 77, "kind": 1, "segment_id": 5, **more})  # type: ignore[arg-type]


def open_fds() -> int:
    """Descriptors of this process: compare with <=, for what an earlier test left to a thread may close meanwhile."""
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def run_child(work: Callable[[], object]) -> int:
    """Run `work` in a forked child; its exit status: 0 done, 1 raised, -n killed by signal n."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
