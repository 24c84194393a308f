"""The zygote: a small single-threaded process that has every kernel loaded and forks stages in milliseconds.

The supervisor execs it (`python -m procs.supervision.zygote FD PARENT_PID`) with one end of a SOCK_SEQPACKET pair and says, one
JSON packet each:

    supervisor -> zygote   Begin(profile, stages, runner, runtime)      once, first
                           Spawn(stage, incarnation, requested_ns)      any time after Ready
    zygote -> supervisor   Waiting()                                    another process compiles, its lock is awaited
                           Warmed(stage, seconds, compiled)             one stage's kernels are loaded
                           Compiled(seconds, compiled)              after compiling it starts over, see below
                           Ready(seconds)
                           Spawned(stage, incarnation, pid)
                           Failed(what, error)                          import or compile error: the zygote ends

A stage module (`procs.stages.feed`) may have `warm(profile)`, which loads or compiles every kernel that the stage calls. The
runner is `module:function`, called in the child as `run_stage(name, runtime) -> exit code`; its module may have
`prepare(runtime)`, called here once before the first fork, and `stand_by()`, called in a child before it knows its stage.

    zygote ---fork---> middle ---fork---> child            The child's parent is the middle, which exits at once; so the
       |                  x exit             |             child falls to the nearest subreaper, the supervisor. Only
       |---- reaps the middle                |             then does the zygote let it go on (it closes the pipe), so
       |---- closes the go pipe -----------> | waits       that PR_SET_PDEATHSIG is set on the right parent.
       |---- hands on the Spawn packet ----> | run_stage

The two forks copy the page tables of all that is loaded, most of a restart's time. So one child is forked ahead, while nobody
waits, and becomes whatever stage is asked for next; where none is there (yet, or any more), it is forked then.

Compiling leaves some 170 MB of LLVM's memory behind, which every fork would carry and copy page tables for. So a zygote that
had to compile executes itself again, as the same process, and then loads from the cache what it compiled.

The zygote's death leaves stages alive; the supervisor's death kills the zygote and all stages.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import mmap
import os
import re
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec

from procs.kernels.choice import CACHE_DIR
from procs.logs import stage_log, take_over_logging
from procs.supervision import compiling, loading

MAX_PACKET: Final = 131_072
LOG_ROTATE_BYTES: Final = 4_194_304
LARGE_MAPPING: Final = 1_048_576
QUIET_S: Final = 0.02
"""So long nobody has asked for a stage before the next child is forked ahead: the fork would be in the way of the last one."""
PR_SET_PDEATHSIG: Final = 1
PR_SET_NAME: Final = 15
PR_SET_CHILD_SUBREAPER: Final = 36

SINGLE_THREADED: Final = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "1",
}
"""Environment of the zygote: a fork of a process with threads may deadlock in the child."""


class Begin(msgspec.Struct, frozen=True, tag="begin"):
    """What to load. `profile` is procs.profiles.config.profile_json's text, `stages` maps names to modules in start order."""

    profile: msgspec.Raw
    stages: dict[str, str]
    runner: str
    runtime: dict[str, Any]
    numba: dict[str, str]  # procs.kernels.choice.Choice.variables
    log_dir: str

    @property
    def cache_dir(self) -> str:
        """The folder of the compiled kernels."""
        return self.numba[CACHE_DIR]


class Spawn(msgspec.Struct, frozen=True, tag="spawn"):
    """Fork one stage."""

    stage: str
    incarnation: int
    requested_ns: int  # CLOCK_MONOTONIC


class Waiting(msgspec.Struct, frozen=True, tag="waiting"):
    """Another process holds the compile lock."""


class Warmed(msgspec.Struct, frozen=True, tag="warmed"):
    """One stage's kernels are loaded; `compiled` is how many had to be compiled (0: warm start)."""

    stage: str
    seconds: float
    compiled: int


class Compiled(msgspec.Struct, frozen=True, tag="compiled"):
    """Kernels had to be compiled; the zygote starts over and loads them: Warmed comes again for each stage."""

    seconds: float
    compiled: int


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """Spawn requests are taken from here on."""

    seconds: float


