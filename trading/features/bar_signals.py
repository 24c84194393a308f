"""What is done when a bar closes: EMA cross, ATR, band squeeze, RSI and its divergence, patterns, GARCH, bars of other sizes.

Nothing here runs between two closes, so a record that closes no bar pays nothing. Flat bars of a silence are put
into the windows one by one, as many as a window remembers; averages take the rest as a power.

Averages and windows of closes go on across a bar that an unusable book dropped, but not across an outage
(trading.scoring.outages); what needs the bar before it (returns, true ranges, RSI, patterns) waits for the next.

What this module is not: `trading.features.bars` makes the bars; here they are read.
"""

from __future__ import annotations

import math
from typing import Final

from trading.features import bars, patterns, signals
from trading.features.bars import RING, Fields, Rec
from trading.features.signals import Signal
from trading.jit import Floats, Recs, lean
from trading.settings import TIMEFRAMES, Features

MOST_FLAT: Final = 2 * RING
"""Flat bars after which every window holds nothing else: the longest band, and 64 widths of it."""

TF_SPAN: Final = 5
TF_KEEP: Final = 1.0 - 2.0 / (TF_SPAN + 1)
TF_LEAST: Final = 2
"""Bar sizes that must be warm before multi_timeframe says anything."""

TF_STILL_TICKS: Final = 1e-6
"""A close this near its average is on it."""

WIDTHS_WARM: Final = 20
"""Band widths that must be known before one of them is called narrow."""

WIDTH_EQUAL: Final = 1e-12
"""Widths nearer than this share of themselves differ by rounding alone."""

_MASK: Final = RING - 1

FIELDS: Final[Fields] = (
    ("closed_bars", "i8"),
    ("fast_offset", "f8"),  # EMA of the closes less the last close, ticks
    ("slow_offset", "f8"),
    ("last_close", "f8"),
    ("true_ranges", "i8"),
    ("atr", "f8"),  # ticks
    ("window_bars", "i8"),  # bars in the rings below, counted without end
    ("bar_lows", "f8", RING),
    ("bar_highs", "f8", RING),
    ("bar_closes", "f8", RING),
    ("bar_widths", "f8", RING),  # band width over its middle
    ("bar_rsis", "f8", RING),
    ("rsi_changes", "i8"),
    ("rsi_gain", "f8"),
    ("rsi_loss", "f8"),
    ("rsi", "f8"),
    ("band_width", "f8"),
    ("band_z", "f8"),  # close less the middle, deviations
    ("width_rank", "f8"),
    ("squeeze_left", "i8"),  # bars for which the latest squeeze still counts
    ("open_1", "f8"),  # the bars before the one that closed last
    ("open_2", "f8"),
    ("pattern_run", "i8"),  # bars closed without an interruption
    ("pattern_bits", "i8"),
    ("garch", "f8"),  # variance a bar
    ("tf_index", "i8", TIMEFRAMES),
    ("tf_bars", "i8", TIMEFRAMES),
    ("tf_close", "f8", TIMEFRAMES),
    ("tf_average", "f8", TIMEFRAMES),
    ("tf_trend", "i8", TIMEFRAMES),  # sign of the average's last move
)
"""What is kept per symbol."""

PARAMS: Final[Fields] = (
    ("ema_fast", "i8"),
    ("ema_slow", "i8"),
    ("keep_fast", "f8"),  # 1 - alpha of each average
    ("keep_slow", "f8"),
    ("atr_bars", "i8"),
    ("keep_atr", "f8"),
    ("squeeze_bars", "i8"),
    ("squeeze_sigma", "f8"),
    ("squeeze_quantile", "f8"),
    ("squeeze_memory_bars", "i8"),
    ("rsi_bars", "i8"),
    ("keep_rsi", "f8"),
    ("rsi_lookback", "i8"),
    ("pattern_bars", "i8"),
    ("tf_ns", "i8", TIMEFRAMES),
    ("tf_weight", "f8", TIMEFRAMES),
    ("garch_omega", "f8"),
    ("garch_alpha", "f8"),
    ("garch_beta", "f8"),
)


