"""Runs a process's stages: recover, then the compiled loop in a pinned thread without the GIL.

The main thread does nothing but wait for signals: handlers never run while compiled code holds the main thread, so the
hot loop has a thread of its own and is told to stop by a word on the board.
"""

from __future__ import annotations

import importlib
import os
import select
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from procs import topology
from procs.fold.assembly import Bound, StateSpec, World, arena_words, fold_layout, spec_of
from procs.fold.block import BLOCK_WORDS, PAGE
from procs.fold.checkpoint import checkpoint_words, restore
from procs.fold.group import FIRST, M_OVER, group_words, run
from procs.fold.look import connect
from procs.fold.plan import load_recording, loop_settings, plan_of
from procs.logs import stage_log
from procs.memory import board
from procs.memory import segments as pipeline
from procs.profiles.schema import Profile
from procs.scheduling import go_first, prepare_thread
from ringbuf.intrinsics import MEMBARRIER_REGISTER_GLOBAL_EXPEDITED, membarrier
from ringbuf.jit import Words, kernel
from shm import cleanup
from shm.errors import RoleHeld, SegmentIncomplete, SegmentMissing
from shm.owner import claim, current_identity, is_alive
from shm.segment import Segment

EXIT_OK: Final = 0
EXIT_FAILED: Final = 1
EXIT_DIVERGED: Final = 4
OWNER_ROLE: Final = 0
GROUP_FRAMES: Final = 8
"""Frames that a feed in a group takes in one turn: few enough that the first is soon decided on, enough to share its cost."""


@kernel
def _register_membarrier(command: int) -> int:
    result: int = membarrier(command)
    return result


@dataclass(slots=True)
class _Prepared:
    """A hot stage, bound to its rings and at its start state, waiting to be forked."""

    name: str
    bound: Bound
    checkpoints: Segment
    page: Words


_prepared: dict[str, _Prepared] = {}
_members: dict[str, list[str]] = {}  # of each process
_memory: list[pipeline.Memory] = []  # the zygote's, which its children have as well


def prepare(runtime: Mapping[str, Any]) -> None:
    """In the zygote, before it forks: attach and bind every hot stage, so that a child has next to nothing left to do.

    What a child touches of the zygote's objects it copies, so this saves each child memory as well as time.
    """
    profile: Profile = runtime["profile"]
    spool = runtime.get("spool")
    plan = plan_of(profile, load_recording(Path(spool) if spool else None))
    run_of = replace(plan.run, groups=tuple(tuple(group) for group in runtime.get("groups", ())))
    memory = pipeline.attach(runtime["instance"])
    _memory[:] = [memory]
    rings = {entry.name: memory.ring(entry.name) for entry in topology.RINGS}
    loop = loop_settings(profile, os.cpu_count() or 1, run_of)
    _register_membarrier(MEMBARRIER_REGISTER_GLOBAL_EXPEDITED)
    for stage in plan.run.hot:
        module: Any = importlib.import_module(stage.module)
        checkpoints = _checkpoints(runtime["instance"], stage.name, spec_of(module, plan))
        world = World(rings, memory.board_words, {stage.name: checkpoints.words}, memory.arena, memory.models, run_of.outside)
        page = board.page(memory.board_words, stage.stage_id)
        alone = len(run_of.process_of(stage.name).members) == 1
        settings = loop if alone else replace(loop, frames=GROUP_FRAMES)
        _prepared[stage.name] = _Prepared(stage.name, module.build(plan, world, settings), checkpoints, page)
    if loop.look:
        connect(run_of, World(rings, memory.board_words, {}), {name: ready.bound for name, ready in _prepared.items()})
    _members.update((process.name, [stage.name for stage in process.members]) for process in run_of.processes)


def stand_by() -> None:
    """In a child, before it knows its stage: what each does once, and would else do while others wait for it."""
    _register_membarrier(MEMBARRIER_REGISTER_GLOBAL_EXPEDITED)  # a fork does not inherit it
    is_alive(current_identity())
    rehearse = _rehearse if _prepared else os.getpid  # where no stage is hot the loop was not loaded
    thread = threading.Thread(target=rehearse)  # what it reads is mapped, what it writes becomes this process's own
    thread.start()
    thread.join()


