"""The online model over recorded records, as the pipeline runs it: each prediction is made before its outcome is known.

So every one of them is out of sample; those made before the model has learned from `ml.warm_outcomes` are left out, as it
would not have voted. What it says is judged whether or not it trusts itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np

from procs.learning.datasets import History, mids, one_pass
from procs.learning.labels import horizon_labels
from trading.jit import Floats, Recs, Words, kernel
from trading.models.online import DOWN, UP
from trading.records import SIGNAL_RECORD
from trading.scoring import one_pass as features
from trading.settings import Strategy


@dataclass(frozen=True, slots=True)
class Said:
    """Predictions (n,) with the base rate as then known, outcomes (1 up, 0 down) and times; the state at the end."""

    p: Floats
    baseline: Floats
    y: Floats
    ts: Words
    state: Recs


@kernel
def _drive(
    recs: Recs, state: Recs, glob: Recs, params: Recs, table: Recs, out: Recs,
    rows: Words, p: Floats, base: Floats, warm: Words,
) -> int:  # fmt: skip
    n = 0
    s = state[0]
    for i in range(len(recs)):
        before = s.pending_next_ns
        features.on_market(recs, i, state, glob, params, table, out, 0)
        if s.pending_next_ns != before and s.pending_next_ns != 0:
            rows[n], p[n] = i, s.model_online_p
            base[n] = s.up_sum / s.up_weight if s.up_weight > 0.0 else 0.5
            warm[n] = s.outcomes
            n += 1
    return n


def run(history: History, strategy: Strategy) -> Said:
    """Drive one symbol's records through the features with the online model on."""
    on = msgspec.structs.replace(strategy, ml=msgspec.structs.replace(strategy.ml, enabled=True, online=True))
    passed = one_pass(history, on, models=True)
    size = len(history.recs)
    rows, warm = np.zeros(size, np.int64), np.zeros(size, np.int64)
    p, base = np.zeros(size), np.zeros(size)
    n = _drive(history.recs, *passed.world, np.zeros(1, SIGNAL_RECORD), rows, p, base, warm)
    ts = np.ascontiguousarray(history.recs["ts_ns"])
    horizon_ns, cost = strategy.ml.horizon_ms * 1_000_000, 1e-4 * strategy.ml.cost_bps
    label, _ = horizon_labels(ts, mids(history, strategy), rows[:n], horizon_ns, cost)
    kept = ((label == UP) | (label == DOWN)) & (warm[:n] >= strategy.ml.warm_outcomes)
    return Said(p[:n][kept], base[:n][kept], (label[kept] == UP).astype(np.float64), ts[rows[:n]][kept], passed.state)
