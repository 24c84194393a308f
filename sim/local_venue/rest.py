"""The REST endpoints: one table of paths, what each weighs, which parameters it takes, and what it answers.

Signed endpoints are in the table too, as what they are without an account: refused with the documented error.

What this is not: HTTP. sim.local_venue.server reads requests, spends weight and sends the answers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec

from sim.local_venue import exchange_info, messages
from sim.local_venue.bars import INTERVALS, bucket
from sim.local_venue.book import ASK, BID, VenueBook
from sim.local_venue.stream_names import MARKETS, MarketName
from sim.local_venue.symbol_market import SymbolMarket, Trade
from trading.contracts import pair_of

if TYPE_CHECKING:
    from sim.local_venue.limits import Limits
    from sim.local_venue.market import Market

_NAME: Final = re.compile(r"[A-Z0-9-_.]{1,20}")
FUTURES_DEPTHS: Final = (5, 10, 20, 50, 100, 500, 1000)


class RestError(Exception):
    """An error as the venue answers it: HTTP status, code, message."""

    def __init__(self, status: int, code: int, text: str) -> None:
        super().__init__(text)
        self.status, self.code, self.text = status, code, text

    @property
    def body(self) -> dict[str, Any]:
        """The JSON that is sent."""
        return {"code": self.code, "msg": self.text}


@dataclass(slots=True)
class Ask:
    """One request. `now_ms` is the venue's clock, with whatever fault it has; `age_ns` how old a snapshot is to be."""

    market: MarketName
    truth: Market
    limits: Limits
    params: Mapping[str, str]
    now_ms: int
    shift_ms: int = 0
    age_ns: int = 0

    def symbol(self) -> SymbolMarket:
        """The symbol that is asked for; RestError if there is none."""
        name = self.params.get("symbol", "")
        if not name:
            raise mandatory("symbol")
        return self._find(name, "symbol")

    def _find(self, name: str, parameter: str) -> SymbolMarket:
        if not _NAME.fullmatch(name):
            raise RestError(
                400, -1100, f"Illegal characters found in parameter '{parameter}'; legal range is '^[A-Z0-9-_.]{{1,20}}$'."
            )
        found = self.truth.find(self.market, name)
        if found is None:
            raise RestError(400, -1121, "Invalid symbol.")
        return found

    def chosen(self) -> tuple[list[SymbolMarket], bool]:
        """The symbols of `symbol` or `symbols`, all without them; whether it was a single one."""
        if "symbol" in self.params and "symbols" in self.params:
            raise RestError(400, -1128, "Combination of optional parameters invalid.")
        if "symbol" in self.params:
            return [self.symbol()], True
        if "symbols" in self.params and self.market == "spot":
            try:
                names = msgspec.json.decode(self.params["symbols"].encode(), type=list[str])
            except (msgspec.DecodeError, ValueError):
                names = []
            if not names:
                raise RestError(400, -1100, "Illegal characters found in parameter 'symbols'; legal range is '^\\[.*\\]$'.")
            return [self._find(name, "symbols") for name in names], False
        return self.truth.of(self.market), False

    def whole(self, name: str, default: int | None, least: int = 0) -> int | None:
        """An integer parameter; RestError if it is none or below `least`."""
        text = self.params.get(name)
        if text is None:
            return default
        if not re.fullmatch(r"\d{1,19}", text):
            raise RestError(400, -1100, f"Illegal characters found in parameter '{name}'; legal range is '^[0-9]{{1,20}}$'.")
        if int(text) < least:
            raise RestError(400, -1130, f"Data sent for parameter '{name}' is not valid.")
        return int(text)

    def limit(self, default: int, most: int) -> int:
        """The limit, at most `most`."""
        return min(self.whole("limit", default, 1) or default, most)


