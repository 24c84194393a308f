"""`doctor`: what this machine gives and what it lacks for a pipeline, each with the remedy. It repairs nothing.

Each check is a function that returns a `Finding`; those that read files take their text, so that a test can be any machine.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import platform
import resource
import shutil
import sys
import textwrap
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from procs import rundir, topology
from procs.cli.drawing import versions
from procs.cli.outcome import OK, UNHEALTHY
from procs.cli.table import Paint, clean_text, paint_for, span
from procs.kernels.choice import chosen
from procs.memory.segments import ring_segment
from ringbuf.layout import payload_bytes

OK_, WARN, FAIL = "ok", "warn", "fail"
STYLES: Final = {OK_: "green", WARN: "yellow", FAIL: "red bold"}
CPU: Final = Path("/sys/devices/system/cpu")
AUTOGROUP: Final = Path("/proc/sys/kernel/sched_autogroup_enabled")
SYS_FUTEX: Final = 202
SYS_MEMBARRIER: Final = 324
FUTEX_WAIT: Final = 0
MEMBARRIER_QUERY: Final = 0
MEMBARRIER_GLOBAL_EXPEDITED: Final = 1 << 1


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: what was looked at, ok/warn/fail, what was found, and what to do if it is not ok."""

    name: str
    state: str
    found: str
    remedy: str = ""


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def parse_cores(text: str) -> set[int]:
    """A kernel's list of cores: "0-2,5" -> {0, 1, 2, 5}."""
    found: set[int] = set()
    for part in text.replace("\n", ",").split(","):
        low, _, high = part.strip().partition("-")
        if low.isdigit():
            found |= set(range(int(low), int(high if high.isdigit() else low) + 1))
    return found


def cores() -> Finding:
    """Cores that this process may use, against the number of processes, and the placement that fits."""
    here, wanted = len(os.sched_getaffinity(0)), len(topology.Run().essential) + 1
    if here >= wanted:
        return Finding("cores", OK_, f"{here} usable, one for each of {wanted} processes: pipeline.placement separate fits")
    fits = "pipeline.placement grouped fits, one process for the hot stages"
    if here >= 2:
        return Finding("cores", WARN, f"{here} usable for {wanted} processes: they share, and wait by sleeping; {fits}",
                       "fine for paper and replay; for the lowest latency give it one core a process")  # fmt: skip
    return Finding("cores", WARN, f"1 usable: stages take turns; {fits}", "give it at least 2 cores")


def isolation(isolated: str, tickless: str, cpuset: set[int], online: set[int]) -> Finding:
    """Cores that the scheduler keeps free (isolcpus), without ticks (nohz_full), and those of our cgroup."""
    alone, quiet = parse_cores(isolated) & cpuset, parse_cores(tickless) & cpuset
    limited = f"; this cgroup may use {len(cpuset)} of {len(online)} cores" if cpuset < online else ""
    if alone and alone <= quiet:
        return Finding("isolation", OK_, f"cores {sorted(alone)} are isolated and tickless{limited}")
    if alone:
        return Finding("isolation", WARN, f"cores {sorted(alone)} are isolated, but not tickless{limited}",
                       "add nohz_full= with the same cores to the kernel's command line")  # fmt: skip
    remedy = "add isolcpus= and nohz_full= to the kernel's command line, and name these cores in pipeline.cores"
    return Finding("isolation", WARN, f"no isolated core: other work may interrupt a stage{limited}", remedy)


def clock_source(current: str, cpuinfo: str) -> Finding:
    """The time stamps' clock: tsc is read without a system call."""
    if current == "tsc":
        steady = " (constant, never stops)" if "constant_tsc" in cpuinfo and "nonstop_tsc" in cpuinfo else ""
        return Finding("clock source", OK_, f"tsc{steady}")
    if current in ("kvm-clock", "hyperv_clocksource_tsc_page", "arch_sys_counter"):
        return Finding("clock source", OK_, f"{current}, read without a system call")
    return Finding("clock source", WARN, f"{current or 'unknown'}: each time stamp may cost a system call",
                   "boot with clocksource=tsc if the machine's tsc is stable")  # fmt: skip


