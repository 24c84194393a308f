"""The stage as a process over a pipeline's own segments: ready, reading, resyncing, killed, restarted, stopped."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from receiver_world import TinyBinance, TinyServer, until

from procs import rundir, topology
from procs.memory import board
from procs.memory import segments as pipeline
from procs.memory.arena import ARENA, arena_bytes, arena_view, create_arena
from procs.profiles.schema import EndpointSettings, LiveSettings, Profile, SourceSettings, SymbolSettings
from procs.receiver import markets, stage
from procs.receiver.line_table import read_table
from ringbuf import layout
from ringbuf.layout import CURSOR, WATERMARK, reader_line
from ringbuf.plain import PlainWriter
from trading.records import FRAME_RECORD, RESYNC_RECORD, Kind
from trading.venues import registry

NAME = "t-receiver"


class Pipeline:
    """The segments of a live pipeline of which only the receiver runs; the test is its feed."""

    def __init__(self, port: int) -> None:
        url = f"127.0.0.1:{port}"
        self.profile = Profile(
            instance=NAME,
            source=SourceSettings(kind="live"),
            symbols=(SymbolSettings(name="S0USD"), SymbolSettings(name="S1USD")),
            live=LiveSettings(
                endpoints=(EndpointSettings("binance_spot", f"ws://{url}", f"http://{url}"),), arena_mb=1, backoff_min_ms=20
            ),
        )
        self.memory = pipeline.create(NAME, pipeline.Placement(), stages=("feed", "receiver"))
        self.memory.segments[ARENA] = create_arena(NAME, arena_bytes(self.profile))
        self.page = board.page(self.memory.board_words, topology.stage_id("receiver"))
        self.ctl, _, self.recs = layout.views(self.memory.ring("frames"), FRAME_RECORD)
        self.arena = arena_view(self.memory.segments[ARENA])
        bells = self.memory.board_words[: board.DOORBELL_WORDS]
        self.resyncs = PlainWriter(self.memory.ring("resync"), RESYNC_RECORD, bells)
        self.head = 0
        self.pid = 0
        self.incarnation = 0

    def spawn(self) -> None:
        """Fork the receiver."""
        self.incarnation += 1
        self.page[board.READY] = self.page[board.STOP] = 0
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            with contextlib.suppress(BaseException):
                code = stage.main(self.profile, {"instance": NAME, "incarnation": self.incarnation, "cores": {}})
            os._exit(code)

    def end(self, number: int = signal.SIGKILL) -> int:
        """Signal it and reap it; its exit code, or minus the signal."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)
        _, status = os.waitpid(self.pid, 0)
        self.pid = 0
        return os.waitstatus_to_exitcode(status)

    def read(self) -> list[tuple[Kind, int, bytes]]:
        """What is new on the frames ring."""
        found = []
        while (rec := self.recs[self.head & (self.recs.size - 2)])["seq"] == self.head + 1:
            at, length = int(rec["at"]), int(rec["length"])
            found.append((Kind(int(rec["kind"])), int(rec["symbol"]), self.arena[at : at + length].tobytes()))
            self.head += 1
        self.ctl[reader_line(topology.RING["frames"].reader_index("feed")) + CURSOR] = self.head
        return found

    def ask(self, kind: Kind, symbol: int, update_id: int) -> None:
        """Write to the resync ring."""
        rec = np.zeros(1, RESYNC_RECORD)
        rec["kind"], rec["symbol"], rec["update_id"] = int(kind), symbol, update_id
        assert self.resyncs.try_push(rec)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run and state directories of its own, the small venue, compiled kernels."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(registry, "venue_class", lambda market: TinyBinance)
    stage.warm(Profile())
    yield


def run(body: Callable[[TinyServer, Pipeline], Awaitable[Any]]) -> None:
    """One test with a server and a pipeline."""

    async def whole() -> None:
        async with asyncio.timeout(120), TinyServer() as server:
            server.pages = {"/time": [(200, {}, str(time.time_ns()).encode())], "/depth": [(200, {}, b'{"lastUpdateId":5}')]}
            pipe = Pipeline(server.port)
            try:
                await body(server, pipe)
            finally:
                if pipe.pid:
                    pipe.end()
                pipe.memory.destroy()

    asyncio.run(whole())


