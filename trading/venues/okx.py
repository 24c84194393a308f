"""OKX v5 public streams: `books` (400 levels, 100 ms), `bbo-tbt`, `trades`.

Each book message names the one before it (`prevSeqId`), for ever; a snapshot has -1. A message without changes and with
prevSeqId == seqId says after a minute of silence that the book stands. A sequence that is reset for maintenance goes down once,
which breaks no chain. The checksum (CRC32 of the top 25, signed) was 0 in all messages from 2026-06-23 on, by the venue's notice
of 2026-05-21: 0 counts as none. Recordings of 2022 have checksums and no sequence; their ids are made here.

Levels that leave the 400 are removed by the venue itself (no recorded book ever has more).

`trades` bundles the fills of one taker order: ids rise, but not by one. Sizes of swaps, futures and options are contracts.

What this module is not: it sends nothing and keeps no book.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from trading.contracts import CONTRACTS
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
    indexed,
    levels_of,
    lot_for,
    rules,
    to_json,
    trade,
)
from trading.venues.decimals import Inexact, millis_ns
from trading.venues.protocol import (
    RESTREAM,
    RESUBSCRIBE,
    Closing,
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

ARGS_PER_MESSAGE: Final = 100
"""A message may have 64 KB; an argument of ours has at most 100 bytes."""
REQUESTS_PER_HOUR: Final = 480
"""Subscriptions and unsubscriptions that a connection bears. Whether arguments or messages count is not said: arguments here."""
STREAMS_PER_CONNECTION: Final = REQUESTS_PER_HOUR // 2
"""Half of it stays for resyncs."""
CHANNELS: Final = {Stream.DEPTH: "books", Stream.BBO: "bbo-tbt", Stream.PRINTS: "trades"}


class _Arg(msgspec.Struct, frozen=True):
    channel: str = ""
    instId: str = ""


class _Message(msgspec.Struct, frozen=True):
    event: str = ""
    code: str = ""
    msg: str = ""
    id: str = ""
    arg: _Arg = _Arg()
    action: str = ""
    data: msgspec.Raw = msgspec.Raw(b"")


class _Level(msgspec.Struct, array_like=True, frozen=True):
    """[price, size, "0", orders]."""

    price: str
    size: str


class _Book(msgspec.Struct, frozen=True):
    ts: str
    asks: list[_Level] = []
    bids: list[_Level] = []
    checksum: int = 0
    seqId: int | None = None
    prevSeqId: int = -1


class _Print(msgspec.Struct, frozen=True):
    instId: str
    tradeId: str
    px: str
    sz: str
    side: str
    ts: str


class _Ticker(msgspec.Struct, frozen=True):
    instId: str
    ts: str
    askPx: str = ""
    askSz: str = ""
    bidPx: str = ""
    bidSz: str = ""


_message: Final = msgspec.json.Decoder(_Message).decode
_books: Final = msgspec.json.Decoder(list[_Book]).decode
_prints: Final = msgspec.json.Decoder(list[_Print]).decode
_tickers: Final = msgspec.json.Decoder(list[_Ticker]).decode

_SELLER: Final = {"sell": True, "buy": False}
_BOOKS: Final = frozenset({"books", "books-l2-tbt", "books50-l2-tbt"})
_OF_NO_USE: Final = frozenset({"books5", "mark-price", "index-tickers", "funding-rate", "open-interest", "status", "instruments"})


class OkxDecoder(TypedDecoder):
    """Frames of one connection."""

    def _read(self, raw: bytes, recv_ns: int) -> Sequence[Item]:
        if raw == b"pong":
            return (Ignored("pong"),)
        message = _message(raw)
        if message.event:
            return (self._event(message),)
        channel = message.arg.channel
        if channel in _BOOKS:
            return self._on_books(message, recv_ns)
        if channel in ("trades", "trades-all"):
            return self._on_prints(message, channel == "trades-all")
        if channel == "bbo-tbt":
            return self._on_best(message)
        if channel == "tickers":
            return self._on_tickers(message)
        if channel in _OF_NO_USE or channel.startswith("candle"):
            return (Ignored(channel),)
        return (Unknown(f"channel {channel[:64]!r}"),)

    def _event(self, message: _Message) -> Item:
        number = int(message.id) if message.id.isascii() and message.id.isdigit() else 0
        if message.event == "subscribe":
            symbol = self.table.index.get(message.arg.instId)
            return Subscribed(number, () if symbol is None else (symbol,))
        if message.event == "error":
            return Refused(f"{message.code}: {message.msg}"[:300], number)
        if message.event == "notice":
            return Closing(f"{message.code}: {message.msg}"[:300])
        if message.event in ("unsubscribe", "channel-conn-count", "login"):
            return Ignored(message.event)
        return Unknown(f"event {message.event[:48]!r}")

    def _on_books(self, message: _Message, recv_ns: int) -> Sequence[Item]:
        symbol, unit = self._symbol(message.arg.instId)
        items: list[Item] = []
        try:
            for book in _books(message.data):
                levels = levels_of(((it.price, it.size) for it in book.bids), BID, unit)
                levels += levels_of(((it.price, it.size) for it in book.asks), ASK, unit)
                ts_ns = millis_ns(book.ts)
                checksum = book.checksum & 0xFFFFFFFF if book.checksum else None
                if book.seqId is None:
                    number, prev = self._ids.book(symbol, recv_ns)
                else:
                    number, prev = book.seqId, max(book.prevSeqId, 0)
                if message.action == "snapshot":
                    items.append(book_snapshot(symbol, ts_ns, levels, number, checksum))
                elif message.action == "update":
                    items.append(book_change(symbol, ts_ns, levels, number, prev, checksum))
                else:
                    items.append(Unknown(f"action {message.action[:32]!r} of an order book"))
        except (ValueError, msgspec.MsgspecError) as error:
            self._ids.cut(symbol)
            return [*items, *self._book_broken(symbol, error)]
        return items or (Ignored("no book"),)

    def _on_prints(self, message: _Message, counted: bool) -> Sequence[Item]:
        items: list[Item] = []
        for it in _prints(message.data):
            symbol, unit = self._symbol(it.instId)
            ts_ns, seller_took = millis_ns(it.ts), _SELLER[it.side]
            items.append(trade(symbol, ts_ns, unit.ticks(it.px), unit.lots(it.sz), seller_took, int(it.tradeId), counted=counted))
        return items or (Ignored("no print"),)

    def _on_best(self, message: _Message) -> Sequence[Item]:
        symbol, unit = self._symbol(message.arg.instId)
        items: list[Item] = []
        for book in _books(message.data):
            bid = (book.bids[0].price, book.bids[0].size) if book.bids else ("", "")
            ask = (book.asks[0].price, book.asks[0].size) if book.asks else ("", "")
            items.append(bbo(symbol, millis_ns(book.ts), unit, bid, ask, book.seqId or 0))
        return items or (Ignored("no price"),)

    def _on_tickers(self, message: _Message) -> Sequence[Item]:
        items: list[Item] = []
        for it in _tickers(message.data):
            symbol, unit = self._symbol(it.instId)
            items.append(bbo(symbol, millis_ns(it.ts), unit, (it.bidPx, it.bidSz), (it.askPx, it.askSz), flags=SUMMARY))
        return items or (Ignored("no price"),)


# ---- REST answers


class _Listed(msgspec.Struct, frozen=True):
    instId: str
    tickSz: str = ""
    lotSz: str = ""
    minSz: str = ""
    maxLmtSz: str = ""
    state: str = ""
    ctType: str = ""  # linear or inverse; "" for what is no contract
    ctVal: str = ""


class _Instruments(msgspec.Struct, frozen=True):
    data: list[_Listed]


class _Clock(msgspec.Struct, frozen=True):
    ts: str


class _Time(msgspec.Struct, frozen=True):
    data: list[_Clock]


def kind_of(name: str) -> dict[str, str]:
    """The parameters that list the instrument: by its name SPOT, SWAP, FUTURES or OPTION (which wants its family too)."""
    parts = name.split("-")
    if len(parts) == 5:
        return {"instType": "OPTION", "instFamily": "-".join(parts[:2])}
    if len(parts) == 3:
        return {"instType": "SWAP" if parts[2] == "SWAP" else "FUTURES"}
    return {"instType": "SPOT"}


class Okx(Venue):
    """OKX's public market data."""

    market = Market.OKX

    def __init__(self, symbols: Sequence[VenueSymbol], streams: Streams) -> None:
        super().__init__(symbols, streams)
        self._table = SymbolTable(self.symbols, "okx")

    @property
    def limits(self) -> Limits:
        """Documented: 3 connects a second, 480 subscribe requests an hour and connection, closed after 30 s without a message (so
        "ping"); 20 REST requests in 2 s, taken as 300 a minute."""
        return Limits(
            streams_per_connection=STREAMS_PER_CONNECTION, client_messages_per_s=3.0, connects_per_window=3, connect_window_s=1.0,
            requests_per_connection=REQUESTS_PER_HOUR, lifetime_s=0.0, ping_interval_s=20.0, silence_timeout_s=45.0,
            rest_weight_per_minute=300,
        )  # fmt: skip

    @property
    def stream_url(self) -> str:
        """Streams."""
        return "wss://ws.okx.com:8443"

    @property
    def rest_url(self) -> str:
        """REST."""
        return "https://www.okx.com"

    def _channels(self) -> list[str]:
        return [CHANNELS[stream] for stream in self.carried(ConnectionPlan("", (), ()))]

    def connections(self) -> Sequence[ConnectionPlan]:
        """A symbol's channels stay together."""
        channels = self._channels()
        each = STREAMS_PER_CONNECTION // max(len(channels), 1)
        plans = []
        for part in (self.symbols[i : i + each] for i in range(0, len(self.symbols), each)):
            args = [{"channel": channel, "instId": it.venue_name} for it in part for channel in channels]
            messages = tuple(
                to_json({"id": str(1 + i // ARGS_PER_MESSAGE), "op": "subscribe", "args": args[i : i + ARGS_PER_MESSAGE]})
                for i in range(0, len(args), ARGS_PER_MESSAGE)
            )
            plans.append(ConnectionPlan("/ws/v5/public", messages, tuple(it.index for it in part), requests=len(args)))
        return plans

    def decoder(self) -> Decoder:
        """For one connection."""
        return OkxDecoder(self._table)

    def resubscribe(self, symbol: int) -> Sequence[bytes]:
        """Leave the book's channel and enter it anew: it begins with a snapshot."""
        return self._again(symbol, Stream.DEPTH, RESUBSCRIBE + symbol)

    def stream_messages(self, symbol: int, stream: Stream) -> Sequence[bytes]:
        """See Venue."""
        return self._again(symbol, stream, RESTREAM + code_of(symbol, stream)) if stream in CHANNELS else ()

    def _again(self, symbol: int, stream: Stream, number: int) -> tuple[bytes, bytes]:
        args = [{"channel": CHANNELS[stream], "instId": it.venue_name} for it in self.symbols if it.index == symbol]
        again = {"id": str(number), "op": "subscribe", "args": args}
        return to_json({"op": "unsubscribe", "args": args}), to_json(again)

    def snapshot_request(self, symbol: int) -> RestRequest | None:
        """None: it comes within the stream."""
        return None

    def instruments_request(self) -> RestRequest:
        """Of the first kind in use."""
        return self.instruments_requests()[0]

    def instruments_requests(self) -> Sequence[RestRequest]:
        """One a kind (and option family) in use."""
        kinds = {to_json(kind_of(it.venue_name)): kind_of(it.venue_name) for it in self.symbols}
        return tuple(
            RestRequest("/api/v5/public/instruments", params) for params in kinds.values() or [{"instType": "SPOT"}]
        )

    def parse_instruments(self, raw: bytes) -> Mapping[str, InstrumentRules]:
        """Rules by instId. Lots are decimal fractions of a unit (spot) or contract; ctVal says what a contract is."""
        with Expected("okx", "the answer is no list of instruments"):
            listed = msgspec.json.decode(raw, type=_Instruments).data
        found = []
        for it in listed:
            try:
                lot = lot_for(it.lotSz)
                found.append(
                    rules(
                        it.instId, it.tickSz, lot, it.lotSz, it.minSz, it.maxLmtSz, "", it.state == "live",
                        contract=it.ctType if it.ctType in CONTRACTS else "",
                        contract_size=it.ctVal if it.ctType in CONTRACTS else "",
                    )
                )  # fmt: skip
            except Inexact:
                continue
        return indexed(found, "okx", "instruments")

    def time_request(self) -> RestRequest | None:
        """`public/time`."""
        return RestRequest("/api/v5/public/time")

    def parse_time(self, raw: bytes) -> int:
        """Unix ns, to the millisecond."""
        with Expected("okx", "the answer is no time"):
            return millis_ns(msgspec.json.decode(raw, type=_Time).data[0].ts)

    def ping_message(self, now_ns: int) -> bytes | None:
        """A text, not JSON."""
        return b"ping"

    @staticmethod
    def is_own(frame: Any) -> bool:
        """Bitget's look the same, but name the kind of instrument, join the coins' names, and have levels of two figures."""
        arg, levels = frame["arg"], [it for body in frame["data"] for side in ("bids", "asks") for it in body.get(side, ())]
        return "instType" not in arg and "-" in arg["instId"] and all(len(it) > 2 for it in levels)

    @staticmethod
    def rows(frame: Any) -> Iterator[Row]:
        """See Venue."""
        name, channel = frame["arg"]["instId"], frame["arg"]["channel"]
        for body in frame["data"]:
            if channel == "tickers":
                yield from ((name, body[side + "Px"], body[side + "Sz"]) for side in ("bid", "ask"))
            elif channel.startswith("trades"):
                yield name, body["px"], body["sz"]
            else:
                yield from ((name, it[0], it[1]) for side in ("bids", "asks") for it in body.get(side, ()))
