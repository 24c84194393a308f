"""What the rings promise each other: times that were shown hold, also across crashes, halts and early ends; and who sleeps
or stops leaves nobody waiting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fold_world import STAGES, Session, small_market

from procs import topology
from procs.fold.assembly import LoopSettings, World, heap_world
from procs.fold.block import BLOCK, FEEDBACK, R_ARMED, R_BLOCKED, R_WAIT_NS
from procs.fold.checkpoint import save
from procs.fold.group import group_words, settle
from procs.journal.file import JournalFull, JournalReader, JournalWriter, journal_path
from procs.memory import board
from procs.profiles.config import load_profile
from procs.stages import recorder
from ringbuf.layout import ARMED_WRITER, PROMISE, PROMISE_GIVEN, WATERMARK
from ringbuf.plain import PlainWriter
from trading.records import CONTROL_RECORD, ORDER_RECORD, Kind

MARKET = {"generator.events_per_s": 40.0, "exchange.latency.entry_min_ms": 0.5, "exchange.latency.response_min_ms": 0.5}


def said(kind: Kind) -> Any:
    """A CONTROL_RECORD."""
    rec = np.zeros(1, CONTROL_RECORD)
    rec["kind"], rec["ts_ns"], rec["cause_ring"], rec["symbol"] = int(kind), 1, -1, -1
    return rec


class Watch:
    """Notes what a stage has shown before a poll, and holds it to that after."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.seen = 0

    def poll(self, name: str) -> int:
        """One poll, checked."""
        session, bound = self.session, self.session.stages[name]
        rings = [entry for entry in topology.outputs(name) if not entry.name.startswith("intake.")]
        pages = {entry.name: session.world.rings[entry.name][:8].copy() for entry in rings}
        tails = {entry.name: session.tail(entry.name) for entry in rings}
        work = session.poll(name)
        for number, entry in enumerate(rings):
            words, page = session.world.rings[entry.name], pages[entry.name]
            assert words[WATERMARK] >= page[WATERMARK], f"{entry.name}: the watermark fell"
            assert words[PROMISE_GIVEN] >= page[PROMISE_GIVEN], f"{entry.name}: a promise behind fewer reports"
            new = np.arange(tails[entry.name], session.tail(entry.name)) % entry.capacity
            recs = words[512 : 512 + entry.capacity * entry.record.itemsize // 8].view(entry.record)[new]
            self.seen += len(recs)
            assert (recs["ts_ns"] >= page[WATERMARK]).all(), f"{entry.name}: a record before the watermark"
            if number == 0 and page[PROMISE_GIVEN] and bound.block[FEEDBACK] >= 0:
                feedback = topology.inputs(name)[int(bound.block[FEEDBACK])]
                late = recs[recs["cause_ring"] != feedback.ring_id]
                assert (late["ts_ns"] >= page[PROMISE]).all(), f"{entry.name}: a record before the promise"
        return work


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (2, 3))])
def test_no_record_comes_before_what_was_shown(seed: int) -> None:
    """Whatever the schedule, with halts and resumes at any moment and stages that die: no record is earlier than the watermark
    that its ring showed, none but an answer to a report earlier than its writer's promise, and neither ever goes back."""
    rng = np.random.default_rng(seed)
    session = Session(small_market(15.0, **MARKET), LoopSettings(checkpoint_every=int(rng.integers(1, 400))))
    operator = PlainWriter(session.world.rings["control"], CONTROL_RECORD, session.world.board[: board.DOORBELL_WORDS])
    watch, idle, words = Watch(session), 0, 0
    while not all(session.done(name) for name in STAGES):
        name = STAGES[rng.integers(len(STAGES))]
        work = watch.poll(name)
        if rng.random() < 0.1:
            session.crash(name)
        else:
            session.settle(name, work)
        if rng.random() < 0.02:
            words += operator.try_push(said(Kind.HALT))
            words += operator.try_push(said(Kind.RESUME))
        if rng.random() < 0.5:
            session.record()
        idle = 0 if work else idle + 1
        assert idle < 5000, "nobody can go on"
    for name in STAGES:
        save(session.stages[name].block)
    session.record()
    assert session.diverged() == 0
    assert words > 10 and watch.seen > 1000
    assert [line for line in session.unread() if " control" not in line] == []
    assert int(session.stages["risk"].state["glob"]["halted"][0]) in (0, 1)


def test_a_halt_takes_effect_in_a_silent_market() -> None:
    """An operator's word is taken as soon as the loop has caught up with what was promised; it waits for no next record."""
    session = Session(small_market(15.0, **MARKET))
    operator = PlainWriter(session.world.rings["control"], CONTROL_RECORD, session.world.board[: board.DOORBELL_WORDS])
    session.poll("feed")
    for _ in range(400):
        for name in STAGES[1:]:
            session.settle(name, session.poll(name))
        session.record()
    operator.try_push(said(Kind.HALT))
    for _ in range(400):
        for name in STAGES[1:]:
            session.settle(name, session.poll(name))
        session.record()
    assert int(session.stages["risk"].state["glob"]["halted"][0]) == 1


