"""From strengths to one decision: score, confidence, urgency, and the gates that hold a side back.

Score: the weighted average of the strengths of all ready signals, mapped to 0..100 (50 neutral). A directional
signal that is ready but silent votes 0 and so pulls towards neutral. A confirming signal (spread) votes for the side that the
directional ones ask for, with weight times its strength; it abstains (no weight) at 0, and can weaken a side to
neutral but never turn it.

Confidence (ours): agreement x support. Agreement is `(votes for - votes against)/(votes for + votes against)`,
support the share of the ready weight that votes for. Both never fall when any vote moves towards the side.

Urgency (ours): 60% how far the score is from neutral, 20% confidence, 20% volatility `v/(v + 0.1% a minute)`:
in a market that moves, waiting in a queue costs more. It never falls when any of the three rises.

What this module is not: it reads no market and keeps no state.
"""

from __future__ import annotations

import math
from enum import IntEnum
from typing import Final

from trading.jit import Floats, kernel
from trading.records import Side
from trading.signals import SIGNALS


class Gate(IntEnum):
    """What held a side back, the first in FORMULAS' order. One exception: on a record whose book is not usable
    (STALE, invalid, one-sided) nothing can be evaluated, warmth included, and the gate is BOOK."""

    NONE = 0
    WARM = 1
    BOOK = 2
    SPREAD = 3
    VOLATILITY = 4
    MICROSTRUCTURE = 5
    SPREAD_VETO = 6
    CONFIDENCE = 7


GATE_SENTENCES: Final = {
    Gate.NONE: "no gate holds it back",
    Gate.WARM: "not every signal with a weight has seen enough of the market yet",
    Gate.BOOK: "the book is not valid or not fresh",
    Gate.SPREAD: "the spread is above gates.max_spread_bps",
    Gate.VOLATILITY: "the volatility a minute is below gates.volatility_min_pct",
    Gate.MICROSTRUCTURE: "the microstructure score is below gates.microstructure_min_score",
    Gate.SPREAD_VETO: "the spread is above features.spread_expansion times its average",
    Gate.CONFIDENCE: "the signals disagree: confidence is below 0.5",
}

MIN_CONFIDENCE: Final = 0.5
URGENCY_VOLATILITY_PCT: Final = 0.1  # volatility (percent a minute) at which its part of urgency is half

_BUY: Final = int(Side.BUY)
_SELL: Final = int(Side.SELL)
_NONE: Final = int(Side.NONE)
_G_NONE, _G_WARM, _G_BOOK, _G_SPREAD = int(Gate.NONE), int(Gate.WARM), int(Gate.BOOK), int(Gate.SPREAD)
_G_VOLATILITY, _G_MICRO, _G_VETO = int(Gate.VOLATILITY), int(Gate.MICROSTRUCTURE), int(Gate.SPREAD_VETO)
_G_CONFIDENCE: Final = int(Gate.CONFIDENCE)
_DIRECTIONAL: Final = tuple(spec.directional for spec in SIGNALS)
_N: Final = len(_DIRECTIONAL)


@kernel
def combine(strength: Floats, weight: Floats, ready_mask: int) -> tuple[float, float, int, int]:
    """(score, confidence, active_mask, reason) of the ready signals.

    `strength` and `weight` are indexed by Signal. `active_mask` has a bit for each signal that votes; `reason` is
    1 + the index of the one that votes most for the side (the lowest index of equals), 0 if there is no side.
    """
    up = down = up_weight = down_weight = total = 0.0
    active = 0
    for k in range(_N):
        if not _DIRECTIONAL[k] or not (ready_mask >> k) & 1 or weight[k] <= 0.0:
            continue
        vote = weight[k] * strength[k]
        total += weight[k]
        if vote > 0.0:
            up += vote
            up_weight += weight[k]
            active |= 1 << k
        elif vote < 0.0:
            down -= vote
            down_weight += weight[k]
            active |= 1 << k
    if up == down:
        return 50.0, 0.0, active, 0
    sign = 1.0
    votes_for, votes_against, support = up, down, up_weight
    if down > up:
        sign = -1.0
        votes_for, votes_against, support = down, up, down_weight
    top = 0.0
    top_index = -1
    for k in range(_N):
        if not (ready_mask >> k) & 1 or weight[k] <= 0.0:
            continue
        vote = weight[k] * strength[k]
        if _DIRECTIONAL[k]:
            vote *= sign
        elif vote != 0.0:
            active |= 1 << k
            total += abs(vote)
            if vote > 0.0:
                votes_for += vote
                support += vote
            else:
                votes_against -= vote
        if vote > top:
            top = vote
            top_index = k
    net = max(0.0, votes_for - votes_against)
    score = 50.0 + 50.0 * sign * net / total
    confidence = net / (votes_for + votes_against) * support / total
    return score, confidence, active, top_index + 1


@kernel
def urgency(score: float, confidence: float, volatility_pct: float) -> float:
    """0..100; `volatility_pct` is percent a minute."""
    moving = volatility_pct / (volatility_pct + URGENCY_VOLATILITY_PCT)
    return 100.0 * (0.6 * abs(score - 50.0) / 50.0 + 0.2 * confidence + 0.2 * moving)


@kernel
def microstructure_score(
    spread_bps: float, average_spread_bps: float, depth: float, average_depth: float, flow: float, imbalance: float
) -> float:
    """How good the market is to trade in right now, 0..100 (ours).

    Half liquidity: the mean of `average/(average + spread)` and `depth/(depth + average)`, each 1/2 at its own average, as a
    quantile would be. Half flow agreement: `(1 + sign * sqrt(|flow * imbalance|))/2` of the aggressors' volume
    imbalance and the book's, both in [-1, 1]: 1 if both press one way with all they have, 0 if they oppose each other.
    All divisors must be positive.
    """
    liquidity = 0.5 * (average_spread_bps / (average_spread_bps + spread_bps) + depth / (depth + average_depth))
    product = flow * imbalance
    agreement = math.sqrt(abs(product))
    if product < 0.0:
        agreement = -agreement
    return 50.0 * liquidity + 25.0 * (1.0 + agreement)


@kernel
def wanted_side(score: float, long: float, short: float) -> int:
    """The Side that a score asks for before any gate."""
    if score >= long:
        return _BUY
    if score <= short:
        return _SELL
    return _NONE


@kernel
def first_gate(
    warm: bool,
    fresh: bool,
    spread_bps: float,
    max_spread_bps: float,
    volatility_pct: float,
    volatility_min_pct: float,
    microstructure: float,
    microstructure_min: float,
    spread_strength: float,
    side: int,
    confidence: float,
) -> int:
    """The first Gate, in FORMULAS' order, that does not let a position be opened; 0 if none.

    `volatility_pct` and its bound: realised volatility in percent a minute. `spread_strength` is the spread signal's: below 0
    it vetoes, whatever its weight. The market's gates are told on every record, CONFIDENCE only where a side is wanted.
    """
    if not warm:
        return _G_WARM
    if not fresh:
        return _G_BOOK
    if spread_bps > max_spread_bps:
        return _G_SPREAD
    if volatility_pct < volatility_min_pct:
        return _G_VOLATILITY
    if microstructure < microstructure_min:
        return _G_MICRO
    if spread_strength < 0.0:
        return _G_VETO
    if side != _NONE and confidence < MIN_CONFIDENCE:
        return _G_CONFIDENCE
    return _G_NONE
