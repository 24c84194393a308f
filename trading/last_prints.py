"""What the last prints say: micro trend, volume-price divergence, recent flow, and whose print it was.

Sums over windows of prints are integers: exact, and a wrap undoes itself when the print leaves. Sums of prices are
moved along with what they are relative to, so that no difference of large numbers is taken.

What this module is not: it knows no time; windows by time are kept by `trading.slots`.
"""

from __future__ import annotations

from typing import Final

from trading import signals
from trading.bars import Rec
from trading.feature_layout import RING
from trading.jit import kernel
from trading.records import Flag
from trading.signals import MICRO_TREND_CHANGES, Signal

RECENT_HALF_LIFE_TRADES: Final = 20.0
"""Half-life of the aggressors' volume imbalance that the microstructure score reads, in prints."""

AGREEMENT_KEEP: Final = 0.5 ** (1.0 / 500.0)
"""Lee-Ready against the venue's flag: half-life 500 prints."""

_AGGRESSOR_SELL: Final = int(Flag.AGGRESSOR_SELL)
_MICRO_TREND: Final = int(Signal.MICRO_TREND)
_DIVERGENCE: Final = int(Signal.VOLUME_PRICE_DIVERGENCE)
_MASK: Final = RING - 1


@kernel
def lee_ready(price_ticks: float, mid_ticks: float, tick_sign: int) -> int:
    """Sign of the aggressor: above the quote's mid a buyer, below it a seller, at it by the last price change (Lee, Ready 1991).

    `mid_ticks` is that before the print, 0 where it is not known: then the tick rule alone.
    """
    if mid_ticks > 0.0 and price_ticks != mid_ticks:
        return 1 if price_ticks > mid_ticks else -1
    return tick_sign


@kernel
def _take_divergence(s: Rec, n: int, price: int, lots: int) -> None:
    """Slide the sums of the last n prices and on-balance volumes; sum i * x drops by sum x when all move down one place."""
    at, count = s.trades & _MASK, min(s.trades, n)
    if count < n:
        s.price_moment += count * price
        s.obv_moment += count * s.obv
    else:
        old = (s.trades - n) & _MASK
        first_price, first_obv = s.trade_ticks[old], s.trade_obv[old]
        s.price_moment += (n - 1) * price - (s.price_total - first_price)
        s.obv_moment += (n - 1) * s.obv - (s.obv_total - first_obv)
        s.price_total -= first_price
        s.obv_total -= first_obv
        s.divergence_lots -= s.trade_lots[old]
    s.price_total += price
    s.obv_total += s.obv
    s.divergence_lots += lots
    s.trade_ticks[at], s.trade_lots[at], s.trade_obv[at] = price, lots, s.obv


@kernel
def _divergence(s: Rec, n: int) -> float:
    """Strength of volume_price_divergence; the window is full."""
    price_slope = 2 * s.price_moment - (n - 1) * s.price_total
    obv_slope = 2 * s.obv_moment - (n - 1) * s.obv_total
    first = s.trade_obv[(s.trades - n) & _MASK]
    return signals.volume_price_divergence(price_slope, obv_slope, s.obv - first, s.divergence_lots)


@kernel
def take(s: Rec, p: Rec, rec: Rec) -> int:
    """Take a print; returns the aggressor's sign by the venue's flag."""
    price, lots = rec.price_ticks, rec.qty_lots
    sign = -1 if rec.flags & _AGGRESSOR_SELL else 1
    if s.trades > 0:
        change = price - s.last_trade_ticks
        s.offset_sum -= change * s.lots_sum
        if change > 0:
            s.run = s.run + 1 if s.run > 0 else 1
            s.price_changes += 1
            s.tick_sign = 1
            s.obv += lots
        elif change < 0:
            s.run = s.run - 1 if s.run < 0 else -1
            s.price_changes += 1
            s.tick_sign = -1
            s.obv -= lots
    s.last_trade_ticks = price
    guess = lee_ready(float(price), s.mid, s.tick_sign)
    if s.mid > 0.0 and guess != 0:
        s.agreement_sum = s.agreement_sum * AGREEMENT_KEEP + (1.0 - AGREEMENT_KEEP) * (1.0 if guess == sign else 0.0)
        s.agreement_weight = s.agreement_weight * AGREEMENT_KEEP + (1.0 - AGREEMENT_KEEP)
        s.quoted += 1
    n = p.micro_trend_trades
    if s.trades >= n:
        old = (s.trades - n) & _MASK
        s.offset_sum -= (s.trade_ticks[old] - price) * s.trade_lots[old]
        s.lots_sum -= s.trade_lots[old]
    s.lots_sum += lots
    _take_divergence(s, p.divergence_trades, price, lots)
    s.trades += 1
    s.recent_sum = s.recent_sum * p.keep_recent + sign * float(lots)
    s.recent_lots = s.recent_lots * p.keep_recent + lots
    s.recent = s.recent_sum / s.recent_lots
    if s.trades >= n and s.price_changes >= MICRO_TREND_CHANGES:
        s.ready |= 1 << _MICRO_TREND
        s.strength[_MICRO_TREND] = signals.micro_trend(price, s.offset_sum, s.lots_sum, s.run, p.micro_trend_scale_bps)
    if s.trades >= p.divergence_trades:
        s.ready |= 1 << _DIVERGENCE
        s.strength[_DIVERGENCE] = _divergence(s, p.divergence_trades)
    return sign
