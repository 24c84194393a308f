"""The microstructure score, 0..100 (ours): how good the market is to trade in right now.

A weighted sum of five parts, each a rolling quantile (trading.features.rolling_rank) of a figure in [0, 1]:
liquidity (spread: `average/(average + spread)`, depth: `depth/(depth + average)`), agreement of the aggressors' recent
volume imbalance with the book's (`(1 + flow imbalance)/2`), low toxicity (VPIN), and low impact decay (`phi/2`, see
trading.features.toxicity). Every fast slot that ends with a usable book is a sample, those of a silence too, so the quantiles
weigh time, not messages. Toxicity and impact are slow: their ranks are those of the last sample. A part that is not warm is left
out, its weight too.

What this module is not: it holds nothing back; the gate is in `trading.scoring.ensemble`.
"""

from __future__ import annotations

from typing import Final

from trading.features import rolling_rank
from trading.features.bars import Fields, Rec, keep_of
from trading.features.rolling_rank import BINS
from trading.jit import Recs, lean
from trading.settings import Features

N_RANKS: Final = 5

WARM_SAMPLES: Final = 100
"""Samples of a part after which it counts."""

SPREAD, DEPTH, AGREEMENT, VPIN, IMPACT = 0, 1, 2, 3, 4
SPREAD_WEIGHT: Final = 0.2
DEPTH_WEIGHT: Final = 0.2
AGREEMENT_WEIGHT: Final = 0.3
VPIN_WEIGHT: Final = 0.15
IMPACT_WEIGHT: Final = 0.15

FIELDS: Final[Fields] = (
    ("rank_samples", "i8", N_RANKS),
    ("rank_gain", "f8", N_RANKS),
    ("rank_scale", "f8", N_RANKS),  # half of one over the total weight
    ("rank_cdf", "f8", N_RANKS * BINS),
    ("slow_score", "f8"),  # weighted ranks of toxicity and impact, and their weight
    ("slow_weight", "f8"),
)
"""What is kept per symbol."""

PARAMS: Final[Fields] = (
    ("rank_growth", "f8"),
)


def set_params(p: Recs, f: Features) -> None:
    """Put the settings into PARAMS' fields of one record."""
    slots_a_second = 1e9 / float(p["fast_ns"])  # trading.features.time_slots has set it
    p["rank_growth"] = 1.0 / keep_of(f.quantile_half_life_s * slots_a_second)


@lean
def tightness(s: Rec) -> float:
    """`average/(average + spread)`: 1/2 at the average, more where the spread is below it. Needs a book change."""
    return s.spread_sum / (s.spread_sum + s.spread_bps * s.book_weight)


@lean
def fullness(s: Rec) -> float:
    """`depth/(depth + average)` of both sides. Needs a book change."""
    depth = float(s.bids + s.asks) * s.book_weight
    return depth / (depth + s.depth_sum)


@lean
def agreement(s: Rec) -> float:
    """`(1 + flow * imbalance)/2`: 1 if prints and book press one way with all they have, 0 if they oppose each other."""
    return 0.5 * (1.0 + s.recent * s.imbalance)


@lean
def _add(s: Rec, p: Rec, part: int, value: float, slots: int, grown: float) -> None:
    gain = s.rank_gain[part] if s.rank_samples[part] > 0 else 1.0
    s.rank_gain[part] = rolling_rank.add(s.rank_cdf, part * BINS, gain, p.rank_growth, grown, value, slots)
    s.rank_scale[part] = rolling_rank.scale(s.rank_cdf, part * BINS)
    s.rank_samples[part] += slots


@lean
def age(s: Rec, p: Rec, slots: int) -> None:
    """An outage of so many fast slots is over: what was sampled before it weighs that much less."""
    for part in range(N_RANKS):
        if s.rank_samples[part] > 0:
            s.rank_gain[part] = rolling_rank.age(s.rank_cdf, part * BINS, s.rank_gain[part], p.rank_growth, slots)
            s.rank_scale[part] = rolling_rank.scale(s.rank_cdf, part * BINS)


@lean
def _rank(s: Rec, part: int, value: float) -> float:
    return rolling_rank.rank(s.rank_cdf, part * BINS, s.rank_scale[part], value)


@lean
def sample(s: Rec, p: Rec, slots: int) -> None:
    """So many fast slots have ended: sample every part that is warm, and rank the slow ones. Nothing is sampled while the book
    is not usable."""
    if s.mid == 0.0:
        return
    grown = p.rank_growth if slots == 1 else p.rank_growth**slots
    if s.book_changes >= p.warm_book:
        _add(s, p, SPREAD, tightness(s), slots, grown)
        _add(s, p, DEPTH, fullness(s), slots, grown)
    if s.imbalance_changes >= p.warm_imbalance and s.trades >= p.warm_recent:
        _add(s, p, AGREEMENT, agreement(s), slots, grown)
    score = weight = 0.0
    if s.buckets >= p.vpin_buckets:
        value = s.vpin
        _add(s, p, VPIN, value, slots, grown)
        if s.rank_samples[VPIN] >= WARM_SAMPLES:
            score += VPIN_WEIGHT * (1.0 - _rank(s, VPIN, value))
            weight += VPIN_WEIGHT
    if s.impact_samples >= p.warm_impact:
        value = 0.5 * min(2.0, max(0.0, s.impact_phi))
        _add(s, p, IMPACT, value, slots, grown)
        if s.rank_samples[IMPACT] >= WARM_SAMPLES:
            score += IMPACT_WEIGHT * _rank(s, IMPACT, value)
            weight += IMPACT_WEIGHT
    s.slow_score, s.slow_weight = score, weight


@lean
def warm(s: Rec, p: Rec) -> bool:
    """Whether liquidity and agreement can be told; the score needs no more."""
    return bool(
        s.rank_samples[SPREAD] >= WARM_SAMPLES
        and s.rank_samples[AGREEMENT] >= WARM_SAMPLES
        and s.imbalance_changes >= p.warm_imbalance
        and s.trades >= p.warm_recent
    )


@lean
def score(s: Rec) -> float:
    """The score at this record, 0..100; the caller has asked `warm`."""
    fast = SPREAD_WEIGHT * _rank(s, SPREAD, tightness(s))
    fast += DEPTH_WEIGHT * _rank(s, DEPTH, fullness(s))
    fast += AGREEMENT_WEIGHT * _rank(s, AGREEMENT, agreement(s))
    return 100.0 * (fast + s.slow_score) / (SPREAD_WEIGHT + DEPTH_WEIGHT + AGREEMENT_WEIGHT + s.slow_weight)
