"""Binance spot, USD-M and COIN-M: combined streams, limits, REST requests and the typed reading of what is no market frame.

Market frames (diff depth, trade, aggTrade, bookTicker, markPrice) are the compiled scanner's (trading.wire.binance_frames); here
they are only recognised, by their stream's name: `{"stream":"btcusdt@trade","data":...`. Everything else a connection may bring
(replies, errors, the notice of a shutdown, streams of no use to us) is read with msgspec types and named.

Streams go into the URL as far as it bears them, so that a reconnect has its streams at once and spends no client message; the
rest by SUBSCRIBE messages. USD-M's hosts are split by kind: depth and bookTicker come from `/public`, prints and mark prices from
`/market` (PROTOCOLS.md); COIN-M's are one host. Futures with a delivery date have it in their names (BTCUSDT_241227).

What this module is not: it sends nothing and keeps no book.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import msgspec

from trading.instruments import Market
from trading.ranges import lot_decimals_of_rules
from trading.records import Stream
from trading.venues.binance_listing import Filter, ListedSymbol, exchange_info, rest_weight_limit
from trading.venues.building import Expected, chunks, indexed, lot_for, rules, to_json
from trading.venues.decimals import Inexact, decimals_of, millis_ns, plain_decimal, power_of_ten
from trading.venues.protocol import (
    RESTREAM,
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
    VenueError,
    VenueSymbol,
    code_of,
)

URL_CHARS: Final = 2000
"""Longest list of streams in a URL: what lies between accepts that length everywhere."""
STREAMS_PER_MESSAGE: Final = 100
_MAX_SYMBOLS_IN_REQUEST: Final = 100

_SPOT_WEIGHTS: Final = ((100, 5), (500, 25), (1000, 50), (5000, 250))
_USDM_WEIGHTS: Final = ((5, 2), (10, 2), (20, 2), (50, 2), (100, 5), (500, 10), (1000, 20))
_USDM_INTERVALS: Final = {0: "@0ms", 100: "@100ms", 250: "", 500: "@500ms"}

_IGNORED: Final = frozenset({
    "kline", "continuous_kline", "indexPrice_kline", "markPrice_kline", "24hrTicker", "24hrMiniTicker", "1hTicker", "4hTicker",
    "1dTicker", "avgPrice", "forceOrder", "compositeIndex", "contractInfo", "assetIndexUpdate", "indexPriceUpdate",
    "tradingSession",
})  # fmt: skip
_SPREAD: Final = re.compile(rb'\s*\{\s*"stream"\s*:\s*"([^"\\]{1,64})"')
"""An enveloped frame with blanks between its words, which no venue of today sends."""
_MARKET_EVENTS: Final = frozenset({"depthUpdate", "trade", "aggTrade", "bookTicker", "markPriceUpdate"})


# ---- what is no market frame


def _has(body: dict[str, Any], *keys: str) -> bool:
    return all(key in body for key in keys)


def _is_linear(body: dict[str, Any]) -> bool:
    return "ps" not in body and re.search(r"USD_(PERP|[0-9]{6})\Z", body["s"]) is None


class _Error(msgspec.Struct, frozen=True):
    code: int = 0
    msg: str = ""


class _Event(msgspec.Struct, frozen=True):
    """The payload of a stream; partial depth has no `e` on spot."""

    e: str = ""
    lastUpdateId: int = -1


class _Reply(msgspec.Struct, frozen=True):
    """Anything that is no market frame; absent fields keep their defaults."""

    id: int | str | None = None
    result: msgspec.Raw = msgspec.Raw(b"")
    error: _Error | None = None
    code: int | None = None
    msg: str = ""
    stream: str = ""
    data: msgspec.Raw = msgspec.Raw(b"")
    e: str = ""


_read_reply: Final = msgspec.json.Decoder(_Reply).decode
_read_event: Final = msgspec.json.Decoder(_Event).decode
_read_list: Final = msgspec.json.Decoder(list[_Event]).decode


class BinanceDecoder(Decoder):
    """Control frames of one connection."""

    def decode(self, raw: bytes, recv_ns: int) -> Sequence[Item]:
        """One item; never raises."""
        try:
            return (self._read(raw),)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            return (Unknown(f"{type(error).__name__}: {error}"[:300]),)

    def _read(self, raw: bytes) -> Item:
        reply = _read_reply(raw)
        if reply.error is not None:
            return Refused(f"{reply.error.code}: {reply.error.msg}", _number(reply.id))
        if reply.code is not None:
            return Refused(f"{reply.code}: {reply.msg}", _number(reply.id))
        data = bytes(reply.data)
        if data:
            events = _read_list(data) if data[:1] == b"[" else [_read_event(data)]
            kind = events[0].e if events else ""
            if not kind and ("@depth" in reply.stream or events and events[0].lastUpdateId >= 0):
                return Ignored("partial depth")
            if kind == "depthUpdate" and "@depth" in reply.stream and reply.stream.split("@depth", 1)[1][:1].isdigit():
                return Ignored("partial depth")
            return self._event(kind, f"stream {reply.stream[:64]!r}")
        if reply.e:
            return self._event(reply.e, "a frame without its stream's name")
        if reply.id is not None and bytes(reply.result):
            return Subscribed(_number(reply.id))
        return Unknown("neither a reply nor a stream")

    def _event(self, kind: str, where: str) -> Item:
        if kind == "serverShutdown":
            return Closing("serverShutdown")
        if kind in _IGNORED:
            return Ignored(kind)
        if kind in _MARKET_EVENTS:
            return Unknown(f"{kind}: {where} is none that was asked for")
        return Unknown(f"event {kind[:48]!r} of {where}")


def _number(request_id: int | str | None) -> int:
    if isinstance(request_id, int):
        return request_id
    return int(request_id) if request_id and request_id.isascii() and request_id.isdigit() else 0


class _Time(msgspec.Struct, frozen=True):
    serverTime: int


def _stream_of(name: str) -> Stream:
    """What a stream's name subscribes."""
    kind = name.partition("@")[2]
    if kind.startswith("depth"):
        return Stream.DEPTH
    if kind.startswith("markPrice"):
        return Stream.MARK
    return Stream.BBO if kind == "bookTicker" else Stream.PRINTS


