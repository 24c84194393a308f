"""A trivial pipeline for the supervisor's tests: stages that beat, obey commands on a board, and end when told.

As a program (`python supervised_stages.py INSTANCE BOARD OVERRIDES`) it runs a real Supervisor over them and logs JSON lines to
stderr; as a module it is what the zygote imports. The board is a file of int64 words, 16 a stage.
"""

from __future__ import annotations

import json
import mmap
import os
import select
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

STAGES = ("sink", "middle", "source")  # start order: readers first
ASIDE = "aside"  # a stage that nobody needs; there with the override `aside`
ROWS = (*STAGES, ASIDE)
HEARTBEAT, READY, FINISHED, COMMAND, HALTED, STOP, INCARNATION, HALTS = range(8)
WORDS = 16
OBEY, CRASH, HANG, QUIT, CRASH_AT_START, IGNORE_TERM, NEVER_READY, ORPHAN = range(8)
BYTES = 8 * WORDS * (len(STAGES) + 1)


class Board:
    """Words of the board by (stage, index)."""

    def __init__(self, path: str) -> None:
        with open(path, "r+b") as file:
            self._words = memoryview(mmap.mmap(file.fileno(), BYTES)).cast("q")

    def __getitem__(self, at: tuple[str, int]) -> int:
        return self._words[ROWS.index(at[0]) * WORDS + at[1]]

    def __setitem__(self, at: tuple[str, int], value: int) -> None:
        self._words[ROWS.index(at[0]) * WORDS + at[1]] = value


def new_board(path: Path) -> Board:
    """A board of zeros. A file that is there is not made shorter for a moment: who has it mapped would end by SIGBUS."""
    with path.open("r+b" if path.exists() else "wb") as file:
        file.write(bytes(BYTES))
    return Board(str(path))


class Spec:
    """One stage of the fake topology."""

    def __init__(self, name: str, module: str = "supervised_stages", essential: bool = True) -> None:
        self.name, self.module, self.essential = name, module, essential


class FakePipeline:
    """The supervisor's Protocol over the board."""

    def __init__(self, path: str, module: str, aside: bool = False) -> None:
        self.stages = [Spec(name, module) for name in STAGES] + ([Spec(ASIDE, module, False)] if aside else [])
        self.processes = {stage.name: (stage.name,) for stage in self.stages}
        self.runtime = {"board": path}
        self._path, self._board = path, Board(path)

    def create(self) -> None:
        """As procs.supervision.contract.Pipeline says."""
        Path(self._path + ".segments").touch()

    def destroy(self) -> None:
        """As procs.supervision.contract.Pipeline says."""
        Path(self._path + ".segments").unlink(missing_ok=True)

    def prepare(self, stage: str, incarnation: int) -> None:
        """As procs.supervision.contract.Pipeline says."""
        self._board[stage, READY] = 0
        self._board[stage, INCARNATION] = incarnation

    def heartbeat(self, stage: str) -> int:
        """As procs.supervision.contract.Pipeline says."""
        return self._board[stage, HEARTBEAT]

    def ready(self, stage: str) -> bool:
        """As procs.supervision.contract.Pipeline says."""
        return bool(self._board[stage, READY])

    def finished(self, stage: str) -> bool:
        """As procs.supervision.contract.Pipeline says."""
        return bool(self._board[stage, FINISHED])

    def at_work(self, stage: str) -> str:
        """As procs.supervision.contract.Pipeline says."""
        return ""

    def progress(self) -> int:
        """As procs.supervision.contract.Pipeline says."""
        return sum(self._board[s, HEARTBEAT] for s in STAGES)

    def trouble(self) -> str:
        """As procs.supervision.contract.Pipeline says; the word is the last stage's, which halts nothing."""
        return "no room left" if self._board[STAGES[-1], HALTED] else ""

    def request_stop(self) -> None:
        """As procs.supervision.contract.Pipeline says."""
        self._board[STAGES[-1], STOP] = 1

    def halt(self, reason: str) -> None:
        """As procs.supervision.contract.Pipeline says."""
        self._board["middle", HALTED] = 1
        self._board["middle", HALTS] += 1

    def resume(self, reason: str) -> None:
        """As procs.supervision.contract.Pipeline says."""
        self._board["middle", HALTED] = 0


def warm(profile: Any) -> None:
    """What a stage module offers the zygote."""


def run_stage(name: str, runtime: Mapping[str, Any]) -> int:
    """A stage: beats every millisecond; ends when told, or when the stage before it has finished."""
    board = Board(runtime["board"])
    command = board[name, COMMAND]
    if command == CRASH_AT_START:
        print("cannot start: told so", file=sys.stderr)
        return 3
    read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(write)
    signal.signal(signal.SIGTERM, lambda *_: None)
    before = STAGES[STAGES.index(name) + 1] if name in STAGES[:-1] else None
    if command == ORPHAN and os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pause()
    board[name, READY] = 0 if command == NEVER_READY else 1
    while True:
        board[name, HEARTBEAT] += 1
        command = board[name, COMMAND]
        if command == CRASH:
            os._exit(9)
        while command == HANG:
            signal.pause()
        if command == QUIT:
            return 0
        if select.select([read], [], [], 0.001)[0] and signal.SIGTERM in os.read(read, 64) and command != IGNORE_TERM:
            return 143
        if (board[name, STOP] if before is None else board[before, FINISHED]) and command != IGNORE_TERM:
            board[name, FINISHED] = 1
            return 0


def main() -> int:
    """Runs a supervisor over the fake stages and says what it left behind."""
    from procs.logs import supervisor_log
    from procs.profiles.config import load_profile
    from procs.supervision.supervisor import Supervisor

    instance, board, overrides = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    module, aside = overrides.pop("module", "supervised_stages"), overrides.pop("aside", False)
    patient = {"supervisor.heartbeat_timeout_ms": 20_000}  # a busy machine is no hang; tests of hangs say their own
    profile = load_profile("paper", {"instance": instance, **patient, **overrides})
    pipeline = FakePipeline(board, module, aside)
    log = supervisor_log(instance)
    before = sorted(os.listdir("/proc/self/fd"))
    code = Supervisor(profile, pipeline, runner="supervised_stages:run_stage", log=log).run()
    try:
        os.waitpid(-1, os.WNOHANG)
        children = 1
    except ChildProcessError:
        children = 0
    log.info("left", fds=len(os.listdir("/proc/self/fd")) - len(before), children=children)
    return code


if __name__ == "__main__":
    sys.exit(main())
