"""The receiver stage: one event loop that holds all venues' connections and writes the frames ring.

It is no fold: what comes off a wire cannot be asked for again. After a crash it goes on behind the last record that was
published, tells the feed that all lines are down, and connects anew within the budget that its predecessor left. It leaves by
itself when the feed has ended its stream.

Imports of what it runs on (aiohttp, picows) wait for `main`: the zygote loads this module and must stay small.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from procs import topology
from procs.logs import stage_log
from procs.memory import board
from procs.memory import segments as pipeline
from procs.profiles.schema import Profile
from procs.receiver.clock import SessionClock
from procs.scheduling import prepare_thread
from ringbuf.endpoint import Reader
from trading.records import Kind

if TYPE_CHECKING:
    from procs.receiver.ccxt_link import CcxtLink
    from procs.receiver.frames import FrameWriter
    from procs.receiver.link import VenueLink
    from procs.receiver.say import Say

NAME: Final = "receiver"
TICK_S: Final = 0.010
"""How often the watermark is promised and the resync ring looked at. Every decision downstream waits for a promise."""
LINES_EVERY: Final = 3  # ticks: client messages are paced by hundreds of ms
SECOND_TICKS: Final = 100
MAX_LINE: Final = 62
"""Largest line number: they are bits of a word to the feed."""
FAULT_VENUE: Final = 1
WRITER_ROLE: Final = 0
MOST_RESYNCS: Final = 256  # taken a tick


class Receiver:
    """All venues of a profile in one event loop."""

    def __init__(
        self, profile: Profile, runtime: Mapping[str, Any], memory: pipeline.Memory, writer: FrameWriter, say: Say
    ) -> None:
        from procs import rundir

        self.profile, self.writer, self.say = profile, writer, say
        self.page: Final = board.page(memory.board_words, topology.stage_id(NAME))
        self.feed: Final = board.page(memory.board_words, topology.stage_id("feed"))
        resync, bells = topology.RING["resync"], memory.board_words[: board.DOORBELL_WORDS]
        self.resyncs: Final = Reader(memory.ring(resync.name), resync.record, resync.reader_index(NAME), bells)
        self.run_dir: Final = rundir.run_dir(runtime["instance"])
        self.rng: Final = random.Random(os.getpid() << 32 ^ time.time_ns())
        self.state_dir: Final[Path] = rundir.state_dir(runtime["instance"])
        self.venues_dir: Final[Path] = rundir.venues_dir()
        self.links: list[VenueLink | CcxtLink] = []
        self.by_symbol: dict[int, VenueLink | CcxtLink] = {}
        self.by_line: dict[int, VenueLink | CcxtLink] = {}
        left_off = (int(self.page[word]) for word in (board.SESSION_CLOCK_NS, board.CLOCK_LEAD_NS, board.CLOCK_STEPS))
        self.clock: Final = SessionClock(*left_off)
        self.stopping = False
        self._ticks = 0

    def build(self) -> None:
        """The links. Raises VenueError, ValueError with a sentence."""
        from procs.receiver.ccxt_link import CcxtLink
        from procs.receiver.link import VenueLink
        from procs.receiver.markets import addresses_of, by_market, streams_of, venue_of
        from trading.venues.names import CCXT

        live, streams, number = self.profile.live, streams_of(self.profile.live), 0
        raw = self.profile.record.raw or self.profile.world == "record"
        for market, symbols in by_market(self.profile).items():
            stream_url, rest_url = addresses_of(market, live)
            link: VenueLink | CcxtLink
            if market.startswith(CCXT):
                link = CcxtLink(market, symbols, streams, self.writer, self.say, self.rng, number,
                                stream_url=stream_url, rest_url=rest_url)  # fmt: skip
                lines = [number]
                number += 1
            else:
                link = VenueLink(
                    venue_of(market, symbols, streams), live, self.writer, self.say, self.rng, name=market, stream_url=stream_url,
                    rest_url=rest_url, raw=raw, state_dir=self.state_dir, venues_dir=self.venues_dir, first_line=number,
                )  # fmt: skip
                lines = list(link.lines.lines)
                number = link.lines.next_line
            self.links.append(link)
            self.by_symbol.update(dict.fromkeys(link.symbols, link))
            self.by_line.update(dict.fromkeys(lines, link))
        if number > MAX_LINE + 1:
            raise ValueError(f"{number} line numbers are needed, {MAX_LINE + 1} are there: use fewer symbols, or live.lines: 1")

    async def run(self) -> None:
        """Until told to stop."""
        import asyncio

        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        self._look_at_clock()
        for link in self.links:
            link.start()
        self.page[board.READY] = 1

        def tick() -> None:
            try:
                self.tick()
            except Exception as error:
                self.say(f"a tick failed: {type(error).__name__}: {error}", f"tick {type(error).__name__}")
            if self.page[board.STOP] or self.feed[board.FINISHED]:
                stop.set()
            if not self.stopping:
                loop.call_later(TICK_S, tick)

        tick()
        await stop.wait()
        await asyncio.gather(*(link.stop() for link in self.links))
        self.stopping = True
        self.writer.promise(time.time_ns())
        self._show()
        self.page[board.FINISHED] = self.feed[board.FINISHED]

    def tick(self) -> None:
        """What is done TICK_S apart."""
        self._ticks += 1
        self._look_at_clock()
        self.writer.promise(time.time_ns())
        for asked in self.resyncs.poll(MOST_RESYNCS):
            self._asked(*(int(asked[name]) for name in ("kind", "symbol", "reason", "update_id")))
        if self._ticks % LINES_EVERY == 0:
            for link in self.links:
                link.tick()
        self.page[board.HEARTBEAT] += 1
        if self._ticks % SECOND_TICKS == 0:
            for link in self.links:
                link.sample()
            self._show()

    def _look_at_clock(self) -> None:
        lead, stepped = self.clock.look(time.time_ns(), time.monotonic_ns())
        self.writer.lead(lead)
        page, clock = self.page, self.clock
        page[board.SESSION_CLOCK_NS], page[board.CLOCK_LEAD_NS], page[board.CLOCK_STEPS] = clock.offset_ns, lead, clock.steps
        if stepped:
            way = "forward: the session's time follows" if stepped > 0 else "back: the session's time goes on, a little slower"
            self.say(f"the wall clock was set {abs(stepped) / 1e9:.1f} s {way}")

    def _asked(self, kind: int, symbol: int, reason: int, update_id: int) -> None:
        if kind == Kind.WANT_SNAPSHOT:
            link = self.by_symbol.get(symbol)
            if link is not None:
                link.want(symbol, reason)
        elif kind == Kind.WANT_STREAM:
            link = self.by_symbol.get(symbol)
            if link is not None:
                link.want_streams(symbol, reason)
        elif kind == Kind.ODD_FRAME:
            self.page[board.MALFORMED] += 1
            _, line = self.writer.record_of(update_id)
            payload = self.writer.bytes_of(update_id)
            link = self.by_line.get(line) or self.by_symbol.get(symbol)
            if payload is None or link is None:
                self.say(f"the feed made nothing of frame {update_id}, whose bytes are gone from the arena", "odd gone")
            else:
                link.odd(payload, line)

    def _show(self) -> None:
        from procs.receiver.line_table import venue_row, write_table
        from procs.receiver.link import VenueLink

        rows = [venue_row(link) if isinstance(link, VenueLink) else link.row() for link in self.links]
        page, lines = self.page, [line for row in rows for line in row["lines"]]
        page[board.RECORDS], page[board.FRAMES], page[board.FRAME_BYTES] = self.writer.tail, self.writer.frames, self.writer.bytes
        page[board.UNKNOWN] = sum(line["unknown"] for line in lines)
        page[board.GAPS] = sum(line["gaps"] for line in lines)
        page[board.RESYNCS] = sum(row.get("resyncs_delivered", 0) for row in rows)
        write_table(self.run_dir, self.writer, rows, (int(page[board.CLOCK_LEAD_NS]), self.clock.steps))


def main(profile: Profile, runtime: Mapping[str, Any]) -> int:
    """One incarnation of the receiver; returns the exit code. `runtime`: instance, incarnation, cores."""
    import asyncio

    from procs.memory.arena import arena_view, attach_arena
    from procs.receiver.frames import FrameWriter
    from procs.receiver.say import Say
    from shm.errors import SegmentError
    from shm.owner import claim

    memory: pipeline.Memory = runtime.get("memory") or pipeline.attach(runtime["instance"])
    page = board.page(memory.board_words, topology.stage_id(NAME))
    core = (runtime.get("cores") or {}).get(NAME)
    page[board.PID], page[board.INCARNATION] = os.getpid(), int(runtime.get("incarnation", 0))
    page[board.CORE], page[board.STARTED_NS] = -1 if core is None else core, time.monotonic_ns()
    if page[board.FINISHED]:
        return 0
    if int(runtime.get("incarnation", 0)) > 1:
        page[board.RECOVERIES] += 1
    try:
        arena = attach_arena(runtime["instance"], readonly=False)
        claim(arena.header, WRITER_ROLE)
        writer = FrameWriter(memory.ring("frames"), arena_view(arena), memory.board_words[: board.DOORBELL_WORDS])
        receiver = Receiver(profile, runtime, memory, writer, Say(NAME))
        receiver.build()
    except (SegmentError, ValueError) as error:  # VenueError is a ValueError
        page[board.FAULT] = FAULT_VENUE
        stage_log(NAME).error("cannot start", problem=str(error))
        return 1
    prepare_thread(core)
    asyncio.run(receiver.run())
    return 0


def warm(profile: Profile) -> None:
    """Compile or load the few kernels that the receiver calls."""
    from procs.memory.segments import aligned_words
    from procs.receiver import frames
    from ringbuf import layout

    entry = topology.RING["frames"]
    words = aligned_words(layout.payload_bytes(2, entry.record) // 8)
    layout.format_ring(words, entry.record, 2)
    writer = frames.FrameWriter(words, np.zeros(8192, np.uint8))
    writer.frame(b"{}", 0, 0, 0, 0, 1)
    writer.promise(2)
    resync = topology.RING["resync"]
    words = aligned_words(layout.payload_bytes(2, resync.record) // 8)
    layout.format_ring(words, resync.record, 2)
    Reader(words, resync.record, 0).poll()
