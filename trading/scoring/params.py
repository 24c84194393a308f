"""From the settings to what the features' kernels read: FEATURE_PARAMS, and the relations that settings must satisfy.

What this module is not: it checks no range; procs.profiles does.
"""

from __future__ import annotations

import numpy as np

from trading.features import bars
from trading.features.layout import FEATURE_PARAMS, MODULES
from trading.features.model_layout import PENDING
from trading.features.regime import MAX_REGIMES, Regime
from trading.features.signals import N_SIGNALS, SIGNALS, Voice
from trading.jit import Recs
from trading.settings import TIMEFRAMES, Ml, Strategy, contradiction


class StrategyError(ValueError):
    """Settings that do not fit together; the message names the keys and the remedy."""


def _fill_ml(p: Recs, ml: Ml) -> None:
    p["ml_enabled"], p["ml_online"], p["ml_required"] = ml.enabled, ml.online, ml.enabled and ml.required
    p["ml_horizon_ns"], p["ml_every_ns"] = ml.horizon_ms * 1_000_000, ml.every_ms * 1_000_000
    p["ml_sample_ns"] = -(-ml.horizon_ms * 1_000_000 // PENDING)
    p["ml_cost"], p["ml_min_confidence"] = 1e-4 * ml.cost_bps, ml.min_confidence
    p["ml_alpha"], p["ml_l1"], p["ml_l2"] = ml.learning_rate, ml.l1, ml.l2
    p["ml_warm_outcomes"], p["ml_keep_skill"] = ml.warm_outcomes, bars.keep_of(ml.skill_half_life)


def make_params(strategy: Strategy, instruments: Recs) -> Recs:
    """FEATURE_PARAMS (1,) of a strategy; all symbols share them (`instruments` is taken for the common signature).

    `gates.volatility_min_pct` is the realised volatility over one minute in percent: the EWMA (RiskMetrics 1996)
    deviation of the mid's log returns per bar of `features.bar_ms`, scaled to a minute by the square root of time.
    Raises StrategyError where two settings contradict each other.
    """
    problem = contradiction(strategy)
    if problem is not None:
        raise StrategyError(f"{problem[0]} {problem[1]}: {problem[2]}")
    assert len(strategy.features.timeframes_s) == TIMEFRAMES
    g, t = strategy.gates, strategy.thresholds
    params = np.zeros(1, FEATURE_PARAMS)
    p = params[0]
    for module in MODULES:
        module.set_params(p, strategy.features)
    p["imbalance_levels"] = strategy.features.imbalance_levels
    _fill_ml(p, strategy.ml)
    p["long"], p["short"] = t.long, t.short
    factors = {Regime.CALM: t.calm_factor, Regime.TURBULENT: t.turbulent_factor, Regime.TRENDING: t.trending_factor}
    assert max(Regime) < MAX_REGIMES
    for regime, factor in factors.items():
        p["long"][regime] = min(100.0, 50.0 + factor * (t.long - 50.0))
        p["short"][regime] = max(0.0, 50.0 - factor * (50.0 - t.short))
    p["max_spread_bps"], p["volatility_min_pct"] = g.max_spread_bps, g.volatility_min_pct
    p["microstructure_min_score"], p["min_confidence"] = g.microstructure_min_score, g.min_confidence
    p["n_signals"] = N_SIGNALS
    for spec in SIGNALS:
        weight = float(getattr(strategy.weights, spec.key))
        p["weight"][spec.signal] = weight
        if weight == 0.0:
            continue
        if spec.voice == Voice.STANDING:
            p["standing_mask"] |= 1 << spec.signal
            p["required_mask"] |= 1 << spec.signal
        elif spec.voice == Voice.CONFIRMING:
            p["confirming_mask"] |= 1 << spec.signal
            p["required_mask"] |= 1 << spec.signal
    return params
