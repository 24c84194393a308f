"""A venue in virtual time whose streams can be silenced one by one: what it says goes through the shipped decoder into a feed.

One symbol. A tenth of a second is a turn: the best of one side changes, so depth and best bid/offer have something to say; every
third turn there is a print (and every tenth a mark price, on USD-M). A stream that is silenced says nothing until `subscribe`.

What this is not: a market. The best prices only ever rise, so the book is never crossed.
"""

from __future__ import annotations

import json
import random
from typing import Any

from venue_wires import LOT, NAMES, STAMP, T_MS, TICK, Book, Connection, Wires, price_text, qty_text

from sim.worlds.feed import Feed, diff, snapshot, ticker
from trading.instruments import Instrument, Market
from trading.records import LEVELS, Flag, Stream
from trading.venues.names import BestRule
from trading.venues.protocol import Plain, Streams, VenueSymbol
from trading.venues.registry import make_venue

S = 1_000_000_000
TURN_NS = S // 10
BINANCE = (Market.BINANCE_SPOT, Market.BINANCE_USDM, Market.BINANCE_COINM)


class Teller(Connection):
    """One connection, which also tells best prices."""

    def best(self, book: Book) -> bytes:
        """The best bid and offer as the venue says them."""
        market, name = self.wires.market, book.name
        (bid, bid_lots), (ask, ask_lots) = (book.best(side, 1)[0] for side in (0, 1))
        b, bq, a, aq = price_text(bid), qty_text(bid_lots), price_text(ask), qty_text(ask_lots)
        if market is Market.OKX:
            data = {"bids": [[b, bq, "0", "1"]], "asks": [[a, aq, "0", "1"]], "ts": str(T_MS), "seqId": book.id}
            return _json({"arg": {"channel": "bbo-tbt", "instId": name}, "data": [data]})
        if market is Market.BYBIT:
            name = name.partition(":")[2]
            data = {"s": name, "b": [[b, bq]], "a": [[a, aq]], "u": book.id, "seq": book.id}
            return _json({"topic": f"orderbook.1.{name}", "type": "snapshot", "ts": T_MS, "data": data, "cts": T_MS})
        if market is Market.DERIBIT:
            return (
                f'{{"jsonrpc":"2.0","method":"subscription","params":{{"channel":"quote.{name}","data":{{"timestamp":{T_MS},'
                f'"instrument_name":"{name}","best_bid_price":{b},"best_bid_amount":{bq},"best_ask_price":{a},'
                f'"best_ask_amount":{aq}}}}}}}'
            ).encode()
        if market is Market.KRAKEN:
            return (
                f'{{"channel":"ticker","type":"update","data":[{{"symbol":"{name}","bid":{b},"bid_qty":{bq},"ask":{a},'
                f'"ask_qty":{aq},"timestamp":"{STAMP}"}}]}}'
            ).encode()
        one = {"product_id": name, "best_bid": b, "best_bid_quantity": bq, "best_ask": a, "best_ask_quantity": aq, "price": a}
        return self.counted("ticker", [{"type": "update", "tickers": [one]}])


def instrument_of(market: Market) -> Instrument:
    """The symbol."""
    return Instrument("AAA" if market not in BINANCE else "BTCUSDT", market, TICK, LOT, LOT, LOT)


def move(book: Book, turn: int) -> list[tuple[int, int, int]]:
    """(side, ticks, lots) of the turn: always of a best price, and of a level behind it."""
    side, rng = turn % 2, book.rng
    best = book.best(side, 1)[0][0]
    changes = {(side, best): rng.randrange(1, 10**7)}
    if turn % 10 == 3:  # the offer is gone
        changes[side, best] = 0
    elif turn % 10 == 8:  # a better bid
        changes[side, best + 1] = rng.randrange(1, 10**7)
    behind = book.best(side, 4)[3][0]
    changes[side, behind] = rng.randrange(1, 10**7)
    far = book.best(1, 40)[-1][0] + 1
    changes[1, far] = rng.randrange(1, 10**7)
    for (of, ticks), lots in changes.items():
        book.sides[of].pop(ticks, None)
        if lots:
            book.sides[of][ticks] = lots
    book.id += 1
    return [(of, ticks, lots) for (of, ticks), lots in changes.items()]


