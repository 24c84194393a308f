"""The signals: one table of index, key and sentence, and the pure formula of each.

A formula takes what the kernels keep and gives a strength in [-1, 1]. There are three kinds. A *standing* signal's
sign is the side that it asks for, and it counts also when silent: its silence pulls to neutral. An *occasional* signal asks
for a side now and then, and abstains otherwise. A *confirming* signal has no side of its own: above zero it supports whatever
side the others ask for, below zero it speaks against taking any (see trading.scoring.ensemble).

A new signal is a member of `Signal`, a row of `SIGNALS`, a formula here and a line where its inputs change (`say`); what it
keeps and is told stands in that module's FIELDS and PARAMS. Its weight is the key of `settings.Weights` with the same name.
Indices are written into recordings: append, never renumber. A strength can be turned back into the figure that made it: the
sentences print it.

What this module is not: it keeps no state and combines nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from trading.features.bars import Rec
from trading.features.patterns import names as pattern_names
from trading.jit import Recs, lean
from trading.records import MAX_SIGNALS
from trading.settings import Features


class Signal(IntEnum):
    """Index of each signal: its bit in `ready_mask` and `active_mask`, its place in `strength`."""

    BOOK_IMBALANCE = 0
    MICRO_TREND = 1
    EMA_CROSS = 2
    SPREAD = 3
    ACCELERATION = 4
    VOLUME_SPIKE = 5
    ORDER_FLOW = 6
    BOOK_SQUEEZE = 7
    RSI_DIVERGENCE = 8
    MOMENTUM_DECAY = 9
    VOLUME_PRICE_DIVERGENCE = 10
    PATTERNS = 11
    MULTI_TIMEFRAME = 12
    MODEL = 13


class Voice(IntEnum):
    """How a signal takes part in the ensemble."""

    STANDING = 0
    OCCASIONAL = 1
    CONFIRMING = 2


MICRO_TREND_CHANGES: Final = 3
"""Trade price changes that must all point one way (FORMULAS: ticks 3)."""

MIN_ATR_TICKS: Final = 0.01
"""An average true range below a hundredth of a tick is a market that stands still."""

ACCELERATION_FULL: Final = 3.0
"""Deviations of acceleration that are strength 1."""

RSI_LEAST_POINTS: Final = 0.01
"""An RSI this near its extreme is at it."""

RSI_FULL_POINTS: Final = 20.0
"""RSI points by which it lags behind the price's new extreme that are strength 1."""

MOMENTUM_LEAST_PHI: Final = 0.05
"""Below this the returns carry nothing on."""

MOMENTUM_LEAST: Final = 0.01
"""A weaker strength is what a silence leaves of old momentum: nothing."""

MOMENTUM_FULL: Final = 2.0
"""Deviations of momentum, times phi, that are strength 1."""


@dataclass(frozen=True, slots=True)
class SignalSpec:
    """One row of the table. `sentence(strength, features)` is what a human reads of a signal that contributes."""

    signal: int  # its index: a Signal, or one of the user's after those
    key: str
    voice: Voice
    sentence: Callable[[float, Features], str]

    @property
    def directional(self) -> bool:
        """Whether its sign is a side."""
        return self.voice != Voice.CONFIRMING


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


def _at_least(strength: float) -> str:
    return "at least " if abs(strength) >= 1 else ""


def _acceleration_sentence(strength: float, features: Features) -> str:
    way = "up" if strength > 0 else "down"
    return f"mid accelerates {way} by {_at_least(strength)}{ACCELERATION_FULL * abs(strength):.2f} deviations"


def _volume_sentence(strength: float, features: Features) -> str:
    who = "buyers" if strength > 0 else "sellers"
    ratio = 2.0 * features.volume_multiple * abs(strength)
    return f"volume of {features.volume_window_ms} ms {_at_least(strength)}{ratio:.2f}x its average, {who} aggress"


def _order_flow_sentence(strength: float, features: Features) -> str:
    way = "buying" if strength > 0 else "selling"
    return f"{features.flow_window_s} s of order flow and aggressors {strength:+.2f}: {way}"


def _squeeze_sentence(strength: float, features: Features) -> str:
    word = "over" if strength > 0 else "under"
    gap = f"{_at_least(strength)}{2.0 * features.squeeze_sigma * abs(strength):.2f} deviations"
    return f"close {gap} {word} the mean of {features.squeeze_bars} bars, after a squeeze"


