"""Market data with faults planted in it: what a strategy is told when messages are lost, doubled, late or broken.

The truth is drawn once per seed: for each symbol a chain of depth messages with trades and tickers between them, and the whole
book after every message. Planted faults bend how those frames arrive, and `FaultyMarket` folds what arrives as a pipeline's feed
does. What the fold wants, a snapshot, the venue sends a fixed time later.

What this is not: a venue on a socket (sim.local_venue has faults of its own), nor the receiver's two lines and its REST client.
"""

from __future__ import annotations

import heapq
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, Literal

import numpy as np

from sim.worlds.feed import Feed
from trading.books import fold as market
from trading.instruments import Instrument, Market
from trading.jit import Recs
from trading.records import MARKET_RECORD

MS: Final = 1_000_000
END_MS: Final = 6_000
DEPTH_MS: Final = 100
LATENCY_MS: Final = 5
LINE_SKEW_MS: Final = 3
SNAPSHOT_MS: Final = 150
NAMES: Final = ("AAAUSDT", "BBBUSDT", "CCCUSDT")

Levels = dict[tuple[int, int], int]
"""(side, price in ticks) -> lots; side 0 the bids."""
FrameFault = Literal["drop", "gap", "duplicate", "reorder", "stall", "corrupt"]


@dataclass(frozen=True)
class Frame:
    """One message of the venue, `at_ms` after the beginning; `kind` is depth, trade or bbo."""

    at_ms: float
    symbol: int
    kind: str
    raw: bytes
    trade_id: int = 0


@dataclass(frozen=True)
class Truth:
    """What really happened.

    `frames`: every message, in order. `books`: of each symbol, the book after each depth message, by its update id. `times`: of
    each symbol, (ms, update id) of them.
    """

    usdm: bool
    frames: tuple[Frame, ...]
    books: tuple[dict[int, Levels], ...]
    times: tuple[list[tuple[float, int]], ...]


def instruments(usdm: bool) -> list[Instrument]:
    """The symbols: cent ticks, lots of a thousandth."""
    place = Market.BINANCE_USDM if usdm else Market.BINANCE_SPOT
    return [Instrument(name, place, "0.01", "0.001", "0.001", "0.001") for name in NAMES]


def _text(levels: Levels, side: int) -> str:
    chosen = sorted((price, lots) for (s, price), lots in levels.items() if s == side)
    return ",".join(f'["{p // 100}.{p % 100:02d}","{q // 1000}.{q % 1000:03d}"]' for p, q in chosen)


def snapshot_bytes(truth: Truth, symbol: int, at_ms: float, limit: int) -> bytes:
    """What REST would answer at that time; `limit` levels a side, 0: all."""
    update_id = max((u for t, u in truth.times[symbol] if t <= at_ms), default=truth.times[symbol][0][1])
    levels = truth.books[symbol][update_id]
    if limit:
        for side in range(2):
            kept = sorted((p for s, p in levels if s == side), reverse=side == 0)[:limit]
            levels = {k: q for k, q in levels.items() if k[0] != side or k[1] in kept}
    return f'{{"lastUpdateId":{update_id},"bids":[{_text(levels, 0)}],"asks":[{_text(levels, 1)}]}}'.encode()


@cache
def truth_of(seed: int, usdm: bool, end_ms: int = END_MS) -> Truth:
    """The truth of a seed: the same seed, the same bytes."""
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


@dataclass
class Delivery:
    """A frame on its way: when it arrives, on which line, what arrives."""

    at_ms: float
    line: int
    frame: Frame
    raw: bytes


def deliveries(truth: Truth, lines: int = 1) -> list[Delivery]:
    """All frames as they arrive when nothing goes wrong, on so many lines."""
    return [Delivery(f.at_ms + LATENCY_MS + LINE_SKEW_MS * line, line, f, f.raw) for f in truth.frames for line in range(lines)]


def _damaged(raw: bytes, rng: random.Random) -> bytes:
    """Cut short, or overwritten with what no digit, quote or bracket is."""
    if rng.random() < 0.5:
        return raw[: rng.randrange(len(raw))]
    at = rng.randrange(len(raw) - 4)
    return raw[:at] + bytes(rng.choice(b"\x00x\xff") for _ in range(rng.randint(1, 4))) + raw[at + 4 :]


def _whole(raw: bytes) -> bool:
    try:
        json.loads(raw)
    except ValueError:
        return False
    return True


