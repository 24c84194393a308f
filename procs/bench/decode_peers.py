"""What `bench decode` is measured against: the ways in which Python programs read a venue's frames and keep its book.

Each is written as its users write it, in its faster form where there is a choice, and none is asked for more than a right
depth book: the dict books do not even keep their best level. A peer takes the snapshot and the messages before the clock
starts (`begin`), then every frame as bytes (`take`).

None is a complete feed: only ccxt.pro's checks a sequence, and none keeps integers, top levels or records.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.metadata
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, Final

import msgspec

from trading.instruments import Instrument
from trading.venues.names import SPOT

Best = tuple[float, float, float, float]
"""Best bid and its quantity, best ask and its quantity."""


class Peer(ABC):
    """One way of keeping a book."""

    name: str
    keeps_a_book = True

    @abstractmethod
    def __init__(self, instrument: Instrument) -> None:
        """For one symbol."""

    @abstractmethod
    def begin(self, snapshot: dict[str, Any]) -> None:
        """Start with this REST snapshot."""

    @abstractmethod
    def taker(self) -> Callable[[bytes], object]:
        """What takes one frame; called once a frame and nothing else."""

    @abstractmethod
    def best(self) -> Best | None:
        """The touch of its book; None for what keeps none."""

    def close(self) -> None:  # noqa: B027 - most have nothing to close
        """Let go of what it opened."""


class BareParse(Peer):
    """`orjson.loads` and nothing else: no book, no number made of a string."""

    name = "orjson.loads alone"
    keeps_a_book = False

    def __init__(self, instrument: Instrument) -> None:
        """The symbol is nothing to it."""

    def begin(self, snapshot: dict[str, Any]) -> None:
        """There is no book."""

    def taker(self) -> Callable[[bytes], object]:
        """The function itself."""
        import orjson

        return orjson.loads

    def best(self) -> None:
        """It has none."""


class SimdJson(BareParse):
    """pysimdjson's parser with lazy values: the least that it can be asked for."""

    name = "pysimdjson parse alone"

    def taker(self) -> Callable[[bytes], object]:
        """One parser, used again, as its documentation asks for."""
        simdjson: Any = importlib.import_module("simdjson")
        parse: Callable[[bytes], object] = simdjson.Parser().parse
        return parse


class DictBook(Peer):
    """orjson, and a dict a side from price to quantity."""

    name = "orjson + dict"

    def __init__(self, instrument: Instrument) -> None:
        self.bids: Any = {}
        self.asks: Any = {}
        self.touch = (0.0, 0.0, 0.0, 0.0)
        self.trade = (0.0, 0.0, False)

    def begin(self, snapshot: dict[str, Any]) -> None:
        """Fill the book."""
        for book, levels in ((self.bids, snapshot["bids"]), (self.asks, snapshot["asks"])):
            for price, quantity in levels:
                book[float(price)] = float(quantity)

    def taker(self) -> Callable[[bytes], object]:
        """A closure: no attribute of self but what it writes is looked up a level."""
        import orjson

        bids, asks, loads = self.bids, self.asks, orjson.loads

        def take(raw: bytes) -> None:
            message = loads(raw)
            message = message.get("data", message)
            kind = message.get("e")
            if kind == "depthUpdate":
                for book, levels in ((bids, message["b"]), (asks, message["a"])):
                    for price, quantity in levels:
                        q = float(quantity)
                        if q:
                            book[float(price)] = q
                        else:
                            book.pop(float(price), None)
            elif kind == "trade":
                self.trade = (float(message["p"]), float(message["q"]), message["m"])
            elif "B" in message:
                self.touch = (float(message["b"]), float(message["B"]), float(message["a"]), float(message["A"]))

        return take

    def best(self) -> Best:
        """By looking at all prices."""
        bid, ask = max(self.bids), min(self.asks)
        return float(bid), float(self.bids[bid]), float(ask), float(self.asks[ask])


class SortedBook(DictBook):
    """orjson, and sortedcontainers.SortedDict a side, whose ends are read after every depth message."""

    name = "orjson + SortedDict"

    def __init__(self, instrument: Instrument) -> None:
        super().__init__(instrument)
        containers: Any = importlib.import_module("sortedcontainers")
        self.bids, self.asks = containers.SortedDict(), containers.SortedDict()
        self.top: tuple[Any, Any] = (None, None)

    def taker(self) -> Callable[[bytes], object]:
        """The dict book's, with the touch after each depth message: the reason for a sorted one."""
        take_any, bids, asks = super().taker(), self.bids, self.asks

        def take(raw: bytes) -> None:
            take_any(raw)
            self.top = (bids.peekitem(-1), asks.peekitem(0))

        return take


class _Data(msgspec.Struct, gc=False):
    """Fields of depthUpdate, trade and bookTicker, numbers made of their strings by the decoder."""

    e: str = ""
    u: int = 0
    U: int = 0
    p: float = 0.0
    q: float = 0.0
    m: bool = False
    b: list[tuple[float, float]] | float = 0.0
    a: list[tuple[float, float]] | float = 0.0
    B: float = 0.0
    A: float = 0.0


class _Envelope(msgspec.Struct, gc=False):
    data: _Data | None = None


