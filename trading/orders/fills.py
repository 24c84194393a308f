"""Which trades have been seen: the set that makes a repeated fill change nothing.

A fill is keyed by (symbol, trade id). Keeping every id for ever would grow without bound, so each symbol keeps the
greatest WINDOW ids. What this relies on: a venue's trade ids increase per symbol, and no fill arrives later than
WINDOW fills of ours after its turn. Within that, any order and any repetition is told apart exactly; an id below a full
window counts as seen, because forgetting a fill shows up in the reconciliation while counting one twice does not.

What this module is not: it knows no position and no order.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from trading.jit import Recs, kernel

WINDOW: Final = 64
"""Trade ids that are remembered per symbol."""

TRADE_WINDOW: Final = np.dtype([("ids", "i8", WINDOW), ("n", "i8"), ("greatest", "i8"), ("lowest_at", "i8")], align=True)
"""One symbol's seen ids. `n` of them are filled, `lowest_at` is where the smallest stands once it is full."""


@kernel
def _lowest(window: Recs, k: int) -> int:
    at = 0
    for j in range(1, WINDOW):
        if window[k].ids[j] < window[k].ids[at]:
            at = j
    return at


@kernel
def first_sight(window: Recs, k: int, trade_id: int) -> bool:
    """True, and remembered, when row `k` sees this trade id for the first time. Ids are positive; others are never new."""
    if trade_id <= 0:
        return False
    w = window[k]
    if trade_id <= w.greatest:
        for j in range(w.n):
            if w.ids[j] == trade_id:
                return False
        if w.n == WINDOW and trade_id < w.ids[w.lowest_at]:
            return False
    else:
        w.greatest = trade_id
    if w.n < WINDOW:
        w.ids[w.n] = trade_id
        w.n += 1
    else:
        w.ids[w.lowest_at] = trade_id
    if w.n == WINDOW:
        w.lowest_at = _lowest(window, k)
    return True
