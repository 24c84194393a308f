"""The same kernels over an array of market records at once: signals, feature matrices and the score as columns.

What comes out at row i knows records 0..i alone: it is what the features process would have said then. A `Pass` goes on from
one array to the next; the functions below it are for one array that is the whole history.

What this module is not: it reads no recording and makes no data frame; procs.research.columns does.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from trading.features import vector as feature_vector
from trading.features.microprice import set_microprice
from trading.features.vector import N_FEATURES, NAMES
from trading.instruments import Instrument, instrument_table
from trading.jit import Floats, Recs, Words, kernel
from trading.models import vote as model_vote
from trading.own_signals.guard import GUARD_WORDS, Health, health_of
from trading.records import MARKET_RECORD, SIGNAL_RECORD
from trading.scoring import one_pass as features
from trading.settings import Strategy
from trading.user_signals import NONE, UserSignals

Start = Callable[[Recs, Recs], None]
"""Puts what was learned for these symbols into FEATURE_STATE (n,) and MODEL_IMAGE (n,) (procs.learning.install)."""

EMPTY_ROW: Final = 0
"""Mask of a row whose record was not answered."""


@kernel
def _signals(recs: Recs, state: Recs, glob: Recs, params: Recs, table: Recs, out: Recs) -> None:
    for i in range(len(recs)):
        features.on_market(recs, i, state, glob, params, table, out, i)


@kernel
def _matrix(
    recs: Recs, state: Recs, glob: Recs, params: Recs, table: Recs, out: Recs, stride: int, matrix: Floats, ready: Words
) -> None:
    for i in range(len(recs)):
        if features.on_market(recs, i, state, glob, params, table, out, i * stride) == 1:
            ready[i] = feature_vector.fill(state, recs[i].symbol, params, matrix[i])


@kernel
def _rows(
    recs: Recs, state: Recs, glob: Recs, params: Recs, table: Recs, out: Recs, words: Words, kept: Words
) -> None:
    for i in range(len(recs)):
        features.on_market(recs, i, state, glob, params, table, out, i)
        for k in range(words.shape[1]):
            kept[i, k] = words[recs[i].symbol, k]


@kernel
def _score(recs: Recs, state: Recs, glob: Recs, params: Recs, table: Recs, out: Recs, score: Floats) -> None:
    for i in range(len(recs)):
        if features.on_market(recs, i, state, glob, params, table, out, 0) == 1:
            value = state[recs[i].symbol].microstructure
            if value > 0.0:
                score[i] = value


class Pass:
    """The features' state between one array of MARKET_RECORDs and the next; all symbols of `instruments`.

    `microprices`: tables of `trading.features.microprice.fit_microprice` by symbol index; `user`: signals of the user's,
    compiled;
    `start`: puts fitted tables and models in, as the pipeline does.
    Raises StrategyError on settings that contradict each other.
    """

    def __init__(
        self,
        instruments: Sequence[Instrument],
        strategy: Strategy | None = None,
        microprices: dict[int, Floats] | None = None,
        user: UserSignals = NONE,
        start: Start | None = None,
    ) -> None:
        self.table = instrument_table(instruments)
        self.params = features.make_params(strategy or Strategy(), self.table)
        self.state, self.glob = np.zeros(len(self.table), features.FEATURE_STATE), np.zeros(1, features.FEATURE_GLOBAL)
        features.init(self.state, self.glob, self.params, self.table)
        self.images = model_vote.make_images(self.params, len(self.table))
        if start is not None:
            start(self.state, self.images)
        for symbol, fitted in (microprices or {}).items():
            set_microprice(self.state, symbol, fitted)
        self.user = user
        self.rows, self.status = user.arrays(len(self.table))
        self.guard = np.zeros(GUARD_WORDS, np.int64)
        self._keep: list[Any] = user.bind(self.params, self.rows, self.status, self.guard)

    def twin(self) -> Pass:
        """Another pass that stands where this one does; what happens to one is nothing to the other."""
        twin = copy.copy(self)
        for name in ("params", "state", "glob", "rows", "status", "guard"):
            setattr(twin, name, getattr(self, name).copy())
        twin.images = model_vote.make_images(twin.params, len(self.images))
        twin.images[:] = self.images
        if self.user.settings:
            twin._keep = self.user.bind(twin.params, twin.rows, twin.status, twin.guard)
            twin.rows[:], twin.status[:] = self.rows, self.status  # binding has put them to their start
        return twin

    def health(self) -> dict[str, Health]:
        """What became of each of the user's signals, by name."""
        return {one.name: health_of(self.guard, k) for k, one in enumerate(self.user.settings)}

    @property
    def world(self) -> tuple[Recs, Recs, Recs, Recs]:
        """State, global, params and instruments, as the kernels take them."""
        return self.state, self.glob, self.params, self.table

    def signals(self, market: Recs) -> Recs:
        """SIGNAL_RECORD (n,): the answer to each MARKET_RECORD (n,), in order. Raises ValueError on other records."""
        out = np.zeros(len(_checked(market)), SIGNAL_RECORD)
        _signals(market, *self.world, out)
        return out

    def all(self, market: Recs) -> tuple[Recs, Floats, npt.NDArray[np.bool_]]:
        """(signals (n,), feature matrix (n, N_FEATURES), ready (n, N_FEATURES)) in one pass."""
        out = np.zeros(len(_checked(market)), SIGNAL_RECORD)
        matrix, mask = np.zeros((len(market), N_FEATURES)), np.full(len(market), EMPTY_ROW, np.int64)
        _matrix(market, *self.world, out, 1, matrix, mask)
        return out, matrix, _bits(mask)

    def matrix(self, market: Recs) -> tuple[Floats, npt.NDArray[np.bool_]]:
        """The feature matrix alone, and what of it is ready."""
        matrix, mask = np.zeros((len(_checked(market)), N_FEATURES)), np.full(len(market), EMPTY_ROW, np.int64)
        _matrix(market, *self.world, np.zeros(1, SIGNAL_RECORD), 0, matrix, mask)
        return matrix, _bits(mask)

    def score(self, market: Recs) -> Floats:
        """The microstructure score 0..100, NaN where it is not warm."""
        score = np.full(len(_checked(market)), np.nan)
        _score(market, *self.world, np.zeros(1, SIGNAL_RECORD), score)
        return score

    def user_rows(self, market: Recs) -> tuple[Recs, Recs]:
        """(signals (n,), the fields of all the user's signals after each record (n,), for the record's symbol)."""
        out, words = np.zeros(len(_checked(market)), SIGNAL_RECORD), self.rows.view(np.int64).reshape(len(self.rows), -1)
        kept = np.zeros((len(market), words.shape[1]), np.int64)
        _rows(market, *self.world, out, words, kept)
        return out, kept.view(self.rows.dtype).reshape(-1)


