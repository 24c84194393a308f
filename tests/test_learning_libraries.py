"""What needs the ml extra: the compiled evaluators against the libraries that trained the models, GARCH, and the planted edge."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from procs.learning import garch, synthetic, training
from procs.learning.datasets import data_set, histories
from procs.learning.extras import LearningError, wanted
from procs.learning.figures import Figure, Verdict
from procs.learning.install import put
from procs.learning.model_file import Model, Span, decode, encode
from procs.learning.training import linear, trees
from trading.features.model_layout import MODEL_IMAGE, MODEL_ROW
from trading.features.vector import N_FEATURES, NAMES, VERSION
from trading.models import online as online_model
from trading.models.trees import evaluate
from trading.scoring import one_pass as features
from trading.settings import Strategy


def library(name: str) -> ModuleType:
    """The library, or a skip that says what is missing."""
    found: ModuleType = pytest.importorskip(name, reason=f"{name} is not installed: the ml extra has it")
    return found


def learned(kind: str) -> tuple[training.Trained, np.ndarray, np.ndarray]:
    """A model of random rows whose label leans on three features, its image through a file, and fresh rows."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(3000, N_FEATURES)) * 10.0 ** rng.integers(-4, 4, N_FEATURES)
    x[rng.random(x.shape) < 0.05] = 0.0
    y = (x[:, 0] / x[:, 0].std() + x[:, 7] / x[:, 7].std() + rng.normal(size=3000) > 0).astype(float)
    made = {"trees": trees, "linear": linear}[kind](x[:2000], y[:2000])
    verdict = Verdict(rows=1, blocks=1, level=0.99, auc=Figure(0.6), brier_gain=Figure(0.1))
    model = Model(
        name="m", kind=kind, feature_version=VERSION, features=list(NAMES), horizon_ms=1000, cost_bps=1.0, importance={},
        span=Span(0, 1, 2, [], []), verdict=verdict, **made.parts,
    )  # fmt: skip
    image = np.zeros(1, MODEL_IMAGE)
    put(decode(encode(model), "x"), np.zeros(1, features.FEATURE_STATE), image)
    return made, image, x[2000:]


def padded(row: np.ndarray) -> np.ndarray:
    """As the features keep it: with the constant, to MODEL_ROW."""
    return np.concatenate([row, [1.0], np.zeros(MODEL_ROW - N_FEATURES - 1)])


def test_compiled_trees_say_what_lightgbm_says() -> None:
    """1000 fresh rows, zeros among them, through the file and the flat arrays: LightGBM's own probabilities."""
    library("lightgbm")
    made, params, rows = learned("trees")
    p = params[0]
    arrays = [np.ascontiguousarray(p[f"tree_{n}"]) for n in ("root", "feature", "left", "right", "threshold", "leaf")]
    got = [online_model.sigmoid(evaluate(int(p["tree_count"]), *arrays, padded(row))) for row in rows]
    np.testing.assert_allclose(got, made.predict(rows), rtol=1e-12)
    assert np.argmax(made.importance) in (0, 7)


def test_the_compiled_linear_model_says_what_scikit_learn_says() -> None:
    """The same for the logistic regression."""
    library("sklearn")
    made, params, rows = learned("linear")
    p = params[0]
    arrays = [np.ascontiguousarray(p[f"batch_{n}"]) for n in ("mean", "scale", "w")]
    got = [online_model.sigmoid(online_model.logit(padded(row), *arrays)) for row in rows]
    np.testing.assert_allclose(got, made.predict(rows), rtol=1e-9)


def test_garch_finds_what_made_the_returns() -> None:
    """Of 20,000 simulated bars the fit is near what made them, omega in the units of the features."""
    library("arch")
    rng = np.random.default_rng(6)
    omega, alpha, beta = 5e-10, 0.1, 0.8
    returns, variance = np.empty(20_000), omega / (1 - alpha - beta)
    for i in range(len(returns)):
        returns[i] = np.sqrt(variance) * rng.normal()
        variance = omega + alpha * returns[i] ** 2 + beta * variance
    found = garch.fit(returns, 1000)
    assert found.omega == pytest.approx(omega, rel=0.3)
    assert (found.alpha, found.beta) == pytest.approx((alpha, beta), abs=0.04)
    with pytest.raises(LearningError, match="too few"):
        garch.fit(returns[:50], 1000)


def test_bar_returns_by_hand() -> None:
    """The mid at the ends of bars; a bar without records closed where the one before it did; an unusable book is no price."""
    ts = np.array([0, 5, 12, 35, 37], np.int64)
    mid = np.array([100.0, 101.0, 0.0, 102.0, 103.0])
    np.testing.assert_allclose(garch.bar_returns(ts, mid, 10), [0.0, 0.0, np.log(103 / 101)])


def test_an_absent_library_is_said_plainly() -> None:
    """One sentence that names the extra."""
    with pytest.raises(LearningError, match=r"no_such_library is not here .*: install the ml extra"):
        wanted("no_such_library")


@pytest.mark.parametrize("kind", ["trees", "linear"])
def test_batch_models_find_a_planted_edge_and_nothing_else(kind: str) -> None:
    """Three markets of each sort (all twenty: scalperctl model report --synthetic)."""
    library({"trees": "lightgbm", "linear": "sklearn"}[kind])
    verdicts = {
        edge: [synthetic.trial(seed, edge, (kind,), draws=200).verdicts[kind] for seed in (1, 2, 3)]
        for edge in (synthetic.PLANTED_EDGE, 0.0)
    }
    assert all(v.passed for v in verdicts[synthetic.PLANTED_EDGE])
    assert not any(v.passed for v in verdicts[0.0])


@pytest.mark.recordings
def test_a_recording_becomes_rows(recordings: Path) -> None:
    """Ten minutes of spot BTCUSDT: one symbol, rows a quarter second apart or more, labels for all but the last."""
    names = ("spot_btcusdt_20240808.gz", "spot_btcusdt_20240809.gz")
    past = histories([recordings / "hftbacktest_binance" / name for name in names])
    assert [h.symbol for h in past] == ["BTCUSDT"]
    rows = data_set(past[0], Strategy())
    assert 1500 < len(rows.ts) < 2602  # 650 s, less what it takes to be ready
    assert np.diff(rows.ts).min() >= 250_000_000
    assert (rows.label[:-5] <= 1).mean() > 0.99 and np.isfinite(rows.x).all()
