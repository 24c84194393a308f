"""The signals: one table of index, key and sentence, and the pure formula of each.

A formula takes averages that `trading.features` keeps and gives a strength in [-1, 1]. There are two kinds:
a *directional* signal's sign is the side that it asks for; a *confirming* signal has no side of its own: above
zero it supports whatever side the others ask for, below zero it speaks against taking any (see trading.ensemble).

A new signal is a member of `Signal`, a row of `SIGNALS`, a formula here and a line in `features._evaluate`; its
weight is the key of `settings.Weights` with the same name. Indices are written into recordings: append, never renumber.

What this module is not: it keeps no state and combines nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from trading.jit import Recs, kernel
from trading.records import MAX_SIGNALS
from trading.settings import Features


class Signal(IntEnum):
    """Index of each signal: its bit in `ready_mask` and `active_mask`, its place in `strength`."""

    BOOK_IMBALANCE = 0
    MICRO_TREND = 1
    EMA_CROSS = 2
    SPREAD = 3


MICRO_TREND_CHANGES: Final = 3
"""Trade price changes that must all point one way (FORMULAS: ticks 3)."""

MIN_ATR_TICKS: Final = 0.01
"""An average true range below a hundredth of a tick is a market that stands still."""


@dataclass(frozen=True, slots=True)
class SignalSpec:
    """One row of the table. `sentence(strength, features)` is what a human reads of a signal that contributes."""

    signal: Signal
    key: str
    directional: bool
    sentence: Callable[[float, Features], str]


def _imbalance_sentence(strength: float, features: Features) -> str:
    bound = features.imbalance_threshold if strength > 0 else -features.imbalance_threshold
    word = "over" if strength > 0 else "under"
    return f"{features.imbalance_levels}-level imbalance {strength:+.2f} {word} {bound:.2f}"


def _micro_trend_sentence(strength: float, features: Features) -> str:
    way = "rises" if strength > 0 else "falls"
    gap = f"{'at least ' if abs(strength) >= 1 else ''}{abs(strength) * features.micro_trend_scale_bps:.2f} bps"
    return f"last trade {gap} from the {features.micro_trend_trades}-trade vwap, {MICRO_TREND_CHANGES} {way} in a row"


def _ema_cross_sentence(strength: float, features: Features) -> str:
    word = "over" if strength > 0 else "under"
    gap = f"{'at least ' if abs(strength) >= 1 else ''}{abs(strength):.2f} ATR"
    return f"EMA {features.ema_fast} {gap} {word} EMA {features.ema_slow} on {features.bar_ms} ms bars"


def _spread_sentence(strength: float, features: Features) -> str:
    if strength > 0:
        return f"spread {features.spread_compression * (1 - strength):.2f}x its average, compressed: confirms"
    gap = f"{'at least ' if strength <= -1 else ''}{features.spread_expansion * (1 - strength):.2f}x"
    return f"spread {gap} its average, expanded: vetoes"


SIGNALS: Final = (
    SignalSpec(Signal.BOOK_IMBALANCE, "book_imbalance", True, _imbalance_sentence),
    SignalSpec(Signal.MICRO_TREND, "micro_trend", True, _micro_trend_sentence),
    SignalSpec(Signal.EMA_CROSS, "ema_cross", True, _ema_cross_sentence),
    SignalSpec(Signal.SPREAD, "spread", False, _spread_sentence),
)

N_SIGNALS: Final = len(SIGNALS)
assert N_SIGNALS <= MAX_SIGNALS
assert [spec.signal for spec in SIGNALS] == list(range(N_SIGNALS)), "the table is in the order of the indices"


def reason(signal: Signal, strength: float, features: Features) -> str:
    """One line for humans on what a strength means: "5-level imbalance +0.41 over 0.30"."""
    if strength == 0:
        return f"{SIGNALS[signal].key} is silent"
    return SIGNALS[signal].sentence(strength, features)


def reasons(record: Recs, features: Features) -> list[str]:
    """The sentences of the signals that contribute to one SIGNAL_RECORD, in the table's order."""
    mask = int(record["active_mask"])
    return [reason(s.signal, float(record["strength"][s.signal]), features) for s in SIGNALS if mask >> s.signal & 1]


@kernel
def clip(x: float) -> float:
    """x bounded to [-1, 1]."""
    return min(1.0, max(-1.0, x))


@kernel
def book_imbalance(average: float, threshold: float) -> float:
    """The averaged `(bids - asks)/(bids + asks)` where it is beyond the threshold, else 0 (silent)."""
    return average if abs(average) >= threshold and average != 0.0 else 0.0


@kernel
def micro_trend(last_ticks: int, offset_sum: int, lots_sum: int, run: int, scale_bps: float) -> float:
    """Volume-weighted tick momentum `(last - vwap_n)/vwap_n`, in units of `scale_bps`, if the tick pattern agrees.

    `offset_sum` is sum((price - last) * lots) over the n trades, `lots_sum` their lots, `run` the signed count of
    trade price changes in a row that went the same way (unchanged prices are no changes).
    """
    if lots_sum <= 0:
        return 0.0
    offset = offset_sum / lots_sum  # vwap - last
    momentum_bps = -1e4 * offset / (last_ticks + offset)
    if (momentum_bps > 0.0 and run >= MICRO_TREND_CHANGES) or (momentum_bps < 0.0 and run <= -MICRO_TREND_CHANGES):
        return clip(momentum_bps / scale_bps)
    return 0.0


@kernel
def ema_cross(gap_ticks: float, atr_ticks: float) -> float:
    """Gap of the fast over the slow EMA in units of ATR; 0 where the ATR is below MIN_ATR_TICKS.

    Both fade in a market that stands still, the ATR faster if its window is the shorter: their ratio then says nothing.
    """
    return clip(gap_ticks / atr_ticks) if atr_ticks >= MIN_ATR_TICKS else 0.0


@kernel
def spread(spread_bps: float, average_bps: float, compression: float, expansion: float) -> float:
    """How far the spread's ratio to its average is below `compression` (> 0) or above `expansion` (< 0).

    0 between the two; 1 at ratio 0; -1 at twice the expansion bound and beyond.
    """
    if average_bps <= 0.0:
        return 0.0
    ratio = spread_bps / average_bps
    if ratio < compression:
        return (compression - ratio) / compression
    if ratio > expansion:
        return -min(1.0, (ratio - expansion) / expansion)
    return 0.0