def test_a_stream_that_is_ended_early_ends_after_what_was_shown_of_it() -> None:
    """A paced feed has shown the next frame's time when it is told to end: END is not before that."""
    session = Session(small_market(15.0, **{"source.speed": 0.001}))
    session.poll("feed")
    shown = int(session.world.rings["market"][WATERMARK])
    session.drain()
    Watch(session).poll("feed")
    assert session.done("feed") and shown > 0
    session.record()
    for ring in ("market", "depth"):
        last = session.kept()[ring][-1]
        assert last["kind"] == Kind.END and last["ts_ns"] >= shown


def test_an_output_found_full_after_arming_is_said_before_sleeping() -> None:
    """A stage that arms for its inputs, then finds an output full, says so to that ring before it sleeps: its reader wakes it."""
    session = Session(small_market(15.0), LoopSettings(strategy=BLOCK, spin=1))
    bound = session.stages["router"]
    page = board.page(session.world.board, topology.stage_id("router"))
    bound.registers[R_WAIT_NS], bound.registers[R_BLOCKED] = 1000, 0
    group = group_words([bound.block])
    idle = settle(group, 0, 0)
    assert bound.registers[R_ARMED] == 0 and page[board.SLEEPS] == 0
    bound.registers[R_BLOCKED] = 1  # the poll after arming found the wire full
    idle = settle(group, 0, idle)
    assert page[board.SLEEPS] == 0
    idle = settle(group, 0, idle)
    assert session.world.rings["wire"][ARMED_WRITER] == 1
    settle(group, 0, idle)
    assert page[board.SLEEPS] == 1


class Attached:
    """What pipeline.attach gives, over rings on the heap."""

    def __init__(self, world: World) -> None:
        self.world, self.board_words, self.models = world, world.board, world.models

    def ring(self, name: str) -> Any:
        """A ring's words."""
        return self.world.rings[name]


@pytest.fixture
def finished_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[World, dict[str, Any]]:
    """All stages have finished; one order is not journaled yet."""
    world = heap_world({})
    for stage in topology.STAGES:
        board.page(world.board, stage.stage_id)[board.FINISHED] = int(stage.hot)
    rec = np.zeros(1, ORDER_RECORD)
    rec["kind"] = int(Kind.NEW)
    PlainWriter(world.rings["orders"], ORDER_RECORD, world.board[: board.DOORBELL_WORDS]).try_push(rec)
    monkeypatch.setattr(recorder.pipeline, "attach", lambda instance: Attached(world))
    monkeypatch.setattr(recorder.signal, "signal", lambda *_: None)
    monkeypatch.setattr(recorder, "RETRY_NS", 1)
    return world, {"instance": "x", "journal_dir": str(tmp_path)}


def test_a_full_disk_at_the_end_loses_nothing(
    finished_run: tuple[World, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recorder does not call it an end while the disk is full: it tries until the last records are written."""
    world, runtime = finished_run
    append, refusals = JournalWriter.append, [3]

    def full_at_first(journal: JournalWriter, slots: Any) -> int:
        if refusals[0]:
            refusals[0] -= 1
            raise JournalFull("no room", 0)
        return append(journal, slots)

    monkeypatch.setattr(JournalWriter, "append", full_at_first)
    assert recorder.main(load_profile("paper", {}), runtime) == 0
    assert refusals == [0]
    assert len(JournalReader(journal_path(tmp_path, "orders")).records()) == 1
    page = board.page(world.board, topology.stage_id("recorder"))
    assert page[board.FINISHED] == 1 and page[board.FAULT] == 0


def test_a_recorder_that_is_stopped_writes_what_is_there(finished_run: tuple[World, dict[str, Any]], tmp_path: Path) -> None:
    """Told to stop, it journals what had been published before it goes."""
    world, runtime = finished_run
    board.page(world.board, topology.stage_id("recorder"))[board.STOP] = 1
    assert recorder.main(load_profile("paper", {}), runtime) == 0
    assert len(JournalReader(journal_path(tmp_path, "orders")).records()) == 1


def test_a_cursor_never_goes_back(tmp_path: Path) -> None:
    """A journal that is shorter than what its cursor says is refused, and the ring's slots stay given back."""
    world = heap_world({})
    words = world.rings["orders"]
    track = recorder.Track(topology.RING["orders"], words, world.board[: board.DOORBELL_WORDS], tmp_path, "x", 0)
    writer = PlainWriter(words, ORDER_RECORD, world.board[: board.DOORBELL_WORDS])
    writer.try_push(np.zeros(1, ORDER_RECORD))
    track.take(0)
    track.journal.close()
    journal_path(tmp_path, "orders").unlink()
    writer.try_push(np.zeros(1, ORDER_RECORD))
    again = recorder.Track(topology.RING["orders"], words, world.board[: board.DOORBELL_WORDS], tmp_path, "x", 0)
    with pytest.raises(Exception, match="sequence"):
        again.take(0)
    assert again.reader.head == 1
