"""Fuzz targets of every venue module below trading.venues, found as they are there: frame decoders and instrument lists.

A decoder never raises, answers every frame with at least one item, and hands over only plain frames that are sound and of a
symbol of its own. A list of instruments gives rules in decimals, or VenueError.

What this module is not: a check that a decoder reads a venue's frames rightly; each venue has a test of its own for that.
"""

from __future__ import annotations

import gzip
import importlib
import inspect
import pkgutil
import re
from decimal import Decimal, InvalidOperation
from typing import Any, get_args

from fuzz_target import Features, Target, claim, recordings

import trading.venues
from trading.venues.protocol import Item, Plain, Streams, Venue, VenueError, VenueSymbol
from trading.wire.binance_layout import FrameKind
from trading.wire.plain_frame import W_KIND, W_SYMBOL, W_TS, read_plain_frame

FRAMES_A_RUN = 10
_NAMES = ("BTCUSDT", "BTC-USDT", "BTC/USD", "BTC-USD", "BTC-PERPETUAL", "ETHUSDT", "ETH-USDT", "XBT/USD", "ETH-USD")
_RECORDED = ("BINANCE", "BYBIT", "COINBASE", "DERIBIT", "KRAKEN", "OKX")
_FRAMES = (
    rb'{"topic":"orderbook.50.BTCUSDT","type":"snapshot","ts":1,"data":{"s":"BTCUSDT","b":[["99.5","1"]],"a":[["100.5","2"]],"u":1,"seq":7},"cts":1}',
    rb'{"topic":"orderbook.50.BTCUSDT","type":"delta","ts":2,"data":{"s":"BTCUSDT","b":[["99.5","0"]],"a":[],"u":2,"seq":8},"cts":2}',
    rb'{"topic":"publicTrade.BTCUSDT","type":"snapshot","ts":1,"data":[{"i":"a","T":1,"p":"100","v":"1","S":"Buy","s":"BTCUSDT"}]}',
    rb'{"arg":{"channel":"books","instId":"BTC-USDT"},"action":"snapshot","data":[{"asks":[["100.5","2","0","1"]],"bids":[["99.5","1",'
    rb'"0","1"]],"ts":"1597026383085","checksum":-855196043,"prevSeqId":-1,"seqId":123}]}',
    rb'{"arg":{"channel":"trades","instId":"BTC-USDT"},"data":[{"instId":"BTC-USDT","tradeId":"1","px":"100","sz":"1","side":"buy","ts":"1"}]}',
    rb'{"channel":"book","type":"snapshot","data":[{"symbol":"BTC/USD","bids":[{"price":99.5,"qty":1.0}],"asks":[{"price":100.5,"qty":2.0}],'
    rb'"checksum":3310070434,"timestamp":"2023-10-06T17:35:55.440295Z"}]}',
    rb'{"channel":"trade","type":"update","data":[{"symbol":"BTC/USD","side":"sell","price":99.5,"qty":1.0,"ord_type":"limit","trade_id":1,'
    rb'"timestamp":"2023-09-25T07:49:37.708706Z"}]}',
    rb'{"channel":"l2_data","client_id":"","timestamp":"2023-02-09T20:32:50.714964855Z","sequence_num":0,"events":[{"type":"snapshot",'
    rb'"product_id":"BTC-USD","updates":[{"side":"bid","event_time":"1970-01-01T00:00:00Z","price_level":"99.5","new_quantity":"1"}]}]}',
    rb'{"jsonrpc":"2.0","method":"subscription","params":{"channel":"book.BTC-PERPETUAL.100ms","data":{"type":"snapshot","timestamp":1,'
    rb'"instrument_name":"BTC-PERPETUAL","change_id":1,"bids":[["new",99.5,10.0]],"asks":[["new",100.5,20.0]]}}}',
    rb'{"jsonrpc":"2.0","method":"subscription","params":{"channel":"trades.BTC-PERPETUAL.100ms","data":[{"trade_seq":1,"trade_id":"1",'
    rb'"timestamp":1,"price":100.0,"instrument_name":"BTC-PERPETUAL","direction":"buy","amount":10.0}]}}',
    rb'{"event":"subscribe","arg":{"channel":"books","instId":"BTC-USDT"}}', rb'{"success":true,"op":"subscribe","req_id":"1"}',
    rb'{"result":null,"id":1}', rb'{"error":{"code":2,"msg":"Invalid request"},"id":1}', b"pong", b"",
)  # fmt: skip
_LISTS = (
    rb'{"symbols":[{"symbol":"BTCUSDT","status":"TRADING","filters":[{"filterType":"PRICE_FILTER","tickSize":"0.01000000"},'
    rb'{"filterType":"LOT_SIZE","minQty":"0.00001000","maxQty":"9000.0","stepSize":"0.00001000"},{"filterType":"NOTIONAL",'
    rb'"minNotional":"5.0"},{"filterType":"MIN_NOTIONAL","notional":"5"}],"quantityPrecision":3,"pricePrecision":2}]}',
    rb'{"retCode":0,"retMsg":"OK","result":{"list":[{"symbol":"BTCUSDT","status":"Trading","priceFilter":{"tickSize":"0.10"},'
    rb'"lotSizeFilter":{"basePrecision":"0.000001","qtyStep":"0.001","minOrderQty":"0.001","maxOrderQty":"100","minOrderAmt":"1"}}]}}',
    rb'{"code":"0","msg":"","data":[{"instId":"BTC-USDT","state":"live","tickSz":"0.1","lotSz":"0.00000001","minSz":"0.00001","maxLmtSz":"9"}]}',
    rb'{"error":[],"result":{"XXBTZUSD":{"wsname":"XBT/USD","altname":"XBTUSD","tick_size":"0.1","lot_decimals":8,"ordermin":"0.0001",'
    rb'"costmin":"0.5","pair_decimals":1,"status":"online"}}}',
    rb'{"products":[{"product_id":"BTC-USD","price_increment":"0.01","base_increment":"0.00000001","base_min_size":"0.00000001",'
    rb'"base_max_size":"3400","quote_min_size":"1","status":"online"}]}',
    rb'{"result":[{"instrument_name":"BTC-PERPETUAL","tick_size":0.5,"min_trade_amount":10.0,"contract_size":10.0,"is_active":true}]}',
)  # fmt: skip


