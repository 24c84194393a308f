"""What readers of other programs' files hand on, and how they count and say what they met.

    Print, Quote, Window   what a market did, told by somebody else than the venue: written in Binance's frames with made-up ids
    Frame                  a message of the venue's own, with its own ids: what is made of it can be proved by the venue's rules
    Bar                    a candle

Prices and quantities are decimal texts as they were printed; times are ns. A time's unit is told by its magnitude, so a file that
changes from milliseconds to microseconds is read right, and `Told` says which were met.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, NamedTuple

from procs.archives.sources import Source
from procs.recordings.output import RecordingsError
from procs.recordings.wire_text import MOST_DECIMALS, decimals_of, units_of_text
from procs.recordings.words import aggressor
from sim.recordings.spool import decimal_text
from trading.stamps import UNIT_NAMES, stamp_of

_MOST_SEEN: Final = 1 << 17


class Print(NamedTuple):
    """A trade. seller: the aggressor sold."""

    recv_ns: int
    exch_ns: int
    price: str
    qty: str
    seller: bool


class Quote(NamedTuple):
    """Best bid and offer; empty texts for none."""

    recv_ns: int
    exch_ns: int
    bid: str
    bid_qty: str
    ask: str
    ask_qty: str


Levels = list[tuple[str, str]]


class Window(NamedTuple):
    """The `depth` best levels of a side, best first; fewer: there are no more."""

    recv_ns: int
    exch_ns: int
    depth: int
    bids: Levels
    asks: Levels


class Frame(NamedTuple):
    """A message as the venue would have sent it."""

    recv_ns: int
    frame: bytes


class Bar(NamedTuple):
    """A candle as its source has it. Empty texts: not said."""

    open_time_ns: int
    open: str
    high: str
    low: str
    close: str
    volume: str
    quote_volume: str = ""
    buy_volume: str = ""
    trades: str = ""


@dataclass(slots=True)
class Told:
    """What was met in one source, for the summary. Times that go backwards are raised to the one before, and counted."""

    source: Source
    rows: int = 0
    backwards: int = 0
    units: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    words: list[str] = field(default_factory=list)
    last_ns: int = 0

    def stamp(self, text: str, number: int) -> int:
        """A time in seconds, milliseconds, microseconds or nanoseconds, with or without a fraction, as ns."""
        found = stamp_of(text.encode())
        if found is None:
            raise self.wrong(number, f"{text[:40]!r} is no time from 2001 to 2116 in seconds, milli-, micro- or nanoseconds")
        self.units[UNIT_NAMES[found[1]]] += 1
        return found[0]

    def in_order(self, ns: int) -> int:
        """The time, raised to the one before where it is earlier."""
        if ns < self.last_ns:
            self.backwards += 1
        self.last_ns = max(self.last_ns, ns)
        return self.last_ns

    def side(self, text: str, number: int) -> bool | None:
        """Whether the seller was the aggressor; None, and counted, where the source says that it does not know."""
        seller = aggressor(text, self.place(number))
        self.left_out["trades without a side"] += seller is None
        return seller

    def place(self, number: int) -> str:
        """How messages call a line."""
        return f"{self.source.place}:{number}"

    def wrong(self, number: int, what: str) -> RecordingsError:
        """The error for a line."""
        return RecordingsError(f"{self.place(number)}: {what}; fetch the file again, or leave it out")

    @property
    def said(self) -> str:
        """One sentence."""
        parts = [f"{self.rows:,} rows", *(["times in " + " and ".join(sorted(self.units))] if self.units else [])]
        if self.backwards:
            parts.append(f"{self.backwards:,} times went backwards and were raised to the one before")
        parts += [f"{count:,} {what} left out" for what, count in self.left_out.items() if count]
        return f"{self.source.place}: {', '.join([*parts, *self.words])}"


class Numbers:
    """What printed prices and quantities need: their decimals, and what all prices are multiples of. Holds few at a time."""

    def __init__(self) -> None:
        self.price_decimals = self.qty_decimals = self._divisor = 0
        self._prices, self._amounts = set[str](), set[str]()

    def price(self, text: str) -> None:
        """Take a price; empty for none."""
        if text and text not in self._prices:
            self.price_decimals = max(self.price_decimals, decimals_of((text,), "price"))
            self._divisor = math.gcd(self._divisor, units_of_text(text, MOST_DECIMALS, "price"))
            _remember(self._prices, text)

    def amount(self, text: str) -> None:
        """Take a quantity; empty for none."""
        if text and text not in self._amounts:
            self.qty_decimals = max(self.qty_decimals, decimals_of((text,), "quantity"))
            _remember(self._amounts, text)

    def steps(self, place: str, tick: str, lot: str) -> tuple[str, str]:
        """(tick, lot): as given, else what the numbers suggest. Raises RecordingsError where there was no price."""
        if not self._divisor:
            raise RecordingsError(f"{place}: no row of it holds a price; nothing to convert")
        scale = 10 ** (MOST_DECIMALS - self.price_decimals)
        return tick or decimal_text(self._divisor // scale, self.price_decimals), lot or decimal_text(1, self.qty_decimals)


def _remember(seen: set[str], text: str) -> None:
    if len(seen) >= _MOST_SEEN:
        seen.clear()
    seen.add(text)


def date_ns(text: str) -> int | None:
    """A date such as "2020-01-01 00:00:00" in UTC as ns; None for what is none."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    found = found.replace(tzinfo=UTC) if found.tzinfo is None else found
    delta = found - datetime(1970, 1, 1, tzinfo=UTC)
    return (delta.days * 86_400 + delta.seconds) * 10**9 + delta.microseconds * 1000
