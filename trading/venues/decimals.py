"""Venue decimals to integers and back, exactly: prices to ticks, quantities to lots, stamps to nanoseconds. Never through a
float.

Venues send decimal strings ("0.00001306") or JSON numbers (0.0015, 1e-5); both arrive here as the text that was sent. A text that
is no plain non-negative decimal, or that has digits below the tick or the lot, raises Inexact: it is never rounded.

What this module is not: it knows no venue and no message.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from trading.ranges import MAX_UNITS

MAX_NS: Final = 2**62
"""A time after every event, as in trading.records."""
MAX_TEXT: Final = 64
"""Characters of the longest decimal that is looked at."""

MAX_DECIMALS: Final = 18
"""What no venue's tick or lot exceeds, and an int64 can still count."""

_SCIENTIFIC: Final = re.compile(r"([0-9]+)(?:\.([0-9]+))?[eE]([+-]?[0-9]{1,2})\Z")
_ISO: Final = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[T ]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,9}))?(?:Z|\+00:?00)?\Z"
)


class Inexact(ValueError):
    """A number that cannot be had exactly in the unit wanted, or no number at all; the message quotes it."""


def plain_decimal(text: str) -> str:
    """The same number without an exponent, needless zeros or point: "1.30e-05" -> "0.000013", "5.0" -> "5". Raises Inexact."""
    whole, fraction = _digits(text)
    fraction = fraction.rstrip("0")
    whole = whole.lstrip("0") or "0"
    return f"{whole}.{fraction}" if fraction else whole


def decimals_of(text: str) -> int:
    """Digits behind the point that the number needs: "1.50" -> 1. Raises Inexact."""
    return len(_digits(text)[1].rstrip("0"))


def units(text: str, decimals: int, most: int = MAX_UNITS) -> int:
    """`text` in units of 10**-decimals, exactly, `most` at most: ("1.50", 2) -> 150. Raises Inexact."""
    return _scaled(text, decimals, most)


def _scaled(text: str, decimals: int, most: int) -> int:
    whole, fraction = _digits(text)
    if len(fraction) > decimals:
        if fraction[decimals:].strip("0"):
            raise Inexact(f"{text} has more than {decimals} decimals")
        fraction = fraction[:decimals]
    value: int = int(whole + fraction) * 10 ** (decimals - len(fraction))
    if value > most:
        raise Inexact(f"{text} is too large for units of 1e-{decimals}")
    return value


def _digits(text: str) -> tuple[str, str]:
    """Digits before and behind the point, an exponent resolved. Raises Inexact."""
    if len(text) > MAX_TEXT:
        raise Inexact(f"{text[:MAX_TEXT]}... is longer than {MAX_TEXT} characters")
    whole, point, fraction = text.partition(".")
    if whole.isascii() and whole.isdigit() and (fraction.isascii() and fraction.isdigit() or not point):
        return whole, fraction
    found = _SCIENTIFIC.match(text)
    if not found:
        raise Inexact(f"{text!r} is no decimal such as 0.01")
    whole, fraction, exponent = found[1], found[2] or "", int(found[3])
    if exponent >= 0:
        fraction = fraction.ljust(exponent, "0")
        return whole + fraction[:exponent], fraction[exponent:]
    whole = whole.rjust(1 - exponent, "0")
    return whole[:exponent], whole[exponent:] + fraction


@dataclass(frozen=True, slots=True)
class Scale:
    """What a tick and a lot of one symbol are: a tick is `tick_units * 10**-price_decimals`, a lot `10**-qty_decimals`."""

    price_decimals: int
    tick_units: int
    qty_decimals: int

    def ticks(self, price: str) -> int:
        """A price in ticks. Raises Inexact where it is no multiple of the tick."""
        value = units(price, self.price_decimals)
        if self.tick_units == 1:
            return value
        ticks, rest = divmod(value, self.tick_units)
        if rest:
            raise Inexact(f"price {price} is no multiple of the tick, {self.tick_units}e-{self.price_decimals}")
        return ticks

    def lots(self, qty: str) -> int:
        """A quantity in lots. Raises Inexact where it is no multiple of the lot."""
        return units(qty, self.qty_decimals)


def scale(tick_size: str, lot_size: str) -> Scale:
    """The scale of these sizes, as trading.instruments reads them. Raises Inexact for a tick of 0 or a lot that is no power of
    ten."""
    decimals = decimals_of(tick_size)
    tick_units = units(tick_size, decimals)
    if tick_units == 0:
        raise Inexact(f"a tick size of {tick_size} is none")
    qty_decimals = decimals_of(lot_size)
    if units(lot_size, qty_decimals) != 1:
        raise Inexact(f"lot size {lot_size} is no power of ten that is at most 1")
    return Scale(decimals, tick_units, qty_decimals)


def power_of_ten(decimals: int) -> str:
    """10**-decimals as a decimal string: 2 -> "0.01", 0 -> "1". Raises Inexact for more decimals than MAX_DECIMALS."""
    if decimals > MAX_DECIMALS:
        raise Inexact(f"{str(decimals)[:MAX_TEXT]} decimals are more than {MAX_DECIMALS}")
    return "1" if decimals <= 0 else "0." + "0" * (decimals - 1) + "1"


def lot_for(step: str) -> str:
    """The coarsest power of ten, at most 1, that a step is a whole multiple of: "0.5" -> "0.1", "10" -> "1"."""
    return power_of_ten(decimals_of(step))


def seconds_ns(text: str) -> int:
    """Unix seconds as a decimal text to ns, exactly: "1618678132.557535" -> 1618678132557535000. Raises Inexact."""
    return _scaled(text, 9, MAX_NS)


def whole_ns(stamp: str | int, unit_ns: int) -> int:
    """Unix time in whole units of `unit_ns`, a number or its text, to ns. Raises Inexact for what is no time, such as one before
    1970."""
    try:
        value = int(stamp) * unit_ns
    except ValueError:
        raise Inexact(f"{str(stamp)[:MAX_TEXT]!r} is no time in whole units") from None
    if not 0 <= value <= MAX_NS:
        raise Inexact(f"{str(stamp)[:MAX_TEXT]} is no time between 1970 and 2115")
    return value


def millis_ns(stamp: str | int) -> int:
    """Unix milliseconds to ns; else as `whole_ns`."""
    return whole_ns(stamp, 1_000_000)


def iso_ns(text: str) -> int:
    """A UTC stamp such as 2023-02-09T20:32:50.714964855Z to Unix ns, exactly. Raises Inexact."""
    found = _ISO.match(text)
    if not found:
        raise Inexact(f"{text[:MAX_TEXT]!r} is no UTC time such as 2023-02-09T20:32:50.714964Z")
    year, month, day, hour, minute, second = (int(part) for part in found.groups()[:6])
    if not (1970 <= year <= 2200 and 1 <= month <= 12 and 1 <= day <= 31 and hour < 24 and minute < 60 and second <= 60):
        raise Inexact(f"{text!r} is no time between 1970 and 2200")
    # days since 1970 by the proleptic Gregorian calendar, years counted from March (Hinnant's days_from_civil)
    year -= month <= 2
    day_of_year = (153 * (month - 3 if month > 2 else month + 9) + 2) // 5 + day - 1
    days = year * 365 + year // 4 - year // 100 + year // 400 + day_of_year - 719468
    fraction = int((found[7] or "").ljust(9, "0"))
    return ((days * 24 + hour) * 60 + minute) * 60_000_000_000 + second * 1_000_000_000 + fraction
