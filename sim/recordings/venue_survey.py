"""What a venue's recorded frames name: the symbols, and the prices and quantities as printed. From them come ticks and lots.

It runs before decoding, when nothing is known of the symbols yet. The venue's class walks over untyped JSON, in which numbers
keep their text (`Venue.rows`). It is generous: what it does not know it steps over; the decoder judges.

What this is not: a decoder.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from trading.instruments import Market
from trading.venues.decimals import Inexact, decimals_of, plain_decimal, power_of_ten, units
from trading.venues.names import VENUES, Checksum
from trading.venues.protocol import InstrumentRules, Row
from trading.venues.registry import venue_class

_untyped: Final = msgspec.json.Decoder(float_hook=str).decode
_DECIMALS: Final = 12
"""Finest unit in which prices are compared."""


LONGEST_FRAME: Final = 1 << 23
"""Bytes of a frame that is looked into untyped, which takes twenty times its size."""
_ODD: Final = (KeyError, IndexError, TypeError, AttributeError, ValueError)


def rows(market: Market, raw: bytes) -> list[Row]:
    """The rows of a frame, [] for one that is no market frame of this venue."""
    return _rows(market, _parsed(raw))


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

        Where a checksum is over the printed digits (Kraken's), a tick and a lot are one unit of the last printed place, always.
        """
        if market.facts.checksum is Checksum.PRINTED:
            lot = power_of_ten(self.qty_printed)
            return power_of_ten(self.price_decimals), lot, lot
        tick = plain_decimal(_text(self.price_gcd or 10**_DECIMALS))
        fixed = market.facts.lot_decimals
        lot = power_of_ten(self.qty_decimals if fixed is None else fixed)
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
