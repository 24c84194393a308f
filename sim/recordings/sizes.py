"""Tick, lot and step of a recorded symbol: by the venue's rules where the recording has them, else by the book's own digits.

The rules are the recorder's first line of a file (`{"scalper":"file",...}`) or an answer to exchangeInfo among the lines; they
hold as far as everything that the book shows keeps to them. Without them a tick is the greatest common divisor of the book's
prices (levels and best bid/offer). Prints join in where the book shows few prices, and no other price ever does. `said` tells
which.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

import numpy as np

from sim.recordings import recording_text as rt
from sim.recordings.wire_files import Event
from trading.instruments import Market
from trading.jit import Words
from trading.ranges import lot_decimals
from trading.venues.decimals import Inexact, decimals_of, plain_decimal, units
from trading.venues.protocol import Streams, VenueError
from trading.venues.registry import make_venue

FEW: Final = 100
"""Fewer prices of the book than this may all be multiples of more than the tick."""
STEP_SHARE: Final = 0.99
"""An order's step is taken to be the coarsest power of ten that this share of all quantities are multiples of."""


@dataclass(slots=True)
class Rules:
    """What a file says of ticks and lots by itself: the recorder's word, and answers to exchangeInfo as they came."""

    head: Event | None = None
    listed: list[bytes] = field(default_factory=list)

    def __bool__(self) -> bool:
        return self.head is not None or bool(self.listed)

    def of(self, name: str, market: Market) -> tuple[str, str, str, str] | None:
        """(tick, lot, step, whose word that is) of a symbol; None where nothing is said of it."""
        if self.head is not None:
            return self.head.tick, self.head.lot, self.head.step, "the recorder's word"
        for raw in self.listed:
            try:
                rule = make_venue(market, (), Streams()).parse_instruments(raw).get(name)
            except VenueError:
                continue
            if rule is not None:
                return rule.tick_size, rule.lot_size, rule.step_size, "the venue's exchangeInfo"
        return None


@dataclass(frozen=True, slots=True)
class Sizes:
    """A tick is `tick_units * 10**-price_decimals`, a lot `10**-qty_decimals`, an order's step `10**-step_decimals`."""

    price_decimals: int
    tick_units: int
    qty_decimals: int
    step_decimals: int
    said: str


@dataclass(frozen=True, slots=True)
class Divisor:
    """What all of some prices are multiples of: `units * 10**-decimals`, 0 units for no price; how many they were."""

    units: int = 0
    decimals: int = 0
    count: int = 0

    def __add__(self, other: Divisor) -> Divisor:
        decimals = max(self.decimals, other.decimals)
        found = math.gcd(self.units * 10 ** (decimals - self.decimals), other.units * 10 ** (decimals - other.decimals))
        while decimals and found and found % 10 == 0:
            found, decimals = found // 10, decimals - 1
        return Divisor(found, decimals, self.count + other.count)

    def keeps(self, tick: str) -> bool:
        """Whether all are multiples of this tick."""
        return Decimal(self.units).scaleb(-self.decimals) % Decimal(tick) == 0

    @property
    def text(self) -> str:
        """As a decimal."""
        return plain_decimal(format(Decimal(self.units).scaleb(-self.decimals), "f"))


def tick_of(book: Divisor, prints: Divisor) -> tuple[Divisor, str]:
    """The tick, and what it is from."""
    if book.count >= FEW or not prints.count:
        return book, f"from {book.count:,} book prices"
    both = book + prints
    return both, f"from {book.count:,} book prices and {prints.count:,} prints" if book.count else f"from {prints.count:,} prints"


def sizes_of(name: str, market: Market, tallies: Sequence[Words], rules: Rules) -> Sizes | None:
    """What the surveys of a symbol's files make together (`recording_text.survey`); None where no price came.

    Raises RangeError where the quantities do not fit.
    """
    book, prints = (sum((_divisor(tally, which) for tally in tallies), Divisor()) for which in (rt.PRICES, rt.PRINTS))
    needs: Words = np.sum([tally[rt.QTY_DECIMALS : rt.QTY_DECIMALS + rt.MAX_DECIMALS + 1] for tally in tallies], axis=0)
    needed = max((k for k in range(rt.MAX_DECIMALS + 1) if needs[k]), default=0)
    largest = max((int(tally[rt.LARGEST_QTY]) for tally in tallies), default=0)
    if book.count + prints.count == 0:
        return None
    tick, source = tick_of(book, prints)
    rule, doubt = rules.of(name, market), ""
    try:
        if rule is not None and tick.keeps(rule[0]) and units(rule[0], decimals_of(rule[0])):
            decimals, lot = decimals_of(rule[0]), lot_decimals(max(decimals_of(rule[1]), needed), needed, largest)
            said = f"tick {rule[0]} and lot {power_text(lot)} by {rule[3]}"
            return Sizes(decimals, units(rule[0], decimals), lot, min(decimals_of(rule[2]), lot), said)
        doubt = f", to which the tick {rule[0]} of {rule[3]} does not fit" if rule is not None else ""
    except Inexact:
        doubt = f", since {rule[3]} cannot be read" if rule is not None else ""
    fixed = market.facts.lot_decimals
    usual = max(int(tally[rt.PRINTED_DECIMALS]) for tally in tallies) if fixed is None else fixed
    lot = lot_decimals(usual, needed, largest)
    shares = needs.cumsum()
    step = min(int((shares >= STEP_SHARE * shares[-1]).argmax()), lot)
    told = f"lot {power_text(lot)} " + ("as printed" if lot != fixed else f"as always on {market.label}")
    return Sizes(tick.decimals, tick.units, lot, step, f"tick {tick.text} {source}{doubt}, {told}")


def power_text(decimals: int) -> str:
    """10**-decimals as a decimal."""
    return plain_decimal(format(Decimal(1).scaleb(-decimals), "f"))


def _divisor(tally: Words, which: int) -> Divisor:
    return Divisor(*(int(tally[which + k]) for k in (rt.DIVISOR, rt.DECIMALS, rt.COUNT)))