class TypedBook(DictBook):
    """msgspec types, strings to floats by its decoder (faster than float() in Python), and a dict a side."""

    name = "msgspec typed + dict"
    envelope: type[msgspec.Struct] = _Envelope
    number: type[float] | type[Decimal] = float

    def begin(self, snapshot: dict[str, Any]) -> None:
        """Fill the book."""
        for book, levels in ((self.bids, snapshot["bids"]), (self.asks, snapshot["asks"])):
            for price, quantity in levels:
                book[self.number(price)] = self.number(quantity)

    def taker(self) -> Callable[[bytes], object]:
        """One decoder, used again."""
        bids, asks = self.bids, self.asks
        decode: Any = msgspec.json.Decoder(self.envelope, strict=False).decode

        def take(raw: bytes) -> None:
            message: Any = decode(raw).data
            if message is None:
                return
            if message.e == "depthUpdate":
                for book, levels in ((bids, message.b), (asks, message.a)):
                    for price, quantity in levels:
                        if quantity:
                            book[price] = quantity
                        else:
                            book.pop(price, None)
            elif message.e == "trade":
                self.trade = (message.p, message.q, message.m)
            else:
                self.touch = (message.b, message.B, message.a, message.A)

        return take


class _ExactData(msgspec.Struct, gc=False):
    e: str = ""
    u: int = 0
    U: int = 0
    p: Decimal = Decimal()
    q: Decimal = Decimal()
    m: bool = False
    b: list[tuple[Decimal, Decimal]] | Decimal = Decimal()
    a: list[tuple[Decimal, Decimal]] | Decimal = Decimal()
    B: Decimal = Decimal()
    A: Decimal = Decimal()


class _ExactEnvelope(msgspec.Struct, gc=False):
    data: _ExactData | None = None


class ExactBook(TypedBook):
    """The same with decimal.Decimal, made by msgspec's decoder: a dict book that rounds nothing, as ours does not."""

    name = "msgspec typed + dict, Decimal"
    envelope = _ExactEnvelope
    number = Decimal


class CcxtPro(Peer):
    """ccxt.pro's own client and handlers, unmodified: from the frame's text on, as its socket would hand it over."""

    name = "ccxt.pro"

    def __init__(self, instrument: Instrument) -> None:
        import ccxt.pro
        from ccxt.async_support.base.ws.client import Client

        facts = instrument.market.facts
        kind, spot = facts.ccxt, facts.kind == SPOT
        url, market_type = ("wss://offline.invalid/stream", "spot") if spot else ("wss://offline.invalid/ws", "swap")
        base, quote = instrument.name[:-4], instrument.name[-4:]
        self._symbol = f"{base}/{quote}" + ("" if market_type == "spot" else f":{quote}")
        self._loop = asyncio.new_event_loop()
        # its client makes futures of the running loop; no socket is opened
        self._venue, self._client = self._loop.run_until_complete(self._open(ccxt.pro, Client, kind, url))
        market = {
            "id": instrument.name, "symbol": self._symbol, "base": base, "quote": quote, "baseId": base, "quoteId": quote,
            "type": market_type, "spot": market_type == "spot", "swap": market_type != "spot", "future": False, "option": False,
            "contract": market_type != "spot", "linear": market_type != "spot", "inverse": False, "active": True,
            "precision": {"price": float(instrument.tick_size), "amount": float(instrument.lot_size)}, "limits": {}, "info": {},
            "contractSize": 1.0, "settle": quote, "settleId": quote, "margin": False, "taker": 0.001, "maker": 0.001,
        }  # fmt: skip
        self._venue.set_markets([market], {})

    @staticmethod
    async def _open(pro: Any, client: Any, kind: str, url: str) -> tuple[Any, Any]:
        venue = getattr(pro, kind)({"enableRateLimit": False})
        nothing = lambda *_: None  # noqa: E731 - its four callbacks but the first
        return venue, client(url, venue.handle_message, nothing, nothing, nothing)

    def begin(self, snapshot: dict[str, Any]) -> None:
        """As its own fetch of a snapshot ends: a book reset to it, nothing waiting."""
        venue = self._venue
        book = venue.order_book({}, 1_000_000)
        parsed = venue.parse_order_book(snapshot, self._symbol, None)
        parsed["nonce"] = snapshot["lastUpdateId"]
        book.reset(parsed)
        book.cache = []
        venue.orderbooks[self._symbol] = book

    def taker(self) -> Callable[[bytes], object]:
        """Its client's entry for a message."""
        take: Callable[[bytes], object] = self._client.handle_text_or_binary_message
        return take

    def best(self) -> Best:
        """Of its book."""
        book = self._venue.orderbooks[self._symbol]
        return (*book["bids"][0][:2], *book["asks"][0][:2])

    def close(self) -> None:
        """End its loop."""
        self._loop.run_until_complete(self._venue.close())
        self._loop.close()


PEERS: Final[tuple[tuple[str, str, type[Peer]], ...]] = (
    ("orjson", "orjson", BareParse),
    ("simdjson", "pysimdjson", SimdJson),
    ("msgspec_dict", "msgspec", TypedBook),
    ("orjson_dict", "orjson", DictBook),
    ("msgspec_exact", "msgspec", ExactBook),
    ("orjson_sorted", "sortedcontainers", SortedBook),
    ("ccxt_pro", "ccxt", CcxtPro),
)
"""(key in the result, package that it needs, what makes it)."""


def versions(packages: Sequence[str]) -> dict[str, str | None]:
    """Installed versions; None for what is absent."""
    found: dict[str, str | None] = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found
