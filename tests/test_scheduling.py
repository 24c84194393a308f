"""What is asked of the scheduler is what the kernel then says of the thread."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from procs.scheduling import SLICE_NS, go_first

ROOT = Path(__file__).resolve().parents[1]
SCHED_GETATTR = {"x86_64": 315, "aarch64": 275}
RELEASE = tuple(int(part) for part in platform.release().split("-")[0].split(".")[:2])


def attributes() -> tuple[int, int, int]:
    """(policy, niceness, slice in ns) of the calling thread."""
    room = ctypes.create_string_buffer(48)
    number = ctypes.c_long(SCHED_GETATTR[platform.machine()])
    assert ctypes.CDLL(None).syscall(number, 0, room, 48, 0) == 0
    _, policy, _, nice, _, runtime, _, _ = struct.unpack("IIQiIQQQ", room.raw)
    return policy, nice, runtime


@pytest.mark.skipif(RELEASE < (6, 12), reason="slices are asked for since Linux 6.12")
@pytest.mark.skipif(platform.machine() not in SCHED_GETATTR, reason="no number of sched_getattr for this machine")
def test_a_hot_thread_has_the_shortest_slice_and_nothing_else_changes() -> None:
    """The thread that asks gets it, at the niceness that it had; its neighbours keep theirs."""
    before, found = attributes(), []

    def hot() -> None:
        go_first()
        found.append(attributes())

    thread = threading.Thread(target=hot)
    thread.start()
    thread.join()
    assert found == [(before[0], before[1], SLICE_NS)] and attributes() == before


def test_who_steps_back_gives_way_to_all_others() -> None:
    """A process of its own, for there is no way back: idle class, nicer than before."""
    program = "import os; from procs.scheduling import step_back as s; s(); print(os.sched_getscheduler(0), os.nice(0))"
    said = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    policy, nice = said.split()
    assert int(policy) == os.SCHED_IDLE and int(nice) > os.nice(0)
