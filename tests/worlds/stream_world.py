"""Books that come within the stream, as the venues with typed decoders send them, bent on the way to the fold.

Each venue is a writer of its own wire text: a snapshot, changes by its rule of sequence, its checksum where it sends one, and
what it does when it counts anew. The text goes through the shipped decoder; what the fold wants is answered as the receiver
would, by subscribing again, which brings a snapshot some messages later.

What this is not: venues with snapshots by REST (`fault_world`).
"""

from __future__ import annotations

import heapq
import json
import random
import zlib
from typing import Any

import numpy as np
from fault_world import dump_symbol

from sim.worlds.feed import Feed
from trading.books import fold as market
from trading.instruments import Instrument, Market
from trading.records import Flag, Kind
from trading.venues.protocol import Missed, Plain, Streams, VenueSymbol
from trading.venues.registry import make_venue
from trading.wire.binance_layout import FrameKind
from trading.wire.plain_frame import W_KIND, W_LAST, read_plain_frame

Levels = dict[tuple[int, int], int]
MESSAGES = 70
QUIET_FROM = 45
"""No fault from this message on."""
NAMES = {
    Market.OKX: "BTC-USDT", Market.BYBIT: "linear:BTCUSDT", Market.KRAKEN: "BTC/USD", Market.COINBASE: "BTC-USD",
    Market.DERIBIT: "BTC-PERPETUAL",
}  # fmt: skip
TICK, LOT = "0.1", "0.01"
KRAKEN_DEPTH = 10
STEP_NS = 10**8


def _price(ticks: int) -> str:
    return f"{ticks // 10}.{ticks % 10}"


def _qty(lots: int) -> str:
    return f"{lots // 100}.{lots % 100:02d}"


def _side(levels: Levels, side: int) -> list[tuple[int, int]]:
    return sorted(((p, q) for (s, p), q in levels.items() if s == side), reverse=side == 0)


def best(levels: Levels, depth: int) -> Levels:
    """The best so many levels of each side."""
    return {(side, p): q for side in range(2) for p, q in _side(levels, side)[:depth]}