def timer(calls: int = 20_000) -> Finding:
    """What one look at the clock costs from Python, and how late a short sleep ends."""
    started = time.perf_counter_ns()
    for _ in range(calls):
        time.monotonic_ns()
    cost = (time.perf_counter_ns() - started) / calls
    late = []
    for _ in range(50):
        started = time.perf_counter_ns()
        time.sleep(0.0002)
        late.append(time.perf_counter_ns() - started - 200_000)
    late.sort()
    found = f"{span(cost)} a look at the clock, a 200 us sleep ends {span(late[25])} late (worst of 50: {span(late[-1])})"
    if cost > 500:
        return Finding(
            "timer", WARN, found, "the clock is slow here (see clock source): latencies will look larger than they are"
        )
    if late[25] > 1_000_000:
        return Finding("timer", WARN, found, "the machine is busy or its timer coarse: stop other work before measuring")
    return Finding("timer", OK_, found)


def memlock(limit: int, wanted: int) -> Finding:
    """How much memory may be locked."""
    if limit == resource.RLIM_INFINITY or limit >= wanted:
        text = "unlimited" if limit == resource.RLIM_INFINITY else f"{limit >> 20} MB"
        return Finding("memlock", OK_, f"{text}; the rings take {wanted >> 20} MB")
    return Finding("memlock", WARN, f"{limit >> 20} MB, the rings take {wanted >> 20} MB: pipeline.lock_memory would be refused",
                   "raise LimitMEMLOCK= in the unit, or `ulimit -l`")  # fmt: skip


def huge_pages(total: str, free: str, size_kb: int, transparent: str) -> Finding:
    """Reserved huge pages."""
    if total.isdigit() and int(total) > 0:
        return Finding("huge pages", OK_, f"{free} of {total} free, {size_kb // 1024} MB each")
    mode = transparent.partition("[")[2].partition("]")[0] or "unknown"
    return Finding("huge pages", WARN, f"none reserved (transparent: {mode}): ordinary pages are used",
                   "if you set pipeline.huge_pages: `sysctl vm.nr_hugepages=64`")  # fmt: skip


def numa_nodes(nodes: int) -> Finding:
    """NUMA nodes."""
    if nodes <= 1:
        return Finding("numa", OK_, "one node: all memory is equally near")
    return Finding("numa", OK_, f"{nodes} nodes: a ring's pages are put on the node of its first reader")


def shared_memory(path: Path, wanted: int) -> Finding:
    """Room where segments live."""
    try:
        room = os.statvfs(path)
    except OSError as error:
        return Finding("/dev/shm", FAIL, f"{path}: {error.strerror}", "mount a tmpfs there")
    free = room.f_bavail * room.f_frsize
    found = f"{free >> 20:,} MB free, a pipeline takes {wanted >> 20} MB"
    if not os.access(path, os.W_OK | os.X_OK):
        return Finding("/dev/shm", FAIL, f"{path} cannot be written", "give this user write permission (mode 1777)")
    if free < wanted:
        return Finding("/dev/shm", FAIL, found, "`scalperctl clean`, or mount it larger: mount -o remount,size=1G /dev/shm")
    if free < 3 * wanted:
        return Finding("/dev/shm", WARN, found, "there is room for one pipeline, not for several")
    return Finding("/dev/shm", OK_, found)


def membarrier() -> Finding:
    """The system call that lets sleepers do without a fence in the writers."""
    if platform.machine() != "x86_64":
        return Finding("membarrier", WARN, f"not checked on {platform.machine()}", "")
    commands = ctypes.CDLL(None, use_errno=True).syscall(SYS_MEMBARRIER, MEMBARRIER_QUERY, 0, 0)
    if commands < 0:
        return Finding(
            "membarrier",
            FAIL,
            f"refused ({os.strerror(ctypes.get_errno())})",
            "allow membarrier in the container's seccomp profile",
        )
    if not commands & MEMBARRIER_GLOBAL_EXPEDITED:
        return Finding("membarrier", FAIL, "GLOBAL_EXPEDITED is missing", "use Linux 4.16 or newer, or set pipeline.wait: spin")
    return Finding("membarrier", OK_, "GLOBAL_EXPEDITED is there")


