"""The models' kernels against plain Python: trees, the online model's steps and feedback, the vote, and exactness of it all."""

from __future__ import annotations

import math

import numpy as np
import pytest
from features_markets import random_walk
from hypothesis import given, settings
from hypothesis import strategies as st

from procs.learning.datasets import History, data_set, mids
from procs.learning.labels import NONE, barrier_labels, horizon_labels
from procs.learning.prequential import run
from trading.features import vector as feature_vector
from trading.features.model_layout import BIAS, LINEAR, MODEL_IMAGE, MODEL_ROW, PENDING
from trading.features.signals import Signal, reason
from trading.instruments import Instrument, instrument_table
from trading.models import online as online_model
from trading.models.trees import Node, Tree, TreeError, evaluate, install
from trading.models.vote import make_images, vote
from trading.records import SIGNAL_RECORD
from trading.scoring import batch
from trading.scoring import one_pass as features
from trading.settings import Ml, Strategy

RECORDS = 5000
MODEL = int(Signal.MODEL)
LEARNS = Strategy(ml=Ml(enabled=True, horizon_ms=500, cost_bps=0.05, every_ms=0, warm_outcomes=100, required=False))


def world(strategy: Strategy = LEARNS):  # type: ignore[no-untyped-def]
    """State, global, params and instruments of one symbol."""
    table = instrument_table([Instrument("S0")])
    params = features.make_params(strategy, table)
    state, glob = np.zeros(1, features.FEATURE_STATE), np.zeros(1, features.FEATURE_GLOBAL)
    features.init(state, glob, params, table)
    return state, glob, params, table


def asked(params: np.ndarray, row: np.ndarray) -> float:
    """The compiled evaluator on the trees in the params."""
    p = params[0]
    names = ("root", "feature", "left", "right", "threshold", "leaf")
    return evaluate(int(p["tree_count"]), *(np.ascontiguousarray(p[f"tree_{n}"]) for n in names), row)


def plain(tree: Tree, row: np.ndarray) -> float:
    """One tree, by its definition."""
    at = 0 if tree.nodes else -1
    while at >= 0:
        node = tree.nodes[at]
        at = node.left if row[node.feature] <= node.threshold else node.right
    return tree.leaves[~at]


def grown(rng: np.random.Generator, leaves: int) -> Tree:
    """A random tree with so many leaves."""
    nodes: list[list[float]] = []
    free: list[tuple[int, int]] = []
    for _ in range(leaves - 1):
        if free:
            parent, side = free.pop(int(rng.integers(len(free))))
            nodes[parent][side] = len(nodes)
        free += [(len(nodes), 2), (len(nodes), 3)]
        nodes.append([int(rng.integers(50)), float(rng.normal()), 0, 0])
    for number, (parent, side) in enumerate(free):
        nodes[parent][side] = ~number
    found = tuple(Node(int(f), t, int(left), int(right)) for f, t, left, right in nodes)
    return Tree(found, tuple(float(v) for v in rng.normal(size=leaves)))


def test_trees_are_evaluated_as_they_are_defined() -> None:
    """100 random trees, one of them a lone leaf: the compiled sum is the plain one."""
    rng = np.random.default_rng(3)
    trees = [grown(rng, int(rng.integers(1, 16))) for _ in range(99)] + [Tree((), (0.25,))]
    params = np.zeros(1, MODEL_IMAGE)
    install(params, trees)
    for row in rng.normal(size=(200, MODEL_ROW)):
        assert asked(params, row) == pytest.approx(sum(plain(tree, row) for tree in trees), abs=1e-12)