class MutedVenue:
    """The venue, its connection, and the feed behind it. `log` has (time, MARKET_RECORD, kinds of its depth rows)."""

    def __init__(self, market: Market, seed: int = 1, **params: Any) -> None:
        self.market = market
        self.feed = Feed(instrument_of(market), **params)
        self.now = 1_700_000_000 * S
        self.turn = 0
        self.silent: set[Stream] = set()
        self.log: list[tuple[int, Any, list[int]]] = []
        self.wanted: list[tuple[int, int]] = []  # (time, mask) of streams to be subscribed anew
        self.native = market in BINANCE
        self.told: tuple[int, ...] = ()
        self._late: list[tuple[int, bytes]] = []
        self._snapshot_due = False
        if self.native:
            self.book = Book("BTCUSDT", random.Random(seed))
            self._told_id = self.book.id
        else:
            wires = Wires(market, seed)
            self.book, self.teller = wires.books[0], Teller(wires)
            symbol = VenueSymbol(0, "AAA", NAMES[market][0], TICK, LOT)
            self._decoder = make_venue(market, [symbol], Streams()).decoder()
        self.subscribe(Stream.DEPTH)

    # --- what is said

    def subscribe(self, stream: Stream) -> None:
        """The stream is entered anew: it flows, and a book of the stream begins with a snapshot."""
        self.silent.discard(stream)
        if stream is Stream.BBO:
            self.told = ()  # it begins with what it is
        if stream is Stream.DEPTH and not self.native:
            book = self.book
            self.hear(self.teller._book(book, [(side, p, q) for side in (0, 1) for p, q in book.best(side, 90)], whole=True))

    def hear(self, raw: bytes) -> None:
        """One message, now."""
        self.now += 1000
        if self.native:
            self._fold(raw)
            return
        for item in self._decoder.decode(raw, self.now):
            assert isinstance(item, Plain), item
            self._fold(item.frame)

    def _fold(self, frame: bytes) -> None:
        out, rows = self.feed.send(frame, 0, self.now)
        for row in out:
            self.log.append((self.now, row, rows["kind"].tolist()))
        mask = int(self.feed.glob[0]["want_streams"])
        if mask:
            self.wanted.append((self.now, mask))
        if self.feed.wanted() >= 0:
            self._snapshot_due = self.native

    def depth(self, changes: list[tuple[int, int, int]]) -> bytes:
        """The depth message of the turn."""
        if not self.native:
            return self.teller.update(self.book, changes)
        first, self._told_id, before = self._told_id + 1, self.book.id, self._told_id
        sides = [[(price_text(p), qty_text(q)) for s, p, q in changes if s == side] for side in (0, 1)]
        prev = None if self.market is Market.BINANCE_SPOT else before
        return _json(diff(first, self.book.id, sides[0], sides[1], prev))

    def bbo(self) -> bytes:
        """The best bid/offer message of the turn."""
        if not self.native:
            return self.teller.best(self.book)
        (bid, bq), (ask, aq) = (self.book.best(side, 1)[0] for side in (0, 1))
        return _json(ticker(self.book.id, price_text(bid), qty_text(bq), price_text(ask), qty_text(aq)))

    def print(self, ticks: int = 0) -> bytes:
        """A print, at the best bid unless its price is given."""
        self.book.print_id += 1
        if not self.native:
            return self.teller.prints([self.book])
        price = price_text(ticks or self.book.best(0, 1)[0][0])
        body = {"e": "trade", "E": 1, "T": 1, "s": "BTCUSDT", "t": self.book.print_id, "p": price, "q": "0.5", "m": True}
        return _json({"stream": "btcusdt@trade", "data": body})

    def mark(self) -> bytes:
        """A mark price of USD-M."""
        body = {"e": "markPriceUpdate", "E": 1, "s": "BTCUSDT", "p": "500.00000000", "i": "500.0", "P": "500.0", "r": "0.0001",
                "T": 2}  # fmt: skip
        return _json({"stream": "btcusdt@markPrice@1s", "data": body})

    def step(self, late_ns: int = 0) -> None:
        """One turn. `late_ns`: depth comes so much later than it should."""
        self.now = (self.now // TURN_NS + 1) * TURN_NS
        self.turn += 1
        changes = move(self.book, self.turn)
        rule = self.market.facts.best
        printed = self.turn % 3 == 0
        best = tuple(x for side in (0, 1) for x in self.book.best(side, 1)[0])
        seen = best[::2] if rule is BestRule.PRICES else best
        speaks = printed if rule is BestRule.PRINTS else seen != self.told
        if Stream.BBO not in self.silent and speaks:
            self.told = seen
            self.hear(self.bbo())
        if Stream.DEPTH not in self.silent:
            raw = self.depth(changes)
            if late_ns:
                self._late.append((self.now + late_ns, raw))
            else:
                self.hear(raw)
        elif self.native:
            self._told_id = self.book.id
        while self._late and self._late[0][0] <= self.now:
            self.hear(self._late.pop(0)[1])
        if self._snapshot_due:
            self._snapshot_due = False
            sides = [[(price_text(p), qty_text(q)) for p, q in self.book.best(side, 90)] for side in (0, 1)]
            self.hear(_json(snapshot(self.book.id, sides[0], sides[1])))
        if printed and Stream.PRINTS not in self.silent:
            self.hear(self.print())
        if self.market is Market.BINANCE_USDM and self.turn % 10 == 0 and Stream.MARK not in self.silent:
            self.hear(self.mark())

    def run(self, seconds: float, **how: Any) -> None:
        """So many seconds of turns."""
        for _ in range(round(seconds * S / TURN_NS)):
            self.step(**how)

    # --- what came of it

    @property
    def flags(self) -> Flag:
        """Of the last record."""
        return Flag(int(self.log[-1][1]["flags"]))

    def right(self) -> bool:
        """Whether the last record is valid and shows the venue's book."""
        row = self.log[-1][1]
        shown = [list(zip(row[f"{side}_ticks"].tolist(), row[f"{side}_lots"].tolist(), strict=True)) for side in ("bid", "ask")]
        return Flag.BOOK_VALID in self.flags and shown == [self.book.best(side, LEVELS) for side in (0, 1)]


def _json(said: Any) -> bytes:
    return json.dumps(said, separators=(",", ":")).encode()
