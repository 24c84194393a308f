"""The settings that decide: what a YAML profile may say of signals, gates, risk, execution and quoting.

Plain data with defaults (FORMULAS of the house); the loader in procs.profiles.config checks types, ranges and unknown keys
against these classes and names file, line and remedy. `Annotated[..., msgspec.Meta(ge=, le=)]` gives a range.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from trading.ranges import MAX_MONEY

Pct = Annotated[float, Meta(ge=0.0, le=100.0)]
Share = Annotated[float, Meta(ge=0.0, le=1.0)]
Positive = Annotated[float, Meta(gt=0.0)]
Money = Annotated[float, Meta(gt=0.0, le=MAX_MONEY)]
NonNegative = Annotated[float, Meta(ge=0.0)]
Factor = Annotated[float, Meta(ge=0.1, le=10.0)]
TIMEFRAMES: Final = 5
"""Sizes of bars that `features.timeframes_s` names."""
BelowOne = Annotated[float, Meta(ge=0.0, lt=1.0)]
_MODEL: Final = "[a-z0-9_-]{1,32}(@[1-9][0-9]{0,5})?"
ModelNames = Annotated[str, Meta(pattern=rf"^(|{_MODEL}(,{_MODEL})*)\Z")]
"""Promoted models, NAME or NAME@VERSION, one a symbol, with commas."""


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of all sections: immutable, unknown keys refused."""


class Thresholds(Section, frozen=True):
    """Score (0..100, 50 neutral) at which the ensemble takes a side.

    Both move with the regime: their distance from 50 is multiplied by the regime's factor (at most 50 from 50).
    """

    long: Pct = 70.0
    short: Pct = 30.0
    calm_factor: Factor = 1.0
    turbulent_factor: Factor = 1.25
    trending_factor: Factor = 1.0


class Gates(Section, frozen=True):
    """What must hold before a signal may open a position."""

    max_spread_bps: Positive = 6.0
    microstructure_min_score: Pct = 60.0
    volatility_min_pct: NonNegative = 0.08
    min_confidence: Share = 0.5


Timeframe = Annotated[int, Meta(ge=1, le=86_400)]


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
    # what the mid and the prints do by themselves
    acceleration_half_life: Positive = 50.0  # mid changes
    acceleration_threshold: NonNegative = 1.0  # deviations
    volume_window_ms: Annotated[int, Meta(ge=10, le=60_000)] = 1000  # ten slots
    volume_multiple: Positive = 2.0
    volume_half_life_s: Positive = 30.0
    flow_window_s: Annotated[int, Meta(ge=1, le=16)] = 10
    divergence_trades: Annotated[int, Meta(ge=3, le=64)] = 50
    momentum_half_life_s: Positive = 60.0
    # bars
    squeeze_bars: Annotated[int, Meta(ge=2, le=64)] = 20
    squeeze_sigma: Positive = 2.0
    squeeze_quantile: Share = 0.25  # a width at or below this quantile of the last 64 is a squeeze
    squeeze_memory_bars: Annotated[int, Meta(ge=1, le=64)] = 5  # bars for which it counts
    rsi_bars: Annotated[int, Meta(ge=2, le=1000)] = 14
    rsi_lookback: Annotated[int, Meta(ge=2, le=64)] = 20
    pattern_bars: Annotated[int, Meta(ge=2, le=64)] = 20  # the range that a break-out leaves
    timeframes_s: tuple[Timeframe, ...] = (1, 5, 15, 60, 300)  # five, rising
    timeframe_weights: tuple[NonNegative, ...] = (1.0, 1.0, 1.0, 1.0, 1.0)
    # microstructure
    pressure_decay: Positive = 0.05  # per tick behind the best
    impact_half_life_trades: Positive = 500.0
    kyle_window_s: Annotated[int, Meta(ge=10, le=60)] = 60
    vpin_bucket_trades: Annotated[float, Meta(ge=1.0, le=1e6)] = 20.0  # average prints a bucket
    vpin_buckets: Annotated[int, Meta(ge=2, le=64)] = 50
    profile_bin_bps: Positive = 1.0
    profile_half_life_trades: Positive = 2000.0
    value_area: Annotated[float, Meta(gt=0.0, lt=1.0)] = 0.7
    quantile_half_life_s: Positive = 300.0  # memory of the rolling quantiles
    # volatility and regime
    garch_omega: Positive = 5e-10  # of the squared bar return
    garch_alpha: BelowOne = 0.05
    garch_beta: BelowOne = 0.9
    garch: ModelNames = ""  # promoted fits of kind garch: over the three figures above, each for its symbol
    microprice: ModelNames = ""  # promoted tables of kind microprice; a symbol without one takes the weighted mid
    regime_turbulent_quantile: Share = 0.9
    regime_calm_quantile: Share = 0.2
    regime_trend_ratio: Positive = 1.3
    regime_hysteresis: Share = 0.1


