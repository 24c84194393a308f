"""What the kernel says of a process: memory in proportion to sharing (PSS), time on a CPU, cores it may use.

A process that ended, or that is not ours to look into, gives None: looking must not fail because something died.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

_TICK_NS: Final = 10**9 // os.sysconf("SC_CLK_TCK")


def pss_kb(pid: int) -> int | None:
    """Proportional set size in KiB: shared pages count in equal parts for all who have them."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    except (OSError, ValueError, IndexError):
        pass
    return None


def cpu_ns(pid: int) -> int | None:
    """Nanoseconds that the process has been on a CPU: by the scheduler's own count, else by its ticks."""
    total, exact = 0, True
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            try:
                total += int(Path(f"/proc/{pid}/task/{task}/schedstat").read_text().split()[0])
            except (OSError, ValueError, IndexError):
                exact = False
                break
        if exact:
            return total
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * _TICK_NS
    except (OSError, ValueError, IndexError):
        return None


def cpu_percent(pids: Iterable[int], seconds: float) -> dict[int, float | None]:
    """Share of one core, in percent, that each process used while this call waited `seconds`; 0 seconds: None each."""
    wanted = list(pids)
    if seconds <= 0:
        return dict.fromkeys(wanted)
    started = time.monotonic_ns()
    before = {pid: cpu_ns(pid) for pid in wanted}
    time.sleep(seconds)
    after = {pid: cpu_ns(pid) for pid in wanted}
    return shares(before, after, time.monotonic_ns() - started)


def shares(before: dict[int, int | None], after: dict[int, int | None], elapsed_ns: int) -> dict[int, float | None]:
    """Percent of one core between two readings of `cpu_ns`; None where either is missing."""
    found: dict[int, float | None] = {}
    for pid, first in before.items():
        last = after.get(pid)
        known = first is not None and last is not None and elapsed_ns > 0
        found[pid] = round(100.0 * max((last or 0) - (first or 0), 0) / elapsed_ns, 2) if known else None
    return found


def total(values: Iterable[float | int | None]) -> float:
    """Sum of what is known."""
    return sum(value for value in values if value is not None)