def _rehearse() -> None:
    """The loop over a stage that is over: it ends at once."""
    block, words = np.zeros(BLOCK_WORDS, np.int64), np.zeros(board.HISTOGRAMS, np.int64)  # a page without histograms
    block[PAGE] = words.ctypes.data
    group = group_words([block])
    group[FIRST + M_OVER] = 1
    go_first()
    run(group)


def run_stage(name: str, runtime: Mapping[str, Any]) -> int:
    """One incarnation of a process, to its exit code. The zygote calls this in the forked child, after `prepare`.

    `name`: of a stage, or of a group; `runtime`: instance, profile, spool (path or None), cores (stage -> core), groups,
    journal_dir, incarnation. Other stages than hot ones get `memory` besides, the instance's as `prepare` has attached it.
    """
    members = _members.get(name, [name])
    if not topology.STAGE[members[0]].hot:
        module: Any = importlib.import_module(topology.STAGE[name].module)
        return int(module.main(runtime["profile"], {**runtime, "memory": _memory[0]}))
    return _run_hot(name, [_prepared[member] for member in members], runtime)


def _checkpoints(instance: str, name: str, spec: StateSpec) -> Segment:
    """The stage's checkpoint segment: the first zygote makes it, a later one finds it."""
    where, layout = pipeline.segment_name(instance, f"fold.{name}"), fold_layout(spec)
    try:
        return Segment.attach(where, layout_hash=layout, kind=pipeline.KIND_FOLD)
    except SegmentIncomplete:  # a zygote was killed while it made it
        cleanup.clean(instance)
    except SegmentMissing:
        pass
    return Segment.create(
        where,
        checkpoint_words(arena_words(name, spec)) * 8,
        layout_hash=layout,
        kind=pipeline.KIND_FOLD,
        segment_id=topology.stage_id(name),
        prefault=False,
    )


def _run_hot(name: str, stages: Sequence[_Prepared], runtime: Mapping[str, Any]) -> int:
    try:
        for stage in stages:
            claim(stage.checkpoints.header, OWNER_ROLE)
    except RoleHeld as error:
        stage_log(name).error("cannot start", problem=str(error))
        return EXIT_FAILED
    core = (runtime.get("cores") or {}).get(stages[0].name)
    for stage in stages:
        page = stage.page
        page[board.PID], page[board.INCARNATION] = os.getpid(), int(runtime.get("incarnation", 0))
        page[board.CORE], page[board.STARTED_NS] = -1 if core is None else core, time.monotonic_ns()
    going = [stage for stage in stages if not stage.page[board.FINISHED]]
    if not going:
        return EXIT_OK
    for stage in going:
        stage.page[board.RECOVERIES] += restore(stage.bound.block)
    group = group_words([stage.bound.block for stage in going])
    done_read, done_write = os.pipe2(os.O_CLOEXEC)
    failure: list[BaseException] = []

    def loop() -> None:
        try:
            prepare_thread(core)
            run(group)
        except BaseException as error:  # reported by the main thread, which owns the exit code
            failure.append(error)
        finally:
            os.write(done_write, b".")

    thread = threading.Thread(target=loop, name=f"{name}-hot")
    _wait(thread, [stage.page for stage in going], done_read)
    if failure:
        raise failure[0]
    diverged = {stage.name: int(stage.page[board.DIVERGED]) for stage in stages}
    for which, records in diverged.items():
        if records:
            problem = f"{records} recomputed records differ from what had been published"
            stage_log(name).error("diverged", of=which, problem=problem)
    return EXIT_DIVERGED if any(diverged.values()) else EXIT_OK


def _wait(thread: threading.Thread, pages: Sequence[Words], done: int) -> None:
    """Start the hot thread and wait for its end; SIGTERM and SIGINT set the stop words."""
    wake_read, wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(wake_write)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    thread.start()
    while True:
        readable, _, _ = select.select([wake_read, done], [], [])
        if done in readable:
            break
        os.read(wake_read, 64)
        for page in pages:
            page[board.STOP] = 1
    thread.join()
