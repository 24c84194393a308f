"""Coinbase Advanced Trade streams (level2, market_trades, ticker, heartbeats), and the older ws-feed as recordings have it.

`sequence_num` counts every message of the connection, whatever its channel: a hole means that any book may have missed something,
so all symbols are told Missed, once for each hole. Book messages carry no ids; theirs are arrival times, chained
(trading.venues.building.Ids), and two lines cannot be arbitrated. The older feed (`l2update`, `match`) has no count at all.

The venue names the maker's side of a print.

What this module is not: it sends nothing and keeps no book.
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
    SymbolTable,
    TypedDecoder,
    bbo,
    book_change,
    book_snapshot,
    chunks,
    indexed,
    levels_of,
    lot_for,
    rules,
    to_json,
    trade,
)
from trading.venues.decimals import Inexact, iso_ns
from trading.venues.protocol import (
    ConnectionPlan,
    Decoder,
    Ignored,
    InstrumentRules,
    Item,
    Limits,
    Missed,
    Plain,
    Refused,
    RestRequest,
    Row,
    Streams,
    Subscribed,
    Unknown,
    Venue,
    VenueSymbol,
)

PRODUCTS_PER_MESSAGE: Final = 50
PRODUCTS_PER_CONNECTION: Final = 50
"""A level2 snapshot of a large product has megabytes: many on one connection delay each other."""

CHANNELS: Final = {Stream.DEPTH: "level2", Stream.PRINTS: "market_trades", Stream.BBO: "ticker"}
_SIDE: Final = {"bid": BID, "offer": ASK, "buy": BID, "sell": ASK}
_MAKER_BOUGHT: Final = {"BUY": True, "SELL": False, "buy": True, "sell": False}


class _Update(msgspec.Struct, frozen=True):
    side: str
    price_level: str
    new_quantity: str


class _Print(msgspec.Struct, frozen=True):
    product_id: str
    trade_id: str
    price: str
    size: str
    side: str
    time: str


class _Ticker(msgspec.Struct, frozen=True):
    product_id: str
    best_bid: str = ""
    best_bid_quantity: str = ""
    best_ask: str = ""
    best_ask_quantity: str = ""


class _Event(msgspec.Struct, frozen=True):
    """Of any channel; absent fields keep their defaults."""

    type: str = ""
    product_id: str = ""
    updates: list[_Update] = []
    trades: list[_Print] = []
    tickers: list[_Ticker] = []
    subscriptions: dict[str, list[str]] = {}


class _Message(msgspec.Struct, frozen=True):
    """Envelope of both feeds; the older one has `type` and no channel."""

    channel: str = ""
    timestamp: str = ""
    sequence_num: int = -1
    events: list[_Event] = []
    type: str = ""
    message: str = ""
    reason: str = ""


class _OldListed(msgspec.Struct, frozen=True):
    name: str = ""
    product_ids: list[str] = []


class _Old(msgspec.Struct, frozen=True):
    """A message of the older feed."""

    type: str
    product_id: str = ""
    time: str = ""
    bids: list[tuple[str, str]] = []
    asks: list[tuple[str, str]] = []
    changes: list[tuple[str, str, str]] = []
    trade_id: int = 0
    side: str = ""
    size: str = ""
    price: str = ""
    best_bid: str = ""
    best_bid_size: str = ""
    best_ask: str = ""
    best_ask_size: str = ""
    channels: list[_OldListed] = []


_message: Final = msgspec.json.Decoder(_Message).decode
_old: Final = msgspec.json.Decoder(_Old).decode
_OF_NO_USE: Final = frozenset({"heartbeats", "status", "candles", "ticker_batch"})
_OLD_OF_NO_USE: Final = frozenset({"last_match", "heartbeat", "status", "received", "open", "done", "change", "activate"})


class CoinbaseDecoder(TypedDecoder):
    """Frames of one connection, of either feed."""

    sequenced = False  # of the older feed; holes of the newer are seen, and telling Missed twice costs one more snapshot

    def __init__(self, table: SymbolTable) -> None:
        super().__init__(table)
        self._last_num: int | None = None

    def _read(self, raw: bytes, recv_ns: int) -> Sequence[Item]:
        message = _message(raw)
        if not message.channel:
            return self._on_old(message, raw, recv_ns)
        missed: list[Item] = []
        if message.sequence_num >= 0 and not self.excerpt:
            last = self._last_num
            if last is not None and message.sequence_num <= last:
                return (Ignored("late"),)
            if last is not None and message.sequence_num != last + 1:
                missed = self._missed(f"sequence {last + 1} to {message.sequence_num - 1} did not come")
            self._last_num = message.sequence_num
        return [*missed, *self._on_channel(message, recv_ns)]

    def _missed(self, why: str) -> list[Item]:
        symbols = self.table.all()
        for symbol in symbols:
            self._ids.cut(symbol)
        return [Missed(symbols, why)]

    def _on_channel(self, message: _Message, recv_ns: int) -> Sequence[Item]:
        items: list[Item] = []
        if message.channel == "l2_data":
            for event in message.events:
                items += self._on_book(event, iso_ns(message.timestamp), recv_ns)
        elif message.channel == "market_trades":
            for event in message.events:
                items += self._on_prints(event)
        elif message.channel == "ticker":
            for event in message.events:
                for it in event.tickers:
                    symbol, unit = self._symbol(it.product_id)
                    bid, ask = (it.best_bid, it.best_bid_quantity), (it.best_ask, it.best_ask_quantity)
                    items.append(bbo(symbol, iso_ns(message.timestamp), unit, bid, ask))
        elif message.channel == "subscriptions":
            names = {name for event in message.events for listed in event.subscriptions.values() for name in listed}
            items.append(Subscribed(0, tuple(sorted(self.table.index[name] for name in names if name in self.table.index))))
        elif message.channel not in _OF_NO_USE:
            return (Unknown(f"channel {message.channel[:64]!r}"),)
        return items or (Ignored(message.channel),)

    def _on_book(self, event: _Event, ts_ns: int, recv_ns: int) -> Sequence[Item]:
        symbol, unit = self._symbol(event.product_id)
        try:
            levels = [(unit.ticks(it.price_level) * 2 + _SIDE[it.side], unit.lots(it.new_quantity)) for it in event.updates]
        except (Inexact, KeyError) as error:
            self._ids.cut(symbol)
            return self._book_broken(symbol, error)
        number, prev = self._ids.book(symbol, recv_ns)
        if event.type == "snapshot":
            return (book_snapshot(symbol, ts_ns, [level for level in levels if level[1]], number),)
        return (book_change(symbol, ts_ns, levels, number, prev),)

    def _on_prints(self, event: _Event) -> Sequence[Item]:
        if event.type == "snapshot":
            return (Ignored("prints before the subscription"),)
        items: list[Item] = []
        for it in reversed(event.trades):  # newest first on the wire
            symbol, unit = self._symbol(it.product_id)
            took = _MAKER_BOUGHT[it.side]
            items.append(trade(symbol, iso_ns(it.time), unit.ticks(it.price), unit.lots(it.size), took, int(it.trade_id)))
        return items

    # ---- the older feed

    def _on_old(self, message: _Message, raw: bytes, recv_ns: int) -> Sequence[Item]:
        if message.type == "error":
            return (Refused(f"{message.message} {message.reason}".strip()[:300]),)
        if message.type in _OLD_OF_NO_USE:
            return (Ignored(message.type),)
        old = _old(raw)
        if old.type in ("snapshot", "l2update"):
            return self._on_old_book(old, recv_ns)
        if old.type == "match":
            symbol, unit = self._symbol(old.product_id)
            took = _MAKER_BOUGHT[old.side]
            return (trade(symbol, iso_ns(old.time), unit.ticks(old.price), unit.lots(old.size), took, old.trade_id),)
        if old.type == "ticker":
            if not old.best_bid_size and not old.best_ask_size:
                return (Ignored("ticker without quantities"),)
            symbol, unit = self._symbol(old.product_id)
            bid, ask = (old.best_bid, old.best_bid_size), (old.best_ask, old.best_ask_size)
            return (bbo(symbol, iso_ns(old.time), unit, bid, ask),)
        if old.type == "subscriptions":
            names = {name for listed in old.channels for name in listed.product_ids}
            return (Subscribed(0, tuple(sorted(self.table.index[name] for name in names if name in self.table.index))),)
        return (Unknown(f"type {old.type[:48]!r}"),)

    def _on_old_book(self, old: _Old, recv_ns: int) -> Sequence[Item]:
        symbol, unit = self._symbol(old.product_id)
        try:
            ts_ns = iso_ns(old.time) if old.time else 0
            if old.type == "snapshot":
                levels = levels_of(old.bids, BID, unit) + levels_of(old.asks, ASK, unit)
            else:
                levels = [(unit.ticks(price) * 2 + _SIDE[side], unit.lots(qty)) for side, price, qty in old.changes]
        except (Inexact, KeyError) as error:
            self._ids.cut(symbol)
            return self._book_broken(symbol, error)
        number, prev = self._ids.book(symbol, recv_ns)
        made: Plain = book_snapshot(symbol, ts_ns, levels, number) if old.type == "snapshot" else book_change(
            symbol, ts_ns, levels, number, prev
        )
        return (made,)


# ---- REST answers


class _Product(msgspec.Struct, frozen=True):
    """Of /api/v3/brokerage/market/products, or (with `id`) of the older /products."""

    product_id: str = ""
    price_increment: str = ""
    base_increment: str = ""
    base_min_size: str = ""
    base_max_size: str = ""
    quote_min_size: str = ""
    status: str = ""
    trading_disabled: bool = False
    is_disabled: bool = False
    id: str = ""
    quote_increment: str = ""
    min_market_funds: str = ""


class _Products(msgspec.Struct, frozen=True):
    products: list[_Product]


class _Time(msgspec.Struct, frozen=True):
    iso: str


class Coinbase(Venue):
    """Coinbase's public market data by Advanced Trade."""

    market = Market.COINBASE
    arbitrates = False

    def __init__(self, symbols: Sequence[VenueSymbol], streams: Streams) -> None:
        super().__init__(symbols, streams)
        self._table = SymbolTable(self.symbols, "coinbase")

    @property
    def limits(self) -> Limits:
        """Documented: 8 unauthenticated messages a second and IP, over all connections; 750 connects a second; heartbeats each
        second; public REST 10 a second."""
        return Limits(
            streams_per_connection=3 * PRODUCTS_PER_CONNECTION + 1, client_messages_per_s=8.0, messages_shared=True,
            connects_per_window=60, connect_window_s=60.0, lifetime_s=0.0, silence_timeout_s=20.0, rest_weight_per_minute=600,
        )  # fmt: skip

    @property
    def stream_url(self) -> str:
        """Streams."""
        return "wss://advanced-trade-ws.coinbase.com"

    @property
    def rest_url(self) -> str:
        """REST."""
        return "https://api.coinbase.com"

    def connections(self) -> Sequence[ConnectionPlan]:
        """One channel a message; heartbeats first, which keep quiet channels open."""
        carried = self.carried(ConnectionPlan("", (), ()))
        channels = [channel for stream, channel in CHANNELS.items() if stream in carried]
        plans = []
        for i in range(0, len(self.symbols), PRODUCTS_PER_CONNECTION):
            part = self.symbols[i : i + PRODUCTS_PER_CONNECTION]
            messages = [to_json({"type": "subscribe", "channel": "heartbeats"})]
            for channel in channels:
                for names in chunks([it.venue_name for it in part], PRODUCTS_PER_MESSAGE):
                    messages.append(to_json({"type": "subscribe", "product_ids": names, "channel": channel}))
            plans.append(ConnectionPlan("", tuple(messages), tuple(it.index for it in part)))
        return plans

    def decoder(self) -> Decoder:
        """For one connection."""
        return CoinbaseDecoder(self._table)

    def resubscribe(self, symbol: int) -> Sequence[bytes]:
        """Leave the book's channel and enter it anew: it begins with a snapshot."""
        return self.stream_messages(symbol, Stream.DEPTH)

    def stream_messages(self, symbol: int, stream: Stream) -> Sequence[bytes]:
        """See Venue."""
        names = [it.venue_name for it in self.symbols if it.index == symbol]
        kinds = ("unsubscribe", "subscribe") if stream in CHANNELS else ()
        return [to_json({"type": kind, "product_ids": names, "channel": CHANNELS[stream]}) for kind in kinds]

    def snapshot_request(self, symbol: int) -> RestRequest | None:
        """None: it comes within the stream."""
        return None

    def instruments_request(self) -> RestRequest:
        """The public list of products."""
        return RestRequest("/api/v3/brokerage/market/products")

    def parse_instruments(self, raw: bytes) -> Mapping[str, InstrumentRules]:
        """Rules by product id, of either feed's list."""
        with Expected("coinbase", "the answer lists no products"):
            old = raw.lstrip()[:1] == b"["
            listed = msgspec.json.decode(raw, type=list[_Product]) if old else msgspec.json.decode(raw, type=_Products).products
        found = []
        for it in listed:
            try:
                found.append(
                    rules(
                        it.product_id or it.id, it.price_increment or it.quote_increment, lot_for(it.base_increment),
                        it.base_increment, it.base_min_size, it.base_max_size, it.quote_min_size or it.min_market_funds,
                        it.status == "online" and not it.trading_disabled and not it.is_disabled,
                    )
                )  # fmt: skip
            except Inexact:
                continue
        return indexed(found, "coinbase", "products")

    def time_request(self) -> RestRequest | None:
        """`time`."""
        return RestRequest("/api/v3/brokerage/time")

    def parse_time(self, raw: bytes) -> int:
        """Unix ns."""
        with Expected("coinbase", "the answer is no time"):
            return iso_ns(msgspec.json.decode(raw, type=_Time).iso)

    @staticmethod
    def rows(frame: Any) -> Iterator[Row]:
        """See Venue."""
        for event in frame.get("events", ()):
            for it in event.get("updates", ()):
                yield event["product_id"], it["price_level"], it["new_quantity"]
            for it in event.get("trades", ()):
                yield it["product_id"], it["price"], it["size"]
            for it in event.get("tickers", ()):
                yield from ((it["product_id"], it[side], it[side + "_quantity"]) for side in ("best_bid", "best_ask"))
        name = frame.get("product_id")
        if frame.get("type") == "snapshot":
            yield from ((name, price, qty) for side in ("bids", "asks") for price, qty in frame[side])
        elif frame.get("type") == "l2update":
            yield from ((name, price, qty) for _, price, qty in frame["changes"])
        elif frame.get("type") == "match":
            yield name, frame["price"], frame["size"]
        elif frame.get("type") == "ticker":
            yield from ((name, frame[side], frame.get(side + "_size")) for side in ("best_bid", "best_ask"))