def venue_classes() -> dict[str, type[Venue]]:
    """Every venue that can be made of symbols and streams, by module and class; each module is imported."""
    found: dict[str, type[Venue]] = {}
    for info in pkgutil.iter_modules(trading.venues.__path__):
        module = importlib.import_module(f"trading.venues.{info.name}")
        for name, kind in inspect.getmembers(module, inspect.isclass):
            if issubclass(kind, Venue) and not inspect.isabstract(kind) and kind.__module__ == module.__name__:
                found[f"{info.name}.{name}"] = kind
    return found


def venues() -> dict[str, Venue]:
    """One of each, with a symbol under each venue's way of writing it."""
    symbols = [VenueSymbol(i, re.sub("[^A-Z0-9]", "", name), name, "0.01", "0.00000001") for i, name in enumerate(_NAMES)]
    made: dict[str, Venue] = {}
    for key, kind in venue_classes().items():
        usable = []
        for symbol in symbols:  # a venue may refuse another's way of writing
            try:
                kind([symbol], Streams())
                usable.append(symbol)
            except VenueError:
                continue
        claim(usable, f"{key} takes none of {_NAMES}")
        try:
            made[key] = kind(usable, Streams())
        except VenueError:
            made[key] = kind(usable[:1], Streams())  # two that it takes for one
    return made


