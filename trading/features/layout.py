"""What the features keep per symbol, and the settings as their kernels read them: layouts and sizes only.

Each block of fields belongs to the module named beside it, which alone writes it (and `outages`, which forgets).

A cheap coin is traded in 10**16 lots and more at once, so a sum of lots over a window need not fit an int64. Windows of
prints keep it in two lanes (trading.features.last_prints), so that what goes in comes out again exactly. Windows of time keep
floats, exact up to 2**53 lots, and are added up anew from their slots when a slot ends: rounding does not gather.
Averages are weighted means (`x_sum / x_weight`, or the shared weight named beside them) without a seed's bias.

What this module is not: it has no kernel and decides nothing.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from trading.features import bars
from trading.features.model_layout import MICRO_CELLS, MODEL_PARAM_FIELDS, MODEL_STATE_FIELDS
from trading.records import LEVELS, MAX_SIGNALS, VECTOR_LENGTH

RING: Final = 64
"""Slots of every window by print or bar; settings.Features bounds their lengths by it."""

FAST_SLOTS: Final = 10
"""Slots of the volume window: a window moves on by a tenth of itself."""

FLOW_SLOTS: Final = 16
"""Slots of one second for OFI and aggressor flow; settings.Features.flow_window_s is bounded by it."""

SECONDS: Final = 60
"""One-second samples kept: realised volatility uses all, Kyle's lambda the latest `kyle_window_s`."""

MOMENTUM_LAGS: Final = 20
IMPACT_LAGS: Final = 16
BINS: Final = 32
"""Bins of a rolling quantile over [0, 1]."""

PRESSURE_TICKS: Final = 1024
"""Levels further behind the best than this weigh nothing in the pressure."""

PROFILE_BINS: Final = 64
MICRO_SPREADS: Final = 4
MICRO_IMBALANCES: Final = 10
TIMEFRAMES: Final = 5
N_RANKS: Final = 5
ROW: Final = VECTOR_LENGTH
"""Features of the vector."""

DIRTY_BOOK: Final = 1
DIRTY_PRINTS: Final = 2
DIRTY_BARS: Final = 4
DIRTY_ALL: Final = 7
MAX_GATES: Final = 16
MAX_REGIMES: Final = 8

