"""The learner's parts: splits that leak nothing, figures that are right, a registry that cannot be fooled, promotion's rule."""

from __future__ import annotations

import json
import math
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from procs.cli.main import main
from procs.cli.outcome import FAILED, OK, USAGE
from procs.learning import registry, synthetic
from procs.learning.evaluation import auc, blocks_of, bootstrap, psi, reliability, spread_of
from procs.learning.extras import LearningError
from procs.learning.figures import Figure, Verdict
from procs.learning.install import check, named, put
from procs.learning.model_file import Model, Span, TreeData, decode, encode
from procs.learning.promotion import judge
from procs.learning.splits import walk_forward
from procs.memory import model_channel as channel
from procs.profiles.config import load_profile
from procs.profiles.strict_yaml import ConfigError
from trading.features import vector as feature_vector
from trading.features.model_layout import MODEL_IMAGE, TREES
from trading.scoring import one_pass as features
from trading.settings import Ml

GOOD = Verdict(
    rows=500, blocks=50, level=0.99, auc=Figure(0.6, 0.55, 0.65), brier_gain=Figure(0.01, 0.005, 0.02), brier=0.24,
    baseline_brier=0.25, log_loss=0.68, baseline_log_loss=0.69, ups=0.5,
)  # fmt: skip
POOR = msgspec.structs.replace(GOOD, refused="its AUC 0.510 could be chance: the 99% interval begins at 0.480")


def made(verdict: Verdict = GOOD, name: str = "edge") -> Model:
    """A model of one lone leaf."""
    return Model(
        name=name, kind="trees", feature_version=feature_vector.VERSION, features=list(feature_vector.NAMES), horizon_ms=1000,
        cost_bps=1.0, span=Span(0, 1, 500, ["BTCUSDT"], ["day1"]), verdict=verdict, importance={"rsi": 1.0},
        trees=[TreeData([], [], [], [], [0.5])],
    )  # fmt: skip


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The registry below a folder of the test."""
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


@given(st.lists(st.integers(0, 10_000), min_size=60, max_size=200), st.integers(1, 500), st.integers(0, 500), st.integers(1, 4))
@settings(max_examples=100, deadline=None)
def test_no_split_leaks(stamps: list[int], horizon: int, embargo: int, folds: int) -> None:
    """Nothing is trained on whose label was known later than the embargo before the test; each row is tested at most once."""
    ts = np.array(stamps, np.int64)
    tested: set[int] = set()
    try:
        for train, test in walk_forward(ts, ts + horizon, folds, embargo):
            assert (ts[train] + horizon + embargo).max() < ts[test].min()
            assert not tested & set(test.tolist())
            tested |= set(test.tolist())
    except LearningError as error:
        assert "give longer recordings" in str(error)


@given(st.lists(st.tuples(st.integers(0, 8), st.booleans()), min_size=2, max_size=40))
@settings(max_examples=100, deadline=None)
def test_auc_is_the_share_of_pairs(pairs: list[tuple[int, bool]]) -> None:
    """It is the share of (up, down) pairs in the right order, ties half; nothing without both."""
    p, y = np.array([a / 8 for a, _ in pairs]), np.array([float(b) for _, b in pairs])
    ups, downs = p[y > 0], p[y == 0]
    got = auc(p, y)
    if not len(ups) or not len(downs):
        assert math.isnan(got)
        return
    assert got == pytest.approx(np.mean([(u > d) + 0.5 * (u == d) for u in ups for d in downs]))


def test_psi_and_reliability_by_hand() -> None:
    """No move gives 0, two bins that swap their shares what the formula says; a curve counts each row once."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=1000)
    assert psi(*spread_of(x), x) == pytest.approx(0.0, abs=1e-12)
    assert psi(*spread_of(x), x + 1.0) > 0.25
    assert psi([0.0], [0.8, 0.2], np.array([-1.0] * 2 + [1.0] * 8)) == pytest.approx(2 * 0.6 * math.log(4))
    curve = reliability(np.array([0.05, 0.05, 0.95, 1.0]), np.array([0.0, 1.0, 1.0, 1.0]))
    assert [(b.rows, b.came) for b in curve] == [(2, 0.5), (2, 1.0)]


