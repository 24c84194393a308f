"""A whole pipeline's stages in one process, polled in any order, crashed at any point: what the fold tests stand on.

A crash throws a stage's arena away and builds the stage anew over the same shared words, as the next incarnation does. What
the dead one had published since its last checkpoint can be taken back in part, so that a crash between two polls stands
for one at any record in the poll.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from procs import topology
from procs.fold.assembly import Bound, LoopSettings, heap_world
from procs.fold.block import R_DONE, R_SINCE, out_loc
from procs.fold.checkpoint import diverged, restore, save
from procs.fold.look import connect
from procs.fold.loop import poll
from procs.fold.merge import LOG_COUNT, LOG_RING, flush_outputs
from procs.fold.plan import Plan, plan_of
from procs.journal.digest import digest
from procs.memory import board
from procs.profiles.config import load_profile
from procs.research import backtest
from ringbuf.layout import (
    CAPACITY,
    CONTROL_WORDS,
    CURSOR,
    GATING,
    OWN_DUE,
    PROMISE,
    PROMISE_GIVEN,
    TAIL,
    WATERMARK,
    reader_line,
    views,
)
from ringbuf.ring import O_KNOWN, O_TAIL
from trading.jit import Recs, Words
from trading.records import INTAKE_CUT, Kind

STAGES = tuple(stage.name for stage in topology.Run(world="replay").hot)
LOGS = tuple(entry.name for entry in topology.RINGS if entry.name.startswith("intake."))
TIMED = tuple(entry.name for entry in topology.RINGS if entry.name not in LOGS)
SHOWN = (TAIL, WATERMARK, PROMISE, PROMISE_GIVEN, OWN_DUE)


def small_market(seconds: float = 20.0, **overrides: Any) -> Plan:
    """A generated market of fixed length, as fast as it goes."""
    return plan_of(load_profile("paper", {"source.speed": "max", "generator.duration_s": seconds, **overrides}))


def undisturbed(plan: Plan) -> dict[str, Recs]:
    """All rings' records of a plain backtest."""
    return backtest.run(plan, keep=tuple(entry.name for entry in topology.RINGS)).kept