def bent(
    arriving: list[Delivery], fault: str, start: float, end: float, rng: random.Random, symbol: int, line: int = 0
) -> list[Delivery]:
    """What becomes of a symbol's frames on a line that arrive from `start` to `end` (ms); all others are left alone.

    `drop` loses some, `gap` all; `duplicate` brings some again later; `reorder` brings some late; `stall` brings all at the end;
    `corrupt` breaks some. Any other word changes nothing.
    """
    out: list[Delivery] = []
    late: list[Delivery] = []
    for d in arriving:
        if d.frame.symbol != symbol or d.line != line or not start <= d.at_ms < end:
            out.append(d)
        elif fault == "drop" and rng.random() < 0.3:
            continue
        elif fault in ("gap", "disconnect"):
            continue
        elif fault == "duplicate" and rng.random() < 0.5:
            out += [d, Delivery(d.at_ms + rng.choice((0.1, 40, 350)), line, d.frame, d.raw)]
        elif fault == "reorder" and rng.random() < 0.4:
            late.append(Delivery(d.at_ms + rng.choice((1.5, 120, 230)), line, d.frame, d.raw))
        elif fault == "stall":
            late.append(Delivery(end + 0.001 * len(late), line, d.frame, d.raw))
        elif fault == "corrupt" and rng.random() < 0.3:
            out.append(Delivery(d.at_ms, line, d.frame, _damaged(d.raw, rng)))
        else:
            out.append(d)
    return out + late


@dataclass(frozen=True)
class Planted:
    """A fault on one symbol's messages, from `start_ms` until `end_ms`; `bent` says what each does."""

    fault: FrameFault
    start_ms: float
    end_ms: float
    symbol: int = 0


class FaultyMarket:
    """The market of a seed as a strategy is told of it, through the planted faults.

    `records` are the MARKET_RECORDs of all symbols (NAMES, in this order), as a pipeline's feed writes them: a record whose book
    may be wrong has no BOOK_VALID. `asked` says (ms, symbol) of every snapshot that the feed had to ask for.
    """

    def __init__(
        self, seed: int = 1, faults: Sequence[Planted] = (), *, usdm: bool = False, end_ms: int = END_MS,
        snapshot_ms: float = SNAPSHOT_MS,
    ) -> None:  # fmt: skip
        self.truth = truth_of(seed, usdm, end_ms)
        self.instruments = instruments(usdm)
        self.asked: list[tuple[float, int]] = []
        self.frames: list[tuple[float, int, bytes]] = []
        self._feed = Feed(*self.instruments, snapshot_levels=market.WHOLE)
        rng = random.Random(seed)
        arriving = deliveries(self.truth)
        for planted in faults:
            arriving = bent(arriving, planted.fault, planted.start_ms, planted.end_ms, rng, planted.symbol)
        self.records = self._play(arriving, snapshot_ms)

    def _play(self, arriving: list[Delivery], snapshot_ms: float) -> Recs:
        queue: list[tuple[float, int, int, bytes]] = [(d.at_ms, n, d.frame.symbol, d.raw) for n, d in enumerate(arriving)]
        heapq.heapify(queue)
        waiting: dict[int, int] = {}  # the symbol whose snapshot is under way -> its place in the queue
        told: list[Recs] = []
        serial = len(queue)
        while queue:
            at, number, symbol, raw = heapq.heappop(queue)
            if waiting.get(symbol) == number:
                del waiting[symbol]
                raw = snapshot_bytes(self.truth, symbol, at, 0)
            self.frames.append((at, symbol, raw))
            rows, _ = self._feed.send(raw, symbol, round(at * MS))
            told.append(rows)
            if self._feed.wanted() >= 0 and symbol not in waiting:
                self.asked.append((at, symbol))
                waiting[symbol] = serial
                heapq.heappush(queue, (at + snapshot_ms, serial, symbol, b""))
                serial += 1
        return np.concatenate([np.zeros(0, MARKET_RECORD), *told])

    def write(self, path: Path, symbol: int = 0, begin_ns: int = 1_700_000_000 * 10**9) -> None:
        """What arrived of a symbol as a recording, lines `<recv_ns> {frame}`; broken frames are left out."""
        with path.open("wb") as file:
            for at, whose, raw in self.frames:
                if whose == symbol and _whole(raw):
                    file.write(b"%d %b\n" % (begin_ns + round(at * MS), raw))
