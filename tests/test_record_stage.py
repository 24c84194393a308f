"""The recorder process over real rings: the wire becomes files, the frames ring has no journal, its cursor follows the disk."""

from __future__ import annotations

import errno
import gzip
import json
import os
import signal
import types
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from procs import topology
from procs.journal.file import JournalReader, JournalWriter, journal_path
from procs.memory import board
from procs.memory import segments as pipeline
from procs.profiles.config import load_profile
from procs.profiles.schema import Profile
from procs.recordings.frame_log import FrameLogError, segments
from procs.recordings.frame_log_format import Taken
from procs.stages import recorder
from procs.stages.recorder import RingFrames
from procs.supervision.instance import Instance
from ringbuf import layout
from ringbuf.plain import PlainWriter
from trading.records import FRAME_RECORD, Kind

T0 = 1_723_161_253_937_085_768


class FramesRing:
    """A ring of frames and its arena on the heap, and their one writer."""

    def __init__(self, words: Any, arena_bytes: int, doorbells: Any) -> None:
        self.words, self.doorbells = words, doorbells
        self.arena = np.zeros(arena_bytes, np.uint8)
        self._writer = PlainWriter(words, FRAME_RECORD, doorbells)
        self._at = 0

    def push(self, raw: bytes, symbol: int, kind: Kind = Kind.FRAME) -> bool:
        """One frame; False where the ring is full. The arena begins anew where a frame would not lie in one piece."""
        if self._at + len(raw) > self.arena.size:
            self._at = 0
        self.arena[self._at : self._at + len(raw)] = np.frombuffer(raw, np.uint8)
        record = np.zeros(1, FRAME_RECORD)
        seq = self._writer.next_sequence
        record["ts_ns"], record["kind"], record["symbol"], record["flags"] = T0 + seq, kind, symbol, seq % 2
        record["at"], record["length"] = self._at, len(raw)
        if not self._writer.try_push(record):
            return False
        self._at += len(raw)
        return True


def profile_for(folder: Path, **record: Any) -> Profile:
    """A profile that records two symbols."""
    wanted = {
        "world": "record", "source.kind": "live", "source.files": [], "instance": "test-recorder", "pipeline.journal": False,
        "symbols": [{"name": "BTCUSDT"}, {"name": "ETHUSDT", "market": "binance_usdm"}], "record.folder": str(folder),
    }  # fmt: skip
    return load_profile("paper", {**wanted, **{f"record.{key}": value for key, value in record.items()}})


def test_frames_are_taken_in_order_across_the_end_of_the_slots() -> None:
    """Twice as many frames as the ring has slots, taken in odd batches: each once, with the bytes that it was pushed with; what
    is not released keeps its slot."""
    entry = topology.RING["frames"]
    words = np.zeros(layout.payload_bytes(entry.capacity, entry.record) // 8 + 64, np.int64)
    bells = np.zeros(board.DOORBELL_WORDS, np.int64)
    pipeline.format_ring(words, entry, without=("feed",))
    ring = FramesRing(words, 1 << 20, bells)
    source = RingFrames(words, ring.arena, bells)
    seen: list[Taken] = []
    total = 2 * entry.capacity + 77
    for n in range(total):
        assert ring.push(b'{"n":%d}' % n, n % 2)
        if n % 1000 == 999:
            seen += source.take(997)
            source.release(seen[-1].seq + 1)
    while found := source.take(64):
        seen += found
        source.release(found[-1].seq + 1)
    assert [(t.seq, t.raw, t.symbol, t.line) for t in seen] == [(n, b'{"n":%d}' % n, n % 2, n % 2) for n in range(total)]
    for n in range(entry.capacity):
        assert ring.push(b"{}", 0), n
    source.take(100)
    assert not ring.push(b"{}", 0)
    source.release(total + 100)
    assert ring.push(b"{}", 0)
    assert RingFrames(words, ring.arena, bells).take(1)[0].seq == total + 100


def test_the_stage_writes_the_wire_and_no_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In world `record` the process ends with every frame on disk, the cursor at the tail, and no journal of any ring; the
    incarnation after a kill goes on with the same files."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    profile = profile_for(tmp_path / "raw", flush_s=0.01)
    instance = Instance(profile, str(tmp_path / "journal" / "run-1"), None)
    instance.create()
    assert instance.memory is not None
    memory = instance.memory
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}  # the stage installs its own
    arena = memory.segments["frames"]
    try:
        ring = FramesRing(memory.ring("frames"), 1 << 20, memory.board_words[: board.DOORBELL_WORDS])
        arena = memory.segments["frames"]
        memory.segments["frames"] = types.SimpleNamespace(words=ring.arena.view(np.int64))  # type: ignore[assignment]
        monkeypatch.setattr(pipeline, "attach", lambda _: memory)
        expected: dict[int, list[bytes]] = {0: [], 1: []}
        feed = board.page(memory.board_words, topology.stage_id("feed"))
        receiver = board.page(memory.board_words, topology.stage_id("receiver"))
        page = board.page(memory.board_words, topology.stage_id("recorder"))
        reader = layout.reader_line(topology.RING["frames"].reader_index("recorder"))
        for incarnation in (1, 2):
            for n in range(500):
                raw = b'{"run":%d,"n":%d}' % (incarnation, n)
                expected[n % 2].append(b"%d %s" % (T0 + 500 * (incarnation - 1) + n, raw))
                assert ring.push(raw, n % 2)
            feed[board.FINISHED] = receiver[board.FINISHED] = 1
            runtime = {"instance": profile.instance, "journal_dir": instance.journal_dir, "incarnation": incarnation}
            assert recorder.main(profile, {**runtime, "spool": None}) == 0
            assert page[board.FINISHED] == 1 and page[board.FAULT] == 0
            assert memory.ring("frames")[reader + layout.CURSOR] == 500 * incarnation
        for symbol, folder in ((0, "binance_spot/BTCUSDT"), (1, "binance_usdm/ETHUSDT")):
            (path,) = segments(tmp_path / "raw" / folder)
            assert gzip.decompress(path.read_bytes()).splitlines() == expected[symbol]
        assert not (tmp_path / "journal").exists()
        assert page[board.RECORDS] == 1000 and page[board.RECOVERIES] == 1
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        memory.segments["frames"] = arena
        instance.destroy()


