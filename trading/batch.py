"""The same kernels over an array of market records at once: signals, feature matrices and the score as columns.

What comes out at row i knows records 0..i alone: it is what the features process would have said then.

What this module is not: it reads no recording and makes no data frame; it takes and gives numpy arrays.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from trading import feature_vector, features
from trading.feature_vector import N_FEATURES, NAMES
from trading.instruments import Instrument, instrument_table
from trading.jit import Floats, Recs, Words, kernel
from trading.microprice import set_microprice
from trading.records import MARKET_RECORD, SIGNAL_RECORD
from trading.settings import Strategy

EMPTY_ROW: Final = 0
"""Mask of a row whose record was not answered."""


@kernel
def _signals(recs: Recs, state: Recs, glob: Recs, params: Recs, table: Recs, out: Recs) -> None:
    for i in range(len(recs)):
        features.on_market(recs, i, state, glob, params, table, out, i)


@kernel
def _matrix(
    recs: Recs, state: Recs, glob: Recs, params: Recs, table: Recs, out: Recs, matrix: Floats, ready: Words
) -> None:
    for i in range(len(recs)):
        if features.on_market(recs, i, state, glob, params, table, out, 0) == 1:
            ready[i] = feature_vector.fill(state, recs[i].symbol, params, matrix[i])


@kernel
def _score(recs: Recs, state: Recs, glob: Recs, params: Recs, table: Recs, out: Recs, score: Floats) -> None:
    for i in range(len(recs)):
        if features.on_market(recs, i, state, glob, params, table, out, 0) == 1:
            value = state[recs[i].symbol].microstructure
            if value > 0.0:
                score[i] = value


def _world(market: Recs, strategy: Strategy, microprices: dict[int, Floats] | None) -> tuple[Recs, Recs, Recs, Recs]:
    """State, global, params and instruments for all symbols that the records name."""
    if market.dtype != MARKET_RECORD or market.ndim != 1:
        raise ValueError(f"market records are wanted, (n,) of MARKET_RECORD; this is {market.shape} of {market.dtype}")
    symbols = int(market["symbol"].max(initial=0)) + 1
    table = instrument_table([Instrument(f"S{k}") for k in range(symbols)])
    params = features.make_params(strategy, table)
    state, glob = np.zeros(symbols, features.FEATURE_STATE), np.zeros(1, features.FEATURE_GLOBAL)
    features.init(state, glob, params, table)
    for symbol, fitted in (microprices or {}).items():
        set_microprice(state, symbol, fitted)
    return state, glob, params, table


def signals_of(market: Recs, strategy: Strategy | None = None, microprices: dict[int, Floats] | None = None) -> Recs:
    """SIGNAL_RECORD (n,): the answer to each MARKET_RECORD (n,), in order; any number of symbols.

    `microprices`: tables of `trading.microprice.fit_microprice` by symbol index. Raises ValueError on other records,
    StrategyError on settings that contradict each other.
    """
    out = np.zeros(len(market), SIGNAL_RECORD)
    _signals(market, *_world(market, strategy or Strategy(), microprices), out)
    return out


def feature_matrix(
    market: Recs, strategy: Strategy | None = None, microprices: dict[int, Floats] | None = None
) -> tuple[Floats, tuple[str, ...], npt.NDArray[np.bool_]]:
    """(matrix (n, N_FEATURES) float64, column names, ready (n, N_FEATURES) bool); 0 where a feature is not ready.

    See trading.feature_vector for names, units and version.
    """
    matrix, mask = np.zeros((len(market), N_FEATURES)), np.full(len(market), EMPTY_ROW, np.int64)
    world = _world(market, strategy or Strategy(), microprices)
    _matrix(market, *world, np.zeros(1, SIGNAL_RECORD), matrix, mask)
    ready = (mask[:, None] >> np.arange(N_FEATURES)) & 1 == 1
    return matrix, NAMES, ready


def market_microstructure_score(history: Recs, strategy: Strategy | None = None) -> Floats:
    """The microstructure score 0..100 after each of the MARKET_RECORDs, (n,) float64; NaN where it is not warm."""
    score = np.full(len(history), np.nan)
    world = _world(history, strategy or Strategy(), None)
    _score(history, *world, np.zeros(1, SIGNAL_RECORD), score)
    return score
