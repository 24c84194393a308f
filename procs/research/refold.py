"""A session folds again from its journals: the same stages, in one process, over what entered it; every ring is compared.

A stage's records follow from what it takes and in which order. In virtual time the order follows from the records, so what
must come from the journals is only what came from outside:

    the market       the embedded market is made anew by the feed; raw frames, where they were kept, are given to the feed
                     again (procs.recordings.raw_frames); else the journals of `market` and `depth` are what enters
    `outside` rings  an operator's word, the answers of an exchange that is no fold: the record from its journal; its time, and
                     after how many other records it came, from the intake log of the stage that took it
    models           from the files beside the journals, each after so many market records (procs.journal.beside)
    cut-off signals  from there as well
    the time         where the feed told it in the place of a silent receiver: from the feed's intake log, each at its place

A record from outside enters as one of the time that it was given, so that it stands in the merge with the others. Records of
the same time that the stage had taken before it are let pass first; the stage is polled no further than to the place.

Journals may end anywhere: the recorder of a session that died, or that goes on, has one ring further than another. What
there is is compared. A record that is missing counts as a difference where the refold has passed its time.
"""

from __future__ import annotations

import bisect
import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from procs import topology
from procs.fold.assembly import Bound, LoopSettings, World, heap_world, spec_of
from procs.fold.block import BATCH, FRAMES_A_POLL, INPUTS, LOG, R_DONE, R_INTERNAL_DUE, R_LOW, R_PROMISE, in_loc, out_loc
from procs.fold.loop import POLL_RECORDS, poll, poll_some
from procs.fold.plan import Plan
from procs.journal.beside import ModelSet
from procs.journal.comparing import LOG_RING, PIECE, Check, Difference, Kept, OrderCheck, RecordCheck, taken_by
from procs.journal.file import journal_path
from procs.memory import board
from procs.memory import model_channel as channel
from procs.research.backtest import Fold, Keeper, give_back, guard_of
from procs.research.watched import cut_off
from ringbuf.layout import CAPACITY, CURSOR, GATING, TAIL, WATERMARK, reader_line, views
from ringbuf.ring import I_HEAD, I_TIMED, O_KNOWN, O_TAIL
from trading.jit import Words
from trading.records import TS_END

FEED: Final = "feed"
TOLD: Final = "intake.feed"
"""When the feed told the time in the place of a silent receiver."""
MARKET: Final = ("market", "depth")
"""The rings that the feed writes and the others decide on."""

LOOK_EVERY: Final = 16
FRAMES: Final = 256
"""Let in before the other stages have their turn."""
ARENA_BYTES: Final = 64 << 20
"""Room for frames that the feed is to read: more than any profile's arena lets one frame have."""


@dataclass(slots=True)
class Session:
    """What a run left. `kept`: its journals by ring; `models`, `stopped`: what lies beside them (procs.journal.beside).

    `frames`: slots and bytes of the ring `frames`; None where they were not kept.
    """

    plan: Plan
    kept: dict[str, Kept]
    models: Sequence[ModelSet] = ()
    stopped: Mapping[int, int] = field(default_factory=dict)
    frames: Callable[[], Iterator[tuple[Words, bytes]]] | None = None

    @property
    def fed(self) -> bool:
        """Whether the feed is folded again: its source can be had again."""
        return self.plan.run.source == "generated" or (self.plan.live and self.frames is not None)

    @property
    def stages(self) -> list[topology.Stage]:
        """The stages that are folded again, in the order of the table."""
        return [stage for stage in self.plan.run.hot if stage.name != FEED or self.fed]

    @property
    def compared(self) -> list[str]:
        """The rings that are made anew and of which there is a journal."""
        made = {entry.name for stage in self.stages for entry in topology.outputs(stage.name)}
        made.discard(TOLD)  # it is what enters
        return [entry.name for entry in topology.RINGS if entry.name in made and entry.name in self.kept]

    def ended(self, stage: str) -> bool:
        """Whether all that a stage writes, its log aside, has come to its END in the journals."""
        log = topology.intake(stage)
        return all(self.kept[e.name].closed for e in topology.outputs(stage) if e is not log and e.name in self.kept)


@dataclass(slots=True)
class Result:
    """What became of one ring. `reached`: records that were compared and found equal; `total`: in its journal."""

    ring: str
    reached: int
    total: int
    difference: Difference | None

    @property
    def equal(self) -> bool:
        """Whether nothing differs, as far as there was something to compare."""
        return self.difference is None


Progress = Callable[[int, int], None]
"""Told (records compared, records in all journals)."""


