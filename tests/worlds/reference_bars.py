"""Independent batch computation of what bars of mid say, for one symbol: every bar listed, flat ones too, then plain loops."""

from __future__ import annotations

from typing import Any

import numpy as np
from reference_events import Array, Events, held, weighted_means

from trading.settings import Features


def ema_of(x: Array, span: int, alpha: float) -> Array:
    """Exponential average seeded with the mean of the first `span` values; NaN before."""
    out = np.full(len(x), np.nan)
    if len(x) >= span:
        out[span - 1] = np.mean(x[:span])
        for i in range(span, len(x)):
            out[i] = out[i - 1] + alpha * (x[i] - out[i - 1])
    return out


class Bars:
    """Per-record arrays of everything that changes when a bar closes."""

    def __init__(self, e: Events) -> None:
        self.e, self.f = e, e.f
        self._cut()
        self._averages()
        self._windows()

    def _cut(self) -> None:
        e, bar_ns = self.e, self.f.bar_ms * 1_000_000
        self.bars: list[tuple[float, float, float, float, float]] = []  # open, high, low, close, close before (0: none)
        self.known = np.zeros(e.n, int)
        eras: list[int] = []
        for number in range(1, e.stretch.max(initial=0) + 1):
            rows = np.flatnonzero((e.stretch == number) & e.usable)
            index = e.ts[rows] // bar_ns
            old, before = len(self.bars), 0.0
            for bar in range(index[0], index[-1]):  # the last bar of a stretch never closes
                own = e.mid[rows[np.searchsorted(index, bar, "left") : np.searchsorted(index, bar, "right")]]
                if len(own):
                    self.bars.append((own[0], own.max(), own.min(), own[-1], before))
                else:
                    self.bars.append((before, before, before, before, before))
                before = self.bars[-1][3]
            self.known[rows] = old + index - index[0]
            eras += [int(e.era[rows[0]])] * (len(self.bars) - old)
        self.known = np.maximum.accumulate(self.known)
        self.table, self.eras = np.array(self.bars).reshape(-1, 5), np.array(eras, int)
        self.eras_of = [np.flatnonzero(self.eras == era) for era in np.unique(self.eras)]
        self.window_bars = self.known - np.searchsorted(self.eras, e.era)  # of this era

    def _told(self, values: Array, before: float = 0.0) -> Array:
        """Values of bars as each record knows them; those before an outage are forgotten."""
        of = np.append(-1, self.eras)[self.known]
        return np.where(of == self.e.era, held(values, self.known, before), before)

    def _averages(self) -> None:
        f, t = self.f, self.table
        close = t[:, 3] - (t[0, 3] if len(t) else 0.0)
        fast, slow = np.full((2, len(t)), np.nan)
        for own in self.eras_of:
            fast[own] = ema_of(close[own], f.ema_fast, 2 / (f.ema_fast + 1))
            slow[own] = ema_of(close[own], f.ema_slow, 2 / (f.ema_slow + 1))
        self.fast, self.slow = self._told(fast, np.nan), self._told(slow, np.nan)
        follows = t[:, 4] > 0
        true_range = np.maximum(t[:, 1], t[:, 4]) - np.minimum(t[:, 2], t[:, 4])
        self.followers = held(np.cumsum(follows), self.known).astype(int)
        self.atr = held(ema_of(true_range[follows], f.atr_bars, 1 / f.atr_bars), self.followers, np.nan)
        returns = np.log(t[follows, 3] / t[follows, 4])
        half_life = np.log(0.5) / np.log(f.volatility_lambda)
        per_second = np.sqrt(weighted_means(returns**2, half_life) / (f.bar_ms / 1000))
        warm = int(np.ceil(round(1 / (1 - f.volatility_lambda), 6)))
        per_second[: warm - 1] = 0.0
        self.volatility, self.volatility_warm = held(per_second, self.followers), self.followers >= warm
        variance = f.garch_omega / (1 - f.garch_alpha - f.garch_beta)
        path = [variance]
        for r in returns:
            variance = f.garch_omega + f.garch_alpha * r * r + f.garch_beta * variance
            path.append(variance)
        self.garch = np.array(path)[self.followers]
        self.ema_ready = ~np.isnan(self.slow) & ~np.isnan(self.atr)
        with np.errstate(invalid="ignore", divide="ignore"):
            self.ema_gap = np.where(self.ema_ready & (self.atr >= 0.01), (self.fast - self.slow) / self.atr, 0.0)
        self.ema_cross = np.clip(self.ema_gap, -1, 1)

    def _windows(self) -> None:
        n = len(self.table)
        names = ("rsi", "rsi_count", "z", "width", "rank", "squeeze", "squeeze_ready", "points", "rsi_ready", "bits", "patterns")
        whole: dict[str, Any] = {name: np.zeros(n) for name in names}
        for own in self.eras_of:
            column: dict[str, Any] = {name: np.zeros(len(own)) for name in names}
            for compute in (_rsi, _bands, _patterns):
                compute(self.f, self.table[own], column)
            for name in names:
                whole[name][own] = column[name]
        for name in names:
            setattr(self, "bar_" + name, self._told(whole[name]))
        self.rsi_strength = np.where(np.abs(self.bar_points) >= 0.01, np.clip(self.bar_points / 20, -1, 1), 0.0)