class Spawned(msgspec.Struct, frozen=True, tag="spawned"):
    """The child is the supervisor's and runs."""

    stage: str
    incarnation: int
    pid: int


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The zygote cannot serve and ends."""

    what: str
    error: str


ToZygote = Begin | Spawn
FromZygote = Waiting | Warmed | Compiled | Ready | Spawned | Failed

Runner = Callable[[str, Mapping[str, Any]], int]

_spawns: Final = msgspec.json.Decoder(Spawn)

_libc: Final = ctypes.CDLL(None, use_errno=True)


def prctl(option: int, value: int | bytes) -> None:
    """prctl(2) with one argument; OSError if the kernel refuses."""
    argument = ctypes.c_char_p(value) if isinstance(value, bytes) else ctypes.c_ulong(value)
    if _libc.prctl(option, argument, ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"prctl({option}): {os.strerror(code)}")


def die_with(parent: int) -> None:
    """SIGKILL for this process when its parent dies; ends it at once if the parent is not `parent` any more."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)


def _kernels_cached(folder: str) -> set[tuple[Path, int]]:
    """Each kernel's file and when it was written: numba writes over one whose source has a new date."""
    return {(file, file.stat().st_mtime_ns) for file in Path(folder).rglob("*.nbc")}


def _load(begin: Begin, profile: Any, tell: Callable[[FromZygote], None]) -> tuple[Runner, int]:
    """Imports the stages and the runner and warms their kernels under the compile lock; also how many were compiled."""
    with compiling.locked(begin.cache_dir, lambda: tell(Waiting())):
        was_cold = not compiling.is_complete(begin.cache_dir)
        if was_cold:
            compiling.compile_all(begin.stages, profile, begin.cache_dir, lambda stage, s: tell(Warmed(stage, s, 1)))
        first = before = _kernels_cached(begin.cache_dir)
        lean = False
        for stage, module_name in begin.stages.items():
            began = time.perf_counter()
            module = importlib.import_module(module_name)
            if not lean and "numba" in sys.modules:
                lean = loading.load_lean() or True
            warm = getattr(module, "warm", None)
            if warm is not None:
                warm(profile)
            after = _kernels_cached(begin.cache_dir)
            if not was_cold:
                tell(Warmed(stage, time.perf_counter() - began, len(after - before)))
            before = after
        module_name, _, function = begin.runner.partition(":")
        runner: Runner = getattr(importlib.import_module(module_name), function)
        compiling.mark_complete(begin.cache_dir)
    return runner, len(before - first)


def _let_go_of_files() -> None:
    """Unmap the pages of large libraries (LLVM's, above all) that are as they are on disk; a later use reads them again.

    Loading kernels has touched most of LLVM's 100 MB, running them touches none of it. Only mappings without a single
    page of our own (Anonymous: 0) are told so: of those nothing can be lost.
    """
    large = re.compile(r"([0-9a-f]+)-([0-9a-f]+) r-[x-]p .* (/\S+)$")
    with contextlib.suppress(OSError, AttributeError), open("/proc/self/smaps", encoding="utf-8") as smaps:
        place: tuple[int, int] | None = None
        for line in smaps:
            found = large.match(line.rstrip())
            if found:
                place = int(found[1], 16), int(found[2], 16)
            elif place and line.startswith("Anonymous:"):
                start, end = place
                if int(line.split()[1]) == 0 and end - start >= LARGE_MAPPING:
                    _libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), mmap.MADV_DONTNEED)
                place = None


def _settle() -> None:
    """Makes this process fit to be forked: one thread, and nothing that a child's collector would touch, thus copy."""
    threads = len(os.listdir("/proc/self/task"))
    if threads != 1:
        raise RuntimeError(f"importing the stages started {threads - 1} threads; a fork may deadlock: remove that import")
    if "numba" in sys.modules:
        loading.forget_bitcode()
    gc.collect()
    gc.freeze()
    with contextlib.suppress(AttributeError):
        _libc.malloc_trim(0)
    _let_go_of_files()


