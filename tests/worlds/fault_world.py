"""A small venue and a faulty network around the feed fold and the shipped client, in virtual time.

The truth and what bends it are sim.worlds.faults'. What stands between it and the fold is what ships: frames go through the
receiver's FrameWriter and its ring, the fold's wants to its ResyncDesk, and the RestClient with its WeightBudget asks for
snapshots, which a venue that counts the weight answers. Only the clock, the sleeping and the socket are ours.

What this is not: the local venue (sim.local_venue), which speaks the real protocol over sockets.
"""

from __future__ import annotations

import heapq
import random
import types
from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from procs.memory.arena import PAD
from procs.memory.segments import aligned_words
from procs.profiles.schema import LiveSettings
from procs.receiver.budget import WeightBudget
from procs.receiver.frames import NOWHERE, FrameWriter
from procs.receiver.link import OF_NO_USE
from procs.receiver.rest import Answered, RestClient
from procs.receiver.resync import ResyncDesk
from ringbuf import layout
from sim.worlds.faults import (
    END_MS,
    LATENCY_MS,
    MS,
    NAMES,
    SNAPSHOT_MS,
    Delivery,
    Levels,
    Truth,
    instruments,
    snapshot_bytes,
)
from sim.worlds.feed import Feed
from trading.books import book
from trading.books import fold as market
from trading.instruments import Market
from trading.jit import kernel
from trading.records import FRAME_RECORD, Flag, Kind
from trading.venues.protocol import Streams, VenueSymbol
from trading.venues.registry import make_venue

TARGET = 1
"""The symbol that faults fall on."""
MINUTE_MS = 60_000
TICK_MS = 30
"""How often the receiver looks at its desk."""
RING = 32
"""Records of the frames ring: few, so that a consumer that is slow for long loses some."""
ARENA = 1 << 17
LIVE = LiveSettings()
VALID, KNOWN = int(Flag.BOOK_VALID), int(Flag.BOOK_VALID | Flag.BEYOND_EDGE)
STALE, SNAPSHOT, EDGE, FRAME = int(Kind.STALE), int(Kind.SNAPSHOT), int(Kind.EDGE), int(Kind.FRAME)
"""As plain integers: an enum's member costs a microsecond at every record of every schedule."""


@kernel
def dump_book(st: Any, out: Any) -> int:
    """All levels of a book as rows (side, price, lots); how many."""
    n = 0
    for side in range(2):
        key = st.best[side]
        while key != book.NO_KEY:
            out[n, 0] = side
            out[n, 1] = abs(key)
            out[n, 2] = book.lots_at(st, side, key)
            n += 1
            key = book.next_key(st, side, key + 1)
    return n


@kernel
def dump_symbol(state: Any, symbol: int, out: Any) -> int:
    """`dump_book` of one symbol."""
    return dump_book(state[symbol], out)


@dataclass
class Rest:
    """How the venue's REST interface answers: what a schedule may bend."""

    refused: Callable[[float, int], bool] = lambda at, symbol: False
    limited: Callable[[float], int] = lambda at: 0  # 429 or 418 to everything
    delay_ms: Callable[[float, int], float] = lambda at, symbol: SNAPSHOT_MS
    age_ms: Callable[[float, int], float] = lambda at, symbol: 0.0
    damage: Callable[[float, int, bytes], bytes] = lambda at, symbol, raw: raw


@dataclass
class Plan:
    """A schedule made into what happens."""

    deliveries: list[Delivery]
    events: list[tuple[float, int, int]] = field(default_factory=list)  # (ms, line, up) of the target symbol
    rest: Rest = field(default_factory=Rest)
    clock_ms: Callable[[float], float] = lambda at: at  # the receiver's clock
    lines: int = 1
    faults_end_ms: float = 0.0
    limit: int = 0  # levels a side of a snapshot; 0: all
    slow: tuple[float, float] = (0.0, 0.0)  # the feed takes nothing off the ring meanwhile
    resilient: bool = False  # the other line has everything: nothing may be lost, nothing stale