def futex() -> Finding:
    """The system call that puts idle stages to sleep."""
    if platform.machine() != "x86_64":
        return Finding("futex", WARN, f"not checked on {platform.machine()}", "")
    word = ctypes.c_int(1)
    libc = ctypes.CDLL(None, use_errno=True)
    answer = libc.syscall(SYS_FUTEX, ctypes.byref(word), FUTEX_WAIT, 0, None, None, 0)
    code = ctypes.get_errno()
    if answer == -1 and code == 11:  # EAGAIN: the word is not 0, exactly what was asked
        return Finding("futex", OK_, "works")
    return Finding("futex", FAIL, f"answered {answer} ({os.strerror(code)})", "allow futex in the container's seccomp profile")


def pidfd() -> Finding:
    """The system call by which the supervisor sees a death."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError as error:
        return Finding(
            "pidfd", FAIL, f"refused ({error.strerror})", "use Linux 5.3 or newer, or allow pidfd_open in the seccomp profile"
        )
    return Finding("pidfd", OK_, "works")


def kernel_version(release: str) -> Finding:
    """The kernel."""
    numbers = tuple(int(part) for part in release.split("-")[0].split(".")[:2] if part.isdigit())
    if numbers >= (5, 4):
        return Finding("kernel", OK_, f"Linux {release}")
    return Finding("kernel", FAIL, f"Linux {release}", "use Linux 5.4 or newer: pidfd and membarrier are needed")


def governor(names: set[str]) -> Finding:
    """How the cores choose their frequency."""
    if not names:
        return Finding("cpu governor", OK_, "the machine (or its hypervisor) does not let us choose")
    if names == {"performance"}:
        return Finding("cpu governor", OK_, "performance on all cores")
    return Finding("cpu governor", WARN, ", ".join(sorted(names)), "`cpupower frequency-set -g performance` for steady latencies")


def sharing(autogroup: str) -> Finding:
    """Whether sessions share the cores as groups; then another session's load counts as much as the whole pipeline."""
    if autogroup != "1":
        return Finding("sessions", OK_, "share the cores thread by thread")
    remedy = "run it as a systemd service, or `sysctl kernel.sched_autogroup_enabled=0`: then hot stages go before all else"
    return Finding("sessions", WARN, "each session is one group to the scheduler (autogroup)", remedy)


def software() -> Finding:
    """Versions of Python and of what the kernels are compiled with."""
    found = versions()
    missing = [name for name, text in found.items() if text == "missing"]
    text = ", ".join(f"{name} {found[name]}" for name in ("python", "numba", "llvmlite", "numpy"))
    if missing:
        return Finding("software", FAIL, f"missing: {', '.join(missing)}", "scripts/install")
    return Finding("software", OK_, text)


def kernel_cache() -> Finding:
    """Whose compiled kernels are used, and whether more can be kept."""
    try:
        found = chosen()
        folder = found.folder
    except OSError as error:
        return Finding("kernel cache", FAIL, str(error), "set XDG_CACHE_HOME to a folder that can be written")
    compiled = sum(1 for _ in folder.rglob("*.nbc"))
    target = found.level or "this CPU"
    whose = f"the program's own for {target}" if found.ours else f"compiled here for {target}"
    if not os.access(folder, os.W_OK | os.X_OK):
        return Finding("kernel cache", FAIL, f"{folder} cannot be written", "correct its permissions, or set XDG_CACHE_HOME")
    held = f"{compiled} kernels, {whose}" if compiled else "empty, the first start compiles (some minutes)"
    if found.why:
        return Finding("kernel cache", WARN, f"{folder}: {held}; {found.why}", "install the wheel again, or leave it so")
    return Finding("kernel cache", OK_, f"{folder}: {held}")


def journal_room(folder: Path) -> Finding:
    """Room on the disk that the journals go to."""
    try:
        room = os.statvfs(next(p for p in (folder, *folder.parents) if p.exists()))
    except (OSError, StopIteration):
        return Finding(
            "journal disk", FAIL, f"{folder} cannot be looked at", "set XDG_STATE_HOME to a folder that can be written"
        )
    free = room.f_bavail * room.f_frsize
    if free < 1 << 30:
        return Finding(
            "journal disk", WARN, f"{free >> 20} MB free at {folder}", "free some: a busy day of journals takes gigabytes"
        )
    return Finding("journal disk", OK_, f"{free >> 30:,} GB free at {folder}")


