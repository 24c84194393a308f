"""The settings that decide: what a YAML profile may say of signals, gates, risk, execution and quoting.

Plain data with defaults (FORMULAS of the house); the loader in procs.config checks types, ranges and unknown keys
against these classes and names file, line and remedy. `Annotated[..., msgspec.Meta(ge=, le=)]` gives a range.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

Pct = Annotated[float, Meta(ge=0.0, le=100.0)]
Share = Annotated[float, Meta(ge=0.0, le=1.0)]
Positive = Annotated[float, Meta(gt=0.0)]
NonNegative = Annotated[float, Meta(ge=0.0)]


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of all sections: immutable, unknown keys refused."""


class Thresholds(Section, frozen=True):
    """Score (0..100, 50 neutral) at which the ensemble takes a side."""

    long: Pct = 70.0
    short: Pct = 30.0


class Gates(Section, frozen=True):
    """What must hold before a signal may open a position."""

    max_spread_bps: Positive = 6.0
    microstructure_min_score: Pct = 60.0
    volatility_min_pct: NonNegative = 0.08


class Features(Section, frozen=True):
    """Windows of the signals. Half-lives count events of the kind that they average."""

    imbalance_levels: Annotated[int, Meta(ge=1, le=5)] = 5
    imbalance_threshold: Share = 0.3
    imbalance_half_life: Positive = 20.0
    micro_trend_trades: Annotated[int, Meta(ge=2, le=64)] = 10
    micro_trend_scale_bps: Positive = 1.0
    ema_fast: Annotated[int, Meta(ge=1, le=10_000)] = 5
    ema_slow: Annotated[int, Meta(ge=2, le=10_000)] = 13
    bar_ms: Annotated[int, Meta(ge=10, le=3_600_000)] = 1000
    atr_bars: Annotated[int, Meta(ge=2, le=1000)] = 14
    volatility_lambda: Annotated[float, Meta(gt=0.0, lt=1.0)] = 0.94
    spread_half_life: Positive = 200.0
    spread_compression: Positive = 0.7
    spread_expansion: Positive = 1.5


class Weights(Section, frozen=True):
    """Weight of each signal in the ensemble's average; 0 leaves it out."""

    book_imbalance: NonNegative = 1.0
    micro_trend: NonNegative = 1.0
    ema_cross: NonNegative = 1.0
    spread: NonNegative = 0.5


class Risk(Section, frozen=True):
    """Limits. Money is in the quote currency.

    `kelly_cap` and `max_correlated_exposure` are read and checked, but nothing uses them yet: size is a fixed fraction, and
    each symbol is limited by itself. Do not count on them.
    """

    equity: Positive = 100_000.0
    base_risk_pct: Pct = 0.8
    kelly_cap: Share = 0.25  # not in force yet
    max_portfolio_heat: Share = 0.15
    max_correlated_exposure: Share = 0.25  # not in force yet
    max_position_notional: Positive = 25_000.0
    max_order_notional: Positive = 10_000.0
    max_open_orders: Annotated[int, Meta(ge=1, le=256)] = 16
    max_orders_per_s: Annotated[int, Meta(ge=1, le=10_000)] = 50
    price_collar_bps: Positive = 100.0
    max_daily_loss_pct: Pct = 3.0
    max_drawdown_pct: Pct = 8.0


class Execution(Section, frozen=True):
    """How positions are opened and closed."""

    market_urgency_threshold: Pct = 80.0
    post_only_below: Pct = 40.0  # urgency under which an entry is POST_ONLY; LIMIT between the two
    max_hold_minutes: Annotated[float, Meta(gt=0.0, le=15.0)] = 5.0
    atr_stop_multiplier: Positive = 1.5
    min_stop_bps: Positive = 5.0  # the stop distance is never less than this
    entry_cooldown_ms: Annotated[int, Meta(ge=0, le=3_600_000)] = 1000
    order_max_age_ms: Annotated[int, Meta(ge=1, le=3_600_000)] = 3000  # an unfilled entry is cancelled after this


class Quoting(Section, frozen=True):
    """The `skewed` rule."""

    enabled: bool = True
    min_spread_bps: Positive = 2.0
    volatility_weight: NonNegative = 0.1
    skew: NonNegative = 0.001  # of mid at max inventory
    order_notional: Positive = 1_000.0
    max_inventory_notional: Positive = 10_000.0
    requote_ticks: Annotated[int, Meta(ge=0, le=1_000_000)] = 5  # tolerance before a quote is moved
    requote_ms: Annotated[int, Meta(ge=0, le=60_000)] = 100  # least time between two moves


class Strategy(Section, frozen=True):
    """All of it, as the kernels' `make_params` functions take it."""

    thresholds: Thresholds = Thresholds()
    gates: Gates = Gates()
    features: Features = Features()
    weights: Weights = Weights()
    risk: Risk = Risk()
    execution: Execution = Execution()
    quoting: Quoting = Quoting()