@types.coroutine
def pause(seconds: float) -> Generator[float, None, None]:
    """Sleep in the world's time."""
    yield seconds


class _Answer:
    """What the venue says to one request, as the client's library would hand it over."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes, delay_ms: float) -> None:
        self.status, self.headers, self._body, self._delay_ms = status, headers, body, delay_ms
        self.content_length, self.content = len(body), self

    async def __aenter__(self) -> _Answer:
        await pause(self._delay_ms / 1000)
        return self

    async def __aexit__(self, *_: Any) -> None:
        pass

    async def read(self, most: int) -> bytes:
        """The rest of the body."""
        taken, self._body = self._body[:most], self._body[most:]
        return taken

    def at_eof(self) -> bool:
        """Whether there is no more."""
        return not self._body


class VenueRest:
    """The venue's REST interface: counts the weight, and answers as the plan says."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.asked: list[tuple[float, int]] = []  # (ms, weight) of every request, refused ones too

    def get(self, url: str, params: dict[str, str]) -> _Answer:
        """One request."""
        world, now = self.world, self.world.now
        rest, symbol = world.plan.rest, NAMES.index(params["symbol"])
        self.asked.append((now, world.request(symbol).weight))
        used = sum(weight for at, weight in self.asked if at > now - MINUTE_MS)
        headers = {"X-MBX-USED-WEIGHT-1M": str(used)}
        status = rest.limited(now)
        if status:
            return _Answer(status, headers | {"Retry-After": "1" if status == 429 else "1.5"}, b"", LATENCY_MS)
        if rest.refused(now, symbol):
            return _Answer(503, headers, b"", LATENCY_MS)
        body = snapshot_bytes(world.truth, symbol, now - rest.age_ms(now, symbol), world.plan.limit)
        return _Answer(200, headers, rest.damage(now, symbol, body), rest.delay_ms(now, symbol))


