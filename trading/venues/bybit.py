"""Bybit v5 public streams (spot, linear, inverse, option), and the frames of the protocol before it, as recordings have them.

A symbol is written as its category and name, "linear:BTCUSDT"; without a category it is spot. Book: `orderbook.<depth>.<symbol>`,
a snapshot and then deltas whose `u` rises by one ("always in sequence"; the venue's SBE guide spells out u == previous u + 1, and
u == 1 a snapshot after a restart). So a delta names u - 1 as what it follows. Best bid/offer is `orderbook.1`: its `u` counts for
itself, so it stands on no common count with the book.

A print's id is its cross sequence and its place among the prints of that sequence: `i` is a UUID in most categories.

Before v5: `orderBookL2_25`/`_200` with delete, update and insert lists, and `trade`. Their cross_seq only rises; nothing proves
that none is missing.

What this module is not: it sends nothing and keeps no book but the two best prices of `orderbook.1`.
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
    block_trade,
    book_change,
    book_snapshot,
    chunks,
    indexed,
    levels_of,
    lot_for,
    raw_text,
    rules,
    to_json,
    trade,
)
from trading.venues.decimals import Inexact, Scale, millis_ns, whole_ns
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
    Missed,
    Refused,
    RestRequest,
    Row,
    Streams,
    Subscribed,
    Unknown,
    Venue,
    VenueError,
    VenueSymbol,
    code_of,
)
from trading.wire.plain_frame import UNCHECKED

CATEGORIES: Final = ("spot", "linear", "inverse", "option")
ARGS_PER_MESSAGE: Final = 10
"""Spot takes at most ten; the other categories bound only the characters of all arguments."""
ARGS_PER_CONNECTION: Final = 400
"""400 topics stay under the 21,000 characters of arguments that a connection may have."""
_PRINTS_A_SEQUENCE: Final = 1024


# ---- messages


class _Request(msgspec.Struct, frozen=True):
    op: str = ""
    args: list[str] = []


class _Message(msgspec.Struct, frozen=True):
    """Envelope of everything; `ts`, `cts` in ms, `timestamp_e6` in us."""

    topic: str = ""
    type: str = ""
    ts: int = 0
    cts: int = 0
    data: msgspec.Raw = msgspec.Raw(b"")
    cross_seq: int | str = 0
    timestamp_e6: int | str = 0
    success: bool | None = None
    ret_msg: str = ""
    op: str = ""
    req_id: str = ""
    request: _Request | None = None


class _Book(msgspec.Struct, frozen=True):
    s: str
    b: list[tuple[str, str]] = []
    a: list[tuple[str, str]] = []
    u: int = 0


class _Print(msgspec.Struct, frozen=True):
    T: int
    s: str
    S: str
    v: str
    p: str
    seq: int = 0
    BT: bool = False  # a block trade


class _OldLevel(msgspec.Struct, frozen=True):
    price: msgspec.Raw
    side: str
    size: msgspec.Raw = msgspec.Raw(b"0")


class _OldSnapshot(msgspec.Struct, frozen=True):
    order_book: list[_OldLevel]


class _OldChanges(msgspec.Struct, frozen=True):
    delete: list[_OldLevel] = []
    update: list[_OldLevel] = []
    insert: list[_OldLevel] = []


class _OldPrint(msgspec.Struct, frozen=True):
    symbol: str
    side: str
    size: msgspec.Raw
    price: msgspec.Raw
    trade_time_ms: int | str


_message: Final = msgspec.json.Decoder(_Message).decode
_book: Final = msgspec.json.Decoder(_Book).decode
_prints: Final = msgspec.json.Decoder(list[_Print]).decode
_old_snapshot: Final = msgspec.json.Decoder(_OldSnapshot).decode
_old_levels: Final = msgspec.json.Decoder(list[_OldLevel]).decode
_old_changes: Final = msgspec.json.Decoder(_OldChanges).decode
_old_prints: Final = msgspec.json.Decoder(list[_OldPrint]).decode

_SELLER: Final = {"Sell": True, "Buy": False}
_SIDE: Final = {"Buy": BID, "Sell": ASK}


class BybitDecoder(TypedDecoder):
    """Frames of one connection."""

    def __init__(self, table: SymbolTable) -> None:
        super().__init__(table)
        self._best: dict[int, list[tuple[str, str]]] = {}  # of orderbook.1: bid, ask
        self._print_seq: dict[int, tuple[int, int]] = {}  # cross sequence of the newest print, prints that had it
        self._cross_seq: dict[int, int] = {}

    def _read(self, raw: bytes, recv_ns: int) -> Sequence[Item]:
        message = _message(raw)
        if not message.topic:
            return (self._reply(message),)
        kind, _, rest = message.topic.partition(".")
        if kind == "orderbook":
            depth, _, name = rest.partition(".")
            return self._on_best(message, name) if depth == "1" else self._on_book(message, name)
        if kind == "publicTrade":
            return self._on_prints(message)
        if kind in ("orderBookL2_25", "orderBook_200"):
            return self._on_old_book(message, rest.rpartition(".")[2])
        if kind == "trade":
            return self._on_old_prints(message)
        if kind in ("tickers", "kline", "liquidation", "allLiquidation", "priceLimit", "instrument_info", "insurance"):
            return (Ignored(kind),)
        return (Unknown(f"topic {message.topic[:64]!r}"),)

    def _reply(self, message: _Message) -> Item:
        op = message.op or (message.request.op if message.request else "")
        if op in ("ping", "pong") or message.ret_msg == "pong":
            return Ignored("pong")
        number = int(message.req_id) if message.req_id.isascii() and message.req_id.isdigit() else 0
        if message.success is False:
            return Refused(message.ret_msg[:300] or f"{op} refused", number)
        if op == "unsubscribe":
            return Ignored("unsubscribed")
        if message.success and op == "subscribe":
            names = [arg.rpartition(".")[2] for arg in message.request.args] if message.request else []
            return Subscribed(number, tuple(self.table.index[name] for name in names if name in self.table.index))
        return Unknown("neither a topic nor a reply")

    def _on_book(self, message: _Message, name: str) -> Sequence[Item]:
        symbol, unit = self._symbol(name)
        try:
            book = _book(message.data)
            levels = levels_of(book.b, BID, unit) + levels_of(book.a, ASK, unit)
            ts_ns = millis_ns(message.cts or message.ts)
        except (Inexact, msgspec.MsgspecError, UnicodeDecodeError) as error:
            return self._book_broken(symbol, error)
        if message.type == "snapshot" or book.u == 1:
            return (book_snapshot(symbol, ts_ns, levels, book.u),)
        if message.type != "delta":
            return (Unknown(f"type {message.type[:32]!r} of an order book"),)
        return (book_change(symbol, ts_ns, levels, book.u, max(book.u - 1, 0)),)

    def _on_best(self, message: _Message, name: str) -> Sequence[Item]:
        symbol, unit = self._symbol(name)
        book = _book(message.data)
        if message.type == "snapshot" or symbol not in self._best:
            self._best[symbol] = [("", ""), ("", "")]
        best = self._best[symbol]
        for side, changes in ((BID, book.b), (ASK, book.a)):
            for price, qty in changes:
                if unit.lots(qty):
                    best[side] = (price, qty)
                elif best[side][0] == price:
                    best[side] = ("", "")
        return (bbo(symbol, millis_ns(message.cts or message.ts), unit, best[BID], best[ASK]),)

    def _on_prints(self, message: _Message) -> Sequence[Item]:
        items: list[Item] = []
        for it in _prints(message.data):
            symbol, unit = self._symbol(it.s)
            if it.BT:
                items.append(block_trade(symbol, millis_ns(it.T), 0))
                continue
            seq, place = self._print_seq.get(symbol, (0, 0))
            place = place + 1 if seq == it.seq else 0
            self._print_seq[symbol] = (it.seq, place)
            number = it.seq * _PRINTS_A_SEQUENCE + min(place, _PRINTS_A_SEQUENCE - 1)
            ts_ns = millis_ns(it.T)
            items.append(trade(symbol, ts_ns, unit.ticks(it.p), unit.lots(it.v), _SELLER[it.S], number, counted=False))
        return items or (Ignored("no print"),)

    # ---- before v5

    def _on_old_book(self, message: _Message, name: str) -> Sequence[Item]:
        symbol, unit = self._symbol(name)
        seq = int(message.cross_seq)
        if seq <= self._cross_seq.get(symbol, 0):
            return (Missed((symbol,), f"cross_seq fell to {seq}"), Unknown("an old order book message"))
        self._cross_seq[symbol] = seq
        try:
            ts_ns = whole_ns(message.timestamp_e6, 1000)
            if message.type == "snapshot":
                whole = bytes(message.data)
                listed = _old_levels(whole) if whole[:1] == b"[" else _old_snapshot(whole).order_book
                return (book_snapshot(symbol, ts_ns, _old(listed, unit), seq),)
            changes = _old_changes(message.data)
            gone = [(unit.ticks(raw_text(it.price)) * 2 + _SIDE[it.side], 0) for it in changes.delete]
            return (book_change(symbol, ts_ns, gone + _old(changes.update + changes.insert, unit), seq, UNCHECKED),)
        except (Inexact, LookupError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            return self._book_broken(symbol, error)

    def _on_old_prints(self, message: _Message) -> Sequence[Item]:
        items: list[Item] = []
        for it in _old_prints(message.data):
            symbol, unit = self._symbol(it.symbol)
            ticks, lots = unit.ticks(raw_text(it.price)), unit.lots(raw_text(it.size))
            items.append(trade(symbol, millis_ns(it.trade_time_ms), ticks, lots, _SELLER[it.side], 0))
        return items or (Ignored("no print"),)


def _old(listed: Sequence[_OldLevel], unit: Scale) -> list[Level]:
    return [(unit.ticks(raw_text(it.price)) * 2 + _SIDE[it.side], unit.lots(raw_text(it.size))) for it in listed]


# ---- REST answers


class _PriceFilter(msgspec.Struct, frozen=True):
    tickSize: str = ""
    tick_size: str = ""


class _LotFilter(msgspec.Struct, frozen=True):
    basePrecision: str = ""
    qtyStep: str = ""
    minOrderQty: str = ""
    maxOrderQty: str = ""
    minOrderAmt: str = ""
    minNotionalValue: str = ""
    qty_step: msgspec.Raw = msgspec.Raw(b"")
    min_trading_qty: msgspec.Raw = msgspec.Raw(b"")
    max_trading_qty: msgspec.Raw = msgspec.Raw(b"")


class _Listed(msgspec.Struct, frozen=True):
    symbol: str = ""
    name: str = ""
    status: str = ""
    priceFilter: _PriceFilter = _PriceFilter()
    lotSizeFilter: _LotFilter = _LotFilter()
    price_filter: _PriceFilter = _PriceFilter()
    lot_size_filter: _LotFilter = _LotFilter()


class _Result(msgspec.Struct, frozen=True):
    category: str = ""
    listed: list[_Listed] = msgspec.field(default=[], name="list")


class _Instruments(msgspec.Struct, frozen=True):
    result: _Result


class _OldInstruments(msgspec.Struct, frozen=True):
    result: list[_Listed]


class _TimeResult(msgspec.Struct, frozen=True):
    timeNano: str


class _Time(msgspec.Struct, frozen=True):
    result: _TimeResult


def _again(topic: str, number: int) -> tuple[bytes, bytes]:
    """Leave a topic and enter it anew."""
    again = {"op": "subscribe", "args": [topic], "req_id": str(number)}
    return to_json({"op": "unsubscribe", "args": [topic]}), to_json(again)


class Bybit(Venue):
    """Bybit's public market data."""

    market = Market.BYBIT

    def __init__(self, symbols: Sequence[VenueSymbol], streams: Streams) -> None:
        super().__init__(symbols, streams)
        self._named: Final[dict[str, list[VenueSymbol]]] = {category: [] for category in CATEGORIES}
        for it in self.symbols:
            category, colon, name = it.venue_name.rpartition(":")
            category = category if colon else "spot"
            if category not in self._named or not name:
                raise VenueError(
                    f"bybit: {it.venue_name!r} is no symbol such as linear:BTCUSDT; categories are {', '.join(CATEGORIES)}"
                )
            self._named[category].append(VenueSymbol(it.index, it.name, name, it.tick_size, it.lot_size))
        self._table = {category: SymbolTable(named, "bybit") for category, named in self._named.items()}

    @property
    def limits(self) -> Limits:
        """Documented: 500 connects in 5 min, a ping every 20 s, 600 REST requests in 5 s (taken as 600 a minute, weight 1
        each)."""
        return Limits(
            streams_per_connection=ARGS_PER_CONNECTION, client_messages_per_s=5.0, connects_per_window=500, lifetime_s=0.0,
            ping_interval_s=20.0, silence_timeout_s=60.0, rest_weight_per_minute=600,
        )  # fmt: skip

    @property
    def stream_url(self) -> str:
        """The category stands in the plans' paths."""
        return "wss://stream.bybit.com"

    @property
    def rest_url(self) -> str:
        """REST."""
        return "https://api.bybit.com"

    def _depth(self, category: str) -> int:
        depths = (25, 100) if category == "option" else (50, 200, 1000)
        return next((depth for depth in depths if depth >= self.streams.snapshot_levels), depths[-1])

    def _topics(self, category: str, name: str) -> dict[Stream, str]:
        wanted = self.streams
        book, best = f"orderbook.{self._depth(category)}.{name}", f"orderbook.1.{name}"
        prints = "publicTrade." + (name.partition("-")[0] if category == "option" else name)
        bbo = wanted.bbo and category != "option"
        topics = ((wanted.depth, Stream.DEPTH, book), (bbo, Stream.BBO, best), (wanted.trade, Stream.PRINTS, prints))
        return {stream: topic for want, stream, topic in topics if want}

    def connections(self) -> Sequence[ConnectionPlan]:
        """One or more connections a category."""
        plans = []
        for category, named in self._named.items():
            for part in (named[i : i + ARGS_PER_CONNECTION // 3] for i in range(0, len(named), ARGS_PER_CONNECTION // 3)):
                topics = list(dict.fromkeys(topic for it in part for topic in self._topics(category, it.venue_name).values()))
                messages = tuple(
                    to_json({"op": "subscribe", "args": args, "req_id": str(number)})
                    for number, args in enumerate(chunks(topics, ARGS_PER_MESSAGE), 1)
                )
                carried = tuple(self._topics(category, part[0].venue_name))
                plans.append(
                    ConnectionPlan(f"/v5/public/{category}", messages, tuple(it.index for it in part), streams=carried)
                )
        return plans

    def decoder(self) -> Decoder:
        """Frames name a symbol without its category: where two categories share a name, only `decoder_for` will do."""
        both = [it for named in self._named.values() for it in named]
        names = [it.venue_name for it in both]
        if len(set(names)) < len(names):
            raise VenueError("bybit: one symbol name in two categories needs a decoder of its connection; use decoder_for")
        return BybitDecoder(SymbolTable(both, "bybit"))

    def decoder_for(self, plan: ConnectionPlan) -> Decoder:
        """By the category of the plan's path."""
        return BybitDecoder(self._table[plan.path.rpartition("/")[2]])

    def resubscribe(self, symbol: int) -> Sequence[bytes]:
        """Leave the book's topic and enter it anew: it begins with a snapshot."""
        category, name = self._of(symbol)
        return _again(f"orderbook.{self._depth(category)}.{name}", RESUBSCRIBE + symbol)

    def stream_messages(self, symbol: int, stream: Stream) -> Sequence[bytes]:
        """See Venue."""
        topic = self._topics(*self._of(symbol)).get(stream)
        return () if topic is None else _again(topic, RESTREAM + code_of(symbol, stream))

    def _of(self, symbol: int) -> tuple[str, str]:
        return next((c, it.venue_name) for c, named in self._named.items() for it in named if it.index == symbol)

    def snapshot_request(self, symbol: int) -> RestRequest | None:
        """None: it comes within the stream."""
        return None

    def instruments_request(self) -> RestRequest:
        """Of the first category in use."""
        return self.instruments_requests()[0]

    def instruments_requests(self) -> Sequence[RestRequest]:
        """One a category in use."""
        used = [category for category, named in self._named.items() if named] or ["spot"]
        return tuple(
            RestRequest("/v5/market/instruments-info", {"category": category, "limit": "1000"}) for category in used
        )

    def parse_instruments(self, raw: bytes) -> Mapping[str, InstrumentRules]:
        """Rules by "category:name", and by the bare name for spot (and for the list that came before v5)."""
        with Expected("bybit", "the answer is no list of instruments"):
            old = raw.lstrip()[:1] == b"{" and b'"price_filter"' in raw
            result = _Result("", msgspec.json.decode(raw, type=_OldInstruments).result) if old else None
            result = result or msgspec.json.decode(raw, type=_Instruments).result
        found = []
        for it in result.listed:
            price, lot, old_lot = it.priceFilter, it.lotSizeFilter, it.lot_size_filter
            try:
                step = lot.qtyStep or lot.basePrecision or raw_text(old_lot.qty_step)
                _, rule = rules(
                    it.symbol or it.name, price.tickSize or it.price_filter.tick_size, lot_for(step), step,
                    lot.minOrderQty or raw_text(old_lot.min_trading_qty), lot.maxOrderQty or raw_text(old_lot.max_trading_qty),
                    lot.minNotionalValue or lot.minOrderAmt, it.status == "Trading",
                    contract=INVERSE if result.category == INVERSE else "",  # quantities are sums of the quote currency
                )  # fmt: skip
            except Inexact:
                continue
            if result.category in ("", "spot"):
                found.append((rule.venue_name, rule))
            if result.category:
                found.append((f"{result.category}:{rule.venue_name}", rule))
        return indexed(found, "bybit", "instruments-info")

    def time_request(self) -> RestRequest | None:
        """`market/time`."""
        return RestRequest("/v5/market/time")

    def parse_time(self, raw: bytes) -> int:
        """Unix ns."""
        with Expected("bybit", "the answer is no time"):
            return whole_ns(msgspec.json.decode(raw, type=_Time).result.timeNano, 1)

    def ping_message(self, now_ns: int) -> bytes | None:
        """What it wants every 20 s."""
        return b'{"op":"ping"}'

    def printed_name(self, venue_name: str) -> str:
        """Frames name no category."""
        return venue_name.rpartition(":")[2]

    @staticmethod
    def rows(frame: Any) -> Iterator[Row]:
        """See Venue."""
        kind, name, body = frame["topic"].partition(".")[0], frame["topic"].rpartition(".")[2], frame["data"]
        if kind == "orderbook":
            yield from ((name, price, qty) for side in ("b", "a") for price, qty in body[side])
        elif kind == "publicTrade":
            yield from ((it["s"], it["p"], it["v"]) for it in body if not it.get("BT"))
        elif kind == "trade":
            yield from ((it["symbol"], it["price"], it["size"]) for it in body)
        elif kind.startswith("orderBook"):
            keys = ("order_book", "delete", "update", "insert")
            lists = [body] if isinstance(body, list) else [body.get(key, ()) for key in keys]
            yield from ((name, it["price"], it.get("size")) for listed in lists for it in listed)