class _Binance(Venue):
    """What all markets have in common."""

    _weights: tuple[tuple[int, int], ...] = ()
    _api = ""

    def __init__(self, symbols: Sequence[VenueSymbol], streams: Streams) -> None:
        super().__init__(symbols, streams)
        self._by_stream: Final[dict[bytes, int]] = {}  # code_of the stream
        self._names: Final[list[tuple[str, list[str], int]]] = []  # (host path, streams, symbol)
        for it in self.symbols:
            lower = it.venue_name.lower()
            for path, kinds in self._kinds().items():
                names = [lower + kind for kind in kinds]
                if names:
                    self._names.append((path, names, it.index))
                for name in names:
                    if name.encode() in self._by_stream:
                        raise VenueError(f"binance: symbol {it.venue_name} is named twice; name each once")
                    self._by_stream[name.encode()] = code_of(it.index, _stream_of(name))

    def _kinds(self) -> Mapping[str, list[str]]:
        """Stream suffixes by the path of the host that carries them."""
        return {}

    def connections(self) -> Sequence[ConnectionPlan]:
        """Combined-stream connections; a symbol's streams of one host stay together."""
        plans = []
        for path in self._kinds():
            batch: list[str] = []
            indices: list[int] = []
            for owner, names, index in self._names:
                if owner != path:
                    continue
                if len(batch) + len(names) > self.limits.streams_per_connection:
                    plans.append(self._plan(path, batch, indices))
                    batch, indices = [], []
                batch += names
                indices.append(index)
            if batch:
                plans.append(self._plan(path, batch, indices))
        return plans

    def _plan(self, path: str, names: list[str], indices: list[int]) -> ConnectionPlan:
        size = 0
        in_url = 0
        while in_url < len(names) and size + len(names[in_url]) + 1 <= URL_CHARS:
            size += len(names[in_url]) + 1
            in_url += 1
        messages = tuple(
            to_json({"method": "SUBSCRIBE", "params": part, "id": number})
            for number, part in enumerate(chunks(names[in_url:], STREAMS_PER_MESSAGE), 1)
        )
        book = any("@depth" in name for name in names)
        streams = tuple(sorted({_stream_of(name) for name in names}))
        return ConnectionPlan(
            f"{path}/stream?streams=" + "/".join(names[:in_url]), messages, tuple(indices), book, streams=streams
        )

    def decoder(self) -> Decoder:
        """For what `is_market_frame` denies."""
        return BinanceDecoder()

    def resubscribe(self, symbol: int) -> Sequence[bytes]:
        """(): the snapshot comes by REST."""
        return ()

    def stream_messages(self, symbol: int, stream: Stream) -> Sequence[bytes]:
        """See Venue; also of streams that stand in the URL."""
        code = code_of(symbol, stream)
        names = [name.decode() for name, known in self._by_stream.items() if known == code]
        methods = ("UNSUBSCRIBE", "SUBSCRIBE") if names else ()
        return [to_json({"method": method, "params": names, "id": RESTREAM + code}) for method in methods]

    def snapshot_request(self, symbol: int) -> RestRequest | None:
        """`depth` with the smallest limit that gives the levels wanted."""
        name = next(it.venue_name for it in self.symbols if it.index == symbol)
        limits = [(limit, weight) for limit, weight in self._weights if limit >= self.streams.snapshot_levels]
        limit, weight = limits[0] if limits else self._weights[-1]
        if self.market is Market.BINANCE_SPOT:
            limit = min(max(self.streams.snapshot_levels, 5), limit)  # spot takes any limit, and bills by bands
        return RestRequest(f"{self._api}/depth", {"symbol": name, "limit": str(limit)}, weight)

    def parse_instruments(self, raw: bytes) -> Mapping[str, InstrumentRules]:
        """Filters of each symbol; a symbol whose filters cannot be read is left out."""
        found = []
        for it in exchange_info(raw).symbols:
            filters = {entry.filterType: entry for entry in it.filters}
            price, lot = filters.get("PRICE_FILTER", Filter()), filters.get("LOT_SIZE", Filter())
            notional = filters.get("NOTIONAL") or filters.get("MIN_NOTIONAL") or Filter()
            try:
                found.append(
                    rules(
                        it.symbol, price.tickSize, self._lot(it, lot), lot.stepSize, lot.minQty, lot.maxQty,
                        notional.minNotional or notional.notional, (it.contractStatus or it.status) == "TRADING",
                        contract_size=str(it.contractSize),
                    )
                )  # fmt: skip
            except Inexact:
                continue
        return indexed(found, "binance", "exchangeInfo")

    def rest_weight_limit(self, raw: bytes) -> int | None:
        """exchangeInfo's REQUEST_WEIGHT."""
        return rest_weight_limit(raw)

    def _lot(self, symbol: ListedSymbol, lot: Filter) -> str:
        """Spot: 1e-8, because prints and levels there are finer than the step; coarser where such lots of a cheap coin would not
        fit (trading.ranges)."""
        usual = min(symbol.baseAssetPrecision, Market.BINANCE_SPOT.facts.lot_decimals or 0)
        most = int(plain_decimal(lot.maxQty).partition(".")[0])
        return power_of_ten(lot_decimals_of_rules(max(usual, 0), decimals_of(lot.stepSize), most))

    def time_request(self) -> RestRequest | None:
        """`time`."""
        return RestRequest(f"{self._api}/time", {}, 1)

    def parse_time(self, raw: bytes) -> int:
        """Unix ns, to the millisecond."""
        with Expected("binance", "the answer is no server time"):
            return millis_ns(msgspec.json.decode(raw, type=_Time).serverTime)

    def stream_code(self, raw: bytes) -> int:
        """By the stream's name in the envelope. One comparison, one search, one look-up."""
        if raw[:11] != b'{"stream":"':
            spread = _SPREAD.match(raw)
            return self._by_stream.get(spread[1], -1) if spread else -1
        return self._by_stream.get(raw[11 : raw.find(b'"', 11, 96)], -1)

    def is_market_frame(self, raw: bytes) -> bool:
        """Whether the frame is of one of the streams asked for."""
        return self.stream_code(raw) >= 0

    @staticmethod
    def rows(frame: Any) -> Iterator[Row]:
        """See Venue."""
        body = frame.get("data", frame)
        name, event = body["s"], body.get("e", "")
        for side in ("b", "a") if event in ("", "depthUpdate", "bookTicker") else ():
            if isinstance(body.get(side), list):
                yield from ((name, price, qty) for price, qty, *_ in body[side])
            elif side in body and side.upper() in body:
                yield name, body[side], body[side.upper()]
        if event in ("trade", "aggTrade") and body.get("X", "MARKET") == "MARKET":
            yield name, body["p"], body["q"]


