"""What PriceSource answers, and the errors that come instead. Prices are decimals, exactly as the venue printed them.

Every answer says where it comes from, how old it is, and what is wrong with it: stale, partial, and which sources failed before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Self


class PriceError(Exception):
    """No price. The message is one sentence with the remedy.

    PriceError
    +-- UnknownSymbol      the venue does not list it
    +-- UnknownTimeframe   no source has candles of that size
    +-- SourceFailed       one source gave nothing, this time
    |   +-- BudgetSpent    not asked: its share of the venue's rate limit is used up
    |   +-- BadAnswer      what it answered cannot be true or read, or it refuses this request
    +-- AllSourcesFailed   none gave anything: `reasons` has each one's
    """


class UnknownSymbol(PriceError):
    """The venue does not list the symbol."""


class UnknownTimeframe(PriceError):
    """No candles of that size there."""


class SourceFailed(PriceError):
    """One source gave nothing. `hold_s`: it asks to be left alone for so long (0: it did not say)."""

    def __init__(self, message: str, hold_s: float = 0.0) -> None:
        super().__init__(message)
        self.hold_s = hold_s


class BudgetSpent(SourceFailed):
    """The request would have had to wait too long for its share of the venue's rate limit."""


class BadAnswer(SourceFailed):
    """What the source answered cannot be true or cannot be read, or it refuses this one request: no reason to leave it alone."""


Reason = tuple[str, str]
"""(source, why it gave nothing)"""


class AllSourcesFailed(PriceError):
    """No source gave anything, and nothing is known from before."""

    def __init__(self, what: str, reasons: Sequence[Reason]) -> None:
        self.reasons = tuple(reasons)
        told = "; ".join(f"{source}: {why}" for source, why in reasons) or "there is no source"
        super().__init__(f"no source has {what}: {told}; check the network, or name another with --endpoint or --recording")


@dataclass(frozen=True, slots=True)
class Candle:
    """One candle. `volume`: base currency. `open_ended`: its time is not over; `incomplete`: trades of it may be missing."""

    open_time_ns: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    open_ended: bool = False
    incomplete: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What all answers have. `as_of_ns`: the time that the values speak of (the venue's word, or `fetched_ns`)."""

    symbol: str
    source: str = ""
    fetched_ns: int = 0
    as_of_ns: int = 0
    age_s: float = 0.0  # since as_of_ns, when answered
    cached: bool = False  # fetched for an earlier call
    stale: bool = False  # older than is fit for use, or known from before because no source answers
    failed: tuple[Reason, ...] = ()  # sources that were asked before this one

    def at(self, now_ns: int, *, cached: bool = False, stale_after_s: float = float("inf")) -> Self:
        """The same answer given at `now_ns`."""
        age = max(now_ns - self.as_of_ns, 0) / 1e9
        return replace(self, age_s=age, cached=cached, stale=self.stale or age > stale_after_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Price(Answer):
    """The last traded price, with the best bid and ask where the source knows them."""

    last: Decimal
    bid: Decimal | None = None
    ask: Decimal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ohlcv(Answer):
    """Candles of one size, oldest first, at most as many as asked for. Built from trades, a bucket without any is absent."""

    timeframe: str
    candles: tuple[Candle, ...]

    @property
    def partial(self) -> bool:
        """Whether the last candle is still in the making, or one may lack trades."""
        return any(c.open_ended or c.incomplete for c in self.candles)


def checked_candles(candles: Sequence[Candle]) -> tuple[Candle, ...]:
    """The candles, if they can be true: ascending, positive, high and low around open and close. Raises BadAnswer."""
    last = 0
    for c in candles:
        if not (0 < c.low <= min(c.open, c.close) and max(c.open, c.close) <= c.high and c.volume >= 0 and c.open_time_ns > last):
            told = f"{c.open} {c.high} {c.low} {c.close}, volume {c.volume}"
            raise BadAnswer(f"it gave an impossible candle ({told} at {c.open_time_ns} ns)")
        last = c.open_time_ns
    if not candles:
        raise BadAnswer("it gave no candle")
    return tuple(candles)