def _bits(mask: Words) -> npt.NDArray[np.bool_]:
    found: npt.NDArray[np.bool_] = (mask[:, None] >> np.arange(N_FEATURES)) & 1 == 1
    return found


def _checked(market: Recs) -> Recs:
    if market.dtype != MARKET_RECORD or market.ndim != 1:
        raise ValueError(f"market records are wanted, (n,) of MARKET_RECORD; this is {market.shape} of {market.dtype}")
    return market


def _whole(
    market: Recs, strategy: Strategy | None, microprices: dict[int, Floats] | None = None, user: UserSignals = NONE
) -> Pass:
    """A pass over all symbols that the records name, with default ticks and lots."""
    symbols = int(_checked(market)["symbol"].max(initial=0)) + 1
    return Pass([Instrument(f"S{k}") for k in range(symbols)], strategy, microprices, user)


def signals_of(
    market: Recs,
    strategy: Strategy | None = None,
    microprices: dict[int, Floats] | None = None,
    user: UserSignals = NONE,
) -> Recs:
    """SIGNAL_RECORD (n,): the answer to each MARKET_RECORD (n,), in order; any number of symbols.

    `microprices`: tables of `trading.features.microprice.fit_microprice` by symbol index. Raises ValueError on other records,
    StrategyError on settings that contradict each other.
    """
    return _whole(market, strategy, microprices, user).signals(market)


def feature_matrix(
    market: Recs, strategy: Strategy | None = None, microprices: dict[int, Floats] | None = None
) -> tuple[Floats, tuple[str, ...], npt.NDArray[np.bool_]]:
    """(matrix (n, N_FEATURES) float64, column names, ready (n, N_FEATURES) bool); 0 where a feature is not ready.

    See trading.features.vector for names, units and version.
    """
    matrix, ready = _whole(market, strategy, microprices).matrix(market)
    return matrix, NAMES, ready


def market_microstructure_score(history: Recs, strategy: Strategy | None = None) -> Floats:
    """The microstructure score 0..100 after each of the MARKET_RECORDs, (n,) float64; NaN where it is not warm."""
    return _whole(history, strategy).score(history)