class _Player:
    """Puts a ring's records from its journal into the ring, as its writer did."""

    def __init__(self, world: World, name: str, kept: Kept, upto: int, end: int) -> None:
        """`upto`: records to play; `end`: the watermark behind the last."""
        self.ctl, self.slots, _ = views(world.rings[name], topology.RING[name].record)
        self.kept, self.upto, self.end, self.tail = kept, upto, end, 0

    def push(self) -> int:
        """Write what there is room for; how much."""
        capacity = int(self.ctl[CAPACITY])
        lines = [reader_line(n) for n in range(len(topology.RING[self.kept_name].readers))]
        least = min((int(self.ctl[line + CURSOR]) for line in lines if self.ctl[line + GATING]), default=self.tail)
        count = min(self.upto - self.tail, capacity - (self.tail - least))
        begun = self.tail
        while self.tail < begun + count:
            row = self.tail & (capacity - 1)
            piece = self.kept.piece(self.tail, min(self.tail + capacity - row, begun + count))
            self.slots[row : row + len(piece)] = piece
            self.tail += len(piece)
        self.ctl[TAIL] = self.tail
        self.ctl[WATERMARK] = int(self.kept.words[self.tail, 0]) if self.tail < self.upto else self.end
        return self.tail - begun

    @property
    def kept_name(self) -> str:
        """The ring's name."""
        return self.kept.path.stem


@dataclass(slots=True)
class _Event:
    """Something that enters a stage when it has taken `at` records."""

    at: int
    enter: Callable[[], None]


class _Gate:
    """Polls a stage no further than to the next place at which something enters it from outside."""

    def __init__(self, bound: Bound, events: list[_Event], last: int | None) -> None:
        """`last`: no record is taken after so many; None: all are."""
        self.bound, self.events, self.last = bound, events[::-1], last
        self.batch = int(bound.block[BATCH])

    def taken(self) -> int:
        """Records taken so far, of all inputs."""
        return sum(int(in_loc(self.bound.block, r)[I_HEAD]) for r in range(self.bound.block[INPUTS]))

    def poll(self) -> int:
        """One turn; what was done."""
        b, taken, work = self.bound.block, self.taken(), 0
        while self.events and self.events[-1].at == taken != self.last:
            self.events.pop().enter()
            poll_some(b, 0)
            work += 1
        stops = [*(event.at for event in self.events[-1:]), *([] if self.last is None else [self.last])]
        if not stops:
            return work + int(poll(b))
        left = min(stops) - taken
        if left <= 0:
            return work
        whole = left >= self.batch
        b[BATCH] = self.batch if whole else 1
        return work + int(poll_some(b, min(POLL_RECORDS, left - self.batch + 1 if whole else left)))


class _Entry:
    """A ring from outside as a timed input: its records get the time that the log says, each at its place."""

    def __init__(self, world: World, bound: Bound, number: int, kept: Kept, log: Kept) -> None:
        self.ctl, self.slots, _ = views(world.rings[kept.path.stem], kept.recs.dtype)
        self.kept, self.times = kept, list[int]()
        in_loc(bound.block, number)[I_TIMED] = 1
        self.events: list[_Event] = []
        taken = 0
        for start in range(0, len(log), PIECE):
            rows = log.piece(start, start + PIECE + 1)
            counts, rows = taken_by(rows)[:PIECE], rows[:PIECE]
            before = taken + np.cumsum(counts) - counts
            taken += int(counts.sum())
            for row in np.flatnonzero(rows[:, LOG_RING] == number):
                self.times.append(int(rows[row, 0]))
                self.events.append(_Event(int(before[row]), self.enter))
        self.last = taken
        if len(self.times) > len(kept):  # the recorder died with the log further than this ring
            self.last = self.events[len(kept)].at
            del self.times[len(kept) :], self.events[len(kept) :]
        self.cut = self.last < taken
        self.tail = 0
        self.show()

    def show(self) -> None:
        """The next one comes at its own time; records of that time may come before it."""
        self.ctl[TAIL] = self.tail
        self.ctl[WATERMARK] = self.times[self.tail] + 1 if self.tail < len(self.times) else TS_END

    def enter(self) -> None:
        """Put the next record in."""
        row = self.slots[self.tail & (int(self.ctl[CAPACITY]) - 1)]
        row[:] = self.kept.piece(self.tail, self.tail + 1)[0]
        row[0] = self.times[self.tail]
        self.tail += 1
        self.show()


