"""Kraken spot: WebSocket v2, and v1 as recordings have it (and as the venue still speaks it at its old address).

Book messages carry no ids but a CRC32 of the top ten, digits as printed. So a tick must be one unit of the printed price:
`tick_size` is 10**-pair_decimals wherever the list's own tick has fewer decimals. v2 sends numbers, taken as the text that came.

The venue drops the levels beyond the subscribed depth without saying so; the snapshot's `first_id` tells the feed that depth, so
that nothing stale stays in a book.

Ids are arrival times, chained (trading.venues.building.Ids); two lines cannot be arbitrated.

What this module is not: it sends nothing, and checks no checksum (the feed does).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from trading.instruments import Market
from trading.records import Stream
from trading.venues.building import (
    ASK,
    BID,
    Expected,
    Level,
    SymbolTable,
    TypedDecoder,
    bbo,
    book_change,
    book_snapshot,
    indexed,
    levels_of,
    raw_text,
    rules,
    to_json,
    trade,
)
from trading.venues.decimals import Inexact, decimals_of, iso_ns, power_of_ten, seconds_ns, whole_ns
from trading.venues.protocol import (
    RESTREAM,
    RESUBSCRIBE,
    ConnectionPlan,
    Decoder,
    Ignored,
    InstrumentRules,
    Item,
    Limits,
    Refused,
    RestRequest,
    Row,
    Streams,
    Subscribed,
    Unknown,
    Venue,
    VenueSymbol,
    code_of,
)
from trading.wire.plain_frame import SUMMARY

DEPTHS: Final = (10, 25, 100, 500, 1000)
SYMBOLS_PER_MESSAGE: Final = 50
SYMBOLS_PER_CONNECTION: Final = 200


# ---- v2


class _Result(msgspec.Struct, frozen=True):
    channel: str = ""
    symbol: str = ""


class _Message(msgspec.Struct, frozen=True):
    channel: str = ""
    type: str = ""
    data: msgspec.Raw = msgspec.Raw(b"")
    method: str = ""
    success: bool = True
    error: str = ""
    symbol: str = ""
    req_id: int = 0
    result: _Result = _Result()
    # v1
    event: str = ""
    status: str = ""
    pair: str = ""
    errorMessage: str = ""
    reqid: int = 0


class _Level(msgspec.Struct, frozen=True):
    price: msgspec.Raw
    qty: msgspec.Raw


class _Book(msgspec.Struct, frozen=True):
    symbol: str
    bids: list[_Level] = []
    asks: list[_Level] = []
    checksum: int | None = None
    timestamp: str = ""


class _Print(msgspec.Struct, frozen=True):
    symbol: str
    side: str
    price: msgspec.Raw
    qty: msgspec.Raw
    trade_id: int
    timestamp: str


class _Ticker(msgspec.Struct, frozen=True):
    symbol: str
    bid: msgspec.Raw = msgspec.Raw(b"")
    bid_qty: msgspec.Raw = msgspec.Raw(b"")
    ask: msgspec.Raw = msgspec.Raw(b"")
    ask_qty: msgspec.Raw = msgspec.Raw(b"")
    timestamp: str = ""


# ---- v1: [channel id, payload, (second payload), channel name, pair]


class _Row(msgspec.Struct, array_like=True, frozen=True):
    """[price, volume, time, ("r": sent again)]."""

    price: str
    volume: str
    time: str = "0"


class _OldBook(msgspec.Struct, frozen=True):
    as_: list[_Row] = msgspec.field(default=[], name="as")
    bs: list[_Row] = []
    a: list[_Row] = []
    b: list[_Row] = []
    c: str = ""


class _OldPrint(msgspec.Struct, array_like=True, frozen=True):
    price: str
    volume: str
    time: str
    side: str


class _OldTicker(msgspec.Struct, frozen=True):
    a: tuple[str, msgspec.Raw, str]
    b: tuple[str, msgspec.Raw, str]


_message: Final = msgspec.json.Decoder(_Message).decode
_books: Final = msgspec.json.Decoder(list[_Book]).decode
_prints: Final = msgspec.json.Decoder(list[_Print]).decode
_tickers: Final = msgspec.json.Decoder(list[_Ticker]).decode
_parts: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode
_text: Final = msgspec.json.Decoder(str).decode
_old_book: Final = msgspec.json.Decoder(_OldBook).decode
_old_prints: Final = msgspec.json.Decoder(list[_OldPrint]).decode
_old_ticker: Final = msgspec.json.Decoder(_OldTicker).decode

_SELLER: Final = {"sell": True, "s": True, "buy": False, "b": False}
_OF_NO_USE: Final = frozenset({"heartbeat", "status", "instrument", "ohlc"})


class KrakenDecoder(TypedDecoder):
    """Frames of one connection, of either version."""

    sequenced = False

    def __init__(self, table: SymbolTable, depth: int) -> None:
        super().__init__(table)
        self._depth = depth

    def _read(self, raw: bytes, recv_ns: int) -> Sequence[Item]:
        if raw[:1] == b"[":
            return self._old(raw, recv_ns)
        message = _message(raw)
        if message.event:
            return (self._old_event(message),)
        if message.method:
            return (self._reply(message),)
        if message.channel == "book":
            return self._on_books(message, recv_ns)
        if message.channel == "trade":
            return self._on_prints(message)
        if message.channel == "ticker":
            return self._on_tickers(message)
        if message.channel in _OF_NO_USE:
            return (Ignored(message.channel),)
        return (Unknown(f"channel {message.channel[:64]!r}"),)

    def _reply(self, message: _Message) -> Item:
        if message.method == "pong":
            return Ignored("pong")
        if not message.success or message.error:
            return Refused(f"{message.symbol} {message.error}".strip()[:300], message.req_id)
        if message.method == "subscribe":
            symbol = self.table.index.get(message.result.symbol)
            return Subscribed(message.req_id, () if symbol is None else (symbol,))
        return Ignored(message.method[:32])

    def _book(self, symbol: int, ts_ns: int, recv_ns: int, levels: list[Level], whole: bool, checksum: int | None) -> Item:
        number, prev = self._ids.book(symbol, recv_ns)
        if whole:
            return book_snapshot(symbol, ts_ns, levels, number, checksum, covered=self._depth)
        return book_change(symbol, ts_ns, levels, number, prev, checksum)

    def _on_books(self, message: _Message, recv_ns: int) -> Sequence[Item]:
        items: list[Item] = []
        for book in _books(message.data):
            symbol, unit = self._symbol(book.symbol)
            try:
                levels = levels_of(((raw_text(it.price), raw_text(it.qty)) for it in book.bids), BID, unit)
                levels += levels_of(((raw_text(it.price), raw_text(it.qty)) for it in book.asks), ASK, unit)
                ts_ns = iso_ns(book.timestamp) if book.timestamp else 0
            except Inexact as error:
                self._ids.cut(symbol)
                items += self._book_broken(symbol, error)
                continue
            items.append(self._book(symbol, ts_ns, recv_ns, levels, message.type == "snapshot", book.checksum))
        return items or (Ignored("no book"),)

    def _on_prints(self, message: _Message) -> Sequence[Item]:
        if message.type == "snapshot":
            return (Ignored("prints before the subscription"),)
        items: list[Item] = []
        for it in _prints(message.data):
            symbol, unit = self._symbol(it.symbol)
            ticks, lots = unit.ticks(raw_text(it.price)), unit.lots(raw_text(it.qty))
            items.append(trade(symbol, iso_ns(it.timestamp), ticks, lots, _SELLER[it.side], it.trade_id))
        return items or (Ignored("no print"),)

    def _on_tickers(self, message: _Message) -> Sequence[Item]:
        items: list[Item] = []
        for it in _tickers(message.data):
            symbol, unit = self._symbol(it.symbol)
            bid, bid_qty, ask, ask_qty = (raw_text(raw) for raw in (it.bid, it.bid_qty, it.ask, it.ask_qty))
            ts_ns = iso_ns(it.timestamp) if it.timestamp else 0
            items.append(bbo(symbol, ts_ns, unit, (bid, bid_qty), (ask, ask_qty)))
        return items or (Ignored("no price"),)

    # ---- v1

    def _old_event(self, message: _Message) -> Item:
        if message.event == "subscriptionStatus":
            if message.status == "error":
                return Refused(f"{message.pair} {message.errorMessage}".strip()[:300], message.reqid)
            if message.status == "subscribed":
                symbol = self.table.index.get(message.pair)
                return Subscribed(message.reqid, () if symbol is None else (symbol,))
            return Ignored("unsubscribed")
        if message.event in ("heartbeat", "systemStatus", "pong"):
            return Ignored(message.event)
        return Unknown(f"event {message.event[:48]!r}")

    def _old(self, raw: bytes, recv_ns: int) -> Sequence[Item]:
        parts = _parts(raw)
        channel, pair = _text(parts[-2]), _text(parts[-1])
        symbol, unit = self._symbol(pair)
        kind = channel.partition("-")[0]
        if kind == "book":
            return self._on_old_book(parts[1:-2], symbol, recv_ns)
        if kind == "trade":
            items: list[Item] = []
            for it in _old_prints(parts[1]):
                ticks, lots = unit.ticks(it.price), unit.lots(it.volume)
                items.append(trade(symbol, seconds_ns(it.time), ticks, lots, _SELLER[it.side], 0))
            return items or (Ignored("no print"),)
        if kind == "ticker":
            best = _old_ticker(parts[1])
            return (bbo(symbol, 0, unit, (best.b[0], best.b[2]), (best.a[0], best.a[2]), flags=SUMMARY),)
        if kind in ("spread", "ohlc"):
            return (Ignored(kind),)
        return (Unknown(f"channel {channel[:64]!r}"),)

    def _on_old_book(self, payloads: Sequence[Any], symbol: int, recv_ns: int) -> Sequence[Item]:
        unit = self.table.scale[symbol]
        levels: list[Level] = []
        whole, checksum, ts_ns = False, None, 0
        try:
            for payload in payloads:
                book = _old_book(payload)
                whole = whole or bool(book.as_ or book.bs)
                checksum = int(book.c) if book.c else checksum
                for side, rows in ((BID, book.bs or book.b), (ASK, book.as_ or book.a)):
                    levels += levels_of(((row.price, row.volume) for row in rows), side, unit)
                    ts_ns = max([ts_ns, *(seconds_ns(row.time) for row in rows)])
        except (ValueError, msgspec.MsgspecError) as error:
            self._ids.cut(symbol)
            return self._book_broken(symbol, error)
        return (self._book(symbol, ts_ns, recv_ns, levels, whole, checksum),)


# ---- REST answers


class _Pair(msgspec.Struct, frozen=True):
    wsname: str = ""
    pair_decimals: int = 0
    lot_decimals: int = 8
    tick_size: str = ""
    ordermin: str = ""
    costmin: str = ""
    status: str = "online"


class _Pairs(msgspec.Struct, frozen=True):
    result: dict[str, _Pair]


class _Clock(msgspec.Struct, frozen=True):
    unixtime: int


class _Time(msgspec.Struct, frozen=True):
    result: _Clock


_NEW_NAMES: Final = {"XBT": "BTC", "XDG": "DOGE"}


class Kraken(Venue):
    """Kraken's public market data, v2. Symbols as v2 writes them: "BTC/USD"."""

    market = Market.KRAKEN
    arbitrates = False

    def __init__(self, symbols: Sequence[VenueSymbol], streams: Streams) -> None:
        super().__init__(symbols, streams)
        self._table = SymbolTable(self.symbols, "kraken")
        self.depth: Final = next((depth for depth in DEPTHS if depth >= streams.snapshot_levels), DEPTHS[-1])

    @property
    def limits(self) -> Limits:
        """Documented: some 150 connects in 10 min and IP; a heartbeat each second; a ping at least once a minute where little is
        subscribed; REST about 1 request a second."""
        return Limits(
            streams_per_connection=3 * SYMBOLS_PER_CONNECTION, client_messages_per_s=5.0, connects_per_window=150,
            connect_window_s=600.0, lifetime_s=0.0, ping_interval_s=30.0, silence_timeout_s=20.0, rest_weight_per_minute=60,
        )  # fmt: skip

    @property
    def stream_url(self) -> str:
        """Streams."""
        return "wss://ws.kraken.com"

    @property
    def rest_url(self) -> str:
        """REST."""
        return "https://api.kraken.com"

    def connections(self) -> Sequence[ConnectionPlan]:
        """A symbol's channels stay together; one channel a message."""
        channels = [self._channel(stream) for stream in self.carried(ConnectionPlan("", (), ()))]
        plans = []
        for part in (self.symbols[i : i + SYMBOLS_PER_CONNECTION] for i in range(0, len(self.symbols), SYMBOLS_PER_CONNECTION)):
            names = [it.venue_name for it in part]
            params = [
                {**channel, "symbol": names[i : i + SYMBOLS_PER_MESSAGE]}
                for channel in channels for i in range(0, len(names), SYMBOLS_PER_MESSAGE)
            ]  # fmt: skip
            messages = tuple(to_json({"method": "subscribe", "params": it, "req_id": n}) for n, it in enumerate(params, 1))
            plans.append(ConnectionPlan("/v2", messages, tuple(it.index for it in part)))
        return plans

    def decoder(self) -> Decoder:
        """For one connection."""
        return KrakenDecoder(self._table, self.depth)

    def resubscribe(self, symbol: int) -> Sequence[bytes]:
        """Leave the book's channel and enter it anew: it begins with a snapshot."""
        return self._again(symbol, Stream.DEPTH, RESUBSCRIBE + symbol)

    def stream_messages(self, symbol: int, stream: Stream) -> Sequence[bytes]:
        """See Venue."""
        return () if stream is Stream.MARK else self._again(symbol, stream, RESTREAM + code_of(symbol, stream))

    def _channel(self, stream: Stream) -> dict[str, object]:
        if stream is Stream.DEPTH:
            return {"channel": "book", "depth": self.depth, "snapshot": True}
        if stream is Stream.BBO:
            return {"channel": "ticker", "event_trigger": "bbo", "snapshot": True}
        return {"channel": "trade", "snapshot": False}

    def _again(self, symbol: int, stream: Stream, number: int) -> tuple[bytes, bytes]:
        params = {**self._channel(stream), "symbol": [it.venue_name for it in self.symbols if it.index == symbol]}
        leave = {key: value for key, value in params.items() if key != "snapshot"}
        return (
            to_json({"method": "unsubscribe", "params": leave}),
            to_json({"method": "subscribe", "params": params, "req_id": number}),
        )

    def snapshot_request(self, symbol: int) -> RestRequest | None:
        """None: it comes within the stream."""
        return None

    def instruments_request(self) -> RestRequest:
        """AssetPairs."""
        return RestRequest("/0/public/AssetPairs")

    def parse_instruments(self, raw: bytes) -> Mapping[str, InstrumentRules]:
        """Rules by the name of v1 ("XBT/USD") and, where it differs, of v2 ("BTC/USD")."""
        with Expected("kraken", "the answer lists no pairs"):
            pairs = msgspec.json.decode(raw, type=_Pairs).result
        found = []
        for it in pairs.values():
            if not it.wsname:
                continue
            new = "/".join(_NEW_NAMES.get(part, part) for part in it.wsname.split("/"))
            try:
                printed = power_of_ten(it.pair_decimals)
                tick = it.tick_size if it.tick_size and decimals_of(it.tick_size) == it.pair_decimals else printed
                lot = power_of_ten(it.lot_decimals)
                for name in dict.fromkeys((it.wsname, new)):
                    found.append(rules(name, tick, lot, lot, it.ordermin or lot, "", it.costmin, it.status == "online"))
            except Inexact:
                continue
        return indexed(found, "kraken", "AssetPairs")

    def time_request(self) -> RestRequest | None:
        """`Time`, which tells whole seconds."""
        return RestRequest("/0/public/Time")

    def parse_time(self, raw: bytes) -> int:
        """Unix ns, to the second."""
        with Expected("kraken", "the answer is no time"):
            return whole_ns(msgspec.json.decode(raw, type=_Time).result.unixtime, 1_000_000_000)

    def ping_message(self, now_ns: int) -> bytes | None:
        """Answered by a pong."""
        return b'{"method":"ping"}'

    @staticmethod
    def rows(frame: Any) -> Iterator[Row]:
        """See Venue."""
        if isinstance(frame, list):
            name, kind = frame[-1], frame[-2].partition("-")[0]
            for body in frame[1:-2]:
                if kind == "book":
                    yield from ((name, it[0], it[1]) for key in ("as", "bs", "a", "b") for it in body.get(key, ()))
                elif kind == "trade":
                    yield from ((name, it[0], it[1]) for it in body)
                elif kind == "ticker":
                    yield from ((name, body[key][0], body[key][2]) for key in ("a", "b"))
            return
        for body in frame["data"]:
            if frame["channel"] == "book":
                yield from ((body["symbol"], it["price"], it["qty"]) for side in ("bids", "asks") for it in body.get(side, ()))
            elif frame["channel"] == "trade":
                yield body["symbol"], body["price"], body["qty"]
            elif frame["channel"] == "ticker":
                yield from ((body["symbol"], body[side], body[side + "_qty"]) for side in ("bid", "ask"))
