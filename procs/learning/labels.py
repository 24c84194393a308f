"""Labels: what the mid did after a row, beyond costs. At a horizon, or by the triple barrier.

Both look at records after the row alone, and say nothing (NONE) where the future is not known: the records end before the
horizon does, or the book was not usable on the way. `ended_ns` is when a label was known: what purges a training set.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from trading.jit import Floats, Words, kernel
from trading.models.online import DOWN, FLAT, UP, outcome

NONE: Final = 2
"""No label: the future is not known."""

Labels = tuple[Words, Words]
"""(label (n,): UP, FLAT, DOWN or NONE; ended_ns (n,))."""


@kernel
def _horizon(ts: Words, mid: Floats, rows: Words, horizon: int, cost: float, label: Words, ended: Words) -> None:
    after = 0
    for i in range(len(rows)):
        row = rows[i]
        due = ts[row] + horizon
        after = max(after, row + 1)
        known = mid[row] > 0.0
        while after < len(ts) and ts[after] <= due:
            after += 1
        for k in range(row + 1, after):
            if mid[k] == 0.0:
                known = False
                break
        ended[i] = due
        label[i] = outcome(mid[row], mid[after - 1], cost) if known and after < len(ts) else NONE


@kernel
def _barrier(
    ts: Words, mid: Floats, rows: Words, horizon: int, profit: Floats, loss: Floats, label: Words, ended: Words
) -> None:
    for i in range(len(rows)):
        row = rows[i]
        due = ts[row] + horizon
        label[i], ended[i] = NONE, due
        if mid[row] == 0.0:
            continue
        above, below = mid[row] * (1.0 + profit[i]), mid[row] * (1.0 - loss[i])
        for k in range(row + 1, len(ts)):
            if ts[k] > due:
                label[i] = FLAT
                break
            if mid[k] == 0.0:
                break
            if mid[k] >= above:
                label[i], ended[i] = UP, ts[k]
                break
            if mid[k] <= below:
                label[i], ended[i] = DOWN, ts[k]
                break


def horizon_labels(ts: Words, mid: Floats, rows: Words, horizon_ns: int, cost: float) -> Labels:
    """The sign of the mid's move beyond `cost` (a fraction) at `ts[row] + horizon_ns`, as the online model is taught it.

    `ts` and `mid` (n,) are all records of one symbol, mid 0 where the book is not usable; `rows` (m,) rising indices into them.
    """
    label, ended = np.empty(len(rows), np.int64), np.empty(len(rows), np.int64)
    _horizon(ts, mid, rows, horizon_ns, cost, label, ended)
    return label, ended


def barrier_labels(
    ts: Words, mid: Floats, rows: Words, horizon_ns: int, profit: npt.ArrayLike, loss: npt.ArrayLike
) -> Labels:
    """The triple barrier (Lopez de Prado 2018, chapter 3): UP or DOWN for the barrier that is touched first, FLAT for the time.

    `profit` and `loss` are distances as fractions of the mid, one or (m,).
    """
    label, ended = np.empty(len(rows), np.int64), np.empty(len(rows), np.int64)
    wide = [np.ascontiguousarray(np.broadcast_to(np.asarray(x, np.float64), len(rows))) for x in (profit, loss)]
    _barrier(ts, mid, rows, horizon_ns, wide[0], wide[1], label, ended)
    return label, ended