FEATURE_STATE: Final = np.dtype(
    [
        *bars.BAR_FIELDS,
        # features: the book as last read
        ("bid_ticks", "i8", LEVELS),
        ("bid_lots", "i8", LEVELS),
        ("ask_ticks", "i8", LEVELS),
        ("ask_lots", "i8", LEVELS),
        ("mid", "f8"),  # ticks; 0: the book is not usable
        ("twice_mid", "i8"),
        ("spread_bps", "f8"),
        ("bids", "i8"),  # lots of the counted levels
        ("asks", "i8"),
        ("ready", "i8"),  # mask of the signals that are warm
        ("strength", "f8", MAX_SIGNALS),  # as it stands; 0 until ready
        ("unusable_ns", "i8"),  # since when the book is not usable; 0: it is, or was never looked at
        ("microstructure", "f8"),  # score 0..100 at the latest record; 0: not warm
        # feature_vector: the row as last filled, and which parts of it are out of date
        ("dirty", "i8"),
        ("row_ready", "i8"),
        ("row", "f8", ROW),
        # bar_signals
        ("closed_bars", "i8"),
        ("fast_offset", "f8"),  # EMA of the closes less the last close, ticks
        ("slow_offset", "f8"),
        ("last_close", "f8"),
        ("true_ranges", "i8"),
        ("atr", "f8"),  # ticks
        ("window_bars", "i8"),  # bars in the rings below, counted without end
        ("bar_lows", "f8", RING),
        ("bar_highs", "f8", RING),
        ("bar_closes", "f8", RING),
        ("bar_widths", "f8", RING),  # band width over its middle
        ("bar_rsis", "f8", RING),
        ("rsi_changes", "i8"),
        ("rsi_gain", "f8"),
        ("rsi_loss", "f8"),
        ("rsi", "f8"),
        ("band_width", "f8"),
        ("band_z", "f8"),  # close less the middle, deviations
        ("width_rank", "f8"),
        ("squeeze_left", "i8"),  # bars for which the latest squeeze still counts
        ("open_1", "f8"),  # the bars before the one that closed last
        ("open_2", "f8"),
        ("pattern_run", "i8"),  # bars closed without an interruption
        ("pattern_bits", "i8"),
        ("garch", "f8"),  # variance a bar
        ("tf_index", "i8", TIMEFRAMES),
        ("tf_bars", "i8", TIMEFRAMES),
        ("tf_close", "f8", TIMEFRAMES),
        ("tf_average", "f8", TIMEFRAMES),
        ("tf_trend", "i8", TIMEFRAMES),  # sign of the average's last move
        # order_flow: by book change
        ("book_changes", "i8"),
        ("book_weight", "f8"),  # of the two sums below
        ("spread_sum", "f8"),  # bps
        ("depth_sum", "f8"),  # lots of both sides
        ("imbalance_changes", "i8"),
        ("imbalance_weight", "f8"),
        ("imbalance_sum", "f8"),
        ("imbalance", "f8"),  # their quotient
        ("ofi_share", "f8"),  # best-quote OFI over the average depth
        ("ofi", "f8", LEVELS),  # lots over the window
        ("ofi_slots", "f8", FLOW_SLOTS * LEVELS),
        ("flow_signed", "f8"),  # aggressors' lots over the window
        ("flow_lots", "f8"),
        ("flow_signed_slots", "f8", FLOW_SLOTS),
        ("flow_lots_slots", "f8", FLOW_SLOTS),
        ("flow_imbalance", "f8"),
        ("flow_seconds", "i8"),  # seconds seen since the start or the last outage
        # accelerations
        ("velocity", "f8"),  # ticks a second between the last two mid changes
        ("acceleration", "f8"),  # in its own deviations
        ("changed_ns", "i8"),
        ("changed_twice_mid", "i8"),
        ("velocities", "i8"),  # since the book was last unusable
        ("accelerations", "i8"),
        ("acceleration_sum", "f8"),  # of squares
        ("acceleration_weight", "f8"),
        # last_prints
        ("prints", "i8"),  # ever
        ("trades", "i8"),  # since the start or the last outage: the windows hold no others
        ("last_trade_ticks", "i8"),
        ("price_changes", "i8"),
        ("run", "i8"),  # signed count of price changes in a row that went the same way
        ("offset_sum", "i8", 2),  # sum (price - last) * lots over the window; lanes (last_prints)
        ("lots_sum", "i8", 2),
        ("recent_sum", "f8"),  # signed lots, decayed by print
        ("recent_lots", "f8"),
        ("recent", "f8"),  # their quotient
        ("trade_ticks", "i8", RING),  # a circle
        ("trade_lots", "i8", RING),
        ("trade_obv", "i8", RING),
        ("obv", "i8"),  # on-balance volume, lots
        ("price_slope", "i8"),  # sum (2 i - (n - 1)) * price over the divergence window of n
        ("price_gaps", "i8"),  # sum (price - last)
        ("obv_slope", "i8", 2),  # the same of the on-balance volume; lanes
        ("obv_gaps", "i8", 2),
        ("divergence_lots", "i8"),
        ("tick_sign", "i8"),  # of the last price change
        ("quoted", "i8"),  # prints whose quote was known
        ("agreement_sum", "f8"),  # Lee-Ready's sign is the venue's
        ("agreement_weight", "f8"),
        # clocks: a tenth of the volume window, and a second
        ("fast_index", "i8"),
        ("second_index", "i8"),
        ("clock_end_ns", "i8"),  # the earlier end of the two slots that run
        # volume and momentum, by fast slot
        ("volume_lots", "f8"),
        ("volume_signed", "f8"),
        ("volume_lots_slots", "f8", FAST_SLOTS),
        ("volume_signed_slots", "f8", FAST_SLOTS),
        ("volume_samples", "i8"),
        ("volume_sum", "f8"),
        ("volume_weight", "f8"),
        ("volume_ratio", "f8"),
        ("slot_twice_mid", "i8"),  # at the end of the slot before; 0: not known
        ("momentum_run", "i8"),
        ("momentum_samples", "i8"),
        ("momentum_returns", "f8", 32),
        ("momentum_sums", "f8", MOMENTUM_LAGS + 1),
        ("momentum_weight", "f8"),
        ("momentum_mean", "f8"),
        ("momentum_mean_weight", "f8"),
        ("momentum_phi", "f8"),
        ("momentum_half_life", "f8"),
        # seconds
        ("second_twice_mid", "i8"),
        ("second_broken", "i8"),  # the book was unusable some time in this second
        ("second_signed", "f8"),
        ("seconds", "i8"),
        ("second_moves", "i8", SECONDS),  # of twice the mid
        ("second_flows", "f8", SECONDS),
        ("second_returns", "f8", SECONDS),
        ("kyle", "f8"),  # ticks a lot
        ("realised", "f8"),  # deviation a second
        # vpin
        ("size_sum", "f8"),
        ("size_weight", "f8"),
        ("bucket_lots", "i8"),  # volume of the open bucket; 0: none yet
        ("bucket_filled", "i8"),
        ("bucket_signed", "i8"),
        ("buckets", "i8"),
        ("bucket_imbalances", "i8", RING),
        ("bucket_volumes", "i8", RING),
        ("vpin_imbalance", "f8"),  # sums over the last buckets
        ("vpin_volume", "f8"),
        ("vpin", "f8"),  # 0 until the buckets are full
        # impact
        ("impact_run", "i8"),
        ("impact_samples", "i8"),
        ("impact_weight", "f8"),
        ("impact_mids", "i8", IMPACT_LAGS),
        ("impact_signs", "i8", IMPACT_LAGS),
        ("impact_sums", "f8", IMPACT_LAGS),
        ("impact_phi", "f8"),
        ("impact_half_life", "f8"),
        # volume_profile
        ("profile_width", "i8"),  # ticks a bin; 0: no print yet
        ("profile_low", "i8"),  # the lowest bin of the window
        ("profile_poc", "i8"),
        ("profile_gain", "f8"),  # weight of the next print
        ("profile_total", "f8"),
        ("profile_lots", "f8", PROFILE_BINS),
        ("value_low", "i8"),  # bins of the value area, at the last second
        ("value_high", "i8"),
        # liquidity
        ("sweep_ns", "i8", 2),  # when a side was swept; 0: it stands
        ("refills", "i8"),
        ("refill_sum", "f8"),  # seconds
        ("refill_weight", "f8"),
        ("micro_fitted", "i8"),
        ("micro_table", "f8", MICRO_SPREADS * MICRO_IMBALANCES),  # microprice less mid, ticks
        # scores: rolling quantiles
        ("rank_samples", "i8", N_RANKS),
        ("rank_gain", "f8", N_RANKS),
        ("rank_scale", "f8", N_RANKS),  # half of one over the total weight
        ("rank_cdf", "f8", N_RANKS * BINS),
        ("slow_score", "f8"),  # weighted ranks of toxicity and impact, and their weight
        ("slow_weight", "f8"),
        # regime
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
        *MODEL_STATE_FIELDS,
    ],
    align=True,
)
"""What is kept per symbol."""

