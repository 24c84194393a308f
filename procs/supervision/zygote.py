"""The zygote: a small single-threaded process that has every kernel loaded and forks the processes that become stages.

The supervisor execs it (`python -m procs.supervision.zygote FD PARENT_PID`) with one end of a SOCK_SEQPACKET pair;
procs.supervision.packets has what they say. This module loads; what follows is procs.supervision.forking's.

A stage module (`procs.stages.feed`) may have `warm(profile)`, which loads or compiles every kernel that the stage calls. The
runner is `module:function`, called in the child as `run_stage(name, runtime) -> exit code`; its module may have
`prepare(runtime)`, called here once before the first fork, and `stand_by()`, called in a child before it knows what it is to be.

Compiling leaves some 170 MB of LLVM's memory behind, which every fork would carry and copy page tables for. So a zygote that
had to compile executes itself again, as the same process, and then loads from the cache what it compiled.

The zygote's death leaves stages alive, and one of the children that it has forked ahead takes its place; the supervisor's death
kills them all.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import mmap
import os
import re
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from procs.logs import stage_log
from procs.supervision import compiling, loading
from procs.supervision.forking import PR_SET_NAME, Runner, Zygote, die_with, prctl
from procs.supervision.packets import MAX_PACKET, Begin, Compiled, Failed, FromZygote, Ready, Waiting, Warmed

LARGE_MAPPING: Final = 1_048_576

_libc: Final = ctypes.CDLL(None, use_errno=True)


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


def serve(channel: socket.socket, supervisor: int, again: bytes = b"") -> int:
    """Takes Begin, loads, then forks on request until the supervisor hangs up. Returns the exit code.

    `again`: the Begin packet, if this process has compiled and started over.
    """

    def tell_here(message: FromZygote) -> None:
        channel.send(msgspec.json.encode(message))

    tell: Callable[[FromZygote], None] = tell_here
    started = time.perf_counter()
    raw = again or channel.recv(MAX_PACKET)
    if not raw:
        return 0
    what = "loading the stages"
    try:
        from procs.profiles.config import profile_from_json

        begin = msgspec.json.decode(raw, type=Begin)
        profile = profile_from_json(bytes(begin.profile))
        runner, compiled = _load(begin, profile, tell)
        if compiled and not again:
            tell(Compiled(time.perf_counter() - started, compiled))
            _start_over(channel, supervisor, raw)
        prepare = getattr(sys.modules[runner.__module__], "prepare", None)
        if prepare is not None:
            prepare({**begin.runtime, "profile": profile})
        _settle()
        zygote = Zygote(begin, profile, runner, supervisor, channel)
        what, tell = "forking children", zygote.tell  # a child that leads has a channel of its own
        tell(Ready(time.perf_counter() - started))
        return zygote.lead()
    except (BrokenPipeError, ConnectionResetError):
        return 0
    except Exception as e:
        stage_log("zygote").error("cannot go on", exc_info=True)
        with contextlib.suppress(OSError):
            tell(Failed(what, f"{type(e).__name__}: {e}"[:4000]))
        return 1


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
