"""What the last prints say: micro trend, volume-price divergence, recent flow, and whose print it was.

Sums over windows of prints are integers: what goes in comes out again exactly. Sums of prices are moved along with what
they are relative to, so that no difference of large numbers is taken. Products with lots do not fit an int64 where coins
are cheap (10**16 lots a print); they are kept in two lanes, `high * 2**LANE_BITS + low`, put together as a float in the end.
The on-balance volume itself may wrap: only differences within a window are used.

What this module is not: it knows no time; windows by time are kept by `trading.features.time_slots`.
"""

from __future__ import annotations

import math
from typing import Final

from trading.features import signals
from trading.features.bars import RING, Fields, Rec, keep_of
from trading.features.signals import MICRO_TREND_CHANGES, Signal
from trading.jit import Recs, lean
from trading.records import Flag
from trading.settings import Features

RECENT_HALF_LIFE_TRADES: Final = 20.0
"""Half-life of the aggressors' volume imbalance that the microstructure score reads, in prints."""

AGREEMENT_KEEP: Final = 0.5 ** (1.0 / 500.0)
"""Lee-Ready against the venue's flag: half-life 500 prints."""

LANE_BITS: Final = 28
LANE: Final = float(1 << LANE_BITS)

_LOW: Final = (1 << LANE_BITS) - 1
_AGGRESSOR_SELL: Final = int(Flag.AGGRESSOR_SELL)
_MASK: Final = RING - 1

FIELDS: Final[Fields] = (
    ("prints", "i8"),  # ever
    ("trades", "i8"),  # since the start or the last outage: the windows hold no others
    ("last_trade_ticks", "i8"),
    ("price_changes", "i8"),
    ("run", "i8"),  # signed count of price changes in a row that went the same way
    ("offset_sum", "i8", 2),  # sum (price - last) * lots over the window; lanes (last_prints)
    ("lots_sum", "i8", 2),
    ("recent_sum", "f8"),  # signed lots, decayed by print
    ("recent_lots", "f8"),
    ("recent", "f8"),  # their quotient
    ("trade_ticks", "i8", RING),  # a circle
    ("trade_lots", "i8", RING),
    ("trade_obv", "i8", RING),
    ("obv", "i8"),  # on-balance volume, lots
    ("price_slope", "i8"),  # sum (2 i - (n - 1)) * price over the divergence window of n
    ("price_gaps", "i8"),  # sum (price - last)
    ("obv_slope", "i8", 2),  # the same of the on-balance volume; lanes
    ("obv_gaps", "i8", 2),
    ("divergence_lots", "i8"),
    ("tick_sign", "i8"),  # of the last price change
    ("quoted", "i8"),  # prints whose quote was known
    ("agreement_sum", "f8"),  # Lee-Ready's sign is the venue's
    ("agreement_weight", "f8"),
)
"""What is kept per symbol."""

PARAMS: Final[Fields] = (
    ("keep_recent", "f8"),
    ("warm_recent", "i8"),
    ("micro_trend_trades", "i8"),
    ("micro_trend_scale_bps", "f8"),
    ("divergence_trades", "i8"),
)


def set_params(p: Recs, f: Features) -> None:
    """Put the settings into PARAMS' fields of one record."""
    p["keep_recent"], p["warm_recent"] = keep_of(RECENT_HALF_LIFE_TRADES), math.ceil(RECENT_HALF_LIFE_TRADES)
    p["micro_trend_trades"], p["micro_trend_scale_bps"] = f.micro_trend_trades, f.micro_trend_scale_bps
    p["divergence_trades"] = f.divergence_trades


@lean
def lee_ready(price_ticks: float, mid_ticks: float, tick_sign: int) -> int:
    """Sign of the aggressor: above the quote's mid a buyer, below it a seller, at it by the last price change (Lee, Ready 1991).

    `mid_ticks` is that before the print, 0 where it is not known: then the tick rule alone.
    """
    if mid_ticks > 0.0 and price_ticks != mid_ticks:
        return 1 if price_ticks > mid_ticks else -1
    return tick_sign


@lean
def lanes(low: int, high: int) -> float:
    """The number `high * 2**LANE_BITS + low`; its sign is right even where the number itself has to be rounded."""
    return float(high) * LANE + float(low)


@lean
def offset(s: Rec) -> float:
    """Volume-weighted price of the micro trend's window less the last price, ticks; the window is full."""
    return lanes(s.offset_sum[0], s.offset_sum[1]) / lanes(s.lots_sum[0], s.lots_sum[1])


@lean
def _take_offset(s: Rec, n: int, price: int, lots: int, change: int) -> None:
    """Slide the sums of lots, and of prices relative to the last one, which has changed by `change`."""
    old = (s.trades - n) & _MASK  # empty slots hold no lots
    gone, gap = s.trade_lots[old], s.trade_ticks[old] - price
    low, high = gone & _LOW, gone >> LANE_BITS
    s.offset_sum[0] -= change * s.lots_sum[0] + gap * low
    s.offset_sum[1] -= change * s.lots_sum[1] + gap * high
    s.lots_sum[0] += (lots & _LOW) - low
    s.lots_sum[1] += (lots >> LANE_BITS) - high