def left_behind() -> Finding:
    """Segments of dead pipelines."""
    from shm import cleanup

    dead = [s for s in cleanup.list_segments() if s.state in (cleanup.State.DEAD, cleanup.State.ABANDONED)]
    if dead:
        size = sum(s.nbytes for s in dead)
        return Finding("left behind", WARN, f"{len(dead)} segments of dead pipelines, {size >> 20} MB", "scalperctl clean")
    return Finding("left behind", OK_, "nothing")


def pipeline_bytes() -> int:
    """Shared memory of one pipeline: rings, board, and about as much again for checkpoints."""
    from procs.memory.board import BOARD_WORDS

    rings = sum(payload_bytes(entry.capacity, entry.record) + 4096 for entry in topology.RINGS)
    assert all(ring_segment(entry.name) for entry in topology.RINGS)
    return rings + BOARD_WORDS * 8 + (16 << 20)


def examine() -> list[Finding]:
    """All findings, in the order in which they are shown."""
    wanted = pipeline_bytes()
    online = parse_cores(_read(CPU / "online")) or set(range(os.cpu_count() or 1))
    governors = {_read(path) for path in CPU.glob("cpu[0-9]*/cpufreq/scaling_governor")} - {""}
    clock = _read("/sys/devices/system/clocksource/clocksource0/current_clocksource")
    nodes = len(list(Path("/sys/devices/system/node").glob("node[0-9]*")))
    pages = Path("/sys/kernel/mm/hugepages/hugepages-2048kB")
    checks: list[Callable[[], Finding]] = [
        lambda: kernel_version(platform.release()),
        software,
        kernel_cache,
        cores,
        lambda: isolation(_read(CPU / "isolated"), _read(CPU / "nohz_full"), os.sched_getaffinity(0), online),
        lambda: governor(governors),
        lambda: sharing(_read(AUTOGROUP)),
        lambda: clock_source(clock, _read("/proc/cpuinfo")),
        timer,
        futex,
        membarrier,
        pidfd,
        lambda: shared_memory(Path("/dev/shm"), wanted),
        lambda: memlock(resource.getrlimit(resource.RLIMIT_MEMLOCK)[0], wanted),
        lambda: huge_pages(_read(pages / "nr_hugepages"), _read(pages / "free_hugepages"), 2048,
                           _read("/sys/kernel/mm/transparent_hugepage/enabled")),
        lambda: numa_nodes(nodes),
        lambda: journal_room(rundir.state_base()),
        left_behind,
    ]  # fmt: skip
    return [check() for check in checks]


def lay_out(findings: list[Finding], width: int, paint: Paint) -> list[str]:
    """One line a finding, and under it the remedy where there is something to do."""
    name = max(len(finding.name) for finding in findings)
    lines = []
    for finding in findings:
        mark = paint(f"{finding.state:<4}", STYLES[finding.state])
        room = max(width - name - 8, 30)
        for n, part in enumerate(textwrap.wrap(clean_text(finding.found), room) or [""]):
            lines.append(f"{mark}  {finding.name:<{name}}  {part}" if n == 0 else f"{'':<{name + 8}}{part}")
        if finding.state != OK_:
            lines += [f"{'':<{name + 8}}{paint(part, 'cyan')}" for part in textwrap.wrap(finding.remedy, room)]
    bad = sum(finding.state == FAIL for finding in findings)
    warned = sum(finding.state == WARN for finding in findings)
    verdict = "a pipeline cannot run here yet" if bad else "a pipeline runs here"
    return [*lines, "", f"{verdict}: {len(findings) - bad - warned} ok, {warned} to know about, {bad} to repair"]


def doctor(args: argparse.Namespace) -> int:
    """The command."""
    findings = examine()
    if args.json:
        print(json.dumps({"findings": [asdict(f) for f in findings], "ok": all(f.state != FAIL for f in findings)}, indent=2))
    else:
        print("\n".join(lay_out(findings, max(shutil.get_terminal_size((160, 40)).columns, 60), paint_for(sys.stdout))))
    return OK if all(finding.state != FAIL for finding in findings) else UNHEALTHY
