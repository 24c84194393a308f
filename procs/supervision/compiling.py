"""Compile all stages' kernels on several cores, each worker into a cache of its own, then put the caches together.

numba's cache is not made for several writers: two processes that compile the same function for different types choose the
same file names (numba 10128). So each worker writes to its own folder, and of each function the first worker's files are taken
whole. A specialisation that is lost by that is one that only a caller's code contains, where it stands already.

    queue pipe     stage names, 32 bytes each: whoever is free reads the next one; the loop of all stages is one of them
    result pipe    a JSON line a stage

Not here: loading (procs.supervision.zygote), which finds almost everything in the cache afterwards.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import importlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from procs.kernels.choice import numba_variables
from procs.kernels.packs import COMPLETE
from procs.logs import stage_log
from procs.supervision import at_once

NAME_BYTES: Final = 32
GARBAGE: Final = (50_000, 20, 50)
"""Numba makes many objects that live on: looked at as often as Python does it, they cost a tenth of the time."""
WARM_UP: Final = "procs.fold.warm"
LOOP: Final = "loop"
LOOP_KERNELS: Final = (
    ("procs.fold.group", "run"),
    ("procs.fold.checkpoint", "restore"),
    ("procs.fold.loop", "poll"),  # who folds a session again calls it, and the next one
    ("procs.research.backtest", "give_back"),
)
"""Kernels of one int64 array that serve all stages: each worker would compile them with its first stage."""
MOST_WORKERS: Final = 4  # a worker takes some 400 MB while it compiles


ENGINE: Final = {"engine": "procs.research.engine", "decoding": "procs.research.decoding"}
"""What a backtest calls, as the stages of `compile_all`."""
ENGINE_COMPILE_S: Final = {"engine": 60.0, "decoding": 30.0}


def is_complete(cache_dir: str, of: str = "") -> bool:
    """Whether the kernels were compiled into this cache to the end: those of pipelines, or `of` another set."""
    return (Path(cache_dir) / (COMPLETE + of)).exists()


def mark_complete(cache_dir: str, of: str = "") -> None:
    """Say so."""
    (Path(cache_dir) / (COMPLETE + of)).touch()


@contextlib.contextmanager
def locked(cache_dir: str, waiting: Callable[[], object]) -> Iterator[None]:
    """Alone with this cache among all that compile into it; `waiting` is called where another process has it."""
    lock = os.open(Path(cache_dir) / "compile.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def compile_all(
    stages: Mapping[str, str],
    profile: Any,
    cache_dir: str,
    tell: Callable[[str, float], None],
    begun: Callable[[], object] = lambda: None,
    parts: bool = False,
) -> None:
    """Compile every stage (name -> module with `warm(profile)`) in worker processes; `tell(stage, seconds)` after each.

    Call it before numba is imported: the workers choose their cache folder by the environment. `begun` is called once they are
    forked: from then on this process may have threads. `parts`: also keep, for themselves, functions that only other kernels
    call, which takes longer (procs.supervision.at_once); tests call them. Raises RuntimeError with the first worker's complaint.
    """
    from procs import topology  # it needs numpy, which the supervisor, who imports this for the messages, does without

    workers = max(1, min(len(os.sched_getaffinity(0)), MOST_WORKERS, len(stages)))
    folders = [Path(cache_dir) / f"part-{n}-{os.getpid()}" for n in range(workers)]
    queue_read, queue_write = os.pipe()
    result_read, result_write = os.pipe()
    compile_s = {name: ENGINE_COMPILE_S.get(name, topology.compile_s(name)) for name in stages}
    if any(name in topology.STAGE and topology.STAGE[name].hot for name in stages):  # the others have no use for it
        compile_s[LOOP] = topology.LOOP_COMPILE_S
    order = sorted(compile_s, key=compile_s.__getitem__, reverse=True)
    pids: list[int] = []
    try:
        for folder in folders:
            pid = os.fork()
            if pid == 0:
                os.close(queue_write)
                os.close(result_read)
                _work(stages, profile, folder, queue_read, result_write, parts)
            pids.append(pid)
        os.close(result_write)
        begun()
        for name in order:
            os.write(queue_write, name.encode().ljust(NAME_BYTES))
        os.close(queue_write)
        queue_write = -1
        with open(result_read, encoding="utf-8", closefd=False) as results:
            for line in results:
                said = json.loads(line)
                if "problem" in said:
                    raise RuntimeError(f"{said['stage']}: {said['problem']}")
                if said["stage"] in stages:
                    tell(said["stage"], said["seconds"])
        if any(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0 for pid in _taken(pids)):
            raise RuntimeError("a compiling process was killed (out of memory?): start again, what is done is kept")
        for folder in folders:
            _gather(folder, Path(cache_dir))
    finally:
        for fd in (queue_read, result_read, *((queue_write,) if queue_write >= 0 else ())):
            os.close(fd)
        for pid in _taken(pids):
            with contextlib.suppress(ChildProcessError):
                os.kill(pid, 9)
                os.waitpid(pid, 0)
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)


def _taken(pids: list[int]) -> list[int]:
    """The pids, which are then nobody's to wait for any more."""
    taken = list(pids)
    pids.clear()
    return taken


def _work(stages: Mapping[str, str], profile: Any, folder: Path, queue: int, results: int, parts: bool) -> None:
    """In a worker: compile stage after stage; never returns."""
    code = 1
    try:
        folder.mkdir(mode=0o700)
        os.environ.update(numba_variables(folder))
        warm_up: Any = importlib.import_module(WARM_UP)  # with it comes numba
        warm_up.loop_is_elsewhere = True
        gc.freeze()
        gc.set_threshold(*GARBAGE)
        if not parts:
            at_once.compile_at_once()
        while raw := os.read(queue, NAME_BYTES):
            name = raw.decode().strip()
            began = time.perf_counter()
            try:
                if name == LOOP:
                    _compile_loop()
                else:
                    importlib.import_module(stages[name]).warm(profile)
                said: dict[str, Any] = {"stage": name, "seconds": time.perf_counter() - began}
            except BaseException as error:
                stage_log("zygote").error("compiling failed", of=name, exc_info=True)
                said = {"stage": name, "problem": f"{type(error).__name__}: {error}"[:2000]}
            os.write(results, json.dumps(said).encode() + b"\n")
        code = 0
    finally:
        os._exit(code)


def _compile_loop() -> None:
    from numba import types

    for module, kernel in LOOP_KERNELS:
        getattr(importlib.import_module(module), kernel).compile((types.Array(types.int64, 1, "C"),))


def _gather(folder: Path, into: Path) -> None:
    """Move a worker's functions into the cache: index and code of one function together, and none that is there already."""
    for index in sorted(folder.rglob("*.nbi")):
        place = into / index.parent.relative_to(folder)
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        if (place / index.name).exists():
            continue
        for code in index.parent.glob(f"{index.name.removesuffix('.nbi')}.*.nbc"):
            os.replace(code, place / code.name)
        os.replace(index, place / index.name)