def set_params(p: Recs, f: Features) -> None:
    """Put the settings into PARAMS' fields of one record."""
    p["ema_fast"], p["ema_slow"], p["atr_bars"] = f.ema_fast, f.ema_slow, f.atr_bars
    p["keep_fast"], p["keep_slow"] = 1.0 - 2.0 / (f.ema_fast + 1), 1.0 - 2.0 / (f.ema_slow + 1)
    p["keep_atr"] = 1.0 - 1.0 / f.atr_bars
    p["squeeze_bars"], p["squeeze_sigma"], p["squeeze_quantile"] = f.squeeze_bars, f.squeeze_sigma, f.squeeze_quantile
    p["squeeze_memory_bars"], p["pattern_bars"] = f.squeeze_memory_bars, f.pattern_bars
    p["rsi_bars"], p["keep_rsi"], p["rsi_lookback"] = f.rsi_bars, 1.0 - 1.0 / f.rsi_bars, f.rsi_lookback
    p["tf_ns"] = [size * 1_000_000_000 for size in f.timeframes_s]
    p["tf_weight"] = f.timeframe_weights
    p["garch_omega"], p["garch_alpha"], p["garch_beta"] = f.garch_omega, f.garch_alpha, f.garch_beta


@lean
def _narrower(ring: Floats, bar: int, widths: int, width: float) -> int:
    """Twice how many of the `widths` values up to bar's are narrower; one that is equal counts once."""
    slack = WIDTH_EQUAL * width
    below = 0
    if widths == RING:  # the common case, in the ring's own order
        for k in range(RING):
            gap = ring[k] - width
            below += 1 if abs(gap) <= slack else (2 if gap < 0.0 else 0)
        return below
    for k in range(widths):
        gap = ring[(bar - k) & _MASK] - width
        below += 1 if abs(gap) <= slack else (2 if gap < 0.0 else 0)
    return below


@lean
def _bands(s: Rec, p: Rec) -> None:
    """Bollinger bands over the last closes, the current one among them, relative to it; then the squeeze."""
    n, bar = p.squeeze_bars, s.window_bars
    if bar + 1 < n:
        return
    close = s.bar_closes[bar & _MASK]
    total = 0.0
    for k in range(n):
        total += s.bar_closes[(bar - k) & _MASK] - close
    mean = total / n
    squares = 0.0
    for k in range(n):
        gap = s.bar_closes[(bar - k) & _MASK] - close - mean
        squares += gap * gap
    deviation = math.sqrt(squares / n)
    s.band_z = -mean / deviation if deviation > 0.0 else 0.0
    s.band_width = 2.0 * p.squeeze_sigma * deviation / (close + mean)
    s.bar_widths[bar & _MASK] = s.band_width
    widths = min(bar + 2 - n, RING)
    below = _narrower(s.bar_widths, bar, widths, s.band_width)
    s.width_rank = 0.5 * below / widths
    if widths < WIDTHS_WARM:
        return
    signals.say(s, Signal.BOOK_SQUEEZE, signals.book_squeeze(s.band_z, p.squeeze_sigma) if s.squeeze_left > 0 else 0.0)
    s.squeeze_left = p.squeeze_memory_bars if s.width_rank <= p.squeeze_quantile else max(0, s.squeeze_left - 1)


@lean
def _rsi(s: Rec, p: Rec, change: float) -> None:
    """Wilder's RSI (1978): averages of gains and losses, alpha 1/n, seeded with the mean of the first n."""
    s.rsi_gain = bars.smooth(s.rsi_gain, s.rsi_changes, p.rsi_bars, p.keep_rsi, max(0.0, change), 1)
    s.rsi_loss = bars.smooth(s.rsi_loss, s.rsi_changes, p.rsi_bars, p.keep_rsi, max(0.0, -change), 1)
    s.rsi_changes += 1
    both = s.rsi_gain + s.rsi_loss
    s.rsi = 100.0 * s.rsi_gain / both if both > 0.0 else 50.0


