"""A, k and the volatility of recorded markets, with their errors, and how far the exponential is from what was measured.

The same sweeps and the same likelihood as in the quoter (trading.quoting.intensity), without ageing. Besides:

- volatility: the root of the mean squared log return of bars, its error `sigma/2 sqrt((kurtosis - 1)/bars)`;
- misfit: chi-square per degree of freedom of the sweeps' depths against the geometric law, over the depths of which the law
  expects five or more; 1 is a perfect fit.

A side whose prints do not go beyond the first price that counts has no k; its table of measured rates says what there is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from trading.features import bars
from trading.jit import Floats, Recs, Words, kernel, lean
from trading.quoting import intensity

DEPTHS: Final = 64
"""Depths that are told apart, ticks; the last holds all beyond it."""
LEAST_SWEEPS: Final = 200.0
"""Of a side, for a fit."""
BPS: Final = 1e-4

CALIBRATION: Final = np.dtype(
    [
        *bars.BAR_FIELDS,
        *intensity.FIELDS,
        ("best_bid_ticks", "i8"),
        ("best_ask_ticks", "i8"),
        ("by_depth", "i8", (2, DEPTHS)),  # sweeps of each side by depth
        ("bars", "i8"),
        ("squares", "f8"),  # of the bars' log returns
        ("fourths", "f8"),
        ("mid_sum", "f8"),  # of usable books
        ("books", "i8"),
    ],
    align=True,
)
"""What is gathered of one symbol."""


@dataclass(frozen=True, slots=True)
class Side:
    """Of the bid or the ask; `why` says why there is no fit, then A and k are 0. k a basis point, A a second."""

    sweeps: int
    beyond: int
    a: float
    a_error: float
    k: float
    k_error: float
    misfit: float
    rates: tuple[tuple[float, float], ...]
    """(distance from the mid in bps, how often a second sweeps reached it)."""
    why: str = ""


@dataclass(frozen=True, slots=True)
class Calibration:
    """Of one symbol. `volatility_bps`: the mid's deviation in one second."""

    seconds: float
    mid_ticks: float
    from_bps: float
    """The least distance that counts, its mean."""
    volatility_bps: float
    volatility_error: float
    bid: Side
    ask: Side

    @property
    def is_fit(self) -> bool:
        """Whether both sides are."""
        return not (self.bid.why or self.ask.why)


def begin(symbols: int) -> Recs:
    """CALIBRATION (symbols,) of nothing seen."""
    state = np.zeros(symbols, CALIBRATION)
    for s in range(symbols):
        bars.start(state[s])
        intensity.start(state[s])
    return state


@lean
def _count(s: bars.Rec, side: int, depth: int) -> None:
    if depth >= 0:
        s.by_depth[side, min(depth, DEPTHS - 1)] += 1


@kernel
def gather(recs: Recs, state: Recs, bar_ns: int, beyond_bps: float) -> None:
    """Take MARKET_RECORDs of any of the symbols, in their order, into CALIBRATION (symbols,)."""
    for i in range(len(recs)):
        rec = recs[i]
        if rec.symbol < 0 or rec.symbol >= len(state):
            continue
        s = state[rec.symbol]
        if not bars.usable(rec):
            bars.interrupt(s)
            intensity.interrupt(s)
            s.best_bid_ticks = s.best_ask_ticks = 0
            continue
        side = s.sweep_side
        beyond = beyond_bps * 0.5e-4 * (s.best_bid_ticks + s.best_ask_ticks)
        _count(s, side, intensity.on_record(s, rec, s.best_bid_ticks, s.best_ask_ticks, beyond, 0.0))
        mid = 0.5 * (rec.bid_ticks[0] + rec.ask_ticks[0])
        closed = bars.roll(s, rec.ts_ns, mid, bar_ns, 0.5, 1)
        if closed > 0 and s.previous_close > 0.0:
            s.bars += closed
            s.squares += s.bar_return * s.bar_return
            s.fourths += s.bar_return**4
        s.best_bid_ticks, s.best_ask_ticks = rec.bid_ticks[0], rec.ask_ticks[0]
        s.mid_sum += mid
        s.books += 1


@kernel
def _finish(state: Recs, figures: Floats) -> None:
    """Close the open sweeps; figures (symbols, 2, 4): k, its error, A, its error, where a side is fit."""
    for n in range(len(state)):
        s = state[n]
        side = s.sweep_side
        _count(s, side, intensity.close_sweep(s, 0.0))
        for side in range(2):
            if intensity.is_fit(s, side, LEAST_SWEEPS):
                figures[n, side, 0], figures[n, side, 1] = intensity.k_of(s, side), intensity.k_error(s, side)
                figures[n, side, 2], figures[n, side, 3] = intensity.a_of(s, side), intensity.a_error(s, side)


def finish(state: Recs, bar_ns: int) -> list[Calibration | None]:
    """What was found of each symbol of CALIBRATION (symbols,), which is not to be used after this; None: no usable book."""
    figures = np.zeros((len(state), 2, 4))
    _finish(state, figures)
    return [_found(one, figures[n], bar_ns) if one["books"] and one["seen_s"] + one["new_s"] > 0.0 else None
            for n, one in enumerate(state)]  # fmt: skip


def _found(s: Recs, figures: Floats, bar_ns: int) -> Calibration:
    mid = float(s["mid_sum"] / s["books"])
    bps = mid * BPS
    seconds = float(s["seen_s"] + s["new_s"])
    h = float(s["seen_h"] + s["new_h"]) / seconds
    sigma = error = 0.0
    if s["bars"] and s["squares"] > 0.0:
        n = int(s["bars"])
        sigma = math.sqrt(s["squares"] / n * 1e9 / bar_ns) / BPS
        error = 0.5 * sigma * math.sqrt(max(n * s["fourths"] / s["squares"] ** 2 - 1.0, 0.0) / n)
    sides = [_side(s["by_depth"][k], figures[k], int(s["beyond"][k]), seconds, h, bps) for k in range(2)]
    return Calibration(seconds, mid, h / bps, sigma, error, *sides)


def _side(depths: Words, fit: Floats, beyond: int, seconds: float, h: float, bps: float) -> Side:
    sweeps = int(depths.sum())
    reached = depths[::-1].cumsum()[::-1]
    rates = tuple((float((h + m) / bps), float(reached[m] / seconds)) for m in range(DEPTHS) if reached[m])
    k, k_error, a, a_error = (float(x) for x in fit)
    why = ""
    if sweeps < LEAST_SWEEPS:
        why = f"{sweeps} sweeps, {LEAST_SWEEPS:.0f} are needed: give a longer recording"
    elif beyond < intensity.BEYOND:
        why = f"only {beyond} of {sweeps:,} sweeps went beyond the first price: no exponential, the rates are all there is"
    return Side(sweeps, beyond, a, a_error, k * bps, k_error * bps, 0.0 if why else misfit(depths, k), rates, why)


def misfit(depths: Words, k: float) -> float:
    """Chi-square per degree of freedom of counts by depth against the geometric law of k a tick; nan: too few for one."""
    n, p = int(depths.sum()), math.exp(-k)
    expected = n * (1.0 - p) * p ** np.arange(len(depths))
    enough = int(np.count_nonzero(expected >= 5.0))
    if enough < 2:
        return math.nan
    rest, expected_rest = int(depths[enough:].sum()), n * p**enough
    chi = float(np.sum((depths[:enough] - expected[:enough]) ** 2 / expected[:enough]))
    chi += (rest - expected_rest) ** 2 / max(expected_rest, 1.0)
    return chi / max(enough - 1, 1)
