"""From data sets to a model with its out-of-sample figures.

Batch models walk forward: each fold is trained on what came before it (purged, embargoed) and predicts what came after; all those
predictions together are judged (procs.learning.promotion). The model that is kept is then trained on all rows by the same recipe.
Rows without a move beyond costs teach no direction and are left out, of training and of test.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

from procs.learning import fitting, install, prequential
from procs.learning.datasets import DataSet, History, data_set
from procs.learning.evaluation import spread_of
from procs.learning.extras import LearningError, wanted
from procs.learning.model_file import FITTED, Fitted, Kind, Model, Span, Spread, TreeData
from procs.learning.promotion import judge
from procs.learning.splits import walk_forward
from trading.features import vector as feature_vector
from trading.features.model_layout import BIAS, FEATURES, MAX_NODES, MAX_TREES, MODEL_ROW
from trading.jit import Floats
from trading.models.online import BOUND
from trading.settings import Strategy

FOLDS: Final = 5
EMBARGO_HORIZONS: Final = 5
TREE_ROUNDS: Final = 60
TREE_SETTINGS: Final = {
    "objective": "binary", "num_leaves": 8, "learning_rate": 0.05, "min_data_in_leaf": 50, "lambda_l2": 10.0,
    "feature_fraction": 0.7, "bagging_fraction": 0.7, "bagging_freq": 1, "max_bin": 63, "use_missing": False,
    "deterministic": True, "force_row_wise": True, "num_threads": 1, "seed": 1, "verbosity": -1,
}  # fmt: skip
"""Small trees, slowly: market data has little signal, and a deep tree learns the noise."""

RIDGE: Final = 0.001
"""Inverse penalty of the linear model (scikit-learn's C)."""

assert TREE_ROUNDS <= MAX_TREES and TREE_ROUNDS * 7 <= MAX_NODES

Predict = Callable[[Floats], Floats]
"""Rows (n, FEATURES) to probabilities (n,)."""

Recipe = Callable[[Floats, Floats], "Trained"]


class Trained:
    """What one training gives: how it predicts, and what of it goes into the file."""

    def __init__(self, predict: Predict, importance: Floats, **parts: Any) -> None:
        self.predict, self.importance, self.parts = predict, importance, parts


def trees(x: Floats, y: Floats) -> Trained:
    """LightGBM. Raises LearningError where it is not installed."""
    gbm = wanted("lightgbm")
    booster = gbm.train(TREE_SETTINGS, gbm.Dataset(x, y, params={"max_bin": 63, "verbosity": -1}), TREE_ROUNDS)
    found = [_tree(one["tree_structure"]) for one in booster.dump_model()["tree_info"]]
    return Trained(booster.predict, booster.feature_importance("gain"), trees=found)


def _tree(root: dict[str, Any]) -> TreeData:
    """LightGBM's nested nodes as flat lists."""
    tree = TreeData([], [], [], [], [])

    def add(node: dict[str, Any]) -> int:
        if "split_index" not in node:
            tree.leaf.append(float(node["leaf_value"]))
            return ~(len(tree.leaf) - 1)
        if node["decision_type"] != "<=" or node.get("missing_type", "None") != "None":
            raise LearningError(f"a tree splits by {node['decision_type']!r} or on missing values: the evaluator knows only <=")
        at = len(tree.feature)
        tree.feature.append(int(node["split_feature"]))
        tree.threshold.append(float(node["threshold"]))
        tree.left.append(0)
        tree.right.append(0)
        tree.left[at] = add(node["left_child"])
        tree.right[at] = add(node["right_child"])
        return at

    add(root)
    return tree


def linear(x: Floats, y: Floats) -> Trained:
    """scikit-learn's logistic regression on scaled and bounded features. Raises LearningError where it is not installed."""
    model = wanted("sklearn.linear_model").LogisticRegression(C=RIDGE, max_iter=500)
    mean, deviation = x.mean(0), x.std(0)
    scale = np.where(deviation > 1e-9 * np.abs(mean) + 1e-300, 1.0 / np.maximum(deviation, 1e-300), 0.0)

    def scaled(rows: Floats) -> Floats:
        return np.clip((rows - mean) * scale, -BOUND, BOUND)

    model.fit(scaled(x), y)
    arrays = {"mean": np.zeros(MODEL_ROW), "scale": np.zeros(MODEL_ROW), "w": np.zeros(MODEL_ROW)}
    arrays["mean"][:FEATURES], arrays["scale"][:FEATURES], arrays["w"][:FEATURES] = mean, scale, model.coef_[0]
    # the constant is cut at BOUND like every scaled feature
    arrays["scale"][BIAS], arrays["w"][BIAS] = 1.0, model.intercept_[0]
    return Trained(
        lambda rows: model.predict_proba(scaled(rows))[:, 1],
        np.abs(model.coef_[0]),
        arrays={key: values.tolist() for key, values in arrays.items()},
    )


RECIPES: Final[dict[str, Recipe]] = {"trees": trees, "linear": linear}


def out_of_sample(rows: DataSet, recipe: Recipe, horizon_ns: int, folds: int = FOLDS) -> tuple[Floats, Floats, DataSet]:
    """(probabilities, baseline's, the tested rows) of a walk forward over the told rows of a data set."""
    said, base, tested = [], [], []
    y = rows.y
    for train, test in walk_forward(rows.ts, rows.ended, folds, EMBARGO_HORIZONS * horizon_ns):
        rate = float(y[train].mean())
        one_sided = rate in (0.0, 1.0)
        said.append(np.full(len(test), rate) if one_sided else recipe(rows.x[train], y[train]).predict(rows.x[test]))
        base.append(np.full(len(test), rate))
        tested.append(test)
    return np.concatenate(said), np.concatenate(base), rows.of(np.concatenate(tested))


def _names(values: Floats) -> dict[str, float]:
    total = float(values.sum())
    shares = {name: float(v) / total if total > 0 else 0.0 for name, v in zip(feature_vector.NAMES, values)}
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def _spread(x: Floats) -> dict[str, Spread]:
    return {name: Spread(*spread_of(x[:, k])) for k, name in enumerate(feature_vector.NAMES)}


def _model(name: str, kind: Kind, strategy: Strategy, rows: DataSet, **parts: Any) -> Model:
    told = rows.of(rows.told)
    return Model(
        name=name, kind=kind, feature_version=feature_vector.VERSION, features=list(feature_vector.NAMES),
        horizon_ms=strategy.ml.horizon_ms, cost_bps=strategy.ml.cost_bps, spread=_spread(rows.x),
        span=Span(int(rows.ts.min()), int(rows.ts.max()), len(told.ts), list(rows.symbols), list(rows.sources)), **parts,
    )  # fmt: skip


def _fitted(name: str, kind: Kind, past: History, strategy: Strategy) -> Model:
    """A table that the features are computed with."""
    parts: dict[str, Any] = {}
    if kind == "garch":
        parts["garch"], verdict = fitting.fit_garch(past, strategy)
        parts["libraries"] = {"arch": wanted("arch").__version__}
    else:
        table, verdict = fitting.fit_table(past, strategy)
        parts["microprice"] = table.tolist()
    first, last = int(past.recs["ts_ns"][0]), int(past.recs["ts_ns"][-1])
    return Model(
        name=name, kind=kind, feature_version=feature_vector.VERSION, features=list(feature_vector.NAMES),
        horizon_ms=strategy.ml.horizon_ms, cost_bps=strategy.ml.cost_bps, verdict=verdict, importance={},
        span=Span(first, last, len(past.recs), [past.symbol], [past.source]), **parts,
    )  # fmt: skip


def _read(past: History, strategy: Strategy) -> Fitted:
    """What the features are computed with. Raises LearningError where that was fitted to the future of these records."""
    begins = int(past.recs["ts_ns"][0])
    for model in install.calibrated(strategy, past.symbol):
        if model is not None and model.span.to_ns >= begins:
            raise LearningError(
                f"{install.place(model)} was fitted to records that end after these begin, so that their features would know "
                "what comes: fit it to earlier recordings than you train on"
            )
    return install.reads(strategy, past.symbol)


def train(
    name: str, kind: Kind, past: Sequence[History], strategy: Strategy, *, barrier: bool = False,
    sets: Sequence[DataSet] | None = None, folds: int = FOLDS,
) -> Model:  # fmt: skip
    """A model of one symbol, judged out of sample, not yet saved. `sets` holds its data set if that is made already.

    Raises LearningError where there are several symbols, too little to learn from, or a library is absent.
    """
    if len(past) != 1:
        raise LearningError(
            f"a model is one symbol's, these are {len(past)} ({' '.join(h.symbol for h in past)[:80]}): name one with --symbol, "
            "or give the recordings of one"
        )
    if kind in FITTED:
        return _fitted(name, kind, past[0], strategy)
    reads = _read(past[0], strategy)
    horizon_ns = strategy.ml.horizon_ms * 1_000_000
    rows = sets[0] if sets else data_set(past[0], strategy, barrier=barrier)
    told = rows.of(rows.told)
    if len(told.ts) < 2 * (folds + 1) or told.y.min() == told.y.max():
        raise LearningError(
            f"{len(told.ts)} of {len(rows.ts)} rows move beyond {strategy.ml.cost_bps:g} bps within {strategy.ml.horizon_ms} ms, "
            "or all one way: give longer recordings, a longer ml.horizon_ms or a smaller ml.cost_bps"
        )
    if kind == "online":
        if barrier:
            raise LearningError("the online model is taught the mid at the horizon: train it without --barrier")
        said = prequential.run(past[0], strategy)
        verdict = judge(said.p, said.baseline, said.y, said.ts, horizon_ns)
        keys = ("seen", "mean", "var", "w", "z", "g")
        arrays = {key: said.state[f"model_{key}"][0].tolist() for key in keys}
        importance = _names(np.abs(said.state["model_w"][0][:FEATURES]))
        return _model(name, kind, strategy, rows, verdict=verdict, importance=importance, arrays=arrays, reads=reads)
    recipe = RECIPES[kind]
    p, base, tested = out_of_sample(told, recipe, horizon_ns, folds)
    verdict = judge(p, base, tested.y, tested.ts, horizon_ns)
    final = recipe(told.x, told.y)
    version = wanted("lightgbm" if kind == "trees" else "sklearn").__version__
    return _model(
        name, kind, strategy, rows, verdict=verdict, importance=_names(final.importance),
        libraries={"lightgbm" if kind == "trees" else "scikit-learn": version}, reads=reads, **final.parts,
    )  # fmt: skip
