"""The recorder process over real rings: the wire becomes files, the frames ring has no journal, its cursor follows the disk."""

from __future__ import annotations

import gzip
import signal
import types
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from procs import board, pipeline, recorder, topology
from procs.cli.launch import Instance
from procs.config import Profile, load_profile
from procs.frame_log import segments
from procs.frame_log_format import Taken
from procs.recorder import RingFrames
from ringbuf import layout
from ringbuf.plain_writer import PlainWriter
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
            assert recorder.main(profile, {**runtime, "spool": None, "live": True}) == 0
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
    from procs.config import ConfigError

    with pytest.raises(ConfigError, match="live market data needs symbols"):
        load_profile("paper", {"source.kind": "live", "symbols": []})
    profile = profile_for(tmp_path)
    assert recorder.keeps_raw(profile) and recorder.raw_folder(profile) == tmp_path
    assert recorder.raw_names(profile) == [("binance_spot", "BTCUSDT"), ("binance_usdm", "ETHUSDT")]
    paper = msgspec.structs.replace(profile, world="paper")
    assert not recorder.keeps_raw(paper)
    assert recorder.keeps_raw(msgspec.structs.replace(paper, record=msgspec.structs.replace(paper.record, raw=True)))
