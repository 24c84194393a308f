"""From the settings to what the features' kernels read: FEATURE_PARAMS, and the relations that settings must satisfy.

What this module is not: it checks no range; procs.profiles does.
"""

from __future__ import annotations

import math

import numpy as np

from trading.features import bars
from trading.features.last_prints import RECENT_HALF_LIFE_TRADES
from trading.features.layout import FAST_SLOTS, FEATURE_PARAMS, MAX_REGIMES, PRESSURE_TICKS, TIMEFRAMES
from trading.features.model_layout import PENDING
from trading.features.regime import Regime
from trading.features.signals import N_SIGNALS, SIGNALS, Voice
from trading.features.time_slots import MEAN_KEEP
from trading.jit import Recs
from trading.settings import Features, Ml, Strategy


class StrategyError(ValueError):
    """Settings that do not fit together; the message names the keys and the remedy."""


def _keep(half_life: float) -> float:
    return float(0.5 ** (1.0 / half_life))


def _check(strategy: Strategy) -> None:
    f, t = strategy.features, strategy.thresholds
    if f.ema_fast >= f.ema_slow:
        raise StrategyError(f"features.ema_fast ({f.ema_fast}) must be below features.ema_slow ({f.ema_slow}): change one")
    if f.spread_compression >= f.spread_expansion:
        raise StrategyError(
            f"features.spread_compression ({f.spread_compression}) must be below "
            f"features.spread_expansion ({f.spread_expansion}): change one"
        )
    if not t.short < 50.0 < t.long:
        raise StrategyError(
            f"thresholds.short ({t.short}) must be below 50 (neutral) and thresholds.long ({t.long}) above it: change them"
        )
    if f.garch_alpha + f.garch_beta >= 1.0:
        raise StrategyError(
            f"features.garch_alpha ({f.garch_alpha}) and features.garch_beta ({f.garch_beta}) must sum to less than 1: "
            "the variance would have no mean"
        )
    if f.regime_calm_quantile + f.regime_hysteresis >= f.regime_turbulent_quantile - f.regime_hysteresis:
        raise StrategyError(
            f"features.regime_calm_quantile ({f.regime_calm_quantile}) and features.regime_turbulent_quantile "
            f"({f.regime_turbulent_quantile}) must be more than twice features.regime_hysteresis ({f.regime_hysteresis}) apart"
        )
    for key, values in (("timeframes_s", f.timeframes_s), ("timeframe_weights", f.timeframe_weights)):
        if len(values) != TIMEFRAMES:
            raise StrategyError(f"features.{key} has {len(values)} items: write {TIMEFRAMES}")
    if any(a >= b for a, b in zip(f.timeframes_s, f.timeframes_s[1:])):
        raise StrategyError(f"features.timeframes_s {list(f.timeframes_s)} must rise: sort it, each size once")
    if not any(f.timeframe_weights):
        raise StrategyError("features.timeframe_weights are all 0: give one a weight, or set weights.multi_timeframe to 0")


def _fill_windows(p: Recs, f: Features) -> None:
    p["bar_ns"], p["decay"] = f.bar_ms * 1_000_000, f.volatility_lambda
    p["warm_returns"] = bars.warm_returns(f.volatility_lambda)
    p["ema_fast"], p["ema_slow"], p["atr_bars"] = f.ema_fast, f.ema_slow, f.atr_bars
    p["keep_fast"], p["keep_slow"] = 1.0 - 2.0 / (f.ema_fast + 1), 1.0 - 2.0 / (f.ema_slow + 1)
    p["keep_atr"] = 1.0 - 1.0 / f.atr_bars
    p["keep_book"], p["warm_book"] = _keep(f.spread_half_life), math.ceil(f.spread_half_life)
    p["keep_imbalance"], p["warm_imbalance"] = _keep(f.imbalance_half_life), math.ceil(f.imbalance_half_life)
    p["keep_recent"], p["warm_recent"] = _keep(RECENT_HALF_LIFE_TRADES), math.ceil(RECENT_HALF_LIFE_TRADES)
    p["keep_acceleration"], p["warm_acceleration"] = _keep(f.acceleration_half_life), math.ceil(f.acceleration_half_life)
    p["fast_ns"] = f.volume_window_ms * 1_000_000 // FAST_SLOTS
    slots_a_second = 1e9 / float(p["fast_ns"])
    p["keep_volume"] = _keep(f.volume_half_life_s * slots_a_second)
    p["warm_volume"] = math.ceil(f.volume_half_life_s * slots_a_second)
    p["keep_momentum"] = _keep(f.momentum_half_life_s * slots_a_second)
    p["warm_momentum"] = math.ceil(f.momentum_half_life_s * slots_a_second)
    # the deviation of an exponential mean of independent values is sqrt((1 - keep)/(1 + keep)) of theirs
    p["momentum_z_scale"] = math.sqrt((1.0 + MEAN_KEEP) / (1.0 - MEAN_KEEP))
    p["keep_impact"], p["warm_impact"] = _keep(f.impact_half_life_trades), math.ceil(f.impact_half_life_trades)
    p["keep_rsi"] = 1.0 - 1.0 / f.rsi_bars
    p["profile_growth"] = 1.0 / _keep(f.profile_half_life_trades)
    p["rank_growth"] = 1.0 / _keep(f.quantile_half_life_s * slots_a_second)
    p["keep_vol"] = _keep(f.quantile_half_life_s)
    p["vol_growth"] = 1.0 / p["keep_vol"]


