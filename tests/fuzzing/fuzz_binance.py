"""Fuzz targets of the compiled fold: raw Binance frames and plain frames, each against a judge that shares no code with it.

The bytes are lines, a frame each, folded one after another into two synced books, every frame with an unreadable page behind it.
What must hold: no read past a frame, one count a frame, no record that the judge does not derive from the same bytes (STALE
excepted: it says nothing of the market), no valid record of a crossed or unsynced book, the other symbol undisturbed.
"""

from __future__ import annotations

import ctypes
import mmap
import random
import re
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from typing import Any

import numpy as np
import orjson
from fuzz_target import Features, Target, claim, mutate_text, recordings
from market_feed import SPOT_BTC, SPOT_ETH, USDM_BTC, USDM_ETH

from procs.bench.market_frames import generated
from sim.worlds.feed import Feed, diff, snapshot, ticker
from trading.books import fold as market
from trading.instruments import Instrument
from trading.records import Flag, Kind
from trading.wire import plain_frame
from trading.wire.binance_layout import FrameKind

_PAGES = 16
_DECIMAL = re.compile(r"[0-9]+(\.[0-9]+)?\Z", re.A)
_COUNTERS = ("depth_messages", "trades", "bbos", "snapshots", "malformed", "gaps", "crossed", "duplicates")
FRAMES_A_RUN = 12


@dataclass
class Said:
    """What a frame says, by the judge. levels: (side, ticks, lots); price, lots, sell: of a trade."""

    kinds: set[int]
    symbol: int
    update_id: int = 0
    price: int = 0
    lots: int = 0
    sell: bool = False
    levels: tuple[tuple[int, int, int], ...] = ()


class Judge:
    """orjson and Decimal: the frame's meaning, or None for what says nothing to these instruments."""

    def __init__(self, instruments: tuple[Instrument, ...]) -> None:
        self.instruments = instruments

    def _units(self, text: Any, size: str) -> int | None:
        if not isinstance(text, str) or not _DECIMAL.match(text):
            return None
        count = Decimal(text) / Decimal(size)
        return int(count) if count == count.to_integral_value() else None

    def _levels(self, value: Any, side: int, it: Instrument) -> list[tuple[int, int, int]] | None:
        found = []
        for pair in value if isinstance(value, list) else [None]:
            if not isinstance(pair, list) or len(pair) != 2:
                return None
            price, lots = self._units(pair[0], it.tick_size), self._units(pair[1], it.lot_size)
            if not price or lots is None:
                return None
            found.append((side, price, lots))
        return found

    def _symbol(self, data: dict[str, Any], message: dict[str, Any]) -> int:
        name = data.get("s")
        if not isinstance(name, str):
            stream = message.get("stream")
            name = stream.partition("@")[0] if isinstance(stream, str) else ""
        names = [it.name for it in self.instruments]
        return names.index(name.upper()) if name.isascii() and name.upper() in names else -1

    def __call__(self, raw: bytes, hint: int) -> Said | None:
        """Judge one frame."""
        try:
            message = orjson.loads(raw)
        except orjson.JSONDecodeError:
            return None
        if not isinstance(message, dict):
            return None
        inner = message.get("data")
        data = inner if isinstance(inner, dict) else message
        kind = data.get("e") if isinstance(data.get("e"), str) else None
        whole = {key: value for key, value in data.items() if type(value) is int and 0 <= value < 10**18}
        if kind is None and "lastUpdateId" in whole and data is message:
            return self._snapshot(data, whole, hint)
        symbol = self._symbol(data, message)
        if symbol < 0:
            return None
        it = self.instruments[symbol]
        match kind:
            case "depthUpdate":
                return self._depth(data, whole, symbol, it)
            case "trade" | "aggTrade":
                return self._trade(data, whole, symbol, it, "t" if kind == "trade" else "a")
            case "bookTicker" | None:
                return self._ticker(data, whole, symbol, it)
            case "markPriceUpdate":
                return Said({int(Kind.MARK)}, symbol)
        return None

    def _snapshot(self, data: dict[str, Any], whole: dict[str, int], hint: int) -> Said | None:
        it = self.instruments[hint]
        bids, asks = self._levels(data.get("bids"), 0, it), self._levels(data.get("asks"), 1, it)
        if bids is None or asks is None:
            return None
        return Said({int(Kind.SNAPSHOT)}, hint, whole["lastUpdateId"])

    def _depth(self, data: dict[str, Any], whole: dict[str, int], symbol: int, it: Instrument) -> Said | None:
        bids, asks = self._levels(data.get("b"), 0, it), self._levels(data.get("a"), 1, it)
        if bids is None or asks is None or not {"U", "u"} <= set(whole) or whole["U"] > whole["u"]:
            return None
        # whichever side stands first in the text comes first in the rows
        levels = bids + asks if list(data).index("b") < list(data).index("a") else asks + bids
        return Said({int(Kind.DEPTH), int(Kind.SNAPSHOT)}, symbol, whole["u"], levels=tuple(levels))

    def _trade(self, data: dict[str, Any], whole: dict[str, int], symbol: int, it: Instrument, key: str) -> Said | None:
        if isinstance(data.get("X"), str) and data["X"] != "MARKET":
            return None  # no trade
        price, lots = self._units(data.get("p"), it.tick_size), self._units(data.get("q"), it.lot_size)
        if not price or not lots or key not in whole or "T" not in whole or not isinstance(data.get("m"), bool):
            return None
        return Said({int(Kind.TRADE)}, symbol, whole[key], price, lots, bool(data["m"]))

    def _ticker(self, data: dict[str, Any], whole: dict[str, int], symbol: int, it: Instrument) -> Said | None:
        prices = [self._units(data.get(key), it.tick_size) for key in "ba"]
        sizes = [self._units(data.get(key), it.lot_size) for key in "BA"]
        if None in prices or None in sizes or "u" not in whole:
            return None
        return Said({int(Kind.BBO)}, symbol, whole["u"])