class Weights(Section, frozen=True):
    """Weight of each signal in the ensemble's average; 0 leaves it out."""

    book_imbalance: NonNegative = 1.0
    micro_trend: NonNegative = 1.0
    ema_cross: NonNegative = 1.0
    spread: NonNegative = 0.5
    acceleration: NonNegative = 0.5
    volume_spike: NonNegative = 0.5
    order_flow: NonNegative = 1.0
    book_squeeze: NonNegative = 0.5
    rsi_divergence: NonNegative = 0.5
    momentum_decay: NonNegative = 0.5
    volume_price_divergence: NonNegative = 0.5
    patterns: NonNegative = 0.5
    multi_timeframe: NonNegative = 0.5
    model: NonNegative = 1.0


class UserSignal(Section, frozen=True):
    """One signal of the user's own: a function decorated with trading.user_signals.signal."""

    file: Annotated[str, Meta(min_length=1)]
    name: Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]{0,31}\Z")]
    weight: NonNegative = 0.5
    params: dict[str, float] = {}  # over the defaults that it declares
    # what the file declares, filled in at the start (procs.research.signal_files): who shows signals never runs a user's code
    voice: Literal["", "standing", "occasional", "confirming"] = ""
    sentence: str = ""
    code: str = ""  # hash of the file; given in a profile, the file must be this one


class SignalFiles(Section, frozen=True):
    """Signals beside the built-in ones, in the order of their indices."""

    user: tuple[UserSignal, ...] = ()


class Risk(Section, frozen=True):
    """Limits. Money is in the quote currency.

    `kelly_cap` and `max_correlated_exposure` are read and checked, and have no effect: size is a fixed fraction, and each
    symbol is limited by itself. Do not count on them.
    """

    equity: Money = 100_000.0
    base_risk_pct: Pct = 0.8
    kelly_cap: Share = 0.25  # has no effect
    max_portfolio_heat: Share = 0.15
    max_correlated_exposure: Share = 0.25  # has no effect
    max_position_notional: Money = 25_000.0
    max_order_notional: Money = 10_000.0
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


class Fit(Section, frozen=True):
    """One symbol's: orders at a distance of d bps from the fair value are taken at the rate `A exp(-k d)` a second."""

    symbol: str
    bid_a: Positive
    bid_k: Positive
    ask_a: Positive
    ask_k: Positive
    volatility_bps: NonNegative = 0.0  # the mid's deviation in one second; 0: measured while it runs


class Intensity(Section, frozen=True):
    """How often orders are taken, by their distance from the fair value. `scalperctl calibrate RECORDING` prints this section.

    `measured`: the quoter fits A and k itself while it runs (trading.quoting.intensity), and quotes nothing until it can.
    """

    source: Literal["constant", "measured"] = "constant"
    fits: tuple[Fit, ...] = ()  # constant: one a symbol
    beyond_bps: NonNegative = 0.0  # measured: only what reaches so far from the mid counts
    half_life_s: Annotated[float, Meta(ge=1.0, le=86_400.0)] = 600.0  # measured: after so long a print counts half
    least_sweeps: Annotated[float, Meta(ge=20.0, le=1e6)] = 200.0  # measured: a side, by their weight, before there is a fit


class Quoting(Section, frozen=True):
    """Where both quotes stand (trading.quoting). The keys after `rule`'s name are read by that rule alone."""

    enabled: bool = True
    rule: Literal["skewed", "avellaneda_stoikov", "glft"] = "skewed"
    around: Literal["mid", "weighted_mid", "microprice"] = "mid"  # the fair value; the microprice's table: features.microprice
    min_spread_bps: Positive = 2.0  # of every rule: no quote stands nearer to the fair value than half of it, but for the skew
    volatility_weight: NonNegative = 0.1  # skewed
    skew: NonNegative = 0.001  # skewed: of mid at max inventory
    gamma: Annotated[float, Meta(ge=1e-9, le=1e3)] = 0.02  # avellaneda_stoikov, glft: risk aversion per bps and order held
    horizon_s: Annotated[float, Meta(ge=0.001, le=86_400.0)] = 60.0  # avellaneda_stoikov: it rolls on ...
    horizon_end: Annotated[str, Meta(pattern=r"^(|([01][0-9]|2[0-3]):[0-5][0-9])\Z")] = ""  # ... or ends at HH:MM UTC each day
    intensity: Intensity = Intensity()  # avellaneda_stoikov, glft
    order_notional: Money = 1_000.0
    max_inventory_notional: Money = 10_000.0
    requote_ticks: Annotated[int, Meta(ge=0, le=1_000_000)] = 5  # tolerance before a quote is moved
    requote_ms: Annotated[int, Meta(ge=0, le=60_000)] = 100  # least time between two moves