@lean
def _take_divergence(s: Rec, n: int, price: int, lots: int, price_change: int, obv_change: int) -> None:
    """Slide the slopes of the last n prices and on-balance volumes; the slope is `sum (2 i - (n - 1)) x_i`, i from the oldest.

    With g the sum of all relative to the newest and o the oldest that leaves, relative to the new one:
    `g' = g - n * change - o` and `slope' = slope + (n - 1) * o - 2 g'`. All before the first print counts as 0.
    """
    old, at = (s.trades - n) & _MASK, s.trades & _MASK
    o = s.trade_ticks[old] - price
    s.price_gaps -= n * price_change + o
    s.price_slope += (n - 1) * o - 2 * s.price_gaps
    o = s.trade_obv[old] - s.obv
    low = s.obv_gaps[0] - n * (obv_change & _LOW) - (o & _LOW)
    high = s.obv_gaps[1] - n * (obv_change >> LANE_BITS) - (o >> LANE_BITS) + (low >> LANE_BITS)
    low &= _LOW
    s.obv_gaps[0], s.obv_gaps[1] = low, high
    low = s.obv_slope[0] + (n - 1) * (o & _LOW) - 2 * low
    s.obv_slope[1] += (n - 1) * (o >> LANE_BITS) - 2 * high + (low >> LANE_BITS)
    s.obv_slope[0] = low & _LOW
    s.divergence_lots += lots - s.trade_lots[old]
    s.trade_ticks[at], s.trade_lots[at], s.trade_obv[at] = price, lots, s.obv


@lean
def _divergence(s: Rec, n: int) -> float:
    """Strength of volume_price_divergence; the window is full."""
    first = s.trade_obv[(s.trades - n) & _MASK]
    return signals.volume_price_divergence(
        s.price_slope, lanes(s.obv_slope[0], s.obv_slope[1]), s.obv - first, s.divergence_lots
    )


@lean
def take(s: Rec, p: Rec, rec: Rec) -> int:
    """Take a print; returns the aggressor's sign by the venue's flag."""
    price, lots = rec.price_ticks, rec.qty_lots
    sign = -1 if rec.flags & _AGGRESSOR_SELL else 1
    change = price - s.last_trade_ticks  # the first one's is the price itself: all before it counts as 0
    obv_change = 0
    if s.trades > 0:
        if change > 0:
            s.run = s.run + 1 if s.run > 0 else 1
            s.price_changes += 1
            s.tick_sign = 1
            obv_change = lots
        elif change < 0:
            s.run = s.run - 1 if s.run < 0 else -1
            s.price_changes += 1
            s.tick_sign = -1
            obv_change = -lots
    s.obv += obv_change
    s.last_trade_ticks = price
    guess = lee_ready(float(price), s.mid, s.tick_sign)
    if s.mid > 0.0 and guess != 0:
        s.agreement_sum = s.agreement_sum * AGREEMENT_KEEP + (1.0 - AGREEMENT_KEEP) * (1.0 if guess == sign else 0.0)
        s.agreement_weight = s.agreement_weight * AGREEMENT_KEEP + (1.0 - AGREEMENT_KEEP)
        s.quoted += 1
    n = p.micro_trend_trades
    _take_offset(s, n, price, lots, change)
    _take_divergence(s, p.divergence_trades, price, lots, change, obv_change)
    s.prints += 1
    s.trades += 1
    s.recent_sum = s.recent_sum * p.keep_recent + sign * float(lots)
    s.recent_lots = s.recent_lots * p.keep_recent + lots
    s.recent = s.recent_sum / s.recent_lots
    if s.trades >= n and s.price_changes >= MICRO_TREND_CHANGES:
        signals.say(s, Signal.MICRO_TREND, signals.micro_trend(price, offset(s), s.run, p.micro_trend_scale_bps))
    if s.trades >= p.divergence_trades:
        signals.say(s, Signal.VOLUME_PRICE_DIVERGENCE, _divergence(s, p.divergence_trades))
    return sign


@lean
def restart(s: Rec) -> None:
    """An outage is over: the prints before it are not those before the next one. What Lee-Ready has proved stays."""
    for k in range(RING):
        s.trade_ticks[k] = s.trade_lots[k] = s.trade_obv[k] = 0
    for k in range(2):
        s.offset_sum[k] = s.lots_sum[k] = s.obv_slope[k] = s.obv_gaps[k] = 0
    s.trades = s.last_trade_ticks = s.price_changes = s.run = s.tick_sign = 0
    s.obv = s.price_slope = s.price_gaps = s.divergence_lots = 0
    s.recent_sum = s.recent_lots = s.recent = 0.0
    signals.hush(s, Signal.MICRO_TREND)
    signals.hush(s, Signal.VOLUME_PRICE_DIVERGENCE)