@pytest.mark.parametrize(
    ("trees", "said"),
    [
        ([Tree((), (1.0,))] * 129, "train fewer"),
        ([Tree((), ())], "no leaf"),
        ([Tree((), (math.nan,))], "no number"),
        ([Tree((Node(50, 0.0, -1, -1),), (1.0,))], "asks for feature 50"),
        ([Tree((Node(0, 0.0, 1, -1),), (1.0,))], "leads to node 1"),
        ([Tree((Node(0, 0.0, -2, -1),), (1.0,))], "leads to node -2"),
        ([Tree((Node(0, 0.0, 0, -1),), (1.0,))], "meets itself"),
    ],
)
def test_trees_that_cannot_be_evaluated_are_refused(trees: list[Tree], said: str) -> None:
    """An endless loop, a child out of bounds, NaN, too many: a sentence, and nothing is installed."""
    params = np.zeros(1, MODEL_IMAGE)
    before = params.tobytes()
    with pytest.raises(TreeError, match=said):
        install(params, trees)
    assert params.tobytes() == before


@given(st.floats(0.0, 1.0), st.booleans(), st.floats(0.0, 1.0), st.booleans(), st.floats(0.0, 1.0))
@settings(max_examples=200, deadline=None)
def test_the_vote_is_between_those_who_speak(a: float, has_a: bool, b: float, has_b: bool, bound: float) -> None:
    """It lies between the leans of the models above the bound, is 0 where there is none, and mirrors."""
    speak = [2 * p - 1 for p, has in ((a, has_a), (b, has_b)) if has and abs(2 * p - 1) >= bound and p != 0.5]
    got = vote(a, has_a, b, has_b, bound)
    if speak:
        assert min(speak) - 1e-12 <= got <= max(speak) + 1e-12
    else:
        assert got == 0.0
    if all(abs(abs(2 * p - 1) - bound) > 1e-9 for p in (a, b)):  # 1 - p rounds
        assert vote(1 - a, has_a, 1 - b, has_b, bound) == pytest.approx(-got, abs=1e-9)