def _rsi_sentence(strength: float, features: Features) -> str:
    word, edge, other = ("high", "under", "highest") if strength < 0 else ("low", "over", "lowest")
    points = f"{_at_least(strength)}{RSI_FULL_POINTS * abs(strength):.1f} points"
    return f"new {word} of {features.rsi_lookback} bars with RSI {points} {edge} its {other}"


def _momentum_sentence(strength: float, features: Features) -> str:
    way = "up" if strength > 0 else "down"
    return f"momentum that carries on {_at_least(strength)}{MOMENTUM_FULL * abs(strength):.2f} deviations {way}"


def _divergence_sentence(strength: float, features: Features) -> str:
    way, other = ("up", "falls") if strength > 0 else ("down", "rises")
    return f"{100 * abs(strength):.0f}% of {features.divergence_trades} trades' volume went {way} while the price {other}"


def _patterns_sentence(strength: float, features: Features) -> str:
    return f"patterns on {features.bar_ms} ms bars {strength:+.2f}"


def _timeframes_sentence(strength: float, features: Features) -> str:
    sizes = " ".join(f"{size}s" for size in features.timeframes_s)
    return f"trends of {sizes} bars agree {strength:+.2f}"


def _model_sentence(strength: float, features: Features) -> str:
    way = "up" if strength > 0 else "down"
    return f"models expect the next move beyond costs {way}, confidence {abs(strength):.2f}"


_STANDING, _OCCASIONAL, _CONFIRMING = Voice.STANDING, Voice.OCCASIONAL, Voice.CONFIRMING

SIGNALS: Final = (
    SignalSpec(Signal.BOOK_IMBALANCE, "book_imbalance", _STANDING, _imbalance_sentence),
    SignalSpec(Signal.MICRO_TREND, "micro_trend", _STANDING, _micro_trend_sentence),
    SignalSpec(Signal.EMA_CROSS, "ema_cross", _STANDING, _ema_cross_sentence),
    SignalSpec(Signal.SPREAD, "spread", _CONFIRMING, _spread_sentence),
    SignalSpec(Signal.ACCELERATION, "acceleration", _OCCASIONAL, _acceleration_sentence),
    SignalSpec(Signal.VOLUME_SPIKE, "volume_spike", _OCCASIONAL, _volume_sentence),
    SignalSpec(Signal.ORDER_FLOW, "order_flow", _STANDING, _order_flow_sentence),
    SignalSpec(Signal.BOOK_SQUEEZE, "book_squeeze", _OCCASIONAL, _squeeze_sentence),
    SignalSpec(Signal.RSI_DIVERGENCE, "rsi_divergence", _OCCASIONAL, _rsi_sentence),
    SignalSpec(Signal.MOMENTUM_DECAY, "momentum_decay", _OCCASIONAL, _momentum_sentence),
    SignalSpec(Signal.VOLUME_PRICE_DIVERGENCE, "volume_price_divergence", _OCCASIONAL, _divergence_sentence),
    SignalSpec(Signal.PATTERNS, "patterns", _OCCASIONAL, _patterns_sentence),
    SignalSpec(Signal.MULTI_TIMEFRAME, "multi_timeframe", _OCCASIONAL, _timeframes_sentence),
    SignalSpec(Signal.MODEL, "model", _OCCASIONAL, _model_sentence),
)

N_SIGNALS: Final = len(SIGNALS)
assert N_SIGNALS <= MAX_SIGNALS
assert [spec.signal for spec in SIGNALS] == list(range(N_SIGNALS)), "the table is in the order of the indices"


def reason(signal: Signal, strength: float, features: Features, patterns: int = 0) -> str:
    """One line for humans on what a strength means: "5-level imbalance +0.41 over 0.30".

    `patterns`: the record's bit set, so that they are named.
    """
    return sentence_of(SIGNALS[signal], strength, features, patterns)


def sentence_of(spec: SignalSpec, strength: float, features: Features, patterns: int = 0) -> str:
    """`reason` for a row of any table of signals."""
    if strength == 0:
        return f"{spec.key} is silent"
    sentence = spec.sentence(strength, features)
    if spec.signal == Signal.PATTERNS and patterns:
        sentence += ": " + ", ".join(pattern_names(patterns))
    return sentence


def reasons(record: Recs, features: Features, table: Sequence[SignalSpec] = SIGNALS) -> list[str]:
    """The sentences of the signals that contribute to one SIGNAL_RECORD, in the table's order.

    `table`: trading.user_signals.signal_table where a strategy has signals of the user's.
    """
    mask, patterns = int(record["active_mask"]), int(record["patterns"])
    active = [spec for spec in table if mask >> spec.signal & 1]
    return [sentence_of(spec, float(record["strength"][spec.signal]), features, patterns) for spec in active]


