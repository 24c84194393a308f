"""Markets that speak what five venues speak now: random books of two symbols as frames of one connection after another.

All connections of a market tell of the same books, as the venue's do; each begins with snapshots. Numbers are made so that every
sequence and checksum holds.

What this is not: a server, and no oracle of any decoder.
"""

from __future__ import annotations

import json
import random
import zlib
from collections.abc import Iterator
from typing import Any, Final

from trading.instruments import Market

NAMES: Final = {
    Market.BYBIT: ("linear:AAAUSDT", "spot:BBBUSDT"),
    Market.OKX: ("AAA-USDT", "BBB-USDT"),
    Market.KRAKEN: ("AAA/USD", "BBB/USD"),
    Market.COINBASE: ("AAA-USD", "BBB-USD"),
    Market.DERIBIT: ("AAA-PERPETUAL", "BBB-PERPETUAL"),
}
TICK: Final = "0.01"
LOT: Final = "0.0001"
T_MS: Final = 1_723_161_253_937
STAMP: Final = "2024-08-08T23:54:13.937085Z"


def price_text(ticks: int) -> str:
    """A price as the venues print it."""
    return f"{ticks // 100}.{ticks % 100:02d}"


def qty_text(lots: int) -> str:
    """A quantity."""
    return f"{lots // 10_000}.{lots % 10_000:04d}"


class Book:
    """One symbol's book: 30 levels a side that come, go and change."""

    def __init__(self, name: str, rng: random.Random) -> None:
        self.name, self.rng = name, rng
        self.mid, self.id, self.print_id = 50_000, rng.randrange(10**6, 10**9), rng.randrange(10**5)
        self.sides: tuple[dict[int, int], dict[int, int]] = ({}, {})
        for k in range(1, 31):
            self.sides[0][self.mid - k], self.sides[1][self.mid + k] = rng.randrange(1, 10**7), rng.randrange(1, 10**7)

    def step(self) -> list[tuple[int, int, int]]:
        """The next update: (side, ticks, lots)."""
        rng, changes = self.rng, {}
        for _ in range(rng.randrange(1, 4)):
            side = rng.randrange(2)
            ticks = self.mid + (1 if side else -1) * rng.randrange(1, 31)
            gone = rng.random() < 0.2 and len(self.sides[side]) > 12
            changes[side, ticks] = 0 if gone else rng.randrange(1, 10**7)
        for (side, ticks), lots in changes.items():
            self.sides[side].pop(ticks, None)
            if lots:
                self.sides[side][ticks] = lots
        self.id += 1
        return [(side, ticks, lots) for (side, ticks), lots in changes.items()]

    def best(self, side: int, n: int) -> list[tuple[int, int]]:
        """(ticks, lots), best first."""
        return sorted(self.sides[side].items(), reverse=side == 0)[:n]

    def checksum(self) -> int:
        """Kraken's."""
        parts = [price_text(p).replace(".", "").lstrip("0") + qty_text(q).replace(".", "").lstrip("0")
                 for side in (1, 0) for p, q in self.best(side, 10)]  # fmt: skip
        return zlib.crc32("".join(parts).encode())


