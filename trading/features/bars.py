"""Bars of the mid price, and the volatility that comes of them: what the features and the quoter both keep.

Time is cut into bars of `bar_ns`; a bar closes when the first record of a later bar arrives, so nothing is known
before it happened. A bar without records is a flat bar at the close before it: its return and range are zero, and
any number of them is folded in one step (a power instead of a loop), so the cost per record does not depend on how
quiet the market was.

A bar that an unusable book interrupts is dropped: what the mid did meanwhile was not observed. The next bar has no
predecessor, hence no return and no true range.

What this module is not: it holds no averages of events and no signal; `trading.scoring.one_pass` does.
"""

from __future__ import annotations

import math
from typing import Any, Final

from trading.jit import Recs, lean
from trading.records import Flag, Kind
from trading.settings import Features

Rec = Any
"""One record of an array: numba gives its fields, mypy cannot see them."""

Fields = tuple[tuple[Any, ...], ...]
"""Fields of a record as numpy takes them: (name, type) or (name, type, count)."""

RING: Final = 64
"""Slots of every window by print or bar; settings.Features bounds their lengths by it."""

BOOK_MAX_AGE_NS: Final = 5_000_000_000
"""A book whose last change is older than this is not fresh (the feed marks a broken one STALE long before)."""

SECONDS_PER_MINUTE: Final = 60.0

BAR_FIELDS: Final[Fields] = (
    ("bar_index", "i8"),  # ts_ns // bar_ns of the open bar; -1: none is open
    ("bar_end_ns", "i8"),  # where the open bar ends
    ("bar_open", "f8"),  # of the open bar, ticks
    ("bar_high", "f8"),
    ("bar_low", "f8"),
    ("bar_close", "f8"),  # the latest mid
    ("closed_open", "f8"),  # of the bar that closed last
    ("closed_high", "f8"),
    ("closed_low", "f8"),
    ("closed_close", "f8"),
    ("previous_close", "f8"),  # of the bar before that one; 0: it has no predecessor
    ("bar_return", "f8"),  # log return of the bar that closed last, 0 where it has no predecessor
    ("variance_sum", "f8"),  # sum (1 - l) l**age * r**2 ...
    ("variance_weight", "f8"),  # ... over sum (1 - l) l**age: a weighted mean without a seed
    ("returns", "i8"),  # bar returns seen
    ("volatility", "f8"),  # deviation of mid returns a second, as a fraction; 0 until warm
    ("book_ts_ns", "i8"),  # when the book last changed; 0: never, or not since it was unusable
)
"""Fields that a component puts into its per-symbol state so that the kernels below can keep them."""

PARAMS: Final[Fields] = (
    ("bar_ns", "i8"),
    ("decay", "f8"),  # RiskMetrics lambda per bar
    ("warm_returns", "i8"),
)

_BOOK_VALID: Final = int(Flag.BOOK_VALID)


def warm_returns(decay: float) -> int:
    """Returns after which a RiskMetrics variance with this lambda is used: 1/(1 - lambda), its mean age."""
    return math.ceil(1.0 / (1.0 - decay) - 1e-9)


def keep_of(half_life: float) -> float:
    """What one step leaves of a weight that halves in so many."""
    return float(0.5 ** (1.0 / half_life))


def set_params(p: Recs, f: Features) -> None:
    """Put the settings into PARAMS' fields of one record."""
    p["bar_ns"], p["decay"] = f.bar_ms * 1_000_000, f.volatility_lambda
    p["warm_returns"] = warm_returns(f.volatility_lambda)


@lean
def start(s: Rec) -> None:
    """Put the bar fields of one zeroed state record into their start state."""
    s.bar_index = -1