def mandatory(name: str) -> RestError:
    """The error of a parameter that is missing."""
    return RestError(400, -1102, f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed.")


def _ping(ask: Ask) -> Any:
    return {}


def _time(ask: Ask) -> Any:
    return {"serverTime": ask.now_ms}


def _exchange_info(ask: Ask) -> Any:
    symbols, _ = ask.chosen()
    of = {"spot": exchange_info.spot, "usdm": exchange_info.usdm, "coinm": exchange_info.coinm}[ask.market]
    return of([symbol.spec for symbol in symbols], ask.now_ms, ask.limits)


def _depth_limit(ask: Ask) -> int:
    if ask.market == "spot":
        return ask.limit(100, 5000)
    limit = ask.whole("limit", 500) or 0
    if limit not in FUTURES_DEPTHS:
        raise RestError(400, -4021, f"'{limit}' is not valid depth limit.")
    return limit


def _depth(ask: Ask) -> Any:
    symbol = ask.symbol()
    limit = _depth_limit(ask)
    book: VenueBook = symbol.book
    if ask.age_ns:
        book = book.at_time(ask.truth.now_ns - ask.age_ns)
    answer: dict[str, Any] = {"lastUpdateId": book.last_id}
    if symbol.spec.is_future:
        answer |= {"E": ask.now_ms, "T": symbol.diff_ms + ask.shift_ms}
    if ask.market == "coinm":
        answer |= {"symbol": symbol.spec.name, "pair": symbol.spec.pair}
    return answer | {"bids": book.side(BID, limit), "asks": book.side(ASK, limit)}


def _quote(trade: Trade, symbol: SymbolMarket) -> str:
    from sim.local_venue.book import units_of

    return messages.quote_text(symbol, units_of(trade.price) * units_of(trade.qty))


def _trades(ask: Ask) -> Any:
    symbol = ask.symbol()
    limit = ask.limit(500, 1000)
    found = list(symbol.trades)
    first = ask.whole("fromId", None)
    found = [trade for trade in found if trade.id >= first][:limit] if first is not None else found[-limit:]
    rows = []
    for trade in found:
        turned = "baseQty" if ask.market == "coinm" else "quoteQty"
        row: dict[str, Any] = {"id": trade.id, "price": trade.price, "qty": trade.qty, turned: _quote(trade, symbol)}
        row |= {"time": trade.at_ms, "isBuyerMaker": trade.buyer_is_maker}
        rows.append(row | {"isBestMatch": True} if ask.market == "spot" else row)
    return rows


def _agg_trades(ask: Ask) -> Any:
    symbol = ask.symbol()
    limit = ask.limit(500, 1000)
    first, start, end = ask.whole("fromId", None), ask.whole("startTime", None), ask.whole("endTime", None)
    found = list(symbol.aggregates)
    if first is not None:
        found = [trade for trade in found if trade.id >= first]
    if start is not None:
        found = [trade for trade in found if trade.at_ms >= start]
    if end is not None:
        found = [trade for trade in found if trade.at_ms <= end]
    found = found[:limit] if first is not None or start is not None else found[-limit:]
    return [symbol.agg_fields(trade) for trade in found]


def _klines(ask: Ask) -> Any:
    symbol = ask.symbol()
    interval = ask.params.get("interval", "")
    if not interval:
        raise mandatory("interval")
    if interval not in INTERVALS or (symbol.spec.is_future and interval == "1s"):
        raise RestError(400, -1120, "Invalid interval.")
    limit = ask.limit(500, 1000 if ask.market == "spot" else 1500)
    start, end = ask.whole("startTime", None), ask.whole("endTime", None)
    if start is not None and end is not None and start > end:
        raise RestError(400, -1127 if ask.market == "spot" else -1130, "Start time is greater than end time.")
    now_ms = ask.truth.now_ms
    last_ms = min(end if end is not None else now_ms, now_ms)
    first_ms = start
    if first_ms is None:
        length = INTERVALS[interval] or 31 * INTERVALS["1d"]
        first_ms = bucket(interval, max(0, last_ms - (limit - 1) * length))
    bars = symbol.bars.between(interval, first_ms, last_ms)
    bars = bars[:limit] if start is not None else bars[-limit:]
    return [messages.kline_row(symbol, interval, bar) for bar in bars]


_FUTURES_NO_24H: Final = ("prevClosePrice", "bidPrice", "bidQty", "askPrice", "askQty")
_MINI: Final = (
    "symbol", "openPrice", "highPrice", "lowPrice", "lastPrice", "volume", "quoteVolume", "openTime", "closeTime", "firstId",
    "lastId", "count",
)  # fmt: skip


def _day(ask: Ask) -> Any:
    symbols, single = ask.chosen()
    rows = []
    for symbol in symbols:
        row = messages.statistics(symbol, ask.now_ms)
        if symbol.spec.is_future:
            row = {key: value for key, value in row.items() if key not in _FUTURES_NO_24H}
            if ask.market == "coinm":
                row |= {"pair": symbol.spec.pair, "baseVolume": row.pop("quoteVolume")}
        elif ask.params.get("type") == "MINI":
            row = {key: row[key] for key in _MINI}
        rows.append(row)
    return _answered(ask, rows, single)


def _answered(ask: Ask, rows: list[dict[str, Any]], single: bool) -> Any:
    """The row of a single symbol, else a list; COIN-M always sends a list, and says each symbol's pair."""
    if ask.market == "coinm":
        return [row | {"ps": row.get("pair") or pair_of(row["symbol"])} for row in rows]
    return rows[0] if single else rows


def _price(ask: Ask) -> Any:
    symbols, single = ask.chosen()
    rows = []
    for symbol in symbols:
        last = symbol.trades[-1] if symbol.trades else None
        row: dict[str, Any] = {"symbol": symbol.spec.name, "price": last.price if last else symbol.average_price(ask.now_ms)}
        rows.append(row | {"time": last.at_ms if last else ask.now_ms} if symbol.spec.is_future else row)
    return _answered(ask, rows, single)


def _book_ticker(ask: Ask) -> Any:
    symbols, single = ask.chosen()
    rows = []
    for symbol in symbols:
        names = ("bidPrice", "bidQty", "askPrice", "askQty")
        row: dict[str, Any] = {"symbol": symbol.spec.name, **dict(zip(names, symbol.bbo, strict=True))}
        rows.append(row | {"time": symbol.bbo_ms[1], "lastUpdateId": symbol.bbo_id} if symbol.spec.is_future else row)
    return _answered(ask, rows, single)


def _average(ask: Ask) -> Any:
    symbol = ask.symbol()
    last = symbol.trades[-1].at_ms if symbol.trades else ask.now_ms
    return {"mins": 5, "price": symbol.average_price(ask.now_ms), "closeTime": last}


def _premium(ask: Ask) -> Any:
    symbols, single = ask.chosen()
    rows = [
        {
            "symbol": symbol.spec.name, "markPrice": symbol.mark_text(), "indexPrice": symbol.mark_text(),
            "estimatedSettlePrice": symbol.mark_text(), "lastFundingRate": symbol.funding_rate, "interestRate": "0.00010000",
            "nextFundingTime": symbol.next_funding_ms(ask.now_ms), "time": ask.now_ms,
        }
        for symbol in symbols
    ]  # fmt: skip
    return _answered(ask, rows, single)


def _funding(ask: Ask) -> Any:
    symbols, _ = ask.chosen()
    start, end = ask.whole("startTime", 0) or 0, ask.whole("endTime", 2**62) or 0
    rows = [
        {"symbol": symbol.spec.name, "fundingTime": at_ms, "fundingRate": symbol.funding_rate, "markPrice": mark}
        for at_ms, symbol, mark in ask.truth.funding if symbol in symbols and start <= at_ms <= end
    ]  # fmt: skip
    return rows[-ask.limit(100, 1000) :]


def _nothing(ask: Ask) -> Any:
    return []


def _system_status(ask: Ask) -> Any:
    return {"status": 0, "msg": "normal"}


def _no_symbols(ask: Ask) -> Any:
    return exchange_info.empty(ask.now_ms)


Weight = int | Callable[[Mapping[str, str]], int]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One path: which market's budget it spends, how much, its parameters, and the function that answers."""

    market: MarketName
    weight: Weight
    params: tuple[str, ...]
    answer: Callable[[Ask], Any] | None
    """None: signed, and refused."""

    def cost(self, params: Mapping[str, str]) -> int:
        """The weight of a request with these parameters."""
        return self.weight if isinstance(self.weight, int) else self.weight(params)


def _number(params: Mapping[str, str], default: int) -> int:
    text = params.get("limit", "")
    return int(text) if text.isdigit() else default


def _by_limit(default: int, *steps: tuple[int, int]) -> Callable[[Mapping[str, str]], int]:
    """A weight by `limit`: (up to, weight) in rising order, the last one for everything above."""

    def weight(params: Mapping[str, str]) -> int:
        limit = _number(params, default)
        return next((cost for most, cost in steps if limit <= most), steps[-1][1])

    return weight


def _by_symbol(single: int, every: int) -> Callable[[Mapping[str, str]], int]:
    return lambda params: single if "symbol" in params else every


def _day_weight(params: Mapping[str, str]) -> int:
    if "symbol" in params:
        return 2
    n = params["symbols"].count(",") + 1 if "symbols" in params else 101
    return 2 if n <= 20 else 40 if n <= 100 else 80


_RANGE: Final = ("symbol", "limit", "startTime", "endTime")
_SPOT: Final[dict[str, tuple[Weight, tuple[str, ...], Callable[[Ask], Any]]]] = {
    "ping": (1, (), _ping),
    "time": (1, (), _time),
    "exchangeInfo": (20, ("symbol", "symbols", "permissions", "showPermissionSets", "symbolStatus"), _exchange_info),
    "depth": (_by_limit(100, (100, 5), (500, 25), (1000, 50), (5000, 250)), ("symbol", "limit", "symbolStatus"), _depth),
    "trades": (25, ("symbol", "limit"), _trades),
    "historicalTrades": (25, ("symbol", "limit", "fromId"), _trades),
    "aggTrades": (4, (*_RANGE, "fromId"), _agg_trades),
    "klines": (2, (*_RANGE, "interval", "timeZone"), _klines),
    "uiKlines": (2, (*_RANGE, "interval", "timeZone"), _klines),
    "avgPrice": (2, ("symbol",), _average),
    "ticker/24hr": (_day_weight, ("symbol", "symbols", "type", "symbolStatus"), _day),
    "ticker/price": (_by_symbol(2, 4), ("symbol", "symbols", "symbolStatus"), _price),
    "ticker/bookTicker": (_by_symbol(2, 4), ("symbol", "symbols", "symbolStatus"), _book_ticker),
}
_FUTURES: Final[dict[str, tuple[Weight, tuple[str, ...], Callable[[Ask], Any]]]] = {
    "v1/ping": (1, (), _ping),
    "v1/time": (1, (), _time),
    "v1/exchangeInfo": (1, (), _exchange_info),
    "v1/depth": (_by_limit(500, (50, 2), (100, 5), (500, 10), (1000, 20)), ("symbol", "limit"), _depth),
    "v1/trades": (5, ("symbol", "limit"), _trades),
    "v1/historicalTrades": (20, ("symbol", "limit", "fromId"), _trades),
    "v1/aggTrades": (20, (*_RANGE, "fromId"), _agg_trades),
    "v1/klines": (_by_limit(500, (99, 1), (499, 2), (1000, 5), (1500, 10)), (*_RANGE, "interval"), _klines),
    "v1/premiumIndex": (_by_symbol(1, 10), ("symbol",), _premium),
    "v1/fundingRate": (0, _RANGE, _funding),
    "v1/fundingInfo": (0, (), _nothing),
    "v1/ticker/24hr": (_by_symbol(1, 40), ("symbol",), _day),
    "v1/ticker/price": (_by_symbol(1, 2), ("symbol",), _price),
    "v2/ticker/price": (_by_symbol(1, 2), ("symbol",), _price),
    "v1/ticker/bookTicker": (_by_symbol(2, 5), ("symbol",), _book_ticker),
}
_SIGNED_SPOT: Final = (
    "order", "order/test", "order/cancelReplace", "openOrders", "allOrders", "account", "account/commission", "myTrades",
    "orderList/oco", "orderList", "sor/order", "rateLimit/order", "userDataStream",
)  # fmt: skip
_SIGNED_FUTURES: Final = (
    "v1/order", "v1/order/test", "v1/batchOrders", "v1/openOrder", "v1/openOrders", "v1/allOrders", "v1/allOpenOrders",
    "v1/countdownCancelAll", "v1/leverage", "v1/marginType", "v1/userTrades", "v1/income", "v1/commissionRate", "v1/listenKey",
    "v1/positionSide/dual", "v2/account", "v3/account", "v2/balance", "v3/balance", "v2/positionRisk", "v3/positionRisk",
)  # fmt: skip


def _table() -> dict[tuple[str, str], Endpoint]:
    found: dict[tuple[str, str], Endpoint] = {}
    for prefix, market, open_paths in (("/api/v3/", "spot", _SPOT), ("/fapi/", "usdm", _FUTURES), ("/dapi/", "coinm", _FUTURES)):
        for path, (weight, params, answer) in open_paths.items():
            found["GET", prefix + path] = Endpoint(market, weight, params, answer)  # type: ignore[arg-type]
    signed = (("/api/v3/", "spot", _SIGNED_SPOT), ("/fapi/", "usdm", _SIGNED_FUTURES), ("/dapi/", "coinm", _SIGNED_FUTURES))
    for prefix, market, paths in signed:
        for path in paths:
            for method in ("GET", "POST", "PUT", "DELETE"):
                found[method, prefix + path] = Endpoint(market, 1, (), None)  # type: ignore[arg-type]
    others: tuple[tuple[str, Callable[[Ask], Any]], ...] = (
        ("/sapi/v1/system/status", _system_status), ("/sapi/v1/margin/allPairs", _nothing),
        ("/sapi/v1/margin/isolated/allPairs", _nothing), ("/eapi/v1/ping", _ping), ("/eapi/v1/time", _time),
        ("/eapi/v1/exchangeInfo", _no_symbols),
    )  # fmt: skip
    for path, answer in others:
        found["GET", path] = Endpoint("spot", 1, (), answer)
    return found


ENDPOINTS: Final = _table()
"""(method, path) -> endpoint. Whoever adds order entry replaces the signed ones."""
_SIGNED_PREFIXES: Final = ("/sapi/",)


_UNSERVED: Final = {
    "/dapi/v1/ping": Endpoint("spot", 1, (), _ping),
    "/dapi/v1/time": Endpoint("spot", 1, (), _time),
    "/dapi/v1/exchangeInfo": Endpoint("spot", 1, (), _no_symbols),
}
"""What clients of all markets at once ask of COIN-M although it is not served."""


def endpoint_of(method: str, path: str, markets: Sequence[MarketName] = MARKETS) -> Endpoint | None:
    """The endpoint of a path; None when the venue, which serves `markets`, has none such."""
    found = ENDPOINTS.get((method, path))
    if found is not None and found.market == "coinm" and "coinm" not in markets and method == "GET":
        found = _UNSERVED.get(path)
    if found is None and path.startswith(_SIGNED_PREFIXES):
        return Endpoint("spot", 1, (), None)
    return found


def answer(endpoint: Endpoint, ask: Ask, api_key: str) -> Any:
    """The JSON-able answer. Raises RestError."""
    if endpoint.answer is None:
        if not re.fullmatch(r"[A-Za-z0-9]{16,128}", api_key):
            raise RestError(401, -2014, "API-key format invalid.")
        raise RestError(401, -2015, "Invalid API-key, IP, or permissions for action.")
    unknown = len(set(ask.params) - set(endpoint.params))
    if unknown and ask.market == "spot":
        raise RestError(
            400, -1101, f"Too many parameters; expected '{len(endpoint.params)}' and received '{len(ask.params)}'."
        )
    return endpoint.answer(ask)