@lean
def say(s: Rec, signal: int, strength: float) -> None:
    """The signal is warm, and this is its strength from here on."""
    bit = 1 << signal
    s.ready |= bit
    s.voiced = s.voiced & ~bit | (bit if strength != 0.0 else 0)
    s.strength[signal] = strength


@lean
def hush(s: Rec, signal: int) -> None:
    """The signal is not warm any more."""
    s.ready &= ~(1 << signal)
    s.voiced &= ~(1 << signal)
    s.strength[signal] = 0.0


@lean
def clip(x: float) -> float:
    """x bounded to [-1, 1]."""
    return min(1.0, max(-1.0, x))


@lean
def book_imbalance(average: float, threshold: float) -> float:
    """The averaged `(bids - asks)/(bids + asks)` where it is beyond the threshold, else 0 (silent)."""
    return average if abs(average) >= threshold and average != 0.0 else 0.0


@lean
def micro_trend(last_ticks: int, offset: float, run: int, scale_bps: float) -> float:
    """Volume-weighted tick momentum `(last - vwap_n)/vwap_n`, in units of `scale_bps`, if the tick pattern agrees.

    `offset` is vwap_n - last in ticks, `run` the signed count of trade price changes in a row that went the same way
    (unchanged prices are no changes).
    """
    momentum_bps = -1e4 * offset / (last_ticks + offset)
    if (momentum_bps > 0.0 and run >= MICRO_TREND_CHANGES) or (momentum_bps < 0.0 and run <= -MICRO_TREND_CHANGES):
        return clip(momentum_bps / scale_bps)
    return 0.0


@lean
def ema_cross(gap_ticks: float, atr_ticks: float) -> float:
    """Gap of the fast over the slow EMA in units of ATR; 0 where the ATR is below MIN_ATR_TICKS.

    Both fade in a market that stands still, the ATR faster if its window is the shorter: their ratio then says nothing.
    """
    return clip(gap_ticks / atr_ticks) if atr_ticks >= MIN_ATR_TICKS else 0.0


@lean
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


@lean
def acceleration(deviations: float, threshold: float) -> float:
    """Acceleration in its own deviations, silent below the threshold; 1 at ACCELERATION_FULL."""
    return clip(deviations / ACCELERATION_FULL) if abs(deviations) >= threshold else 0.0


@lean
def volume_spike(ratio: float, signed_lots: float, multiple: float) -> float:
    """Volume over its average from `multiple` on (strength 1/2; 1 at twice that), signed by the aggressors' imbalance."""
    if ratio < multiple or signed_lots == 0.0:
        return 0.0
    size = min(1.0, 0.5 * ratio / multiple)
    return size if signed_lots > 0.0 else -size


@lean
def order_flow(ofi: float, aggressors: float) -> float:
    """Mean of OFI over the average depth (at most 1) and the aggressors' volume imbalance."""
    return 0.5 * (clip(ofi) + aggressors)


@lean
def book_squeeze(z: float, sigma: float) -> float:
    """A close outside the bands (strength 1/2 at the band, 1 twice as far); the caller knows of the squeeze before it."""
    return clip(0.5 * z / sigma) if abs(z) > sigma else 0.0


@lean
def rsi_divergence(points: float) -> float:
    """RSI less its own extreme where the price made a new one: below 0 at a high, above 0 at a low."""
    return clip(points / RSI_FULL_POINTS) if abs(points) >= RSI_LEAST_POINTS else 0.0


@lean
def momentum_decay(phi: float, z: float) -> float:
    """Momentum in deviations times what of it carries on to the next slot (phi of the exponential fit; below 0 it turns)."""
    strength = clip(phi * z / MOMENTUM_FULL)
    return strength if abs(phi) >= MOMENTUM_LEAST_PHI and abs(strength) >= MOMENTUM_LEAST else 0.0


@lean
def volume_price_divergence(price_slope: int, obv_slope: float, obv_change: int, lots: int) -> float:
    """Where the slopes' signs differ: the volume's side, by how much of the window's volume went one way."""
    if (price_slope > 0 and obv_slope < 0.0) or (price_slope < 0 and obv_slope > 0.0):
        size = min(1.0, abs(obv_change) / lots)
        return size if obv_slope > 0.0 else -size
    return 0.0
