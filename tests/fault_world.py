"""A small venue, a faulty network and a model client around the feed fold, in virtual time.

The truth is drawn once per seed: for each symbol a chain of depth messages with trades and tickers between them, and the whole
book after every message. A schedule bends how those frames reach the fold; the client answers the fold's wants with
snapshots of the truth, as a receiver would: one at a time a symbol, backing off when refused, never over its weight a minute.

What this is not: the local venue (sim.venue), which speaks the real protocol over sockets.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from market_feed import Feed

from trading import book, market
from trading.instruments import Instrument, Market
from trading.jit import kernel
from trading.records import Flag, Kind

MS = 1_000_000
END_MS = 6_000
DEPTH_MS = 100
LATENCY_MS = 5
LINE_SKEW_MS = 3
SNAPSHOT_MS = 150
NAMES = ("AAAUSDT", "BBBUSDT", "CCCUSDT")
TARGET = 1
"""The symbol that faults fall on."""
WEIGHT = 50
WEIGHT_A_MINUTE = 1_200
MINUTE_MS = 60_000

Levels = dict[tuple[int, int], int]


@dataclass(frozen=True)
class Frame:
    """One message of the venue."""

    at_ms: float
    symbol: int
    kind: str  # depth, trade, bbo
    raw: bytes
    trade_id: int = 0


@dataclass(frozen=True)
class Truth:
    """What really happened, by symbol."""

    usdm: bool
    frames: tuple[Frame, ...]
    books: tuple[dict[int, Levels], ...]  # by update id, of each depth message
    times: tuple[list[tuple[float, int]], ...]  # (ms, update id) of them


def instruments(usdm: bool) -> list[Instrument]:
    """The symbols: cent ticks, lots of a thousandth."""
    place = Market.BINANCE_USDM if usdm else Market.BINANCE_SPOT
    return [Instrument(name, place, "0.01", "0.001", "0.001", "0.001") for name in NAMES]


def _text(levels: Levels, side: int) -> str:
    chosen = sorted((price, lots) for (s, price), lots in levels.items() if s == side)
    return ",".join(f'["{p // 100}.{p % 100:02d}","{q // 1000}.{q % 1000:03d}"]' for p, q in chosen)


def snapshot_bytes(truth: Truth, symbol: int, at_ms: float) -> bytes:
    """What REST would answer at that time."""
    update_id = max((u for t, u in truth.times[symbol] if t <= at_ms), default=truth.times[symbol][0][1])
    levels = truth.books[symbol][update_id]
    return f'{{"lastUpdateId":{update_id},"bids":[{_text(levels, 0)}],"asks":[{_text(levels, 1)}]}}'.encode()


@cache
def truth_of(seed: int, usdm: bool, end_ms: int = END_MS) -> Truth:
    """The truth of a seed."""
    rng = random.Random(seed)
    frames: list[Frame] = []
    books: list[dict[int, Levels]] = []
    times: list[list[tuple[float, int]]] = []
    for symbol, name in enumerate(NAMES):
        middle = 10_000 + 100 * symbol
        levels: Levels = {}
        for i in range(1, 11):
            levels[0, middle - i] = rng.randrange(1, 9000)
            levels[1, middle + i] = rng.randrange(1, 9000)
        last, trade_id = 1_000 * (symbol + 1), 10 * (symbol + 1)
        history = {last: dict(levels)}
        at = 7.0 * symbol
        clock = [(-1.0, last)]
        low = name.lower()
        for _ in range(int((end_ms - at) / DEPTH_MS)):
            changed: Levels = {}
            middle = max(9_000, middle + rng.choice((-2, -1, 0, 0, 1, 2)))
            for key in [k for k in levels if (k[1] >= middle) != (k[0] == 1)]:
                changed[key] = 0
            for _ in range(rng.randint(1, 4)):
                side = rng.randrange(2)
                price = middle - rng.randint(1, 12) if side == 0 else middle + rng.randint(0, 11)
                changed[side, price] = 0 if rng.random() < 0.3 and (side, price) in levels else rng.randrange(1, 9000)
            for side in range(2):
                changed.setdefault((side, middle - 1 if side == 0 else middle), rng.randrange(1, 9000))
                if changed[side, middle - 1 if side == 0 else middle] == 0:
                    changed[side, middle - 1 if side == 0 else middle] = 5
            levels.update(changed)
            for key in [k for k, q in levels.items() if q == 0]:
                del levels[key]
            prev, first = last, last + (rng.randint(1, 4) if usdm else 1)
            last = first + rng.randint(0, 5)
            history[last] = dict(levels)
            clock.append((at, last))
            rest = f',"T":{int(at)},"pu":{prev}' if usdm else ""
            body = f'"e":"depthUpdate","E":{int(at)}{rest},"s":"{name}","U":{first},"u":{last}'
            sides = f'"b":[{_text(changed, 0)}],"a":[{_text(changed, 1)}]'
            # removed levels are told with quantity 0, which `_text` prints like any other
            frames.append(Frame(at, symbol, "depth", f'{{"stream":"{low}@depth@100ms","data":{{{body},{sides}}}}}'.encode()))
            best = [f'"{p // 100}.{p % 100:02d}","{s}":"{levels[k, p] / 1000:.3f}"' for k, p, s in (
                (0, max(p for s, p in levels if s == 0), "B"), (1, min(p for s, p in levels if s == 1), "A"))]  # fmt: skip
            if rng.random() < 0.4:
                text = f'{{"stream":"{low}@bookTicker","data":{{"u":{last},"s":"{name}","b":{best[0]},"a":{best[1]}}}}}'
                frames.append(Frame(at + 1, symbol, "bbo", text.encode()))
            if rng.random() < 0.4:
                trade_id += 1
                text = (f'{{"stream":"{low}@trade","data":{{"e":"trade","E":{int(at)},"s":"{name}","t":{trade_id},'
                        f'"p":"{middle // 100}.{middle % 100:02d}","q":"0.5","T":{int(at)},'
                        f'"m":{rng.choice(("true", "false"))}}}}}')  # fmt: skip
                frames.append(Frame(at + 50, symbol, "trade", text.encode(), trade_id))
            at += DEPTH_MS
        books.append(history)
        times.append(clock)
    return Truth(usdm, tuple(sorted(frames, key=lambda f: f.at_ms)), tuple(books), tuple(times))


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
class Delivery:
    """A frame on its way: when it arrives, on which line, what arrives."""

    at_ms: float
    line: int
    frame: Frame
    raw: bytes


@dataclass
class Rest:
    """How the venue's REST interface answers: what a schedule may bend."""

    refused: Callable[[float, int], bool] = lambda at, symbol: False
    limited: Callable[[float], bool] = lambda at: False  # 429 to everything
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
    resilient: bool = False  # the other line has everything: nothing may be lost, nothing stale


