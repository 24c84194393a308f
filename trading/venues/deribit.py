"""Deribit (JSON-RPC 2.0 over WebSocket): `book.<instrument>.100ms`, `trades.<instrument>.100ms`, `quote.<instrument>`.

Each change of a book names the one before it (`prev_change_id`); the first message is a snapshot. `raw` intervals are for those
who log in. Numbers are JSON numbers, taken as the text that came. Amounts are USD (perpetuals, futures) or coins (options).

The venue is asked for heartbeats; its `test_request` wants a `public/test` in return, or it ends the connection.

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
    block_trade,
    book_change,
    book_snapshot,
    chunks,
    indexed,
    lot_for,
    raw_text,
    rules,
    to_json,
    trade,
)
from trading.venues.decimals import Inexact, millis_ns, plain_decimal
from trading.venues.names import INVERSE
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
    Send,
    Streams,
    Subscribed,
    Unknown,
    Venue,
    VenueSymbol,
    code_of,
)
from trading.wire.plain_frame import SUMMARY

CHANNELS_PER_MESSAGE: Final = 100
CHANNELS_PER_CONNECTION: Final = 500
HEARTBEAT_S: Final = 10
"""The shortest interval that the venue offers."""
TEST: Final = b'{"jsonrpc":"2.0","id":9000000,"method":"public/test","params":{}}'
_TEST_ID: Final = 9_000_000
CHANNELS: Final = {Stream.DEPTH: "book.{}.100ms", Stream.PRINTS: "trades.{}.100ms", Stream.BBO: "quote.{}"}
_HEARTBEAT_ID: Final = 9_000_001
_QUIET_ID: Final = 9_000_002


class _Error(msgspec.Struct, frozen=True):
    code: int = 0
    message: str = ""


class _Params(msgspec.Struct, frozen=True):
    channel: str = ""
    data: msgspec.Raw = msgspec.Raw(b"")
    type: str = ""


class _Message(msgspec.Struct, frozen=True):
    method: str = ""
    params: _Params = _Params()
    id: int = -1
    result: msgspec.Raw = msgspec.Raw(b"")
    error: _Error | None = None


class _Change(msgspec.Struct, array_like=True, frozen=True):
    """[action, price, amount]."""

    action: str
    price: msgspec.Raw
    amount: msgspec.Raw


class _Book(msgspec.Struct, frozen=True):
    type: str
    timestamp: int
    instrument_name: str
    change_id: int
    prev_change_id: int = 0
    bids: list[_Change] = []
    asks: list[_Change] = []


class _Print(msgspec.Struct, frozen=True):
    trade_seq: int
    timestamp: int
    price: msgspec.Raw
    amount: msgspec.Raw
    instrument_name: str
    direction: str
    block_trade_id: str | None = None


class _Quote(msgspec.Struct, frozen=True):
    """Of `quote` and of `ticker`."""

    timestamp: int
    instrument_name: str
    best_bid_price: msgspec.Raw = msgspec.Raw(b"")
    best_bid_amount: msgspec.Raw = msgspec.Raw(b"")
    best_ask_price: msgspec.Raw = msgspec.Raw(b"")
    best_ask_amount: msgspec.Raw = msgspec.Raw(b"")


_message: Final = msgspec.json.Decoder(_Message).decode
_book: Final = msgspec.json.Decoder(_Book).decode
_prints: Final = msgspec.json.Decoder(list[_Print]).decode
_quote: Final = msgspec.json.Decoder(_Quote).decode
_strings: Final = msgspec.json.Decoder(list[str]).decode

_SELLER: Final = {"sell": True, "buy": False}
_OF_NO_USE: Final = frozenset({
    "deribit_price_index", "perpetual", "platform_state", "instrument", "estimated_expiration_price", "chart", "markprice",
    "deribit_volatility_index", "deribit_price_ranking", "deribit_price_statistics", "block_rfq", "incremental_ticker",
})  # fmt: skip


class DeribitDecoder(TypedDecoder):
    """Frames of one connection."""

    def _read(self, raw: bytes, recv_ns: int) -> Sequence[Item]:
        message = _message(raw)
        if message.method == "subscription":
            return self._on_channel(message.params)
        if message.method == "heartbeat":
            return (Send(TEST),) if message.params.type == "test_request" else (Ignored("heartbeat"),)
        if message.error is not None:
            return (Refused(f"{message.error.code}: {message.error.message}"[:300], max(message.id, 0)),)
        if message.id in (_TEST_ID, _HEARTBEAT_ID, _QUIET_ID):
            return (Ignored("reply"),)
        result = bytes(message.result)
        if message.id >= 0 and result[:1] == b"[":
            names = [channel.split(".")[1] for channel in _strings(result) if channel.count(".") >= 1]
            symbols = {self.table.index[name] for name in names if name in self.table.index}
            return (Subscribed(message.id, tuple(sorted(symbols))),)
        return (Unknown("neither a subscription nor a reply"),)

    def _on_channel(self, params: _Params) -> Sequence[Item]:
        kind = params.channel.partition(".")[0]
        if kind == "book":
            return self._on_book(params)
        if kind == "trades":
            return self._on_prints(params)
        if kind in ("ticker", "quote"):
            return self._on_quote(params)
        if kind in _OF_NO_USE:
            return (Ignored(kind),)
        return (Unknown(f"channel {params.channel[:64]!r}"),)

    def _on_book(self, params: _Params) -> Sequence[Item]:
        symbol, unit = self._symbol(params.channel.split(".")[1])
        try:
            book = _book(params.data)
            levels = []
            for side, changes in ((BID, book.bids), (ASK, book.asks)):
                for it in changes:
                    lots = 0 if it.action == "delete" else unit.lots(raw_text(it.amount))
                    levels.append((unit.ticks(raw_text(it.price)) * 2 + side, lots))
            ts_ns = millis_ns(book.timestamp)
        except (Inexact, msgspec.MsgspecError, UnicodeDecodeError) as error:
            return self._book_broken(symbol, error)
        if book.type == "snapshot":
            return (book_snapshot(symbol, ts_ns, levels, book.change_id),)
        if book.type != "change":
            return (Unknown(f"type {book.type[:32]!r} of an order book"),)
        return (book_change(symbol, ts_ns, levels, book.change_id, book.prev_change_id),)

    def _on_prints(self, params: _Params) -> Sequence[Item]:
        items: list[Item] = []
        for it in _prints(params.data):
            symbol, unit = self._symbol(it.instrument_name)
            if it.block_trade_id:
                items.append(block_trade(symbol, millis_ns(it.timestamp), it.trade_seq))
                continue
            ticks, lots = unit.ticks(raw_text(it.price)), unit.lots(raw_text(it.amount))
            items.append(trade(symbol, millis_ns(it.timestamp), ticks, lots, _SELLER[it.direction], it.trade_seq))
        return items or (Ignored("no print"),)

    def _on_quote(self, params: _Params) -> Sequence[Item]:
        it = _quote(params.data)
        symbol, unit = self._symbol(it.instrument_name)
        bid, bid_lots, ask, ask_lots = (
            "" if raw_text(raw) == "null" else raw_text(raw)
            for raw in (it.best_bid_price, it.best_bid_amount, it.best_ask_price, it.best_ask_amount)
        )
        flags = SUMMARY if params.channel.startswith("ticker") else 0
        return (bbo(symbol, millis_ns(it.timestamp), unit, (bid, bid_lots), (ask, ask_lots), flags=flags),)


# ---- REST answers


class _Listed(msgspec.Struct, frozen=True):
    instrument_name: str
    tick_size: msgspec.Raw
    min_trade_amount: msgspec.Raw
    is_active: bool = True
    kind: str = ""
    instrument_type: str = "reversed"  # of futures; lists of before 2023 have no other and do not say it


class _Instruments(msgspec.Struct, frozen=True):
    result: list[_Listed]


class _Time(msgspec.Struct, frozen=True):
    result: int


class Deribit(Venue):
    """Deribit's public market data. Symbols as the venue writes them: "BTC-PERPETUAL"."""

    market = Market.DERIBIT

    def __init__(self, symbols: Sequence[VenueSymbol], streams: Streams) -> None:
        super().__init__(symbols, streams)
        self._table = SymbolTable(self.symbols, "deribit")

    @property
    def limits(self) -> Limits:
        """Documented: 500 channels a subscription, 32 connections an IP; 20 requests a second sustained (ours are far fewer)."""
        return Limits(
            streams_per_connection=CHANNELS_PER_CONNECTION, client_messages_per_s=5.0, connects_per_window=32,
            connect_window_s=60.0, lifetime_s=0.0, silence_timeout_s=3.0 * HEARTBEAT_S, rest_weight_per_minute=300,
        )  # fmt: skip

    @property
    def stream_url(self) -> str:
        """Streams."""
        return "wss://www.deribit.com"

    @property
    def rest_url(self) -> str:
        """REST."""
        return "https://www.deribit.com"

    def connections(self) -> Sequence[ConnectionPlan]:
        """A symbol's channels stay together; the heartbeat is asked for behind the subscriptions."""
        carried = self.carried(ConnectionPlan("", (), ()))
        kinds = [kind for stream, kind in CHANNELS.items() if stream in carried]
        each = CHANNELS_PER_CONNECTION // max(len(kinds), 1)
        plans = []
        for part in (self.symbols[i : i + each] for i in range(0, len(self.symbols), each)):
            channels = [kind.format(it.venue_name) for it in part for kind in kinds]
            parts = chunks(channels, CHANNELS_PER_MESSAGE)
            messages = [_call(number, "public/subscribe", channels=some) for number, some in enumerate(parts, 1)]
            messages.append(_call(_HEARTBEAT_ID, "public/set_heartbeat", interval=HEARTBEAT_S))
            plans.append(ConnectionPlan("/ws/api/v2", tuple(messages), tuple(it.index for it in part)))
        return plans

    def decoder(self) -> Decoder:
        """For one connection."""
        return DeribitDecoder(self._table)

    def resubscribe(self, symbol: int) -> Sequence[bytes]:
        """Leave the book's channel and enter it anew: it begins with a snapshot."""
        return self._again(symbol, Stream.DEPTH, RESUBSCRIBE + symbol)

    def stream_messages(self, symbol: int, stream: Stream) -> Sequence[bytes]:
        """See Venue."""
        return self._again(symbol, stream, RESTREAM + code_of(symbol, stream)) if stream in CHANNELS else ()

    def _again(self, symbol: int, stream: Stream, number: int) -> tuple[bytes, bytes]:
        channels = [CHANNELS[stream].format(it.venue_name) for it in self.symbols if it.index == symbol]
        again = _call(number, "public/subscribe", channels=channels)
        return _call(_QUIET_ID, "public/unsubscribe", channels=channels), again

    def snapshot_request(self, symbol: int) -> RestRequest | None:
        """None: it comes within the stream."""
        return None

    def instruments_request(self) -> RestRequest:
        """All currencies at once."""
        return RestRequest("/api/v2/public/get_instruments", {"currency": "any", "expired": "false"})

    def parse_instruments(self, raw: bytes) -> Mapping[str, InstrumentRules]:
        """Rules by instrument name. The tick is the finest: some instruments' ticks grow with the price."""
        with Expected("deribit", "the answer lists no instruments"):
            listed = msgspec.json.decode(raw, type=_Instruments).result
        found = []
        for it in listed:
            try:
                step = plain_decimal(raw_text(it.min_trade_amount))
                inverse = it.kind == "future" and it.instrument_type == "reversed"  # their amounts are sums of the quote currency
                found.append(
                    rules(
                        it.instrument_name, raw_text(it.tick_size), lot_for(step), step, step, "", "", it.is_active,
                        contract=INVERSE if inverse else "",
                    )
                )  # fmt: skip
            except Inexact:
                continue
        return indexed(found, "deribit", "get_instruments")

    def time_request(self) -> RestRequest | None:
        """`public/get_time`."""
        return RestRequest("/api/v2/public/get_time")

    def parse_time(self, raw: bytes) -> int:
        """Unix ns, to the millisecond."""
        with Expected("deribit", "the answer is no time"):
            return millis_ns(msgspec.json.decode(raw, type=_Time).result)

    @staticmethod
    def rows(frame: Any) -> Iterator[Row]:
        """See Venue."""
        kind, body = frame["params"]["channel"].partition(".")[0], frame["params"]["data"]
        if kind == "book":
            yield from ((body["instrument_name"], it[1], it[2]) for side in ("bids", "asks") for it in body[side])
        elif kind == "trades":
            yield from (
                (it["instrument_name"], it["price"], it["amount"]) for it in body if not it.get("block_trade_id")
            )
        elif kind in ("ticker", "quote"):
            sides = ("best_bid", "best_ask")
            yield from ((body["instrument_name"], body[side + "_price"], body[side + "_amount"]) for side in sides)


def _call(number: int, method: str, **params: object) -> bytes:
    return to_json({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
