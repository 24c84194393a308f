"""What the closed candles of each size say: trend, RSI, ATR, volatility, patterns, by the kernels that the features use for bars.

A candle that may lack trades is no bar, as a bar that an unusable book interrupts is none; a bucket without trades is a flat one.
It begins when the gateway does, so a size is warm after some 20 candles of it.

The decision is the pipeline's, made at every market record; it is the same for every size.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np

from trading.candles import CandleFlag, Candles
from trading.features import bars
from trading.features.bar_signals import on_close
from trading.features.layout import FEATURE_STATE
from trading.jit import Recs, Words, kernel
from trading.scoring.params import make_params
from trading.settings import Strategy

_INCOMPLETE: Final = int(CandleFlag.INCOMPLETE)


@kernel
def _take(s: Any, p: Any, candle: Any) -> None:
    """One closed candle, after the ones before it."""
    size = candle.size_ns
    index = candle.open_time_ns // size
    if candle.flags & _INCOMPLETE:
        bars.interrupt(s)
        return
    if s.bar_index >= 0 and index > s.bar_index:  # no trade, no candle: flat at the last close
        flat = bars.roll(s, candle.open_time_ns, s.bar_close, size, p.decay, p.warm_returns)
        if flat > 0:
            on_close(s, p, flat)
    s.bar_index, s.bar_end_ns = index, candle.open_time_ns + size
    s.bar_open, s.bar_high = float(candle.open_ticks), float(candle.high_ticks)
    s.bar_low, s.bar_close = float(candle.low_ticks), float(candle.close_ticks)
    closed = bars.roll(s, s.bar_end_ns, s.bar_close, size, p.decay, p.warm_returns)
    on_close(s, p, closed)


@kernel
def take_closed(candles: Candles, states: Recs, params: Recs, taken: Words, last_ns: Words) -> int:
    """Take every candle that has closed since the last call, of all symbols and sizes; says how many.

    Candles that fell out of the circle meanwhile leave a hole, as an interruption does; one that came late is left out.
    """
    ring = len(candles.closed) // len(candles.opened)
    found = 0
    for i in range(len(states)):
        upto = candles.series[i].closed
        first = taken[i]
        if upto - first > ring:
            first = upto - ring
            bars.interrupt(states[i])
        for n in range(first, upto):
            candle = candles.closed[i * ring + n % ring]
            if candle.open_time_ns > last_ns[i]:
                last_ns[i] = candle.open_time_ns
                _take(states[i], params[0], candle)
                found += 1
        taken[i] = upto
    return found


class TimeframeFigures(NamedTuple):
    """One size's figures, in ticks; None while one has not seen enough. `trend`: sign of the fast EMA less the slow one."""

    candles: int
    trend: int | None
    ema_fast: float | None
    ema_slow: float | None
    rsi: float | None
    atr: float | None
    volatility: float | None
    patterns: int

    @property
    def warm(self) -> bool:
        """Whether all of them have seen enough."""
        return None not in (self.trend, self.rsi, self.atr, self.volatility)


class Timeframes:
    """The bars of every symbol and size over `candles`, whose order they have."""

    def __init__(self, candles: Candles, strategy: Strategy, instruments: Recs) -> None:
        self._candles, self._f = candles, strategy.features
        self._params = make_params(strategy, instruments)
        self._states: Recs = np.zeros(len(candles.opened), FEATURE_STATE)
        self._states["bar_index"] = -1
        self._taken = np.zeros(len(self._states), np.int64)
        self._last_ns = np.full(len(self._states), -1, np.int64)

    def look(self) -> int:
        """Take what has closed; how many candles that was."""
        return int(take_closed(self._candles, self._states, self._params, self._taken, self._last_ns))

    def figures(self, symbol: int, size: int) -> TimeframeFigures:
        """Those of a symbol's size, both by index."""
        s, f = self._states[symbol * len(self._candles.sizes) + size], self._f
        bars_seen, close = int(s["closed_bars"]), float(s["last_close"])
        fast = close + float(s["fast_offset"]) if bars_seen >= f.ema_fast else None
        slow = close + float(s["slow_offset"]) if bars_seen >= f.ema_slow else None
        return TimeframeFigures(
            candles=bars_seen,
            trend=None if fast is None or slow is None else int(np.sign(float(s["fast_offset"]) - float(s["slow_offset"]))),
            ema_fast=fast,
            ema_slow=slow,
            rsi=float(s["rsi"]) if s["rsi_changes"] >= f.rsi_bars else None,
            atr=float(s["atr"]) if s["true_ranges"] >= f.atr_bars else None,
            volatility=float(s["volatility"]) if s["returns"] >= int(self._params[0]["warm_returns"]) else None,
            patterns=int(s["pattern_bits"]),
        )