class World:
    """One run: `run` plays the plan and checks every record on the way."""

    def __init__(self, truth: Truth, plan: Plan) -> None:
        self.truth, self.plan = truth, plan
        self.feed = Feed(*instruments(truth.usdm), overlay=False)
        self.records: list[list[bytes]] = [[] for _ in NAMES]
        self.mirrors: list[Levels | None] = [None] * len(NAMES)
        self.trades: list[list[int]] = [[] for _ in NAMES]
        self.stale: list[list[float]] = [[] for _ in NAMES]
        self.valid_since: list[float | None] = [None] * len(NAMES)
        self.requests: list[float] = []
        self.wants: list[tuple[float, int, int]] = []
        self.queue: list[tuple[float, int, str, Any]] = []
        self.serial = 0
        self.busy = [False] * len(NAMES)
        self.again = [False] * len(NAMES)
        self.failures = 0
        self.banned_until = 0.0
        self.out = np.zeros((5000, 3), np.int64)
        self.now = 0.0

    def _push(self, at: float, what: str, payload: Any) -> None:
        self.serial += 1
        heapq.heappush(self.queue, (at, self.serial, what, payload))

    # ---- the client

    def _want(self, symbol: int, reason: int) -> None:
        self.wants.append((self.now, symbol, reason))
        if self.busy[symbol]:
            self.again[symbol] = True  # one at a time; what is under way may already do
            return
        self.busy[symbol] = True
        self._push(self.now, "ask", (symbol, 0))

    def _ask(self, symbol: int, tries: int) -> None:
        recent = [t for t in self.requests if t > self.now - MINUTE_MS]
        if self.now < self.banned_until:
            self._push(self.banned_until, "ask", (symbol, tries))
            return
        if (len(recent) + 1) * WEIGHT > WEIGHT_A_MINUTE:
            self._push(recent[0] + MINUTE_MS + 1, "ask", (symbol, tries))
            return
        self.requests.append(self.now)
        rest = self.plan.rest
        if rest.limited(self.now):
            self.banned_until = self.now + 400
            self._push(self.banned_until, "ask", (symbol, tries))
        elif rest.refused(self.now, symbol):
            self._push(self.now + min(800, 100 * 2**tries), "ask", (symbol, tries + 1))
        else:
            raw = snapshot_bytes(self.truth, symbol, self.now - rest.age_ms(self.now, symbol))
            self._push(self.now + rest.delay_ms(self.now, symbol), "snapshot", (symbol, rest.damage(self.now, symbol, raw)))

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

    def _frame(self, symbol: int, raw: bytes) -> None:
        buf = np.frombuffer(raw, np.uint8).copy()
        self._fold(market.on_frame, symbol, buf, 0, len(raw))

    def _check(self, symbol: int, m: int, rows: np.ndarray) -> None:
        """Every record: exact and valid, or marked stale; and a mirror of the depth rows is the same book."""
        feed = self.feed
        for kind, flags, price, lots in zip(*(rows[f].tolist() for f in ("kind", "flags", "price_ticks", "qty_lots"))):
            if kind == Kind.STALE:
                self.mirrors[symbol] = None
            elif kind == Kind.SNAPSHOT:
                self.mirrors[symbol] = {}
            else:
                mirror = self.mirrors[symbol]
                assert mirror is not None and flags & Flag.BOOK_VALID
                mirror[(flags >> 2) & 1, price] = lots
                if lots == 0:
                    del mirror[(flags >> 2) & 1, price]
        st = feed.state[symbol]
        synced = int(st["phase"]) == market.SYNCED
        if m == 0:
            assert len(rows) == 0
            return
        row = feed.out[0]
        kind = int(row["kind"])
        assert bool(row["flags"] & Flag.BOOK_VALID) == synced == (self.mirrors[symbol] is not None)
        assert int(row["symbol"]) == symbol
        self.records[symbol].append(feed.out[:1].tobytes() + rows.tobytes())
        if kind == Kind.TRADE:
            self.trades[symbol].append(int(row["update_id"]))
        if not synced:
            if kind == Kind.STALE:
                self.stale[symbol].append(self.now)
            self.valid_since[symbol] = None
            assert kind in (Kind.STALE, Kind.TRADE, Kind.BBO), Kind(kind)
            return
        if self.valid_since[symbol] is None:
            self.valid_since[symbol] = self.now
        truth = self.truth.books[symbol][int(st["last_id"])]
        assert self.mirrors[symbol] == truth, (self.now, symbol)
        n = dump_symbol(feed.state, symbol, self.out)
        levels = self.out[:n].tolist()
        assert {(side, price): lots for side, price, lots in levels} == truth
        bids = [price for side, price, _ in levels if side == 0][:5]
        assert row["bid_ticks"].tolist()[: len(bids)] == bids

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
        while self.queue and self.queue[0][0] <= end_ms:
            self.now, _, what, payload = heapq.heappop(self.queue)
            if what == "frame":
                self._frame(payload.frame.symbol, payload.raw)
            elif what == "line":
                self._fold(market.on_line, payload[0], *payload)
            elif what == "ask":
                self._ask(*payload)
            else:
                symbol, raw = payload
                self.busy[symbol] = self.again[symbol] = False
                self._frame(symbol, raw)

    def worst_minute(self) -> int:
        """The greatest request weight in any minute."""
        return max((WEIGHT * sum(t - MINUTE_MS < x <= t for x in self.requests) for t in self.requests), default=0)