@lean
def usable(rec: Rec) -> bool:
    """Whether a market record carries a book to decide on: valid, two-sided and not crossed."""
    return bool(
        (rec.flags & _BOOK_VALID) != 0
        and rec.kind != Kind.STALE
        and rec.kind != Kind.END
        and rec.bid_ticks[0] > 0
        and rec.bid_lots[0] > 0
        and rec.ask_lots[0] > 0
        and rec.ask_ticks[0] > rec.bid_ticks[0]
    )


@lean
def note_book(s: Rec, rec: Rec) -> bool:
    """Note when the book changed; says whether it is fresh at this record (see BOOK_MAX_AGE_NS).

    A print or a mark price does not change the book; after an interruption the first record with a usable book counts as
    a change.
    """
    if (rec.kind != Kind.TRADE and rec.kind != Kind.MARK) or s.book_ts_ns == 0:
        s.book_ts_ns = rec.ts_ns
    return bool(rec.ts_ns - s.book_ts_ns <= BOOK_MAX_AGE_NS)


@lean
def interrupt(s: Rec) -> None:
    """The book is not usable: drop the open bar."""
    s.bar_index = -1
    s.closed_close = 0.0
    s.book_ts_ns = 0


@lean
def _close(s: Rec, bars: int, bar_ns: int, decay: float, warm: int) -> None:
    """Close the open bar and `bars - 1` flat ones after it; RiskMetrics (1996) variance of the log returns."""
    s.previous_close = s.closed_close
    s.closed_open, s.closed_high, s.closed_low, s.closed_close = s.bar_open, s.bar_high, s.bar_low, s.bar_close
    s.bar_return = 0.0
    if s.previous_close > 0.0:
        change = math.log(s.closed_close / s.previous_close)
        s.bar_return = change
        s.variance_sum = decay * s.variance_sum + (1.0 - decay) * change * change
        s.variance_weight = decay * s.variance_weight + (1.0 - decay)
        s.returns += 1
    if bars > 1:
        kept = decay ** (bars - 1)
        s.variance_sum *= kept
        s.variance_weight = 1.0 - (1.0 - s.variance_weight) * kept
        s.returns += bars - 1
    if s.returns >= warm:
        s.volatility = math.sqrt(s.variance_sum / s.variance_weight * (1e9 / bar_ns))


@lean
def roll(s: Rec, ts_ns: int, mid: float, bar_ns: int, decay: float, warm: int) -> int:
    """Take one mid (ticks) at `ts_ns`. Returns how many bars that closed: 0, or 1 plus the flat ones.

    After a result above 0 the `closed_*` fields hold the bar that closed (the flat ones repeat its close).
    `decay` is lambda per bar, `warm` from `warm_returns`.
    """
    if s.bar_index >= 0 and ts_ns < s.bar_end_ns:
        s.bar_high = max(s.bar_high, mid)
        s.bar_low = min(s.bar_low, mid)
        s.bar_close = mid
        return 0
    index = ts_ns // bar_ns
    bars = 0
    if s.bar_index >= 0:
        bars = index - s.bar_index
        _close(s, bars, bar_ns, decay, warm)
    s.bar_index, s.bar_end_ns = index, (index + 1) * bar_ns
    s.bar_open = s.bar_high = s.bar_low = s.bar_close = mid
    return bars


@lean
def smooth(value: float, count: int, span: int, keep: float, x: float, times: int) -> float:
    """Feed `x` `times` times into an exponential average that is seeded with the mean of its first `span` values.

    `count` values went in before; `keep` is 1 - alpha. O(1) in `times`. The seed is the one of Wilder (1978).
    """
    if count < span:
        seeding = min(times, span - count)
        value = (value * count + x * seeding) / (count + seeding)
        times -= seeding
    if times == 1:
        value = x + (value - x) * keep
    elif times > 1:
        value = x + (value - x) * keep**times
    return value


@lean
def minute_pct(volatility: float) -> float:
    """A deviation a second (fraction) as percent a minute, by the square root of time."""
    return 100.0 * volatility * math.sqrt(SECONDS_PER_MINUTE)
