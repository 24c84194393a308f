"""What the venue says: bodies of stream events as Binance documents them, each encoded once for all who hear it.

Bodies are made from the state that sim.local_venue.market hands in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from sim.local_venue.bars import DAY, Bar, following
from sim.local_venue.book import ASK, BID, text_of
from sim.local_venue.stream_names import WINDOWS, MarketName, Stream

if TYPE_CHECKING:
    from sim.local_venue.symbol_market import SymbolMarket

encode: Final = msgspec.json.Encoder().encode
Body = dict[str, Any]

_TIMES: Final[dict[str, tuple[str, ...]]] = {
    "trade": ("E", "T"),
    "aggTrade": ("E", "T"),
    "bookTicker": ("E", "T"),
    "depth": ("E", "T"),
    "partial": ("E", "T"),
    "kline": ("E",),
    "miniTicker": ("E",),
    "ticker": ("E", "O", "C"),
    "windowTicker": ("E", "O", "C"),
    "avgPrice": ("E", "T"),
    "markPrice": ("E",),
}
"""The fields of each kind that hold times, in ms."""


class Message:
    """One event of one stream; encoded when first wanted, once for each way of saying it."""

    __slots__ = ("market", "symbol", "stream", "kind", "body", "at_ns", "_encoded")

    def __init__(self, market: MarketName, stream: Stream, body: Body | list[Body], at_ns: int) -> None:
        self.market, self.stream, self.kind = market, stream.name, stream.kind
        self.symbol = stream.symbol
        self.body, self.at_ns = body, at_ns
        self._encoded: dict[tuple[bool, bool, int], bytes] = {}

    def text(self, combined: bool = False, micro: bool = False, shift_ms: int = 0) -> bytes:
        """The JSON that goes over the wire; `shift_ms` is added to its times, `micro` says them in microseconds."""
        key = (combined, micro, shift_ms)
        found = self._encoded.get(key)
        if found is None:
            if combined:
                found = b'{"stream":"%b","data":%b}' % (self.stream.encode(), self.text(False, micro, shift_ms))
            elif micro or shift_ms:
                bodies = self.body if isinstance(self.body, list) else [self.body]
                changed = [self._changed(body, 1000 if micro else 1, shift_ms) for body in bodies]
                found = encode(changed if isinstance(self.body, list) else changed[0])
            else:
                found = encode(self.body)
            self._encoded[key] = found
        return found

    def _changed(self, body: Body, factor: int, shift_ms: int) -> Body:
        other = {**body, **{key: (body[key] + shift_ms) * factor for key in _TIMES[self.kind] if key in body}}
        if self.kind == "kline":
            k = body["k"]
            other["k"] = {**k, "t": k["t"] * factor, "T": (k["T"] + 1) * factor - 1}
        return other


def names(symbol: SymbolMarket) -> Body:
    """How an event of the book names its symbol; COIN-M says the pair too."""
    name = {"s": symbol.spec.name}
    return name | {"ps": symbol.spec.pair} if symbol.spec.market == "coinm" else name


def depth_update(
    symbol: SymbolMarket, ids: tuple[int, int, int], bids: Any, asks: Any, times: tuple[int, int]
) -> Body:
    """A diff: `ids` are U, u and pu, `times` the event's and the transaction's in ms."""
    first_id, last_id, previous_id = ids
    body: Body = {"e": "depthUpdate", "E": times[0]}
    if symbol.spec.is_future:
        body["T"] = times[1]
    body |= {**names(symbol), "U": first_id, "u": last_id}
    if symbol.spec.is_future:
        body["pu"] = previous_id
    return body | {"b": bids, "a": asks}


def partial_depth(symbol: SymbolMarket, levels: int, previous_id: int, now_ms: int) -> Body:
    """The best levels: spot's own form, or a depthUpdate on futures."""
    book = symbol.book
    bids, asks = book.side(BID, levels), book.side(ASK, levels)
    if symbol.spec.market == "spot":
        return {"lastUpdateId": book.last_id, "bids": bids, "asks": asks}
    return depth_update(symbol, (previous_id + 1, book.last_id, previous_id), bids, asks, (now_ms, symbol.diff_ms))


def kline(symbol: SymbolMarket, interval: str, bar: Bar, now_ms: int, closed: bool) -> Body:
    """The kline event of one bar."""
    end = following(interval, bar.start_ms)
    spec = symbol.spec
    price, qty = spec.price_decimals, spec.qty_decimals
    return {
        "e": "kline", "E": now_ms, "s": spec.name,
        "k": {
            "t": bar.start_ms, "T": end - 1, "s": spec.name, "i": interval, "f": bar.first_id, "L": bar.last_id,
            "o": text_of(bar.open, price), "c": text_of(bar.close, price), "h": text_of(bar.high, price),
            "l": text_of(bar.low, price), "v": text_of(bar.volume, qty), "n": bar.trades, "x": closed,
            "q": quote_text(symbol, bar.quote), "V": text_of(bar.taker_volume, qty),
            "Q": quote_text(symbol, bar.taker_quote), "B": "0",
        },
    }  # fmt: skip