def test_a_track_that_cannot_be_written_holds_up_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One journal cannot be opened, another has a failing disk, a third a full one: wire and other journals are taken, the
    fault is shown and said once each; when the disk is well again everything is written, whole."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(recorder, "RETRY_NS", 0)
    profile = msgspec.structs.replace(profile_for(tmp_path / "raw", flush_s=0.0001), pipeline=load_profile("paper").pipeline)
    folder = tmp_path / "journal" / "run-1"
    folder.mkdir(parents=True)
    instance = Instance(profile, str(folder), None)
    instance.create()
    assert instance.memory is not None
    memory, doorbells = instance.memory, instance.memory.board_words[: board.DOORBELL_WORDS]
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    arena = memory.segments["frames"]
    rings = ("market", "depth", "signals", "orders")
    real, failing = os.pwrite, {"depth": errno.EIO, "signals": errno.ENOSPC}

    def pwrite(fd: int, data: Any, at: int) -> int:
        name = Path(os.readlink(f"/proc/self/fd/{fd}")).name.removesuffix(".journal")
        if name in failing:
            raise OSError(failing[name], os.strerror(failing[name]))
        return real(fd, data, at)

    try:
        ring = FramesRing(memory.ring("frames"), 1 << 20, doorbells)
        memory.segments["frames"] = types.SimpleNamespace(words=ring.arena.view(np.int64))  # type: ignore[assignment]
        monkeypatch.setattr(pipeline, "attach", lambda _: memory)
        monkeypatch.setattr(os, "pwrite", pwrite)
        for n in range(100):
            assert ring.push(b'{"n":%d}' % n, n % 2)
        for name in rings:
            writer = PlainWriter(memory.ring(name), topology.RING[name].record, doorbells)
            for n in range(30):
                record = np.zeros(1, topology.RING[name].record)
                record["ts_ns"] = T0 + n
                assert writer.try_push(record)
        journal_path(folder, "market").mkdir(parents=True)
        page = board.page(memory.board_words, topology.stage_id("recorder"))
        for name in ("feed", "receiver"):
            board.page(memory.board_words, topology.stage_id(name))[board.FINISHED] = 1
        seen: list[tuple[int, ...]] = []

        def cursors() -> tuple[int, ...]:
            return tuple(
                int(memory.ring(name)[layout.reader_line(topology.RING[name].reader_index("recorder")) + layout.CURSOR])
                for name in ("frames", *rings)
            )

        def sleep_on(*_: Any) -> None:
            seen.append((int(page[board.FAULT]), *cursors()))
            if len(seen) == 5:
                journal_path(folder, "market").rmdir()
                failing.clear()

        monkeypatch.setattr(recorder, "sleep_on", sleep_on)
        runtime = {"instance": profile.instance, "journal_dir": str(folder), "incarnation": 1, "spool": None}
        assert recorder.main(profile, runtime) == 0
        assert seen[1:5] == [(recorder.FAULT_DISK, 100, 0, 0, 0, 30)] * 4
        assert page[board.FINISHED] == 1 and page[board.FAULT] == 0 and cursors() == (100, 30, 30, 30, 30)
        for name in rings:
            assert len(JournalReader(journal_path(folder, name)).records()) == 30
        said = capsys.readouterr().err
        for words in ("market.journal: Is a directory", "Input/output error", "No space left on device"):
            assert said.count(words) == 1
        assert said.count("it can be written again") == 3
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        memory.segments["frames"] = arena
        instance.destroy()


