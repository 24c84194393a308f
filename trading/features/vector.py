"""The feature vector: what a model sees of a symbol at a record, in a fixed and versioned order.

`fill` writes one float64 a feature from the state that `trading.scoring.one_pass` keeps, and answers with a mask: bit i says that
feature i is warm. What is not warm is 0 in the row and has no bit; nothing is ever NaN. Prices are differences to the mid, most
volumes relative to an average. Some columns keep the symbol's own units, ticks or ticks a lot (FEATURES names them), so that
a model is one symbol's and is used for that one alone.

A change of meaning, order or unit raises VERSION: a model that was trained on another version must not read the row.

`on_market` is the same as a VECTOR_RECORD, one for each market record: the features process writes it to the ring `vectors`.

What this module is not: it makes no label, and keeps no state but the row itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from trading.features import last_prints, liquidity, microprice, volume_profile
from trading.features import microstructure_score as scores
from trading.features.bars import RING, Fields, Rec
from trading.features.regime import SECONDS
from trading.features.signals import MICRO_TREND_CHANGES, MIN_ATR_TICKS, Signal
from trading.features.toxicity import IMPACT_LAGS
from trading.jit import Floats, Recs, lean, move
from trading.records import LEVELS, VECTOR_LENGTH, Flag, Kind

DIRTY_BOOK: Final = 1
DIRTY_PRINTS: Final = 2
DIRTY_BARS: Final = 4
DIRTY_ALL: Final = 7

VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Feature:
    """One column: its name and unit."""

    name: str
    unit: str


def _table(*rows: tuple[str, str]) -> tuple[Feature, ...]:
    return tuple(Feature(*row) for row in rows)


FEATURES: Final = _table(
    ("spread_bps", "bps"),
    ("spread_ratio", "spread over its average"),
    ("top_imbalance", "-1..1"),
    ("book_imbalance", "-1..1, averaged over book changes"),
    ("pressure", "-1..1"),
    ("weighted_mid_gap", "ticks from the mid"),
    ("microprice_gap", "ticks from the mid"),
    ("ofi_1", "lots over the average depth, best level"),
    ("ofi_2", "lots over the average depth"),
    ("ofi_3", "lots over the average depth"),
    ("ofi_4", "lots over the average depth"),
    ("ofi_5", "lots over the average depth"),
    ("aggressor_imbalance", "-1..1, over the flow window"),
    ("recent_imbalance", "-1..1, over the last prints"),
    ("volume_ratio", "volume of the window over its average"),
    ("vpin", "0..1"),
    ("kyle_lambda", "ticks per lot"),
    ("impact_first", "ticks after one print"),
    ("impact_last", "ticks after sixteen prints"),
    ("impact_half_life", "prints, at most 10000"),
    ("depth_5bps", "lots over the average depth"),
    ("depth_10bps", "lots over the average depth"),
    ("depth_25bps", "lots over the average depth"),
    ("depth_slope", "lots per bps over the average depth"),
    ("resilience_s", "seconds until a swept side has refilled"),
    ("control_gap_bps", "bps from the point of control to the mid"),
    ("value_score", "-1..1"),
    ("value_width_bps", "bps"),
    ("micro_momentum_bps", "bps of the last print from the vwap"),
    ("trade_run", "signed count"),
    ("velocity_bps", "bps a second"),
    ("acceleration", "deviations"),
    ("ema_gap", "ATR"),
    ("rsi", "0..100"),
    ("band_z", "deviations"),
    ("band_width_bps", "bps"),
    ("band_rank", "0..1"),
    ("atr_bps", "bps"),
    ("volatility_bps", "bps a root second, EWMA"),
    ("realised_bps", "bps a root second, one minute"),
    ("garch_bps", "bps a bar"),
    ("volatility_rank", "0..1"),
    ("variance_ratio", "1 for a random walk"),
    ("momentum_phi", "share carried on to the next slot"),
    ("momentum_half_life", "slots, at most 10000"),
    ("momentum_lag1", "-1..1"),
    ("lee_ready_agreement", "0..1"),
    ("trend_agreement", "-1..1 over bar sizes"),
    ("microstructure_score", "0..100"),
    ("regime", "trading.features.regime.Regime"),
)
"""The columns in their order."""

N_FEATURES: Final = len(FEATURES)
NAMES: Final = tuple(feature.name for feature in FEATURES)
assert N_FEATURES == VECTOR_LENGTH <= 62 and len(set(NAMES)) == N_FEATURES, "one bit a feature in an int64, no name twice"

_BOOK_VALID: Final = int(Flag.BOOK_VALID)

FIELDS: Final[Fields] = (
    ("dirty", "i8"),
    ("row_ready", "i8"),
    ("row", "f8", VECTOR_LENGTH),
    ("prints_dead", "i8"),  # 1: the last record said PRINTS_DEAD
)
"""What is kept per symbol."""


@lean
def _put(row: Floats, i: int, value: float) -> int:
    """Write feature i, which is warm; returns its bit."""
    row[i] = value
    return 1 << i


@lean
def _book(s: Rec, p: Rec, row: Floats) -> int:
    """What changes with the book: features 0..11, 20..27, 30, 31 and 37."""
    ready = 0b1110101
    # reckoned before the first is written: the row is a part of the state, and what was read of that would be read again
    top, pressure = liquidity.top_imbalance(s), liquidity.pressure(s, p)
    gap, micro_gap = microprice.weighted_mid_gap(s), microprice.gap(s, s)
    row[0], row[2], row[4], row[5], row[6] = s.spread_bps, top, pressure, gap, micro_gap
    if s.imbalance_changes >= p.warm_imbalance:
        ready |= _put(row, 3, s.imbalance)
    per_mid = 1e4 / s.mid
    if s.prints >= RING:
        control, score = s.mid - volume_profile.control_price(s), volume_profile.value_score(s, s.mid)
        width = s.profile_width * (s.value_high - s.value_low + 1)
        row[25], row[26], row[27] = control * per_mid, score, width * per_mid
        ready |= 0b111 << 25
    if s.velocities > 0:
        ready |= _put(row, 30, s.velocity * per_mid)
    if (s.ready >> Signal.ACCELERATION) & 1:
        ready |= _put(row, 31, s.acceleration)
    if s.true_ranges >= p.atr_bars:
        ready |= _put(row, 37, s.atr * per_mid)
    if s.book_changes < p.warm_book:
        return ready
    ready |= _put(row, 1, s.spread_bps * s.book_weight / s.spread_sum)
    per_depth = s.book_weight / s.depth_sum
    if s.flow_seconds >= p.flow_slots:
        for level in range(LEVELS):
            row[7 + level] = s.ofi[level] * per_depth
        ready |= 0b11111 << 7
    near, middle, far, slope = liquidity.depths(s)
    row[20], row[21], row[22], row[23] = near * per_depth, middle * per_depth, far * per_depth, slope * per_depth
    ready |= 0b1111 << 20
    if s.refills >= liquidity.WARM_REFILLS:
        ready |= _put(row, 24, s.refill_sum / s.refill_weight)
    return ready


@lean
def _prints(s: Rec, p: Rec, row: Floats) -> int:
    """What changes with prints and slots of time: features 12..19, 28, 29, 39, 41..46."""
    ready = 0
    if s.flow_seconds >= p.flow_slots:
        ready |= _put(row, 12, s.flow_imbalance)
    if s.trades >= p.warm_recent:
        ready |= _put(row, 13, s.recent)
    if s.volume_samples >= p.warm_volume:
        ready |= _put(row, 14, s.volume_ratio)
    if s.buckets >= p.vpin_buckets:
        ready |= _put(row, 15, s.vpin)
    if s.seconds >= p.kyle_seconds:
        ready |= _put(row, 16, s.kyle)
    if s.impact_samples >= p.warm_impact:
        per_weight = 1.0 / s.impact_weight
        row[17] = s.impact_sums[0] * per_weight
        row[18] = s.impact_sums[IMPACT_LAGS - 1] * per_weight
        row[19] = s.impact_half_life
        ready |= 0b111 << 17
    if s.trades >= p.micro_trend_trades:
        offset = last_prints.offset(s)
        ready |= _put(row, 28, -1e4 * offset / (s.last_trade_ticks + offset))
    if s.price_changes >= MICRO_TREND_CHANGES:
        ready |= _put(row, 29, float(s.run))
    if s.seconds >= SECONDS:
        ready |= _put(row, 39, 1e4 * s.realised)
    if s.regime > 0:
        row[41], row[42] = s.vol_rank, s.variance_ratio
        ready |= 1 << 41 | 1 << 42
    if s.momentum_samples >= p.warm_momentum:
        row[43], row[44] = s.momentum_phi, s.momentum_half_life
        row[45] = s.momentum_sums[1] / s.momentum_sums[0] if s.momentum_sums[0] > 0.0 else 0.0
        ready |= 0b111 << 43
    if s.quoted >= RING:
        ready |= _put(row, 46, s.agreement_sum / s.agreement_weight)
    return ready


@lean
def _bars(s: Rec, p: Rec, row: Floats) -> int:
    """What changes when a bar closes: features 32..36, 38 and 40."""
    ready = 0
    if s.closed_bars >= p.ema_slow and s.true_ranges >= p.atr_bars:
        ready |= _put(row, 32, (s.fast_offset - s.slow_offset) / s.atr if s.atr >= MIN_ATR_TICKS else 0.0)
    if s.rsi_changes >= p.rsi_bars:
        ready |= _put(row, 33, s.rsi)
    if s.window_bars >= p.squeeze_bars:
        row[34], row[35], row[36] = s.band_z, 1e4 * s.band_width, s.width_rank
        ready |= 0b111 << 34
    if s.returns >= p.warm_returns:
        row[38] = 1e4 * s.volatility
        row[40] = 1e4 * math.sqrt(s.garch)
        ready |= 1 << 38 | 1 << 40
    return ready


_BOOK_BITS: Final = 0b1111_1111_1111 | 0b1111_1111 << 20 | 0b11 << 30 | 1 << 37
_PRINT_BITS: Final = 0b1111_1111 << 12 | 0b11 << 28 | 1 << 39 | 0b111111 << 41
_BAR_BITS: Final = 0b11111 << 32 | 1 << 38 | 1 << 40
_OF_PRINTS: Final = _PRINT_BITS | 1 << 48  # the microstructure score has its VPIN of them
assert _BOOK_BITS ^ _PRINT_BITS ^ _BAR_BITS == (1 << 47) - 1, "each feature below 47 belongs to one part"


@lean
def fill(state: Recs, symbol: int, params: Recs, row: Floats) -> int:
    """Write the features of a symbol, as they stand after its last record, into `row` (N_FEATURES,); returns the warm ones' mask.

    While the book is not usable every feature is 0 and the mask is 0. Parts whose inputs have not changed since the last
    call are taken from the row that the state keeps.
    """
    s, p = state[symbol], params[0]
    if s.mid == 0.0:
        for k in range(N_FEATURES):
            row[k] = s.row[k] = 0.0
        return 0
    dirty, ready, kept = s.dirty, s.row_ready, s.row
    if dirty & DIRTY_BOOK:
        ready = (ready & ~_BOOK_BITS) | _book(s, p, kept)
    if dirty & DIRTY_PRINTS:
        ready = (ready & ~_PRINT_BITS) | _prints(s, p, kept)
    if dirty & DIRTY_BARS:
        ready = (ready & ~_BAR_BITS) | _bars(s, p, kept)
    if s.row_ready & ~ready:  # what an interruption has made cold again
        for k in range(N_FEATURES):
            if not (ready >> k) & 1:
                kept[k] = 0.0
    s.dirty, s.row_ready = 0, ready
    move(row, kept, N_FEATURES)
    if (s.ready >> Signal.MULTI_TIMEFRAME) & 1:
        ready |= _put(row, 47, s.strength[Signal.MULTI_TIMEFRAME])
    if scores.warm(s, p):
        ready |= _put(row, 48, s.microstructure)
    row[49] = s.regime
    if s.regime > 0:
        ready |= 1 << 49
    if s.prints_dead != 0:  # nothing that comes of prints is told
        for k in range(N_FEATURES):
            row[k] = 0.0 if (_OF_PRINTS >> k) & 1 else row[k]
        ready &= ~_OF_PRINTS
    return ready


@lean
def on_market(recs: Recs, i: int, state: Recs, params: Recs, out: Recs, at: int) -> int:
    """Write VECTOR_RECORD `out[at]` for MARKET_RECORD `recs[i]`, which trading.scoring.one_pass has just answered; returns 1.

    A record whose symbol is not in the table is not answered: returns 0.
    """
    symbol = recs[i].symbol
    if symbol < 0 or symbol >= len(state):
        return 0
    o = out[at]
    o.ts_ns, o.kind, o.symbol, o.version = recs[i].ts_ns, Kind.VECTOR, symbol, VERSION
    o.flags = _BOOK_VALID if state[symbol].mid > 0.0 else 0
    o.warm_mask = fill(state, np.int64(symbol), params, o.values)
    return 1
