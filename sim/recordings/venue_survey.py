"""What a venue's recorded frames name: the symbols, and the prices and quantities as printed. From them come ticks and lots.

Ticks are the book's: prints count only where the book shows few prices (sim.recordings.sizes says how few).

It runs before decoding, when nothing is known of the symbols yet. The venue's class walks over untyped JSON, in which numbers
keep their text (`Venue.rows`). It is generous: what it does not know it steps over; the decoder judges.

What this is not: a decoder.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from sim.recordings.sizes import Divisor, tick_of
from trading.instruments import Market
from trading.ranges import lot_decimals
from trading.venues.decimals import Inexact, decimals_of, plain_decimal, power_of_ten, units
from trading.venues.names import VENUES, Checksum
from trading.venues.protocol import InstrumentRules, Row
from trading.venues.registry import venue_class

_untyped: Final = msgspec.json.Decoder(float_hook=str).decode
_DECIMALS: Final = 12
"""Finest unit in which prices are compared."""
_MOST: Final = 10**30  # these are Python's integers: a price in rupiah with 12 decimals is none that an int64 holds


LONGEST_FRAME: Final = 1 << 23
"""Bytes of a frame that is looked into untyped, which takes twenty times its size."""
_ODD: Final = (KeyError, IndexError, TypeError, AttributeError, ValueError)


def rows(market: Market, raw: bytes) -> list[Row]:
    """The rows of a frame, [] for one that is no market frame of this venue."""
    return _rows(market, _parsed(raw))


def rows_and_kind(market: Market, raw: bytes) -> tuple[list[Row], bool]:
    """The rows of a frame, and whether they are prints rather than the book's."""
    frame = _parsed(raw)
    found = _rows(market, frame)
    return found, bool(found) and _is_print(frame)


def rows_of_snapshot(market: Market, raw: bytes) -> list[Row]:
    """The rows of a REST snapshot that was brought into the form of a diff, of which it has the levels alone."""
    try:
        return list(venue_class(market).rows(_parsed(raw)))
    except _ODD:
        return []


def venues_of(raw: bytes) -> list[Market]:
    """The venues whose market frame this is by all that it must have; some frames are of several."""
    frame = _parsed(raw)
    return [market for market in VENUES if _rows(market, frame)]


def _parsed(raw: bytes) -> Any:
    try:
        return _untyped(raw) if len(raw) <= LONGEST_FRAME else None
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def _rows(market: Market, frame: Any) -> list[Row]:
    venue = venue_class(market)
    try:
        found = list(venue.rows(frame))
        return found if found and venue.is_own(frame) else []
    except _ODD:
        return []


def _is_print(frame: Any) -> bool:
    """Whether the frame calls its own kind trades: `trade`, `aggTrade`, `publicTrade`, `market_trades`, `match`, ..."""
    if isinstance(frame, list):  # an array whose last words are the channel and the symbol
        return "trade" in str(frame[-2])
    inside = [frame, *(frame[key] for key in ("data", "arg", "params") if isinstance(frame.get(key), dict))]
    kinds = [str(body.get(key, "")).lower() for body in inside for key in ("e", "topic", "channel", "type")]
    return any("trade" in kind or kind == "match" for kind in kinds)


@dataclass(slots=True)
class Printed:
    """What one symbol's numbers look like, gathered from its rows."""

    gcds: list[int] = field(default_factory=lambda: [0, 0])  # of the book's prices and of prints, in 10**-_DECIMALS
    counts: list[int] = field(default_factory=lambda: [0, 0])
    price_decimals: int = 0  # most that were printed, trailing zeros too
    qty_decimals: int = 0  # most that were needed
    qty_printed: int = 0
    largest: int = 0  # greatest quantity in whole coins, rounded up
    n_rows: int = 0

    said: str = ""  # where tick and lot are from; set by `sizes`

    def add(self, price: Any, qty: Any, is_print: bool = False) -> None:
        """Take in one row; a number that is none is stepped over."""
        self.n_rows += 1
        try:
            if price is not None and str(price):
                text = str(price)
                found = units(text, _DECIMALS, _MOST)
                self.gcds[is_print] = math.gcd(self.gcds[is_print], found)
                self.counts[is_print] += found > 0
                self.price_decimals = max(self.price_decimals, len(text.partition(".")[2]) if text.count("e") == 0 else 0)
            if qty is not None and str(qty):
                self.qty_decimals = max(self.qty_decimals, decimals_of(str(qty)))
                self.qty_printed = max(self.qty_printed, len(str(qty).partition(".")[2]))
                self.largest = max(self.largest, int(plain_decimal(str(qty)).partition(".")[0]) + 1)
        except Inexact:
            return

    def sizes(self, market: Market, rule: InstrumentRules | None) -> tuple[str, str, str]:
        """(tick size, lot size, step size): the venue's rule where all that was printed keeps to it, else as the digits say.

        Where a checksum is over the printed digits (Kraken's), a tick and a lot are one unit of the last printed place, always.
        Raises RangeError where the quantities do not fit.
        """
        if market.facts.checksum is Checksum.PRINTED:
            lot = power_of_ten(lot_decimals(self.qty_printed, self.qty_printed, self.largest))
            self.said = f"tick {power_of_ten(self.price_decimals)} and lot {lot} as printed"
            return power_of_ten(self.price_decimals), lot, lot
        book, prints = (Divisor() + Divisor(self.gcds[k], _DECIMALS, self.counts[k]) for k in range(2))
        found, source = tick_of(book, prints)
        tick = found.text if found.units else "1"
        fixed = market.facts.lot_decimals
        usual = self.qty_decimals if fixed is None else fixed
        decimals = lot_decimals(usual, self.qty_decimals, self.largest)
        lot = power_of_ten(decimals)
        self.said = f"tick {tick} {source}, lot {lot} " + ("as printed" if decimals != fixed else f"as always on {market.label}")
        if rule is None:
            return tick, lot, lot
        try:
            if found.keeps(rule.tick_size):
                tick = rule.tick_size
        except ArithmeticError:
            pass
        finer = power_of_ten(max(decimals_of(rule.lot_size), decimals_of(lot)))
        if tick == rule.tick_size:
            self.said = f"tick {tick} and lot {finer} by the venue's list of instruments"
        return tick, finer, rule.step_size
