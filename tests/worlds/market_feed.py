"""What the market tests stand on besides sim.worlds.feed: the recordings, and an independent plain book and decoder."""

from __future__ import annotations

import bisect
import gzip
import json
import math
from decimal import Decimal
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from sim.worlds.feed import Feed
from trading.books import fold as market
from trading.books.state import LIMITS
from trading.instruments import Instrument, Market
from trading.jit import kernel
from trading.records import DEPTH_RECORD, LEVELS, MARKET_RECORD, Flag, Kind

SPOT_BTC = Instrument("BTCUSDT")
SPOT_ETH = Instrument("ETHUSDT")
USDM_BTC = Instrument("BTCUSDT", Market.BINANCE_USDM, "0.1", "0.001", "0.001", "0.001")
USDM_ETH = Instrument("ETHUSDT", Market.BINANCE_USDM, "0.01", "0.001", "0.001", "0.001")

RECORDINGS = {
    "spot BTCUSDT": (SPOT_BTC, ("spot_btcusdt_20240808", "spot_btcusdt_20240809"), 1072),
    "spot ETHUSDT": (SPOT_ETH, ("spot_ethusdt_20240808", "spot_ethusdt_20240809"), 1056),
    "USD-M BTCUSDT": (USDM_BTC, ("usdm_btcusdt_20240808",), 629),
    "USD-M ETHUSDT": (USDM_ETH, ("usdm_ethusdt_20240808",), 551),
    "USD-M BTCUSDT July": (USDM_BTC, ("usdm_btcusdt_20240718", "usdm_btcusdt_20240719"), 625),
}


@kernel
def fold_frames(
    buf: Any,
    spans: Any,
    recv: Any,
    hint: int,
    state: Any,
    glob: Any,
    params: Any,
    table: Any,
    out: Any,
    rows: Any,
    log: Any,
    depth_log: Any,
    counts: Any,
) -> int:
    """Fold all frames, appending their records to the logs; counts[i] = (market, depth) records of frame i."""
    m_all = 0
    d_all = 0
    for i in range(spans.shape[0]):
        m = market.on_frame(buf, spans[i, 0], spans[i, 1], recv[i], recv[i], hint, state, glob, params, table, out, rows)
        d = glob[0].n_depth
        for k in range(m):
            log[m_all + k] = out[k]
        for k in range(d):
            depth_log[d_all + k] = rows[k]
        counts[i, 0] = m
        counts[i, 1] = d
        m_all += m
        d_all += d
    return m_all


def read_recording(folder: Path, names: tuple[str, ...]) -> tuple[list[bytes], np.ndarray]:
    """The raw frames of recorded files, joined, and their receive times."""
    frames: list[bytes] = []
    recv: list[int] = []
    for name in names:
        with gzip.open(folder / "hftbacktest_binance" / f"{name}.gz") as lines:
            for line in lines:
                at, frame = line.split(b" ", 1)
                frames.append(frame.rstrip(b"\n"))
                recv.append(int(at))
    return frames, np.array(recv, np.int64)


def market_records(recording: tuple[Instrument, tuple[str, ...], int], folder: Path) -> np.ndarray:
    """MARKET_RECORDs of a row of RECORDINGS, through the real feed."""
    instrument, files, _ = recording
    frames, recv = read_recording(folder, files)
    ends = np.cumsum([len(f) for f in frames])
    spans = np.stack([np.concatenate([[0], ends[:-1]]), ends], axis=1).astype(np.int64)
    buf = np.frombuffer(b"".join(frames), np.uint8).copy()
    feed = Feed(instrument)
    log, depth_log = np.zeros(len(frames), MARKET_RECORD), np.zeros(1_000_000, DEPTH_RECORD)
    counts = np.zeros((len(frames), 2), np.int64)
    arrays = (feed.state, feed.glob, feed.params, feed.table, feed.out, feed.rows, log, depth_log, counts)
    return log[: fold_frames(buf, spans, recv, 0, *arrays)]


_LEVEL = (int(Flag.BOOK_VALID), int(Flag.BOOK_VALID | Flag.ASK))


class PlainSide:
    """A side as a dict and a sorted list of keys (asks: ticks, bids: minus ticks)."""

    def __init__(self) -> None:
        self.lots: dict[int, int] = {}
        self.keys: list[int] = []

    def set(self, key: int, lots: int) -> None:
        """An absolute quantity; 0 removes."""
        if lots and key not in self.lots:
            bisect.insort(self.keys, key)
        if lots:
            self.lots[key] = lots
        elif self.lots.pop(key, None) is not None:
            del self.keys[bisect.bisect_left(self.keys, key)]

    def top(self, bbo: tuple[int, int] | None) -> tuple[list[int], list[int]]:
        """(prices, lots) of the best levels, behind (price, lots) of a newer bookTicker if there is one; padded with zeros."""
        levels: list[tuple[int, int]] = []
        start = 0
        sign = 1
        if bbo is not None:
            key, lots = bbo
            levels.append((abs(key), lots))
            start = bisect.bisect_right(self.keys, key)
        for key in self.keys[start : start + LEVELS - len(levels)]:
            levels.append((abs(key) * sign, self.lots[key]))
        levels += [(0, 0)] * (LEVELS - len(levels))
        return [p for p, _ in levels], [q for _, q in levels]


def _whole(unit: Decimal, text: str) -> int:
    """So many units, exactly, or an error."""
    count = Decimal(text) / unit
    assert count == int(count)
    return int(count)