@lean
def _divergence(s: Rec, p: Rec) -> None:
    """A close beyond all of the look-back whose RSI is not beyond those of the look-back."""
    if s.rsi_changes < p.rsi_bars + p.rsi_lookback:
        return
    bar = s.window_bars
    highest = lowest = s.bar_closes[(bar - 1) & _MASK]
    most = least = s.bar_rsis[(bar - 1) & _MASK]
    for k in range(2, p.rsi_lookback + 1):
        close, rsi = s.bar_closes[(bar - k) & _MASK], s.bar_rsis[(bar - k) & _MASK]
        highest, lowest = max(highest, close), min(lowest, close)
        most, least = max(most, rsi), min(least, rsi)
    close = s.bar_closes[bar & _MASK]
    points = 0.0
    if close > highest and s.rsi < most:
        points = s.rsi - most
    elif close < lowest and s.rsi > least:
        points = s.rsi - least
    signals.say(s, Signal.RSI_DIVERGENCE, signals.rsi_divergence(points))


@lean
def _find_patterns(s: Rec, p: Rec, open_: float, high: float, low: float, close: float) -> None:
    bar, n = s.window_bars, p.pattern_bars
    bits = patterns.of_bar(open_, high, low, close)
    close_1 = s.bar_closes[(bar - 1) & _MASK]
    if s.pattern_run >= 2:
        bits |= patterns.of_two(
            s.open_1, s.bar_highs[(bar - 1) & _MASK], s.bar_lows[(bar - 1) & _MASK], close_1, open_, high, low, close
        )
    if s.pattern_run >= 3:
        bits |= patterns.of_three(s.open_2, s.bar_closes[(bar - 2) & _MASK], s.open_1, close_1, open_, close)
    if bar >= n:
        highest, lowest = s.bar_highs[(bar - 1) & _MASK], s.bar_lows[(bar - 1) & _MASK]
        for k in range(2, n + 1):
            highest = max(highest, s.bar_highs[(bar - k) & _MASK])
            lowest = min(lowest, s.bar_lows[(bar - k) & _MASK])
        bits |= patterns.breakout(close, highest, lowest)
        signals.say(s, Signal.PATTERNS, patterns.strength(bits))
    s.pattern_bits = bits
    s.open_2, s.open_1 = s.open_1, open_


@lean
def _push(s: Rec, p: Rec, open_: float, high: float, low: float, close: float, previous: float) -> None:
    """Put one closed bar into the windows; `previous` is the close before it, 0 where it has no predecessor."""
    at = s.window_bars & _MASK
    s.pattern_run = s.pattern_run + 1 if previous > 0.0 else 1
    if previous > 0.0:
        _rsi(s, p, close - previous)
    s.bar_highs[at], s.bar_lows[at], s.bar_closes[at], s.bar_rsis[at] = high, low, close, s.rsi
    _bands(s, p)
    _divergence(s, p)
    _find_patterns(s, p, open_, high, low, close)
    s.window_bars += 1


@lean
def _flat(s: Rec, p: Rec, count: int) -> None:
    """`count` bars in which nothing happened."""
    close = s.closed_close
    for _ in range(min(count, MOST_FLAT)):
        _push(s, p, close, close, close, close, close)
    rest = count - MOST_FLAT
    if rest > 0:
        s.rsi_gain = bars.smooth(s.rsi_gain, s.rsi_changes, p.rsi_bars, p.keep_rsi, 0.0, rest)
        s.rsi_loss = bars.smooth(s.rsi_loss, s.rsi_changes, p.rsi_bars, p.keep_rsi, 0.0, rest)
        s.rsi_changes += rest
        s.window_bars += rest
        if s.rsi_changes >= p.rsi_bars + p.rsi_lookback:
            s.ready |= 1 << Signal.RSI_DIVERGENCE