def _fill_bounds(p: Recs, f: Features) -> None:
    p["imbalance_levels"], p["imbalance_threshold"] = f.imbalance_levels, f.imbalance_threshold
    p["micro_trend_trades"], p["micro_trend_scale_bps"] = f.micro_trend_trades, f.micro_trend_scale_bps
    p["spread_compression"], p["spread_expansion"] = f.spread_compression, f.spread_expansion
    p["acceleration_threshold"], p["volume_multiple"] = f.acceleration_threshold, f.volume_multiple
    p["flow_slots"], p["divergence_trades"] = f.flow_window_s, f.divergence_trades
    p["squeeze_bars"], p["squeeze_sigma"], p["squeeze_quantile"] = f.squeeze_bars, f.squeeze_sigma, f.squeeze_quantile
    p["squeeze_memory_bars"], p["rsi_bars"], p["rsi_lookback"] = f.squeeze_memory_bars, f.rsi_bars, f.rsi_lookback
    p["pattern_bars"], p["kyle_seconds"] = f.pattern_bars, f.kyle_window_s
    p["tf_ns"] = [size * 1_000_000_000 for size in f.timeframes_s]
    p["tf_weight"] = f.timeframe_weights
    p["pressure_weight"] = np.exp(-f.pressure_decay * np.arange(PRESSURE_TICKS))
    p["vpin_trades"], p["vpin_buckets"] = f.vpin_bucket_trades, f.vpin_buckets
    p["profile_bin_bps"], p["value_area"] = f.profile_bin_bps, f.value_area
    p["garch_omega"], p["garch_alpha"], p["garch_beta"] = f.garch_omega, f.garch_alpha, f.garch_beta
    p["turbulent_quantile"], p["calm_quantile"] = f.regime_turbulent_quantile, f.regime_calm_quantile
    p["trend_ratio"], p["hysteresis"] = f.regime_trend_ratio, f.regime_hysteresis


def _fill_ml(p: Recs, ml: Ml) -> None:
    p["ml_enabled"], p["ml_online"], p["ml_required"] = ml.enabled, ml.online, ml.enabled and ml.required
    p["ml_horizon_ns"], p["ml_every_ns"] = ml.horizon_ms * 1_000_000, ml.every_ms * 1_000_000
    p["ml_sample_ns"] = -(-ml.horizon_ms * 1_000_000 // PENDING)
    p["ml_cost"], p["ml_min_confidence"] = 1e-4 * ml.cost_bps, ml.min_confidence
    p["ml_alpha"], p["ml_l1"], p["ml_l2"] = ml.learning_rate, ml.l1, ml.l2
    p["ml_warm_outcomes"], p["ml_keep_skill"] = ml.warm_outcomes, _keep(ml.skill_half_life)


def make_params(strategy: Strategy, instruments: Recs) -> Recs:
    """FEATURE_PARAMS (1,) of a strategy; all symbols share them (`instruments` is taken for the common signature).

    `gates.volatility_min_pct` is the realised volatility over one minute in percent: the EWMA (RiskMetrics 1996)
    deviation of the mid's log returns per bar of `features.bar_ms`, scaled to a minute by the square root of time.
    Raises StrategyError where two settings contradict each other.
    """
    _check(strategy)
    g, t = strategy.gates, strategy.thresholds
    params = np.zeros(1, FEATURE_PARAMS)
    p = params[0]
    _fill_windows(p, strategy.features)
    _fill_bounds(p, strategy.features)
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
