"""From strengths to one decision: score, confidence, urgency, and the gates that hold a side back.

Score: the weighted average of the strengths of all ready signals, mapped to 0..100 (50 neutral). A standing
signal that is ready but silent votes 0 and so pulls towards neutral. An occasional signal abstains at 0 and otherwise
counts with weight times the size of its strength, so a weak word never dilutes a strong agreement. A confirming signal
(spread) votes for the side that the directional ones ask for in the same way, and can weaken a side to neutral but never turn it.

Confidence (ours): agreement x support. Agreement is `(votes for - votes against)/(votes for + votes against)`,
support the share of the counted weight that votes for. Both never fall when any vote moves towards the side.

Urgency (ours): 60% how far the score is from neutral, 20% confidence, 20% volatility `v/(v + 0.1% a minute)`:
in a market that moves, waiting in a queue costs more. It never falls when any of the three rises.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from trading.features.bars import Rec
from trading.features.signals import Signal
from trading.jit import Floats, lean, lowest_bit
from trading.records import Side


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
    MODEL = 8
    THRESHOLD = 9


GATE_SENTENCES: Final = {
    Gate.NONE: "no gate holds it back",
    Gate.WARM: "not every standing signal with a weight has seen enough of the market yet",
    Gate.BOOK: "the book is not valid or not fresh",
    Gate.SPREAD: "the spread is above gates.max_spread_bps",
    Gate.VOLATILITY: "the volatility a minute is below gates.volatility_min_pct",
    Gate.MICROSTRUCTURE: "the microstructure score is below gates.microstructure_min_score",
    Gate.SPREAD_VETO: "the spread is above features.spread_expansion times its average",
    Gate.CONFIDENCE: "the signals disagree: confidence is below gates.min_confidence",
    Gate.MODEL: "no model speaks for the side with ml.min_confidence, and ml.required asks for one",
    Gate.THRESHOLD: "the score is beyond its threshold, but not beyond where the regime has moved that",
}

URGENCY_VOLATILITY_PCT: Final = 0.1  # volatility (percent a minute) at which its part of urgency is half


@lean
def combine(
    strength: Floats, weight: Floats, ready_mask: int, standing_mask: int, confirming_mask: int
) -> tuple[float, float, int, int]:
    """(score, confidence, active_mask, reason) of the ready signals.

    `strength` and `weight` are indexed by Signal; a signal in neither mask is occasional. `active_mask` has a bit for each
    signal that votes; `reason` is 1 + the index of the one that votes most for the side (the lowest index of equals), 0 if
    there is no side.
    """
    up = down = up_weight = down_weight = total = up_top = down_top = 0.0
    active = up_index = down_index = 0
    rest = ready_mask & ~confirming_mask
    while rest != 0:
        k = lowest_bit(rest)
        rest &= rest - 1
        vote = weight[k] * strength[k]
        standing = (standing_mask >> k) & 1
        if vote == 0.0:
            total += weight[k] if standing else 0.0
            continue
        size = abs(vote)
        counted = weight[k] if standing else size
        total += counted
        active |= 1 << k
        # selects, not branches: which way a signal points is not to be predicted
        is_up = vote > 0.0
        up += vote if is_up else 0.0
        down += 0.0 if is_up else size
        up_weight += counted if is_up else 0.0
        down_weight += 0.0 if is_up else counted
        up_index = k + 1 if vote > up_top else up_index
        up_top = max(up_top, vote)
        down_index = k + 1 if -vote > down_top else down_index
        down_top = max(down_top, -vote)
    if up == down:
        return 50.0, 0.0, active, 0
    sign = 1.0
    votes_for, votes_against, support, top, reason = up, down, up_weight, up_top, up_index
    if down > up:
        sign = -1.0
        votes_for, votes_against, support, top, reason = down, up, down_weight, down_top, down_index
    rest = ready_mask & confirming_mask
    while rest != 0:
        k = lowest_bit(rest)
        rest &= rest - 1
        vote = weight[k] * strength[k]
        if vote == 0.0:
            continue
        active |= 1 << k
        total += abs(vote)
        if vote > 0.0:
            votes_for += vote
            support += vote
            if vote > top or (vote == top and k + 1 < reason):
                top, reason = vote, k + 1
        else:
            votes_against -= vote
    net = max(0.0, votes_for - votes_against)
    # rounding of the sums must not lead out of the ranges
    score = 50.0 + 50.0 * sign * min(1.0, net / total)
    confidence = min(1.0, net / (votes_for + votes_against) * support / total)
    return score, confidence, active, reason


@lean
def urgency(score: float, confidence: float, volatility_pct: float) -> float:
    """0..100; `volatility_pct` is percent a minute."""
    moving = volatility_pct / (volatility_pct + URGENCY_VOLATILITY_PCT)
    return 100.0 * (0.6 * abs(score - 50.0) / 50.0 + 0.2 * confidence + 0.2 * moving)


@lean
def wanted_side(score: float, long: float, short: float) -> int:
    """The Side that a score asks for before any gate."""
    if score >= long:
        return Side.BUY
    if score <= short:
        return Side.SELL
    return Side.NONE


@lean
def first_gate(s: Rec, p: Rec, warm: bool, fresh: bool, volatility_pct: float, side: int, confidence: float) -> int:
    """The first Gate, in FORMULAS' order, that does not let a position be opened; 0 if none.

    `volatility_pct` and its bound: realised volatility in percent a minute. The spread signal below 0 vetoes, whatever its
    weight. The market's gates are told on every record, CONFIDENCE only where a side is wanted.
    """
    if not warm:
        return Gate.WARM
    if not fresh:
        return Gate.BOOK
    if s.spread_bps > p.max_spread_bps:
        return Gate.SPREAD
    if volatility_pct < p.volatility_min_pct:
        return Gate.VOLATILITY
    if s.microstructure < p.microstructure_min_score:
        return Gate.MICROSTRUCTURE
    if s.strength[Signal.SPREAD] < 0.0:
        return Gate.SPREAD_VETO
    if side != Side.NONE and confidence < p.min_confidence:
        return Gate.CONFIDENCE
    return Gate.NONE


@lean
def model_gate(side: int, model_strength: float) -> int:
    """The last gate, where `ml.required`: the models' strength (0 where all abstain) must be on the wanted side."""
    if (side == Side.BUY and model_strength <= 0.0) or (side == Side.SELL and model_strength >= 0.0):
        return Gate.MODEL
    return Gate.NONE