def _start_over(channel: socket.socket, supervisor: int, raw: bytes) -> None:
    """Executes this program again as the same process, with Begin in a file; returns only by an exception."""
    memory = os.memfd_create("begin", 0)
    os.write(memory, raw)
    os.lseek(memory, 0, os.SEEK_SET)
    os.set_inheritable(channel.fileno(), True)
    arguments = [str(channel.fileno()), str(supervisor), str(memory)]
    os.execv(sys.executable, [sys.executable, "-P", "-m", "procs.supervision.zygote", *arguments])


def _open_log(folder: str, stage: str) -> int:
    """The stage's log, for appending; one that has grown large is put aside as <stage>.log.1."""
    path = Path(folder) / f"{stage}.log"
    with contextlib.suppress(OSError):
        if path.lstat().st_size > LOG_ROTATE_BYTES:
            path.replace(f"{path}.1")
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _stand_by(runner: Runner, supervisor: int, orders: int) -> bytes:
    """In the child, already the supervisor's: all that is the same for every stage; then its packet, b"" if there is none."""
    die_with(supervisor)
    prctl(PR_SET_NAME, b"scalper:standby")
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        if signal.getsignal(number) not in (signal.SIG_DFL, None):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    os.umask(0o077)
    stand_by = getattr(sys.modules[runner.__module__], "stand_by", None)
    if stand_by is not None:
        stand_by()
    raw = os.read(orders, MAX_PACKET)
    os.close(orders)
    return raw


def _become_stage(begin: Begin, profile: Any, runner: Runner, supervisor: int, orders: int) -> int:
    """In the child: wait for the word of which stage it is; then the stage, whose exit code is returned."""
    raw = _stand_by(runner, supervisor, orders)
    if not raw:  # the zygote is gone, and with it whoever could ask
        return 0
    spawn = _spawns.decode(raw)
    prctl(PR_SET_NAME, f"scalper:{spawn.stage}".encode()[:15])
    log = _open_log(begin.log_dir, spawn.stage)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    take_over_logging(stage_log(spawn.stage))
    runtime = {
        **begin.runtime,
        "stage": spawn.stage,
        "incarnation": spawn.incarnation,
        "requested_mono_ns": spawn.requested_ns,
        "supervisor_pid": supervisor,
        "profile": profile,
    }
    return _exit_code_of(spawn.stage, partial(runner, spawn.stage, runtime))


def _exit_code_of(name: str, run: Callable[[], int]) -> int:
    """Runs it; an exception goes to the log and becomes 1. Nothing gets out: the caller's frames are the zygote's."""
    try:
        return run()
    except SystemExit as e:
        return e.code if isinstance(e.code, int) else 1
    except BaseException:
        stage_log(name).error("died", exc_info=True)
        return 1


def fork_child(become: Callable[[], int], supervisor: int, close: tuple[int, ...]) -> int:
    """Double-forks and returns the child's pid once it is the supervisor's; `become` gives the child's exit code.

    `close`: descriptors that the child must not have.
    """
    go_read, go_write = os.pipe()
    pid_read, pid_write = os.pipe()
    middle = os.fork()
    if middle == 0:
        try:
            child = os.fork()
            if child != 0:
                os.write(pid_write, child.to_bytes(4, "little"))
                os._exit(0)
            for fd in (go_write, pid_read, pid_write, *close):
                os.close(fd)
            os.read(go_read, 1)  # end of file: the middle is reaped, or the zygote is dead
            os.close(go_read)
            if os.getppid() != supervisor:
                os._exit(1)
            code = _exit_code_of("standby", become)
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code & 0xFF)
        finally:
            os._exit(1)
    os.close(go_read)
    os.close(pid_write)
    raw = os.read(pid_read, 4)
    os.waitpid(middle, 0)
    os.close(go_write)
    os.close(pid_read)
    if len(raw) != 4:
        raise OSError("the fork failed: out of processes or memory?")
    return int.from_bytes(raw, "little")


