"""Walk-forward splits, purged and embargoed: train on what came before, test on what came after, and never on both.

A row belongs to a time interval, from when it was seen to when its label was known. Purged: no row is trained on whose label was
known only after the test began. Embargoed: a stretch before each test is left out as well, because features remember: what
the last rows before a test saw is still in the first rows of it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from procs.learning.extras import LearningError
from trading.jit import Words


def walk_forward(ts: Words, ended: Words, folds: int, embargo_ns: int) -> Iterator[tuple[Words, Words]]:
    """(train, test) row indices of each fold. Time is cut into folds + 1 pieces; piece k is tested by all before it.

    `ts` (n,) and `ended` (n,): when each row was seen and its label known, in any order. Raises LearningError where a
    piece would be empty.
    """
    if folds < 1 or embargo_ns < 0:
        raise LearningError(f"{folds} folds with an embargo of {embargo_ns} ns cannot be: write 1 fold or more, 0 ns or more")
    if len(ts) < 2 * (folds + 1):
        raise LearningError(f"{len(ts)} labelled rows are too few for {folds} folds: give longer recordings or smaller costs")
    bounds = np.quantile(ts, np.arange(1, folds + 2) / (folds + 1), method="lower").astype(np.int64)
    bounds[-1] = ts.max() + 1
    for low, high in zip(bounds[:-1], bounds[1:], strict=True):
        test = np.flatnonzero((ts >= low) & (ts < high))
        train = np.flatnonzero((ts < low) & (ended + embargo_ns < low))
        if len(test) == 0 or len(train) == 0:
            raise LearningError("a fold has nothing to train on or to test: give longer recordings, fewer folds or less embargo")
        yield train, test
