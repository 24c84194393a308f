"""What a venue's recorded frames name: the symbols, and the prices and quantities as printed. From them come ticks and lots.

It runs before decoding, when nothing is known of the symbols yet. One function a venue walks over untyped JSON, in which
numbers keep their text. It is generous: what it does not know it steps over; the decoder judges.

What this is not: a decoder.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from trading.instruments import Market
from trading.venues.decimals import Inexact, decimals_of, plain_decimal, power_of_ten, units
from trading.venues.protocol import InstrumentRules

Row = tuple[str, Any, Any]
"""(venue's name of the symbol, price, quantity); price or quantity None where the row tells only the other."""

_untyped: Final = msgspec.json.Decoder(float_hook=str).decode
_DECIMALS: Final = 12
"""Finest unit in which prices are compared."""


def rows(market: Market, raw: bytes) -> list[Row]:
    """The rows of a frame, [] for one that is no market frame."""
    try:
        return list(_ROWS[market](_untyped(raw)))
    except (msgspec.MsgspecError, KeyError, IndexError, TypeError, AttributeError, ValueError, RecursionError):
        return []


def _binance(frame: Any) -> Iterator[Row]:
    body = frame.get("data", frame)
    name = body["s"]
    for side in ("b", "a"):
        if isinstance(body.get(side), list):
            yield from ((name, price, qty) for price, qty, *_ in body[side])
        elif side in body and side.upper() in body:
            yield name, body[side], body[side.upper()]
    if "p" in body and "q" in body:
        yield name, body["p"], body["q"]


def _bybit(frame: Any) -> Iterator[Row]:
    kind, name, body = frame["topic"].partition(".")[0], frame["topic"].rpartition(".")[2], frame["data"]
    if kind == "orderbook":
        yield from ((name, price, qty) for side in ("b", "a") for price, qty in body[side])
    elif kind == "publicTrade":
        yield from ((it["s"], it["p"], it["v"]) for it in body)
    elif kind == "trade":
        yield from ((it["symbol"], it["price"], it["size"]) for it in body)
    elif kind.startswith("orderBook"):
        lists = [body] if isinstance(body, list) else [body.get(key, ()) for key in ("order_book", "delete", "update", "insert")]
        yield from ((name, it["price"], it.get("size")) for listed in lists for it in listed)


def _okx(frame: Any) -> Iterator[Row]:
    name, channel = frame["arg"]["instId"], frame["arg"]["channel"]
    for body in frame["data"]:
        if channel == "tickers":
            yield from ((name, body[side + "Px"], body[side + "Sz"]) for side in ("bid", "ask"))
        elif channel.startswith("trades"):
            yield name, body["px"], body["sz"]
        else:
            yield from ((name, it[0], it[1]) for side in ("bids", "asks") for it in body.get(side, ()))


def _kraken(frame: Any) -> Iterator[Row]:
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


def _coinbase(frame: Any) -> Iterator[Row]:
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


def _deribit(frame: Any) -> Iterator[Row]:
    kind, body = frame["params"]["channel"].partition(".")[0], frame["params"]["data"]
    if kind == "book":
        yield from ((body["instrument_name"], it[1], it[2]) for side in ("bids", "asks") for it in body[side])
    elif kind == "trades":
        yield from ((it["instrument_name"], it["price"], it["amount"]) for it in body)
    elif kind in ("ticker", "quote"):
        sides = ("best_bid", "best_ask")
        yield from ((body["instrument_name"], body[side + "_price"], body[side + "_amount"]) for side in sides)


_ROWS: Final[Mapping[Market, Callable[[Any], Iterable[Row]]]] = {
    Market.BINANCE_SPOT: _binance,
    Market.BINANCE_USDM: _binance,
    Market.BYBIT: _bybit,
    Market.OKX: _okx,
    Market.KRAKEN: _kraken,
    Market.COINBASE: _coinbase,
    Market.DERIBIT: _deribit,
}


@dataclass(slots=True)
class Printed:
    """What one symbol's numbers look like, gathered from its rows."""

    price_gcd: int = 0  # in 10**-_DECIMALS
    price_decimals: int = 0  # most that were printed, trailing zeros too
    qty_decimals: int = 0  # most that were needed
    qty_printed: int = 0
    n_rows: int = 0

    def add(self, price: Any, qty: Any) -> None:
        """Take in one row; a number that is none is stepped over."""
        self.n_rows += 1
        try:
            if price is not None and str(price):
                text = str(price)
                self.price_gcd = math.gcd(self.price_gcd, units(text, _DECIMALS))
                self.price_decimals = max(self.price_decimals, len(text.partition(".")[2]) if text.count("e") == 0 else 0)
            if qty is not None and str(qty):
                self.qty_decimals = max(self.qty_decimals, decimals_of(str(qty)))
                self.qty_printed = max(self.qty_printed, len(str(qty).partition(".")[2]))
        except Inexact:
            return

    def sizes(self, market: Market, rule: InstrumentRules | None) -> tuple[str, str, str]:
        """(tick size, lot size, step size): the venue's rule where all that was printed keeps to it, else as the digits say.

        Kraken's checksum is over the printed digits: there a tick and a lot are one unit of the last printed place, always.
        """
        if market is Market.KRAKEN:
            lot = power_of_ten(self.qty_printed)
            return power_of_ten(self.price_decimals), lot, lot
        tick = plain_decimal(_text(self.price_gcd or 10**_DECIMALS))
        lot = power_of_ten(8 if market is Market.BINANCE_SPOT else self.qty_decimals)
        if rule is None:
            return tick, lot, lot
        try:
            if self.price_gcd % units(rule.tick_size, _DECIMALS) == 0:
                tick = rule.tick_size
        except (Inexact, ZeroDivisionError):
            pass
        finer = max(decimals_of(rule.lot_size), decimals_of(lot))
        return tick, power_of_ten(finer), rule.step_size


def _text(price_units: int) -> str:
    digits = str(price_units).rjust(_DECIMALS + 1, "0")
    return f"{digits[:-_DECIMALS]}.{digits[-_DECIMALS:]}"