@pytest.mark.usefixtures("place")
def test_a_receivers_life() -> None:
    """Frames, a snapshot on request, an odd frame, promises and figures; then kill -9, a second life, and an orderly stop."""

    async def body(server: TinyServer, pipe: Pipeline) -> None:
        seen: list[tuple[Kind, int, bytes]] = []

        def got(kind: Kind, raw: bytes = b"") -> int:
            seen.extend(pipe.read())
            return sum(what is kind and raw in found for what, _, found in seen)

        pipe.spawn()
        await until(lambda: got(Kind.LINE_UP) == 2)
        assert pipe.page[board.READY] == 1 and pipe.page[board.PID] == pipe.pid
        await server.sockets[0].send_str('{"s":1,"n":1}')
        await until(lambda: got(Kind.FRAME, b'{"s":1,"n":1}') == 1)
        pipe.ask(Kind.WANT_SNAPSHOT, 1, 5)
        await until(lambda: got(Kind.FRAME, b"lastUpdateId") == 1)
        pipe.ask(Kind.ODD_FRAME, 1, pipe.head - 1)
        await until(lambda: pipe.page[board.MALFORMED] == 1)
        mark, beat = int(pipe.ctl[WATERMARK]), int(pipe.page[board.HEARTBEAT])
        await until(lambda: pipe.ctl[WATERMARK] > mark and pipe.page[board.HEARTBEAT] > beat + 5)
        table: dict[str, Any] | None = None
        while table is None:
            await until(lambda: True)
            table = read_table(rundir.run_dir(NAME))
        assert table["venues"][0]["venue"] == "binance_spot" and table["pid"] == pipe.pid

        assert pipe.end() == -signal.SIGKILL
        seen.clear()
        pipe.spawn()
        await until(lambda: got(Kind.LINE_UP) == 2)
        assert [kind for kind, *_ in seen][:4] == [Kind.LINE_DOWN] * 4 and pipe.page[board.RECOVERIES] == 1
        await server.sockets[1].send_str('{"s":0,"n":2}')
        await until(lambda: got(Kind.FRAME, b'"n":2') == 1)
        pipe.page[board.STOP] = 1
        await until(lambda: server.sockets[1].closed)
        assert pipe.end(0) == 0
        assert got(Kind.LINE_DOWN) == 6

    run(body)


@pytest.mark.usefixtures("place")
def test_sigterm_is_an_orderly_end_and_one_writer_is_enough() -> None:
    """While a receiver lives a second one leaves with a sentence; SIGTERM ends the first with code 0."""

    async def body(server: TinyServer, pipe: Pipeline) -> None:
        pipe.spawn()
        await until(lambda: pipe.page[board.READY])
        first = pipe.pid
        pipe.spawn()
        assert pipe.end(0) == 1
        pipe.pid = first
        assert pipe.end(signal.SIGTERM) == 0

    run(body)


@pytest.mark.usefixtures("place")
def test_it_leaves_when_the_feed_has_ended() -> None:
    """The pipeline drains: the feed is FINISHED, so is the receiver; another incarnation has nothing to do."""

    async def body(server: TinyServer, pipe: Pipeline) -> None:
        pipe.spawn()
        await until(lambda: pipe.page[board.READY])
        board.page(pipe.memory.board_words, topology.stage_id("feed"))[board.FINISHED] = 1
        await until(lambda: pipe.page[board.FINISHED])
        assert pipe.end(0) == 0
        pipe.spawn()
        assert pipe.end(0) == 0

    run(body)


@pytest.mark.usefixtures("place")
def test_a_venue_that_cannot_be_built_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process says which and leaves with code 1."""

    async def body(server: TinyServer, pipe: Pipeline) -> None:
        monkeypatch.setattr(stage, "MAX_LINE", 0)
        pipe.spawn()
        assert pipe.end(0) == 1 and pipe.page[board.FAULT] == stage.FAULT_VENUE

    run(body)


def test_markets_of_a_profile() -> None:
    """Symbols go to their market with their index; endpoints replace a venue's addresses, later entries the earlier."""
    profile = Profile(
        symbols=(SymbolSettings("A"), SymbolSettings("B", market="kraken", venue_name="B/USD"), SymbolSettings("C")),
        live=LiveSettings(
            venue="okx",
            endpoints=(EndpointSettings("okx", "ws://a", "http://a"), EndpointSettings("", rest="http://b")),
        ),
    )
    found = markets.by_market(profile)
    assert {market: [(s.index, s.venue_name) for s in of] for market, of in found.items()} == {
        "okx": [(0, "A"), (2, "C")],
        "kraken": [(1, "B/USD")],
    }
    assert markets.addresses_of("okx", profile.live) == ("ws://a", "http://b")
    assert markets.addresses_of("kraken", profile.live) == ("", "")
    assert arena_bytes(profile) == 0