class _Frames:
    """The feed again: as many frames as the session had, and its END at the time that it had."""

    def __init__(self, session: Session, world: World, bound: Bound) -> None:
        self.bound, self.world = bound, world
        self.wire = None if session.frames is None else _Wire(world, session.frames())
        self.told = None if TOLD not in session.kept else _Told(world, bound, session.kept[TOLD])
        self.page = board.page(world.board, topology.stage_id(FEED))
        found = [session.kept[name] for name in MARKET if name in session.kept and len(session.kept[name])]
        self.ended = bool(found) and all(kept.closed for kept in found)
        self.frames = max((int(kept.words[-1, 1]) for kept in found), default=0) + (not self.ended)
        self.end_ns = int(found[0].words[-1, 0]) if found else 0

    def poll(self) -> int:
        """One turn; what was done."""
        left = self.frames - int(self.bound.state["source"][0]["frames"])
        if left <= 0:
            if not self.ended:
                return 0
            for name in MARKET:
                self.world.rings[name][WATERMARK] = max(int(self.world.rings[name][WATERMARK]), self.end_ns)
            self.page[board.DRAIN] = 1
        elif self.wire is not None:
            self.wire.put(left)
        if self.told is not None:
            self.told.put()
        self.bound.block[FRAMES_A_POLL] = max(min(left, FRAMES), 1)
        return int(poll(self.bound.block))