@pytest.mark.parametrize(("kind", "wanted"), [("live", {"orders", "wire", "executions", "control"}), ("generated", set())])
def test_what_orders_came_of_is_on_disk_at_once_when_the_market_is_live(
    kind: str, wanted: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stage itself syncs the journals of orders, wire, executions and control with every append on live market data, and none
    of a run that can be computed again; at its end it syncs all."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    source = {"source.kind": kind, "source.files": []}
    profile = load_profile("paper", {**source, "instance": f"test-durable-{kind}", "symbols": [{"name": "BTCUSDT"}]})
    folder = tmp_path / "journal" / "run-1"
    folder.mkdir(parents=True)
    instance = Instance(profile, str(folder), None)
    instance.create()
    assert instance.memory is not None
    memory = instance.memory
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    synced: set[str] = set()
    real = JournalWriter.sync

    def sync(writer: JournalWriter) -> None:
        if not ended:
            synced.add(writer.header.ring)
        real(writer)

    def conclude(lane: recorder.Lane, now_ns: int) -> int:
        ended.append(True)
        return real_conclude(lane, now_ns)

    ended: list[bool] = []
    real_conclude = recorder.Lane.conclude
    try:
        monkeypatch.setattr(JournalWriter, "sync", sync)
        monkeypatch.setattr(recorder.Lane, "conclude", conclude)
        monkeypatch.setattr(pipeline, "attach", lambda _: memory)
        for entry in recorder.journalled(profile):
            words = memory.ring(entry.name)
            ctl, slots, recs = layout.views(words, entry.record)
            recs[0]["ts_ns"] = T0
            slots[0, -1] = 1
            ctl[layout.TAIL] = 1
        for stage in topology.Run.of(profile).stages:
            board.page(memory.board_words, stage.stage_id)[board.FINISHED] = 1
        assert recorder.main(profile, {**instance.runtime, "instance": profile.instance, "incarnation": 1}) == 0
        assert synced == wanted
        for entry in recorder.journalled(profile):
            assert len(JournalReader(journal_path(folder, entry.name)).records()) == 1
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        instance.destroy()


def test_what_cannot_be_written_at_the_end_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    """A track that fails to the last costs only what it holds: it is said, and the others are closed."""

    class Broken:
        """A disk that is gone."""

        def take(self, now_ns: int, *, last: bool = False) -> int:
            """Fails."""
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

        def close(self) -> None:
            """Fails, too."""
            raise FrameLogError("cannot be closed")

    lane = recorder.Lane(Broken)
    assert lane.take(1) == 0 and lane.fault == recorder.FAULT_DISK
    assert lane.take(2) == 0 and lane.conclude(3) == 0
    said = capsys.readouterr().err
    assert said.count("Read-only file system") == 1 and "is not recorded" in said and "cannot be closed" in said


def test_a_venue_with_a_typed_decoder_names_its_symbols(tmp_path: Path) -> None:
    """Each file says how the venue writes the symbol, its tick and lot, and the levels asked for; Binance's need no word."""
    typed = {"market": "kraken", "venue_name": "BTC/USD", "tick_size": "0.1", "lot_size": "0.00000001", "step_size": "0.0001"}
    profile = load_profile(
        "paper",
        {"world": "record", "source.kind": "live", "source.files": [], "live.snapshot_levels": 100,
         "symbols": [{"name": "BTCUSD", **typed}, {"name": "BTCUSDT"}]},
    )  # fmt: skip
    first, second = recorder.raw_heads(profile)
    assert second == b"" and json.loads(first) == {
        "scalper": "file", "s": "BTCUSD", "market": "kraken", "venue_name": "BTC/USD", "tick": "0.1", "lot": "0.00000001",
        "step": "0.0001", "levels": 100,
    }  # fmt: skip


def test_who_gates_the_frames_ring() -> None:
    """The recorder holds the receiver up only where it records the wire, and the other rings only where it keeps journals."""
    gates = {}
    for raw in (False, True):
        for journal in (False, True):
            memory = pipeline.create("test-gates", pipeline.Placement(), journal=journal, raw=raw)
            try:
                gates[raw, journal] = tuple(
                    int(memory.ring(name)[layout.reader_line(topology.RING[name].reader_index("recorder")) + layout.GATING])
                    for name in ("frames", "market")
                )
            finally:
                memory.destroy()
    assert gates == {(raw, journal): (raw, journal) for raw in (False, True) for journal in (False, True)}


def test_a_live_profile_needs_symbols(tmp_path: Path) -> None:
    """Live data without a symbol is refused by name; a folder is made absolute."""
    from procs.profiles.config import ConfigError

    with pytest.raises(ConfigError, match="live market data needs symbols"):
        load_profile("paper", {"source.kind": "live", "symbols": []})
    profile = profile_for(tmp_path)
    assert recorder.keeps_raw(profile) and recorder.raw_folder(profile) == tmp_path
    assert recorder.raw_names(profile) == [("binance_spot", "BTCUSDT"), ("binance_usdm", "ETHUSDT")]
    paper = msgspec.structs.replace(profile, world="paper")
    assert not recorder.keeps_raw(paper)
    assert recorder.keeps_raw(msgspec.structs.replace(paper, record=msgspec.structs.replace(paper.record, raw=True)))
