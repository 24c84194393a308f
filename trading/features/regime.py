"""What kind of market it is: calm, normal, turbulent or trending. Decided when a second has ended, with hysteresis; after a
silence once, but each of its seconds is a sample.

Turbulent and calm by the rolling quantile of the EWMA volatility; trending by the variance ratio of ten-second to
one-second returns (Lo, MacKinlay 1988), which is 1 for a random walk. Turbulent goes before trending, trending before calm.
A regime is left only beyond its bound by `regime_hysteresis`, so that it does not flap.

What this module is not: it moves no threshold; `trading.scoring.params` says what each regime does to them.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from trading.features import rolling_rank
from trading.features.bars import Fields, Rec, keep_of
from trading.features.rolling_rank import BINS
from trading.jit import Recs, lean
from trading.settings import Features

SECONDS: Final = 60
"""One-second samples kept: realised volatility uses all, Kyle's lambda the latest `kyle_window_s`."""

MAX_REGIMES: Final = 8


class Regime(IntEnum):
    """The kind of market; NONE until volatility and variance ratio are warm."""

    NONE = 0
    CALM = 1
    NORMAL = 2
    TURBULENT = 3
    TRENDING = 4


RATIO_SECONDS: Final = 10
WARM_SAMPLES: Final = 60

FIELDS: Final[Fields] = (
    ("regime", "i8"),
    ("vol_samples", "i8"),
    ("vol_sum", "f8"),
    ("vol_weight", "f8"),
    ("vol_gain", "f8"),
    ("vol_rank", "f8"),
    ("vol_cdf", "f8", BINS),
    ("ratio_samples", "i8"),
    ("ratio_one", "f8"),
    ("ratio_many", "f8"),
    ("variance_ratio", "f8"),
)
"""What is kept per symbol."""

PARAMS: Final[Fields] = (
    ("vol_growth", "f8"),
    ("keep_vol", "f8"),
    ("turbulent_quantile", "f8"),
    ("calm_quantile", "f8"),
    ("trend_ratio", "f8"),
    ("hysteresis", "f8"),
)


def set_params(p: Recs, f: Features) -> None:
    """Put the settings into PARAMS' fields of one record."""
    p["keep_vol"] = keep_of(f.quantile_half_life_s)
    p["vol_growth"] = 1.0 / p["keep_vol"]
    p["turbulent_quantile"], p["calm_quantile"] = f.regime_turbulent_quantile, f.regime_calm_quantile
    p["trend_ratio"], p["hysteresis"] = f.regime_trend_ratio, f.regime_hysteresis


@lean
def take_return(s: Rec, p: Rec, change: float) -> None:
    """A second's log return, already in the ring of seconds: feed the two variances, once ten are there."""
    if s.seconds < RATIO_SECONDS:
        return
    many = 0.0
    at = (s.seconds - 1) % SECONDS
    for _ in range(RATIO_SECONDS):
        many += s.second_returns[at]
        at = at - 1 if at > 0 else SECONDS - 1
    keep = p.keep_vol
    s.ratio_one = s.ratio_one * keep + (1.0 - keep) * change * change
    s.ratio_many = s.ratio_many * keep + (1.0 - keep) * many * many
    s.ratio_samples += 1


@lean
def still(s: Rec, p: Rec, seconds: int) -> None:
    """Seconds in which nothing moved, after as many that all remembered ones are such: decay alone."""
    kept = p.keep_vol**seconds
    s.ratio_one *= kept
    s.ratio_many *= kept
    s.ratio_samples += seconds


@lean
def classify(regime: int, rank: float, ratio: float, p: Rec) -> int:
    """The regime after `regime` for a volatility quantile and a variance ratio."""
    h = p.hysteresis
    if rank >= p.turbulent_quantile - (h if regime == Regime.TURBULENT else 0.0):
        return Regime.TURBULENT
    if ratio >= p.trend_ratio - (h if regime == Regime.TRENDING else 0.0):
        return Regime.TRENDING
    if rank <= p.calm_quantile + (h if regime == Regime.CALM else 0.0):
        return Regime.CALM
    return Regime.NORMAL


@lean
def _sample(s: Rec, p: Rec, seconds: int) -> float:
    """The volatility has stood for so many seconds; returns it as a figure in [0, 1]."""
    kept = p.keep_vol if seconds == 1 else p.keep_vol**seconds
    s.vol_sum = s.vol_sum * kept + (1.0 - kept) * s.volatility
    s.vol_weight = s.vol_weight * kept + (1.0 - kept)
    value = 0.5
    if s.vol_sum > 0.0:
        value = s.volatility / (s.volatility + s.vol_sum / s.vol_weight)
    gain = s.vol_gain if s.vol_samples > 0 else 1.0
    grown = p.vol_growth if seconds == 1 else p.vol_growth**seconds
    s.vol_gain = rolling_rank.add(s.vol_cdf, 0, gain, p.vol_growth, grown, value, seconds)
    s.vol_samples += seconds
    return value


@lean
def decide(s: Rec, p: Rec, passed: int) -> None:
    """So many seconds have ended: sample the volatility, as many of them one by one as are remembered and the rest at once, and
    say which regime it is."""
    if s.returns < p.warm_returns or s.mid == 0.0:
        return
    value = 0.0
    for _ in range(min(passed, SECONDS)):
        value = _sample(s, p, 1)
    if passed > SECONDS:
        value = _sample(s, p, passed - SECONDS)
    if s.vol_samples < WARM_SAMPLES or s.ratio_samples < WARM_SAMPLES:
        return
    s.vol_rank = rolling_rank.rank(s.vol_cdf, 0, rolling_rank.scale(s.vol_cdf, 0), value)
    s.variance_ratio = s.ratio_many / (RATIO_SECONDS * s.ratio_one) if s.ratio_one > 0.0 else 1.0
    s.regime = classify(s.regime, s.vol_rank, s.variance_ratio, p)


@lean
def age(s: Rec, p: Rec, seconds: int) -> None:
    """An outage is over: what was seen before it weighs that much less. The regime stands until the next second ends."""
    if s.vol_samples == 0:
        return
    kept = p.keep_vol**seconds
    s.vol_sum *= kept
    s.vol_weight *= kept
    s.ratio_one *= kept
    s.ratio_many *= kept
    s.vol_gain = rolling_rank.age(s.vol_cdf, 0, s.vol_gain, p.vol_growth, seconds)