def _rsi(f: Features, t: Array, out: dict[str, Array]) -> None:
    follows = t[:, 4] > 0
    moves = (t[:, 3] - t[:, 4])[follows]
    gain, loss = (ema_of(np.maximum(0, x), f.rsi_bars, 1 / f.rsi_bars) for x in (moves, -moves))
    with np.errstate(invalid="ignore", divide="ignore"):
        rsi = np.where(gain + loss > 0, 100 - 100 / (1 + gain / loss), 50.0)
    count = np.cumsum(follows)
    out["rsi"], out["rsi_count"] = held(rsi, count, 50.0), count
    look = f.rsi_lookback
    for i in range(len(t)):
        if count[i] < f.rsi_bars + look:
            continue
        out["rsi_ready"][i] = 1
        past, said, now = t[i - look : i, 3], out["rsi"][i - look : i], out["rsi"][i]
        if t[i, 3] > past.max() and now < said.max():
            out["points"][i] = now - said.max()
        elif t[i, 3] < past.min() and now > said.min():
            out["points"][i] = now - said.min()


def _bands(f: Features, t: Array, out: dict[str, Array]) -> None:
    n, left = f.squeeze_bars, 0
    for i in range(n - 1, len(t)):
        closes = t[i - n + 1 : i + 1, 3] - t[i, 3]
        middle, deviation = closes.mean(), closes.std()
        out["z"][i] = -middle / deviation if deviation > 0 else 0.0
        out["width"][i] = 2 * f.squeeze_sigma * deviation / (t[i, 3] + middle)
        widths = out["width"][max(n - 1, i - 63) : i + 1]
        near = np.isclose(widths, out["width"][i], rtol=1e-12, atol=0)  # equal ones, whatever the rounding
        out["rank"][i] = ((widths < out["width"][i]) & ~near).mean() + 0.5 * near.mean()
        if len(widths) < 20:
            continue
        out["squeeze_ready"][i] = 1
        if left > 0 and abs(out["z"][i]) > f.squeeze_sigma:
            out["squeeze"][i] = np.clip(out["z"][i] / (2 * f.squeeze_sigma), -1, 1)
        left = f.squeeze_memory_bars if out["rank"][i] <= f.squeeze_quantile else max(0, left - 1)


def _patterns(f: Features, t: Array, out: dict[str, Array]) -> None:
    run = 0
    for i, (o, h, low, c, before) in enumerate(t):
        run = run + 1 if before > 0 else 1
        up = down = 0.0
        bits = 0
        if h > low and abs(c - o) <= (h - low) / 3:
            if min(o, c) - low >= (h - low) * 2 / 3:
                bits, up = bits | 4, up + 0.5
            if h - max(o, c) >= (h - low) * 2 / 3:
                bits, down = bits | 8, down + 0.5
        if run >= 2:
            o1, h1, l1, c1, _ = t[i - 1]
            if c1 < o1 <= c and c != o1 and o <= c1:
                bits, up = bits | 1, up + 0.5
            if c1 > o1 >= c and c != o1 and o >= c1:
                bits, down = bits | 2, down + 0.5
            if h <= h1 and low >= l1 and (h, low) != (h1, l1):
                bits |= 16
        if run >= 3:
            three = t[i - 2 : i + 1]
            if (three[:, 3] > three[:, 0]).all() and (np.diff(three[:, 3]) > 0).all():
                bits, up = bits | 32, up + 0.5
            if (three[:, 3] < three[:, 0]).all() and (np.diff(three[:, 3]) < 0).all():
                bits, down = bits | 64, down + 0.5
        if i >= f.pattern_bars:
            past = t[i - f.pattern_bars : i]
            if c > past[:, 1].max():
                bits, up = bits | 128, up + 0.75
            elif c < past[:, 2].min():
                bits, down = bits | 256, down + 0.75
            out["patterns"][i] = np.clip(up - down, -1, 1)
        out["bits"][i] = bits