def intake_order(recs: Recs) -> list[tuple[int, int]]:
    """An intake log, record by record: (input, sequence). How a run was cut into batches is chance and does not count.

    A run ends early where something falls due within it: the line after it says how many of it were taken.
    """
    found: list[tuple[int, int]] = []
    begun = 0
    for row in recs.view("<i8").reshape(-1, recs.dtype.itemsize // 8).tolist():
        if row[LOG_RING] == INTAKE_CUT:
            del found[begun + row[LOG_COUNT] :]
            continue
        begun = len(found)
        found += [(row[LOG_RING], row[1] + n) for n in range(row[LOG_COUNT])]
    return found


def identities(kept: dict[str, Recs]) -> dict[str, Any]:
    """What two runs must agree in: every ring's digest, every intake log's order."""
    return {
        name: intake_order(recs) if name in LOGS else (len(recs), digest(recs, topology.RING[name].record))
        for name, recs in kept.items()
    }


class Session:
    """Rings on the heap, the six stages over them, and a recorder that never dies."""

    def __init__(
        self,
        plan: Plan,
        loop: LoopSettings | None = None,
        groups: Sequence[Sequence[str]] = (),
        names: Sequence[str] = STAGES,
    ) -> None:
        """`names`: the stages that there are."""
        self.plan = plan
        self.loop = loop or LoopSettings()
        self.modules: dict[str, Any] = {name: importlib.import_module(topology.STAGE[name].module) for name in names}
        specs = {name: module.state_spec(plan.symbols) for name, module in self.modules.items()}
        self.world = heap_world(specs, groups, plan.run.outside)
        self.outputs = {name: tuple(entry.name for entry in topology.outputs(name)) for name in names}
        self.views = {entry.name: views(self.world.rings[entry.name], entry.record) for entry in topology.RINGS}
        self.cursors = {entry.name: reader_line(entry.reader_index("recorder")) + CURSOR for entry in topology.RINGS}
        self.ends: dict[str, Words] = {}  # of each ring that a stage writes, the writer's row of its arena
        self.stages: dict[str, Bound] = {}
        for name in names:
            self.build(name)
        self.connect()
        self.pieces: dict[str, list[Recs]] = {entry.name: [] for entry in topology.RINGS}
        self.heads = dict.fromkeys(self.pieces, 0)
        self.crashes = 0

    def between(self, rng: np.random.Generator) -> None:
        """Who is no stage has a turn here; nobody in this world."""

    # --- a stage's life ---------------------------------------------------------------------------------------------

    def build(self, name: str) -> None:
        """An incarnation of the stage, in place of the one before."""
        self.stages[name] = self.modules[name].build(self.plan, self.world, self.loop)
        self.ends |= {ring: out_loc(self.stages[name].block, n) for n, ring in enumerate(self.outputs[name])}

    def connect(self) -> None:
        """Let the stages look through each other where the settings say so."""
        if self.loop.look:
            connect(self.plan.run, self.world, self.stages)

    def done(self, name: str) -> bool:
        """Whether the stage has written END everywhere."""
        return bool(self.stages[name].registers[R_DONE])

    def poll(self, name: str) -> int:
        """One poll; returns its work."""
        return int(poll(self.stages[name].block))

    def settle(self, name: str, work: int) -> None:
        """The checkpoint that procs.fold.group.settle would make now."""
        bound = self.stages[name]
        flush_outputs(bound.block)
        if bound.registers[R_SINCE] >= self.loop.checkpoint_every or (work == 0 and bound.registers[R_SINCE] > 0):
            save(bound.block)

    def crash(self, name: str) -> None:
        """Throw the incarnation away, whatever it has not checkpointed; the next one recovers."""
        self.crashes += 1
        self.stages[name].arena[:] = -0x0123456789ABCDEF  # nobody may still look at it
        self.build(name)
        self.connect()
        restore(self.stages[name].block)

    def diverged(self) -> int:
        """Recomputed records that differed, of all stages."""
        return sum(int(diverged(bound.block)) for bound in self.stages.values())

    # --- what it has published --------------------------------------------------------------------------------------

    def shown(self, name: str) -> dict[str, Words]:
        """Copies of the control pages of the stage's outputs."""
        return {ring: self.world.rings[ring][:CONTROL_WORDS].copy() for ring in self.outputs[name]}

    def tail(self, ring: str) -> int:
        """Records published, as their writer knows."""
        end = self.ends.get(ring)
        return int(self.world.rings[ring][TAIL]) if end is None else max(int(end[O_TAIL]), int(end[O_KNOWN]))

    def take_back(self, ring: str, upto: int, before: Words, garbage: np.random.Generator) -> None:
        """Unpublish all records from `upto` on: the first of them is half written, the ring's page as it was `before`."""
        ctl, slots, _ = self.views[ring]
        capacity = int(ctl[CAPACITY])
        for at in range(upto, self.tail(ring)):
            slots[at & (capacity - 1), -1] = 0 if at == upto else max(at + 1 - capacity, 0)
            half = slots.shape[1] // 2
            slots[at & (capacity - 1), :half] = garbage.integers(-(1 << 62), 1 << 62, half)
        for word in SHOWN:
            ctl[word] = before[word]

    def record(self, rings: Sequence[str] | None = None) -> None:
        """The recorder: takes what is published and lets the writers have the slots."""
        for ring in rings or self.pieces:
            head, tail = self.heads[ring], self.tail(ring)
            if head == tail:
                continue
            ctl, slots, recs = self.views[ring]
            capacity = int(ctl[CAPACITY])
            while head < tail:
                row = head & (capacity - 1)
                count = min(capacity - row, tail - head)
                assert np.array_equal(slots[row : row + count, -1], np.arange(head + 1, head + 1 + count)), ring
                self.pieces[ring].append(recs[row : row + count].copy())
                head += count
            self.heads[ring] = head
            ctl[self.cursors[ring]] = head

    def kept(self) -> dict[str, Recs]:
        """Everything that the recorder has."""
        return {
            name: np.concatenate(pieces) if pieces else np.zeros(0, topology.RING[name].record)
            for name, pieces in self.pieces.items()
        }

    def unread(self) -> Iterator[str]:
        """Gating readers that do not stand at the tail."""
        for entry in topology.RINGS:
            words, tail = self.world.rings[entry.name], self.tail(entry.name)
            for number, reader in enumerate(entry.readers):
                line = reader_line(number)
                if words[line + GATING] and words[line + CURSOR] != tail:
                    yield f"{reader} on {entry.name}: {int(words[line + CURSOR])} of {tail}"

    def tell(self, kind: Kind) -> bool:
        """An operator's word on the control ring, as the supervisor puts it there; False while the ring is full."""
        ctl, slots, recs = views(self.world.rings["control"], topology.RING["control"].record)
        tail, capacity = int(ctl[TAIL]), int(ctl[CAPACITY])
        lines = [reader_line(number) for number in range(len(topology.RING["control"].readers))]
        if tail - min(int(ctl[line + CURSOR]) for line in lines) >= capacity:
            return False
        slots[tail & (capacity - 1), :] = 0
        record = recs[tail & (capacity - 1)]
        record["ts_ns"], record["kind"], record["cause_ring"], record["symbol"] = tail, int(kind), -1, -1
        slots[tail & (capacity - 1), -1] = tail + 1
        ctl[TAIL] = tail + 1
        return True

    def drain(self) -> None:
        """Ask the feed to end its stream."""
        board.page(self.world.board, topology.stage_id("feed"))[board.DRAIN] = 1