class Learner(Section, frozen=True):
    """A process that trains models for the running pipeline off its hot path. Off by default; needs `ml.enabled`."""

    enabled: bool = False
    kind: Literal["trees", "linear", "garch", "microprice"] = "trees"
    name: Annotated[str, Meta(pattern=r"^[a-z0-9_-]{1,7}\Z")] = "learned"  # models are called NAME-SYMBOL
    every_minutes: Annotated[float, Meta(gt=0.0, le=10_080.0)] = 10.0
    window_minutes: Annotated[float, Meta(gt=0.0, le=10_080.0)] = 240.0  # how far back it looks
    max_records: Annotated[int, Meta(ge=1000, le=10_000_000)] = 500_000  # and no further than so many market records
    min_rows: Annotated[int, Meta(ge=20, le=1_000_000)] = 500  # rows that move beyond costs, before it trains
    publish: bool = True  # into this pipeline, what was promoted


class Ml(Section, frozen=True):
    """Models that vote in the ensemble. Off by default: then nothing of this costs or changes anything.

    A model says which way the next move of the mid beyond `cost_bps` within `horizon_ms` goes; its confidence is |2p - 1|.
    """

    enabled: bool = False
    model: ModelNames = ""  # "": the online model alone
    online: bool = True  # learns while it runs; abstains until it has beaten the base rate
    required: bool = True  # an entry needs a model that speaks for its side
    horizon_ms: Annotated[int, Meta(ge=10, le=3_600_000)] = 1000
    cost_bps: NonNegative = 1.0
    min_confidence: Share = 0.1
    every_ms: Annotated[int, Meta(ge=0, le=60_000)] = 10  # least time between two questions; 0: every record
    learning_rate: Positive = 0.02
    l1: NonNegative = 8.0
    l2: NonNegative = 1.0
    warm_outcomes: Annotated[int, Meta(ge=1, le=1_000_000)] = 500
    skill_half_life: Positive = 1000.0  # outcomes
    learner: Learner = Learner()


class Strategy(Section, frozen=True):
    """All of it, as the kernels' `make_params` functions take it."""

    thresholds: Thresholds = Thresholds()
    gates: Gates = Gates()
    features: Features = Features()
    weights: Weights = Weights()
    signals: SignalFiles = SignalFiles()
    risk: Risk = Risk()
    execution: Execution = Execution()
    quoting: Quoting = Quoting()
    ml: Ml = Ml()


def unfitted(strategy: Strategy, names: Iterable[str]) -> list[str]:
    """Those of the symbols that the quoting rule cannot quote: it needs figures that `quoting.intensity.fits` does not give."""
    q = strategy.quoting
    if not q.enabled or q.rule == "skewed" or q.intensity.source == "measured":
        return []
    return sorted(set(names) - {fit.symbol for fit in q.intensity.fits})


def contradiction(strategy: Strategy) -> tuple[str, str, str] | None:
    """(key, problem, remedy) of the first two settings of the features that contradict each other; None where none do."""
    f, t = strategy.features, strategy.thresholds
    if f.ema_fast >= f.ema_slow:
        return "features.ema_fast", f"({f.ema_fast}) must be below features.ema_slow ({f.ema_slow})", "change one"
    if f.spread_compression >= f.spread_expansion:
        problem = f"({f.spread_compression}) must be below features.spread_expansion ({f.spread_expansion})"
        return "features.spread_compression", problem, "change one"
    if not t.short < 50.0 < t.long:
        problem = f"({t.short}) must be below 50 (neutral) and thresholds.long ({t.long}) above it"
        return "thresholds.short", problem, "change them"
    if f.garch_alpha + f.garch_beta >= 1.0:
        problem = f"({f.garch_alpha}) and features.garch_beta ({f.garch_beta}) must sum to less than 1"
        return "features.garch_alpha", problem, "lower one, else the variance would have no mean"
    if f.regime_calm_quantile + f.regime_hysteresis >= f.regime_turbulent_quantile - f.regime_hysteresis:
        problem = (
            f"({f.regime_calm_quantile}) and features.regime_turbulent_quantile ({f.regime_turbulent_quantile}) must be more "
            f"than twice features.regime_hysteresis ({f.regime_hysteresis}) apart"
        )
        return "features.regime_calm_quantile", problem, "change one"
    for key, values in (("timeframes_s", f.timeframes_s), ("timeframe_weights", f.timeframe_weights)):
        if len(values) != TIMEFRAMES:
            return f"features.{key}", f"has {len(values)} items", f"write {TIMEFRAMES}"
    if any(a >= b for a, b in zip(f.timeframes_s, f.timeframes_s[1:])):
        return "features.timeframes_s", f"{list(f.timeframes_s)} must rise", "sort it, each size once"
    if not any(f.timeframe_weights):
        return "features.timeframe_weights", "are all 0", "give one a weight, or set weights.multi_timeframe to 0"
    return None