FEATURE_GLOBAL: Final = np.dtype([("records", "i8"), ("gates", "i8", MAX_GATES), ("sides", "i8"), ("model", "i8")], align=True)
"""Counts over all symbols: records, how often each Gate decided, how often a side was asked for; the number of the published
model in force (procs.memory.model_channel; 0: the one of the start)."""

FEATURE_PARAMS: Final = np.dtype(
    [
        ("bar_ns", "i8"),
        ("decay", "f8"),  # RiskMetrics lambda per bar
        ("warm_returns", "i8"),
        ("ema_fast", "i8"),
        ("ema_slow", "i8"),
        ("keep_fast", "f8"),  # 1 - alpha of each average
        ("keep_slow", "f8"),
        ("atr_bars", "i8"),
        ("keep_atr", "f8"),
        ("keep_book", "f8"),
        ("warm_book", "i8"),
        ("keep_imbalance", "f8"),
        ("warm_imbalance", "i8"),
        ("keep_recent", "f8"),
        ("warm_recent", "i8"),
        ("imbalance_levels", "i8"),
        ("imbalance_threshold", "f8"),
        ("micro_trend_trades", "i8"),
        ("micro_trend_scale_bps", "f8"),
        ("spread_compression", "f8"),
        ("spread_expansion", "f8"),
        ("keep_acceleration", "f8"),
        ("warm_acceleration", "i8"),
        ("acceleration_threshold", "f8"),
        ("fast_ns", "i8"),
        ("volume_multiple", "f8"),
        ("keep_volume", "f8"),
        ("warm_volume", "i8"),
        ("flow_slots", "i8"),
        ("divergence_trades", "i8"),
        ("keep_momentum", "f8"),
        ("warm_momentum", "i8"),
        ("momentum_z_scale", "f8"),
        ("squeeze_bars", "i8"),
        ("squeeze_sigma", "f8"),
        ("squeeze_quantile", "f8"),
        ("squeeze_memory_bars", "i8"),
        ("rsi_bars", "i8"),
        ("keep_rsi", "f8"),
        ("rsi_lookback", "i8"),
        ("pattern_bars", "i8"),
        ("tf_ns", "i8", TIMEFRAMES),
        ("tf_weight", "f8", TIMEFRAMES),
        ("pressure_weight", "f8", PRESSURE_TICKS),
        ("keep_impact", "f8"),
        ("warm_impact", "i8"),
        ("kyle_seconds", "i8"),
        ("vpin_trades", "f8"),
        ("vpin_buckets", "i8"),
        ("profile_bin_bps", "f8"),
        ("profile_growth", "f8"),
        ("value_area", "f8"),
        ("rank_growth", "f8"),
        ("garch_omega", "f8"),
        ("garch_alpha", "f8"),
        ("garch_beta", "f8"),
        ("vol_growth", "f8"),
        ("keep_vol", "f8"),
        ("turbulent_quantile", "f8"),
        ("calm_quantile", "f8"),
        ("trend_ratio", "f8"),
        ("hysteresis", "f8"),
        ("long", "f8", MAX_REGIMES),  # by regime
        ("short", "f8", MAX_REGIMES),
        ("max_spread_bps", "f8"),
        ("volatility_min_pct", "f8"),
        ("microstructure_min_score", "f8"),
        ("min_confidence", "f8"),
        ("n_signals", "i8"),
        ("required_mask", "i8"),  # standing signals with a weight
        ("standing_mask", "i8"),
        ("confirming_mask", "i8"),
        ("weight", "f8", MAX_SIGNALS),
        # user_call: how many signals of the user there are, and the addresses of what belongs to them
        ("user_signals", "i8"),
        ("user_table", "i8"),
        ("user_rows", "i8"),
        ("user_row_bytes", "i8"),
        ("user_status", "i8"),
        ("user_event", "i8"),
        ("user_answer", "i8"),
        ("user_guard", "i8"),
        *MODEL_PARAM_FIELDS,
    ],
    align=True,
)
"""The settings as the kernels read them."""

assert MICRO_CELLS == MICRO_SPREADS * MICRO_IMBALANCES
