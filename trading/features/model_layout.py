"""What the models keep per symbol and what they are told: layouts and sizes only.

A model's row is the feature vector, then the constant 1 (the bias), then padding to whole vectors of four. Everything that
learning changes lies in the state, so that a checkpoint holds it; what was trained off the hot path lies in the params.

What this module is not: it has no kernel.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from trading.records import VECTOR_LENGTH

MICRO_SPREADS: Final = 4
MICRO_IMBALANCES: Final = 10
"""Rows and columns of a microprice table (trading.features.microprice). They stand here, where numba is not needed."""
FEATURES: Final = VECTOR_LENGTH
BIAS: Final = FEATURES
MODEL_ROW: Final = 52
PENDING: Final = 16
"""Samples that wait for their outcome; they are a sixteenth of the horizon apart."""

MAX_TREES: Final = 128
MAX_NODES: Final = 2048
MAX_LEAVES: Final = MAX_NODES + MAX_TREES

NO_BATCH: Final = 0
LINEAR: Final = 1
TREES: Final = 2

MODEL_STATE_FIELDS: Final = (
    # model_vote
    ("model_said_ns", "i8"),  # when the models were asked last
    ("model_mask", "i8"),  # features that were ready then
    ("model_ready", "i8"),  # how many
    ("model_mid", "f8"),  # ticks, after the record before; 0: not known
    ("model_online_p", "f8"),  # probability that the next move beyond costs is up
    ("model_batch_p", "f8"),
    ("model_row", "f8", MODEL_ROW),
    # online_model: how a feature is scaled
    ("model_seen", "f8", MODEL_ROW),
    ("model_mean", "f8", MODEL_ROW),
    ("model_var", "f8", MODEL_ROW),
    ("model_scale", "f8", MODEL_ROW),  # 1/deviation; 0: not ready, or it does not vary
    # online_model: FTRL-proximal
    ("model_w", "f8", MODEL_ROW),
    ("model_z", "f8", MODEL_ROW),
    ("model_g", "f8", MODEL_ROW),  # sums of squared gradients
    # online_model: samples whose horizon has not passed, oldest first, in a circle
    ("pending_from", "i8"),
    ("pending_count", "i8"),
    ("pending_next_ns", "i8"),  # no sample before this
    ("pending_ts", "i8", PENDING),
    ("pending_mid", "f8", PENDING),
    ("pending_p", "f8", PENDING),
    ("pending_x", "f4", PENDING * MODEL_ROW),
    # online_model: how it does
    ("outcomes", "i8"),  # moves beyond costs that it has learned from
    ("up_sum", "f8"),  # of them, decayed: those that went up
    ("up_weight", "f8"),
    ("skill_sum", "f8"),  # base rate's squared error less the model's, decayed
    ("skill_weight", "f8"),
    # bar_signals reads them; set at the start and by a publication: the settings', or fitted for this symbol
    ("garch_omega", "f8"),
    ("garch_alpha", "f8"),
    ("garch_beta", "f8"),
)

MODEL_PARAM_FIELDS: Final = (
    ("ml_enabled", "i8"),
    ("ml_online", "i8"),
    ("ml_required", "i8"),
    ("ml_horizon_ns", "i8"),
    ("ml_sample_ns", "i8"),
    ("ml_every_ns", "i8"),
    ("ml_cost", "f8"),  # as a fraction
    ("ml_min_confidence", "f8"),
    ("ml_alpha", "f8"),
    ("ml_l1", "f8"),
    ("ml_l2", "f8"),
    ("ml_warm_outcomes", "i8"),
    ("ml_keep_skill", "f8"),
    ("model_images", "i8"),  # address of MODEL_IMAGE (symbols,); 0: there is none
)
"""Settings as the kernels read them."""

MODEL_IMAGE_FIELDS: Final = (
    # which versions these are, as numbers (procs.learning.install.identity); 0: none
    ("model_id", "i8"),
    ("garch_id", "i8"),
    ("micro_id", "i8"),
    ("wants_garch", "i8"),  # what the model was trained with
    ("wants_micro", "i8"),
    # copied into the symbol's state when they come into force
    ("garch_omega", "f8"),  # 0: not fitted, the state keeps what it has
    ("garch_alpha", "f8"),
    ("garch_beta", "f8"),
    ("micro_fitted", "i8"),
    ("micro_table", "f8", MICRO_SPREADS * MICRO_IMBALANCES),
    # the batch model
    ("batch_kind", "i8"),  # NO_BATCH, LINEAR, TREES
    ("batch_version", "i8"),
    ("batch_mean", "f8", MODEL_ROW),
    ("batch_scale", "f8", MODEL_ROW),
    ("batch_w", "f8", MODEL_ROW),
    ("tree_count", "i8"),
    ("tree_root", "i4", MAX_TREES),  # a node, or ~leaf
    ("tree_feature", "i4", MAX_NODES),
    ("tree_left", "i4", MAX_NODES),  # a node, or ~leaf
    ("tree_right", "i4", MAX_NODES),
    ("tree_threshold", "f8", MAX_NODES),
    ("tree_leaf", "f8", MAX_LEAVES),
)
"""What was learned off the hot path for one symbol, ready to be used: a batch model, GARCH, a microprice table."""

MODEL_IMAGE: Final = np.dtype(list(MODEL_IMAGE_FIELDS), align=True)
