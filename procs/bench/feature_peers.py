"""What `bench features` is measured against: EMA 5 and 13, RSI 14, ATR 14 and Bollinger 20 of every new bar, as Python does it.

Ours computes these five and a dozen more in `bar_signals`. Each peer gets one figure a bar (a flat bar: open, high, low and
close are one), and is asked for its latest values after every bar.

What this module is not: a comparison of their figures; tests/test_features_oracles.py does that for TA-Lib.
"""

from __future__ import annotations

import importlib
import importlib.util
import time
from collections.abc import Callable
from statistics import median
from typing import Any, Final

import numpy as np

from trading.jit import Floats

BARS: Final = 1000
HISTORY: Final = 200
"""Bars that a recomputation looks back on: ten times its longest window, so that averages have settled."""

TALIB_LEAST: Final = 30

Update = Callable[[int], object]


def _pandas(closes: Floats) -> Update:
    pd: Any = importlib.import_module("pandas")

    def update(i: int) -> object:
        close = pd.Series(closes[max(0, i - HISTORY) : i + 1])
        change = close.diff()
        gain, loss = change.clip(lower=0).ewm(alpha=1 / 14).mean(), (-change.clip(upper=0)).ewm(alpha=1 / 14).mean()
        middle, deviation = close.rolling(20).mean(), close.rolling(20).std(ddof=0)
        return (
            close.ewm(span=5, adjust=False).mean().iloc[-1], close.ewm(span=13, adjust=False).mean().iloc[-1],
            100 - 100 / (1 + gain.iloc[-1] / loss.iloc[-1]) if loss.iloc[-1] else 100.0,
            change.abs().ewm(alpha=1 / 14).mean().iloc[-1], middle.iloc[-1] + 2 * deviation.iloc[-1],
        )  # fmt: skip

    return update


def _polars(closes: Floats) -> Update:
    pl: Any = importlib.import_module("polars")
    close = pl.col("close")
    change = close.diff()
    wanted = [
        close.ewm_mean(span=5, adjust=False).last().alias("fast"), close.ewm_mean(span=13, adjust=False).last().alias("slow"),
        change.clip(lower_bound=0).ewm_mean(alpha=1 / 14).last().alias("gain"),
        (-change).clip(lower_bound=0).ewm_mean(alpha=1 / 14).last().alias("loss"),
        change.abs().ewm_mean(alpha=1 / 14).last().alias("atr"), close.tail(20).mean().alias("middle"),
        close.tail(20).std(ddof=0).alias("deviation"),
    ]  # fmt: skip

    def update(i: int) -> object:
        return pl.DataFrame({"close": closes[max(0, i - HISTORY) : i + 1]}).select(wanted).row(0)

    return update


def _talipp(closes: Floats) -> Update:
    indicators: Any = importlib.import_module("talipp.indicators")
    ohlcv: Any = importlib.import_module("talipp.ohlcv").OHLCV
    plain = (indicators.EMA(5), indicators.EMA(13), indicators.RSI(14), indicators.BB(20, 2.0))
    atr = indicators.ATR(14)

    def update(i: int) -> object:
        x = float(closes[i])
        for one in plain:
            one.add(x)
        atr.add(ohlcv(x, x, x, x))
        return [one[-1] for one in (*plain, atr)]

    return update


def _river(closes: Floats) -> Update:
    stats: Any = importlib.import_module("river.stats")
    rolling: Any = importlib.import_module("river.utils").Rolling
    fast, slow, gain, loss, atr = (stats.EWMean(fading_factor=a) for a in (2 / 6, 2 / 14, 1 / 14, 1 / 14, 1 / 14))
    middle, spread = rolling(stats.Mean(), window_size=20), rolling(stats.Var(ddof=0), window_size=20)

    def update(i: int) -> object:
        x, change = float(closes[i]), float(closes[i] - closes[max(0, i - 1)])
        for one, value in ((fast, x), (slow, x), (gain, max(change, 0.0)), (loss, max(-change, 0.0)), (atr, abs(change)),
                           (middle, x), (spread, x)):  # fmt: skip
            one.update(value)
        return [one.get() for one in (fast, slow, gain, loss, atr, middle, spread)]

    return update


def _talib(closes: Floats) -> Update:
    stream: Any = importlib.import_module("talib.stream")

    def update(i: int) -> object:
        x = closes[max(0, i - HISTORY) : i + 1]
        if len(x) < TALIB_LEAST:  # it raises on less history than its windows need
            return None
        return stream.EMA(x, 5), stream.EMA(x, 13), stream.RSI(x, 14), stream.ATR(x, x, x, 14), stream.BBANDS(x, 20)

    return update


PEERS: Final = (
    ("pandas", "pandas", f"recomputed over {HISTORY} bars", _pandas),
    ("polars", "polars", f"recomputed over {HISTORY} bars", _polars),
    ("talipp", "talipp", "incremental", _talipp),
    ("river", "river", "incremental", _river),
    ("TA-Lib", "talib", f"stream over {HISTORY} bars", _talib),
)
"""(name, module, how, what makes an update of one bar)."""


def measure(closes: Floats, rounds: int) -> tuple[list[dict[str, Any]], list[str]]:
    """(figures of each peer that is installed, names of those that are not); ns of thread time an update, median round."""
    closes = np.ascontiguousarray(closes[-(BARS + HISTORY) :], np.float64)
    found: list[dict[str, Any]] = []
    absent: list[str] = []
    for name, module, how, make in PEERS:
        if importlib.util.find_spec(module) is None:
            absent.append(name)
            continue
        spent = []
        for _ in range(max(1, min(rounds, 3))):
            update = make(closes)
            start = min(HISTORY, len(closes) // 2)
            for i in range(start):
                update(i)
            began = time.thread_time_ns()
            for i in range(start, len(closes)):
                update(i)
            spent.append((time.thread_time_ns() - began) / (len(closes) - start))
        found.append({"name": name, "what": how, "version": _version(module), "ns_an_update": round(median(spent), 1)})
    return found, absent


def _version(module: str) -> str:
    return str(getattr(importlib.import_module(module), "__version__", ""))
