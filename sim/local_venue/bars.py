"""Candles and rolling statistics of one symbol, from its trades alone: nothing before the first trade is invented.

Bars of one second and of one minute are kept; every other interval is put together from them when it is asked for. Amounts are
exact: prices and quantities in 1e-8, quote volumes in 1e-16.
"""

from __future__ import annotations

import datetime as dt
from bisect import bisect_left
from dataclasses import dataclass, replace
from typing import Final

SECOND: Final = 1000
MINUTE: Final = 60_000
HOUR: Final = 3_600_000
DAY: Final = 86_400_000
WEEK: Final = 7 * DAY
MONDAY: Final = 4 * DAY  # the first one of the Unix epoch

INTERVALS: Final[dict[str, int]] = {
    "1s": SECOND, "1m": MINUTE, "3m": 3 * MINUTE, "5m": 5 * MINUTE, "15m": 15 * MINUTE, "30m": 30 * MINUTE,
    "1h": HOUR, "2h": 2 * HOUR, "4h": 4 * HOUR, "6h": 6 * HOUR, "8h": 8 * HOUR, "12h": 12 * HOUR,
    "1d": DAY, "3d": 3 * DAY, "1w": WEEK, "1M": 0,
}  # fmt: skip
"""Length of each interval in ms; 1M has none."""
GRACE_MS: Final = 100
"""A print may be so late and still count in the second that it names; later ones count in the oldest second that is open."""
BARS_KEPT: Final = 100_000
"""Of each of the two kinds: 27 hours of seconds, 69 days of minutes."""


@dataclass(slots=True)
class Bar:
    """One candle. `start_ms` of its bucket; `quote` and `taker_quote` in 1e-16; ids are -1 where it has no trade."""

    start_ms: int
    open: int
    high: int
    low: int
    close: int
    volume: int = 0
    quote: int = 0
    trades: int = 0
    taker_volume: int = 0
    taker_quote: int = 0
    first_id: int = -1
    last_id: int = -1

    def add(self, other: Bar) -> None:
        """Take the bar that follows into this one."""
        if not other.trades:
            return
        if not self.trades:
            self.open = self.high = self.low = other.open
            self.first_id = other.first_id
        self.high, self.low, self.close = max(self.high, other.high), min(self.low, other.low), other.close
        self.volume += other.volume
        self.quote += other.quote
        self.trades += other.trades
        self.taker_volume += other.taker_volume
        self.taker_quote += other.taker_quote
        self.last_id = other.last_id


def bucket(interval: str, at_ms: int) -> int:
    """Start of the bar that holds this moment (UTC; weeks begin on Monday)."""
    if interval == "1M":
        day = dt.datetime.fromtimestamp(at_ms / 1000, dt.UTC)
        return int(dt.datetime(day.year, day.month, 1, tzinfo=dt.UTC).timestamp()) * 1000
    if interval == "1w":
        return at_ms - (at_ms - MONDAY) % WEEK
    return at_ms - at_ms % INTERVALS[interval]


def following(interval: str, start_ms: int) -> int:
    """Start of the next bar."""
    if interval == "1M":
        return bucket("1M", start_ms + 32 * DAY)
    return start_ms + INTERVALS[interval]


class Bars:
    """All candles of one symbol."""

    def __init__(self) -> None:
        self._seconds: list[Bar] = []
        self._minutes: list[Bar] = []
        self.trades = 0

    def add(self, at_ms: int, price: int, qty: int, trade_id: int, buyer_is_maker: bool) -> None:
        """Count a trade; price and quantity in 1e-8."""
        self.trades += 1
        quote = price * qty
        taker = (0, 0) if buyer_is_maker else (qty, quote)
        for bars, size in ((self._seconds, SECOND), (self._minutes, MINUTE)):
            start = at_ms - at_ms % size
            one = Bar(start, price, price, price, price, qty, quote, 1, *taker, trade_id, trade_id)
            if bars and start <= bars[-1].start_ms:  # a stamp that runs back counts in the newest bar
                bars[-1].add(one)
                continue
            bars.append(one)
            if len(bars) > BARS_KEPT + BARS_KEPT // 10:
                del bars[: BARS_KEPT // 10]

    def between(self, interval: str, first_ms: int, last_ms: int) -> list[Bar]:
        """The bars that start in [first_ms, last_ms], flat ones where nothing was traded, none before the first trade."""
        pieces = self._seconds if interval == "1s" else self._minutes
        if not pieces:
            return []
        start = max(bucket(interval, first_ms), bucket(interval, pieces[0].start_ms))
        if start < first_ms and start < bucket(interval, pieces[0].start_ms):
            start = following(interval, start)
        at = bisect_left(pieces, start, key=lambda bar: bar.start_ms)
        close = pieces[at - 1].close if at else pieces[0].open
        found = []
        while start <= last_ms:
            end = following(interval, start)
            bar = Bar(start, close, close, close, close)
            while at < len(pieces) and pieces[at].start_ms < end:
                bar.add(pieces[at])
                at += 1
            close = bar.close
            if start >= first_ms:
                found.append(bar)
            start = end
        return found

    def window(self, now_ms: int, length_ms: int) -> Bar | None:
        """All trades of the last so many ms, to the minute, as one bar; None when there was none."""
        first = now_ms - length_ms - (now_ms - length_ms) % MINUTE
        at = bisect_left(self._minutes, first, key=lambda bar: bar.start_ms)
        if at == len(self._minutes):
            return None
        whole = replace(self._minutes[at])
        for bar in self._minutes[at + 1 :]:
            whole.add(bar)
        return whole

    def close_before(self, now_ms: int, length_ms: int) -> int | None:
        """The last price before the window, None when there was none."""
        first = now_ms - length_ms - (now_ms - length_ms) % MINUTE
        at = bisect_left(self._minutes, first, key=lambda bar: bar.start_ms)
        return self._minutes[at - 1].close if at else None

    @property
    def last(self) -> Bar | None:
        """The newest second with a trade."""
        return self._seconds[-1] if self._seconds else None