class PlainFeed:
    """The same fold written plainly: json, Decimal, dicts; one symbol; recordings without faults only."""

    def __init__(self, instrument: Instrument) -> None:
        self.ticks = cache(partial(_whole, Decimal(instrument.tick_size)))
        self.quantity = cache(partial(_whole, Decimal(instrument.lot_size)))
        self.usdm = instrument.market == Market.BINANCE_USDM
        self.sides = (PlainSide(), PlainSide())
        self.waiting: list[dict[str, Any]] = []
        self.base: dict[str, Any] | None = None
        self.last = 0
        self.valid = False
        self.bbo: tuple[int, tuple[int, int], tuple[int, int]] | None = None
        self.tickers: dict[int, tuple[tuple[int, int], tuple[int, int]]] = {}
        self.met: set[int] = set()
        self.equal = 0
        self.edges = [math.inf, math.inf]  # keys up to which no level is missing

    def _meet(self) -> None:
        """The oracle: one comparison for each update id at which both books stand."""
        if self.last in self.tickers and self.last not in self.met:
            self.met.add(self.last)
            best = tuple((s.keys[0], s.lots[s.keys[0]]) if s.keys else (0, 0) for s in self.sides)
            self.equal += best == self.tickers[self.last]
            if best == self.tickers[self.last]:
                self.edges = [max(edge, key) for edge, (key, _) in zip(self.edges, best)]

    def _apply(self, message: dict[str, Any], depth: list[tuple[int, ...]]) -> None:
        changes = [(0, -self.ticks(p), self.quantity(q)) for p, q in message["b"]]
        changes += [(1, self.ticks(p), self.quantity(q)) for p, q in message["a"]]
        self.last = message["u"]
        for side, key, lots in changes:
            self.sides[side].set(key, lots)
            depth.append((Kind.DEPTH, _LEVEL[side], abs(key), lots, self.last))
        if changes:
            depth[-1] = (depth[-1][0], depth[-1][1] | Flag.LAST, *depth[-1][2:])
        self._meet()

    def _connect(self, depth: list[tuple[int, ...]]) -> bool:
        assert self.base is not None
        base = self.base["lastUpdateId"]
        rest = [m for m in self.waiting if (m["u"] >= base if self.usdm else m["u"] > base)]
        if not rest:
            return False
        assert rest[0]["U"] <= (base if self.usdm else base + 1)
        depth.append((Kind.SNAPSHOT, Flag.BOOK_VALID, 0, 0, base))
        for side, name in ((0, "bids"), (1, "asks")):
            if len(self.base[name]) in LIMITS:
                price = self.ticks(self.base[name][-1][0])
                self.edges[side] = price if side else -price
                depth.append((Kind.EDGE, Flag.BOOK_VALID | (Flag.ASK if side else 0), price, 0, base))
        for side, name in ((0, "bids"), (1, "asks")):
            for p, q in self.base[name]:
                key = self.ticks(p) if side else -self.ticks(p)
                self.sides[side].set(key, self.quantity(q))
                depth.append((Kind.DEPTH, Flag.BOOK_VALID | (Flag.ASK if side else 0), abs(key), self.quantity(q), base))
        depth[-1] = (depth[-1][0], depth[-1][1] | Flag.LAST, *depth[-1][2:])
        for message in rest:
            self._apply(message, depth)
        self.valid = True
        self._widen()
        return True

    def _widen(self) -> None:
        """At or through the other side's best price nothing stands."""
        self.edges = [max(self.edges[side], -self.sides[1 - side].keys[0]) for side in range(2)]

    def send(self, raw: bytes) -> tuple[tuple[Any, ...] | None, list[tuple[int, ...]]]:
        """(kind, flags, exchange ns, update id, price, qty, bids, bid lots, asks, ask lots) or None, and depth rows."""
        message = json.loads(raw)
        data = message.get("data", message)
        at = data.get("T", data.get("E", 0)) * 1_000_000
        depth: list[tuple[int, ...]] = []
        kind, price, qty, flags, update_id = Kind.NONE, 0, 0, 0, 0
        if "lastUpdateId" in data:
            self.base = data
            if self._connect(depth):
                kind, update_id = Kind.SNAPSHOT, self.last
        elif data.get("e") == "depthUpdate":
            if self.valid:
                assert data["pu"] == self.last if self.usdm else data["U"] == self.last + 1
                self._apply(data, depth)
                self._widen()
                kind, update_id = Kind.DEPTH, self.last
            else:
                self.waiting.append(data)
                if self.base is not None and self._connect(depth):
                    kind, update_id = Kind.SNAPSHOT, self.last
        elif data.get("e") in ("trade", "aggTrade"):
            kind, update_id = Kind.TRADE, data["t"]
            price, qty = self.ticks(data["p"]), self.quantity(data["q"])
            flags = Flag.AGGRESSOR_SELL if data["m"] else 0
        else:
            kind, update_id = Kind.BBO, data["u"]
            pair = ((-self.ticks(data["b"]), self.quantity(data["B"])), (self.ticks(data["a"]), self.quantity(data["A"])))
            if self.bbo is None or data["u"] > self.bbo[0]:
                self.bbo = (data["u"], *pair)
                self.tickers[data["u"]] = pair
            if self.valid:
                self._meet()
        if kind is Kind.NONE:
            return None, depth
        newer = self.bbo if self.bbo is not None and self.bbo[0] > self.last else None
        bids = self.sides[0].top(newer[1] if newer else None)
        asks = self.sides[1].top(newer[2] if newer else None)
        whole = bids[0][-1] and -bids[0][-1] <= self.edges[0] and asks[0][-1] and asks[0][-1] <= self.edges[1]
        flags |= (Flag.BOOK_VALID if whole else Flag.BEYOND_EDGE) if self.valid else 0
        return (int(kind), int(flags), at, update_id, price, qty, *bids, *asks), depth