class Standby:
    """One child ahead of need. `fork(orders, close)` makes a child that reads its packet from `orders`, and gives its pid."""

    def __init__(self, fork: Callable[[int, tuple[int, ...]], int]) -> None:
        self._fork = fork
        self._pid = 0
        self._orders = -1

    def ready(self) -> bool:
        """Whether one waits (or has died since)."""
        return self._pid != 0

    def breed(self) -> None:
        """Fork one. Raises OSError."""
        assert not self._pid, "one is enough"
        theirs, ours = os.pipe2(os.O_CLOEXEC)
        try:
            self._pid = self._fork(theirs, (ours,))
        except BaseException:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        self._orders = ours

    def employ(self, raw: bytes) -> int:
        """Give the packet to the one that waits; if there is none or it is dead, to a new one. Its pid. Raises OSError."""
        while True:
            if not self._pid:
                self.breed()
            pid, orders = self._pid, self._orders
            self._pid, self._orders = 0, -1
            try:
                os.write(orders, raw)
                return pid
            except BrokenPipeError:  # killed while it waited: the supervisor reaps it, and never knew it
                continue
            finally:
                os.close(orders)


def serve(channel: socket.socket, supervisor: int, again: bytes = b"") -> int:
    """Takes Begin, loads, then forks on request until the supervisor hangs up. Returns the exit code.

    `again`: the Begin packet, if this process has compiled and started over.
    """

    def tell(message: FromZygote) -> None:
        channel.send(msgspec.json.encode(message))

    decoder = msgspec.json.Decoder(ToZygote)
    started = time.perf_counter()
    raw = again or channel.recv(MAX_PACKET)
    if not raw:
        return 0
    what = "loading the stages"
    try:
        from procs.profiles.config import profile_from_json

        begin = decoder.decode(raw)
        assert isinstance(begin, Begin), "the first packet says what to load"
        profile = profile_from_json(bytes(begin.profile))
        runner, compiled = _load(begin, profile, tell)
        if compiled and not again:
            tell(Compiled(time.perf_counter() - started, compiled))
            _start_over(channel, supervisor, raw)
        prepare = getattr(sys.modules[runner.__module__], "prepare", None)
        if prepare is not None:
            prepare({**begin.runtime, "profile": profile})
        _settle()
        tell(Ready(time.perf_counter() - started))

        def fork(orders: int, close: tuple[int, ...]) -> int:
            become = partial(_become_stage, begin, profile, runner, supervisor, orders)
            return fork_child(become, supervisor, (channel.fileno(), *close))

        standby = Standby(fork)
        while True:
            if not standby.ready() and not select.select([channel], [], [], QUIET_S)[0]:
                with contextlib.suppress(OSError):  # no process or memory to spare is no trouble before one is asked for
                    standby.breed()
            if not (raw := channel.recv(MAX_PACKET)):
                break
            spawn = decoder.decode(raw)
            assert isinstance(spawn, Spawn), "after Begin only Spawn"
            what = f"forking {spawn.stage}"
            tell(Spawned(spawn.stage, spawn.incarnation, standby.employ(raw)))
    except (BrokenPipeError, ConnectionResetError):
        return 0
    except Exception as e:
        stage_log("zygote").error("cannot go on", exc_info=True)
        with contextlib.suppress(OSError):
            tell(Failed(what, f"{type(e).__name__}: {e}"[:4000]))
        return 1
    return 0


def main(arguments: list[str]) -> int:
    """`python -m procs.supervision.zygote FD PARENT_PID [BEGIN_FD]`; for the supervisor only."""
    if len(arguments) not in (2, 3) or not all(a.isdigit() for a in arguments):
        print("procs.supervision.zygote is started by the supervisor: use `scalperctl start`", file=sys.stderr)
        return 2
    descriptor, supervisor = int(arguments[0]), int(arguments[1])
    die_with(supervisor)
    prctl(PR_SET_NAME, b"scalper:zygote")
    os.set_inheritable(descriptor, False)
    again = b""
    if len(arguments) == 3:
        with open(int(arguments[2]), "rb") as file:
            again = file.read()
    with socket.socket(fileno=descriptor) as channel:
        return serve(channel, supervisor, again)


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
