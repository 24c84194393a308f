"""Online logistic regression in the hot path: the probability that the next move beyond costs is up.

Weights by FTRL-proximal with a step of its own for every weight (McMahan and others 2013, algorithm 1): steps shrink with the
gradients that a weight has seen, and the L1 part keeps the weights of features that say nothing at exactly 0. Features are
scaled by their own running mean and deviation and bounded to +-BOUND deviations; a feature that is not ready counts 0.

Feedback: every sixteenth of the horizon the scaled row is kept with its mid and its prediction. When the horizon has
passed, the outcome is +1 or 0 where the mid has moved up or down by more than the costs, and the weights take a step; a
smaller move teaches nothing. The mid at the horizon is that of the last record at or before it. An unusable book
forgets the samples that wait.

It abstains until it has learned from `ml.warm_outcomes`, and while its running squared error (each prediction made before its
outcome was known) is not below that of always saying the base rate.
"""

from __future__ import annotations

import math
from typing import Final

from trading.features.bars import Rec
from trading.features.model_layout import BIAS, FEATURES, MODEL_ROW, PENDING
from trading.jit import Floats, Recs, lean

BOUND: Final = 4.0
"""Deviations at which a scaled feature is cut."""

BETA: Final = 1.0
SEEN_LEAST: Final = 20.0
"""Samples of a feature before it counts."""

SEEN_MOST: Final = 5000.0
"""Memory of mean and deviation, samples."""

LEAST_VARIANCE: Final = 1e-18
"""Of the squared mean: what varies less does not vary."""

UP: Final = 1
DOWN: Final = -1
FLAT: Final = 0


def start(state: Recs) -> None:
    """Put zeroed state into its start: only the constant has a scale."""
    state["model_row"][:, BIAS] = 1.0
    state["model_scale"][:, BIAS] = 1.0
    state["model_online_p"] = state["model_batch_p"] = 0.5


@lean
def sigmoid(x: float) -> float:
    """1/(1 + e^-x), never 0 or 1."""
    return 1.0 / (1.0 + math.exp(-min(35.0, max(-35.0, x))))


@lean
def logit(row: Floats, mean: Floats, scale: Floats, w: Floats) -> float:
    """sum w * clip((row - mean) * scale), all (MODEL_ROW,). Four sums side by side, in an order that never changes."""
    a = b = c = d = 0.0
    for k in range(0, MODEL_ROW, 4):
        a += w[k] * min(BOUND, max(-BOUND, (row[k] - mean[k]) * scale[k]))
        b += w[k + 1] * min(BOUND, max(-BOUND, (row[k + 1] - mean[k + 1]) * scale[k + 1]))
        c += w[k + 2] * min(BOUND, max(-BOUND, (row[k + 2] - mean[k + 2]) * scale[k + 2]))
        d += w[k + 3] * min(BOUND, max(-BOUND, (row[k + 3] - mean[k + 3]) * scale[k + 3]))
    return (a + b) + (c + d)


@lean
def outcome(before: float, after: float, cost: float) -> int:
    """UP, DOWN or FLAT: which way the mid went beyond `cost` (a fraction of it)."""
    move = after - before
    if move > cost * before:
        return UP
    if move < -cost * before:
        return DOWN
    return FLAT


@lean
def rescale(s: Rec, mask: int) -> None:
    """The scales of the features that are ready."""
    for k in range(FEATURES):
        variance = s.model_var[k]
        known = (mask >> k) & 1 and s.model_seen[k] >= SEEN_LEAST
        varies = variance > LEAST_VARIANCE * s.model_mean[k] * s.model_mean[k] and variance > 0.0
        s.model_scale[k] = 1.0 / math.sqrt(variance) if known and varies else 0.0


@lean
def _measure(s: Rec, mask: int) -> None:
    """Take the row into the running means and variances."""
    for k in range(FEATURES):
        if (mask >> k) & 1:
            seen = min(SEEN_MOST, s.model_seen[k] + 1.0)
            s.model_seen[k] = seen
            step = 1.0 / seen
            gap = s.model_row[k] - s.model_mean[k]
            s.model_mean[k] += step * gap
            s.model_var[k] = (1.0 - step) * (s.model_var[k] + step * gap * gap)
    rescale(s, mask)


@lean
def _learn(s: Rec, p: Rec, slot: int, y: float) -> None:
    """One step on the sample in this slot."""
    at = slot * MODEL_ROW
    z = 0.0
    for k in range(MODEL_ROW):
        z += s.model_w[k] * s.pending_x[at + k]
    error = sigmoid(z) - y
    for k in range(MODEL_ROW):
        x = s.pending_x[at + k]
        if x == 0.0:
            continue
        slope = error * x
        before = s.model_g[k]
        after = before + slope * slope
        s.model_g[k] = after
        s.model_z[k] += slope - (math.sqrt(after) - math.sqrt(before)) / p.ml_alpha * s.model_w[k]
        pull = s.model_z[k]
        if abs(pull) <= p.ml_l1:
            s.model_w[k] = 0.0
        else:
            bound = p.ml_l1 if pull > 0.0 else -p.ml_l1
            s.model_w[k] = (bound - pull) / ((BETA + math.sqrt(after)) / p.ml_alpha + p.ml_l2)


@lean
def settle(s: Rec, p: Rec, ts_ns: int) -> None:
    """Learn from the samples whose horizon ended before this record; `model_mid` is the mid after the record before."""
    while s.pending_count > 0:
        slot = s.pending_from
        if s.pending_ts[slot] + p.ml_horizon_ns >= ts_ns:
            return
        s.pending_from = (slot + 1) % PENDING
        s.pending_count -= 1
        way = outcome(s.pending_mid[slot], s.model_mid, p.ml_cost)
        if way == FLAT:
            continue
        y = 1.0 if way == UP else 0.0
        if s.up_weight > 0.0:
            rate, said, keep = s.up_sum / s.up_weight, s.pending_p[slot], p.ml_keep_skill
            s.skill_sum = keep * s.skill_sum + ((rate - y) * (rate - y) - (said - y) * (said - y))
            s.skill_weight = keep * s.skill_weight + 1.0
        s.up_sum = p.ml_keep_skill * s.up_sum + y
        s.up_weight = p.ml_keep_skill * s.up_weight + 1.0
        s.outcomes += 1
        _learn(s, p, slot, y)


@lean
def take_sample(s: Rec, p: Rec, ts_ns: int, mask: int) -> None:
    """Keep the row, scaled as it was when it was asked, until its outcome is known; then let it move the scales."""
    slot = (s.pending_from + s.pending_count) % PENDING
    at = slot * MODEL_ROW
    for k in range(MODEL_ROW):
        s.pending_x[at + k] = min(BOUND, max(-BOUND, (s.model_row[k] - s.model_mean[k]) * s.model_scale[k]))
    s.pending_ts[slot], s.pending_mid[slot], s.pending_p[slot] = ts_ns, s.mid, s.model_online_p
    s.pending_count += 1
    s.pending_next_ns = ts_ns + p.ml_sample_ns
    _measure(s, mask)


@lean
def forget_pending(s: Rec) -> None:
    """The book is not usable: no outcome can be told."""
    s.pending_count = 0
    s.pending_next_ns = s.model_said_ns = 0
    s.model_mid = 0.0


@lean
def trusted(s: Rec, p: Rec) -> bool:
    """Whether it has learned enough and done better than the base rate."""
    return bool(s.outcomes >= p.ml_warm_outcomes and s.skill_sum > 0.0)
