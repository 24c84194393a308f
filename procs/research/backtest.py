"""The same stages over the same rings in one process, without any other process: the backtest, and the tests' yardstick.

Virtual time makes the order of every decision a function of the records, so a recording gives the same orders and fills
here as through the pipeline of processes; a test says so.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np

from procs import topology
from procs.fold.assembly import Bound, LoopSettings, World, heap_world, spec_of
from procs.fold.block import R_DONE, R_INTERNAL_DUE, R_LOW, R_PROMISE, R_SINCE, registers
from procs.fold.checkpoint import save, show_cursors
from procs.fold.loop import poll
from procs.fold.merge import flush_outputs
from procs.fold.plan import Plan
from procs.memory import board
from procs.research.watched import cut_off
from ringbuf.endpoint import Reader
from ringbuf.jit import Recs, Words, kernel
from ringbuf.layout import GATING, reader_line
from trading.own_signals.guard import GUARD_WORDS

KEPT: Final = ("orders", "wire", "reports", "refusals")
"""Rings whose records a backtest keeps."""

LOOK_EVERY: Final = 16
"""Rounds between two words on progress."""


Fold = Callable[[Recs], None]
"""Takes a ring's records piece by piece, in order: for rings that are counted and not kept. A piece is only lent."""


class BacktestStalled(RuntimeError):
    """No stage could do anything although not all had ended: a defect of the topology; the message says who waits."""


@dataclass(slots=True)
class Run:
    """A backtest's outcome: the records of the kept rings, and the world as it stood at the end."""

    world: World
    stages: dict[str, Bound]
    kept: dict[str, Recs] = field(default_factory=dict)
    folded: dict[str, Fold] = field(default_factory=dict)
    rounds: int = 0


@kernel
def give_back(b: Words) -> None:
    """Let the writers have the slots back: what a checkpoint does, without the copy."""
    flush_outputs(b)
    registers(b)[R_SINCE] = 0
    show_cursors(b)


class Keeper:
    """Copies a ring's records out before they are overwritten, as the recorder does."""

    def __init__(self, world: World, name: str, fold: Fold | None = None) -> None:
        entry, words = topology.RING[name], world.rings[name]
        number = entry.reader_index("recorder")
        words[reader_line(number) + GATING] = 1
        self.reader = Reader(words, entry.record, number, world.board[: board.DOORBELL_WORDS])
        self.fold = fold
        self.pieces: list[Recs] = []

    def take(self) -> None:
        """Take what is there."""
        while len(recs := self.reader.view(self.reader.capacity)):
            if self.fold is None:
                self.pieces.append(recs.copy())
            else:
                self.fold(recs)
            self.reader.release(len(recs))

    def all(self) -> Recs:
        """What was kept."""
        return np.concatenate(self.pieces) if self.pieces else np.zeros(0, self.reader.record)


def run(
    plan: Plan,
    *,
    keep: tuple[str, ...] = KEPT,
    folds: Mapping[str, Callable[[], Fold]] | None = None,
    checkpoints: bool = False,
    progress: Callable[[int, int, int], None] | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Run:
    """Run a plan to its end in this process.

    `keep` names the rings whose records are returned, `folds` makes what takes those of other rings; `checkpoints` saves after
    each round as the pipeline does (tests); `progress(frames, expected, ns of the market)` is called now and then. `stop` is
    asked after each round: once it says yes, the feed ends its stream and the run ends in order, as `scalperctl stop` ends one. A
    signal of the user's that does not come back is off from that record on, and all is computed anew. Raises BacktestStalled.
    """

    def begin() -> tuple[Words, Callable[[], Run]]:
        modules: dict[str, Any] = {stage.name: importlib.import_module(stage.module) for stage in stages_of(plan)}
        world = heap_world({name: spec_of(module, plan) for name, module in modules.items()})
        return guard_of(world), lambda: _run(plan, modules, world, keep, folds or {}, checkpoints, progress, stop)

    return cut_off(begin, plan.strategy)


def stages_of(plan: Plan) -> tuple[topology.Stage, ...]:
    """The stages of a backtest, in the order in which it polls them: it decides, also where the profile only records."""
    return replace(plan.run, world="replay").hot


def guard_of(world: World) -> Words:
    """What watches over the user's signals (trading.own_signals.guard)."""
    page = board.page(world.board, topology.stage_id("features"))
    return page[board.USER_GUARD : board.USER_GUARD + GUARD_WORDS]


def _run(
    plan: Plan,
    modules: dict[str, Any],
    world: World,
    keep: tuple[str, ...],
    folds: Mapping[str, Callable[[], Fold]],
    checkpoints: bool,
    progress: Callable[[int, int, int], None] | None,
    stop: Callable[[], bool],
) -> Run:
    here = {topology.STAGE[name].part for name in modules}
    for entry in topology.RINGS:
        for line, reader in enumerate(entry.readers):
            if reader not in here:
                world.rings[entry.name][reader_line(line) + GATING] = 0
    keepers = {name: Keeper(world, name) for name in keep}
    folded = {name: make() for name, make in folds.items()}
    keepers |= {name: Keeper(world, name, fold) for name, fold in folded.items()}
    stages: dict[str, Bound] = {name: module.build(plan, world, LoopSettings()) for name, module in modules.items()}
    outcome = Run(world, stages)
    feed_page = board.page(world.board, topology.stage_id("feed"))
    source = stages["feed"].state["source"]
    while True:
        work = 0
        for bound in stages.values():
            if bound.registers[R_DONE]:
                continue
            before = bound.registers[[R_LOW, R_PROMISE, R_INTERNAL_DUE]]
            work += poll(bound.block)
            work += bool((bound.registers[[R_LOW, R_PROMISE, R_INTERNAL_DUE]] != before).any())
            if checkpoints:
                flush_outputs(bound.block)
                save(bound.block)
            else:
                give_back(bound.block)
        for keeper in keepers.values():
            keeper.take()
        outcome.rounds += 1
        if progress is not None and outcome.rounds % LOOK_EVERY == 0:
            progress(int(feed_page[board.FRAMES]), plan.frames, int(source[0]["last_ns"] - source[0]["first_ns"]))
        if stop():
            feed_page[board.DRAIN] = 1
        if all(bound.registers[R_DONE] for bound in stages.values()):
            break
        if work == 0:
            waiting = ", ".join(f"{n} (low {int(s.registers[R_LOW])})" for n, s in stages.items() if not s.registers[R_DONE])
            raise BacktestStalled(f"nobody can go on: {waiting}")
    outcome.kept = {name: keepers[name].all() for name in keep}
    outcome.folded = folded
    return outcome