def test_the_bootstrap_covers_what_it_should() -> None:
    """Of 100 means of dependent rows about 95 lie in their 95% intervals: blocks keep the dependence."""
    hits = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        values = np.repeat(rng.normal(size=100), 10)
        ts = np.arange(1000, dtype=np.int64)
        found = bootstrap(lambda rows, v=values: (float(v[rows].mean()),), blocks_of(ts, 20), draws=200, seed=seed)[0]
        hits += found.low is not None and found.high is not None and found.low <= 0.0 <= found.high
    assert 85 <= hits <= 100


def test_promotion_wants_rows_blocks_and_both_figures() -> None:
    """Each of the test's conditions alone refuses, with its sentence; a real edge passes."""
    rng = np.random.default_rng(4)
    n, horizon = 4000, 10
    ts = np.arange(n, dtype=np.int64) * horizon
    truth = rng.uniform(0.2, 0.8, n)
    y = (rng.random(n) < truth).astype(float)
    half = np.full(n, 0.5)
    assert judge(truth, half, y, ts, horizon, draws=300).passed
    assert "could be chance" in judge(rng.permutation(truth), half, y, ts, horizon, draws=300).refused
    boastful = np.where(truth > 0.5, 0.99, 0.01)  # right order, wrong size
    assert "squared error" in judge(boastful, half, y, ts, horizon, draws=300).refused
    assert "too few" in judge(truth[:100], half[:100], y[:100], ts[:100], horizon, draws=50).refused
    assert "too few" in judge(truth, half, y, ts // 1000, horizon, draws=50).refused
    none = np.zeros(0)
    assert "too few" in judge(none, none, none, none.astype(np.int64), horizon).refused


def test_a_model_file_comes_back_and_cannot_be_changed() -> None:
    """Encoding and decoding give the same model; one changed figure, another schema or no JSON are refused."""
    model = made()
    raw = encode(model)
    assert msgspec.structs.replace(decode(raw, "x"), digest="") == model
    for bad in (raw.replace(b"0.6", b"0.7"), b"{}", b"\xff", raw.replace(b'"trees"', b'"forest"', 1), raw + b"x"):
        with pytest.raises(LearningError, match="train it anew"):
            decode(bad, "x")


def test_versions_and_promotions() -> None:
    """Versions count up and stay; only a version that beat the baseline is promoted; a name means the one promoted last."""
    assert registry.names() == []
    with pytest.raises(LearningError, match="no promoted version"):
        registry.pinned("edge")
    assert [registry.save(made(v)).version for v in (GOOD, POOR, GOOD)] == [1, 2, 3]
    with pytest.raises(LearningError, match="edge@2 is not promoted: its AUC 0.510"):
        registry.promote("edge@2")
    registry.promote("edge@1")
    assert registry.pinned("edge") == "edge@1"
    with pytest.raises(LearningError, match="edge@3 is not promoted"):
        registry.load("edge@3")
    registry.promote("edge")
    assert registry.pinned("edge") == "edge@3" and registry.pinned("edge@1") == "edge@1"
    for bad in ("edge@x", "../edge", "", "edge@99", "none"):
        with pytest.raises(LearningError):
            registry.load(bad)


def test_a_model_that_does_not_fit_is_refused() -> None:
    """Another feature vector, horizon or cost, arrays or trees of the wrong size, another symbol: a sentence each."""
    image, state = np.zeros(1, MODEL_IMAGE), np.zeros(1, features.FEATURE_STATE)
    good = made()
    put(good, state, image)
    assert image["batch_kind"][0] == TREES
    changes = {
        "reads feature vector": {"feature_version": 99},
        "looks 500 ms ahead": {"horizon_ms": 500},
        "moves beyond 2 bps, ml.cost_bps is 1": {"cost_bps": 2.0},
        "arrays that are not": {"kind": "linear"},
        "asks for feature 99": {"trees": [TreeData([99], [0.0], [-1], [-1], [0.5])]},
    }
    for said, change in changes.items():
        with pytest.raises(LearningError, match=said):
            other = msgspec.structs.replace(good, **change)
            check(other, Ml())
            put(other, state, image)
    for model in (good, good, msgspec.structs.replace(good, name="table", kind="microprice")):
        registry.save(model)
        registry.promote(model.name)
    assert list(named("edge@1", "ml.model", ["ETHUSDT", "BTCUSDT"])) == [1]
    for said, key, text, symbols in (
        ("was trained on BTCUSDT, this is ETHUSDT", "ml.model", "edge", ["ETHUSDT"]),
        ("names two models of BTCUSDT", "ml.model", "edge@1,edge@2", ["BTCUSDT"]),
        ("name it in features.microprice", "ml.model", "table", ["BTCUSDT"]),
        ("name it in ml.model", "features.garch", "edge", ["BTCUSDT"]),
    ):
        with pytest.raises(LearningError, match=said):
            named(",".join(registry.pinned(one) for one in text.split(",")), key, symbols)


def test_a_profile_pins_its_model() -> None:
    """`ml.model: edge` becomes the version promoted last; an unknown one is refused with its key; ml off asks for none."""
    registry.save(made())
    with pytest.raises(ConfigError, match=r"ml\.model.*no promoted version"):
        load_profile("paper", {"ml.enabled": True, "ml.model": "edge"}, pin=registry.all_pinned)
    assert load_profile("paper", {"ml.model": "edge"}, pin=registry.all_pinned).ml.model == "edge"
    registry.promote("edge")
    assert load_profile("paper", {"ml.enabled": True, "ml.model": "edge"}, pin=registry.all_pinned).ml.model == "edge@1"


def test_a_publisher_waits_until_the_last_model_is_in_force() -> None:
    """The two images take turns, and none is written over before the stage has confirmed the other."""
    words = np.zeros(channel.words_for(1), np.int64)
    words[channel.SYMBOLS] = 1
    for number in (1, 2, 3):
        image = np.full(channel.IMAGE_WORDS, number, np.int64)
        assert channel.publish(words, image) == number
        with pytest.raises(channel.ChannelBusy, match="not in force yet"):
            channel.publish(words, image)
        words[channel.IN_FORCE] = number
    start = [channel.IMAGES, channel.IMAGES + channel.IMAGE_WORDS]
    assert [int(words[at]) for at in start] == [2, 3]


def test_the_commands_say_what_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    """ls, promote and report: figures, refusals in one sentence, exit codes."""
    assert main(["model", "ls"]) == OK
    assert "no models yet" in capsys.readouterr().out
    registry.save(made())
    registry.save(made(POOR))
    assert main(["model", "promote", "edge"]) == FAILED
    assert "edge@2 is not promoted: its AUC 0.510" in capsys.readouterr().err
    assert main(["model", "promote", "edge@1", "--json"]) == OK
    assert json.loads(capsys.readouterr().out) == {"promoted": "edge@1"}
    assert main(["model", "ls", "--json"]) == OK
    assert [(r["model"], r["promoted"]) for r in json.loads(capsys.readouterr().out)] == [("edge@1", True), ("edge@2", False)]
    assert main(["model", "report", "edge@1"]) == OK
    assert "AUC            0.600 (0.550 to 0.650)" in capsys.readouterr().out
    assert main(["model", "report"]) == USAGE
    assert "--recording" in capsys.readouterr().err


def test_the_online_model_finds_a_planted_edge_and_nothing_else() -> None:
    """Three markets of each sort (all twenty: scalperctl model report --synthetic)."""
    with_edge, without = (
        [synthetic.trial(seed, edge, ("online",), draws=200).verdicts["online"] for seed in (1, 2, 3)]
        for edge in (synthetic.PLANTED_EDGE, 0.0)
    )
    assert all(v.passed for v in with_edge)
    assert not any(v.passed for v in without)
