"""What the models say, as one signal: asked at most every `ml.every_ms`, weighed by their confidence, silent below a bound.

A model's confidence is |2p - 1| of the probability p that the next move beyond costs is up. One below
`ml.min_confidence` abstains. The strength is the confidence-weighted mean of 2p - 1 of those that speak. It holds until the
models are asked again.

A batch model is one symbol's: it lies in that symbol's image. A symbol whose image holds none hears the online model alone.

What this module is not: the gate of the models, which is in trading.scoring.ensemble.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from trading.features import vector as feature_vector
from trading.features.bars import Rec
from trading.features.model_layout import FEATURES, LINEAR, MODEL_IMAGE, NO_BATCH, PENDING, TREES
from trading.features.signals import Signal, hush, say
from trading.jit import Recs, lean, record_at
from trading.models import online as online_model
from trading.models import trees as tree_ensemble

LEAST_READY: Final = 40
"""Features that must be ready before a model is asked or taught; batch models are trained on such rows alone."""



@lean
def vote(online: float, online_speaks: bool, batch: float, batch_speaks: bool, min_confidence: float) -> float:
    """Strength -1..1 of two probabilities; 0 where nobody speaks with confidence."""
    total = weight = 0.0
    for k in range(2):
        lean = 2.0 * (online if k == 0 else batch) - 1.0
        confidence = abs(lean)
        if (online_speaks if k == 0 else batch_speaks) and confidence >= min_confidence:
            total += confidence * lean
            weight += confidence
    return total / weight if weight > 0.0 else 0.0


def make_images(params: Recs, symbols: int) -> Recs:
    """Empty MODEL_IMAGE (symbols,), named by FEATURE_PARAMS (1,). The caller keeps them for as long as the params are used."""
    images: Recs = np.zeros(symbols, MODEL_IMAGE)
    params["model_images"] = images.ctypes.data
    return images


@lean
def _has_batch(p: Rec, symbol: int) -> bool:
    """Whether a batch model was made for this symbol."""
    return bool(p.model_images != 0 and record_at(p.model_images, symbol, MODEL_IMAGE).batch_kind != NO_BATCH)


@lean
def _batch(s: Rec, params: Rec, symbol: int) -> float:
    """The batch model's probability; there is one."""
    p = record_at(params.model_images, symbol, MODEL_IMAGE)
    if p.batch_kind == TREES:
        raw = tree_ensemble.evaluate(
            p.tree_count, p.tree_root, p.tree_feature, p.tree_left, p.tree_right, p.tree_threshold, p.tree_leaf, s.model_row
        )
        return online_model.sigmoid(raw)
    if p.batch_kind == LINEAR:
        return online_model.sigmoid(online_model.logit(s.model_row, p.batch_mean, p.batch_scale, p.batch_w))
    return 0.5


@lean
def step(state: Recs, symbol: int, params: Recs, ts_ns: int) -> None:
    """Feed back what has come due, ask the models, and set the model signal's strength and ready bit.

    To be called once for each record with a usable book, when all but the ensemble has been computed.
    """
    s, p = state[symbol], params[0]
    if s.pending_count > 0:
        online_model.settle(s, p, ts_ns)
    s.model_mid = s.mid
    if s.model_said_ns != 0 and ts_ns - s.model_said_ns < p.ml_every_ns:
        return
    s.model_said_ns = ts_ns
    mask = feature_vector.fill(state, symbol, params, s.model_row)
    if mask != s.model_mask:
        s.model_mask = mask
        count = 0
        for k in range(FEATURES):
            count += (mask >> k) & 1
        s.model_ready = count
        online_model.rescale(s, mask)
    if s.model_ready < LEAST_READY:
        hush(s, Signal.MODEL)
        return
    trusted = False
    if p.ml_online != 0:
        s.model_online_p = online_model.sigmoid(online_model.logit(s.model_row, s.model_mean, s.model_scale, s.model_w))
        trusted = online_model.trusted(s, p)
        if ts_ns >= s.pending_next_ns and s.pending_count < PENDING:
            online_model.take_sample(s, p, ts_ns, mask)
    has_batch = _has_batch(p, symbol)
    if has_batch:
        s.model_batch_p = _batch(s, p, symbol)
    if trusted or has_batch:
        say(s, Signal.MODEL, vote(s.model_online_p, trusted, s.model_batch_p, has_batch, p.ml_min_confidence))
    else:
        hush(s, Signal.MODEL)


@lean
def forget(s: Rec) -> None:
    """The book is not usable."""
    online_model.forget_pending(s)
    hush(s, Signal.MODEL)