class _Told:
    """Puts the lines of the feed's intake log before it, as if a dead incarnation had written them: it says the same again."""

    def __init__(self, world: World, bound: Bound, kept: Kept) -> None:
        self.ctl, self.slots, _ = views(world.rings[TOLD], kept.recs.dtype)
        self.loc, self.kept = out_loc(bound.block, int(bound.block[LOG])), kept

    def put(self) -> None:
        """As many as there is room for."""
        capacity = int(self.ctl[CAPACITY])
        upto = min(len(self.kept), int(self.loc[O_TAIL]) + capacity // 2)
        for at in range(max(int(self.loc[O_KNOWN]), int(self.loc[O_TAIL])), upto):
            self.slots[at & (capacity - 1)] = self.kept.piece(at, at + 1)[0]
        self.loc[O_KNOWN] = max(int(self.loc[O_KNOWN]), upto)


class _Wire:
    """Puts frames into their ring and their bytes into the arena, as the receiver did; more once the feed has taken those."""

    def __init__(self, world: World, frames: Iterator[tuple[Words, bytes]]) -> None:
        entry = topology.RING["frames"]
        self.ctl, self.slots, self.recs = views(world.rings[entry.name], entry.record)
        self.cursor = reader_line(entry.reader_index(FEED)) + CURSOR
        assert world.arena is not None
        self.arena, self.frames, self.waiting, self.tail = world.arena, frames, next(frames, None), 0

    def put(self, most: int) -> None:
        """The next ones, at most so many."""
        if int(self.ctl[self.cursor]) < self.tail:
            return
        at, most = 0, min(most, FRAMES)
        while most and self.waiting is not None and at + len(self.waiting[1]) <= len(self.arena):
            slot, raw = self.waiting
            row = self.tail & (int(self.ctl[CAPACITY]) - 1)
            self.slots[row] = slot
            self.recs[row]["at"], self.recs[row]["length"] = at, len(raw)
            self.recs[row]["ts_origin_mono_ns"] = 0  # without it the feed reads no clock of its own
            self.arena[at : at + len(raw)] = np.frombuffer(raw, np.uint8)
            at, most, self.tail = at + len(raw), most - 1, self.tail + 1
            self.waiting = next(self.frames, None)
        self.ctl[TAIL] = self.tail


def refold(
    session: Session, folds: Mapping[str, Fold] | None = None, progress: Progress = lambda _, __: None
) -> list[Result]:
    """Fold a session again and compare every ring; `folds` take the new records of rings besides.

    Raises JournalError; RawFramesError, OSError where raw frames are played.
    A signal of the user's that does not come back here is cut off as a backtest does it (procs.research.backtest.run).
    """

    def begin() -> tuple[Words, Callable[[], list[Result]]]:
        modules: dict[str, Any] = {stage.name: importlib.import_module(stage.module) for stage in session.stages}
        world = heap_world({name: spec_of(module, session.plan) for name, module in modules.items()}, outside=frozenset())
        if session.models:
            world.models = np.zeros(channel.words_for(session.plan.symbols), np.int64)
            world.models[channel.SYMBOLS] = session.plan.symbols
        if session.frames is not None:
            world.arena = np.zeros(ARENA_BYTES, np.uint8)
        return guard_of(world), _Refold(session, world, modules, folds or {}, progress).run

    return cut_off(begin, session.plan.strategy, session.stopped)


class _Refold:
    """One go."""

    def __init__(
        self, session: Session, world: World, modules: dict[str, Any], folds: Mapping[str, Fold], progress: Progress
    ) -> None:
        self.session, self.world, self.progress = session, world, progress
        here = {topology.STAGE[name].part for name in modules}
        for entry in topology.RINGS:
            for line, reader in enumerate(entry.readers):
                if reader not in here:
                    world.rings[entry.name][reader_line(line) + GATING] = 0
        self.checks: dict[str, Check] = {name: self._check(name) for name in session.compared}
        self.keepers = [Keeper(world, name, _both(check.take, folds.get(name))) for name, check in self.checks.items()]
        self.stages: dict[str, Bound] = {
            name: module.build(session.plan, world, LoopSettings()) for name, module in modules.items()
        }
        self.players = [] if session.fed else self._players()
        self.polls: dict[str, Callable[[], int]] = {name: self._poll_of(name) for name in self.stages}

    def _check(self, ring: str) -> Check:
        kept, writer = self.session.kept[ring], topology.STAGE[topology.RING[ring].writer]
        return OrderCheck(kept, self.session.ended(writer.name)) if ring.startswith("intake.") else RecordCheck(kept)

    def _players(self) -> list[_Player]:
        kept = [(name, self.session.kept[name]) for name in MARKET]
        if all(one.closed for _, one in kept):
            return [_Player(self.world, name, one, len(one), TS_END) for name, one in kept]
        # one journal is further than the other: what lies behind the end of the shorter is not known of both
        cut = min((int(one.words[-1, 0]) if len(one) else 0) for _, one in kept)
        return [_Player(self.world, name, one, _before(one, cut), cut) for name, one in kept]

    def _poll_of(self, name: str) -> Callable[[], int]:
        bound, session = self.stages[name], self.session
        if name == FEED:
            return _Frames(session, self.world, bound).poll
        if name == "features" and session.models:
            words = self.world.models
            assert words is not None

            def publish(one: ModelSet) -> Callable[[], None]:
                return lambda: (channel.publish(words, one.images), None)[1]

            return _Gate(bound, [_Event(one.since, publish(one)) for one in session.models], None).poll
        log = topology.intake(name)
        outside = [entry.name for entry in topology.inputs(name) if entry.name in session.plan.run.outside]
        if log is None or not any(len(session.kept[ring]) for ring in outside if ring in session.kept):
            for ring in outside:  # nothing ever came
                self.world.rings[ring][WATERMARK] = TS_END
            return lambda: int(poll(bound.block))
        numbers = {entry.name: r for r, entry in enumerate(topology.inputs(name))}
        journal, ended = session.kept[log.name], session.ended(name)
        entries = [
            _Entry(self.world, bound, numbers[ring], session.kept[ring], journal) for ring in outside if ring in session.kept
        ]
        events = sorted((event for entry in entries for event in entry.events), key=lambda event: event.at)
        whole = ended and not any(entry.cut for entry in entries)
        return _Gate(bound, events, None if whole else min(entry.last for entry in entries)).poll

    def run(self) -> list[Result]:
        """To the end, or as far as the journals reach."""
        total, rounds = sum(check.total for check in self.checks.values()), 0
        while True:
            work = sum(player.push() for player in self.players)
            for name, bound in self.stages.items():
                if bound.registers[R_DONE]:
                    continue
                before = bound.registers[[R_LOW, R_PROMISE, R_INTERNAL_DUE]]
                work += self.polls[name]()
                work += bool((bound.registers[[R_LOW, R_PROMISE, R_INTERNAL_DUE]] != before).any())
                give_back(bound.block)
            for keeper in self.keepers:
                keeper.take()
            rounds += 1
            if rounds % LOOK_EVERY == 0:
                self.progress(sum(check.same for check in self.checks.values()), total)
            if work == 0 or all(bound.registers[R_DONE] for bound in self.stages.values()):
                break
        return [self._result(name, check) for name, check in self.checks.items()]

    def _result(self, ring: str, check: Check) -> Result:
        """A record that is missing where the refold has said that nothing so early follows is a difference."""
        check.finish()
        difference, kept = check.difference, self.session.kept[ring]
        if difference is None and check.same < check.total:
            passed = bool(self.stages[topology.RING[ring].writer].registers[R_DONE])
            if isinstance(check, RecordCheck) and not passed:
                passed = int(kept.words[check.same, 0]) < int(self.world.rings[ring][WATERMARK])
            if passed:
                difference = Difference(check.same, "", True, False)
        return Result(ring, check.same, check.total, difference)


def _before(kept: Kept, ts_ns: int) -> int:
    """How many records lie before a time."""
    return bisect.bisect_left(range(len(kept)), ts_ns, key=lambda row: int(kept.words[row, 0]))


def _both(take: Fold, other: Fold | None) -> Fold:
    if other is None:
        return take

    def both(recs: Any) -> None:
        take(recs)
        other(recs)

    return both


def opened(folder: Path) -> dict[str, Kept]:
    """The journals of a folder, by ring, as they stand now. Raises JournalError."""
    paths = ((entry, journal_path(folder, entry.name)) for entry in topology.RINGS)
    return {entry.name: Kept.of(path, entry.record) for entry, path in paths if path.exists()}
