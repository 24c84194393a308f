"""What the features keep per symbol, and the settings as their kernels read them: the records, put together.

Each module of the room exports the fields that it alone writes (`FIELDS`; `trading.scoring.outages` forgets some) and the
settings that it reads (`PARAMS`); here they are put together with what belongs to no module of the room. FEATURE_STATE's
order is that of checkpoints: hot fields first, rings and histories behind them.

A cheap coin is traded in 10**16 lots and more at once, so a sum of lots over a window need not fit an int64. Windows of
prints keep it in two lanes (trading.features.last_prints), so that what goes in comes out again exactly. Windows of time keep
floats, exact up to 2**53 lots, and are added up anew from their slots when a slot ends: rounding does not gather.
Averages are weighted means (`x_sum / x_weight`, or the shared weight named beside them) without a seed's bias.

What this module is not: it has no kernel and decides nothing.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from trading.features import (
    bar_signals,
    bars,
    last_prints,
    liquidity,
    microprice,
    microstructure_score,
    order_flow,
    regime,
    time_slots,
    toxicity,
    vector,
    volume_profile,
)
from trading.features.bars import Fields
from trading.features.model_layout import MODEL_PARAM_FIELDS, MODEL_STATE_FIELDS
from trading.features.regime import MAX_REGIMES
from trading.records import LEVELS, MAX_SIGNALS

MAX_GATES: Final = 16

LINE: Final = 64
"""Bytes of a cache line."""

PASS_FIELDS: Final[Fields] = (
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
    ("voiced", "i8"),  # mask of those whose strength is not 0
    ("strength", "f8", MAX_SIGNALS),  # as it stands; 0 until ready
    ("unusable_ns", "i8"),  # since when the book is not usable; 0: it is, or was never looked at
    ("microstructure", "f8"),  # score 0..100 at the latest record; 0: not warm
)
"""Of `trading.scoring.one_pass`: the book as last read, and what is said of it."""

PASS_PARAMS: Final[Fields] = (
    ("imbalance_levels", "i8"),
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
)

USER_PARAMS: Final[Fields] = (
    ("user_signals", "i8"),
    ("user_table", "i8"),
    ("user_rows", "i8"),
    ("user_row_bytes", "i8"),
    ("user_status", "i8"),
    ("user_event", "i8"),
    ("user_answer", "i8"),
    ("user_guard", "i8"),
)
"""Of `trading.own_signals.call`: how many signals of the user there are, and the addresses of what belongs to them."""

_KEPT: Final[Fields] = (
    *PASS_FIELDS,
    *vector.FIELDS,
    *order_flow.FIELDS,
    *liquidity.FIELDS,
    *microstructure_score.FIELDS,
    *bars.BAR_FIELDS,
    *last_prints.FIELDS,
    *toxicity.FIELDS,
    *volume_profile.FIELDS,
    *time_slots.FIELDS,
    *regime.FIELDS,
    *bar_signals.FIELDS,
    *microprice.FIELDS,
    *MODEL_STATE_FIELDS,
)
"""By how often they are touched: at every record, at book changes, at prints, when a slot ends, when a bar closes, by models."""


def _words(field: tuple[Any, ...]) -> int:
    return int(field[2]) if len(field) > 2 else 1


def _lines(fields: Fields) -> np.dtype:
    """A record of whole cache lines of these fields, those of one word first, then arrays, short ones before long ones.

    What every record touches so lies in few lines side by side, and what is touched at one moving place, or seldom, behind it.
    An even number of lines would put the same fields of many symbols into a part of the cache's sets.
    """
    ordered: list[Any] = sorted(fields, key=_words)
    used = np.dtype(ordered, align=True).itemsize
    lines = -(-used // LINE) | 1
    spare = (lines * LINE - used) // 8
    return np.dtype([*ordered, ("spare", "i8", spare)] if spare else ordered, align=True)


FEATURE_STATE: Final = _lines(_KEPT)
"""What is kept per symbol."""

FEATURE_GLOBAL: Final = np.dtype([("records", "i8"), ("gates", "i8", MAX_GATES), ("sides", "i8"), ("model", "i8")], align=True)
"""Counts over all symbols: records, how often each Gate decided, how often a side was asked for; the number of the published
model in force (procs.memory.model_channel; 0: the one of the start)."""

MODULES: Final = (
    bars,
    bar_signals,
    order_flow,
    last_prints,
    time_slots,
    liquidity,
    toxicity,
    volume_profile,
    microstructure_score,
    regime,
)
"""The modules that read settings: `PARAMS` and `set_params` of each."""

FEATURE_PARAMS: Final = np.dtype(
    [*(field for module in MODULES for field in module.PARAMS), *PASS_PARAMS, *USER_PARAMS, *MODEL_PARAM_FIELDS], align=True
)
"""The settings as the kernels read them; made anew at every start, so their order is nobody's."""