class BinanceSpot(_Binance):
    """Binance spot."""

    market = Market.BINANCE_SPOT

    @staticmethod
    def is_own(frame: Any) -> bool:
        """Its diffs do not name the one before, its best bid/offer messages no event."""
        body = frame.get("data", frame)
        event = body.get("e", "")
        if event == "depthUpdate":
            return _has(body, "U", "u") and not _has(body, "pu")
        if not event:
            return _has(body, "u", "b", "B", "a", "A")
        return event in ("trade", "aggTrade") and "X" not in body and _is_linear(body)
    _weights = _SPOT_WEIGHTS
    _api = "/api/v3"

    @property
    def limits(self) -> Limits:
        """Documented: 1024 streams, 5 client messages/s, 300 connects in 5 min; pings every 20 s, pong within 60 s; 6000 a
        minute."""
        return Limits()

    @property
    def stream_url(self) -> str:
        """Market streams only; no user data on it."""
        return "wss://stream.binance.com:9443"

    @property
    def rest_url(self) -> str:
        """REST."""
        return "https://api.binance.com"

    def _kinds(self) -> Mapping[str, list[str]]:
        wanted = self.streams
        depth = "@depth@100ms" if wanted.depth_interval_ms < 1000 else "@depth"
        parts = ((wanted.depth, depth), (wanted.bbo, "@bookTicker"), (wanted.trade, "@trade"))
        return {"": [name for want, name in parts if want]}  # there is no mark price on spot

    def instruments_request(self) -> RestRequest:
        """exchangeInfo of the run's symbols (of all, where they are many): weight 20."""
        if len(self.symbols) > _MAX_SYMBOLS_IN_REQUEST:
            return RestRequest("/api/v3/exchangeInfo", {}, 20)
        names = to_json([it.venue_name for it in self.symbols]).decode()
        return RestRequest("/api/v3/exchangeInfo", {"symbols": names}, 20)


