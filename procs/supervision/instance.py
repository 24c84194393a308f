"""The pipeline as the supervisor sees it (procs.supervision.contract.Pipeline), over shared memory; and where one run keeps what.

Nothing here needs numba: the supervisor stays small. The control ring's one writer is this process.

What this module is not: it starts nothing and decides nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from procs import topology
from procs.memory import board
from procs.memory import segments as pipeline
from procs.memory.arena import arena_bytes
from procs.memory.board import Words
from procs.memory.segments import Memory, Placement
from procs.profiles.schema import Profile
from procs.topology import Run, Stage
from ringbuf.plain import PlainWriter, ring_doorbell
from shm import cleanup
from trading.own_signals.guard import RECORD, RUNNING, STOP_FROM, Health, health_of
from trading.ranges import MAX_SYMBOLS
from trading.records import CONTROL_RECORD, Kind


def place_stages(cores: Any, usable: Sequence[int], names: Sequence[str]) -> dict[str, int]:
    """Core of each of these stages: as the profile lists them, in turn; with `auto` only where every process can have its own."""
    if cores == "none":
        return {}
    if cores == "auto":
        # the first core is left to the supervisor, the zygote and the rest of the machine
        if len(usable) <= len(names):
            return {}
        cores = sorted(usable)[1:]
    return {name: int(cores[n % len(cores)]) for n, name in enumerate(names)}


@dataclass(slots=True)
class Instance:
    """One run of one profile. `at_end` sees the memory once more before it goes."""

    profile: Profile
    journal_dir: str
    spool: str | None
    at_end: Callable[[Memory], None] | None = None
    log: Any = None
    memory: Memory | None = None
    _control: PlainWriter | None = None
    _cores: dict[str, int] = field(default_factory=dict)
    _run: Run = field(init=False)
    _ended_in: tuple[int, int] = (0, 0)
    _told: dict[str, Health] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._run = Run.of(self.profile)  # once: whoever looks again might be allowed other cores
        hosts = [process for process in self._run.processes if process.essential]
        cores = place_stages(self.profile.pipeline.cores, sorted(os.sched_getaffinity(0)), [host.name for host in hosts])
        self._cores = {stage.name: cores[host.name] for host in hosts if host.name in cores for stage in host.members}

    @property
    def stages(self) -> Sequence[Stage]:
        """All that run."""
        return self._run.start_order

    @property
    def processes(self) -> Mapping[str, Sequence[str]]:
        """In start order."""
        return {process.name: [stage.name for stage in process.members] for process in self._run.processes}

    @property
    def _images(self) -> int:
        """Symbols that models may be published for while it runs; a recording's are known later."""
        features, ml = self.profile.features, self.profile.ml
        if self.profile.world != "paper" or not (ml.enabled or features.garch or features.microprice):
            return 0
        return MAX_SYMBOLS if self.profile.source.kind == "recording" else len(self.profile.symbols)

    @property
    def runtime(self) -> Mapping[str, Any]:
        """What `run_stage` gets besides the supervisor's own entries."""
        groups = [list(group) for group in self._run.groups]
        return {"spool": self.spool, "cores": self._cores, "journal_dir": self.journal_dir, "groups": groups}

    def create(self) -> None:
        """Segments and board; first what a dead run of this name left goes. Raises OSError with a sentence."""
        wish = self.profile.pipeline
        cleanup.clean(self.profile.instance)
        self.memory = pipeline.create(
            self.profile.instance,
            Placement(wish.numa, wish.huge_pages, wish.lock_memory, self._cores),
            journal=wish.journal,
            vectors=wish.journal_vectors,
            raw=self.profile.source.kind == "live" and (self.profile.record.raw or self.profile.world == "record"),
            stages=self._run.names,
            groups=self._run.groups,
            arena_bytes=arena_bytes(self.profile),
            models=self._images,
        )

    def destroy(self) -> None:
        """Remove everything that `create` made."""
        if self.memory is not None:
            self._tell_health(at_end=True)
        memory, self.memory = self.memory, None
        if memory is None:
            return
        try:
            if self.at_end is not None:
                self.at_end(memory)
        finally:
            memory.destroy()

    def _page(self, stage: str) -> Words:
        assert self.memory is not None, "created first"
        return board.page(self.memory.board_words, topology.stage_id(stage))

    def prepare(self, process: str, incarnation: int) -> None:
        """Before each spawn."""
        for stage in self.processes[process]:
            page = self._page(stage)
            if stage == "features" and self.profile.signals.user:
                self._note_end_in_signal(page)
            page[board.READY] = page[board.STOP] = page[board.TURN] = 0
            page[board.INCARNATION] = incarnation

    def _note_end_in_signal(self, page: Words) -> None:
        """Features ended, or was ended, inside a user's signal: the second time at the same record, that signal is off.

        Once may be chance, as any process can be killed anywhere; a fold that comes to the same record again is no chance.
        """
        guard = page[board.USER_GUARD :]
        where = int(guard[RUNNING]), int(guard[RECORD])
        guard[RUNNING] = 0
        if where[0] == 0:
            return
        name = self.profile.signals.user[where[0] - 1].name
        if where == self._ended_in:
            guard[STOP_FROM + where[0] - 1] = where[1]
        if self.log is not None:
            event = "signal switched off" if where == self._ended_in else "features ended in a user's signal"
            self.log.warning(event, signal=name, record=where[1])
        self._ended_in = where

    def heartbeat(self, process: str) -> int:
        """The heartbeat of its first stage that has not finished; what went wrong in a user's signal since is logged."""
        stages = self.processes[process]
        if "features" in stages and self.profile.signals.user:
            self._tell_health()
        going = next((stage for stage in stages if not self._page(stage)[board.FINISHED]), stages[0])
        return int(self._page(going)[board.HEARTBEAT])

    def _tell_health(self, *, at_end: bool = False) -> None:
        """A line when a signal goes off; for answers that are no finite number when the first comes, and as they double."""
        guard = self._page("features")[board.USER_GUARD :]
        for k, one in enumerate(self.profile.signals.user):
            now, told = health_of(guard, k), self._told.get(one.name, Health())
            more = now.not_finite >= max(2 * told.not_finite, 1) or (at_end and now.not_finite > told.not_finite)
            if (now.off_from and not told.off_from) or more:
                self._told[one.name] = now
                if self.log is not None:
                    self.log.warning("user signal", signal=one.name, problem=now.sentence, **now.figures)

    def ready(self, process: str) -> bool:
        """Attached, recovered, consuming, or done with it."""
        pages = [self._page(stage) for stage in self.processes[process]]
        return all(page[board.READY] or (len(pages) > 1 and page[board.FINISHED]) for page in pages)

    def finished(self, process: str) -> bool:
        """END came through and all outputs are published."""
        return all(bool(self._page(stage)[board.FINISHED]) for stage in self.processes[process])

    def at_work(self, process: str) -> str:
        """As the process's loop notes it."""
        stages = self.processes[process]
        turns = [int(self._page(stage)[board.TURN]) for stage in stages] if len(stages) > 1 else []
        return next((stage for stage in stages if topology.stage_id(stage) in turns), "")

    def progress(self) -> int:
        """Records processed by all stages."""
        if self.memory is None:
            return 0
        return sum(int(self._page(stage.name)[board.RECORDS]) for stage in topology.STAGES)

    def trouble(self) -> str:
        """Why the recorder cannot write, with the journals' folder; "" if it can."""
        if self.memory is None or "recorder" not in self._run.names:
            return ""
        said = board.disk_trouble(self._page("recorder"))
        return said and f"{said} ({self.journal_dir})"

    def request_stop(self) -> None:
        """The feed ends its stream; END then runs through all stages."""
        self._page("feed")[board.DRAIN] = 1
        assert self.memory is not None, "created first"
        ring_doorbell(self.memory.board_words, board.doorbell(topology.stage_id("feed"), self._run.groups))

    def halt(self, reason: str) -> None:
        """Tell risk to cancel everything and open nothing."""
        self._tell(Kind.HALT)

    def resume(self, reason: str) -> None:
        """Take that back."""
        self._tell(Kind.RESUME)

    def _tell(self, kind: Kind) -> None:
        """Append one record to the control ring. BufferError while it is full: asked again at the next check."""
        assert self.memory is not None, "created first"
        if self._control is None:
            self._control = PlainWriter(
                self.memory.ring("control"), CONTROL_RECORD, self.memory.board_words[: board.DOORBELL_WORDS]
            )
        record = np.zeros(1, CONTROL_RECORD)
        record["ts_ns"], record["kind"], record["cause_ring"], record["symbol"] = time.time_ns(), int(kind), -1, -1
        if not self._control.try_push(record):
            raise BufferError("the control ring is full: risk has not read it")