class World:
    """One run: `run` plays the plan and checks every record on the way. `weight`: REST weight a minute, all of it ours."""

    def __init__(self, truth: Truth, plan: Plan, weight: int = 0) -> None:
        self.truth, self.plan = truth, plan
        self.feed = Feed(*instruments(truth.usdm), overlay=False, snapshot_levels=plan.limit or market.WHOLE)
        self.records: list[list[bytes]] = [[] for _ in NAMES]
        self.mirrors: list[Levels | None] = [None] * len(NAMES)
        self.trades: list[list[int]] = [[] for _ in NAMES]
        self.stale: list[list[float]] = [[] for _ in NAMES]
        self.valid_since: list[float | None] = [None] * len(NAMES)
        self.wants: list[tuple[float, int, int]] = []
        self.queue: list[tuple[float, int, str, Any]] = []
        self.serial = 0
        self.ticking = False
        self.up = [0] * len(NAMES)
        self.lost = 0
        self.out = np.zeros((5000, 3), np.int64)
        self.now = 0.0
        # the shipped client
        place = Market.BINANCE_USDM if truth.usdm else Market.BINANCE_SPOT
        self.venue = make_venue(place, [VenueSymbol(i, n, n, "0.01", "0.001") for i, n in enumerate(NAMES)], Streams())
        rng, limits = random.Random(1), self.venue.limits
        self.budget = WeightBudget(weight or limits.rest_weight_per_minute, 1.0 if weight else LIVE.rest_weight_share)
        self.client = RestClient("", self.budget, rng, mono_ns=self._now_ns, wall_ns=self._now_ns, sleep=pause)
        self.rest = VenueRest(self)
        self.client._session = self.rest  # type: ignore[assignment]
        self.desk = ResyncDesk(LIVE.resyncs_per_minute, rng)
        words = aligned_words(layout.payload_bytes(RING, FRAME_RECORD) // 8)
        layout.format_ring(words, FRAME_RECORD, RING)
        self.ctl, _, self.slots = layout.views(words, FRAME_RECORD)
        self.arena = np.zeros(ARENA + PAD, np.uint8)
        self.writer = FrameWriter(words, self.arena)
        self.head = 0

    def _now_ns(self) -> int:
        return int(self.now * MS)

    def _push(self, at: float, what: str, payload: Any) -> None:
        self.serial += 1
        heapq.heappush(self.queue, (at, self.serial, what, payload))

    # ---- the client: what procs.receiver.link does between desk, client and writer

    def request(self, symbol: int) -> Any:
        """The shipped request for a snapshot."""
        request = self.venue.snapshot_request(symbol)
        assert request is not None
        return request

    def _want(self, symbol: int, reason: int) -> None:
        self.wants.append((self.now, symbol, reason))
        self.desk.want(symbol, self._now_ns(), again=reason in OF_NO_USE)
        self._tick_later()

    def _tick_later(self) -> None:
        if not self.ticking:
            self.ticking = True
            self._push((self.now // TICK_MS + 1) * TICK_MS, "tick", None)

    def _tick(self) -> None:
        self.ticking = False
        for symbol in self.desk.due(self._now_ns(), lambda symbol: self.up[symbol] != 0):
            self._go_on(self._fetch(symbol))
        if self.desk.waiting:
            self._tick_later()

    def _go_on(self, task: Coroutine[Any, Any, None]) -> None:
        try:
            seconds = task.send(None)
        except StopIteration:
            return
        self._push(self.now + 1000 * seconds, "task", task)

    async def _fetch(self, symbol: int) -> None:
        outcome = await self.client.get(self.request(symbol))
        if not isinstance(outcome, Answered) or not self._put(symbol, outcome.body, 0):
            self.desk.failed(symbol, self._now_ns())
            return
        self.desk.delivered(symbol)
        self._drain()  # what the feed wants now comes over its ring, so after this

    def _put(self, symbol: int, raw: bytes, line: int) -> bool:
        """A frame goes to the ring; whether there was room."""
        put = self.writer.frame(raw, symbol, line, 0, 0, self._now_ns()) != NOWHERE
        if not put:
            self.lost += 1
            self.writer.lost(line, (symbol,), self._now_ns())
        return put

    def _drain(self) -> None:
        """The feed takes what is on the ring, unless it is slow."""
        start, end = self.plan.slow
        if start <= self.now < end:
            return
        while self.head < self.writer.tail:
            row = self.slots[self.head & (RING - 1)]
            kind, symbol, at, length, line = (row[f].item() for f in ("kind", "symbol", "at", "length", "flags"))
            if kind == FRAME:
                self._fold(market.on_frame, symbol, self.arena, at, at + length)
            elif kind == Kind.LOST:
                self._fold(market.on_lost, symbol, symbol)
            else:
                self._fold(market.on_line, symbol, symbol, line, int(kind == Kind.LINE_UP))
            self.head += 1
            self.ctl[layout.reader_line(0) + layout.CURSOR] = self.head
            self.writer.settle(self._now_ns())

    # ---- the fold

    def _fold(self, call: Callable[..., int], symbol: int, *args: Any) -> None:
        feed = self.feed
        clock = int(self.plan.clock_ms(self.now) * MS) if symbol == TARGET else int(self.now * MS)
        m = call(*args, int(self.now * MS), clock, *self._arrays(call, symbol))
        rows = feed.rows[: int(feed.glob[0]["n_depth"])]
        self._check(symbol, m, rows)
        if feed.glob[0]["want_symbol"] >= 0:
            assert feed.glob[0]["want_symbol"] == symbol and feed.glob[0]["want_reason"] != market.Want.NONE
            self._want(symbol, int(feed.glob[0]["want_reason"]))

    def _arrays(self, call: Callable[..., int], symbol: int) -> tuple[Any, ...]:
        feed = self.feed
        tail = (feed.params, feed.table, feed.out, feed.rows) if call is market.on_frame else (feed.params, feed.out, feed.rows)
        return (symbol, feed.state, feed.glob, *tail) if call is market.on_frame else (feed.state, feed.glob, *tail)

    def _check(self, symbol: int, m: int, rows: np.ndarray) -> None:
        """Every record: exact and valid, or marked stale; and a mirror of the depth rows is the same book."""
        feed = self.feed
        for kind, flags, price, lots in zip(*(rows[f].tolist() for f in ("kind", "flags", "price_ticks", "qty_lots"))):
            if kind == STALE:
                self.mirrors[symbol] = None
            elif kind == SNAPSHOT:
                self.mirrors[symbol] = {}
            elif kind != EDGE:
                mirror = self.mirrors[symbol]
                assert mirror is not None and flags & VALID
                mirror[(flags >> 2) & 1, price] = lots
                if lots == 0:
                    del mirror[(flags >> 2) & 1, price]
        st = feed.state[symbol]
        synced = int(st["phase"]) == market.SYNCED
        if m == 0:
            assert len(rows) == 0
            return
        row = feed.out[0]
        kind, flags = int(row["kind"]), int(row["flags"])
        whole = bool(flags & VALID)
        assert synced == (self.mirrors[symbol] is not None) == bool(flags & KNOWN)
        assert whole == synced or self.plan.limit
        assert int(row["symbol"]) == symbol
        self.records[symbol].append(feed.out[:1].tobytes() + rows.tobytes())
        if kind == Kind.TRADE:
            self.trades[symbol].append(int(row["update_id"]))
        if not synced:
            if kind == STALE:
                self.stale[symbol].append(self.now)
            self.valid_since[symbol] = None
            assert kind in (Kind.STALE, Kind.TRADE, Kind.BBO), Kind(kind)
            return
        if self.valid_since[symbol] is None:
            self.valid_since[symbol] = self.now
        truth = self.truth.books[symbol][int(st["last_id"])]
        n = dump_symbol(feed.state, symbol, self.out)
        levels = self.out[:n].tolist()
        mine = {(side, price): lots for side, price, lots in levels}
        assert self.mirrors[symbol] == mine, (self.now, symbol)
        if whole:
            bids = sorted((price for side, price in truth if side == 0), reverse=True)[:5]
            assert row["bid_ticks"].tolist()[: len(bids)] == bids
        if self.plan.limit:
            edges = st["edge"].tolist()
            known = {(s, p): q for (s, p), q in truth.items() if (p if s else -p) <= edges[s]}
            assert {(s, p): q for (s, p), q in mine.items() if (p if s else -p) <= edges[s]} == known, (self.now, symbol)
            assert st["edge_next_id"] != 0 or mine.items() <= truth.items(), (self.now, symbol)
        else:
            assert mine == truth, (self.now, symbol)

    # ---- the run

    def run(self, end_ms: float = END_MS) -> None:
        """Play everything up to `end_ms`."""
        for delivery in self.plan.deliveries:
            self._push(delivery.at_ms, "frame", delivery)
        for symbol in range(len(NAMES)):
            for line in range(self.plan.lines):
                self._push(-1.0, "line", (symbol, line, 1))
        for at, line, up in self.plan.events:
            self._push(at, "line", (TARGET, line, up))
        if self.plan.slow[1]:
            self._push(self.plan.slow[1], "drain", None)
        while self.queue and self.queue[0][0] <= end_ms:
            self.now, _, what, payload = heapq.heappop(self.queue)
            if what == "frame":
                self._put(payload.frame.symbol, payload.raw, payload.line)
                self._drain()
            elif what == "line":
                symbol, line, up = payload
                self.up[symbol] = self.up[symbol] | 1 << line if up else self.up[symbol] & ~(1 << line)
                (self.writer.line_up if up else self.writer.line_down)(line, (symbol,), self._now_ns())
                self._drain()
            elif what == "drain":
                self._drain()
            elif what == "tick":
                self._tick()
            else:
                self._go_on(payload)
        for _, _, what, payload in self.queue:
            if what == "task":
                payload.close()

    def worst_minute(self) -> int:
        """The greatest request weight in any minute, as the venue counts it."""
        asked = self.rest.asked
        return max((sum(w for x, w in asked if t - MINUTE_MS < x <= t) for t, _ in asked), default=0)