class _Futures(_Binance):
    """What USD-M and COIN-M have in common."""

    @classmethod
    def is_own(cls, frame: Any) -> bool:
        """Its diffs name the one before; an inverse contract's pair stands beside the symbol, or in it."""
        body = frame.get("data", frame)
        wanted = {"depthUpdate": ("U", "u", "pu"), "bookTicker": ("u", "b", "B", "a", "A"), "trade": ("t",), "aggTrade": ("a",)}
        known = body.get("e") in wanted and _has(body, *wanted[body["e"]])
        return known and _is_linear(body) == (cls.market is Market.BINANCE_USDM)

    _weights = _USDM_WEIGHTS

    @property
    def limits(self) -> Limits:
        """Documented: 1024 streams, 10 client messages/s; pings every 3 min, pong within 10 min; 2400 a minute.

        A connection with prints alone may have nothing to say for longer than it may be silent, so we ping as well.
        """
        return Limits(client_messages_per_s=10.0, ping_interval_s=20.0, silence_timeout_s=60.0, rest_weight_per_minute=2400)

    def _public(self) -> list[str]:
        """Streams of the book."""
        wanted = self.streams
        interval = min(_USDM_INTERVALS, key=lambda ms: abs(ms - wanted.depth_interval_ms))
        public = ((wanted.depth, "@depth" + _USDM_INTERVALS[interval]), (wanted.bbo, "@bookTicker"))
        return [name for want, name in public if want]

    def _market(self) -> list[str]:
        """Streams of prints and marks."""
        market = ((self.streams.trade, "@aggTrade"), (self.streams.mark, "@markPrice@1s"))
        return [name for want, name in market if want]

    def instruments_request(self) -> RestRequest:
        """exchangeInfo, which takes no symbols here: weight 1."""
        return RestRequest(f"{self._api}/exchangeInfo", {}, 1)

    def _lot(self, symbol: ListedSymbol, lot: Filter) -> str:
        """By quantityPrecision, or finer where the step is."""
        step = lot_for(lot.stepSize)
        precise = power_of_ten(symbol.quantityPrecision)
        return max(step, precise, key=len) if "." in step + precise else "1"


class BinanceUsdm(_Futures):
    """Binance USD-M futures."""

    market = Market.BINANCE_USDM
    _api = "/fapi/v1"

    @property
    def stream_url(self) -> str:
        """The host; `/public` and `/market` stand in the plans' paths."""
        return "wss://fstream.binance.com"

    @property
    def rest_url(self) -> str:
        """REST."""
        return "https://fapi.binance.com"

    def _kinds(self) -> Mapping[str, list[str]]:
        return {"/public": self._public(), "/market": self._market()}


class BinanceCoinm(_Futures):
    """Binance COIN-M futures: inverse contracts, counted in contracts and settled in the coin."""

    market = Market.BINANCE_COINM
    _api = "/dapi/v1"

    @property
    def limits(self) -> Limits:
        """Documented as USD-M's, but 200 streams a connection."""
        return replace(super().limits, streams_per_connection=200)

    @property
    def stream_url(self) -> str:
        """The host; all kinds of streams are on one connection."""
        return "wss://dstream.binance.com"

    @property
    def rest_url(self) -> str:
        """REST."""
        return "https://dapi.binance.com"

    def _kinds(self) -> Mapping[str, list[str]]:
        return {"": [*self._public(), *self._market()]}