@lean
def on_close(s: Rec, p: Rec, closed: int) -> None:
    """`closed` bars have closed: the one in the closed_* fields, then flat ones.

    The EMAs are kept relative to the last close: their gap is small beside a price, and would drown in its rounding.
    """
    close = s.closed_close
    down = s.last_close - close if s.closed_bars > 0 else 0.0
    s.fast_offset = bars.smooth(s.fast_offset + down, s.closed_bars, p.ema_fast, p.keep_fast, 0.0, closed)
    s.slow_offset = bars.smooth(s.slow_offset + down, s.closed_bars, p.ema_slow, p.keep_slow, 0.0, closed)
    s.last_close = close
    s.closed_bars += closed
    if s.previous_close > 0.0:
        true_range = max(s.closed_high, s.previous_close) - min(s.closed_low, s.previous_close)
        s.atr = bars.smooth(s.atr, s.true_ranges, p.atr_bars, p.keep_atr, true_range, 1)
        s.true_ranges += 1
        s.garch = s.garch_omega + s.garch_alpha * s.bar_return * s.bar_return + s.garch_beta * s.garch
    if closed > 1:
        s.atr = bars.smooth(s.atr, s.true_ranges, p.atr_bars, p.keep_atr, 0.0, closed - 1)
        s.true_ranges += closed - 1
        rest = s.garch_omega / (1.0 - s.garch_beta)
        s.garch = rest + (s.garch - rest) * s.garch_beta ** (closed - 1)
    _push(s, p, s.closed_open, s.closed_high, s.closed_low, close, s.previous_close)
    if closed > 1:
        _flat(s, p, closed - 1)
    if s.closed_bars >= p.ema_slow and s.true_ranges >= p.atr_bars:
        signals.say(s, Signal.EMA_CROSS, signals.ema_cross(s.fast_offset - s.slow_offset, s.atr))


@lean
def close_timeframes(s: Rec, p: Rec, ts_ns: int) -> None:
    """At the end of a second: close the bars of every size that are over, at the last mid; none while there is no mid.

    The trend of a size is the sign of its close against its EMA, which is the way that the EMA moves.
    """
    moved = False
    for k in range(TIMEFRAMES):
        index = ts_ns // p.tf_ns[k]
        closed = index - s.tf_index[k]
        s.tf_index[k] = index
        if closed <= 0 or s.mid == 0.0:
            continue
        moved = True
        down = s.tf_close[k] - s.mid if s.tf_bars[k] > 0 else 0.0
        s.tf_average[k] = bars.smooth(s.tf_average[k] + down, s.tf_bars[k], TF_SPAN, TF_KEEP, 0.0, closed)
        s.tf_close[k] = s.mid
        s.tf_bars[k] += closed
        s.tf_trend[k] = 0
        if s.tf_bars[k] >= TF_SPAN and abs(s.tf_average[k]) > TF_STILL_TICKS:
            s.tf_trend[k] = 1 if s.tf_average[k] < 0.0 else -1
    if not moved:
        return
    total = vote = 0.0
    warm = 0
    for k in range(TIMEFRAMES):
        if s.tf_bars[k] >= TF_SPAN:
            warm += 1
            total += p.tf_weight[k]
            vote += p.tf_weight[k] * s.tf_trend[k]
    if warm >= TF_LEAST and total > 0.0:
        signals.say(s, Signal.MULTI_TIMEFRAME, vote / total)


@lean
def restart(s: Rec, p: Rec, gap_ns: int) -> None:
    """An outage is over: bars are counted anew, and so are those sizes of which a whole bar was missed. The true range stays."""
    s.closed_bars = s.window_bars = s.rsi_changes = s.squeeze_left = s.pattern_run = s.pattern_bits = 0
    s.fast_offset = s.slow_offset = s.rsi_gain = s.rsi_loss = s.rsi = 0.0
    for k in range(TIMEFRAMES):
        if gap_ns >= p.tf_ns[k]:
            s.tf_bars[k] = s.tf_trend[k] = 0
            s.tf_average[k] = 0.0
    signals.hush(s, Signal.EMA_CROSS)
    signals.hush(s, Signal.BOOK_SQUEEZE)
    signals.hush(s, Signal.RSI_DIVERGENCE)
    signals.hush(s, Signal.PATTERNS)
    signals.hush(s, Signal.MULTI_TIMEFRAME)
