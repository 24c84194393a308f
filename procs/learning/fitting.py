"""What features are computed with, fitted to one symbol and judged out of sample: GARCH per bar size, the microprice table.

Both are fitted to the first half of time and judged on the second, against what the features do without them; what is kept is
then fitted to all of it.

- GARCH: QLIKE `ln s2 + r^2/s2` of the next bar's return (Patton 2011), against `features.garch_*`.
- Microprice: squared error, in ticks, of the mid after its next change, against the weighted mid.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from procs.learning import garch
from procs.learning.datasets import History, mids
from procs.learning.extras import LearningError
from procs.learning.figures import Verdict
from procs.learning.model_file import Garch
from procs.learning.promotion import judge_gain
from trading.features.microprice import fit_microprice
from trading.features.model_layout import MICRO_IMBALANCES, MICRO_SPREADS
from trading.jit import Floats, Words, kernel
from trading.records import Flag, Kind
from trading.settings import Strategy

BLOCK_BARS: Final = 20
BLOCK_HORIZONS: Final = 10


@kernel
def _variances(returns: Floats, omega: float, alpha: float, beta: float, s2: Floats) -> None:
    """The variance that was expected before each return."""
    now = omega / (1.0 - alpha - beta)
    for i in range(len(returns)):
        s2[i] = now
        now = omega + alpha * returns[i] * returns[i] + beta * now


def _qlike(returns: Floats, omega: float, alpha: float, beta: float) -> Floats:
    s2 = np.empty(len(returns))
    _variances(returns, omega, alpha, beta, s2)
    found: Floats = np.log(s2) + returns * returns / s2
    return found


def fit_garch(past: History, strategy: Strategy) -> tuple[Garch, Verdict]:
    """GARCH(1,1) of one symbol's bars of `features.bar_ms`. Raises LearningError where none can be fitted."""
    f = strategy.features
    returns = garch.bar_returns(np.ascontiguousarray(past.recs["ts_ns"]), mids(past, strategy), f.bar_ms * 1_000_000)
    whole, half = garch.fit(returns, f.bar_ms), len(returns) // 2
    try:
        first = garch.fit(returns[:half], f.bar_ms)
    except LearningError as error:
        none = np.zeros(0)
        verdict = judge_gain(none, none, none.astype(np.int64), 1, "QLIKE")
        return whole, _refused(verdict, f"its first half cannot be fitted, so that nothing can be tested: {error}")
    own = _qlike(returns, first.omega, first.alpha, first.beta)[half:]
    settings = _qlike(returns, f.garch_omega, f.garch_alpha, f.garch_beta)[half:]
    return whole, judge_gain(own, settings, np.arange(len(own), dtype=np.int64), BLOCK_BARS, "QLIKE")


def _refused(verdict: Verdict, why: str) -> Verdict:
    import msgspec

    return msgspec.structs.replace(verdict, refused=why)


@kernel
def _next_mid(mid: Floats, after: Floats) -> None:
    """The mid after its next change; 0 where none is known: the records end, or the book is not usable on the way."""
    known = 0.0
    for i in range(len(mid) - 1, -1, -1):
        after[i] = known
        if i > 0 and mid[i] != mid[i - 1]:
            known = mid[i]


def _micro_losses(past: History, table: Floats, since: int, step_ns: int) -> tuple[Floats, Floats, Words]:
    """(squared error with the table, with the weighted mid, times) of books a step apart from `since` on, in ticks squared."""
    recs = past.recs
    bid, ask = recs["bid_ticks"][:, 0].astype(np.float64), recs["ask_ticks"][:, 0].astype(np.float64)
    qb, qa = recs["bid_lots"][:, 0].astype(np.float64), recs["ask_lots"][:, 0].astype(np.float64)
    book = (recs["kind"] != Kind.TRADE) & (recs["kind"] != Kind.MARK)
    good = book & (recs["flags"] & int(Flag.BOOK_VALID) != 0) & (qb > 0) & (qa > 0) & (ask > bid)
    # prints and marks repeat the book before them: they are passed over, an unusable book is not
    where = np.flatnonzero(book)
    mid, after = np.where(good, 0.5 * (bid + ask), 0.0)[where], np.empty(len(where))
    _next_mid(mid, after)
    spread = (ask - bid).astype(np.int64)[where]
    ts = recs["ts_ns"][where]
    usable = np.flatnonzero((mid > 0) & (after > 0) & (spread <= MICRO_SPREADS) & (ts >= since))
    if len(usable):
        slot = ts[usable] // step_ns
        usable = usable[np.flatnonzero(np.append(True, np.diff(slot) > 0))]
    share = (qb[where] / np.maximum(qb[where] + qa[where], 1.0))[usable]
    bin_ = np.minimum(MICRO_IMBALANCES - 1, (share * MICRO_IMBALANCES).astype(np.int64))
    own = mid[usable] + table[spread[usable] - 1, bin_]
    plain = mid[usable] + spread[usable] * (share - 0.5)
    return (after[usable] - own) ** 2, (after[usable] - plain) ** 2, np.ascontiguousarray(ts[usable])


def fit_table(past: History, strategy: Strategy) -> tuple[Floats, Verdict]:
    """The microprice table (MICRO_SPREADS, MICRO_IMBALANCES) of one symbol. Raises LearningError where the mid never moves."""
    horizon_ns = strategy.ml.horizon_ms * 1_000_000
    if len(past.recs) < 2:
        raise LearningError(f"{past.symbol}: {len(past.recs)} records tell nothing of a mid: give longer recordings")
    middle = int(past.recs["ts_ns"][0]) // 2 + int(past.recs["ts_ns"][-1]) // 2
    try:
        whole = fit_microprice(past.recs)
        first = fit_microprice(past.recs[past.recs["ts_ns"] < middle])
    except ValueError as error:
        raise LearningError(f"{past.symbol}: {error}") from None
    own, plain, ts = _micro_losses(past, first, middle, horizon_ns // 4)
    return whole, judge_gain(own, plain, ts, BLOCK_HORIZONS * horizon_ns, "squared error in ticks")