def _shortest(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text


def checksum(place: Market, levels: Levels) -> int:
    """The venue's CRC32 by the words of its documents, from texts."""
    bids, asks = ([(_price(p), _qty(q)) for p, q in _side(levels, side)] for side in range(2))
    if place is Market.KRAKEN:
        parts = [part.replace(".", "").lstrip("0") for rows in (asks[:10], bids[:10]) for row in rows for part in row]
        return zlib.crc32("".join(parts).encode())
    rows = [row for i in range(25) for side in (bids, asks) for row in side[i : i + 1]]
    return zlib.crc32(":".join(_shortest(part) for row in rows for part in row).encode())


class Wire:
    """One venue's text. `number` is the venue's count of its messages."""

    def __init__(self, place: Market) -> None:
        self.place = place
        self.connection_numbers = [0, 0]

    def _sides(self, levels: Levels) -> tuple[list[list[str]], list[list[str]]]:
        bids, asks = ([[_price(p), _qty(q)] for p, q in _side(levels, side)] for side in range(2))
        return bids, asks

    def text(self, whole: bool, at: int, line: int, number: int, prev: int, changed: Levels, now: Levels, wrong: bool) -> bytes:
        """A message: `changed` (0: removed), after which the venue's book is `now`; `wrong`: with another's checksum."""
        bids, asks = self._sides(changed)
        crc = checksum(self.place, now) ^ (1 if wrong else 0)
        ms = 1_700_000_000_000 + 100 * at
        body: Any
        if self.place is Market.OKX:
            rows = {"bids": [[*row, "0", "1"] for row in bids], "asks": [[*row, "0", "1"] for row in asks]}
            data = {**rows, "ts": str(ms), "checksum": crc - 2**32 if crc >= 2**31 else crc, "seqId": number, "prevSeqId": prev}
            arg = {"channel": "books", "instId": NAMES[self.place]}
            body = {"arg": arg, "action": "snapshot" if whole else "update", "data": [data]}
        elif self.place is Market.BYBIT:
            data = {"s": "BTCUSDT", "b": bids, "a": asks, "u": number, "seq": at}
            kind = "snapshot" if whole else "delta"
            body = {"topic": "orderbook.50.BTCUSDT", "type": kind, "ts": ms + 2, "data": data, "cts": ms}
        elif self.place is Market.DERIBIT:
            rows = {
                name: [["delete" if float(q) == 0 else "new", float(p), float(q)] for p, q in side]
                for name, side in (("bids", bids), ("asks", asks))
            }
            data = {"type": "snapshot" if whole else "change", "timestamp": ms, "instrument_name": NAMES[self.place], **rows}
            data |= {"change_id": number} | ({} if whole else {"prev_change_id": prev})
            params = {"channel": f"book.{NAMES[self.place]}.100ms", "data": data}
            body = {"jsonrpc": "2.0", "method": "subscription", "params": params}
        elif self.place is Market.KRAKEN:
            rows = {
                name: [{"price": float(p), "qty": float(q)} for p, q in side] for name, side in (("bids", bids), ("asks", asks))
            }
            data = {"symbol": NAMES[self.place], **rows, "checksum": crc}
            body = {"channel": "book", "type": "snapshot" if whole else "update", "data": [data]}
        else:
            updates = [{"side": "bid", "price_level": p, "new_quantity": q} for p, q in bids]
            updates += [{"side": "offer", "price_level": p, "new_quantity": q} for p, q in asks]
            event = {"type": "snapshot" if whole else "update", "product_id": NAMES[self.place], "updates": updates}
            sent = self.connection_numbers[line]
            self.connection_numbers[line] += 1
            body = {"channel": "l2_data", "timestamp": "2023-11-14T22:13:20Z", "sequence_num": sent, "events": [event]}
        return json.dumps(body).encode()


class StreamWorld:
    """One schedule. `fault`: gap, duplicate, reorder, late, checksum, reset, corrupt; on line 0, at message `at`."""

    def __init__(self, place: Market, fault: str, seed: int, lines: int) -> None:
        self.place, self.fault, self.lines = place, fault, lines
        self.rng = random.Random(seed)
        self.feed = Feed(Instrument("BTCUSDT", place, TICK, LOT, LOT, LOT), overlay=False)
        self.venue = make_venue(place, [VenueSymbol(0, "BTCUSDT", NAMES[place], TICK, LOT)], Streams(snapshot_levels=10))
        self.decoders = [self.venue.decoder_for(self.venue.connections()[0]) for _ in range(lines)]
        self.wire = Wire(place)
        self.books: list[Levels] = []
        self.by_id: dict[int, int] = {}  # what the decoder called the message -> the message
        self.mirror: Levels | None = None
        self.stale = self.valid = self.wants = 0
        self.now_ns = 10**18
        self.out = np.zeros((500, 3), np.int64)
        self.queue: list[tuple[float, int, int, int, bytes]] = []  # (message time, serial, line, message, text)
        self.serial = 0
        self.resubscribed: list[int] = []  # lines that are to begin with a snapshot
        self.last_index = -1

    def _truth(self) -> None:
        rng, middle = self.rng, 10_000
        levels: Levels = {}
        for i in range(1, 25):
            levels[0, middle - i], levels[1, middle + i] = rng.randrange(1, 900), rng.randrange(1, 900)
        self.books.append(dict(levels))
        for _ in range(MESSAGES):
            middle += rng.choice((-1, 0, 1))
            for _ in range(rng.randint(1, 5)):
                side, off = rng.randrange(2), rng.randint(1, 14)
                key = (side, middle - off if side == 0 else middle + off)
                levels[key] = 0 if rng.random() < 0.35 else rng.randrange(1, 900)
            for key in [k for k in levels if (k[1] >= middle if k[0] == 0 else k[1] <= middle)]:
                levels[key] = 0
            levels[0, middle - 1], levels[1, middle + 1] = rng.randrange(1, 900), rng.randrange(1, 900)
            levels = {k: q for k, q in levels.items() if q}
            for side in range(2):  # never so thin that a stream of ten levels had none to send
                for i in range(2, 15):
                    levels.setdefault((side, middle - i if side == 0 else middle + i), 7)
            self.books.append(dict(levels))

    def seen(self, i: int) -> Levels:
        """What the stream covers of the book after message i."""
        return best(self.books[i], KRAKEN_DEPTH) if self.place is Market.KRAKEN else self.books[i]

    def _changed(self, i: int) -> Levels:
        before, after = self.seen(i - 1), self.seen(i)
        gone = {k: 0 for k in before if k not in self.books[i]}
        return gone | {k: q for k, q in after.items() if before.get(k) != q}

    def _numbers(self, i: int, reset_at: int) -> tuple[int, int]:
        """(number, the one before) of message i; a venue that counts anew does so at `reset_at`."""
        steps = 1 if self.place is Market.BYBIT else 3
        if self.fault == "reset" and i >= reset_at and self.place in (Market.BYBIT, Market.OKX):
            number = 1 + steps * (i - reset_at)
            before = 1000 + steps * (i - 1) if i == reset_at else number - steps
            return number, before
        return 1000 + steps * i, 1000 + steps * (i - 1)

    def run(self) -> None:
        """Play it, checking every record."""
        self._truth()
        rng = self.rng
        start, length = rng.randint(8, 30), rng.randint(1, 4)
        for line in range(self.lines):
            self._fold(market.on_line, 0, line, 1)
        fresh = [True] * self.lines
        for i in range(MESSAGES + 1):
            for line in range(self.lines):
                number, prev = self._numbers(i, start)
                reset = self.fault == "reset" and i == start
                if reset and self.place in (Market.COINBASE, Market.KRAKEN):  # these have no count but the connection's
                    self._fold(market.on_line, 0, line, 0)
                    self.decoders[line] = self.venue.decoder_for(self.venue.connections()[0])
                    self.wire.connection_numbers[line] = 0
                    self._fold(market.on_line, 0, line, 1)
                    fresh[line] = True
                if line in self.resubscribed and rng.random() < 0.5:
                    self.resubscribed.remove(line)
                    fresh[line] = True
                whole = fresh[line] or (reset and self.place is not Market.OKX)
                fresh[line] = False
                bent = line == 0 and start <= i < start + length and self.fault != "reset"
                bent = bent and not (whole and self.fault in ("gap", "corrupt"))  # subscribing again is answered
                levels = self.seen(i) if whole else self._changed(i)
                wrong = bent and self.fault == "checksum"
                prev = -1 if whole else prev
                text = self.wire.text(whole, i, line, number, prev, levels, self.seen(i), wrong)
                self._send(i + 0.3 * line, line, i, text, bent)
            self._deliver(i + 0.9)
        self._deliver(MESSAGES + 100)

    def _send(self, at: float, line: int, i: int, text: bytes, bent: bool) -> None:
        rng = self.rng
        if bent and self.fault == "gap":
            return
        if bent and self.fault == "corrupt":
            cut = rng.randrange(1, len(text))
            text = text[:cut] if rng.random() < 0.5 else text[:cut] + b"\x00x" + text[cut + 2 :]
        if bent and self.fault == "reorder":
            at += rng.choice((0.0, 1.05))
        if bent and self.fault == "late":
            at += rng.uniform(1, 6)
        self._queue(at, line, i, text)
        if bent and self.fault == "duplicate":
            self._queue(at + rng.choice((0.01, 1.1, 3.1)), line, i, text)

    def _queue(self, at: float, line: int, i: int, text: bytes) -> None:
        self.serial += 1
        heapq.heappush(self.queue, (at, self.serial, line, i, text))

    def _deliver(self, until: float) -> None:
        while self.queue and self.queue[0][0] <= until:
            _, _, line, i, text = heapq.heappop(self.queue)
            self.now_ns += STEP_NS // 10
            for item in self.decoders[line].decode(text, self.now_ns):
                if isinstance(item, Missed):
                    self._fold(market.on_lost, 0)
                elif isinstance(item, Plain):
                    head, _ = read_plain_frame(item.frame)
                    assert head[W_KIND] in (FrameKind.DEPTH, FrameKind.SNAPSHOT)
                    self.by_id[int(head[W_LAST])] = i
                    buf = np.frombuffer(item.frame, np.uint8).copy()
                    self._fold(market.on_frame, buf, 0, len(item.frame))

    def _fold(self, call: Any, *args: Any) -> None:
        feed = self.feed
        if call is market.on_frame:
            rest: tuple[Any, ...] = (-1, feed.state, feed.glob, feed.params, feed.table, feed.out, feed.rows)
        else:
            rest = (feed.state, feed.glob, feed.params, feed.out, feed.rows)
        m = call(*args, self.now_ns, self.now_ns, *rest)
        self._check(m, feed.rows[: int(feed.glob[0]["n_depth"])])
        if feed.glob[0]["want_symbol"] >= 0:
            self.wants += 1
            line = self.rng.randrange(self.lines)
            if line not in self.resubscribed:
                self.resubscribed.append(line)

    def _check(self, m: int, rows: np.ndarray) -> None:
        """A valid record's book is the venue's after the message that it names, and the depth rows make the same book."""
        for row in rows:
            key = (int(row["flags"]) >> 2 & 1, int(row["price_ticks"]))
            if row["kind"] == Kind.STALE:
                self.mirror = None
            elif row["kind"] == Kind.SNAPSHOT:
                self.mirror = {}
            else:
                assert self.mirror is not None
                self.mirror[key] = int(row["qty_lots"])
                if not row["qty_lots"]:
                    del self.mirror[key]
        if m == 0:
            return
        record, st = self.feed.out[0], self.feed.state[0]
        synced = st["phase"] == market.SYNCED
        assert bool(record["flags"] & Flag.BOOK_VALID) == synced == (self.mirror is not None)
        if not synced:
            assert record["kind"] == Kind.STALE
            self.stale += 1
            return
        self.valid += 1
        self.last_index = self.by_id[int(st["last_id"])]
        n = dump_symbol(self.feed.state, 0, self.out)
        mine = {(side, price): lots for side, price, lots in self.out[:n].tolist()}
        assert mine == self.mirror == self.seen(self.last_index)