class VenueDecoders(Target):
    """All decoders on the same lines, a frame each."""

    name = "venue-decoders"
    meaning = "every venue's typed decoder"
    instrument = ("trading.venues",)

    def __init__(self) -> None:
        self.venues = venues()

    def seeds(self) -> list[bytes]:
        """Written ones, and recorded ones of each venue."""
        found = [*_FRAMES, b"\n".join(_FRAMES[:2]), b"\n".join(_FRAMES)]
        folder = recordings()
        for name in _RECORDED if folder is not None else ():
            for path in sorted((folder or trading_data()).glob(f"cryptofeed_wire/{name}.ws.*.gz")):
                with gzip.open(path) as lines:
                    frames = [line.split(b": ", 1)[1].strip() for line, _ in zip(lines, range(200)) if b": " in line]
                found += [b"\n".join(frames[i : i + 4]) for i in range(0, len(frames), 16)]
        return [seed for seed in found if len(seed) <= self.max_bytes]

    def run(self, raw: bytes) -> Features:
        """Decode them with every venue."""
        features: list[int] = []
        kinds = list(get_args(Item))
        for key, venue in self.venues.items():
            decoder, seen = venue.decoder(), 0
            for line in raw.split(b"\n")[:FRAMES_A_RUN]:
                venue.is_market_frame(line)
                claim(venue.symbol_of(line) < len(venue.symbols), f"{key}: symbol_of names no symbol")
                items = decoder.decode(line, 1_700_000_000_000_000_000)
                claim(len(items) > 0, f"{key} answers nothing to {line[:200]!r}")
                for item in items:
                    claim(type(item) in kinds, f"{key} answers {item!r}")
                    seen |= 1 << kinds.index(type(item))
                    if isinstance(item, Plain):
                        seen |= 256 << _sound(key, venue, item, line)
            features.append(seen)
        return tuple(features)


def trading_data() -> Any:
    """The recordings, which the caller has made sure of."""
    folder = recordings()
    claim(folder is not None, "no recordings")
    return folder


def _sound(key: str, venue: Venue, item: Plain, raw: bytes) -> int:
    """Check one plain frame; its kind."""
    head, levels = read_plain_frame(item.frame)
    said = f"{key}: {head.tolist()} {levels[:4].tolist()} from {raw[:300]!r}"
    own = {symbol.index for symbol in venue.symbols}
    claim(int(head[W_SYMBOL]) == item.symbol and item.symbol in own, f"another symbol: {said}")
    claim(int(head[W_KIND]) in {int(kind) for kind in FrameKind if kind > FrameKind.MALFORMED}, f"no kind: {said}")
    claim((levels[:, 0] >= 0).all() and int(head[W_TS]) >= 0, f"negative: {said}")
    if head[W_KIND] in (FrameKind.DEPTH, FrameKind.SNAPSHOT, FrameKind.TRADE, FrameKind.BBO):  # the fold refuses a price of 0
        claim((levels[:, 1] >= 0).all(), f"a negative quantity: {said}")
    if head[W_KIND] in (FrameKind.TRADE, FrameKind.BBO):
        claim(len(levels) == (1 if head[W_KIND] == FrameKind.TRADE else 2), f"levels: {said}")
    return int(head[W_KIND])


class InstrumentLists(Target):
    """parse_instruments and parse_time of every venue."""

    name = "instrument-lists"
    meaning = "exchangeInfo and its like, and the venues' clocks"
    instrument = ("trading.venues",)

    def __init__(self) -> None:
        self.venues = venues()

    def seeds(self) -> list[bytes]:
        """One of each venue."""
        return [*_LISTS, b'{"serverTime":1700000000000}', b'{"retCode":0,"result":{"timeNano":"1700000000000000000"},"time":1}']

    def run(self, raw: bytes) -> Features:
        """Rules in decimals or VenueError."""
        features: list[int] = []
        for key, venue in self.venues.items():
            try:
                found = venue.parse_instruments(raw)
                features.append(1 + len(found))
            except VenueError as error:
                claim(str(error), f"{key}: a refusal without a word")
                features.append(0)
            else:
                for name, rules in found.items():
                    for field in ("tick_size", "lot_size", "step_size", "min_qty", "max_qty", "min_notional"):
                        _decimal(f"{key}: {name}: {field}", getattr(rules, field), field.endswith("_size") and rules.trading)
            try:
                claim(0 <= venue.parse_time(raw) < 2**63, f"{key}: no time")
                features.append(1)
            except VenueError:
                features.append(0)
        return tuple(features)


def _decimal(what: str, text: str, positive: bool) -> None:
    try:
        value = Decimal(text)
    except InvalidOperation:
        value = Decimal("NaN")
    claim(value.is_finite() and value >= 0 and (value > 0 or not positive), f"{what} is {text!r}")