class Connection:
    """One connection's frames; `number` is Coinbase's count over it."""

    def __init__(self, wires: Wires) -> None:
        self.wires, self.number = wires, -1

    def opening(self) -> Iterator[bytes]:
        """Confirmations aside, what a new connection brings: a snapshot of each book."""
        for book in self.wires.books:
            yield self._book(book, [(side, p, q) for side in (0, 1) for p, q in book.best(side, 40)], whole=True)

    def update(self, book: Book, changes: list[tuple[int, int, int]]) -> bytes:
        """A book's changes."""
        return self._book(book, changes, whole=False)

    def _book(self, book: Book, levels: list[tuple[int, int, int]], *, whole: bool) -> bytes:
        market, name = self.wires.market, book.name
        sides = [[[price_text(p), qty_text(q)] for s, p, q in levels if s == side] for side in (0, 1)]
        if market is Market.OKX:
            rows = [[[*row, "0", "1"] for row in side] for side in sides]
            data = {"bids": rows[0], "asks": rows[1], "ts": str(T_MS), "checksum": 0, "seqId": book.id,
                    "prevSeqId": -1 if whole else book.id - 1}  # fmt: skip
            action = "snapshot" if whole else "update"
            return _json({"arg": {"channel": "books", "instId": name}, "action": action, "data": [data]})
        if market is Market.BYBIT:
            name = name.partition(":")[2]
            data = {"s": name, "b": sides[0], "a": sides[1], "u": book.id, "seq": book.id}
            kind = "snapshot" if whole else "delta"
            return _json({"topic": f"orderbook.1000.{name}", "type": kind, "ts": T_MS, "data": data, "cts": T_MS})
        if market is Market.DERIBIT:
            bids, asks = (
                "[" + ",".join(f'["{"change" if float(q) else "delete"}",{p},{q}]' for p, q in side) + "]" for side in sides
            )
            prev = "" if whole else f'"prev_change_id":{book.id - 1},'
            body = (
                f'{{"type":"{"snapshot" if whole else "change"}","timestamp":{T_MS},"instrument_name":"{name}",{prev}'
                f'"change_id":{book.id},"bids":{bids},"asks":{asks}}}'
            )
            head = f'{{"jsonrpc":"2.0","method":"subscription","params":{{"channel":"book.{name}.100ms","data":'
            return (head + body + "}}").encode()
        if market is Market.KRAKEN:
            bids, asks = ("[" + ",".join(f'{{"price":{p},"qty":{q}}}' for p, q in side) + "]" for side in sides)
            return (
                f'{{"channel":"book","type":"{"snapshot" if whole else "update"}","data":[{{"symbol":"{name}","bids":{bids},'
                f'"asks":{asks},"checksum":{book.checksum()},"timestamp":"{STAMP}"}}]}}'
            ).encode()
        updates = [{"side": ("bid", "offer")[side], "event_time": STAMP, "price_level": p, "new_quantity": q}
                   for side in (0, 1) for p, q in sides[side]]  # fmt: skip
        return self.counted("l2_data", [{"type": "snapshot" if whole else "update", "product_id": name, "updates": updates}])

    def counted(self, channel: str, events: list[dict[str, Any]]) -> bytes:
        """A message of Coinbase's."""
        self.number += 1
        return _json({"channel": channel, "timestamp": STAMP, "sequence_num": self.number, "events": events})

    def beat(self) -> bytes:
        """Something that is about no symbol."""
        market = self.wires.market
        if market is Market.COINBASE:
            return self.counted("heartbeats", [{"current_time": "x", "heartbeat_counter": 1}])
        if market is Market.OKX:
            return b"pong"
        if market is Market.BYBIT:
            return _json({"success": True, "ret_msg": "pong", "conn_id": "x", "req_id": "", "op": "ping"})
        if market is Market.DERIBIT:
            return _json({"jsonrpc": "2.0", "method": "heartbeat", "params": {"type": "heartbeat"}})
        return b'{"channel":"heartbeat"}'

    def prints(self, books: list[Book]) -> bytes:
        """A print of each; of several symbols in one frame where the venue may do so."""
        market, ids = self.wires.market, [(book, book.print_id) for book in books]
        if market is Market.OKX:
            ((book, number),) = ids
            a_print = {"instId": book.name, "tradeId": str(number), "px": "500.00", "sz": "0.5", "side": "buy", "ts": str(T_MS)}
            return _json({"arg": {"channel": "trades", "instId": book.name}, "data": [a_print]})
        if market is Market.BYBIT:
            ((book, number),) = ids
            name = book.name.partition(":")[2]
            a_print = {"T": T_MS, "s": name, "S": "Buy", "v": "0.5", "p": "500.00", "i": str(number), "seq": number}
            return _json({"topic": f"publicTrade.{name}", "type": "snapshot", "ts": T_MS, "data": [a_print]})
        if market is Market.DERIBIT:
            ((book, number),) = ids
            data = {"trade_seq": number, "timestamp": T_MS, "price": 500.0, "instrument_name": book.name, "direction": "sell",
                    "amount": 10.0}  # fmt: skip
            return _json({"jsonrpc": "2.0", "method": "subscription",
                          "params": {"channel": f"trades.{book.name}.100ms", "data": [data]}})  # fmt: skip
        if market is Market.KRAKEN:
            data = [{"symbol": book.name, "side": "sell", "price": 500.0, "qty": 0.5, "trade_id": number, "timestamp": STAMP}
                    for book, number in ids]  # fmt: skip
            return _json({"channel": "trade", "type": "update", "data": data})
        one = {"price": "500.00", "size": "0.5", "side": "BUY", "time": STAMP}
        trades = [{**one, "trade_id": str(number), "product_id": book.name} for book, number in ids]
        return self.counted("market_trades", [{"type": "update", "trades": trades}])


class Wires:
    """A venue's books and its connections."""

    def __init__(self, market: Market, seed: int) -> None:
        self.market, self.rng = market, random.Random(seed)
        self.books = [Book(name, self.rng) for name in NAMES[market]]

    def connect(self) -> tuple[Connection, list[bytes]]:
        """A new connection and its first frames."""
        new = Connection(self)
        return new, list(new.opening())

    def step(self, connections: list[Connection]) -> list[list[bytes]]:
        """What the next moment brings on each connection, in the same order."""
        rng = self.rng
        kind = rng.choices(("book", "print", "both", "beat"), (80, 8, 4, 8))[0]
        if kind == "beat":
            return [[c.beat()] for c in connections]
        if kind == "book":
            book = rng.choice(self.books)
            changes = book.step()
            return [[c.update(book, changes)] for c in connections]
        many = kind == "both" and self.market in (Market.KRAKEN, Market.COINBASE)
        books = self.books if many else [rng.choice(self.books)]
        for book in books:
            book.print_id += 1
        return [[c.prints(books)] for c in connections]


def _json(said: Any) -> bytes:
    return json.dumps(said, separators=(",", ":")).encode()