def reference(recs: np.ndarray, strategy: Strategy) -> list[tuple[int, float]]:
    """(row, probability) of every sample, by plain Python from the feature matrix and the mids."""
    ml = strategy.ml
    matrix, _, ready = batch.feature_matrix(recs, strategy)
    mid = batch.signals_of(recs, strategy)["mid"]
    horizon, step = ml.horizon_ms * 1_000_000, -(-ml.horizon_ms * 1_000_000 // PENDING)
    n = MODEL_ROW
    seen, mean, var, w, z, g = (np.zeros(n) for _ in range(6))
    waiting: list[tuple[int, float, np.ndarray]] = []
    due, before, said = 0, 0.0, []

    def scale(on: np.ndarray) -> np.ndarray:
        known = on & (seen >= 20) & (var > 1e-18 * mean * mean) & (var > 0)
        known[BIAS] = False
        out = np.where(known, 1 / np.sqrt(np.where(var > 0, var, 1)), 0.0)
        out[BIAS] = 1.0
        return out

    for i in range(len(recs)):
        if mid[i] == 0.0:
            waiting, due, before = [], 0, 0.0
            continue
        ts = int(recs["ts_ns"][i])
        while waiting and waiting[0][0] + horizon < ts:
            _, start, x = waiting.pop(0)
            if abs(before - start) > 1e-4 * ml.cost_bps * start:
                error = 1 / (1 + math.exp(-float(w @ x))) - (before > start)
                slope = error * x
                z += slope - (np.sqrt(g + slope**2) - np.sqrt(g)) / ml.learning_rate * w
                g += slope**2
                pull = np.sign(z) * ml.l1 - z
                w = np.where(np.abs(z) <= ml.l1, 0.0, pull / ((1 + np.sqrt(g)) / ml.learning_rate + ml.l2))
        before = mid[i]
        on = np.append(ready[i], [False, False])
        if on.sum() < 40 or ts < due or len(waiting) == PENDING:
            continue
        row = np.append(matrix[i], [1.0, 0.0])
        x = np.clip((row - mean) * scale(on), -4, 4)
        said.append((i, 1 / (1 + math.exp(-float(w @ x)))))
        waiting.append((ts, mid[i], x.astype(np.float32).astype(float)))
        due = ts + step
        seen[on] = np.minimum(5000, seen[on] + 1)
        gap = row - mean
        rate = np.where(on, 1 / np.maximum(seen, 1), 0.0)
        var = (1 - rate) * (var + rate * gap * gap)
        mean = mean + rate * gap
    return said


def test_the_online_model_is_its_definition() -> None:
    """Every prediction of a walk with stale books is what plain Python makes of the feature matrix."""
    recs = random_walk(5, RECORDS, stale_every=900)
    state, glob, params, table = world()
    out, at, said = np.zeros(1, SIGNAL_RECORD), 0, []
    for i in range(len(recs)):
        features.on_market(recs, i, state, glob, params, table, out, 0)
        if int(state["pending_next_ns"][0]) not in (0, at):
            at = int(state["pending_next_ns"][0])
            said.append((i, float(state["model_online_p"][0])))
    want = reference(recs, LEARNS)
    assert [i for i, _ in said] == [i for i, _ in want]
    assert int(state["outcomes"][0]) > 300
    np.testing.assert_allclose([p for _, p in said], [p for _, p in want], rtol=1e-7)


def test_predictions_do_not_look_ahead() -> None:
    """Cutting the future off changes no prediction made before."""
    recs = random_walk(6, 3000)
    whole, part = (run(History("S", "walk", r), LEARNS) for r in (recs, recs[:2000].copy()))
    assert len(part.p) > 50
    np.testing.assert_array_equal(whole.p[: len(part.p)], part.p)


def test_models_that_are_off_change_nothing() -> None:
    """Without ml.enabled the signals are the same bytes whatever else ml says, and the model's bit is never set."""
    recs = random_walk(7, 3000)
    off = [batch.signals_of(recs, Strategy(ml=Ml(horizon_ms=h, min_confidence=c))) for h, c in ((1000, 0.1), (50, 0.0))]
    assert off[0].tobytes() == off[1].tobytes()
    assert not (off[0]["ready_mask"] >> MODEL & 1).any()


def test_a_batch_model_votes_and_the_gate_asks_for_it() -> None:
    """A linear model of the constant alone says up everywhere: its strength is tanh(w/2), and no sell passes its gate."""
    recs = random_walk(8, RECORDS)
    required = Strategy(ml=Ml(enabled=True, online=False, required=True, every_ms=0))
    state, glob, params, table = world(required)
    image = make_images(params, 1)
    image["batch_kind"], image["batch_version"] = LINEAR, 1
    image["batch_w"][0, BIAS], image["batch_scale"][0, BIAS] = 1.0, 1.0
    out = np.zeros(len(recs), SIGNAL_RECORD)
    for i in range(len(recs)):
        features.on_market(recs, i, state, glob, params, table, out, i)
    spoke = out["strength"][:, MODEL] != 0
    assert spoke.sum() > 1000
    np.testing.assert_allclose(out["strength"][spoke, MODEL], math.tanh(0.5), rtol=1e-6)
    assert not (out["side"] == -1).any()
    assert (out["active_mask"][spoke] >> MODEL & 1).all()
    assert reason(Signal.MODEL, 0.46, Strategy().features) == "models expect the next move beyond costs up, confidence 0.46"


def test_the_row_that_a_model_sees_is_the_batch_row() -> None:
    """What the models were asked with is the feature matrix' row of that record: training and use agree."""
    recs = random_walk(9, 2500)
    matrix, _, _ = batch.feature_matrix(recs)
    state, glob, params, table = world()
    out = np.zeros(1, SIGNAL_RECORD)
    for i in range(len(recs)):
        features.on_market(recs, i, state, glob, params, table, out, 0)
        np.testing.assert_array_equal(state["model_row"][0][: feature_vector.N_FEATURES], matrix[i])


def test_labels_by_hand() -> None:
    """The mid at the horizon is that of the last record at or before it; no label where the future is not known."""
    ts = np.array([0, 10, 20, 30, 40, 50], np.int64)
    mid = np.array([100.0, 101.0, 100.0, 98.0, 0.0, 99.0])
    rows = np.arange(5, dtype=np.int64)
    label, ended = horizon_labels(ts, mid, rows, 20, 0.005)
    assert label.tolist() == [online_model.FLAT, online_model.DOWN, NONE, NONE, NONE]
    assert ended.tolist() == [20, 30, 40, 50, 60]
    label, ended = barrier_labels(ts, mid, rows, 20, 0.005, 0.015)
    assert label.tolist() == [online_model.UP, online_model.DOWN, online_model.DOWN, NONE, NONE]
    assert ended.tolist()[:3] == [10, 30, 30]


def test_labels_are_the_online_models_outcomes() -> None:
    """The batch labels count as many moves as the online model has learned from, but for the samples that still wait."""
    recs = random_walk(10, RECORDS)
    state, glob, params, table = world()
    out, rows, at = np.zeros(1, SIGNAL_RECORD), [], 0
    for i in range(len(recs)):
        features.on_market(recs, i, state, glob, params, table, out, 0)
        if int(state["pending_next_ns"][0]) not in (0, at):
            at = int(state["pending_next_ns"][0])
            rows.append(i)
    mid = mids(History("S", "walk", recs), LEARNS)
    label, _ = horizon_labels(np.ascontiguousarray(recs["ts_ns"]), mid, np.array(rows), 500_000_000, 5e-6)
    assert (np.abs(label) == 1).sum() == int(state["outcomes"][0]) > 300


def test_nothing_knows_what_comes() -> None:
    """With both models on, the records after one change nothing of what was said up to it; nor of labels that had ended."""
    both = Strategy(ml=Ml(enabled=True, horizon_ms=500, cost_bps=0.05, every_ms=0, warm_outcomes=50, min_confidence=0.0))

    def lean(state: np.ndarray, images: np.ndarray) -> None:
        images["batch_kind"], images["batch_scale"], images["batch_w"] = LINEAR, 1.0, 0.01

    recs, other, cut = random_walk(11, RECORDS), random_walk(12, RECORDS), 3500
    changed = np.concatenate([recs[:cut], other[cut:]])
    changed["ts_ns"] = recs["ts_ns"]
    said = [batch.Pass([Instrument("S0")], both, start=lean).signals(r) for r in (recs, changed, recs[:cut])]
    assert said[0][:cut].tobytes() == said[1][:cut].tobytes() == said[2].tobytes()
    assert said[0][cut:].tobytes() != said[1][cut:].tobytes() and (said[2]["strength"][:, MODEL] != 0).sum() > 1000
    history = [History("S", "walk", r) for r in (recs, changed)]
    sets = [data_set(h, both) for h in history]
    known = sets[0].ended < recs["ts_ns"][cut]
    assert known.sum() > 100
    for key in ("x", "label", "ended"):
        np.testing.assert_array_equal(getattr(sets[0], key)[known], getattr(sets[1], key)[: len(known)][known])


def test_a_model_speaks_for_its_own_symbol_alone() -> None:
    """Of two symbols the one without a model has no model signal, and is else what it would be without the other's."""
    recs = random_walk(13, 3000)
    recs["symbol"] = np.arange(len(recs)) % 2
    alone = Strategy(ml=Ml(enabled=True, online=False, required=False, every_ms=0))

    def second(state: np.ndarray, images: np.ndarray) -> None:
        images["batch_kind"][1], images["batch_w"][1, BIAS], images["batch_scale"][1, BIAS] = LINEAR, 1.0, 1.0

    pair = [Instrument("S0"), Instrument("S1")]
    off, on = (batch.Pass(pair, alone, start=start).signals(recs) for start in (None, second))
    assert not (on["strength"][recs["symbol"] == 0, MODEL] != 0).any()
    assert (on["strength"][recs["symbol"] == 1, MODEL] > 0.4).any()
    assert on[recs["symbol"] == 0].tobytes() == off[recs["symbol"] == 0].tobytes()