class GuardedFeed(Feed):
    """A feed whose frames end where an unreadable page begins: one byte read too far ends the process."""

    def __init__(self, *instruments: Instrument) -> None:
        super().__init__(*instruments)
        self._map = mmap.mmap(-1, (_PAGES + 1) * mmap.PAGESIZE)
        self.room = np.frombuffer(self._map, np.uint8)
        self.end = _PAGES * mmap.PAGESIZE
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.mprotect(ctypes.c_void_p(self.room.ctypes.data + self.end), ctypes.c_size_t(mmap.PAGESIZE), 0):
            raise OSError(ctypes.get_errno(), "mprotect")

    def start(self, prev: bool) -> None:
        """Two books in step at update id 101."""
        market.init(self.state, self.glob, self.table, self.params)
        for symbol in range(2):
            name = "BTCUSDT" if symbol == 0 else "ETHUSDT"
            self.send(diff(100, 100, prev=99 if prev else None, symbol=name), hint=symbol)
            self.send(snapshot(100 if prev else 99, [("99", "1"), ("98.5", "2")], [("101", "1"), ("102", "3")]), hint=symbol)
            claim(self.count("phase", symbol) == market.SYNCED, "the harness did not bring its books into step")

    def send(self, frame: Any, hint: int = 0, *, aligned: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """As Feed.send, with the guard page right behind the frame, or (aligned to 8 bytes) at most seven bytes behind it."""
        raw = frame if isinstance(frame, bytes) else orjson.dumps(frame)
        size = (len(raw) + 7) & -8 if aligned else len(raw)
        at = self.end - size
        self.room[at : at + len(raw)] = np.frombuffer(raw, np.uint8)
        self.now += 1
        m = market.on_frame(
            self.room, at, at + len(raw), self.now, self.now, hint, self.state, self.glob, self.params, self.table, self.out,
            self.rows,
        )  # fmt: skip
        d = int(self.glob[0]["n_depth"])
        claim(0 <= m <= market.MAX_MARKET_OUT and 0 <= d <= market.MAX_DEPTH_OUT, f"{m} market and {d} depth records")
        return self.out[:m].copy(), self.rows[:d].copy()

    def marks(self, symbol: int) -> list[int]:
        """What changes when a symbol is touched."""
        return [int(self.state[symbol][name]) for name in (*_COUNTERS, "phase", "last_id")]

    def sound(self, rows: np.ndarray) -> None:
        """What holds of any records."""
        for st in self.state:
            if st["phase"] == market.SYNCED and (st["near_count"] > 0).all():
                claim(int(st["best"][0]) + int(st["best"][1]) > 0, "a synced book is crossed")
        for row in rows:
            valid = bool(row["flags"] & Flag.BOOK_VALID)
            claim(not valid or self.state[row["symbol"]]["phase"] == market.SYNCED, "a valid record of a book out of step")
            if valid and row["bid_ticks"][0] and row["ask_ticks"][0]:
                claim(row["bid_ticks"][0] < row["ask_ticks"][0], "a valid record shows a crossed book")


@cache
def guarded(usdm: bool) -> GuardedFeed:
    """One for the process: `start` makes it new."""
    return GuardedFeed(*((USDM_BTC, USDM_ETH) if usdm else (SPOT_BTC, SPOT_ETH)))


def _only_stale(rows: np.ndarray, depth: np.ndarray, raw: bytes) -> None:
    told = sorted({Kind(int(k)).name for k in [*rows["kind"], *depth["kind"]]} - {"STALE"})
    claim(not told, f"{told} from bytes that say nothing: {raw[:400]!r}")


class BinanceFrames(Target):
    """Frames of one market."""

    usdm = False

    def __init__(self) -> None:
        self.feed = guarded(self.usdm)
        self.judge = Judge((USDM_BTC, USDM_ETH) if self.usdm else (SPOT_BTC, SPOT_ETH))

    def seeds(self) -> list[bytes]:
        """Frames that connect to the books, of each kind, and runs of generated and recorded ones."""
        prev = 100 if self.usdm else None
        levels = [("99.5", "1.5"), ("97", "0")]
        after = orjson.dumps(diff(101, 103, levels, [("100.5", "2"), ("102", "0")], prev=prev))
        trade = {"e": "trade", "E": 6, "s": "BTCUSDT", "t": 12, "p": "100.5", "q": "0.5", "T": 5, "m": True, "M": True}
        pair = ticker(104, "99.5", "1", "100.5", "2")
        book = snapshot(300, [("99", "1")], [("101", "2")])
        mark = {"e": "markPriceUpdate", "E": 6, "s": "BTCUSDT", "p": "100.10000000", "i": "100.2", "r": "0.0001", "T": 9}
        next_one = diff(104, 104, [], [("100.5", "0")], prev=103 if self.usdm else None)
        named = diff(101, 101, levels, [], prev=prev, symbol="ETHUSDT")
        bodies = [trade, {**trade, "e": "aggTrade", "a": 3}, pair, book, mark, next_one, named, pair["data"]]
        one_each = [after, *map(orjson.dumps, bodies)]
        found = [*one_each, b"\n".join(one_each), b"\n".join([after, orjson.dumps(next_one), after])]
        raw = generated(limit=200, seed=3, instrument=USDM_BTC if self.usdm else SPOT_BTC).all()
        found += [b"\n".join(raw[i : i + 6]) for i in range(1, 60, 6)]
        folder = recordings()
        if folder is not None:
            found += _recorded(folder, "usdm_btcusdt_20240808.gz" if self.usdm else "spot_btcusdt_20240808.gz")
        return [seed for seed in found if len(seed) <= self.max_bytes]

    def run(self, raw: bytes) -> Features:
        """Fold the lines."""
        feed = self.feed
        feed.start(self.usdm)
        features: list[int] = []
        for line in raw.split(b"\n")[:FRAMES_A_RUN]:
            said = self.judge(line, 0)
            before, other = int(feed.glob[0]["frames"]), feed.marks(1)
            rows, depth = feed.send(line[: feed.end])
            g = feed.glob[0]
            claim(int(g["frames"]) == before + 1, "a frame was not counted once")
            feed.sound(rows)
            if said is None:
                _only_stale(rows, depth, line)
            else:
                self._agrees(said, rows, depth, line)
            if said is None or said.symbol == 0:
                claim(said is None or feed.marks(1) == other, f"one book moved by {line[:400]!r}")
            seen = int(g["seen"])
            features += [seen & 0xFFFFFFFF, seen >> 32, min(int(g["faults"]), 3), int(g["enveloped"]), len(rows)]
            features += [int(g["symbol"]), int(g["n_levels"]).bit_length(), int(feed.state[0]["phase"]), said is not None]
        return tuple(features[-9:]) + (len(features) // 9,)

    @staticmethod
    def _agrees(said: Said, rows: np.ndarray, depth: np.ndarray, raw: bytes) -> None:
        for row in rows:
            kind = int(row["kind"])
            if kind == Kind.STALE:
                continue
            claim(kind in said.kinds and row["symbol"] == said.symbol, f"{Kind(kind).name} from {raw[:400]!r}")
            if kind in (Kind.TRADE, Kind.BBO, Kind.DEPTH):
                claim(row["update_id"] == said.update_id, f"id {row['update_id']} from {raw[:400]!r}")
            if kind == Kind.TRADE:
                sell = bool(row["flags"] & Flag.AGGRESSOR_SELL)
                shown = int(row["price_ticks"]), int(row["qty_lots"]), sell
                claim(shown == (said.price, said.lots, said.sell), f"trade {shown} from {raw[:400]!r}")
        told = depth[depth["kind"] == Kind.DEPTH]
        changes = [(int(r["flags"]) >> 2 & 1, int(r["price_ticks"]), int(r["qty_lots"])) for r in told]
        if len(changes) == len(said.levels) and said.levels and (depth["kind"] == Kind.DEPTH).all():
            claim(tuple(changes) == said.levels, f"levels {changes[:8]} from {raw[:400]!r}")


class SpotFrames(BinanceFrames):
    """Spot."""

    name = "binance-spot"
    meaning = "Binance spot frames through scanner and fold"


class UsdmFrames(BinanceFrames):
    """USD-M futures."""

    name = "binance-usdm"
    meaning = "Binance USD-M frames through scanner and fold"
    usdm = True


def _recorded(folder: Any, name: str) -> list[bytes]:
    import gzip

    path = folder / "hftbacktest_binance" / name
    if not path.is_file():
        return []
    with gzip.open(path) as lines:
        frames = [line.split(b" ", 1)[1].rstrip() for line, _ in zip(lines, range(400))]
    return [b"\n".join(frames[i : i + 4]) for i in range(0, 400, 8)]


class PlainFrames(Target):
    """Words as decoders of other venues hand them over. Frames in an input: a length byte (in words), then the words."""

    name = "plain-frames"
    meaning = "plain frames through the fold"

    def __init__(self) -> None:
        self.feed = guarded(False)

    def seeds(self) -> list[bytes]:
        """Each kind, alone and in a row."""
        K, make = FrameKind, plain_frame.plain_frame
        rows = np.array([[2 * 9950, 5], [2 * 10050 + 1, 7], [2 * 9800, 0]], np.int64)
        frames = [
            make(K.DEPTH, 0, 5, rows, first_id=101, last_id=103, prev_id=100),
            make(K.DEPTH, 0, 5, rows[:1], first_id=0, last_id=1),
            make(K.DEPTH, 1, 5, rows, last_id=104, prev_id=103, flags=plain_frame.HAS_CHECKSUM, checksum=1234),
            make(K.SNAPSHOT, 0, 5, rows[:2], last_id=400, flags=plain_frame.IN_BAND),
            make(K.SNAPSHOT, 0, 5, rows[:2], last_id=401),
            make(K.TRADE, 0, 5, rows[:1], last_id=7),
            make(K.BBO, 0, 5, rows[:2], last_id=500),
        ]
        return [self._packed([frame]) for frame in frames] + [self._packed(frames)]

    @staticmethod
    def _packed(frames: list[bytes]) -> bytes:
        return b"".join(bytes([min(len(frame) // 8, 255)]) + frame for frame in frames)

    def mutate(self, raw: bytes, rng: random.Random, pool: list[bytes]) -> bytes:
        """Change words, not bytes."""
        out = bytearray(raw)
        for _ in range(rng.randint(1, 4)):
            if len(out) < 17 or rng.random() < 0.1:
                out = bytearray(mutate_text(bytes(out), rng, pool))
                continue
            at = 1 + 8 * rng.randrange((len(out) - 1) // 8)
            word = int.from_bytes(out[at : at + 8], "little", signed=True)
            values = (0, 1, -1, word + 1, word - 1, word ^ 1, -word, 2**62, -(2**63), 2**63 - 1, 2**59, rng.randrange(16), 10**9)
            out[at : at + 8] = ((rng.choice(values) + 2**63) % 2**64 - 2**63).to_bytes(8, "little", signed=True)
        return bytes(out[: self.max_bytes])

    def run(self, raw: bytes) -> Features:
        """Fold them; what `read_plain_frame` refuses must give no record."""
        feed = self.feed
        feed.start(False)
        at = frames = kinds = 0
        while at < len(raw) and frames < FRAMES_A_RUN:
            size = 8 * raw[at]
            frame = raw[at + 1 : at + 1 + size]
            at += 1 + size
            before = int(feed.glob[0]["frames"])
            rows, depth = feed.send(frame, aligned=True)
            claim(int(feed.glob[0]["frames"]) == before + 1, "a frame was not counted once")
            feed.sound(rows)
            if not self._may_speak(frame):
                _only_stale(rows, depth, frame)
            for row in rows:
                kinds = kinds * 7 + int(row["kind"])
            claim(all(0 <= int(row["symbol"]) < 2 for row in rows), "a record of no symbol")
            claim(all(int(r["qty_lots"]) >= 0 and int(r["price_ticks"]) >= 0 for r in depth), "a negative price or quantity")
            frames += 1
        phases = [int(st["phase"]) for st in feed.state]
        return (frames, kinds & 0xFFFF, *phases, int(feed.glob[0]["malformed"]), int(feed.glob[0]["unknown"]))

    @staticmethod
    def _may_speak(frame: bytes) -> bool:
        try:
            head, levels = plain_frame.read_plain_frame(frame)
        except ValueError:
            return False
        known = [int(kind) for kind in FrameKind if kind > FrameKind.MALFORMED]
        if int(head[plain_frame.W_KIND]) not in known or not 0 <= head[plain_frame.W_SYMBOL] < 2:
            return False
        return bool((levels >= 0).all())
