"""A live receiver without a network: the shipped link hears frames that a test hands it; its ring is recorded and folded.

`Session` is what runs: the link of one venue with a frames ring on the heap, from which the recorder's own track writes files and
the feed's own fold makes the records that a live pipeline would have published.

What this is not: a test.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from receiver_world import LIVE, RingWorld

from procs.receiver import line_socket
from procs.receiver import link as link_module
from procs.receiver.lines import Connect, Down, Up
from procs.receiver.link import Socket, VenueLink
from procs.receiver.say import Say
from procs.recordings.folding import Folded
from procs.recordings.frame_log import FrameLog, Policy, segments
from procs.recordings.frame_log_format import Taken, head_of
from sim.recordings.venue_staging import stage_wire
from trading.books import fold as market
from trading.instruments import Instrument, instrument_table
from trading.records import DEPTH_RECORD, MARKET_RECORD, Kind
from trading.venues.protocol import Venue

RUN = 77


class QuietLink(VenueLink):
    """The shipped link; what it would do on the network is not done."""

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[None]:
        work.close()
        return None  # type: ignore[return-value]


class Clock:
    """Time that a test moves: `time_ns` and `monotonic_ns` as the link asks for them."""

    def __init__(self) -> None:
        self.now = 1_800_000_000_000_000_000

    def time_ns(self) -> int:
        """Unix ns; no two answers are equal."""
        self.now += 1000
        return self.now

    monotonic_ns = time_ns


class Session:
    """One venue's link, its recording below `folder`, and what the live fold made of it."""

    def __init__(self, venue: Venue, folder: Path, seed: int = 1, policy: Policy | None = None, levels: int = 1000) -> None:
        self.venue, self.folder, self.rng = venue, folder, random.Random(seed)
        self.clock = Clock()
        self.ring = RingWorld(1 << 12, 1 << 26)
        self.market = venue.market.name.lower()
        self.names = [(self.market, it.name) for it in venue.symbols]
        self.heads = [head_of(it.name, self.market, it.venue_name, it.tick_size, it.lot_size, it.lot_size, levels)
                      for it in venue.symbols]  # fmt: skip
        self.policy = policy or Policy(rotate_ns=1 << 62, rotate_bytes=2000, sync="never")
        self.instruments = [Instrument(it.name, venue.market, it.tick_size, it.lot_size, it.lot_size, it.lot_size)
                            for it in venue.symbols]  # fmt: skip
        self._params = market.make_params()
        self._table = instrument_table(self.instruments)
        self._state = np.zeros(len(self.instruments), market.FEED_STATE)
        self._glob = np.zeros(1, market.FEED_GLOBAL)
        market.init(self._state, self._glob, self._table, self._params)
        self._out = np.zeros(market.MAX_MARKET_OUT, MARKET_RECORD)
        self._rows = np.zeros(market.MAX_DEPTH_OUT, DEPTH_RECORD)
        self.records: list[np.ndarray] = []
        self.depth: list[np.ndarray] = []
        self.waiting: list[Taken] = []  # taken off the ring, not yet on disk
        self.kept = 0  # frames that were given back
        self.seq = 0
        self.log = self.open()
        self.link = self.receiver()

    def receiver(self) -> VenueLink:
        """A receiver that has just started, on the same ring."""
        say = Say("test")
        say.__class__ = type("Quiet", (Say,), {"__call__": lambda *_: None})
        made = QuietLink(self.venue, LIVE, self.ring.writer(), say, random.Random(5), name=self.market, raw=True)
        now = self.clock.time_ns()
        for number, line in made.lines.lines.items():
            made.writer.line_down(number, line.plan.symbols, now)
        return made

    def open(self) -> FrameLog:
        """The recorder's files, as an incarnation opens them."""
        return FrameLog(self.folder, self.names, RUN, self.policy, self.heads)

    def connect(self, line: int) -> Socket:
        """A new connection of a line, up at once."""
        self.link.perform([Connect(line, "")])
        socket = self.link.sockets[line]
        self.link.perform([Up(line, socket.line.plan.symbols)])
        return socket

    def cut(self, line: int) -> None:
        """The connection ends."""
        socket = self.link.sockets.pop(line)
        socket.dead = True
        self.link.perform([Down(line, socket.line.plan.symbols, "cut")])
        self.turn()

    def hear(self, socket: Socket, frames: Sequence[bytes]) -> None:
        """Frames come by a connection; now and then the feed and the recorder take them."""
        for raw in frames:
            socket.on_frame(raw)
            if self.rng.random() < 0.05 or len(raw) > 1 << 16:
                self.turn()

    def turn(self) -> None:
        """The feed folds what is in the ring; the recorder takes it, and sometimes writes it or is killed on the way."""
        for rec, (kind, symbol, flags, raw) in zip(self._recs(), self.ring.read(), strict=True):
            self._fold(int(rec), kind, symbol, flags, raw)
            self.waiting.append(Taken(self.seq, int(rec), int(kind), symbol, flags, raw))
            self.seq += 1
        chance = self.rng.random()
        if chance < 0.15:
            self.kill(written=self.rng.random() < 0.5)
        elif chance < 0.7:
            self.write()

    def _recs(self) -> list[int]:
        n, head, found = self.ring.capacity, self.ring.head, []
        while (rec := self.ring.recs[head & (n - 1)])["seq"] == head + 1:
            found.append(int(rec["ts_ns"]))
            head += 1
        return found

    def write(self) -> None:
        """What waits goes to disk."""
        self.log.take(self.waiting)
        self.log.flush()
        self.waiting.clear()

    def kill(self, *, written: bool) -> None:
        """The recorder dies before a batch is on disk, or after one file got its member; the next incarnation takes it again."""
        self.log.take(self.waiting)
        if written:
            for index in self.rng.sample(sorted(self.log._logs), 1):
                self.log._logs[index].flush()
        for log in self.log._logs.values():
            log._lines.clear()
        self.log.close()
        self.log = self.open()

    def end(self) -> None:
        """Everything to disk."""
        self.turn()
        self.write()
        self.log.close()

    def _fold(self, ts_ns: int, kind: Kind, symbol: int, line: int, raw: bytes) -> None:
        out, rows, state, glob, params = self._out, self._rows, self._state, self._glob, self._params
        if kind is Kind.FRAME:
            buf = np.frombuffer(raw, np.uint8).copy()
            m = market.on_frame(buf, 0, len(buf), ts_ns, ts_ns, symbol, state, glob, params, self._table, out, rows)
        elif kind in (Kind.LINE_UP, Kind.LINE_DOWN):
            m = market.on_line(symbol, line, int(kind is Kind.LINE_UP), ts_ns, ts_ns, state, glob, params, out, rows)
        elif kind is Kind.LOST:
            m = market.on_lost(symbol, ts_ns, ts_ns, state, glob, params, out, rows)
        else:
            return
        self.records.append(out[:m].copy())
        self.depth.append(rows[: glob[0]["n_depth"]].copy())

    def files(self) -> list[Path]:
        """All symbols' files, in the order of the symbols."""
        return [path for name in self.names for path in segments(self.folder.joinpath(*name))]

    def compare(self, place: Path) -> tuple[int, int]:
        """The files folded anew make the live fold's records, one by one; (market records, those with a good book)."""
        staged = stage_wire(self.files(), place)
        folded = Folded(place, staged)
        assert [it.name for it in folded.instruments] == [it.name for it in self.instruments]
        sizes = [[(it.tick_size, it.lot_size) for it in these] for these in (folded.instruments, self.instruments)]
        assert sizes[0] == sizes[1]
        chunks = list(folded.chunks())
        for mine, theirs in ((self.records, [c.market for c in chunks]), (self.depth, [c.depth for c in chunks])):
            live, replayed = np.concatenate(mine), np.concatenate(theirs)
            for symbol in range(len(self.names)):
                one, two = live[live["symbol"] == symbol], replayed[replayed["symbol"] == symbol]
                n = min(len(one), len(two))
                differ = np.flatnonzero(one[:n] != two[:n])
                assert differ.size == 0, (symbol, int(differ[0]), one[differ[0]], two[differ[0]])
                assert len(one) == len(two), (symbol, len(one), len(two))
        records = np.concatenate(self.records)
        return len(records), int((records["flags"] & 1 != 0).sum())


@contextmanager
def session(venue: Venue, folder: Path, monkeypatch: Any, **how: Any) -> Iterator[Session]:
    """A session by a clock of its own."""
    found = Session.__new__(Session)
    clock = Clock()
    for module in (line_socket, link_module):
        monkeypatch.setattr(module, "time", clock)
    Session.__init__(found, venue, folder, **how)
    found.clock = clock
    yield found
    found.log.close()