def quote_text(symbol: SymbolMarket, quote_e16: int) -> str:
    """What was turned over as the market prints it: of the quote asset, or of the base asset where contracts are inverse."""
    spec = symbol.spec
    if spec.market == "coinm":
        price = symbol.mid() or 10**8
        return text_of(quote_e16 * spec.contract_size // price * 10**8 // price, 8)
    return text_of(quote_e16 // 10**8, 8 if spec.market == "spot" else min(8, spec.price_decimals + spec.qty_decimals))


def kline_row(symbol: SymbolMarket, interval: str, bar: Bar) -> list[Any]:
    """The REST form of a bar."""
    price, qty = symbol.spec.price_decimals, symbol.spec.qty_decimals
    return [
        bar.start_ms, text_of(bar.open, price), text_of(bar.high, price), text_of(bar.low, price), text_of(bar.close, price),
        text_of(bar.volume, qty), following(interval, bar.start_ms) - 1, quote_text(symbol, bar.quote), bar.trades,
        text_of(bar.taker_volume, qty), quote_text(symbol, bar.taker_quote), "0",
    ]  # fmt: skip


def statistics(symbol: SymbolMarket, now_ms: int, length_ms: int = DAY) -> Body:
    """The rolling statistics, with REST's names; all zero before the first trade."""
    spec = symbol.spec
    price, qty = spec.price_decimals, spec.qty_decimals
    whole = symbol.bars.window(now_ms, length_ms) or Bar(now_ms, 0, 0, 0, 0)
    before = symbol.bars.close_before(now_ms, length_ms) or whole.open
    change = whole.close - whole.open
    average = whole.quote // whole.volume if whole.volume else 0
    last = symbol.trades[-1] if symbol.trades else None
    bid, ask = symbol.bbo[0:2], symbol.bbo[2:4]
    return {
        "symbol": spec.name,
        "priceChange": text_of(change, price),
        "priceChangePercent": f"{100.0 * change / whole.open if whole.open else 0.0:.3f}",
        "weightedAvgPrice": text_of(average, price),
        "prevClosePrice": text_of(before, price),
        "lastPrice": text_of(whole.close, price),
        "lastQty": last.qty if last else text_of(0, qty),
        "bidPrice": bid[0], "bidQty": bid[1], "askPrice": ask[0], "askQty": ask[1],
        "openPrice": text_of(whole.open, price), "highPrice": text_of(whole.high, price),
        "lowPrice": text_of(whole.low, price), "volume": text_of(whole.volume, qty),
        "quoteVolume": quote_text(symbol, whole.quote),
        "openTime": now_ms - length_ms, "closeTime": now_ms,
        "firstId": whole.first_id, "lastId": whole.last_id, "count": whole.trades,
    }  # fmt: skip


_TICKER_KEYS: Final = {
    "p": "priceChange", "P": "priceChangePercent", "w": "weightedAvgPrice", "x": "prevClosePrice", "c": "lastPrice",
    "Q": "lastQty", "b": "bidPrice", "B": "bidQty", "a": "askPrice", "A": "askQty",
    "o": "openPrice", "h": "highPrice", "l": "lowPrice",
    "v": "volume", "q": "quoteVolume", "O": "openTime", "C": "closeTime", "F": "firstId", "L": "lastId", "n": "count",
}  # fmt: skip
_NOT_FUTURES: Final = set("xbBaA")
_NOT_WINDOW: Final = set("xQbBaA")


def ticker(symbol: SymbolMarket, now_ms: int, window: str = "") -> Body:
    """The 24 h ticker event, or that of a rolling window."""
    figures = statistics(symbol, now_ms, WINDOWS[window] if window else DAY)
    out = _NOT_WINDOW if window else _NOT_FUTURES if symbol.spec.is_future else set()
    body: Body = {"e": f"{window}Ticker" if window else "24hrTicker", "E": now_ms, "s": symbol.spec.name}
    return body | {key: figures[name] for key, name in _TICKER_KEYS.items() if key not in out}


def mini_ticker(symbol: SymbolMarket, now_ms: int) -> Body:
    """The short 24 h ticker event."""
    figures = statistics(symbol, now_ms)
    body: Body = {"e": "24hrMiniTicker", "E": now_ms, "s": symbol.spec.name}
    return body | {key: figures[_TICKER_KEYS[key]] for key in "cohlvq"}


def average_price(symbol: SymbolMarket, now_ms: int) -> Body:
    """The event of the five-minute average price."""
    last = symbol.trades[-1].at_ms if symbol.trades else now_ms
    return {"e": "avgPrice", "E": now_ms, "s": symbol.spec.name, "i": "5m", "w": symbol.average_price(now_ms), "T": last}


def mark_price(symbol: SymbolMarket, now_ms: int) -> Body:
    """The mark price event; mark and index are the mid of the book."""
    mark = symbol.mark_text()
    return {
        "e": "markPriceUpdate", "E": now_ms, "s": symbol.spec.name, "p": mark, "i": mark, "P": mark,
        "r": symbol.funding_rate, "T": symbol.next_funding_ms(now_ms),
    }  # fmt: skip
